"""What was measured, and what was found wrong."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from delimiter.bench.callers import Outcome
from delimiter.bench.scenario import Scenario
from delimiter.bench.tally import Tally, Times
from delimiter.bench.way import Counted, Way

__all__ = ["Figure", "Report"]


@dataclass
class Figure:
    """One way in one scenario: its rounds, and what its tables said afterwards."""

    group: str
    scenario: Scenario
    way: type[Way]
    #: Claims admitted in a second, by round; of a scenario with a flood only those of the neighbours.
    rates: list[float] = field(default_factory=list)
    #: Claims of the flood refused in a second, by round.
    flood_rates: list[float] = field(default_factory=list)
    admitted: int = 0
    refused: int = 0
    undecided: int = 0
    #: Seconds of the callers' processors for one second measured, by round.
    cores: list[float] = field(default_factory=list)
    #: Of the race for the last of a project's quota: what was admitted, and the limit.
    contested: int | None = None
    contested_limit: int | None = None
    faults: list[str] = field(default_factory=list)
    times: Times = field(default_factory=Times)
    #: Everything that was ever admitted, in the race too.
    all_admitted: int = 0

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """The outcomes of one round, one of each process."""
        outcomes = list(outcomes)
        callers = Tally().merge(outcome.callers for outcome in outcomes)
        flood = Tally().merge(outcome.flood for outcome in outcomes)
        seconds = max(outcome.seconds for outcome in outcomes)
        self.rates.append(callers.admitted / seconds)
        if self.scenario.flood:
            self.flood_rates.append(flood.refused / seconds)
        self.cores.append(sum(outcome.cpu_seconds for outcome in outcomes) / seconds)
        self.admitted += callers.admitted
        self.refused += callers.refused
        self.undecided += callers.undecided
        self.times.update(callers.times)
        self.all_admitted += callers.all_admitted + flood.all_admitted

    def check(self, before: Counted, after: Counted) -> None:
        """Hold what the tables say against what the callers were told."""
        self.faults += after.faults
        found = after.claims + after.contested - before.claims - before.contested
        if found != self.all_admitted:
            self.faults.append(f"{self.all_admitted:,} claims were admitted, {found:,} are there")
        if not self.way.decides or not self.scenario.contested_limit:
            return
        self.contested, self.contested_limit = after.contested, self.scenario.contested_limit
        if self.way.exact and self.contested != self.contested_limit:
            self.faults.append(
                f"{self.contested:,} of {self.contested_limit:,} were admitted of a project that more was asked of"
            )

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def milliseconds(self, share: float) -> float | None:
        """The time within which that share of the claims was answered."""
        seconds = self.times.quantile(share)
        return None if seconds is None else seconds * 1000

    @property
    def oversubscribed(self) -> float | None:
        """By how much of its limit the contested project was passed."""
        if self.contested is None or not self.contested_limit:
            return None
        return max(0.0, self.contested / self.contested_limit - 1)

    def as_json(self, baseline: float | None) -> dict[str, Any]:
        scenario = self.scenario
        return {
            "group": self.group,
            "scenario": scenario.name,
            "callers": scenario.callers,
            "processes": len(scenario.shares()),
            "resources": scenario.resources,
            "projects": scenario.projects,
            "depth": scenario.depth,
            "claims": scenario.claims,
            "flood": scenario.flood,
            "way": self.way.name,
            "claims_per_second": self.median,
            "rounds": self.rates,
            "ratio": self.median / baseline if baseline else None,
            "p50_ms": self.milliseconds(0.5),
            "p99_ms": self.milliseconds(0.99),
            "admitted": self.admitted,
            "refused": self.refused,
            "undecided": self.undecided,
            "flood_refused_per_second": statistics.median(self.flood_rates) if self.flood_rates else None,
            "client_cores": statistics.median(self.cores),
            "contested": self.contested,
            "contested_limit": self.contested_limit,
            "oversubscribed": self.oversubscribed,
            "faults": self.faults,
        }


@dataclass
class Report:
    """A whole run."""

    machine: dict[str, Any]
    plan: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    #: What was left out, and why.
    left_out: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Everything that a way which must be exact did wrong; empty: the invariants held."""
        return [
            f"{figure.way.title}, {figure.scenario.name}: {fault}"
            for figure in self.figures
            for fault in figure.faults
        ]

    def figure(self, group: str, scenario: str, way: str) -> Figure | None:
        found = (
            figure
            for figure in self.figures
            if (figure.group, figure.scenario.name, figure.way.name) == (group, scenario, way)
        )
        return next(found, None)

    def baseline(self, figure: Figure, way: str) -> float | None:
        """The rate of the way that the others are compared with, in the same scenario."""
        found = self.figure(figure.group, figure.scenario.name, way)
        return found.median if found is not None else None

    def as_json(self, baseline: str) -> dict[str, Any]:
        return {
            "format": 1,
            "machine": self.machine,
            "plan": self.plan,
            "figures": [figure.as_json(self.baseline(figure, baseline)) for figure in self.figures],
            "left_out": self.left_out,
            "faults": self.faults,
        }
