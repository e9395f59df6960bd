"""Counted resources: what the rows of the service's own tables add up to. No number of it is stored."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from delimiter.counted import Counted, MissingIndex
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.expressions import CountExpressions, whole_number
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.ways import Start
from delimiter.errors import InvalidRequest
from delimiter.model import UNLIMITED, Consumer, Drift, Level, Scope, ScopeKind
from delimiter.refusals import counted_elsewhere

__all__ = ["Counts"]

#: Sums taken by one statement: SQLite allows a row no more than 2000 columns, and a query 500 terms.
_AT_ONCE: Final = 100


class Counts:
    """The counted resources of one store, as this process counts them."""

    def __init__(self, ground: Ground) -> None:
        self._database = ground.database
        self._definitions = ground.definitions
        self._ancestors = ground.tables.ancestors
        self._counters = ground.tables.counters
        self._projects = ground.projects
        self._counted: dict[str, CountExpressions] = {}
        self._statement = lru_cache(maxsize=256)(self._build)

    def register(self, resource: str, counted: Counted) -> None:
        """From now on; ``InvalidRequest`` where the expressions cannot be counted by."""
        self._counted[resource] = CountExpressions(resource, counted)
        self._statement.cache_clear()

    def names(self) -> frozenset[str]:
        return frozenset(self._counted)

    def __contains__(self, resource: object) -> bool:
        return resource in self._counted

    def is_recorded(self, connection: sa.Connection, resource: str) -> bool:
        """Whether every process, and operators, can know that the resource is counted and where."""
        return self._definitions.is_recorded(connection, resource, self._counted[resource].description())

    def record(self, connection: sa.Connection, resource: str) -> None:
        self._definitions.record_counted(connection, resource, self._counted[resource].description())

    def everywhere(self, connection: sa.Connection) -> dict[str, str]:
        """Also what other processes count, each with its table."""
        told = self._definitions.counted(connection)
        return {resource: json.loads(text)["table"] or "" for resource, text in sorted(told.items())}

    def is_elsewhere(self, connection: sa.Connection, resource: str) -> bool:
        """Whether only other processes know how the resource is counted: what it uses cannot be told here."""
        return resource not in self and self._definitions.is_counted(connection, resource)

    def refuse_elsewhere(self, connection: sa.Connection, resources: Iterable[str]) -> None:
        for name in resources:
            if self.is_elsewhere(connection, name):
                raise counted_elsewhere(name)

    def can(self, resource: str, kind: ScopeKind) -> bool:
        """Whether rows tell whose they are, of this kind."""
        return self._counted[resource].owner(kind) is not None or kind == "total"

    def can_hold(self, resource: str, scope: Scope) -> bool:
        """Whether the column of the scope's kind, if there is one, can hold its name."""
        count = self._counted[resource]
        return count.owner(scope.kind) is None or bool(count.convert(scope.kind, [scope.name]))

    def refuse_uncountable(self, resource: str, scope: Scope, limit: int) -> None:
        """A limit that cannot be kept is not passed over in silence."""
        if limit != UNLIMITED and not self.can(resource, scope.kind):
            raise InvalidRequest(
                f"{resource} has a limit for {scope}, but count() was not told which column names the {scope.kind};"
                f" call count({resource!r}, …, {scope.kind}=…)"
            )

    def refuse_stranger(self, resource: str, scope: Scope) -> None:
        """Rows of an owner that cannot be in the service's column would never be found, and so never limited."""
        if not self.can_hold(resource, scope):
            raise InvalidRequest(
                f"{scope} cannot be in the column that names the {scope.kind} of {resource}; write whole numbers"
                " without signs or zeros before them, UUIDs in small letters with hyphens"
            )

    def refuse_uncounted(self, levels: Iterable[Level], owners: Collection[Scope]) -> None:
        """What a guard would refuse to enter for."""
        for level in levels:
            if level.resource in self:
                self.refuse_uncountable(level.resource, level.scope, level.limit)
                if level.scope in owners:
                    self.refuse_stranger(level.resource, level.scope)

    # -- sums ---------------------------------------------------------------------------------------------------

    def of(
        self, connection: sa.Connection, wanted: Iterable[Start], *, alone: Collection[Start] = ()
    ) -> dict[Start, int]:
        """What each scope uses of each resource, a project with all below it (but for those ``alone``).

        To be called after whatever locks have to be held: at READ COMMITTED a statement that waited still sees the rest
        of the world as it was before the wait.
        """
        sums = dict.fromkeys(wanted, 0)
        countable = sorted(start for start in sums if self.can(start[0], start[1].kind))
        for part in chunks(countable, _AT_ONCE):
            shape = tuple((start[0], start[1].kind, start in alone) for start in part)
            row = connection.execute(self._statement(shape), self._values(connection, part, alone)).one()
            sums.update((start, whole_number(amount)) for start, amount in zip(part, row, strict=True))
        return sums

    def put_in(self, connection: sa.Connection, levels: Sequence[Level]) -> list[Level]:
        """The levels with what is counted: that is not on counters, its rows say what is used, now."""
        starts = [(level.resource, level.scope) for level in levels if level.resource in self]
        sums = self.of(connection, starts) if starts else {}
        return [
            level
            if (used := sums.get((level.resource, level.scope))) is None
            else replace(level, used=used, reserved=0)
            for level in levels
        ]

    def _values(
        self, connection: sa.Connection, starts: Sequence[Start], alone: Collection[Start] = ()
    ) -> dict[str, Any]:
        listed = [
            scope.name
            for resource, scope in starts
            if scope.kind == "project"
            and (resource, scope) not in alone
            and self._lists_names(self._counted[resource])
        ]
        below = self._projects.all_below(connection, listed)
        values: dict[str, Any] = {}
        for number, (resource, scope) in enumerate(starts):
            count = self._counted[resource]
            if (resource, scope) in alone:
                values[f"scope{number}"] = count.convert(scope.kind, [scope.name])
            elif scope.kind == "project" and self._lists_names(count):
                names = [scope.name, *below.get(scope.name, ())]
                values[f"scope{number}"] = count.convert(scope.kind, names)
            elif scope.kind == "project":
                values[f"scope{number}"] = values[f"top{number}"] = scope.name
            elif scope.kind == "user":
                values[f"scope{number}"] = count.convert(scope.kind, [scope.name])
        return values

    def _lists_names(self, count: CountExpressions) -> bool:
        """Whether a subtree's names must be handed over one by one, because its column cannot be joined by an index."""
        return not (self._database.joins_text and count.is_text("project"))

    def _build(self, shape: tuple[tuple[str, ScopeKind, bool], ...]) -> sa.Select[Any]:
        return sa.select(
            *(
                self._counted[resource]
                .select(self._is_owned(self._counted[resource], kind, number, alone=alone))
                .scalar_subquery()
                .label(f"sum{number}")
                for number, (resource, kind, alone) in enumerate(shape)
            )
        )

    def _is_owned(
        self, count: CountExpressions, kind: ScopeKind, number: int, *, alone: bool = False
    ) -> sa.ColumnElement[bool] | None:
        column = count.owner(kind)
        if column is None:
            return None
        if kind == "user" or alone or self._lists_names(count):
            type_ = sa.BigInteger() if isinstance(column.type, sa.Integer) else column.type
            return self._is_in(count, kind, sa.bindparam(f"scope{number}", expanding=True, type_=type_))
        x = self._ancestors.c
        # One list of names rather than two conditions with OR, which would keep PostgreSQL from using the index. The
        # collation is that of the service's column: that of ours would do the same.
        itself = sa.select(sa.bindparam(f"scope{number}", type_=sa.String()))
        top = sa.bindparam(f"top{number}", type_=x.ancestor.type)
        below = sa.select(self._database.collated(x.project, column.type)).where(x.ancestor == top)
        return self._is_in(count, kind, sa.union_all(itself, below))

    def _is_in(self, count: CountExpressions, kind: ScopeKind, names: Any) -> sa.ColumnElement[bool]:
        """By an index of the service's, whatever its collation; and then byte by byte, as names are."""
        column = count.owner(kind)
        assert column is not None
        exact = self._exact(count, kind)
        return column.in_(names) if exact is column else sa.and_(column.in_(names), exact.in_(names))

    def _exact(self, count: CountExpressions, kind: ScopeKind) -> sa.ColumnElement[Any]:
        column = count.owner(kind)
        assert column is not None
        if self._database.exactly is None or not count.is_text(kind):
            return column
        return self._database.exactly(column)

    # -- all at once --------------------------------------------------------------------------------------------

    def by_owner(
        self, connection: sa.Connection, resource: str, kind: ScopeKind
    ) -> Iterator[tuple[str, int]]:
        """What each project itself, or each user, uses; in no order."""
        yield from self._by_owner(connection, self._counted[resource], kind)

    def drifts(self, connection: sa.Connection, resource: str, counted: Counted) -> list[Drift]:
        """What owners themselves hold of a tracked resource, beside what rows add up to.

        A reservation's row may be there already or not yet: both agree.
        """
        count = CountExpressions(resource, counted)
        id, k = self._definitions.id_of(connection, resource), self._counters.c
        found = []
        kinds: tuple[ScopeKind, ...] = ("project", "user")
        for kind in kinds:
            if count.owner(kind) is None:
                continue
            actual = dict(self._by_owner(connection, count, kind))
            own = sa.select(k.scope, k.used - k.used_below, k.reserved - k.reserved_below)
            held = dict.fromkeys(actual, (0, 0))
            rows = connection.execute(own.where(k.resource_id == id, k.kind == kind))
            held.update((name, (used - reserved, used)) for name, used, reserved in rows)
            for name, (least, most) in sorted(held.items()):
                exists = actual.get(name, 0)
                if not least <= exists <= most:
                    recorded = least if exists < least else most
                    found.append(Drift(resource, f"{kind}:{name}", recorded, exists))
        return found

    def _by_owner(
        self, connection: sa.Connection, count: CountExpressions, kind: ScopeKind
    ) -> Iterator[tuple[str, int]]:
        if count.owner(kind) is None:
            return
        column = self._exact(count, kind)
        grouped = count.select(column.is_not(None)).add_columns(column.label("owner")).group_by(column)
        for amount, owner in connection.execute(grouped):
            if amount:
                yield str(owner), whole_number(amount)

    def consumers(
        self, connection: sa.Connection, resource: str, scope: Scope, *, size: int
    ) -> list[Consumer]:
        """Who holds most in a scope, the largest first, then by name."""
        count = self._counted[resource]
        owners = [
            sa.null() if count.owner(kind) is None else self._exact(count, kind)
            for kind in ("project", "user")
        ]
        known = [column for column in owners if not isinstance(column, sa.sql.elements.Null)]
        if scope.kind != "total" and not self.can(resource, scope.kind):
            return []
        statement = count.select(self._is_owned(count, scope.kind, 0)).add_columns(*owners).group_by(*known)
        statement = statement.order_by(sa.desc(statement.selected_columns[0]), *known).limit(size)
        rows = connection.execute(statement, self._values(connection, [(resource, scope)]))
        return [
            Consumer(
                None if project is None else str(project),
                None if user is None else str(user),
                whole_number(amount),
            )
            for amount, project, user in rows
        ]

    # -- indexes ------------------------------------------------------------------------------------------------

    def missing_indexes(self, connection: sa.Connection) -> list[MissingIndex]:
        """By which columns rows are looked up without an index, of every resource that some process has counted."""
        found = []
        inspector = sa.inspect(connection)
        quote = connection.dialect.identifier_preparer.quote
        for resource, text in sorted(self._definitions.counted(connection).items()):
            told = json.loads(text)
            table, schema = told.get("table"), told.get("schema")
            if table is None or not inspector.has_table(table, schema=schema):
                continue
            for column in told["owners"]:
                if column in _indexed_first(inspector, table, schema):
                    continue
                columns = list(dict.fromkeys([column, *told["columns"]]))
                full = quote(table) if schema is None else f"{quote(schema)}.{quote(table)}"
                name = quote(f"{table}_{'_'.join(columns)}"[:60])
                ddl = f"CREATE INDEX {name} ON {full} ({', '.join(map(quote, columns))})"
                found.append(
                    MissingIndex(resource, table if schema is None else f"{schema}.{table}", column, ddl)
                )
        return found


def _indexed_first(inspector: sa.Inspector, table: str, schema: str | None) -> set[str | None]:
    """The columns with which an index, a unique constraint or the primary key begins."""
    lists: list[Sequence[str | None]] = [
        index["column_names"] for index in inspector.get_indexes(table, schema)
    ]
    lists += [unique["column_names"] for unique in inspector.get_unique_constraints(table, schema)]
    lists.append(inspector.get_pk_constraint(table, schema)["constrained_columns"])
    return {columns[0] for columns in lists if columns}
