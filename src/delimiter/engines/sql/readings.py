"""Reading without locks: usage, limits and checks each in one statement, and so of one moment; and claims.

Reservations that ran out are left out wherever they are still counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engine import ClaimQuery
from delimiter.engines.ledger import over_limit
from delimiter.engines.sql.claims import Claims
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.events import Standing
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.projects import within
from delimiter.engines.sql.sums import group_key, halves, whole
from delimiter.engines.sql.ways import has_limit
from delimiter.model import (
    LIVE_STATES,
    SCOPE_KINDS,
    UNLIMITED,
    Claim,
    Decision,
    Level,
    Scope,
    ScopeKind,
    Usage,
    Violation,
)
from delimiter.refusals import unknown_claim, unknown_resource

__all__ = ["Readings"]


_NOW: Final = sa.bindparam("now", type_=sa.BigInteger)


class Readings:
    """Reads one store."""

    def __init__(self, ground: Ground, claims: Claims, counts: Counts) -> None:
        clock = ground.clock
        self._counts = counts
        self._tables = ground.tables
        self._projects = ground.projects
        self._definitions = ground.definitions
        self._claims = claims
        self._now = clock.now
        self._statement = lru_cache(maxsize=64)(self._build)
        self._rows = sa.select(*claims.columns, clock.now().label("now"))

    # -- usage and limits ---------------------------------------------------------------------------------------

    def usage(self, connection: sa.Connection, scope: Scope) -> dict[str, Usage]:
        levels = self._read(connection, [scope], derive=True)
        return {level.resource: Usage(level.limit, level.used, level.reserved) for level in levels}

    def limits(self, connection: sa.Connection, scope: Scope) -> dict[str, int]:
        return {level.resource: level.limit for level in self._read(connection, [scope], derive=None)}

    def standing(self, connection: sa.Connection, resource: str, scope: Scope) -> Standing:
        """The limit of one scope, and what it uses of one resource now."""
        (level,) = self._read(connection, [scope], derive=True, names=[resource])
        return Standing(level.limit, level.used)

    def check(
        self, connection: sa.Connection, resources: Mapping[str, int], scopes: Sequence[Scope]
    ) -> Decision:
        self._counts.refuse_elsewhere(connection, resources)
        levels = self._read(
            connection, [Scope.total(), *scopes], derive=False, whole_way=True, names=list(resources)
        )
        violations: list[Violation] = []
        available: dict[str, int | None] = dict.fromkeys(resources)
        self._counts.refuse_uncounted(levels, scopes)
        for level in levels:
            if level.scope in scopes or level.limit != UNLIMITED:
                violation = over_limit(
                    level.resource, level.scope, level.limit, level.used, resources[level.resource]
                )
                if violation is not None:
                    violations.append(violation)
            if level.available is not None:
                before = available[level.resource]
                available[level.resource] = (
                    level.available if before is None else min(before, level.available)
                )
        return Decision(not violations, tuple(violations), available)

    def levels(self, connection: sa.Connection, names: Sequence[str], scopes: Sequence[Scope]) -> list[Level]:
        """Also what those use that have no limit: a part of the statement for each ancestor, read just before.

        (Adding up the subtrees of all ancestors at once took MariaDB seconds in a deep tree.)
        """
        self._counts.refuse_elsewhere(connection, names)
        projects = [scope.name for scope in scopes if scope.kind == "project"]
        above = [
            Scope("project", ancestor)
            for ancestors in self._projects.above(connection, projects).values()
            for ancestor in ancestors
        ]
        levels = self._read(connection, [Scope.total(), *scopes], derive=True, above=above, names=names)
        return sorted(levels, key=lambda level: names.index(level.resource))

    def _read(
        self,
        connection: sa.Connection,
        scopes: Sequence[Scope],
        *,
        derive: bool | None,
        above: Sequence[Scope] = (),
        whole_way: bool = False,
        names: Sequence[str] | None = None,
    ) -> list[Level]:
        """A level for each resource and scope: by resource, then from the total down the tree to the user.

        ``derive``: what a scope without a limit uses is added up; it is on nobody's way (``None``: no usage is wanted).
        ``whole_way``: with the ancestors of the project; ``above``: with these, the parent first.
        """
        kinds = tuple(scope.kind for scope in scopes)
        statement = self._statement(kinds, len(above), bool(derive), whole_way, names is not None)
        values: dict[str, Any] = {
            f"scope{number}": scope.name for number, scope in enumerate([*scopes, *above])
        }
        # Bound as a value: compared with a sub-select, PostgreSQL would take a third of all reservations for due.
        values["now"] = self._claims.now(connection)
        if names is not None:
            values["names"] = list(names)
        rows = connection.execute(statement, values).all()
        if names is not None:
            known = {row.name for row in rows}
            for name in names:
                if name not in known:
                    raise unknown_resource(name)
        rows = sorted(rows, key=lambda row: (row.name, SCOPE_KINDS.index(row.kind), -row.distance))
        levels = [Level(row.name, Scope(row.kind, row.scope), row.maximum, *_used(row)) for row in rows]
        return levels if derive is None else self._counts.put_in(connection, levels)

    def _build(
        self,
        kinds: tuple[ScopeKind, ...],
        above: int,
        derive: bool,  # noqa: FBT001 - lru_cache keys are positional
        whole_way: bool,  # noqa: FBT001
        named: bool,  # noqa: FBT001
    ) -> sa.Executable:
        listed = [(kind, 0) for kind in kinds] + [("project", distance + 1) for distance in range(above)]
        parts = []
        for number, (kind, distance) in enumerate(listed):
            scope = sa.bindparam(f"scope{number}", type_=self._tables.counters.c.scope.type)
            parts.append(self._own_part(kind, scope, distance, derive=derive, named=named))
            if whole_way and kind == "project":
                parts.append(self._part_above(scope, named=named))
        return parts[0] if len(parts) == 1 else sa.union_all(*parts)

    def _own_part(
        self, kind: ScopeKind, scope: sa.BindParameter[str], distance: int, *, derive: bool, named: bool
    ) -> sa.Select[Any]:
        """The scope itself."""
        r, l, k = self._tables.resources, self._tables.limits, self._tables.counters  # noqa: E741
        gone = self._gone(self._owned(kind, scope)).subquery()
        joined = (
            r.outerjoin(l, sa.and_(l.c.resource_id == r.c.id, l.c.kind == kind, l.c.scope == scope))
            .outerjoin(k, sa.and_(k.c.resource_id == r.c.id, k.c.kind == kind, k.c.scope == scope))
            .outerjoin(gone, gone.c.resource_id == r.c.id)
        )
        derived = self._derived(kind, scope) if derive else None
        if derived is not None:
            joined = joined.outerjoin(derived, derived.c.resource_id == r.c.id)
        columns = [
            r.c.name,
            sa.literal(kind).label("kind"),
            scope.label("scope"),
            sa.literal_column(str(distance), sa.BigInteger).label("distance"),
            sa.func.coalesce(k.c.maximum, l.c.maximum, r.c[f"{kind}_max"]).label("maximum"),
            *_amounts(k, gone, derived),
        ]
        return self._of_resources(sa.select(*columns).select_from(joined), named=named)

    def _part_above(self, scope: sa.BindParameter[str], *, named: bool) -> sa.Select[Any]:
        """The ancestors of a project; those with a limit, with what the whole of their subtree holds."""
        r, l, k = self._tables.resources, self._tables.limits, self._tables.counters  # noqa: E741
        x = self._tables.ancestors.alias()
        reach = self._reach(scope)
        top = group_key(reach.c.top, "top")
        gone = (
            self._gone(sa.true())
            .join(reach, reach.c.member == self._tables.claims.c.project_id)
            .add_columns(top)
            .group_by(top)
            .subquery()
        )

        def here(table: sa.FromClause) -> sa.ColumnElement[bool]:
            return sa.and_(
                table.c.resource_id == r.c.id, table.c.kind == "project", table.c.scope == x.c.ancestor
            )

        joined = (
            r.join(x, x.c.project == scope)
            .outerjoin(l, here(l))
            .outerjoin(k, here(k))
            .outerjoin(gone, sa.and_(gone.c.resource_id == r.c.id, gone.c.top == x.c.ancestor))
        )
        columns = [
            r.c.name,
            sa.literal("project").label("kind"),
            x.c.ancestor.label("scope"),
            x.c.distance,
            sa.func.coalesce(k.c.maximum, l.c.maximum, r.c.project_max).label("maximum"),
            *_amounts(k, gone, None),
        ]
        return self._of_resources(sa.select(*columns).select_from(joined), named=named)

    def _of_resources(self, statement: sa.Select[Any], *, named: bool) -> sa.Select[Any]:
        r = self._tables.resources.c
        statement = statement.where(r.defined == 1)
        return statement.where(r.name.in_(sa.bindparam("names", expanding=True))) if named else statement

    def _reach(self, scope: sa.BindParameter[str]) -> sa.Subquery:
        """Each ancestor of a project (``top``) with every project of its subtree (``member``)."""
        x, y = self._tables.ancestors.alias(), self._tables.ancestors.alias()
        itself = sa.select(x.c.ancestor.label("top"), x.c.ancestor.label("member")).where(
            x.c.project == scope
        )
        below = (
            sa.select(x.c.ancestor, y.c.project)
            .join(y, y.c.ancestor == x.c.ancestor)
            .where(x.c.project == scope)
        )
        return sa.union_all(itself, below).subquery()

    def _owned(self, kind: ScopeKind, scope: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Whether a claim is charged to the scope."""
        c = self._tables.claims.c
        if kind == "project":
            return within(self._tables, c.project_id, scope)
        return c.user_id == scope if kind == "user" else sa.true()

    def _gone(self, owned: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """What ran out and is still on counters, by resource."""
        c, a = self._tables.claims.c, self._tables.allocations.c
        resource_id = group_key(a.resource_id, "resource_id")
        return (
            sa.select(resource_id, *halves(a.amount, "gone"))
            .select_from(self._tables.claims.join(self._tables.allocations, a.claim == c.id))
            .where(c.expires_at <= _NOW, owned)
            .group_by(resource_id)
        )

    def _derived(self, kind: ScopeKind, scope: sa.BindParameter[str]) -> sa.Subquery | None:
        """What a scope without a limit uses, which no counter says. (A user's counter does, limited or not.)"""
        if kind == "total":
            return self._derived_total()
        if kind == "user":
            return None
        k, own = self._tables.counters, self._tables.counters.alias()
        # Compared within one statement, so that a counter which turns meanwhile is counted once.
        counted = sa.select(own.c.resource_id).where(
            own.c.kind == "project", own.c.scope == scope, has_limit(own)
        )
        resource_id = group_key(k.c.resource_id, "resource_id")
        return (
            sa.select(resource_id, *_own_sums(k))
            .where(k.c.kind == "project", within(self._tables, k.c.scope, scope))
            .where(k.c.resource_id.not_in(counted))
            .group_by(resource_id)
            .subquery()
        )

    def _derived_total(self) -> sa.Subquery:
        """What all claims hold of the resources whose total has no counter, because it has no limit."""
        c, a, k = self._tables.claims.c, self._tables.allocations.c, self._tables.counters.c
        counted = sa.select(k.resource_id).where(k.kind == "total")
        reserved = sa.case((c.expires_at.is_not(None), a.amount), else_=0)
        resource_id = group_key(a.resource_id, "resource_id")
        sums = [*halves(a.amount, "derived_used"), *halves(reserved, "derived_reserved")]
        return (
            sa.select(resource_id, *sums)
            .select_from(self._tables.claims.join(self._tables.allocations, a.claim == c.id))
            .where(c.state.in_(LIVE_STATES), a.resource_id.not_in(counted))
            .group_by(resource_id)
            .subquery()
        )

    # -- claims -------------------------------------------------------------------------------------------------

    def claim(self, connection: sa.Connection, id: str) -> Claim:
        entry = self._claims.find(connection, id, lock=False)
        if entry is None:
            raise unknown_claim(id)
        return entry.as_claim(self._claims.now(connection))

    def named(
        self, connection: sa.Connection, names: Sequence[str], *, since: int
    ) -> list[tuple[Claim, bool]]:
        entries = self._claims.named(connection, names)
        now = self._claims.now(connection)
        return [(entry.as_claim(now), entry.touched_after(since, now)) for entry in entries]

    def page(
        self, connection: sa.Connection, query: ClaimQuery, *, after: int, size: int
    ) -> tuple[list[Claim], int | None]:
        c, a = self._tables.claims.c, self._tables.allocations.c
        statement = self._rows.where(c.id > after, self._in_state(query)).order_by(c.id).limit(size)
        if query.project is not None:
            project = sa.literal(query.project, c.project_id.type)
            theirs = within(self._tables, c.project_id, project) if query.subtree else c.project_id == project
            statement = statement.where(theirs)
        if query.user is not None:
            statement = statement.where(c.user_id == query.user)
        if query.resource is not None:
            resource_id = self._definitions.id_if_known(connection, query.resource)
            if resource_id is None:
                return [], None
            statement = statement.where(sa.exists().where(a.claim == c.id, a.resource_id == resource_id))
        rows = connection.execute(statement).all()
        return self._as_claims(connection, rows), rows[-1].id if len(rows) == size else None

    def _in_state(self, query: ClaimQuery) -> sa.ColumnElement[bool]:
        c = self._tables.claims.c
        waiting = sa.and_(c.state == "reserved", c.expires_at > self._now())
        ran_out = sa.and_(c.state == "reserved", c.expires_at <= self._now())
        match query.state:
            case None:
                return sa.or_(c.state == "provisioned", waiting)
            case "reserved":
                return waiting
            case "expired":
                return sa.or_(c.state == "expired", ran_out)
            case other:
                return c.state == other

    def _as_claims(self, connection: sa.Connection, rows: Sequence[Any]) -> list[Claim]:
        entries = self._claims.with_amounts(connection, rows)
        return [entry.as_claim(row.now) for entry, row in zip(entries, rows, strict=True)]


def _own_sums(counters: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    """What projects hold themselves, added up; in halves, as sums of claims are."""
    k = counters.c
    return [
        *halves(k.used - k.used_below, "derived_used"),
        *halves(k.reserved - k.reserved_below, "derived_reserved"),
    ]


def _amounts(
    counters: sa.FromClause, gone: sa.FromClause, derived: sa.FromClause | None
) -> list[sa.ColumnElement[Any]]:
    names = ("derived_used_high", "derived_used_low", "derived_reserved_high", "derived_reserved_low")
    nothing = sa.cast(sa.null(), sa.BigInteger)
    found = [nothing.label(name) if derived is None else derived.c[name] for name in names]
    return [counters.c.used, counters.c.reserved, gone.c.gone_high, gone.c.gone_low, *found]


def _used(row: Any) -> tuple[int, int]:
    """What a scope uses and how much of that is reserved, without what ran out."""
    gone = whole(row, "gone")
    if row.derived_used_low is not None:
        return whole(row, "derived_used") - gone, whole(row, "derived_reserved") - gone
    return (0, 0) if row.used is None else (row.used - gone, row.reserved - gone)
