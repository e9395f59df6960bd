"""Two operations, statement by statement, in every order; and that the harness sees a guard which is missing.

`make interleavings` explores all pairs; here are those that are most in each other's way, and some of the rest.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.together.gathering import Batch, Gathering
from delimiter.engines.sql.together.mariadb import MariaDBWriter
from delimiter.engines.sql.together.postgresql import PostgreSQLWriter
from delimiter.engines.sql.transactions import Transactions
from interleavings.exploring import every_order
from interleavings.operations import BY_NAME, Hand, Operation
from interleavings.plans import STORES, Work, carry_out, pairs, threes
from interleavings.rig import LEVELS, MEMORIES, Report, Rig
from interleavings.stage import Kind, Step, independent
from interleavings.world import ROWS
from servers import Server

_HOTTEST = (
    "claim+claim",
    "claim+lower limit",
    "claim+first total",
    "claim+sweep",
    "same id+same id",
    "list+list",
    "batch+batch",
    "batch+claim",
    "batch+lower limit",
    "first claim+first of an ancestor",
    "claim of the other+move",
    "provision+release of held",
    "provision+time",
    "guard+guard",
    "guard+lower limit of rows",
    "optimistic guard+guard",
    "claim+caller commits",
)

_SEED = 20260
_OF_THE_REST, _OF_THREES, _BY_CHANCE = 16, 6, 2


@contextmanager
def _on(server: Callable[[str], Server], name: str, *, hands: int = 2) -> Iterator[Rig]:
    owner = server(name)
    url = owner.create_database()
    try:
        with Rig(name, url, hands=hands) as rig:
            yield rig
    finally:
        owner.drop_database(url)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.stores(name)) for name in STORES]
)
def rig(request: pytest.FixtureRequest, server: Callable[[str], Server]) -> Iterator[Rig]:
    with _on(server, request.param, hands=3) as rig:
        yield rig


def _is_sound(reports: list[Report], request: pytest.FixtureRequest) -> None:
    """Prints how much was explored. Nothing was wrong after any of it."""
    schedules = sum(report.schedules for report in reports)
    request.node.user_properties.append(("schedules", schedules))
    print(f"{schedules} schedules of {len(reports)} cases, {sum(r.deadlocks for r in reports)} deadlocks")  # noqa: T201
    wrong = [(report.operations, report.level, one) for report in reports for one in report.violations]
    assert not wrong, "\n".join([str(wrong[0][:2]), *wrong[0][2].steps, wrong[0][2].what])
    assert all(report.schedules > 0 for report in reports)


@pytest.mark.slow
def test_the_hottest_pairs_in_every_order(rig: Rig, request: pytest.FixtureRequest) -> None:
    """Guards: every lock, the generation of a way, the unique key of an id, the revision of a guarded counter."""
    tasks = [task for task in pairs(rig.name, only=",".join(_HOTTEST)) if task.level != LEVELS[2]]
    reports = [carry_out(rig, task, Work(most=80, samples=3, seed=_SEED)) for task in tasks]
    _is_sound(reports, request)
    assert sum(report.every for report in reports) > len(reports) * 0.8


@pytest.mark.slow
def test_the_rest_by_chance(rig: Rig, request: pytest.FixtureRequest) -> None:
    dice = random.Random(f"{_SEED} {rig.name}")
    tasks = dice.sample(pairs(rig.name, memories=MEMORIES), _OF_THE_REST)
    tasks += threes(rig.name, _SEED, _OF_THREES)
    reports = [carry_out(rig, task, Work(most=0, samples=_BY_CHANCE, seed=_SEED)) for task in tasks]
    _is_sound(reports, request)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names, level",
    [
        (("claim", "claim"), "own"),
        (("guard", "lower limit of rows"), LEVELS[1]),
    ],
)
def test_the_orders_left_out_come_to_the_same(rig: Rig, names: tuple[str, str], level: str) -> None:
    """Orders of all steps, by chance, end in no way that is not among the ends of those that are run."""
    operations = [BY_NAME[name] for name in names]
    every = rig.explore(operations, level, most=300)
    chosen = rig.explore(operations, level, most=0, samples=30, seed=_SEED)
    assert every.every
    assert len(every.ends) > 1
    assert chosen.ends <= every.ends
    assert every.violations == chosen.violations == []


# --- a harness that sees nothing would be content with everything ----------------------------------------------


def _exactly(patch: pytest.MonkeyPatch) -> None:
    """Nothing is made by one statement."""
    patch.setattr(Gathering, "gather", lambda *_: Batch())


def _without_locks(patch: pytest.MonkeyPatch) -> None:
    _exactly(patch)
    patch.setattr(Database, "locked", lambda _self, statement, **_how: statement)


def _any_way(patch: pytest.MonkeyPatch) -> None:
    _exactly(patch)
    patch.setattr(Counters, "_is_way", lambda *_: True)


def _one_statement_without_locks(patch: pytest.MonkeyPatch) -> None:
    def unlocked(text: Callable[..., str]) -> Callable[..., str]:
        return lambda *given, **how: re.sub(r" FOR (NO KEY )?UPDATE( OF k)?", "", text(*given, **how))

    # As a transaction of its own it has no moments between which another could come.
    patch.setattr(Transactions, "can_at_once", lambda _: False)
    patch.setattr(PostgreSQLWriter, "_or_left", unlocked(PostgreSQLWriter._or_left))
    patch.setattr(MariaDBWriter, "_text", unlocked(MariaDBWriter._text))


def _one_statement_any_way(patch: pytest.MonkeyPatch) -> None:
    gather = Gathering.gather

    def without_generations(*given: Any) -> Batch:
        batch = gather(*given)
        for charge in batch.charges.values():
            charge.generation = None
        return batch

    patch.setattr(Gathering, "gather", without_generations)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.stores(name)) for name in STORES])
@pytest.mark.parametrize(
    "take_out, names, told",
    [
        (_without_locks, ("claim", "claim"), "no order of one after the other ends like this"),
        (_any_way, ("claim", "first total"), "counters are not the sums of the claims"),
        (_one_statement_without_locks, ("claim", "claim"), "no order of one after the other ends like this"),
        (_one_statement_any_way, ("claim", "first total"), "counters are not the sums of the claims"),
    ],
    ids=[
        "no FOR UPDATE",
        "no generations",
        "no FOR UPDATE in one statement",
        "no generations in one statement",
    ],
)
def test_a_guard_that_is_missing_is_seen(
    name: str,
    take_out: Callable[[pytest.MonkeyPatch], None],
    names: tuple[str, str],
    told: str,
    server: Callable[[str], Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the schedule that showed it shows it again."""
    take_out(monkeypatch)
    operations = [BY_NAME[one] for one in names]
    with _on(server, name) as rig:
        violations = rig.explore(operations, "own", most=30).violations
        assert violations[0].what.startswith(told)
        assert (
            rig.replay(operations, "own", "warm", violations[0].choices).violations[0].what.startswith(told)
        )


def _locks_rows(*ids: int) -> Operation:
    """A caller who locks the service's rows with these ids, in this order."""

    def run(hand: Hand, level: str) -> None:
        with hand.services[level].begin() as connection:
            for id in ids:
                connection.execute(sa.update(ROWS).where(ROWS.c.id == id).values(project_id="acme"))

    return Operation(f"locks {ids}", run, lambda _quota, _number: None, joins=True)


@pytest.mark.slow
def test_a_deadlock_is_seen_and_is_wrong(rig: Rig) -> None:
    """Two who lock in different orders: some of the schedules deadlock, and one of the two is told so."""
    forth, back = _locks_rows(1, 2), _locks_rows(2, 1)
    report = rig.explore([forth, back], LEVELS[0])
    assert report.every
    assert 0 < report.deadlocks < report.schedules
    assert report.deadlocks == len(report.violations)
    assert "raised" in report.violations[0].what
    assert rig.explore([forth, forth], LEVELS[0]).violations == []


# --- the search, without a store -------------------------------------------------------------------------------


class _Paper:
    """A stage on paper: operations are lists of steps, and nobody waits."""

    def __init__(self, *operations: list[Step]) -> None:
        self._operations = operations
        self._at = [0] * len(operations)

    def begin(self) -> None:
        self._at = [0] * len(self._operations)

    def enabled(self) -> dict[int, Step]:
        pairs = enumerate(zip(self._operations, self._at, strict=True))
        return {number: steps[at] for number, (steps, at) in pairs if at < len(steps)}

    def take(self, number: int) -> None:
        self._at[number] += 1

    def finish(self) -> None:
        self.begin()


def _steps(*kinds: Kind, table: str = "t") -> list[Step]:
    return [Step(kind, str(number), frozenset([table])) for number, kind in enumerate(kinds)]


_WRITES = (Kind.TOUCH, Kind.TOUCH, Kind.COMMIT)
_READS = (Kind.READ, Kind.READ)


@pytest.mark.parametrize(
    "operations, orders",
    [
        ([_steps(*_WRITES), _steps(*_WRITES)], 20),  # 6 over 3
        ([_steps(*_WRITES), _steps(*_WRITES, table="other")], 1),
        ([_steps(*_WRITES), _steps(*_READS)], 3),  # the COMMIT before, between or after the two
        ([_steps(*_READS), _steps(*_READS)], 1),
        ([_steps(Kind.TIME), _steps(*_READS)], 3),
        ([_steps(Kind.TOUCH), _steps(Kind.TOUCH), _steps(Kind.TOUCH)], 6),
        ([_steps(Kind.TOUCH), _steps(Kind.READ), _steps(Kind.COMMIT)], 4),
    ],
)
def test_every_order_once(operations: list[list[Step]], orders: int) -> None:
    paper: Any = _Paper(*operations)
    runs = [run for run in every_order(paper, paper.begin) if not run.pruned]
    assert len({run.choices for run in runs}) == len(runs) == orders


def test_what_may_change_places() -> None:
    read, touch, commit = (Step(kind, "", frozenset("t")) for kind in (Kind.READ, Kind.TOUCH, Kind.COMMIT))
    anywhere = Step(Kind.TOUCH, "")
    assert independent(read, read)
    assert independent(read, touch)
    assert not independent(read, commit)
    assert not independent(touch, touch)
    assert not independent(anywhere, Step(Kind.TOUCH, "", frozenset(["u"])))
