"""Ways: from the counter of a project or user to those above it that limit it too, and the counters locked on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from delimiter.engines.records import Counter
from delimiter.model import Scope

__all__ = ["Charged", "Outdated", "Start", "Way", "way_of"]

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


def way_of(rows: Sequence[Any]) -> Way:
    """Of the rows of one counter: one for each of its ancestors, limited or not."""
    first = rows[0]
    depth = sum(row.distance is not None for row in rows)
    above = sorted((depth - row.distance, row.above) for row in rows if row.above is not None)
    total = () if first.total is None else ((first.total, 0),)
    return Way(
        first.id, first.generation, depth, (*total, *((id, level) for level, id in above)), first.total
    )


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
