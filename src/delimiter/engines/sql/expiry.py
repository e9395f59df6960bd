"""Reservations that ran out: finding those in somebody's way, and sweeping them.

They stop counting at their time, not when they are swept: readers leave them out, and nobody is refused because of
one. A sweep only brings the counters up to date, and never waits where it runs inside a caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engines.ledger import Ledger
from delimiter.engines.records import Entry
from delimiter.engines.sql.claims import Claims
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.projects import within
from delimiter.engines.sql.ways import Outdated
from delimiter.engines.sql.writing import ClaimWriter
from delimiter.errors import Conflict
from delimiter.model import Scope, Violation

__all__ = ["Expiry", "RunOut"]

#: Reservations swept on the way of one decision; if that makes no room, it looks again.
_AT_ONCE: Final = 200


class RunOut(Exception):
    """Reservations that ran out are in the way: sweep these rows, then decide again."""

    def __init__(self, keys: Sequence[int]) -> None:
        super().__init__()
        self.keys = keys


class Expiry:
    """Finds and sweeps what ran out on one store."""

    def __init__(self, ground: Ground, claims: Claims, writer: ClaimWriter, counters: Counters) -> None:
        tables, database, clock = ground.tables, ground.database, ground.clock
        self._database = ground.database
        self._definitions = ground.definitions
        self._projects = ground.projects
        self._claims = claims
        self._writer = writer
        self._counters = counters
        c, a = tables.claims.c, tables.allocations.c
        ran_out = c.expires_at <= clock.now()
        due = sa.select(*claims.columns).where(ran_out).order_by(c.expires_at).limit(sa.bindparam("size"))
        self._due = database.locked(due, skip_locked=True)
        # Joined, not in a sub-select: a locking read sees the present of the tables it locks, and of no others.
        of_resource = sa.select(c.id).join(tables.allocations, a.claim == c.id)
        of_resource = of_resource.where(ran_out, a.resource_id == sa.bindparam("resource_id")).limit(_AT_ONCE)
        name = sa.bindparam("name", type_=c.project_id.type)
        charged = {
            "total": sa.true(),
            "project": within(tables, c.project_id, name),
            "user": c.user_id == name,
        }
        self._in_the_way = {kind: of_resource.where(owner) for kind, owner in charged.items()}
        self._free_in_the_way = {
            kind: database.locked(found, skip_locked=True) for kind, found in self._in_the_way.items()
        }
        keys = database.by_key(
            sa.select(*claims.columns).where(c.id.in_(sa.bindparam("keys", expanding=True))).order_by(c.id),
            tables.claims,
        )
        self._free_keys = database.locked(keys, skip_locked=True)

    def in_the_way(
        self, connection: sa.Connection, violations: Iterable[Violation], *, joined: bool
    ) -> list[int]:
        """Rows of reservations that ran out and are still counted where there was no room.

        In a caller's transaction those that can be had without waiting come first, by a read that sees the present;
        if there are none, those that another transaction holds.
        """
        for statements in (self._free_in_the_way, self._in_the_way) if joined else (self._in_the_way,):
            keys: set[int] = set()
            for violation in violations:
                kind, _, name = violation.scope.partition(":")
                values = {"resource_id": self._definitions.id_of(connection, violation.resource)}
                keys.update(
                    connection.scalars(statements[kind], {**values, "name": name} if name else values)
                )
            if keys:
                return sorted(keys)
        if joined and self._database.plain_reads_lag and not self._projects.is_present(connection):
            # Which projects lie below is read from the snapshot, even where the claims are read as they are.
            raise Conflict("projects have changed since the transaction's snapshot; start it anew")
        return []

    def sweep(self, connection: sa.Connection, *, size: int) -> int:
        """Sweep up to ``size`` of all that ran out; what another transaction holds is left to it."""
        rows = connection.execute(self._due, {"size": size}).all()
        return self._sweep(connection, self._claims.with_amounts(connection, rows), wait=True)

    def sweep_keys(self, connection: sa.Connection, keys: Sequence[int], *, wait: bool) -> int:
        """Sweep these, if they (still) have run out; without ``wait`` only what can be locked at once."""
        if wait:
            return self._sweep(connection, self._claims.lock_keys(connection, keys), wait=True)
        rows: list[Any] = list(connection.execute(self._free_keys, {"keys": keys}))
        swept = 0
        for entry in self._claims.with_amounts(connection, rows):
            try:
                swept += self._sweep(connection, [entry], wait=False)
            except Outdated:  # somebody holds one of its counters: leave it
                continue
        return swept

    def _sweep(self, connection: sa.Connection, entries: Sequence[Entry], *, wait: bool) -> int:
        starts = {
            (resource, scope)
            for entry in entries
            if not entry.ended
            for resource in entry.resources
            for scope in Scope.owned(entry.project, entry.user)
        }
        if not starts:
            return 0
        ways = self._counters.ways(connection, starts, charged=True)
        charged = self._counters.lock(connection, ways, wait=wait)
        ledger = Ledger(path=charged.path, now=self._claims.now(connection))
        swept = [entry for entry in entries if ledger.expire(entry)]
        self._writer.write(connection, swept)
        self._counters.add(connection, charged.all())
        return len(swept)
