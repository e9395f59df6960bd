"""What the callers do in one measurement: how many there are, and what they claim from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CONTESTED", "LIMIT", "RESOURCES", "Scenario", "ancestry", "project_of", "scopes_of", "user_of"]

#: What every claim takes one of each; in the order in which hand-written code locks.
RESOURCES: Final = ("bench.cores", "bench.instances", "bench.ram")
#: Far away: where speed is measured, nothing is refused.
LIMIT: Final = 10**9
#: The number of the project with a limit that is reached; its user has none.
CONTESTED: Final = -1
_MOST_CONTESTED: Final = 100


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the tables: the same for every way that is compared in it."""

    name: str
    callers: int
    processes: int = 2
    #: How many of :data:`RESOURCES` a claim takes.
    resources: int = 3
    #: Claims are spread over so many projects, each with a user of its own; 1: all of them meet.
    projects: int = 1
    #: Levels of the tree: the project with its ancestors, each with a limit.
    depth: int = 1
    #: Claims of the first project that are there before anybody calls.
    claims: int = 0
    #: Callers, beside the others, that ask a full project for more and are refused.
    flood: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return RESOURCES[: self.resources]

    @property
    def contested_limit(self) -> int:
        """What the contested project may hold: enough for a race, and nothing where it is to be full."""
        return 0 if self.flood else min(20 + self.callers, _MOST_CONTESTED)

    def shares(self) -> list[tuple[int, int]]:
        """For each process its callers, and its callers of the flood."""
        count = max(1, min(self.processes, self.callers + self.flood))
        return [
            (
                self.callers // count + (number < self.callers % count),
                self.flood // count + (count - 1 - number < self.flood % count),
            )
            for number in range(count)
        ]


def project_of(number: int) -> str:
    return "contested" if number == CONTESTED else f"p{number}"


def user_of(number: int) -> str:
    return "contestant" if number == CONTESTED else f"u{number}"


def ancestry(number: int, depth: int) -> list[str]:
    """A project and its ancestors, the nearest first. Each project that is claimed from has ancestors of its own."""
    name = project_of(number)
    return [name, *(f"{name}-above-{level}" for level in range(1, depth))]


def scopes_of(number: int, depth: int) -> list[str]:
    """What a claim of this project is charged to, in the order in which hand-written code locks."""
    return sorted([*(f"project:{name}" for name in ancestry(number, depth)), f"user:{user_of(number)}"])
