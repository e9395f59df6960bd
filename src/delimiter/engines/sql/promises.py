"""The policy that children are promised no more than their parent has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import sqlalchemy as sa

from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.definitions import Definition
from delimiter.engines.sql.ground import Ground
from delimiter.model import UNLIMITED, Scope
from delimiter.refusals import overbooked

__all__ = ["Promises"]


class Promises:
    """Adds up what the limits of children promise, on one store."""

    def __init__(self, ground: Ground, counters: Counters) -> None:
        self._definitions = ground.definitions
        self._projects = ground.projects
        self._counters = counters

    def refuse(self, connection: sa.Connection, names: Iterable[str] | None = None) -> None:
        """Where it is forbidden, and the limits of children add up to more than their parent's: ``InvalidRequest``.

        Looks at the resources of these names, or at all.
        """
        if self._projects.overbooking(connection):
            return
        wanted = None if names is None else set(names)
        projects = self._projects.all(connection)
        for definition in self._definitions.all(connection):
            if wanted is None or definition.resource.name in wanted:
                self._refuse(connection, definition, [(project.id, project.parent) for project in projects])

    def _refuse(
        self, connection: sa.Connection, definition: Definition, tree: list[tuple[str, str | None]]
    ) -> None:
        name = definition.resource.name
        starts = [(name, Scope("project", project)) for project, _ in tree]
        bounds = self._counters.bounds(connection, {name: definition}, starts)
        promised: dict[str, dict[str, int]] = defaultdict(dict)
        for project, parent in reversed(tree):  # children before their parents
            limit = bounds[name, Scope("project", project)][0]
            to_children = sum(promised[project].values())
            if limit != UNLIMITED and to_children > limit:
                raise overbooked(name, project, limit, dict(sorted(promised[project].items())))
            # A child without a limit is promised nothing of its own; what it promises to its own children counts.
            promise = to_children if limit == UNLIMITED else limit
            if parent is not None and promise:
                promised[parent][project] = promise
