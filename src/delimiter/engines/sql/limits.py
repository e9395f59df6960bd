"""Definitions and limits: changing them, and bringing every counter they bear on up to date in the same transaction.

A change holds the definition's row against everybody, so no counter of the resource can be made meanwhile; it locks
the counters it bears on, in their order, and only then reads what it sums, in a statement of its own: at READ COMMITTED
a statement that waited for a lock still sees the rest of the world as it was before the wait.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from delimiter.engine import Keep, LimitChange
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.definitions import Definition, Definitions, resource_of
from delimiter.engines.sql.schema import Tables
from delimiter.engines.sql.sums import Sums
from delimiter.errors import Conflict, InvalidRequest
from delimiter.model import CEILING, UNLIMITED, Resource, Scope
from delimiter.refusals import still_claimed

__all__ = ["Limits"]

#: The own maximum and minimum of scopes that have any.
_OwnLimits: TypeAlias = dict[Scope, tuple[int | None, int | None]]


class Limits:
    """Writes definitions and limits of one store."""

    def __init__(self, tables: Tables, database: Database, definitions: Definitions, sums: Sums) -> None:
        self._tables = tables
        self._database = database
        self._definitions = definitions
        self._sums = sums
        r, c = tables.resources.c, tables.counters.c
        self._by_name = sa.select(tables.resources).where(r.name == sa.bindparam("name"))
        self._insert = database.insert_ignoring(tables.resources)
        self._update = sa.update(tables.resources).where(r.id == sa.bindparam("key"))
        counters = sa.select(c.id, c.kind, c.scope, c.used, c.maximum, c.minimum).order_by(c.id)
        self._lock_counters = database.locked(
            database.by_key(counters.where(c.id.in_(sa.bindparam("ids", expanding=True))), tables.counters)
        )
        self._set_bounds = database.by_key(
            sa.update(tables.counters)
            .where(c.id.in_(sa.bindparam("ids", expanding=True)))
            .values(maximum=sa.bindparam("max"), minimum=sa.bindparam("min")),
            tables.counters,
        )

    # -- definitions --------------------------------------------------------------------------------------------

    def is_defined_so(self, connection: sa.Connection, resource: Resource) -> bool:
        """Whether the definition stands as it is; read without a lock, since services define at every start."""
        row = connection.execute(self._by_name, {"name": resource.name}).first()
        return row is not None and bool(row.defined) and resource_of(row) == resource

    def define(self, connection: sa.Connection, resource: Resource) -> None:
        values = _columns(resource)
        row = connection.execute(self._database.locked(self._by_name), {"name": resource.name}).first()
        if row is None:
            connection.execute(self._insert, {**values, "name": resource.name, "defined": 1, "version": 0})
            row = connection.execute(self._database.locked(self._by_name), {"name": resource.name}).first()
            if row is None:
                raise Conflict("the definition was made and withdrawn meanwhile")
        if not row.defined or resource_of(row) != resource:
            self._write(connection, row.id, {**values, "defined": 1})
        self._bring_up_to_date(connection, Definition(row.id, resource, defined=True, version=row.version))

    def undefine(self, connection: sa.Connection, name: str) -> None:
        definition = self._definitions.locked(connection, [name], exclusive=True)[name]
        self._lock(connection, definition.id)
        if self._sums.is_claimed(connection, definition.id):
            raise still_claimed(name)
        for table in (self._tables.counters, self._tables.limits):
            connection.execute(sa.delete(table).where(table.c.resource_id == definition.id))
        self._write(connection, definition.id, {"defined": 0})

    def _write(self, connection: sa.Connection, id: int, values: dict[str, Any]) -> None:
        """Every change of a definition or a limit writes the definition's row: a stale snapshot notices it."""
        version = self._tables.resources.c.version
        connection.execute(self._update.values(**values, version=version + 1), {"key": id})

    # -- limits -------------------------------------------------------------------------------------------------

    def set(self, connection: sa.Connection, name: str, scope: Scope, change: LimitChange) -> int:
        """Change one scope's own limit; the maximum that is in force now."""
        definition = self._definitions.locked(connection, [name], exclusive=True)[name]
        table = self._tables.limits
        where = sa.and_(
            table.c.resource_id == definition.id, table.c.kind == scope.kind, table.c.scope == scope.name
        )
        row = connection.execute(self._database.locked(sa.select(table).where(where))).first()
        maximum = (row.maximum if row else None) if change.max is Keep.KEEP else change.max
        minimum = (row.minimum if row else None) if change.min is Keep.KEEP else change.min
        if maximum is None and minimum is None:
            if row is not None:
                connection.execute(sa.delete(table).where(where))
        elif row is None:
            connection.execute(
                sa.insert(table).values(
                    resource_id=definition.id,
                    kind=scope.kind,
                    scope=scope.name,
                    maximum=maximum,
                    minimum=minimum,
                )
            )
        else:
            connection.execute(sa.update(table).where(where).values(maximum=maximum, minimum=minimum))
        self._write(connection, definition.id, {})
        self._bring_up_to_date(connection, definition, scope)
        return definition.resource.default(scope.kind)[0] if maximum is None else maximum

    # -- counters -----------------------------------------------------------------------------------------------

    def _bring_up_to_date(
        self, connection: sa.Connection, definition: Definition, scope: Scope | None = None
    ) -> None:
        """Write the limits in force onto the counters (of one scope, or all), and make or drop the total's.

        The total has a counter only while it has a limit: claims of different projects must not meet where nothing
        needs deciding. When it comes or goes, everybody's way changes.
        """
        bounds = self._bounds(
            definition, self._own_limits(connection, definition.id, Scope.total()), Scope.total()
        )
        total_limited = bounds[0] != UNLIMITED or bounds[1] > 0
        t = self._tables.counters
        total_key = connection.scalar(
            sa.select(t.c.id).where(t.c.resource_id == definition.id, t.c.kind == "total", t.c.scope == "")
        )
        turns = total_limited != (total_key is not None)
        if turns:
            scope = None
        rows = self._lock(connection, definition.id, scope)
        own = self._own_limits(connection, definition.id, scope)
        self._write_bounds(connection, definition, rows, own)
        if turns:
            connection.execute(
                sa.update(t).where(t.c.resource_id == definition.id).values(generation=t.c.generation + 1)
            )
            if total_key is None:
                self._make_total(connection, definition, bounds)
            else:
                connection.execute(sa.delete(t).where(t.c.id == total_key))

    def _make_total(self, connection: sa.Connection, definition: Definition, bounds: tuple[int, int]) -> None:
        """From now on the total is counted; what it holds already is summed under the locks of all counters."""
        used, reserved = self._sums.of_total(connection, definition.id)
        if used > CEILING:
            raise InvalidRequest(
                f"{definition.resource.name}: {used} is claimed in total, more than one counter can hold ({CEILING})"
            )
        connection.execute(
            sa.insert(self._tables.counters).values(
                resource_id=definition.id,
                kind="total",
                scope="",
                used=used,
                reserved=reserved,
                maximum=bounds[0],
                minimum=bounds[1],
                generation=0,
            )
        )

    def _write_bounds(
        self, connection: sa.Connection, definition: Definition, rows: Sequence[Any], own: _OwnLimits
    ) -> None:
        outdated: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for row in rows:
            wanted = self._bounds(definition, own, Scope(row.kind, row.scope))
            if (row.maximum, row.minimum) != wanted:
                outdated[wanted].append(row.id)
        for (maximum, minimum), ids in outdated.items():
            for part in chunks(ids):
                connection.execute(self._set_bounds, {"max": maximum, "min": minimum, "ids": part})

    def _lock(self, connection: sa.Connection, resource_id: int, scope: Scope | None = None) -> list[Any]:
        """Lock every counter of a resource (or one scope's), in the order in which claims do."""
        c = self._tables.counters.c
        ids = sa.select(c.id).where(c.resource_id == resource_id).order_by(c.id)
        if scope is not None:
            ids = ids.where(c.kind == scope.kind, c.scope == scope.name)
        found = list(connection.scalars(ids))
        return [
            row for part in chunks(found) for row in connection.execute(self._lock_counters, {"ids": part})
        ]

    def _own_limits(self, connection: sa.Connection, resource_id: int, scope: Scope | None) -> _OwnLimits:
        l = self._tables.limits.c  # noqa: E741
        rows = sa.select(l.kind, l.scope, l.maximum, l.minimum).where(l.resource_id == resource_id)
        if scope is not None:
            rows = rows.where(l.kind == scope.kind, l.scope == scope.name)
        return {Scope(row.kind, row.scope): (row.maximum, row.minimum) for row in connection.execute(rows)}

    @staticmethod
    def _bounds(definition: Definition, own: _OwnLimits, scope: Scope) -> tuple[int, int]:
        """The maximum and minimum in force."""
        default = definition.resource.default(scope.kind)
        maximum, minimum = own.get(scope, (None, None))
        return default[0] if maximum is None else maximum, default[1] if minimum is None else minimum

    def defined(self, connection: sa.Connection) -> list[Resource]:
        """All definitions, by name."""
        rows = connection.execute(
            sa.select(self._tables.resources).where(self._tables.resources.c.defined == 1)
        )
        return sorted((resource_of(row) for row in rows), key=lambda resource: resource.name)


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
