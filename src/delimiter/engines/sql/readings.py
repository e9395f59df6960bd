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
from delimiter.engines.sql.databases import Clock
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.schema import Tables
from delimiter.engines.sql.sums import halves, whole
from delimiter.model import UNLIMITED, Claim, Decision, Scope, ScopeKind, Usage, Violation
from delimiter.refusals import unknown_claim, unknown_resource

__all__ = ["Readings"]


_NOW: Final = sa.bindparam("now", type_=sa.BigInteger)


class Readings:
    """Reads one store."""

    def __init__(self, tables: Tables, clock: Clock, definitions: Definitions, claims: Claims) -> None:
        self._tables = tables
        self._definitions = definitions
        self._claims = claims
        self._now = clock.now
        self._statement = lru_cache(maxsize=64)(self._build)
        self._rows = sa.select(*claims.columns, clock.now().label("now"))

    # -- usage and limits ---------------------------------------------------------------------------------------

    def usage(self, connection: sa.Connection, scope: Scope) -> dict[str, Usage]:
        rows = self._read(connection, [scope], derive=scope.kind == "total")
        return {row.name: Usage(row.maximum, *_used(row)) for row in rows}

    def limits(self, connection: sa.Connection, scope: Scope) -> dict[str, int]:
        return {row.name: row.maximum for row in self._read(connection, [scope], derive=False)}

    def used(self, connection: sa.Connection, resource: str, scope: Scope) -> int:
        """What one scope uses of one resource now."""
        (row,) = self._read(connection, [scope], derive=False, names=[resource])
        return _used(row)[0]

    def check(
        self, connection: sa.Connection, resources: Mapping[str, int], scopes: Sequence[Scope]
    ) -> Decision:
        rows = self._read(connection, [Scope.total(), *scopes], derive=False, names=list(resources))
        violations: list[Violation] = []
        available: dict[str, int | None] = dict.fromkeys(resources)
        known = {row.name for row in rows}
        for name in resources:
            if name not in known:
                raise unknown_resource(name)
        for row in rows:
            used = _used(row)[0]
            scope = Scope(row.kind, row.scope)
            if scope.kind != "total" or row.maximum != UNLIMITED:
                violation = over_limit(row.name, scope, row.maximum, used, resources[row.name])
                if violation is not None:
                    violations.append(violation)
            if row.maximum != UNLIMITED:
                room = max(0, row.maximum - used)
                before = available[row.name]
                available[row.name] = room if before is None else min(before, room)
        return Decision(not violations, tuple(violations), available)

    def _read(
        self,
        connection: sa.Connection,
        scopes: Sequence[Scope],
        *,
        derive: bool,
        names: Sequence[str] | None = None,
    ) -> list[Any]:
        """A row for each defined resource and scope, by resource, then in the order of the scopes."""
        statement = self._statement(tuple(scope.kind for scope in scopes), derive, names is not None)
        values: dict[str, Any] = {f"scope{number}": scope.name for number, scope in enumerate(scopes)}
        # Bound as a value: compared with a sub-select, PostgreSQL would take a third of all reservations for due.
        values["now"] = self._claims.now(connection)
        if names is not None:
            values["names"] = list(names)
        rows = connection.execute(statement, values).all()
        order = {scope: number for number, scope in enumerate(scopes)}
        return sorted(rows, key=lambda row: (row.name, order[Scope(row.kind, row.scope)]))

    def _build(self, kinds: tuple[ScopeKind, ...], derive: bool, named: bool) -> sa.Executable:  # noqa: FBT001
        parts = [self._part(kind, number, derive=derive, named=named) for number, kind in enumerate(kinds)]
        return parts[0] if len(parts) == 1 else sa.union_all(*parts)

    def _part(self, kind: ScopeKind, number: int, *, derive: bool, named: bool) -> sa.Select[Any]:
        r, l, k = self._tables.resources, self._tables.limits, self._tables.counters  # noqa: E741
        scope = sa.bindparam(f"scope{number}", type_=k.c.scope.type)
        expired = self._expired(kind, scope)
        joined = (
            r.outerjoin(l, sa.and_(l.c.resource_id == r.c.id, l.c.kind == kind, l.c.scope == scope))
            .outerjoin(k, sa.and_(k.c.resource_id == r.c.id, k.c.kind == kind, k.c.scope == scope))
            .outerjoin(expired, expired.c.resource_id == r.c.id)
        )
        columns = [
            r.c.name,
            sa.literal(kind).label("kind"),
            scope.label("scope"),
            sa.func.coalesce(k.c.maximum, l.c.maximum, r.c[f"{kind}_max"]).label("maximum"),
            k.c.used,
            k.c.reserved,
            expired.c.gone_high,
            expired.c.gone_low,
        ]
        if derive:
            derived = self._derived()
            joined = joined.outerjoin(derived, derived.c.resource_id == r.c.id)
            columns += [c for c in derived.c if c.name != "resource_id"]
        statement = sa.select(*columns).select_from(joined).where(r.c.defined == 1)
        return statement.where(r.c.name.in_(sa.bindparam("names", expanding=True))) if named else statement

    def _expired(self, kind: ScopeKind, scope: sa.BindParameter[str]) -> sa.Subquery:
        """What ran out and is still on this scope's counters, by resource."""
        c, a = self._tables.claims.c, self._tables.allocations.c
        owner = {"total": sa.true(), "project": c.project_id == scope, "user": c.user_id == scope}[kind]
        return (
            sa.select(a.resource_id, *halves(a.amount, "gone"))
            .select_from(self._tables.claims.join(self._tables.allocations, a.claim == c.id))
            .where(c.expires_at <= _NOW, owner)
            .group_by(a.resource_id)
            .subquery()
        )

    def _derived(self) -> sa.Subquery:
        """What all live claims hold of the resources whose total has no counter, because it has no limit."""
        c, a, k = self._tables.claims.c, self._tables.allocations.c, self._tables.counters.c
        counted = sa.select(k.resource_id).where(k.kind == "total")
        reserved = sa.case((c.expires_at.is_not(None), a.amount), else_=0)
        return (
            sa.select(a.resource_id, *halves(a.amount, "derived_used"), *halves(reserved, "derived_reserved"))
            .select_from(self._tables.claims.join(self._tables.allocations, a.claim == c.id))
            .where(c.state.in_(("reserved", "provisioned")), a.resource_id.not_in(counted))
            .where(sa.or_(c.expires_at.is_(None), c.expires_at > _NOW))
            .group_by(a.resource_id)
            .subquery()
        )

    # -- claims -------------------------------------------------------------------------------------------------

    def claim(self, connection: sa.Connection, id: str) -> Claim:
        entry = self._claims.find(connection, id, lock=False)
        if entry is None:
            raise unknown_claim(id)
        return entry.as_claim(self._claims.now(connection))

    def page(
        self, connection: sa.Connection, query: ClaimQuery, *, after: int, size: int
    ) -> tuple[list[Claim], int | None]:
        c, a = self._tables.claims.c, self._tables.allocations.c
        statement = self._rows.where(c.id > after, self._in_state(query)).order_by(c.id).limit(size)
        if query.project is not None:
            statement = statement.where(c.project_id == query.project)
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


def _used(row: Any) -> tuple[int, int]:
    """What a scope uses and how much of that is reserved, without what ran out."""
    if row.used is None:
        derived = hasattr(row, "derived_used_low")
        return (whole(row, "derived_used"), whole(row, "derived_reserved")) if derived else (0, 0)
    gone = whole(row, "gone")
    return row.used - gone, row.reserved - gone
