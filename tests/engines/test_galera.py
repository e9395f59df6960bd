"""Claims on all nodes of a cluster at once: exact, whatever happens to a node."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from delimiter import (
    Conflict,
    Delimiter,
    InvalidRequest,
    OverLimit,
    UnknownResource,
)
from delimiter.conformance.counting import assert_counts, kinds, together, total
from delimiter.handlers import transactional
from delimiter.handlers.transacting import as_conflict

pytestmark = pytest.mark.stores("galera")


@pytest.fixture
def handles(addresses: list[str]) -> Iterator[list[Delimiter]]:
    """One on each node."""
    with ExitStack() as stack:
        yield [stack.enter_context(Delimiter(address, timeout=60)) for address in addresses]


# --- nothing over, nothing lost ---------------------------------------------------------------------------------------


def test_the_last_units_on_three_nodes(handles: list[Delimiter]) -> None:
    """48 callers. Guard: an admission counts only when COMMIT has returned; a row count is none."""
    handles[0].define_resource("cores", project_max=120)

    def take(number: int) -> int:
        admitted = 0
        for _ in range(4):
            with suppress(OverLimit):
                handles[number % 3].claim({"cores": 1}, project="acme", user=f"u{number % 5}")
                admitted += 1
        return admitted

    assert total(together([partial(take, number) for number in range(48)])) == 120
    for quota in handles:
        assert quota.usage(project="acme")["cores"].available == 0
        assert list(quota.reconcile()) == []
    assert_counts(handles[1], projects=["acme"], users=[f"u{n}" for n in range(5)])


def test_what_was_acknowledged_is_there(handles: list[Delimiter], caplog: pytest.LogCaptureFixture) -> None:
    """Guard: ``MariaDBWriter._are_there``; without it about every tenth of these is told that it is made, and is not.

    Nodes that meet on one counter give way to each other, in the midst of the statement that makes the claims too.
    Nothing of that is left to be logged when a cursor is closed.
    """
    handles[0].define_resource("cores", project_max=10_000)
    handles[0].define_resource("disks", user_max=10_000)

    def take(number: int) -> int:
        for step in range(20):
            project, user = f"p{step % 2}", f"u{number % 2}"
            handles[number % 3].claim(
                {"cores": 1, "disks": 2}, project=project, user=user, id=f"{number}-{step}"
            )
        return 20

    assert total(together([partial(take, number) for number in range(24)])) == 480
    there = {claim.id for claim in handles[0].claims()}
    assert there == {f"{number}-{step}" for number in range(24) for step in range(20)}
    assert list(handles[1].reconcile()) == []
    assert [record.getMessage() for record in caplog.records if record.name.startswith("sqlalchemy")] == []


def test_all_verbs_on_three_nodes(handles: list[Delimiter]) -> None:
    """Guard: every change writes the rows it rests on; see the table in the engine's room for Galera."""
    for name in ("cores", "disks"):
        handles[0].define_resource(name, max=60, project_max=25)
    for project, parent in {"acme": None, "web": "acme", "shop": "web", "zeta": None}.items():
        handles[0].add_project(project, parent=parent)
    numbers = itertools.count()

    def work(caller: int) -> int:
        quota, dice = handles[caller % 3], random.Random(caller)
        held: list[str] = []
        for _ in range(3):
            with suppress(OverLimit):
                _do_something(quota, dice, held, f"u{next(numbers)}")
            if caller < 3:
                seen = [event.seq for event in quota.events()]
                assert seen == list(range(1, len(seen) + 1))
        return len(held)

    held = total(together([partial(work, caller) for caller in range(48)]))
    assert held == len(list(handles[2].claims()))
    for quota in handles:
        assert list(quota.reconcile()) == []
        events = [event.seq for event in quota.events()]
        assert events == list(range(1, len(events) + 1))
    assert handles[0].usage()["cores"].used <= 60


def _do_something(quota: Delimiter, dice: random.Random, held: list[str], user: str) -> None:
    verb = dice.choice(["claim", "claim", "reserve", "release", "resize", "transfer", "limit", "move"])
    owner = dice.choice(["web", "shop", "zeta"])
    if verb == "limit":
        quota.update_limits("cores", project=dice.choice(["acme", "web"]), max=dice.randint(5, 40))
    elif verb == "move":
        quota.move_project("shop", parent=dice.choice(["web", "acme", "zeta"]))
    elif verb == "reserve":
        held.append(quota.provision(quota.reserve({"cores": 1}, project=owner, expires_in=600).id).id)
    elif verb == "claim" or not held:
        bundle = {"cores": dice.randint(1, 3), "disks": 1}
        held.append(quota.claim(bundle, project=owner, user=user).id)
    elif verb == "release":
        quota.release(held.pop())
    elif verb == "resize":
        quota.resize(held[-1], {"cores": dice.randint(1, 4)})
    else:
        quota.transfer(held[-1], project=owner)


def test_a_limit_changed_on_two_nodes_is_told_in_order(handles: list[Delimiter]) -> None:
    """Guard: events of one scope are ordered by numbers that grow with what a node has seen."""
    handles[0].define_resource("cores")
    for value in range(1, 30):
        handles[value % 3].update_limits("cores", project="acme", max=value)
    told = [(one.previous_limit, one.limit) for one in handles[1].events() if one.kind == "limit_changed"]
    assert told == [(value - 1 or -1, value) for value in range(1, 30)]


# --- what was acknowledged on one node is known on all -------------------------------------------------------------


def test_no_false_refusal_after_a_release_elsewhere(handles: list[Delimiter]) -> None:
    """Guard: each transaction first waits until the node has applied what was committed before (wsrep_sync_wait)."""
    handles[0].define_resource("cores", max=40)
    claims = [handles[0].claim({"cores": 1}, user=f"u{n}", id=f"0-{n}").id for n in range(40)]
    for round_ in range(1, 40):
        a, b = handles[round_ % 3], handles[(round_ + 1) % 3]
        parent = a.transfer(claims[round_], user="whoever").id  # a row or two more to be applied
        a.release(parent)
        b.claim({"cores": 1}, user="john", id=f"{round_}")
        assert handles[(round_ + 2) % 3].usage()["cores"].used == 40
        assert handles[(round_ + 2) % 3].get_claim(f"{round_}").project is None
        handles[round_ % 3].release(f"{round_}")
        claims[round_] = handles[(round_ + 2) % 3].claim({"cores": 1}, user="mary").id


# --- guards that one server gives by a lock alone -------------------------------------------------------------------


class _Meeting:
    """Two SQLAlchemy engines on two nodes, whose next transactions are committed at the same moment."""

    def __init__(self, addresses: list[str]) -> None:
        self.engines = [sa.create_engine(address) for address in addresses[:2]]
        self._barrier = threading.Barrier(2)
        self._first = threading.local()
        for engine in self.engines:
            sa.event.listen(engine, "commit", self._wait)

    def run(self, jobs: list[Callable[[], Any]], *, before: int = 0) -> list[Any]:
        """The second job has ``before`` transactions that come before the one that matters."""

        def first(number: int, job: Callable[[], Any]) -> Any:
            self._first.waits = 1 + (before if number else 0)
            try:
                return job()
            finally:
                if self._first.waits > 0:  # it never came to a COMMIT: the other need not wait
                    self._barrier.abort()

        self._barrier.reset()
        return together([partial(first, number, job) for number, job in enumerate(jobs)])

    def _wait(self, _: sa.Connection) -> None:
        waits = self._first.waits = getattr(self._first, "waits", 0) - 1
        if waits == 0:
            with suppress(threading.BrokenBarrierError):
                self._barrier.wait(10)


@pytest.fixture
def meeting(addresses: list[str], handles: list[Delimiter]) -> Iterator[_Meeting]:
    handles[0].prepare()
    found = _Meeting(addresses)
    yield found
    for engine in found.engines:
        engine.dispose()


_ROUNDS = 8


def test_a_first_claim_meets_a_new_default(handles: list[Delimiter], meeting: _Meeting) -> None:
    """Guard: who makes a scope's first counter and who changes limits both write the meeting row."""
    a, b = (Delimiter(engine, timeout=30) for engine in meeting.engines)
    for round_ in range(_ROUNDS):
        handles[0].define_resource(f"r{round_}.x", user_max=100)
        meeting.run(
            [
                partial(a.claim, {f"r{round_}.x": 7}, user="john"),
                partial(b.define_resource, f"r{round_}.x", user_max=5),
            ]
        )
        for quota in handles:
            assert quota.usage(user="john")[f"r{round_}.x"].limit == 5
        with pytest.raises(OverLimit):
            handles[2].claim({f"r{round_}.x": 6}, user="john")


def test_a_first_claim_meets_a_first_limit(handles: list[Delimiter], meeting: _Meeting) -> None:
    """Guard: as above; the total's counter is made from the counters that are there."""
    a, b = (Delimiter(engine, timeout=30) for engine in meeting.engines)
    handles[0].define_resource("cores")
    for round_ in range(_ROUNDS):
        meeting.run(
            [
                partial(a.claim, {"cores": 3}, project=f"p{round_}"),
                partial(b.update_limits, "cores", max=1000),
            ]
        )
        assert list(handles[2].reconcile()) == []
        assert handles[1].usage()["cores"].used == 3 * (round_ + 1)
        handles[1].update_limits("cores", max=None)


def test_a_first_claim_meets_a_move(handles: list[Delimiter], meeting: _Meeting) -> None:
    """Guard: who makes a scope's first counter and who changes the tree both write the meeting row."""
    a, b = (Delimiter(engine, timeout=30) for engine in meeting.engines)
    handles[0].define_resource("cores")
    handles[0].add_project("acme")
    handles[0].update_limits("cores", project="acme", max=1000)
    for round_ in range(_ROUNDS):
        project = f"p{round_}"
        meeting.run(
            [
                partial(a.claim, {"cores": 2}, project=project),
                partial(b.add_project, project, parent="acme"),
            ]
        )
        assert handles[2].usage(project="acme")["cores"].used == 2 * (round_ + 1)
        assert list(handles[0].reconcile()) == []


def test_a_first_claim_meets_the_end_of_its_resource(handles: list[Delimiter], meeting: _Meeting) -> None:
    """Guard: who makes a scope's first counter and who undefines its resource both write the meeting row."""
    a, b = (Delimiter(engine, timeout=30) for engine in meeting.engines)
    for round_ in range(_ROUNDS):
        name = f"r{round_}.x"
        handles[0].define_resource(name)
        jobs: list[Callable[[], Any]] = [
            partial(a.claim, {name: 1}, user="john"),
            partial(b.undefine_resource, name),
        ]
        told = meeting.run(jobs, before=1)  # what ran out is swept first
        assert isinstance(told[0], UnknownResource) != isinstance(told[1], InvalidRequest), told


def test_a_promise_meets_the_end_of_overbooking(handles: list[Delimiter], meeting: _Meeting) -> None:
    """Guard: who forbids overbooking and who sets a limit both write the meeting row."""
    a, b = (Delimiter(engine, timeout=30) for engine in meeting.engines)
    handles[0].define_resource("cores")
    for project, parent in {"acme": None, "web": "acme"}.items():
        handles[0].add_project(project, parent=parent)
    handles[0].update_limits("cores", project="acme", max=10)
    for _ in range(_ROUNDS):
        meeting.run(
            [
                partial(a.update_limits, "cores", project="web", max=20),
                partial(b.set_overbooking, "forbidden"),
            ]
        )
        promised = handles[2].limits(project="web")["cores"]
        assert handles[2].overbooking() == "allowed" or promised <= 10
        handles[1].set_overbooking("allowed")
        handles[1].update_limits("cores", project="web", max=5)


def test_counted_rows_meet_at_the_guard(handles: list[Delimiter], meeting: _Meeting) -> None:
    """Guard: a guard writes the counter of each scope it counts; two nodes would both see room for the last row."""
    metadata = sa.MetaData()
    rows = sa.Table(
        "vms", metadata, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("owner", sa.String(40))
    )
    metadata.create_all(meeting.engines[0])
    services = [Delimiter(engine, timeout=30) for engine in meeting.engines]
    try:
        handles[0].define_resource("vms", project_max=3)
        for quota in services:
            quota.count("vms", sa.func.count(), project=rows.c.owner)
        numbers = itertools.count(1)

        def add(service: int, project: str) -> None:
            @transactional(meeting.engines[service], connection="connection")
            def insert(connection: sa.Connection) -> None:
                with services[service].guard({"vms": 1}, project=project, connection=connection):
                    connection.execute(rows.insert(), {"id": next(numbers), "owner": project})

            insert()

        for round_ in range(8):
            project = f"p{round_}"
            add(0, project)
            add(1, project)
            told = meeting.run([partial(add, service, project) for service in (0, 1)])
            assert kinds(told) == {"NoneType": 1, "OverLimit": 1}
    finally:
        metadata.drop_all(meeting.engines[0])


# --- the caller's transaction ---------------------------------------------------------------------------------------


def test_the_callers_commit_can_meet_another_node(addresses: list[str], handles: list[Delimiter]) -> None:
    """Two callers on two nodes: the second COMMIT is refused, which is a ``Conflict`` and is run anew."""
    handles[0].define_resource("cores", max=10)
    handles[0].claim({"cores": 1}, user="john")
    engines = [sa.create_engine(address) for address in addresses[:2]]
    try:
        with engines[0].connect() as mine, engines[1].connect() as theirs:
            handles[0].claim({"cores": 1}, user="john", id="mine", connection=mine)
            handles[1].claim({"cores": 1}, user="john", id="theirs", connection=theirs)
            theirs.commit()
            with pytest.raises(OperationalError) as refused:
                mine.commit()
            assert isinstance(as_conflict(refused.value, engines[0]), Conflict)
        calls: list[int] = []

        @transactional(engines[0], connection="connection")
        def again(connection: sa.Connection) -> None:
            handles[0].claim({"cores": 1}, user="john", id="mine", connection=connection)
            if not calls:
                handles[1].claim({"cores": 1}, user="john")
            calls.append(1)

        again()
        assert len(calls) == 2
        assert handles[2].usage()["cores"].used == 4
        assert list(handles[2].reconcile()) == []
    finally:
        for engine in engines:
            engine.dispose()
