"""Counted resources over their limits: rows are deleted, or written past every guard, without anybody being asked.

So a crossing is noticed when somebody looks: at a guard, when a limit changes, when the record is reconciled. Whether a
scope was over its limit then is all that is kept, on its counter; the change of that mark is the event, told once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa

from delimiter.engines.records import Counter
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.events import Standing
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.locking import CounterLocks
from delimiter.model import Scope

__all__ = ["Crossings"]

#: Scopes looked at in one transaction.
_AT_ONCE: Final = 200


class Crossings:
    """Notices crossings of limits of counted resources in one store."""

    def __init__(self, ground: Ground, counters: Counters, locks: CounterLocks, counts: Counts) -> None:
        self._definitions = ground.definitions
        self._projects = ground.projects
        self._events = ground.events
        self._counters = counters
        self._locks = locks
        self._counts = counts
        k = ground.tables.counters.c
        self._mark = (
            sa.update(ground.tables.counters)
            .where(k.id == sa.bindparam("key"), k.over_quota == sa.bindparam("was"))
            .values(over_quota=sa.bindparam("now"))
        )
        listed = sa.select(k.id).where(k.id.in_(sa.bindparam("keys", expanding=True))).order_by(k.id)
        self._free = ground.database.locked(listed, skip_locked=True)
        self._marked = sa.select(k.kind, k.scope).where(
            k.resource_id == sa.bindparam("resource_id"), k.over_quota == 1
        )

    def notice(
        self, connection: sa.Connection, found: Iterable[tuple[Counter, int]], *, wait: bool = True
    ) -> None:
        """Counters and what their scopes use; who marks the change tells of it, and so it is told once.

        Without ``wait`` those that another transaction holds are left to whoever looks next.
        """
        changed = [
            (counter, used, after)
            for counter, used in sorted(found, key=lambda pair: pair[0].key)  # the order of all locks
            if (after := Standing(counter.limit, used)).over != counter.over_quota
        ]
        free = None
        if changed and not wait:
            keys = [counter.key for counter, _, _ in changed]
            free = set(connection.scalars(self._free, {"keys": keys}))
        for counter, used, after in changed:
            if free is not None and counter.key not in free:
                continue
            values = {"key": counter.key, "was": int(counter.over_quota), "now": int(after.over)}
            if connection.execute(self._mark, values).rowcount == 1:
                before = Standing(counter.limit, used, noticed=counter.over_quota)
                self._events.crossed(connection, [(counter.resource, counter.scope, before, after)])
                counter.over_quota = after.over

    # -- after a change of limits, and when the record is reconciled -------------------------------------------------

    def suspects(self, connection: sa.Connection, resource: str) -> list[Sequence[Scope]]:
        """The scopes that are over their limit or were when last looked at, in parts for one transaction each."""
        definition = next(
            (one for one in self._definitions.all(connection) if one.resource.name == resource), None
        )
        if definition is None:
            return []
        used = self._used(connection, resource)
        marked = {
            Scope(row.kind, row.scope)
            for row in connection.execute(self._marked, {"resource_id": definition.id})
        }
        bounds = self._counters.bounds(
            connection, {resource: definition}, [(resource, scope) for scope in used]
        )
        over = {scope for scope, amount in used.items() if Standing(bounds[resource, scope][0], amount).over}
        return list(chunks(sorted(over ^ marked), _AT_ONCE))

    def _used(self, connection: sa.Connection, resource: str) -> dict[Scope, int]:
        """What every scope uses that uses anything."""
        used: defaultdict[Scope, int] = defaultdict(int)
        used[Scope.total()] = self._counts.of(connection, [(resource, Scope.total())])[
            resource, Scope.total()
        ]
        own = dict(self._counts.by_owner(connection, resource, "project"))
        above = self._projects.above(connection, own)
        for name, amount in own.items():
            for project in (name, *above.get(name, ())):
                used[Scope("project", project)] += amount
        for name, amount in self._counts.by_owner(connection, resource, "user"):
            used[Scope("user", name)] += amount
        return used

    def look(self, connection: sa.Connection, resource: str, scopes: Iterable[Scope]) -> None:
        """Look at these scopes of a counted resource as they are now, and tell of what has changed.

        A scope that nobody has guarded yet has no counter; it gets one if there is something to be noted.
        """
        wanted = list(scopes)
        self._projects.share(connection)  # before the definition, as everybody does
        definition = self._definitions.locked(connection, [resource])[resource]
        sums = self._counts.of(connection, [(resource, scope) for scope in wanted])
        owners = [(resource, scope) for scope in wanted if scope.kind != "total"]
        bounds = self._counters.bounds(connection, {resource: definition}, owners)
        over = [start for start in owners if Standing(bounds[start][0], sums[start]).over]
        self._counters.ways(connection, over)
        rows = self._locks.of_scopes(connection, [definition.id], wanted)
        counters = [self._counters.counter(connection, row) for row in rows]
        # Again, under the locks: no guard of these scopes is open now.
        sums = self._counts.of(connection, [(resource, counter.scope) for counter in counters])
        self.notice(connection, [(counter, sums[resource, counter.scope]) for counter in counters])
