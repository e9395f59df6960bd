"""Edits of the rules, as one transaction: what is locked first, and in which order they are made.

The order is that of claims: the tree's row, then definitions by their number, then counters by theirs. Several edits
at once would lock their counters one after the other, each in its own order; so they lock all of them before the
first is made.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from delimiter.engines.sql.bounds import Bounds
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.limits import Limits
from delimiter.engines.sql.moving import Moving
from delimiter.engines.sql.overbooking import Overbooking
from delimiter.engines.sql.projects import Projects
from delimiter.engines.sql.schema import Tables
from delimiter.model import Overage
from delimiter.refusals import edited_since

__all__ = ["Edits"]

_OF_THE_TREE = (AddProject, MoveProject, RemoveProject, SetOverbooking)


class Edits:
    """Makes the edits of one store."""

    def __init__(
        self,
        tables: Tables,
        database: Database,
        definitions: Definitions,
        projects: Projects,
        counters: Counters,
        bounds: Bounds,
        limits: Limits,
        moving: Moving,
        overbooking: Overbooking,
    ) -> None:
        self._tables = tables
        self._definitions = definitions
        self._projects = projects
        self._counters = counters
        self._bounds = bounds
        self._limits = limits
        self._moving = moving
        self._overbooking = overbooking
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
        """All of them, in order; who holds more than a limit that they changed."""
        self._counters.change_in(connection)
        of_the_tree = any(isinstance(edit, _OF_THE_TREE) for edit in edits)
        if of_the_tree or if_version is not None:
            self._projects.hold(connection)
        else:
            self._projects.share(connection)
        if if_version is not None:
            self._definitions.hold_all(connection)
            version = self.version(connection)
            if version != if_version:
                raise edited_since(if_version, version)
        if len(edits) > 1:
            self._lock_what_they_touch(connection, edits, everything=of_the_tree)
        found = {
            (overage.resource, overage.scope): overage
            for edit in edits
            for overage in self._make(connection, edit)
        }
        self._refuse_overbooking(connection, edits)
        return sorted(found.values(), key=_place)

    def _make(self, connection: sa.Connection, edit: Edit) -> list[Overage]:
        match edit:
            case Define():
                return self._limits.define(connection, edit.resource)
            case Undefine():
                self._limits.undefine(connection, edit.name)
            case SetLimit():
                return self._limits.set(connection, edit.resource, edit.scope, edit.change)
            case AddProject():
                self._moving.add(connection, edit.id, edit.parent)
            case MoveProject():
                self._moving.move(connection, edit.id, edit.parent)
            case RemoveProject():
                self._moving.remove(connection, edit.id)
            case SetOverbooking():
                if self._projects.overbooking(connection) != edit.allowed:
                    self._projects.set_overbooking(connection, allowed=edit.allowed)
        return []

    def _lock_what_they_touch(
        self, connection: sa.Connection, edits: Sequence[Edit], *, everything: bool
    ) -> None:
        """Definitions in order, then counters in order: all of the resources that the edits name."""
        k = self._tables.counters.c
        if everything:
            self._bounds.lock(connection, sa.true())
            return
        named = {name for edit in edits if (name := _resource(edit)) is not None}
        known = sorted(name for name in named if self._definitions.id_if_known(connection, name) is not None)
        ids = self._definitions.hold(connection, known)
        self._bounds.lock(connection, k.resource_id.in_(ids))

    def _refuse_overbooking(self, connection: sa.Connection, edits: Sequence[Edit]) -> None:
        """Looked at once, after all of them: a list may pass through what its end does not have."""
        if any(isinstance(edit, AddProject | MoveProject | SetOverbooking) for edit in edits):
            self._overbooking.refuse(connection)
            return
        named = {name for edit in edits if (name := _resource(edit)) is not None}
        if named:
            self._overbooking.refuse(connection, named)

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
                if self._is_newer(connection, "ancestors", adoption.project, adoption.as_of):
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
        defined = {definition.resource.name for definition in self._definitions.all(connection)}
        present = {own.resource: own.max for own in self._limits.own(connection, adoption.scope)}
        edits: list[Edit] = [
            SetLimit(name, adoption.scope, LimitChange(max=adoption.maxima.get(name)))
            for name in sorted(defined)
            if present.get(name) != adoption.maxima.get(name)
        ]
        self._projects.share(connection)
        if len(edits) > 1:
            self._lock_what_they_touch(connection, edits, everything=False)
        for edit in edits:
            self._make(connection, edit)

    def _adopt_ancestors(self, connection: sa.Connection, adoption: AdoptAncestors) -> None:
        """From the root down, so that each finds its parent in its place, and no circle on the way."""
        self._projects.hold(connection)
        parent: str | None = None
        for name in (*reversed(adoption.ancestors), adoption.project):
            known = self._projects.find(connection, name)
            if known is None:
                self._moving.add(connection, name, parent, admitted=True)
            elif known.parent != parent:
                self._moving.move(connection, name, parent, admitted=True)
            parent = name


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


def _place(overage: Overage) -> tuple[str, int, str]:
    """By resource, then the total, projects, users."""
    kind, _, name = overage.scope.partition(":")
    return overage.resource, ("total", "project", "user").index(kind), name
