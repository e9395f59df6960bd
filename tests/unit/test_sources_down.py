"""`cached`: one question however many ask at once, and what is answered while the source is down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from delimiter import StoreUnavailable
from delimiter.model import Scope
from delimiter.sources import CachedState, cached
from made_up_sources import ACME, Clock, Limits, Projects, store_clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Limits:
    return Limits()


# --- many at once ---------------------------------------------------------------------------------

THREADS = 32


def all_at_once(
    source: Limits, clock: Clock, answer: Callable[[], Mapping[str, int]], **settings: Any
) -> tuple[list[Any], int]:
    """What each of many threads is told that meet an expired answer, and how often the source was asked.

    The source does not answer before every thread has looked at the clock, which it does under the same lock under
    which it then either begins to ask or finds that somebody does.
    """
    arrived: set[int] = set()
    all_arrived = threading.Event()

    def watched() -> float:
        if threading.current_thread().name.startswith("many"):
            arrived.add(threading.get_ident())
            if len(arrived) == THREADS:
                all_arrived.set()
        return clock()

    remembering = cached(source, clock=watched, **settings)
    remembering.fetched_limits(ACME, store_clock)
    clock.now += 60
    asked: list[Scope] = []

    def slow(scope: Scope) -> Mapping[str, int]:
        asked.append(scope)
        assert all_arrived.wait(60)
        return answer()

    source.limits = slow  # type: ignore[method-assign]

    def call(_: int) -> Any:
        try:
            return remembering.fetched_limits(ACME, store_clock)
        except StoreUnavailable as error:
            return error

    start = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS, "many", initializer=start.wait) as pool:
        answers = list(pool.map(call, range(THREADS)))
    return answers, len(asked)


def test_many_threads_make_one_fetch(source, clock):
    """Guard: `Cached._flights`."""
    answers, asked = all_at_once(source, clock, lambda: {"storage.gb": 4})
    assert asked == 1
    assert all(one is answers[0] for one in answers)
    assert answers[0].value == {"storage.gb": 4}


def test_a_failure_is_told_to_all_who_wait_and_not_repeated(source, clock):
    def fail() -> Mapping[str, int]:
        raise StoreUnavailable("no answer from the contracts")

    answers, asked = all_at_once(source, clock, fail, serve_stale_for=0)
    assert asked == 1
    assert {str(one) for one in answers} == {
        "the source of limits or projects failed: no answer from the contracts"
    }
    assert len({id(one) for one in answers}) == THREADS, "each has a traceback of its own"


def test_while_it_fails_all_who_wait_get_the_old_answer(source, clock):
    def fail() -> Mapping[str, int]:
        raise OSError

    answers, asked = all_at_once(source, clock, fail)
    assert asked == 1
    assert [one.value for one in answers] == [{"storage.gb": 500}] * THREADS


def test_a_question_given_up_says_nothing_about_the_source(source, clock):
    remembering = cached(source, clock=clock)
    source.answer = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        remembering.limits(ACME)
    source.answer = {}
    assert remembering.limits(ACME) == {}


def test_a_store_that_cannot_tell_the_time_says_nothing_about_the_source(source, clock):
    def broken() -> int:
        raise StoreUnavailable("no store")

    remembering = cached(source, clock=clock)
    with pytest.raises(StoreUnavailable, match="no store"):
        remembering.fetched_limits(ACME, broken)
    assert remembering.state() == []
    assert remembering.fetched_limits(ACME, store_clock).value == {"storage.gb": 500}


# --- a source that is down ------------------------------------------------------------------------


def test_an_old_answer_is_served_for_so_long_and_no_longer(source, clock):
    remembering = cached(source, expires_in=60, serve_stale_for=600, clock=clock)
    first = remembering.fetched_limits(ACME, store_clock)
    source.answer = OSError("down")
    clock.now += 60 + 599.9
    assert remembering.fetched_limits(ACME, store_clock) is first
    clock.now += 0.1
    with pytest.raises(StoreUnavailable):
        remembering.fetched_limits(ACME, store_clock)


def test_a_source_that_is_down_is_asked_less_and_less_often(source, clock):
    remembering = cached(source, expires_in=60, clock=clock)
    remembering.limits(ACME)
    source.asked.clear()
    source.answer = OSError("down")
    clock.now += 60
    asked_at: list[float] = []
    for tenth in range(600):
        remembering.limits(ACME)
        if len(source.asked) > len(asked_at):
            asked_at.append(tenth / 10)
        clock.now += 0.1
    assert asked_at[:5] == pytest.approx([0, 1, 3, 7, 15], abs=0.5)
    assert len(asked_at) == pytest.approx(9, abs=1)  # every ten seconds from then on


def test_a_source_that_is_back_is_asked_as_before(source, clock):
    remembering = cached(source, expires_in=60, clock=clock)
    remembering.limits(ACME)
    source.answer = OSError("down")
    clock.now += 60
    remembering.limits(ACME)
    clock.now += 1
    source.answer = {"storage.gb": 4}
    assert remembering.limits(ACME) == {"storage.gb": 4}
    assert remembering.state() == [CachedState(ACME, 0, 60, stale=False, last_error=None)]


def test_what_was_never_known_is_refused_at_once(source, clock):
    remembering = cached(source, clock=clock)
    source.answer = OSError("down")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            remembering.limits(ACME)
    assert len(source.asked) == 1
    clock.now += 1
    source.answer = {}
    assert remembering.limits(ACME) == {}


def test_how_old_everything_is_can_be_seen(source, clock):
    remembering = cached(source, expires_in=60, clock=clock)
    remembering.limits(ACME)
    assert remembering.age(ACME) == 0
    assert remembering.age(Scope.total()) is None
    source.answer = StoreUnavailable("no answer from the contracts")
    clock.now += 70
    remembering.limits(ACME)
    with pytest.raises(StoreUnavailable):
        remembering.limits(Scope.total())
    assert remembering.age(ACME) == 70
    assert remembering.state() == [
        CachedState(ACME, 70, -10, stale=True, last_error="no answer from the contracts"),
        CachedState(Scope.total(), None, 1, stale=False, last_error="no answer from the contracts"),
    ]


def test_what_a_foreign_exception_says_is_not_passed_on(clock):
    remembering = cached(Limits(OSError("cannot reach https://quota:s3cret@contracts")), clock=clock)
    with pytest.raises(StoreUnavailable) as caught:
        remembering.limits(ACME)
    assert str(caught.value) == "the source of limits or projects failed: OSError"
    assert isinstance(caught.value.__cause__, OSError), "whoever reads the traceback sees it"
    assert remembering.state()[0].last_error == "OSError"


@pytest.mark.parametrize(
    "answer", [5, [1, 2], "ab", {"a": "5"}, {"a": 1.5}, {"a": True}, {"a": -2}, {"": 1}, {1: 1}]
)
def test_what_are_no_limits_is_a_failure(answer, source, clock):
    remembering = cached(source, clock=clock)
    remembering.limits(ACME)
    source.answer = answer
    clock.now += 60
    assert remembering.limits(ACME) == {"storage.gb": 500}
    assert "what are no limits" in str(remembering.state()[0].last_error)


@pytest.mark.parametrize("answer", [5, None, "acme", b"acme", [1], [""], ["web"], ["a", "b", "a"]])
def test_what_are_no_ancestors_is_a_failure(answer):
    with pytest.raises(StoreUnavailable, match="gave"):
        cached(Projects(answer)).ancestors("web")
