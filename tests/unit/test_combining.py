"""Calls that meet are made together, and none harms another. Every step is waited for, none is timed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from delimiter import Conflict, Delimiter, DelimiterError, InvalidRequest, StoreUnavailable
from delimiter.changes import Change, Provision, Release
from delimiter.combining import _ATTEMPTS_TOGETHER, _MORE_ATTEMPTS, Combiner
from delimiter.engine import Answer
from delimiter.engines.memory import MemoryEngine
from delimiter.waiting import Ticket


class Gated(MemoryEngine):
    """Decides when it is told to, and remembers which changes came together."""

    largest_batch = 4

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.fails: Callable[[Sequence[str]], BaseException | None] = lambda _: None
        self.answers: Callable[[Sequence[str]], list[Answer]] = lambda names: [() for _ in names]

    def apply(self, changes: Sequence[Change], *, connection: Any = None) -> list[Answer]:
        names = [
            change.id if isinstance(change, Release) else f"+{change.id}"
            for change in changes
            if isinstance(change, Release | Provision)
        ]
        self.batches.append(names)
        self.arrived.release()
        assert self.gate.acquire(timeout=20)
        if error := self.fails(names):
            raise error
        return self.answers(names)


@pytest.fixture
def engine() -> Gated:
    return Gated()


class Callers:
    def __init__(self, engine: Gated, pool: ThreadPoolExecutor) -> None:
        self.engine, self.combiner, self._pool = engine, Combiner(engine), pool

    def call(self, name: str, *, within: float = 60) -> Future[Answer]:
        deadline = time.monotonic() + within
        change = Provision(name[1:]) if name.startswith("+") else Release(name)
        return self._pool.submit(lambda: self.combiner.apply(change, deadline=deadline))

    def queue(self, *names: str) -> list[Future[Answer]]:
        """One after the other, each in the queue before the next calls."""
        calls = []
        for name in names:
            before = self.waiting
            calls.append(self.call(name))
            until(lambda: self.waiting == before + 1)  # noqa: B023
        return calls

    def nobody_is_held_up(self) -> None:
        """Until the test has failed: who leads beside another makes good for a turn that was lost."""
        self.combiner._held_up_after = 25

    @property
    def waiting(self) -> int:
        return len(self.combiner._queue)

    def arrive(self) -> None:
        assert self.engine.arrived.acquire(timeout=20)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


@pytest.fixture
def callers(engine: Gated) -> Any:
    with ThreadPoolExecutor(20) as pool:
        yield Callers(engine, pool)


def test_alone_it_goes_at_once(callers: Callers, engine: Gated):
    engine.gate.release(2)
    assert callers.call("a").result(20) == ()
    assert callers.call("b").result(20) == ()
    assert engine.batches == [["a"], ["b"]]


def test_what_waits_goes_together_in_order_up_to_the_largest_batch(callers: Callers, engine: Gated):
    calls = [callers.call("a")]
    callers.arrive()
    calls += callers.queue("b", "c", "d", "e", "f")
    engine.gate.release(3)
    assert [call.result(20) for call in calls] == [()] * 6
    assert engine.batches == [["a"], ["b", "c", "d", "e"], ["f"]]


def test_nobody_is_answered_before_the_batch_is(callers: Callers, engine: Gated):
    first = callers.call("a")
    callers.arrive()
    calls = callers.queue("b", "c")
    engine.gate.release()
    first.result(20)
    callers.arrive()
    assert engine.batches[-1] == ["b", "c"]
    assert not any(call.done() for call in calls)
    engine.gate.release()
    assert [call.result(20) for call in calls] == [(), ()]


def test_what_a_batch_fails_for_is_made_call_by_call(callers: Callers, engine: Gated):
    """One that cannot be made harms no other; taken out: the calls alone after a failure."""
    engine.fails = lambda names: InvalidRequest("no such text") if "bad" in names else None
    first = callers.call("a")
    callers.arrive()
    bad, good = callers.queue("bad", "good")
    engine.gate.release(10)
    first.result(20)
    assert good.result(20) == ()
    with pytest.raises(InvalidRequest, match="no such text"):
        bad.result(20)
    assert sorted(engine.batches[2:]) == [["bad"], ["good"]]


def test_what_would_have_held_up_the_others_is_made_alone(callers: Callers, engine: Gated):
    engine.answers = lambda names: [
        Conflict("held") if name == "held" and names[1:] else () for name in names
    ]
    first = callers.call("a")
    callers.arrive()
    held, other = callers.queue("held", "other")
    engine.gate.release(10)
    assert first.result(20) == held.result(20) == other.result(20) == ()
    assert engine.batches == [["a"], ["held", "other"], ["held"]]


def test_a_batch_in_conflict_is_begun_anew_and_at_last_each_asks_alone(callers: Callers, engine: Gated):
    """Who met another transaction tries again, with those who were in it too; but not for ever."""
    engine.fails = lambda names: Conflict("in the way") if names[1:] else None
    first = callers.call("a")
    callers.arrive()
    calls = callers.queue("b", "c")
    engine.gate.release(2 + _MORE_ATTEMPTS)
    first.result(20)
    assert [type(call.exception(20)) for call in calls] == [Conflict, Conflict]
    assert engine.batches == [["a"], *[["b", "c"]] * (1 + _MORE_ATTEMPTS)]
    engine.gate.release(10)
    ask = callers.combiner.caller(Release("d"), time.monotonic() + 20)
    for _ in range(_ATTEMPTS_TOGETHER):
        assert ask() == ()
    callers.nobody_is_held_up()
    callers.combiner._begin_turn()  # as if somebody were at work
    assert ask() == ()


def test_only_what_is_of_one_kind_goes_together(callers: Callers, engine: Gated):
    """Claims are made by one statement; taken out: the comparison of kinds."""
    first = callers.call("a")
    callers.arrive()
    calls = callers.queue("b", "+c", "d", "+e")
    engine.gate.release(10)
    assert [call.result(20) for call in [first, *calls]] == [()] * 5
    assert engine.batches == [["a"], ["b", "d"], ["+c", "+e"]]


def test_a_batch_in_doubt_is_settled_by_each_caller(callers: Callers, engine: Gated):
    """Nobody may make it again on their own: only who asked knows whether it may be asked again."""
    engine.fails = lambda names: StoreUnavailable("no answer", in_doubt=True) if len(names) > 1 else None
    first = callers.call("a")
    callers.arrive()
    calls = callers.queue("b", "c")
    engine.gate.release(2)
    first.result(20)
    errors = [call.exception(20) for call in calls]
    assert all(isinstance(error, StoreUnavailable) and error.in_doubt for error in errors)
    assert errors[0] is not errors[1]
    assert engine.batches == [["a"], ["b", "c"]]


def test_a_leader_that_is_interrupted_leaves_its_followers_in_doubt_and_not_alone(
    callers: Callers, engine: Gated
):
    engine.fails = lambda names: KeyboardInterrupt() if len(names) > 1 else None
    first = callers.call("a")
    callers.arrive()
    leader, follower = callers.queue("b", "c")
    engine.gate.release(10)
    first.result(20)
    assert isinstance(leader.exception(20), KeyboardInterrupt)
    error = follower.exception(20)
    assert isinstance(error, StoreUnavailable)
    assert error.in_doubt
    assert callers.call("d").result(20) == ()


def test_who_is_settled_but_not_told_finds_out(
    callers: Callers, engine: Gated, monkeypatch: pytest.MonkeyPatch
):
    """The leader is interrupted while it tells. Taken out: the look at the answer in ``Combiner._look``."""
    monkeypatch.setattr(Ticket, "open", lambda self: None if engine.batches[1:] else self._lock.release())
    first = callers.call("a")
    callers.arrive()
    leader, follower = callers.queue("b", "c")
    engine.gate.release(2)
    assert first.result(20) == leader.result(20) == follower.result(20) == ()
    assert engine.batches == [["a"], ["b", "c"]]


def test_who_gives_up_in_time_is_not_made(callers: Callers, engine: Gated):
    first = callers.call("a")
    callers.arrive()
    late = callers.call("late", within=0)
    with pytest.raises(Conflict, match="not begun"):
        late.result(20)
    engine.gate.release()
    first.result(20)
    assert engine.batches == [["a"]]


def test_who_is_interrupted_in_the_queue_is_not_made(callers: Callers, engine: Gated):
    """Taken out: the removal of who leaves the queue; the next leader would take it along."""

    class Interrupted(Ticket):
        def wait(self, seconds: float) -> bool:
            raise KeyboardInterrupt

    callers.nobody_is_held_up()
    first = callers.call("a")
    callers.arrive()
    second = callers.queue("b")[0]
    engine.ticket = Interrupted  # type: ignore[method-assign]
    assert isinstance(callers.call("c").exception(20), KeyboardInterrupt)
    engine.gate.release(10)
    assert first.result(20) == second.result(20) == ()
    assert engine.batches == [["a"], ["b"]]


def test_who_is_interrupted_when_its_turn_has_come_hands_it_over(callers: Callers, engine: Gated):
    """Taken out: the hand-over of who leaves the queue with a turn; all that come later would wait for nobody."""

    class InterruptedLate(Ticket):
        def wait(self, seconds: float) -> bool:
            assert super().wait(20)
            raise KeyboardInterrupt

    callers.nobody_is_held_up()
    first = callers.call("a")
    callers.arrive()
    engine.ticket = InterruptedLate  # type: ignore[method-assign]
    second = callers.queue("b")[0]
    del engine.ticket
    third = callers.queue("c")[0]
    engine.gate.release(10)
    assert first.result(20) == ()
    assert isinstance(second.exception(20), KeyboardInterrupt)
    assert third.result(20) == callers.call("d").result(20) == ()
    assert engine.batches == [["a"], ["c"], ["d"]]


def test_a_leader_that_is_held_up_holds_up_nobody_else(callers: Callers, engine: Gated):
    """A lock that some transaction keeps. Taken out: the turn taken beside the one that lasts."""
    held = callers.call("held")
    callers.arrive()
    other = callers.call("other")
    callers.arrive()  # it has begun, though the first has not ended
    assert engine.batches == [["held"], ["other"]]
    engine.gate.release(2)
    assert held.result(20) == other.result(20) == ()
    engine.gate.release()
    assert callers.call("next").result(20) == ()  # one turn ended after the other, and nobody is left at work


def test_a_full_queue_says_so(callers: Callers, engine: Gated, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("delimiter.combining._MOST_WAITING", 1)
    first = callers.call("a")
    callers.arrive()
    second = callers.queue("b")[0]
    with pytest.raises(Conflict, match="wait for the store already") as caught:
        callers.combiner.apply(Release("c"), deadline=time.monotonic() + 60)
    assert caught.value.retryable
    engine.gate.release(2)
    assert first.result(20) == second.result(20) == ()


def test_a_forked_child_waits_for_nobody(callers: Callers, engine: Gated, monkeypatch: pytest.MonkeyPatch):
    """Taken out: the comparison of processes."""
    callers.nobody_is_held_up()
    first = callers.call("a")
    callers.arrive()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        second = callers.call("b")
        callers.arrive()
    engine.gate.release(2)
    assert first.result(20) == second.result(20) == ()


def test_an_engine_that_takes_one_at_a_time_gets_one_at_a_time():
    with Delimiter("memory://") as quota, ThreadPoolExecutor(8) as pool:
        quota.define_resource("cores", project_max=20)

        def claim(_: int) -> bool:
            try:
                quota.claim({"cores": 1}, project="acme")
            except DelimiterError:
                return False
            return True

        assert sum(pool.map(claim, range(50))) == 20
