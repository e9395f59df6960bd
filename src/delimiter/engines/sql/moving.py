"""Giving projects their place: what a subtree holds leaves its old ancestors and is charged to the new ones.

Who changes the tree holds its row, so nobody makes a counter or sets a limit meanwhile. Claims that are under way are
met at the counters, which are locked in the order in which claims do; afterwards the generation of every counter in
the subtree is higher, and a claim that had remembered the old way finds the new one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engines.ledger import over_limit
from delimiter.engines.sql.counters import Counters, is_limited
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.definitions import Definition
from delimiter.engines.sql.events import Standing
from delimiter.engines.sql.expiry import Expiry, RunOut
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.limits import Limits
from delimiter.engines.sql.locking import CounterLocks
from delimiter.errors import OverLimit
from delimiter.model import LIVE_STATES, Scope, Violation
from delimiter.refusals import (
    has_children,
    has_claims,
    has_counted,
    placed_elsewhere,
    unknown_project,
    would_circle,
)

__all__ = ["Moving"]

#: Claims looked at to see whether a project that is to be removed still holds something.
_LOOKED_AT: Final = 200


class Moving:
    """Adds, moves and removes the projects of one store."""

    def __init__(
        self,
        ground: Ground,
        counters: Counters,
        locks: CounterLocks,
        limits: Limits,
        expiry: Expiry,
        counts: Counts,
    ) -> None:
        tables, database, clock = ground.tables, ground.database, ground.clock
        self._tables = ground.tables
        self._definitions = ground.definitions
        self._projects = ground.projects
        self._counters = counters
        self._locks = locks
        self._limits = limits
        self._expiry = expiry
        self._counts = counts
        self._events = ground.events
        c, k = tables.claims.c, tables.counters.c
        self._held = (
            sa.select(c.id, (c.expires_at <= clock.now()).label("ran_out"))
            .where(c.project_id == sa.bindparam("name"), c.state.in_(LIVE_STATES))
            .limit(_LOOKED_AT)
        )
        self._carry = database.by_key(
            sa.update(tables.counters)
            .where(k.id == sa.bindparam("key"))
            .values(
                used=k.used + sa.bindparam("more_used"),
                reserved=k.reserved + sa.bindparam("more_reserved"),
                used_below=k.used_below + sa.bindparam("more_used"),
                reserved_below=k.reserved_below + sa.bindparam("more_reserved"),
            ),
            tables.counters,
        )

    def add(self, connection: sa.Connection, id: str, parent: str | None, *, admitted: bool = False) -> bool:
        """A project that is new to the tree; whether it was. ``admitted``: no limit is asked."""
        known = self._projects.find(connection, id)
        if known is not None:
            if known.parent != parent:
                raise placed_elsewhere(id, known.parent, parent)
            return False
        above = self._way_up(connection, parent)
        self._take_along(connection, id, [id], (), above, admitted=admitted)
        self._projects.add(connection, id, parent, above)
        return True

    def move(self, connection: sa.Connection, id: str, parent: str | None, *, admitted: bool = False) -> bool:
        """A project and all below it, to below ``parent``; whether it was elsewhere."""
        known = self._projects.find(connection, id)
        if known is None:
            raise unknown_project(id)
        above = self._way_up(connection, parent)
        if parent is not None and id in above:
            raise would_circle(id, parent)
        if known.parent == parent:
            return False
        old = self._way_up(connection, known.parent)
        subtree = [id, *self._projects.below(connection, id)]
        leaving = [name for name in old if name not in above]
        entering = [name for name in above if name not in old]
        self._take_along(connection, id, subtree, leaving, entering, admitted=admitted)
        self._projects.move(connection, id, parent, above, old)
        return True

    def remove(self, connection: sa.Connection, id: str) -> None:
        if self._projects.find(connection, id) is None:
            raise unknown_project(id)
        if (child := self._projects.first_child(connection, id)) is not None:
            raise has_children(id, child)
        ids = [definition.id for definition in self._definitions.all(connection)]
        rows = self._locks.of_scopes(connection, ids, [Scope("project", id)])
        held = connection.execute(self._held, {"name": id}).all()
        if any(not row.ran_out for row in held):
            raise has_claims(id)
        if held:
            raise RunOut([row.id for row in held])
        scope = Scope("project", id)
        counted = self._counts.of(connection, [(name, scope) for name in self._counts.names()])
        if any(counted.values()):
            raise has_counted(id, sorted(name for (name, _), used in counted.items() if used))
        for row in rows:  # who waits for one of them will find it gone, and make its own
            connection.execute(sa.delete(self._tables.counters).where(self._tables.counters.c.id == row.id))
        self._limits.forget_project(connection, id)
        self._projects.remove(connection, id)

    def _way_up(self, connection: sa.Connection, parent: str | None) -> list[str]:
        """The parent and its ancestors."""
        if parent is None:
            return []
        if self._projects.find(connection, parent) is None:
            raise unknown_project(parent)
        return [parent, *self._projects.above(connection, [parent]).get(parent, ())]

    # -- what it holds ------------------------------------------------------------------------------------------

    def _take_along(
        self,
        connection: sa.Connection,
        id: str,
        subtree: Sequence[str],
        leaving: Sequence[str],
        entering: Sequence[str],
        *,
        admitted: bool,
    ) -> None:
        """Charge what the subtree holds to those it comes to lie below, and no longer to those it leaves."""
        definitions = {definition.id: definition for definition in self._definitions.all(connection)}
        touched = [Scope("project", name) for name in (*subtree, *leaving, *entering)]
        rows = self._locks.of_scopes(connection, sorted(definitions), touched)
        below = set(subtree)
        moving = [row for row in rows if row.scope in below]
        load: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        for row in moving:
            load[row.resource_id][0] += row.used - row.used_below
            load[row.resource_id][1] += row.reserved - row.reserved_below
        present = {(row.resource_id, row.scope): row for row in rows}
        new = self._bounds_to_come(connection, definitions, load, entering, present)
        self._refuse(connection, id, definitions, load, entering, present, new, admitted=admitted)
        changes = [
            (row, sign)
            for names, sign in ((leaving, -1), (entering, +1))
            for name in names
            for resource_id in sorted(load)
            if (row := present.get((resource_id, name))) is not None and is_limited(row.maximum, row.minimum)
        ]
        self._write(connection, definitions, load, changes)
        for (resource_id, name), bounds in sorted(new.items()):
            definition, held = definitions[resource_id], (load[resource_id][0], load[resource_id][1])
            scope = Scope("project", name)
            self._counters.make_one(connection, definition, scope, bounds, held)
            standing = Standing(bounds[0], held[0])
            before = Standing(bounds[0], 0)
            self._events.crossed(connection, [(definition.resource.name, scope, before, standing)])
        self._locks.raise_generations(connection, moving)
        # What is counted below these has changed, though no counter tells, and though only another process may count.
        self._locks.raise_revisions(connection, [row for row in rows if row.scope not in below])

    def _bounds_to_come(
        self,
        connection: sa.Connection,
        definitions: Mapping[int, Definition],
        load: Iterable[int],
        entering: Sequence[str],
        present: Mapping[tuple[int, str], Any],
    ) -> dict[tuple[int, str], tuple[int, int]]:
        """The limits of those new ancestors that have some and no counter yet: they will need one."""
        missing = {
            (resource_id, name)
            for resource_id in load
            for name in entering
            if (resource_id, name) not in present
        }
        if not missing:
            return {}
        by_name = {definitions[id].resource.name: definitions[id] for id, _ in missing}
        starts = [(definitions[id].resource.name, Scope("project", name)) for id, name in sorted(missing)]
        bounds = self._counters.bounds(connection, by_name, starts)
        return {
            (by_name[resource].id, scope.name): found
            for (resource, scope), found in bounds.items()
            if is_limited(*found)
        }

    def _refuse(
        self,
        connection: sa.Connection,
        id: str,
        definitions: Mapping[int, Definition],
        load: Mapping[int, Sequence[int]],
        entering: Sequence[str],
        present: Mapping[tuple[int, str], Any],
        new: Mapping[tuple[int, str], tuple[int, int]],
        *,
        admitted: bool,
    ) -> None:
        """Where there is no room; what is ``admitted`` is only not put over quota by reservations that ran out."""
        violations = [] if admitted else self._refused_counts(connection, id, definitions, entering)
        for resource_id in sorted(load, key=lambda key: definitions[key].resource.name):
            amount, resource = load[resource_id][0], definitions[resource_id].resource.name
            for name in reversed(entering) if amount else ():  # from the root down
                row = present.get((resource_id, name))
                if row is not None:
                    limited, limit, used = is_limited(row.maximum, row.minimum), row.maximum, row.used
                else:
                    bounds = new.get((resource_id, name))
                    limited, limit, used = bounds is not None, bounds[0] if bounds else 0, 0
                found = over_limit(resource, Scope("project", name), limit, used, amount)
                if limited and found is not None:
                    violations.append(found)
        if not violations:
            return
        # Not while reservations that ran out are counted, at either end.
        arriving = {v.resource: Violation(v.resource, f"project:{id}", 0, 0, 0, 0) for v in violations}
        keys = self._expiry.in_the_way(connection, [*violations, *arriving.values()], joined=False)
        if keys:
            raise RunOut(keys)
        if not admitted:
            raise OverLimit(violations)

    def _refused_counts(
        self,
        connection: sa.Connection,
        id: str,
        definitions: Mapping[int, Definition],
        entering: Sequence[str],
    ) -> list[Violation]:
        """The same of what is counted in the service's tables."""
        counted = {d.resource.name: d for d in definitions.values() if d.resource.name in self._counts}
        names = sorted(counted)
        scopes = [Scope("project", name) for name in reversed(entering)]
        if not counted or not scopes:
            return []
        starts = [(name, scope) for name in names for scope in scopes]
        bounds = self._counters.bounds(connection, counted, starts)
        moving = Scope("project", id)
        sums = self._counts.of(connection, [*starts, *((name, moving) for name in names)])
        found = [
            over_limit(name, scope, bounds[name, scope][0], sums[name, scope], sums[name, moving])
            for name, scope in starts
            if sums[name, moving]
        ]
        return [violation for violation in found if violation is not None]

    def _write(
        self,
        connection: sa.Connection,
        definitions: Mapping[int, Definition],
        load: Mapping[int, Sequence[int]],
        changes: Sequence[tuple[Any, int]],
    ) -> None:
        values = [
            {
                "key": row.id,
                "more_used": sign * load[row.resource_id][0],
                "more_reserved": sign * load[row.resource_id][1],
            }
            for row, sign in changes
        ]
        if values:
            connection.execute(self._carry, values)
        self._events.crossed(
            connection,
            [
                (
                    definitions[row.resource_id].resource.name,
                    Scope("project", row.scope),
                    Standing(row.maximum, row.used),
                    Standing(row.maximum, row.used + sign * load[row.resource_id][0]),
                )
                for row, sign in changes
            ],
        )
