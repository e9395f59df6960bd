"""The run: tables of its own, rounds in which the ways take turns, a look at what is counted."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from delimiter import Delimiter
from delimiter.bench.callers import Turn
from delimiter.bench.crew import Crew, MeasurementFailed
from delimiter.bench.plan import Plan
from delimiter.bench.results import Figure, Report
from delimiter.bench.scenario import Scenario
from delimiter.bench.surroundings import connections_to_spare, surroundings
from delimiter.bench.way import Counted, Place, Way
from delimiter.errors import StoreUnavailable

__all__ = ["Told", "measure"]

#: The race for the last of a quota: so many times the limit is asked for, and by every caller at least once.
_RACE: Final = 1.5


class Told(Protocol):
    """Is told of each step: how many there are in all, how many are done, and what is done now."""

    def __call__(self, *, total: int, done: int, now: str) -> None: ...


@dataclass
class _Entry:
    """One way in one scenario, with its tables."""

    figure: Figure
    way: Way
    before: Counted


class _Measurement:
    """One run: what is measured in it, and what of it is there now."""

    def __init__(self, plan: Plan, engine: sa.Engine, prefix: str, told: Told) -> None:
        self.plan = plan
        self.engine = engine
        self._prefix = prefix
        self._told = told
        with self._direct() as connection:
            self._spare = plan.connections or connections_to_spare(connection)
        if self._spare < plan.processes:
            spare = "is 1 connection" if self._spare == 1 else f"are {max(0, self._spare)} connections"
            raise StoreUnavailable(
                f"there {spare} to spare for {plan.processes} processes: let the server have more (max_connections),"
                " or measure when less goes on"
            )
        self._ways = [way for way in plan.ways if way.missing(plan.url) is None]
        self._groups = plan.groups()
        self._done = 0
        self._total = sum(
            len(self._of(scenario)) * (2 + plan.rounds)
            for scenarios in self._groups.values()
            for scenario in scenarios
        )
        self._made = 0
        self._present: list[Way] = []

    @contextmanager
    def _direct(self) -> Iterator[sa.Connection]:
        with self.engine.connect() as connection:
            yield connection
            connection.rollback()

    def left_out(self) -> Iterator[str]:
        for way in self.plan.ways:
            if why := way.missing(self.plan.url):
                yield f"{way.title} is left out: {why}"
        if any(scenario.depth > 1 for group in self._groups.values() for scenario in group):
            for way in self._ways:
                if not way.nested and way.decides:
                    yield f"{way.title} is left out where projects are nested: it knows one level"

    def _of(self, scenario: Scenario) -> list[type[Way]]:
        """The ways that can be measured in a scenario."""
        return [way for way in self._ways if way.fits(scenario)]

    def report(self) -> Report:
        """What is known before anything is measured."""
        plan = self.plan
        with Delimiter(plan.url, create=False, table_prefix=self._prefix, schema=plan.schema) as quota:
            where = surroundings(quota, self.engine)
        return Report(where, _told_plan(plan), left_out=list(self.left_out()))

    def run(self, crew: Crew, report: Report) -> None:
        for name, scenarios in self._groups.items():
            entries = [
                self._made_for(name, scenario, way) for scenario in scenarios for way in self._of(scenario)
            ]
            self._measure(crew, entries)
            report.figures += [entry.figure for entry in entries]
            self.clean()

    def _measure(self, crew: Crew, entries: Sequence[_Entry]) -> None:
        for number in range(self.plan.rounds):
            # There and back, so that nobody always comes after the same other one.
            for entry in entries if number % 2 == 0 else reversed(entries):
                self._step(entry, f"round {number + 1} of {self.plan.rounds}")
                claims = self.plan.claims_per_round
                entry.figure.add(self._take(crew, entry, claims, seed=number))
        for entry in entries:
            self._step(entry, "the last of a quota, and a look at what is counted")
            self._race(crew, entry)
            entry.figure.check(entry.before, entry.way.count())

    def clean(self) -> None:
        """Leave nothing behind of what was made so far."""
        for way in self._present:
            way.drop()
        self._present.clear()
        drop_tables(self.engine, self._prefix, self.plan.schema)

    def _made_for(self, group: str, scenario: Scenario, kind: type[Way]) -> _Entry:
        self._made += 1
        prefix = f"{self._prefix}{self._made}_"
        place = Place(self.plan.url, prefix, self.plan.schema)
        entry = _Entry(Figure(group, scenario, kind), kind(place, scenario), Counted(0, 0))
        self._present.append(entry.way)
        self._step(entry, "making its tables")
        entry.way.create()
        entry.before = entry.way.count()
        return entry

    def _step(self, entry: _Entry, what: str) -> None:
        now = f"{entry.figure.scenario.name}, {entry.way.title}: {what}"
        self._told(total=self._total, done=self._done, now=now)
        self._done += 1

    def _take(
        self, crew: Crew, entry: _Entry, claims: int | None, *, seed: int, contested: bool = False
    ) -> Sequence[Any]:
        shares = entry.figure.scenario.shares()
        callers = sum(count for count, _ in shares)
        each = (
            None if claims is None else [claims // callers + (n < claims % callers) for n in range(callers)]
        )
        connections = max(1, min(self._spare, sum(map(sum, shares))) // len(shares))
        turns, first = [], 0
        for number, (count, flood) in enumerate(shares):
            turns.append(
                Turn(
                    entry.way,
                    count,
                    0 if contested else flood,
                    connections,
                    seed=(self.plan.seed * 1000 + seed) * 100 + number,
                    claims=None if each is None else tuple(each[first : first + count]),
                    contested=contested,
                )
            )
            first += count
        return crew.take(turns, warm_up=self.plan.warm_up, seconds=self.plan.seconds)

    def _race(self, crew: Crew, entry: _Entry) -> None:
        """All callers want the last of one project's quota, and together more than there is."""
        scenario = entry.figure.scenario
        if not entry.way.decides or not scenario.contested_limit:
            return
        claims = max(scenario.callers, int(scenario.contested_limit * _RACE))
        outcomes = self._take(crew, entry, claims, seed=-1, contested=True)
        entry.figure.all_admitted += sum(outcome.callers.all_admitted for outcome in outcomes)


def measure(plan: Plan, *, told: Told) -> Report:
    """Measure, in tables of its own; they are gone when this returns, however it ends.

    Raises ``InvalidRequest``, ``Unsupported``, ``StoreUnavailable``, and :class:`MeasurementFailed` where a way does
    not work. What is wrong with the counts is in the report.
    """
    engine = sa.create_engine(plan.url, poolclass=sa.NullPool)
    measurement = _Measurement(plan, engine, f"bench_{uuid.uuid4().hex[:8]}_", told)
    try:
        with Crew(plan.processes) as crew:
            report = measurement.report()
            measurement.run(crew, report)
        return report
    finally:
        measurement.clean()
        engine.dispose()


def _told_plan(plan: Plan) -> dict[str, Any]:
    return {
        "seconds": plan.seconds,
        "warm_up": plan.warm_up,
        "rounds": plan.rounds,
        "processes": plan.processes,
        "resources": plan.resources,
        "claims_per_round": plan.claims_per_round,
        "seed": plan.seed,
        "ways": [way.name for way in plan.ways],
    }


def drop_tables(engine: sa.Engine, prefix: str, schema: str | None) -> None:
    """Drop the tables whose names begin so; nobody else's do, for the prefix was made up for this run."""
    try:
        names = [
            name for name in sa.inspect(engine).get_table_names(schema=schema) if name.startswith(prefix)
        ]
        if not names:
            return
        metadata = sa.MetaData(schema=schema)
        with engine.begin() as connection:
            for name in names:
                sa.Table(name, metadata).drop(connection)
    except DBAPIError as error:
        raise MeasurementFailed(
            f"the tables that begin with {prefix} could not be dropped ({error.orig}): drop them by hand"
        ) from error
