"""Definitions and limits, and the edits that change them.

A change shares the tree's row and holds the definition's row against everybody, so no counter of the resource can be
made meanwhile; :mod:`.bounds` then locks the counters it bears on, in their order, and only then reads what it sums:
at READ COMMITTED a statement that waited for a lock still sees the rest of the world as it was before the wait.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from delimiter.edits import Keep, LimitChange
from delimiter.engines.sql.bounds import Bounds
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.definitions import Definition, resource_of
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.locking import CounterLocks
from delimiter.engines.sql.readings import Readings
from delimiter.engines.sql.sums import Sums
from delimiter.errors import Conflict
from delimiter.model import SCOPE_KINDS, OwnLimit, Resource, Scope
from delimiter.refusals import still_claimed, still_counted

__all__ = ["Limits"]


class Limits:
    """Writes definitions and limits of one store."""

    def __init__(
        self,
        ground: Ground,
        locks: CounterLocks,
        sums: Sums,
        bounds: Bounds,
        readings: Readings,
        counts: Counts,
    ) -> None:
        tables, database = ground.tables, ground.database
        self._tables = ground.tables
        self._database = ground.database
        self._definitions = ground.definitions
        self._locks = locks
        self._sums = sums
        self._bounds = bounds
        self._readings = readings
        self._counts = counts
        self._events = ground.events
        r = tables.resources.c
        self._by_name = sa.select(tables.resources).where(r.name == sa.bindparam("name"))
        self._insert = database.insert_ignoring(tables.resources)
        self._update = sa.update(tables.resources).where(r.id == sa.bindparam("key"))

    # -- definitions --------------------------------------------------------------------------------------------

    def is_defined_so(self, connection: sa.Connection, resource: Resource) -> bool:
        """Whether the definition stands as it is; read without a lock, since services define at every start."""
        row = connection.execute(self._by_name, {"name": resource.name}).first()
        return row is not None and bool(row.defined) and resource_of(row) == resource

    def define(self, connection: sa.Connection, resource: Resource) -> list[Scope] | None:
        """Make or change a definition; who may hold more than a limit that changed. ``None``: it stands so already."""
        values = _columns(resource)
        row = connection.execute(self._database.locked(self._by_name), {"name": resource.name}).first()
        if row is None:
            self._definitions.make_in(connection)
            connection.execute(self._insert, {**values, "name": resource.name, "defined": 0, "version": 0})
            row = connection.execute(self._database.locked(self._by_name), {"name": resource.name}).first()
            if row is None:
                raise Conflict("the definition was made and withdrawn meanwhile")
        before = resource_of(row)
        if row.defined and before == resource:
            return None
        self._write(connection, row.id, {**values, "defined": 1})
        definition = Definition(row.id, resource, defined=True, version=row.version)
        if not row.defined:
            return self._bounds.of_all(connection, definition)
        if all(before.default(kind) == resource.default(kind) for kind in SCOPE_KINDS):
            return []  # a description or a unit: no counter has to know
        return self._bounds.of_all(
            connection, definition, lambda: self._tell_of_defaults(connection, definition, before)
        )

    def _tell_of_defaults(self, connection: sa.Connection, definition: Definition, before: Resource) -> None:
        name, after = definition.resource.name, definition.resource
        total = Scope.total()
        row = self._row(connection, definition.id, total)
        if (row is None or row.maximum is None) and before.max != after.max:
            used = self._used(connection, name, total)
            self._events.limit_changed(connection, name, str(total), before.max, after.max, used)
        for kind in ("project", "user"):
            was, now = before.default(kind)[0], after.default(kind)[0]
            self._events.limit_changed(connection, name, f"{kind}:*", was, now, None)

    def _used(self, connection: sa.Connection, name: str, scope: Scope) -> int | None:
        if self._counts.is_elsewhere(connection, name):
            return None
        return self._readings.standing(connection, name, scope).used

    def undefine(self, connection: sa.Connection, name: str) -> None:
        definition = self._definitions.locked(connection, [name], exclusive=True)[name]
        self._locks.of_resources(connection, [definition.id])
        if self._sums.is_claimed(connection, definition.id):
            raise still_claimed(name)
        if name in self._counts:
            total = (name, Scope.total())
            if used := self._counts.of(connection, [total])[total]:
                raise still_counted(name, used)
        for table in (self._tables.counters, self._tables.limits):
            connection.execute(sa.delete(table).where(table.c.resource_id == definition.id))
        self._write(connection, definition.id, {"defined": 0, "counted_from": None})

    def _write(self, connection: sa.Connection, id: int, values: dict[str, Any]) -> None:
        """Every change of a definition or a limit writes the definition's row: a stale snapshot notices it."""
        version = self._tables.resources.c.version
        connection.execute(self._update.values(**values, version=version + 1), {"key": id})

    def defined(self, connection: sa.Connection) -> list[Resource]:
        """All definitions, by name."""
        return sorted(
            (definition.resource for definition in self._definitions.all(connection)),
            key=lambda resource: resource.name,
        )

    # -- limits -------------------------------------------------------------------------------------------------

    def set(self, connection: sa.Connection, name: str, scope: Scope, change: LimitChange) -> bool:
        """Change one scope's own limit; whether it was another."""
        definition = self._definitions.locked(connection, [name], exclusive=True)[name]
        default = definition.resource.default(scope.kind)[0]
        row = self._row(connection, definition.id, scope)
        before = (None, None) if row is None else (row.maximum, row.minimum)
        after = (
            before[0] if change.max is Keep.KEEP else change.max,
            before[1] if change.min is Keep.KEEP else change.min,
        )
        if after == before:
            return False
        self._put(connection, definition.id, scope, row, after)
        self._write(connection, definition.id, {})
        previous = default if before[0] is None else before[0]
        maximum = default if after[0] is None else after[0]

        def told() -> None:
            if previous != maximum:
                used = self._used(connection, name, scope)
                self._events.limit_changed(connection, name, str(scope), previous, maximum, used)

        self._bounds.of_scope(connection, definition, scope, told)
        return True

    def _put(
        self,
        connection: sa.Connection,
        resource_id: int,
        scope: Scope,
        row: Any | None,
        values: tuple[int | None, int | None],
    ) -> None:
        table = self._tables.limits
        maximum, minimum = values
        if values == (None, None):
            connection.execute(sa.delete(table).where(self._here(resource_id, scope)))
        elif row is None:
            connection.execute(
                sa.insert(table).values(
                    resource_id=resource_id,
                    kind=scope.kind,
                    scope=scope.name,
                    maximum=maximum,
                    minimum=minimum,
                )
            )
        else:
            changed = sa.update(table).where(self._here(resource_id, scope))
            connection.execute(changed.values(maximum=maximum, minimum=minimum))

    def forget_project(self, connection: sa.Connection, project: str) -> None:
        """A removed project's own limits go with it. It holds nothing, so nobody is over quota because of that."""
        scope = Scope("project", project)
        table = self._tables.limits
        theirs = sa.and_(table.c.kind == scope.kind, table.c.scope == scope.name)
        for row in connection.execute(sa.select(table).where(theirs).order_by(table.c.resource_id)).all():
            self._write(connection, row.resource_id, {})
            name = self._definitions.name_of(connection, row.resource_id)
            definition = self._definitions.locked(connection, [name])[name]
            if row.maximum is not None:
                default = definition.resource.default(scope.kind)[0]
                self._events.limit_changed(connection, name, str(scope), row.maximum, default, 0)
        connection.execute(sa.delete(table).where(theirs))

    def own(self, connection: sa.Connection, scope: Scope | None = None) -> list[OwnLimit]:
        """The limits that scopes (or this one) have of their own."""
        l, r = self._tables.limits, self._tables.resources  # noqa: E741
        joined = l.join(r, r.c.id == l.c.resource_id)
        statement = sa.select(r.c.name, l.c.kind, l.c.scope, l.c.maximum, l.c.minimum).select_from(joined)
        if scope is not None:
            statement = statement.where(l.c.kind == scope.kind, l.c.scope == scope.name)
        found = [
            OwnLimit(row.name, Scope(row.kind, row.scope), row.maximum, row.minimum)
            for row in connection.execute(statement)
        ]
        return sorted(found, key=lambda own: (own.resource, own.scope.rank, own.scope.name))

    def _here(self, resource_id: int, scope: Scope) -> sa.ColumnElement[bool]:
        l = self._tables.limits.c  # noqa: E741
        return sa.and_(l.resource_id == resource_id, l.kind == scope.kind, l.scope == scope.name)

    def _row(self, connection: sa.Connection, resource_id: int, scope: Scope) -> Any | None:
        return connection.execute(
            sa.select(self._tables.limits).where(self._here(resource_id, scope))
        ).first()


def _columns(resource: Resource) -> dict[str, Any]:
    return {
        "service": resource.service,
        "unit": resource.unit,
        "description": resource.description,
        "total_max": resource.max,
        "total_min": resource.min,
        "project_max": resource.project_max,
        "project_min": resource.project_min,
        "user_max": resource.user_max,
        "user_min": resource.user_min,
    }
