"""Upkeep: forgetting claims that ended long ago, and comparing counters with the claims charged to them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from delimiter.engines.sql.bounds import Bounds
from delimiter.engines.sql.counters import Counters, is_limited
from delimiter.engines.sql.events import Standing
from delimiter.engines.sql.expiry import Expiry, RunOut
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.locking import CounterLocks
from delimiter.engines.sql.sums import Sums, whole
from delimiter.engines.sql.writing import ClaimWriter
from delimiter.model import Drift, Scope, ScopeKind, Violation

__all__ = ["Upkeep"]


class Upkeep:
    """Tidies one store."""

    def __init__(
        self,
        ground: Ground,
        writer: ClaimWriter,
        counters: Counters,
        locks: CounterLocks,
        sums: Sums,
        bounds: Bounds,
        expiry: Expiry,
    ) -> None:
        tables, database, clock = ground.tables, ground.database, ground.clock
        self._definitions = ground.definitions
        self._projects = ground.projects
        self._writer = writer
        self._counters = counters
        self._locks = locks
        self._sums = sums
        self._bounds = bounds
        self._expiry = expiry
        self._events = ground.events
        c, below = tables.claims.c, tables.claims.alias()
        old = (
            sa.select(c.id)
            .where(c.ended_at <= clock.now() - sa.bindparam("age", type_=sa.BigInteger))
            .where(~sa.exists().where(below.c.parent_id == c.claim_id))
            .order_by(c.id)
            .limit(sa.bindparam("size"))
        )
        self._old = database.locked(old, skip_locked=True)
        k = tables.counters.c
        self._find_counter = sa.select(tables.counters).where(
            k.resource_id == sa.bindparam("resource_id"),
            k.kind == sa.bindparam("kind"),
            k.scope == sa.bindparam("scope"),
        )
        self._lock_counter = database.locked(self._find_counter)
        self._put_right = (
            sa.update(tables.counters)
            .where(k.id == sa.bindparam("key"))
            .values(
                used=sa.bindparam("new_used"),
                reserved=sa.bindparam("new_reserved"),
                used_below=sa.bindparam("new_used_below"),
                reserved_below=sa.bindparam("new_reserved_below"),
            )
        )

    def prune(self, connection: sa.Connection, *, older_than: int, size: int) -> int:
        keys = list(connection.scalars(self._old, {"age": older_than, "size": size}))
        self._writer.remove(connection, keys)
        return len(keys)

    def suspects(self, connection: sa.Connection, kind: ScopeKind) -> list[tuple[Scope, list[Drift]]]:
        """The scopes of a kind whose counters disagree with their claims; each with its sums in one snapshot."""
        found = []
        # Both are read before one is worked out: of millions of counters that may take longer than a transaction may
        # stand still.
        rows = list(self._sums.beside_counters(connection, kind))
        lost = self._lost_totals(connection) if kind == "total" else self._lost(connection, kind)
        for row in rows:
            scope = Scope(kind, row.scope)
            limited = kind == "project" and is_limited(row.maximum, row.minimum)
            name = self._definitions.name_of(connection, row.resource_id)
            if drifts := _drifts(name, scope, _recorded(row), _actual(row, limited=limited)):
                found.append((scope, drifts))
        return [*found, *lost]

    def _lost(self, connection: sa.Connection, kind: ScopeKind) -> list[tuple[Scope, list[Drift]]]:
        """Projects or users without a counter, though there are claims that need one."""
        sums: defaultdict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
        for row in self._sums.without_counter(connection, kind):
            sums[row.resource_id, row.scope][0] += whole(row, "used")
            sums[row.resource_id, row.scope][1] += whole(row, "reserved")
        return [
            (
                Scope(kind, name),
                _drifts(
                    self._definitions.name_of(connection, resource_id),
                    Scope(kind, name),
                    _NONE,
                    _Held(used, reserved, 0, 0),
                ),
            )
            for (resource_id, name), (used, reserved) in sorted(sums.items())
        ]

    def _lost_totals(self, connection: sa.Connection) -> list[tuple[Scope, list[Drift]]]:
        """Totals that have a limit and no counter: nothing is held to them, so they are told of even at 0."""
        total = Scope.total()
        definitions = {d.resource.name: d for d in self._definitions.all(connection)}
        bounds = self._counters.bounds(connection, definitions, [(name, total) for name in definitions])
        found = []
        for name, definition in sorted(definitions.items()):
            key = {"resource_id": definition.id, "kind": total.kind, "scope": total.name}
            if (
                is_limited(*bounds[name, total])
                and connection.execute(self._find_counter, key).first() is None
            ):
                used, _ = self._sums.of_scope(connection, definition.id, total)
                found.append((total, [Drift(name, str(total), 0, used)]))
        return found

    def repair(self, connection: sa.Connection, resource: str, scope: Scope) -> list[Drift]:
        """Under the counter's lock nothing is claimed or released there: sum again, in a new statement, and write."""
        resource_id = self._definitions.id_of(connection, resource)
        values = {"resource_id": resource_id, "kind": scope.kind, "scope": scope.name}
        lost = connection.execute(self._find_counter, values).first() is None
        if lost:
            self._make_again(connection, resource, scope)
        row = connection.execute(self._lock_counter, values).first()
        if row is None:  # the total's limit was taken away meanwhile, and its counter with it
            return []
        if lost and scope.kind == "total":  # it was made with its sum
            return [Drift(resource, str(scope), 0, row.used, repaired=True)]
        own = self._sums.of_scope(connection, resource_id, scope)
        below = (0, 0)
        if scope.kind == "project" and is_limited(row.maximum, row.minimum):
            below = self._sums.below(connection, resource_id, scope.name)
        actual = _Held(own[0] + below[0], own[1] + below[1], *below)
        drifts = _drifts(resource, scope, _recorded(row), actual, repaired=True)
        if drifts:
            before, after = Standing(row.maximum, row.used), Standing(row.maximum, actual.used)
            if after.over and not before.over:  # not because of reservations that ran out
                violation = Violation(resource, str(scope), row.maximum, actual.used, 0, 0)
                if keys := self._expiry.in_the_way(connection, [violation], joined=False):
                    raise RunOut(keys)
            new = {f"new_{column}": value for column, value in actual._asdict().items()}
            connection.execute(self._put_right, {"key": row.id, **new})
            self._events.crossed(connection, [(resource, scope, before, after)])
        return drifts

    def _make_again(self, connection: sa.Connection, resource: str, scope: Scope) -> None:
        """A counter that was lost; whoever lies below must find it again."""
        if scope.kind == "total":
            self._projects.share(connection)
            definition = self._definitions.locked(connection, [resource], exclusive=True)[resource]
            self._bounds.of_all(connection, definition)
            return
        self._counters.forget([(resource, scope)])
        self._counters.ways(connection, [(resource, scope)])
        if scope.kind == "project":
            subtree = [scope.name, *self._projects.below(connection, scope.name)]
            id = self._definitions.id_of(connection, resource)
            rows = self._locks.of_scopes(connection, [id], [Scope("project", name) for name in subtree])
            self._locks.raise_generations(connection, rows)


class _Held(NamedTuple):
    """What a counter holds, or should."""

    used: int
    reserved: int
    used_below: int
    reserved_below: int


_NONE: Final = _Held(0, 0, 0, 0)


def _recorded(row: Any) -> _Held:
    return _Held(row.used, row.reserved, row.used_below, row.reserved_below)


def _actual(row: Any, *, limited: bool) -> _Held:
    below = (whole(row, "below_used"), whole(row, "below_reserved")) if limited else (0, 0)
    return _Held(whole(row, "used") + below[0], whole(row, "reserved") + below[1], *below)


def _drifts(
    resource: str, scope: Scope, recorded: _Held, actual: _Held, *, repaired: bool = False
) -> list[Drift]:
    """What is off; a part that comes from below is told of only where the whole is right."""
    off = [column for column in _Held._fields if getattr(recorded, column) != getattr(actual, column)]
    told = [
        column for column in off if column.removesuffix("_below") not in off or column in ("used", "reserved")
    ]
    return [
        Drift(resource, str(scope), getattr(recorded, column), getattr(actual, column), repaired, column)  # type: ignore[arg-type]
        for column in told
    ]
