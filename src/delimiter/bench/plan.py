"""What is to be measured: the options, and the scenarios that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from delimiter.bench.commits import SingleRowCommits
from delimiter.bench.ledgers import ConditionalUpdate, SelectForUpdate, Serializable
from delimiter.bench.ours import InCallersTransaction, OnTheLoop, Threads
from delimiter.bench.scenario import RESOURCES, Scenario
from delimiter.bench.sums import CheckThenInsert, CompareAndSwap
from delimiter.bench.way import Way
from delimiter.errors import InvalidRequest

__all__ = ["BASELINE", "WAYS", "Plan"]

#: Every way, in the order of the tables.
WAYS: Final[Mapping[str, type[Way]]] = {
    way.name: way
    for way in (
        Threads,
        OnTheLoop,
        InCallersTransaction,
        ConditionalUpdate,
        SelectForUpdate,
        CompareAndSwap,
        Serializable,
        CheckThenInsert,
        SingleRowCommits,
    )
}
#: What the others are compared with.
BASELINE: Final = ConditionalUpdate.name

#: Callers where it is not their number that varies.
_USUAL_CALLERS: Final = 64
_MOST_CALLERS: Final = 10_000


@dataclass(frozen=True)
class Plan:
    """The options of a run. Each group of scenarios varies one thing; what is in a group is measured in turn.

    ``seconds`` are measured of each way in each round, after ``warm_up`` seconds; with ``claims_per_round`` it is so
    many claims instead. ``spread``: so many projects (0: not measured). ``depth`` and ``claims``: levels of the tree,
    and claims that are there before. ``connections``: of all processes of one way together.
    """

    url: str
    callers: Sequence[int] = (1, 16, 64)
    processes: int = 2
    seconds: float = 1.0
    warm_up: float = 0.5
    rounds: int = 3
    resources: int = 3
    spread: int = 1000
    depth: Sequence[int] = ()
    claims: Sequence[int] = ()
    flood: bool = False
    ways: Sequence[type[Way]] = tuple(WAYS.values())
    connections: int | None = None
    claims_per_round: int | None = None
    seed: int = 1
    schema: str | None = None
    #: Beside those of the options: groups of scenarios by name.
    more: Mapping[str, Sequence[Scenario]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("processes", 1, 64),
            ("rounds", 1, 1000),
            ("resources", 1, len(RESOURCES)),
        ):
            _within(name, getattr(self, name), least, most)
        for callers in self.callers:
            _within("callers", callers, 1, _MOST_CALLERS)
        for depth in self.depth:
            _within("depth", depth, 1, 64)
        for claims in self.claims:
            _within("claims", claims, 1, 10**8)
        _within("spread", self.spread, 0, 10**6)
        if not 0 < self.seconds <= 86_400 or not 0 <= self.warm_up <= 3600:
            raise InvalidRequest("seconds must be above 0, and no more than a day")
        if not self.callers:
            raise InvalidRequest("name at least one number of callers")
        if not self.ways:
            raise InvalidRequest("name at least one way")

    @property
    def usual(self) -> Scenario:
        """What the groups vary: 64 callers, or the most that were asked for; one hot project; one level."""
        callers = _USUAL_CALLERS if _USUAL_CALLERS in self.callers else max(self.callers)
        return Scenario(f"{callers} callers", callers, self.processes, self.resources)

    def groups(self) -> dict[str, list[Scenario]]:
        """The scenarios, by what varies in them."""
        usual = self.usual
        found: dict[str, list[Scenario]] = {
            "hot": [
                replace(usual, name=_number(count, "caller"), callers=count)
                for count in dict.fromkeys(self.callers)
            ]
        }
        if self.spread > 1:
            found["spread"] = [
                replace(usual, name=f"{self.spread:,} projects", projects=self.spread),
            ]
        if self.depth:
            found["depth"] = [
                replace(usual, name=_number(depth, "level"), depth=depth)
                for depth in dict.fromkeys(self.depth)
            ]
        if self.claims:
            found["claims"] = [
                replace(usual, name=_number(claims, "claim"), callers=1, claims=claims)
                for claims in dict.fromkeys(self.claims)
            ]
        if self.flood:
            half = max(1, usual.callers // 2)
            alone = replace(usual, name="neighbours alone", callers=half)
            found["flood"] = [alone, replace(alone, name="beside a flood", flood=half)]
        return found | {name: list(scenarios) for name, scenarios in self.more.items()}


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{name} must be between {least:,} and {most:,}, not {value:,}")


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
