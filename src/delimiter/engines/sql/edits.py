"""Edits of the rules, as one transaction: what is locked first, and in which order they are made.

The order is that of claims: the tree's row, then definitions by their number, then counters by theirs. Several edits
at once would lock their counters one after the other, each in its own order; so they lock all of them before the
first is made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import sqlalchemy as sa

from delimiter.edits import (
    AddProject,
    AdoptAncestors,
    Adoption,
    AdoptLimits,
    Define,
    Edit,
    LimitChange,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
    Undefine,
)
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.crossings import Crossings
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.limits import Limits
from delimiter.engines.sql.locking import CounterLocks
from delimiter.engines.sql.moving import Moving
from delimiter.engines.sql.promises import Promises
from delimiter.engines.sql.readings import Readings
from delimiter.errors import UnknownResource
from delimiter.model import Overage, Scope
from delimiter.refusals import edited_since

__all__ = ["Edits"]

_LOG: Final = logging.getLogger(__name__)

_OF_THE_TREE = (AddProject, MoveProject, RemoveProject, SetOverbooking)


class Edits:
    """Makes the edits of one store."""

    def __init__(
        self,
        ground: Ground,
        counters: Counters,
        locks: CounterLocks,
        limits: Limits,
        moving: Moving,
        promises: Promises,
        readings: Readings,
        crossings: Crossings,
        counts: Counts,
    ) -> None:
        tables, database = ground.tables, ground.database
        self._definitions = ground.definitions
        self._projects = ground.projects
        self._counters = counters
        self._locks = locks
        self._limits = limits
        self._moving = moving
        self._promises = promises
        self._readings = readings
        self._crossings = crossings
        self._counts = counts
        #: Names from outside that were told of already: each may be misspelt, or its service has not started yet.
        self._unknown: set[str] = set()
        a = tables.adoptions
        self._adoptions = a
        key = sa.and_(a.c.kind == sa.bindparam("key_kind"), a.c.scope == sa.bindparam("key_scope"))
        self._adopted = database.locked(sa.select(a.c.as_of).where(key))
        self._first_adoption = database.insert_ignoring(a)
        self._adopt = sa.update(a).where(key).values(as_of=sa.bindparam("new_as_of"))

    # -- edits --------------------------------------------------------------------------------------------------

    def make(
        self, connection: sa.Connection, edits: Sequence[Edit], *, if_version: int | None = None
    ) -> list[Overage]:
        """All of them, in order; who at the end holds more than a limit that one of them set."""
        self._counters.change_in(connection)
        of_the_tree = any(isinstance(edit, _OF_THE_TREE) for edit in edits)
        if of_the_tree or if_version is not None:
            self._projects.hold(connection)
        else:
            self._projects.share(connection)
        if if_version is not None:  # every edit shares the tree, at least: nobody makes one meanwhile
            version = self.version(connection)
            if version != if_version:
                raise edited_since(if_version, version)
        if len(edits) > 1:
            self._lock_what_they_touch(connection, edits, everything=of_the_tree)
        touched: set[tuple[str, Scope]] = set()
        changed = [edit for edit in edits if self._make(connection, edit, touched)]
        # Looked at once, after all of them: a list may pass through what its end does not have.
        self._refuse_overbooking(connection, changed)
        touched |= self._look_at_counted(connection, changed)
        return self._over_quota(connection, touched)

    def _make(self, connection: sa.Connection, edit: Edit, touched: set[tuple[str, Scope]]) -> bool:
        """Make one, and note whose limits it has set, as far as they may use more; whether it changed anything."""
        match edit:
            case Define():
                scopes = self._limits.define(connection, edit.resource)
                touched.update((edit.resource.name, scope) for scope in scopes or ())
                return scopes is not None
            case Undefine():
                self._limits.undefine(connection, edit.name)
            case SetLimit():
                touched.add((edit.resource, edit.scope))
                return self._limits.set(connection, edit.resource, edit.scope, edit.change)
            case AddProject():
                return self._moving.add(connection, edit.id, edit.parent)
            case MoveProject():
                return self._moving.move(connection, edit.id, edit.parent)
            case RemoveProject():
                self._moving.remove(connection, edit.id)
            case SetOverbooking():
                if self._projects.overbooking(connection) == edit.allowed:
                    return False
                self._projects.set_overbooking(connection, allowed=edit.allowed)
        return True

    def _look_at_counted(self, connection: sa.Connection, edits: Sequence[Edit]) -> set[tuple[str, Scope]]:
        """Counted resources whose limits have changed: no counter tells who is over them. Those that may be."""
        suspected: set[tuple[str, Scope]] = set()
        for edit in edits:
            name = _resource(edit)
            if name in self._counts and isinstance(edit, SetLimit):
                suspected.add((edit.resource, edit.scope))
            elif name in self._counts and isinstance(edit, Define):
                parts = self._crossings.suspects(connection, edit.resource.name)
                suspected |= {(edit.resource.name, scope) for part in parts for scope in part}
        for name in sorted({name for name, _ in suspected}):
            with suppress(UnknownResource):  # undefined again by a later one
                self._crossings.look(connection, name, sorted(s for other, s in suspected if other == name))
        return suspected

    def _over_quota(self, connection: sa.Connection, touched: set[tuple[str, Scope]]) -> list[Overage]:
        """By resource, then the total, projects, users."""
        found = []
        for name, scope in sorted(touched, key=lambda pair: (pair[0], pair[1].rank, pair[1].name)):
            with suppress(UnknownResource):  # undefined again by a later one
                standing = self._readings.standing(connection, name, scope)
                if standing.over:
                    found.append(Overage(name, str(scope), standing.limit, standing.used))
        return found

    def _lock_what_they_touch(
        self, connection: sa.Connection, edits: Sequence[Edit], *, everything: bool
    ) -> None:
        """Definitions in order, then counters in order, before the first edit is made."""
        named = {name for edit in edits if (name := _resource(edit)) is not None}
        ids = self._definitions.hold(connection, named)
        if everything:
            every = (definition.id for definition in self._definitions.all(connection))
            self._locks.of_resources(connection, every)
            return
        whole = set()
        single = set()
        for edit in edits:
            match edit:
                case SetLimit() if edit.scope.kind != "total" and edit.resource in ids:
                    single |= {(ids[edit.resource], scope) for scope in self._subtree(connection, edit.scope)}
                case _:
                    whole |= {ids[name] for name in [_resource(edit)] if name in ids}
        self._locks.of_both(connection, whole, single)

    def _subtree(self, connection: sa.Connection, scope: Scope) -> list[Scope]:
        """The counters that may turn with this one's limit."""
        if scope.kind != "project":
            return [scope]
        below = self._projects.below(connection, scope.name)
        return [scope, *(Scope("project", name) for name in below)]

    def _refuse_overbooking(self, connection: sa.Connection, edits: Sequence[Edit]) -> None:
        if any(isinstance(edit, AddProject | MoveProject | SetOverbooking) for edit in edits):
            self._promises.refuse(connection)
            return
        named = {name for edit in edits if (name := _resource(edit)) is not None}
        if named:
            self._promises.refuse(connection, named)

    def version(self, connection: sa.Connection) -> int:
        """Grows with every edit: each writes the tree's row, or a definition's."""
        return self._projects.version(connection) + self._definitions.sum_of_versions(connection)

    # -- adoptions ----------------------------------------------------------------------------------------------

    def adopt(self, connection: sa.Connection, adoption: Adoption) -> None:
        """What a source outside says, unless the store has what was fetched later."""
        self._counters.change_in(connection)
        match adoption:
            case AdoptLimits():
                if self._is_newer(connection, adoption.scope.kind, adoption.scope.name, adoption.as_of):
                    self._adopt_limits(connection, adoption)
            case AdoptAncestors():
                self._adopt_ancestors(connection, adoption)

    def _is_newer(self, connection: sa.Connection, kind: str, scope: str, as_of: int) -> bool:
        key = {"key_kind": kind, "key_scope": scope}
        known = connection.execute(self._adopted, key).scalar()
        if known is None:
            first = {"kind": kind, "scope": scope, "as_of": -1}
            connection.execute(self._first_adoption, first)
            known = connection.execute(self._adopted, key).scalar_one()
        if known >= as_of:
            return False
        connection.execute(self._adopt, {**key, "new_as_of": as_of})
        return True

    def _adopt_limits(self, connection: sa.Connection, adoption: AdoptLimits) -> None:
        present = {own.resource: own.max for own in self._limits.own(connection, adoption.scope)}
        defined = [definition.resource.name for definition in self._definitions.all(connection)]
        for name in sorted(adoption.maxima.keys() - set(defined) - self._unknown):
            self._unknown.add(name)
            _LOG.warning("limits from outside name %r, which no service has defined: it limits nothing", name)
        edits: list[Edit] = [
            SetLimit(name, adoption.scope, LimitChange(max=adoption.maxima.get(name)))
            for name in defined
            if present.get(name) != adoption.maxima.get(name)
        ]
        if not edits:
            return
        self._projects.share(connection)
        if len(edits) > 1:
            self._lock_what_they_touch(connection, edits, everything=False)
        for edit in edits:
            self._make(connection, edit, set())

    def _adopt_ancestors(self, connection: sa.Connection, adoption: AdoptAncestors) -> None:
        """From the root down, so that each finds its parent in its place.

        A name of which something later is known already keeps its place, and with it whatever lies below it.
        """
        self._projects.hold(connection)
        parent: str | None = None
        places: list[tuple[str, str | None]] = []
        for name in (*reversed(adoption.ancestors), adoption.project):
            if self._is_newer(connection, "ancestors", name, adoption.as_of):
                known = self._projects.find(connection, name)
                if known is None or known.parent != parent:
                    places.append((name, parent))
            parent = name
        if len(places) > 1:
            self._lock_around(connection, {name for place in places for name in place if name is not None})
        for name, above in places:
            self._put(connection, name, above)

    def _lock_around(self, connection: sa.Connection, names: set[str]) -> None:
        """The counters of all that moves, and of all that it leaves or comes to, before the first move."""
        above = self._projects.above(connection, names)
        below = (project for name in names for project in self._projects.below(connection, name))
        around = names.union(below, *above.values())
        ids = [definition.id for definition in self._definitions.all(connection)]
        self._locks.of_scopes(connection, ids, [Scope("project", name) for name in around])

    def _put(self, connection: sa.Connection, name: str, parent: str | None) -> None:
        if parent is not None and self._projects.find(connection, parent) is None:
            self._moving.add(connection, parent, None, admitted=True)  # it was removed since it was put there
        known = self._projects.find(connection, name)
        if known is None:
            self._moving.add(connection, name, parent, admitted=True)
        elif known.parent != parent and parent not in self._projects.below(connection, name):
            self._moving.move(connection, name, parent, admitted=True)


def _resource(edit: Edit) -> str | None:
    match edit:
        case Define():
            return edit.resource.name
        case Undefine():
            return edit.name
        case SetLimit():
            return edit.resource
        case _:
            return None
