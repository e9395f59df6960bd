"""Brings counters up to date with the limits in force, in the transaction that changes the limits.

A project that has a limit is charged for everything below it; one without is no hot spot, and what it uses is derived
when somebody asks. So when a project gets its first limit (or loses its last), the counters below it are locked, in
their order, what they hold is added up from the locked rows, and their generations are raised: every claim from then
on knows the new way. The same holds for the total and everybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

from delimiter.engines.sql.counters import Counters, effective, is_limited
from delimiter.engines.sql.definitions import Definition
from delimiter.engines.sql.events import Standing
from delimiter.engines.sql.expiry import Expiry, RunOut
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.locking import CounterLocks
from delimiter.engines.sql.sums import Sums
from delimiter.errors import InvalidRequest
from delimiter.model import CEILING, UNLIMITED, Scope, Violation

__all__ = ["Bounds"]

#: What a scope's counter holds (used, reserved), or what comes from below it.
_Held: TypeAlias = tuple[int, int]

_NOTHING: _Held = (0, 0)


def _nothing() -> None:
    """There is nothing to tell."""


@dataclass(slots=True)
class _Update:
    """A counter as it is on the locked row (``None``: it is still to be made), and as it has to be."""

    scope: Scope
    row: Any | None
    bounds: tuple[int, int]
    used: int
    reserved: int
    below: _Held
    #: What the scope uses with all that lies below it, whether it is charged here or not.
    whole: int

    @property
    def before(self) -> Standing:
        return Standing(UNLIMITED, 0) if self.row is None else Standing(self.row.maximum, self.row.used)

    @property
    def after(self) -> Standing:
        return Standing(self.bounds[0], self.whole)

    @property
    def turned(self) -> bool:
        """Whether those below must be charged here from now on, or no longer."""
        was = self.row is not None and is_limited(self.row.maximum, self.row.minimum)
        return self.scope.kind == "project" and was != is_limited(*self.bounds)

    @property
    def changed(self) -> bool:
        return self.row is not None and (
            self.bounds != (self.row.maximum, self.row.minimum)
            or self.below != (self.row.used_below, self.row.reserved_below)
        )


class Bounds:
    """The limits in force on the counters of one store."""

    def __init__(
        self, ground: Ground, locks: CounterLocks, sums: Sums, counters: Counters, expiry: Expiry
    ) -> None:
        tables, database = ground.tables, ground.database
        self._tables = ground.tables
        self._projects = ground.projects
        self._locks = locks
        self._sums = sums
        self._counters = counters
        self._expiry = expiry
        self._events = ground.events
        c = tables.counters.c
        self._write = database.by_key(
            sa.update(tables.counters)
            .where(c.id == sa.bindparam("key"))
            .values(
                maximum=sa.bindparam("new_maximum"),
                minimum=sa.bindparam("new_minimum"),
                used=sa.bindparam("new_used"),
                reserved=sa.bindparam("new_reserved"),
                used_below=sa.bindparam("new_used_below"),
                reserved_below=sa.bindparam("new_reserved_below"),
            ),
            tables.counters,
        )

    # -- the total, and defaults --------------------------------------------------------------------------------

    def of_all(
        self, connection: sa.Connection, definition: Definition, told: Callable[[], None] = _nothing
    ) -> list[Scope]:
        """After a definition, or the total's own limit, changed; who may hold more than a limit that changed.

        ``told`` is called when everything that the change bears on is locked: an event of it is then in its place
        among those of the same scope.
        """
        total = Scope.total()
        own = self._own(connection, definition.id)
        wanted = effective(definition.resource, total, own.get(total))
        rows = self._locks.of_resources(connection, [definition.id])
        known = next((row for row in rows if row.kind == "total"), None)
        turns = is_limited(*wanted) != (known is not None)
        updates = self._updates(connection, definition, rows, own)
        if turns and known is None:
            used, reserved = self._sums.of_scope(connection, definition.id, total)
            updates.append(_Update(total, None, wanted, used, reserved, _NOTHING, used))
        self._apply(connection, definition, updates, told)
        if turns or any(update.turned for update in updates):
            self._locks.raise_generations(connection, rows)
        if turns and known is not None:
            connection.execute(sa.delete(self._tables.counters).where(self._tables.counters.c.id == known.id))
        return [
            update.scope
            for update in updates
            if update.after.over and update.before.limit != update.bounds[0]
        ]

    def _updates(
        self, connection: sa.Connection, definition: Definition, rows: Sequence[Any], own: Mapping[Scope, Any]
    ) -> list[_Update]:
        """Every counter of a resource, and those that ancestors need which have a limit now."""
        above = self._projects.above(connection, [row.scope for row in rows if row.kind == "project"])
        below: defaultdict[Scope, list[int]] = defaultdict(lambda: [0, 0])
        for row in rows:
            for ancestor in above.get(row.scope, ()) if row.kind == "project" else ():
                held = below[Scope("project", ancestor)]
                held[0] += row.used - row.used_below
                held[1] += row.reserved - row.reserved_below
        present = {Scope(row.kind, row.scope): row for row in rows}
        updates = []
        for scope in sorted(present.keys() | below.keys()):
            bounds = effective(definition.resource, scope, own.get(scope))
            held_below = below.get(scope, [0, 0])
            row = present.get(scope)
            if row is not None or is_limited(*bounds):
                updates.append(_update(scope, row, bounds, (held_below[0], held_below[1])))
        return updates

    # -- one scope ----------------------------------------------------------------------------------------------

    def of_scope(
        self,
        connection: sa.Connection,
        definition: Definition,
        scope: Scope,
        told: Callable[[], None] = _nothing,
    ) -> None:
        """After a scope's own limit changed; ``told`` as above."""
        name = definition.resource.name
        bounds = self._counters.bounds(connection, {name: definition}, [(name, scope)])[name, scope]
        c = self._tables.counters.c
        here = sa.and_(c.resource_id == definition.id, c.kind == scope.kind, c.scope == scope.name)
        # Read without a lock: only who holds the definition, as we do, changes the limits on its counters.
        row = connection.execute(sa.select(c.maximum, c.minimum).where(here)).first()
        turns = is_limited(*bounds) != (row is not None and is_limited(row.maximum, row.minimum))
        if turns and scope.kind == "total":
            self.of_all(connection, definition, told)
        elif turns and scope.kind == "project":
            self._turn_project(connection, definition, scope, bounds, told)
        else:
            rows = self._locks.of_scopes(connection, [definition.id], [scope])
            below = ((row.used_below, row.reserved_below) for row in rows)
            updates = [_update(scope, row, bounds, held) for row, held in zip(rows, below, strict=True)]
            self._apply(connection, definition, updates, told)

    def _turn_project(
        self,
        connection: sa.Connection,
        definition: Definition,
        scope: Scope,
        bounds: tuple[int, int],
        told: Callable[[], None],
    ) -> None:
        """A project's first limit, or its last taken away: what lies below it is charged to it too, or no longer."""
        names = self._projects.below(connection, scope.name)
        subtree = [scope, *(Scope("project", name) for name in names)]
        rows = self._locks.of_scopes(connection, [definition.id], subtree)
        lower = [row for row in rows if row.scope != scope.name]
        known = next((row for row in rows if row.scope == scope.name), None)
        if not rows:
            told()  # nothing was ever claimed here: the first claim will make the counter
            return
        below = (
            sum(row.used - row.used_below for row in lower),
            sum(row.reserved - row.reserved_below for row in lower),
        )
        self._apply(connection, definition, [_update(scope, known, bounds, below)], told)
        # Its own too: whoever guards it by a snapshot from before would not see what came in below meanwhile.
        self._locks.raise_generations(connection, rows)

    # -- writing ------------------------------------------------------------------------------------------------

    def _apply(
        self,
        connection: sa.Connection,
        definition: Definition,
        updates: Sequence[_Update],
        told: Callable[[], None],
    ) -> None:
        self._refuse_too_much(definition, updates)
        self._look_for_expired(connection, definition, updates)
        rows = [
            {
                "key": update.row.id,
                "new_maximum": update.bounds[0],
                "new_minimum": update.bounds[1],
                "new_used": update.used,
                "new_reserved": update.reserved,
                "new_used_below": update.below[0],
                "new_reserved_below": update.below[1],
            }
            for update in updates
            if update.row is not None and update.changed
        ]
        if rows:
            connection.execute(self._write, rows)
        for update in updates:
            if update.row is None:
                held = (update.used, update.reserved)
                self._counters.make_one(connection, definition, update.scope, update.bounds, held)
        told()
        name = definition.resource.name
        self._events.crossed(
            connection, ((name, update.scope, update.before, update.after) for update in updates)
        )

    def _look_for_expired(
        self, connection: sa.Connection, definition: Definition, updates: Sequence[_Update]
    ) -> None:
        """Nobody is over quota because of reservations that ran out and are still counted."""
        name = definition.resource.name
        suspected = [
            Violation(name, str(update.scope), update.bounds[0], update.used, 0, 0)
            for update in updates
            if update.after.over and update.before != update.after and update.reserved
        ]
        if suspected and (keys := self._expiry.in_the_way(connection, suspected, joined=False)):
            raise RunOut(keys)

    @staticmethod
    def _refuse_too_much(definition: Definition, updates: Sequence[_Update]) -> None:
        for update in updates:
            if update.used > CEILING:
                raise InvalidRequest(
                    f"{definition.resource.name}: {update.used} is claimed in {update.scope}, more than one counter"
                    f" can hold ({CEILING})"
                )

    def _own(self, connection: sa.Connection, resource_id: int) -> dict[Scope, Any]:
        limits = self._tables.limits
        rows = connection.execute(sa.select(limits).where(limits.c.resource_id == resource_id))
        return {Scope(row.kind, row.scope): row for row in rows}


def _update(scope: Scope, row: Any | None, bounds: tuple[int, int], below: _Held) -> _Update:
    """``below`` is what lies below; it is charged here only where there is a limit."""
    own = _NOTHING if row is None else (row.used - row.used_below, row.reserved - row.reserved_below)
    charged = below if is_limited(*bounds) else _NOTHING
    return _Update(scope, row, bounds, own[0] + charged[0], own[1] + charged[1], charged, own[0] + below[0])
