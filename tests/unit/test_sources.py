"""`cached`: how often a source is asked, what is remembered, and what kind of source that is."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Mapping
from datetime import timedelta

import pytest

from delimiter import InvalidRequest, StoreUnavailable, Unsupported
from delimiter.model import Scope
from delimiter.source import CachedSource, LimitSource, ProjectSource
from delimiter.sources import cached
from made_up_sources import ACME, Both, Clock, Limits, Projects, store_clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Limits:
    return Limits()


# --- fresh answers --------------------------------------------------------------------------------


def test_a_source_is_asked_once_until_its_answer_expires(source, clock):
    remembering = cached(source, expires_in=60, clock=clock)
    first = remembering.fetched_limits(ACME, store_clock)
    clock.now += 59.9
    assert remembering.fetched_limits(ACME, store_clock) is first
    assert len(source.asked) == 1
    clock.now += 0.1
    source.answer = {"storage.gb": 400}
    assert remembering.fetched_limits(ACME, store_clock).value == {"storage.gb": 400}


def test_an_equal_answer_is_a_new_one_with_a_new_time(source, clock):
    """Otherwise what another process wrote meanwhile would stay in the store for as long as it likes."""
    remembering = cached(source, expires_in=60, clock=clock)
    first = remembering.fetched_limits(ACME, lambda: 7)
    clock.now += 60
    second = remembering.fetched_limits(ACME, lambda: 8)
    assert (first.value, first.as_of) == (second.value, 7)
    assert second.as_of == 8
    assert second is not first


def test_the_stores_time_is_taken_before_the_source_is_asked(source):
    def store_time() -> int:
        assert not source.asked, "an answer would be taken for younger than it is"
        return 7

    assert cached(source).fetched_limits(ACME, store_time).as_of == 7


def test_the_age_counts_from_the_question(clock):
    class Slow:
        def limits(self, scope: Scope) -> Mapping[str, int]:
            clock.now += 20
            return {}

    remembering = cached(Slow(), expires_in=60, clock=clock)
    remembering.limits(ACME)
    assert remembering.age(ACME) == 20
    assert remembering.state()[0].expires_in == 40


def test_that_there_is_nothing_is_remembered_too(clock):
    source = Limits({})
    remembering = cached(source, clock=clock)
    assert [dict(remembering.limits(ACME)) for _ in range(4)] == [{}] * 4
    assert len(source.asked) == 1


def test_every_scope_has_its_own_answer(source, clock):
    remembering = cached(source, clock=clock)
    for scope in (ACME, Scope("user", "acme"), Scope.total(), ACME):
        remembering.limits(scope)
    assert source.asked == [ACME, Scope("user", "acme"), Scope.total()]


def test_what_is_remembered_is_nobody_elses(source):
    remembering = cached(source)
    remembering.limits(ACME)
    source.answer["storage.gb"] = 9
    assert remembering.limits(ACME) == {"storage.gb": 500}
    with pytest.raises(TypeError):
        remembering.limits(ACME)["storage.gb"] = 9


def test_an_answer_without_a_stores_time_is_not_taken_for_one_that_has_it(source, clock):
    remembering = cached(source, clock=clock)
    remembering.limits(ACME)
    assert remembering.fetched_limits(ACME, store_clock).as_of == 7
    remembering.limits(ACME)
    assert remembering.fetched_limits(ACME, store_clock).as_of == 7
    assert len(source.asked) == 2


def test_of_too_many_the_one_used_longest_ago_is_forgotten(source, clock):
    remembering = cached(source, max_keys=2, clock=clock)
    one, two, three = (Scope("user", name) for name in "abc")
    for scope in (one, two, one, three, one):
        remembering.limits(scope)
    assert source.asked == [one, two, three]
    assert [state.key for state in remembering.state()] == [three, one]


def test_failures_do_not_pile_up_either(clock):
    remembering = cached(Limits(KeyError("x")), max_keys=3, clock=clock)
    for number in range(20):
        with pytest.raises(StoreUnavailable):
            remembering.limits(Scope("user", f"u{number}"))
    assert len(remembering.state()) == 3


# --- what it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, limits, projects", [(Limits(), True, False), (Projects(), False, True), (Both(), True, True)]
)
def test_it_is_the_kind_of_source_that_it_asks(source, limits, projects):
    remembering = cached(source)
    assert isinstance(remembering, LimitSource) is limits
    assert isinstance(remembering, ProjectSource) is projects
    assert isinstance(remembering, CachedSource)
    if not limits:
        with pytest.raises(Unsupported):
            remembering.fetched_limits(ACME, store_clock)
    if not projects:
        with pytest.raises(Unsupported):
            remembering.fetched_ancestors("web", store_clock)


def test_projects_are_remembered_beside_limits(clock):
    remembering = cached(Projects(["web", "acme"]), clock=clock)
    first = remembering.fetched_ancestors("front", store_clock)
    assert first.value == ("web", "acme") == remembering.ancestors("front")
    assert remembering.fetched_ancestors("front", store_clock) is first
    assert remembering.age("front") == 0


@pytest.mark.parametrize(
    "settings",
    [{"expires_in": 0}, {"expires_in": "60"}, {"serve_stale_for": -1}, {"max_keys": 0}, {"max_keys": True}],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(InvalidRequest):
        cached(Limits(), **settings)


def test_times_may_be_timedeltas_and_a_source_is_needed():
    assert cached(Limits(), expires_in=timedelta(minutes=1), serve_stale_for=timedelta(0)).limits(ACME)
    with pytest.raises(InvalidRequest, match="a source has a method"):
        cached(object())  # type: ignore[call-overload]


@pytest.mark.parametrize("module", ["caching", "file"])
def test_the_examples_in_the_docstrings(module):
    results = doctest.testmod(importlib.import_module(f"delimiter.sources.{module}"))
    assert results.attempted
    assert not results.failed
