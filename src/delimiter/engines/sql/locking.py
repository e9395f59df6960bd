"""Locks on the counters that an edit bears on, always taken in the order in which claims take theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.schema import Tables
from delimiter.model import Scope

__all__ = ["CounterLocks"]


class CounterLocks:
    """Finds counters without a lock (who makes them is kept out already), and locks them by their numbers."""

    def __init__(self, tables: Tables, database: Database) -> None:
        c = tables.counters.c
        self._counters = c
        chosen = sa.select(tables.counters).where(c.id.in_(sa.bindparam("ids", expanding=True)))
        self._lock = database.locked(database.by_key(chosen.order_by(c.id), tables.counters))
        self._try_lock = database.locked(
            database.by_key(
                sa.select(c.id).where(c.id.in_(sa.bindparam("ids", expanding=True))), tables.counters
            ),
            skip_locked=True,
        )
        self._raise_generation = database.by_key(
            sa.update(tables.counters)
            .where(c.id.in_(sa.bindparam("ids", expanding=True)))
            .values(generation=c.generation + 1, revision=c.revision + 1),
            tables.counters,
        )
        self._raise_revision = database.by_key(
            sa.update(tables.counters)
            .where(c.id.in_(sa.bindparam("ids", expanding=True)))
            .values(revision=c.revision + 1),
            tables.counters,
        )

    def of_resources(self, connection: sa.Connection, resource_ids: Iterable[int]) -> list[Any]:
        """Every counter of these resources."""
        found: list[int] = []
        for part in chunks(sorted(set(resource_ids))):
            found.extend(self._ids(connection, self._counters.resource_id.in_(part)))
        return self._locked(connection, found)

    def of_scopes(
        self, connection: sa.Connection, resource_ids: Sequence[int], scopes: Iterable[Scope]
    ) -> list[Any]:
        """The counters of these scopes, however many, of each of the resources."""
        return self._locked(connection, self._ids_of_scopes(connection, resource_ids, scopes))

    def of_both(
        self, connection: sa.Connection, whole: Iterable[int], single: Iterable[tuple[int, Scope]]
    ) -> None:
        """All counters of some resources, and those of single scopes of others, at once."""
        found: list[int] = []
        for part in chunks(sorted(set(whole))):
            found.extend(self._ids(connection, self._counters.resource_id.in_(part)))
        by_resource: defaultdict[int, list[Scope]] = defaultdict(list)
        for resource_id, scope in single:
            by_resource[resource_id].append(scope)
        for resource_id, scopes in by_resource.items():
            found.extend(self._ids_of_scopes(connection, [resource_id], scopes))
        self._locked(connection, found)

    def free(self, connection: sa.Connection, ids: Iterable[int]) -> set[int]:
        """Those of these counters that no other transaction has locked; they are locked then."""
        found: set[int] = set()
        for part in chunks(sorted(ids)):
            found.update(connection.scalars(self._try_lock, {"ids": part}))
        return found

    def raise_generations(self, connection: sa.Connection, rows: Iterable[Any]) -> None:
        """Whoever has remembered a way from these will find that it is no longer the way.

        The revision too: an optimistic guard that went by the old way, or a snapshot of it, must find out.
        """
        for part in chunks(sorted(row.id for row in rows)):
            connection.execute(self._raise_generation, {"ids": part})

    def raise_revisions(self, connection: sa.Connection, rows: Iterable[Any]) -> None:
        """Guards of these that are under way, or whose snapshot is older, will find that something was here."""
        for part in chunks(sorted(row.id for row in rows)):
            connection.execute(self._raise_revision, {"ids": part})

    def _ids_of_scopes(
        self, connection: sa.Connection, resource_ids: Sequence[int], scopes: Iterable[Scope]
    ) -> list[int]:
        c = self._counters
        names: defaultdict[str, set[str]] = defaultdict(set)
        for scope in scopes:
            names[scope.kind].add(scope.name)
        return [
            id
            for kind in sorted(names)
            for part in chunks(sorted(names[kind]))
            for id in self._ids(
                connection, sa.and_(c.resource_id.in_(resource_ids), c.kind == kind, c.scope.in_(part))
            )
        ]

    def _ids(self, connection: sa.Connection, chosen: sa.ColumnElement[bool]) -> list[int]:
        return list(connection.scalars(sa.select(self._counters.id).where(chosen)))

    def _locked(self, connection: sa.Connection, ids: Iterable[int]) -> list[Any]:
        return [
            row for part in chunks(sorted(set(ids))) for row in connection.execute(self._lock, {"ids": part})
        ]
