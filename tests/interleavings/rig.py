"""A store with hands that work on it, and what is believed of the same operations one after the other."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa

from delimiter import Delimiter
from interleavings.exploring import Alike, Run, every_order, replay, sample
from interleavings.gates import Gates
from interleavings.observers import observer
from interleavings.operations import Hand, Operation
from interleavings.stage import Hang, Stage, Step, independent
from interleavings.world import COUNTED, Sight, Store, believed_store, sight

__all__ = ["LEVELS", "MEMORIES", "Report", "Rig", "Violation", "levels_of"]

#: What processes remember when the operations begin: the ways to counters, or nothing; or one process does both.
MEMORIES: Final = ("warm", "cold", "shared")

LEVELS: Final = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

#: Where nobody has a transaction but Delimiter: it opens its own at READ COMMITTED.
OWN: Final = "own"


def levels_of(operations: Iterable[Operation]) -> tuple[str, ...]:
    return LEVELS if any(operation.joins for operation in operations) else (OWN,)


@dataclass
class Violation:
    """What was wrong after a schedule, and how to see it again."""

    what: str
    choices: tuple[int, ...]
    steps: list[str]


@dataclass
class Report:
    """What came of all schedules of some operations on one store at one level."""

    operations: tuple[str, ...]
    store: str
    level: str
    memory: str
    schedules: int = 0
    #: Begun, and left because they came to the same as one before.
    pruned: int = 0
    diverged: int = 0
    deadlocks: int = 0
    #: Attempts begun anew, inside or by the caller.
    retries: int = 0
    every: bool = True
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    #: The different ends there were: what was told, and what was in the tables.
    ends: set[str] = field(default_factory=set)


@dataclass
class _Memory:
    """What a process remembers of a store."""

    ways: dict[Any, Any]
    ids: dict[str, int]
    names: dict[int, str]
    counted: set[str]

    @classmethod
    def of(cls, quota: Delimiter) -> _Memory:
        engine: Any = quota._engine
        definitions = engine._definitions
        ways = engine._changes._counters._ways
        return cls(dict(ways), dict(definitions._ids), dict(definitions._names), set(definitions._counted))

    def back_to(self, quota: Delimiter) -> None:
        engine: Any = quota._engine
        for remembered, kept in (
            (engine._changes._counters._ways, self.ways),
            (engine._definitions._ids, self.ids),
            (engine._definitions._names, self.names),
            (engine._definitions._counted, self.counted),
        ):
            remembered.clear()
            remembered.update(kept)
        engine._together.gathering._paths.clear()
        engine._arrivals._full.clear()


class Rig:
    """One store, and up to three who work on it at once."""

    def __init__(self, name: str, url: sa.URL, *, hands: int = 2) -> None:
        self.name = name
        self._tuned = _Tuned(url)
        self._store = Store(url)
        self._observer = observer(url)
        self._stage = Stage(hands, self._observer)
        self.hands = [self._hand(number, url) for number in range(hands)]
        quotas = [hand.quota for hand in self.hands]
        for hand in self.hands:
            hand.others = [quota for quota in quotas if quota is not hand.quota]
        self._store.make()
        self._warm = [self._warmed(hand) for hand in self.hands]
        self._believed: dict[tuple[str, ...], list[tuple[list[Any], Sight]]] = {}

    def _hand(self, number: int, url: sa.URL) -> Hand:
        quota = Delimiter(url.render_as_string(hide_password=False), timeout=30)
        engine: Any = quota._engine
        Gates(self._stage, engine._transactions._engine)
        engine.pause = self._stage.pause
        engine._arrivals.patience = 30  # how long a step takes is not the stage's to say
        services = {level: sa.create_engine(url, isolation_level=level) for level in LEVELS}
        for service in services.values():
            Gates(self._stage, service)
        return Hand(number, quota, services, self._stage)

    def _warmed(self, hand: Hand) -> _Memory:
        self._store.reset()
        self._store.count_rows(hand.quota)
        for project, user in (("acme", "john"), ("acme", "mary"), ("zeta", "mary"), ("zeta", "john")):
            hand.quota.claim({"cpu": 1, "disk": 1}, project=project, user=user)
        hand.quota.claim({"cpu": 1}, project="globex", user="mary")
        with (
            hand.services[LEVELS[0]].begin() as connection,
            hand.quota.guard({COUNTED: 1}, project="acme", connection=connection),
        ):
            pass
        return _Memory.of(hand.quota)

    def close(self) -> None:
        self._stage.close()
        for hand in self.hands:
            hand.quota.close()
            for service in hand.services.values():
                service.dispose()
        self._observer.close()
        self._store.close()
        self._tuned.back()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- schedules --------------------------------------------------------------------------------------------------

    def explore(
        self,
        operations: Sequence[Operation],
        level: str,
        *,
        memory: str = "warm",
        most: int = 2000,
        samples: int = 0,
        seed: int = 0,
        alike: Alike = independent,
    ) -> Report:
        """Every schedule, up to ``most``; then (or only, if ``most`` is 0) as many by chance."""
        report = Report(tuple(one.name for one in operations), self.name, level, memory)
        started = time.monotonic()
        judged: dict[str, str | None] = {}
        begin = self._beginning(operations, level, memory)
        try:
            dice = random.Random(f"{seed} {report.operations}")
            runs = self._every(begin, report, most, alike) if most else iter(())
            for run in itertools.chain(runs, self._by_chance(begin, report, most, samples, dice)):
                self._note(operations, run, report, judged)
        except Hang as hang:
            taken = list(self._stage.taken)
            told = _told(operations, taken)
            report.violations.append(Violation(str(hang), tuple(number for number, _ in taken), told))
            self._stage.finish()
        report.seconds = time.monotonic() - started
        return report

    def _every(self, begin: Callable[[], None], report: Report, most: int, alike: Alike) -> Iterator[Run]:
        for run in every_order(self._stage, begin, alike):
            yield run
            if report.schedules + report.pruned >= most:
                report.every = False
                return

    def _by_chance(
        self, begin: Callable[[], None], report: Report, most: int, samples: int, dice: random.Random
    ) -> Iterator[Run]:
        report.every = report.every and most > 0
        for _ in range(0 if report.every else samples):
            yield sample(self._stage, begin, dice)

    def replay(
        self, operations: Sequence[Operation], level: str, memory: str, choices: Sequence[int]
    ) -> Report:
        """One schedule again."""
        report = Report(tuple(one.name for one in operations), self.name, level, memory, every=False)
        run = replay(self._stage, self._beginning(operations, level, memory), choices)
        self._note(operations, run, report, {})
        report.violations = report.violations or [Violation("", run.choices, _told(operations, run.steps))]
        return report

    def _beginning(self, operations: Sequence[Operation], level: str, memory: str) -> Callable[[], None]:
        def run_of(operation: Operation, hand: Hand) -> Callable[[], Any]:
            return lambda: operation.run(hand, level)

        quotas = [hand.quota for hand in self.hands]

        def begin() -> None:
            self._store.reset()
            self._store.pass_time(self._store.judge, *quotas)
            for hand, warm in zip(self.hands, self._warm, strict=True):
                known = _Memory({}, {}, {}, set()) if memory == "cold" else warm
                known.back_to(hand.quota)
            hands = (
                [replace(hand, quota=quotas[0]) for hand in self.hands] if memory == "shared" else self.hands
            )
            pairs = zip(operations, hands, strict=False)
            self._stage.begin([run_of(operation, hand) for operation, hand in pairs])

        return begin

    # -- judging ----------------------------------------------------------------------------------------------------

    def _note(
        self, operations: Sequence[Operation], run: Run, report: Report, judged: dict[str, str | None]
    ) -> None:
        if run.diverged:
            report.diverged += 1
            return
        if run.pruned:
            report.pruned += 1
            return
        report.schedules += 1
        actors = self._stage.actors[: len(operations)]
        report.deadlocks += sum(actor.deadlocks for actor in actors)
        report.retries += sum(actor.conflicts for actor in actors)
        outcomes = [actor.outcome for actor in actors]
        key = repr((outcomes, self._store.digest()))
        if key not in judged:
            judged[key] = self._judge(operations, outcomes)
            report.ends.add(key)
        what = judged[key]
        if what is not None:
            report.violations.append(Violation(what, run.choices, _told(operations, run.steps)))

    def _judge(self, operations: Sequence[Operation], outcomes: list[Any]) -> str | None:
        for operation, outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                return f"{operation.name} raised {outcome!r}"
            if outcome == ("never decided", None):
                return f"{operation.name} was never decided"
        judge = self._store.judge
        if any(operation.name == "time" for operation in operations):
            Store.pass_time(judge, seconds=10_000_000)
        drifts = list(judge.reconcile())
        if drifts:
            return f"counters are not the sums of the claims: {drifts}"
        seen = sight(judge)
        believed = self._serial(operations)
        for told, after in believed:
            alike = all(
                o.silent or one == two for o, one, two in zip(operations, outcomes, told, strict=True)
            )
            if alike and seen == after:
                return None
        lines = ["no order of one after the other ends like this", f"  told:  {outcomes}", f"  store: {seen}"]
        for told, after in believed:
            lines += [f"  believed: {told}", f"     store: {after}"]
        return "\n".join(lines)

    def _serial(self, operations: Sequence[Operation]) -> list[tuple[list[Any], Sight]]:
        """What the memory engine says to each order of one after the other."""
        names = tuple(operation.name for operation in operations)
        if names not in self._believed:
            found = []
            for order in itertools.permutations(range(len(operations))):
                with believed_store() as quota:
                    told: list[Any] = [None] * len(operations)
                    for number in order:
                        told[number] = operations[number].believed(quota, number)
                    found.append((told, sight(quota)))
            self._believed[names] = found
        return self._believed[names]


def _told(operations: Sequence[Operation], steps: Sequence[tuple[int, Step]]) -> list[str]:
    return [f"{number + 1} {operations[number].name}: {step}" for number, step in steps]


class _Tuned:
    """Deadlocks are found soon, and nobody waits for a disk: what survives a crash is tested elsewhere."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._kept: int | None = None
        if url.get_backend_name() == "postgresql":  # of this database, which goes with it
            for setting in ("deadlock_timeout = '10ms'", "synchronous_commit = off"):
                self._send(f'ALTER DATABASE "{url.database}" SET {setting}')
        else:
            self._kept = self._send("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")
            self._send("SET GLOBAL innodb_flush_log_at_trx_commit = 2")

    def back(self) -> None:
        if self._kept is not None:
            self._send(f"SET GLOBAL innodb_flush_log_at_trx_commit = {self._kept}")

    def _send(self, statement: str) -> int | None:
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return int(result.scalar_one()) if result.returns_rows else None
