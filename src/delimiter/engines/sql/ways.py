"""Ways: from the counter of a project or user to those above it that limit it too, and the counters locked on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

from delimiter.engines.records import Counter
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.projects import Projects
from delimiter.engines.sql.schema import Tables
from delimiter.model import SCOPE_KINDS, UNLIMITED, Scope

__all__ = ["Charged", "Outdated", "Start", "Way", "WayReader", "has_limit"]

#: Where a way begins: a resource, and the project or user that is charged first.
Start: TypeAlias = tuple[str, Scope]


class Outdated(Exception):
    """A remembered way is no longer the way. It has been forgotten: work it out again, in a new transaction.

    Where that cannot be had, ``locked`` are the counters that stay locked.
    """

    def __init__(self, locked: Iterable[int] = ()) -> None:
        super().__init__()
        self.locked = frozenset(locked)


@dataclass(frozen=True, slots=True)
class Way:
    """From a project's or user's own counter to those above it that limit it too.

    ``above`` are their numbers and levels: the total first, then ancestors from the root down.
    """

    own: int
    generation: int
    level: int
    above: tuple[tuple[int, int], ...]
    #: Which of them is the total's, if that has a limit.
    total: int | None = None

    def counters(self) -> Iterator[tuple[int, int]]:
        yield from self.above
        yield self.own, self.level


class WayReader:
    """Reads ways without locks, for many starts at once."""

    def __init__(self, tables: Tables, definitions: Definitions, projects: Projects) -> None:
        self._definitions = definitions
        self._projects = projects
        c = tables.counters.c
        of_resources = c.resource_id.in_(sa.bindparam("resources", expanding=True))
        own = sa.select(c.id, c.resource_id, c.kind, c.scope, c.generation)
        self._own = {
            kind: own.where(of_resources, c.kind == kind, c.scope.in_(sa.bindparam("names", expanding=True)))
            for kind in SCOPE_KINDS
        }
        self._limited = self._own["project"].where(has_limit(tables.counters))

    def read(self, connection: sa.Connection, starts: Collection[Start]) -> dict[Start, Way]:
        """The ways of those starts that have counters.

        Generations are read first. What changes a way raises the generations it bears on in the same transaction, so
        one that comes in between is found out when the counter is locked; and statements without a join stay cheap
        however many ask at once.
        """
        if not starts:
            return {}
        names = {self._definitions.id_of(connection, resource): resource for resource, _ in starts}
        own = self._own_counters(connection, names, starts)
        above = self._above(connection, names, starts)
        return {start: _way(own[start], *above[start]) for start in starts if start in own}

    def _own_counters(
        self, connection: sa.Connection, names: Mapping[int, str], starts: Collection[Start]
    ) -> dict[Start, Any]:
        found: dict[Start, Any] = {}
        for kind, statement in self._own.items():
            scopes = sorted({scope.name for _, scope in starts if scope.kind == kind})
            for row in self._rows(connection, statement, sorted(names), scopes):
                found[names[row.resource_id], Scope(kind, row.scope)] = row
        return found

    def _above(
        self, connection: sa.Connection, names: Mapping[int, str], starts: Collection[Start]
    ) -> dict[Start, tuple[int | None, list[int | None]]]:
        """The total's counter, if there is one; and that of each ancestor, if it is limited, the parent first."""
        resources = sorted(names)
        totals = {
            names[row.resource_id]: row.id
            for row in self._rows(connection, self._own["total"], resources, [Scope.total().name])
        }
        projects = {scope.name for _, scope in starts if scope.kind == "project"}
        ancestors = self._projects.above(connection, projects)
        scopes = sorted({name for above in ancestors.values() for name in above})
        limited = {
            (names[row.resource_id], row.scope): row.id
            for row in self._rows(connection, self._limited, resources, scopes)
        }
        return {
            (resource, scope): (
                totals.get(resource),
                [limited.get((resource, name)) for name in ancestors.get(scope.name, ())]
                if scope.kind == "project"
                else [],
            )
            for resource, scope in starts
        }

    def _rows(
        self,
        connection: sa.Connection,
        statement: sa.Select[Any],
        resources: Sequence[int],
        names: Sequence[str],
    ) -> Iterator[Any]:
        for part in chunks(names):
            yield from connection.execute(statement, {"resources": resources, "names": part})


def _way(own: Any, total: int | None, above: Sequence[int | None]) -> Way:
    """``above``: a counter, if there is a limited one, of each of the ancestors, the parent first."""
    depth = len(above)
    levels = [(id, depth - distance) for distance, id in enumerate(above, start=1) if id is not None]
    totals = () if total is None else ((total, 0),)
    return Way(own.id, own.generation, depth, (*totals, *reversed(levels)), total)


def has_limit(counters: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether a project's counter is charged for those below it: a maximum or a floor has to be watched there."""
    return sa.or_(counters.c.maximum != UNLIMITED, counters.c.minimum > 0)


class Charged:
    """The locked counters, by owner: where a claim's charges go."""

    def __init__(self, paths: Mapping[Start, Sequence[Counter]]) -> None:
        self._paths = paths

    def path(self, resource: str, project: str | None, user: str | None) -> list[Counter]:
        """The counters of one resource and owner; what project and user share is charged once."""
        found: dict[int, Counter] = {}
        for scope in Scope.owned(project, user):
            for counter in self._paths[resource, scope]:
                found[counter.key] = counter
        return list(found.values())

    def all(self) -> list[Counter]:
        return list({counter.key: counter for path in self._paths.values() for counter in path}.values())
