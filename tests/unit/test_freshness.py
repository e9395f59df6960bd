"""Limits and projects from elsewhere, on an open store: what a claim is held to, and when."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from delimiter import Delimiter, InvalidRequest, OverLimit, StoreUnavailable, Unsupported
from delimiter.edits import AdoptLimits
from delimiter.engine import Engine, OpenOptions, open_engine
from delimiter.model import Project, Scope
from delimiter.sources import FileSource, cached
from made_up_sources import ACME, Clock, Limits, Projects


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = open_engine("memory://", OpenOptions())
    yield made
    made.close()


def opened(engine: Engine, **sources: Any) -> Delimiter:
    """One process's Delimiter; several on one engine are several processes on one store."""
    quota = Delimiter(engine, **sources)
    quota.define_resource("storage.gb", project_max=1000)
    return quota


def say(path: Path, limits: str, projects: str = "{}") -> None:
    path.write_text(f"limits: {limits}\nprojects: {projects}\n")


# --- limits ---------------------------------------------------------------------------------------


def test_the_limits_of_a_file_are_enforced(engine, tmp_path):
    path = tmp_path / "limits.yaml"
    say(path, "{total: {storage.gb: 20}, projects: {acme: {storage.gb: 5}}, users: {john: {storage.gb: 3}}}")
    quota = opened(engine, limits=FileSource(path))
    owner: Any
    for owner, room in (({"project": "acme"}, 5), ({"user": "john"}, 3), ({"project": "globex"}, 20)):
        with pytest.raises(OverLimit):
            quota.claim({"storage.gb": room + 1}, **owner)
        assert quota.check({"storage.gb": 1}, **owner).available == {"storage.gb": room}
    quota.claim({"storage.gb": 5}, project="acme")
    assert quota.limits(project="acme") == {"storage.gb": 5}
    assert quota.usage(project="acme")["storage.gb"].limit == 5
    assert quota.limits(project="globex") == {"storage.gb": 1000}, "who is not named has the default"


def test_a_change_in_the_file_holds_at_the_next_claim(engine, tmp_path):
    path = tmp_path / "limits.yaml"
    quota = opened(engine, limits=FileSource(path))
    for limit in (5, 4, 9, 0, 2):
        say(path, f"{{projects: {{acme: {{storage.gb: {limit}}}}}}}")
        with pytest.raises(OverLimit) as caught:
            quota.claim({"storage.gb": 10}, project="acme")
        assert caught.value.violations[0].limit == limit
    say(path, "{}")
    quota.claim({"storage.gb": 10}, project="acme")


def test_a_lowered_limit_lets_nothing_more_in_and_takes_nothing_away(engine):
    source = Limits({"storage.gb": 500})
    quota = opened(engine, limits=source)
    held = quota.claim({"storage.gb": 400}, project="acme")
    source.answer = {"storage.gb": 300}
    with pytest.raises(OverLimit):
        quota.claim({"storage.gb": 1}, project="acme")
    assert quota.usage(project="acme")["storage.gb"].used == 400
    quota.resize(held.id, {"storage.gb": 200})
    quota.claim({"storage.gb": 100}, project="acme")


@pytest.mark.parametrize(
    "call",
    [
        lambda quota: quota.reserve({"storage.gb": 6}, project="acme", expires_in=60),
        lambda quota: quota.resize("volume", {"storage.gb": 6}),
        lambda quota: quota.transfer("large", project="acme"),
    ],
    ids=["reserve", "resize", "transfer"],
)
def test_every_verb_that_consumes_is_held_to_it(call, engine):
    source = Limits({})
    quota = opened(engine, limits=source)
    quota.claim({"storage.gb": 1}, project="acme", id="volume")
    quota.claim({"storage.gb": 9}, project="globex", id="large")
    source.answer = {"storage.gb": 5}
    with pytest.raises(OverLimit):
        call(quota)


def test_limits_of_a_file_are_changed_there(engine):
    quota = opened(engine, limits=Limits())
    with pytest.raises(Unsupported, match="limits="):
        quota.update_limits("storage.gb", project="acme", max=5)
    quota.add_project("acme")


def test_an_unchanged_answer_writes_nothing(engine):
    quota = opened(engine, limits=Limits())
    quota.claim({"storage.gb": 1}, project="acme")
    before = quota.version()
    quota.claim({"storage.gb": 1}, project="acme")
    assert quota.version() == before


def test_a_source_that_fails_refuses_at_once_and_nothing_is_claimed(engine):
    source = Limits()
    quota = opened(engine, limits=source)
    quota.claim({"storage.gb": 1}, project="acme")
    source.answer = OSError("down")
    source.asked.clear()
    for call in (quota.claim, quota.check):
        with pytest.raises(StoreUnavailable):
            call({"storage.gb": 1}, project="acme")
    assert len(source.asked) == 2, "it is not asked again and again until the timeout"
    source.answer = {}
    assert quota.usage(project="acme")["storage.gb"].used == 1


def test_releasing_needs_no_source(engine):
    source = Limits()
    quota = opened(engine, limits=source)
    held = quota.claim({"storage.gb": 1}, project="acme")
    source.answer = OSError("down")
    quota.release(held.id)


@pytest.mark.parametrize(
    "answer", [5, "ab", [1], {"storage.gb": "5"}, {"storage.gb": 1.5}, {"storage.gb": -2}, {"": 1}]
)
def test_what_are_no_limits_refuses(answer, engine):
    quota = opened(engine, limits=Limits(answer))
    with pytest.raises(StoreUnavailable):
        quota.claim({"storage.gb": 1}, project="acme")
    assert list(opened(engine).claims(project="acme")) == []


def test_a_limit_of_what_nobody_defined_is_harmless(engine):
    quota = opened(engine, limits=Limits({"storage.gb": 5, "unheard.of": 1}))
    quota.claim({"storage.gb": 5}, project="acme")
    assert quota.limits(project="acme") == {"storage.gb": 5}


@pytest.mark.parametrize("argument", ["limits", "projects"])
def test_what_is_no_source_is_refused(argument):
    nothing: Any = {argument: object()}
    with pytest.raises(InvalidRequest, match=f"{argument}="):
        Delimiter("memory://", **nothing)


# --- projects -------------------------------------------------------------------------------------


def test_a_claim_is_charged_to_the_ancestors_that_a_source_names(engine, tmp_path):
    path = tmp_path / "limits.yaml"
    say(path, "{projects: {acme: {storage.gb: 5}}}", "{acme: {web: {front: }}, globex: }")
    source = FileSource(path)
    quota = opened(engine, limits=source, projects=source)
    quota.claim({"storage.gb": 3}, project="front")
    with pytest.raises(OverLimit) as caught:
        quota.claim({"storage.gb": 3}, project="web")
    assert [one.scope for one in caught.value.violations] == ["project:acme"]
    say(path, "{projects: {acme: {storage.gb: 5}}}", "{acme: , globex: {web: {front: }}}")
    quota.claim({"storage.gb": 3}, project="front")
    assert dict(quota.projects())["web"] == "globex"
    assert quota.usage(project="globex")["storage.gb"].used == 6


def test_limits_of_a_source_hold_for_the_ancestors_that_the_store_keeps(engine):
    class OfAcme:
        def limits(self, scope: Scope) -> Mapping[str, int]:
            return {"storage.gb": 5} if scope == ACME else {}

    quota = opened(engine, limits=OfAcme())
    quota.add_project("acme")
    quota.add_project("web", parent="acme")
    with pytest.raises(OverLimit):
        quota.claim({"storage.gb": 6}, project="web")


def test_a_tree_from_elsewhere_is_changed_there(engine):
    quota = opened(engine, projects=Projects())
    for call in (quota.add_project, quota.remove_project):
        with pytest.raises(Unsupported, match="projects="):
            call("acme")
    assert quota.update_limits("storage.gb", project="acme", max=5) == []


@pytest.mark.parametrize("answer", [5, None, [1], [""], ["web"], ["a", "b", "a"]])
def test_what_are_no_ancestors_refuses(answer, engine):
    quota = opened(engine, projects=Projects(answer))
    with pytest.raises(StoreUnavailable):
        quota.claim({"storage.gb": 1}, project="web")
    assert quota.projects() == []


def test_the_tree_is_told_as_it_is(engine):
    quota = opened(engine, projects=Projects(["acme"]))
    quota.claim({"storage.gb": 1}, project="web")
    assert quota.projects() == [Project("acme", None), Project("web", "acme")]


# --- several processes ----------------------------------------------------------------------------


def test_of_two_answers_the_one_asked_for_later_stays(engine):
    """Guard: `as_of`. Whoever writes last is not right for that."""
    now = engine.now()
    opened(engine)
    for maximum, as_of in ((5, now + 2), (9, now + 1)):
        engine.adopt(AdoptLimits(ACME, {"storage.gb": maximum}, as_of=as_of))
    assert engine.limits(ACME) == {"storage.gb": 5}


def test_processes_with_answers_of_different_ages_do_not_fight(engine):
    source, clock = Limits({"storage.gb": 5}), Clock()
    early = opened(engine, limits=cached(source, expires_in=60, clock=clock))
    late = opened(engine, limits=cached(source, expires_in=60, clock=clock))
    early.limits(project="acme")
    engine.clock_offset += 10**6
    source.answer = {"storage.gb": 9}
    for _ in range(3):
        assert late.limits(project="acme") == {"storage.gb": 9}
        assert early.limits(project="acme") == {"storage.gb": 9}, "it knows 5, and was asked before"
    clock.now += 60
    engine.clock_offset += 60 * 10**6
    assert early.limits(project="acme") == {"storage.gb": 9}


def test_a_limit_that_is_again_what_it_was_is_in_the_store_after_an_expiry(engine):
    source, clock = Limits({"storage.gb": 5}), Clock()
    one = opened(engine, limits=cached(source, expires_in=60, clock=clock))
    other = opened(engine, limits=cached(source, expires_in=60, clock=clock))
    one.limits(project="acme")
    engine.clock_offset += 10**6
    source.answer = {"storage.gb": 9}
    other.limits(project="acme")  # and is never heard of again
    source.answer = {"storage.gb": 5}
    clock.now += 60
    engine.clock_offset += 60 * 10**6
    assert one.limits(project="acme") == {"storage.gb": 5}


def test_a_source_that_is_down_is_bridged(engine):
    source, clock = Limits({"storage.gb": 5}), Clock()
    quota = opened(engine, limits=cached(source, expires_in=60, serve_stale_for=600, clock=clock))
    quota.claim({"storage.gb": 1}, project="acme")
    source.answer = OSError("down")
    clock.now += 600
    quota.claim({"storage.gb": 1}, project="acme")
    with pytest.raises(StoreUnavailable):
        quota.claim({"storage.gb": 1}, project="globex")  # of whom nothing is known
    clock.now += 60
    with pytest.raises(StoreUnavailable):
        quota.claim({"storage.gb": 1}, project="acme")


def test_a_limit_that_is_again_what_it_was_is_in_the_store_after_a_few_seconds(engine, monkeypatch):
    """Guard: `_WRITTEN_FOR`. That this process has written an answer does not mean that it stands there still."""
    source, clock = Limits({"storage.gb": 5}), Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    one, other = opened(engine, limits=source), opened(engine, limits=source)
    one.limits(project="acme")
    engine.clock_offset += 10**6
    source.answer = {"storage.gb": 9}
    other.limits(project="acme")
    source.answer = {"storage.gb": 5}
    engine.clock_offset += 6 * 10**6
    clock.now += 6
    assert one.limits(project="acme") == {"storage.gb": 5}


@pytest.mark.parametrize("wrap", [lambda source: source, cached], ids=["asked each time", "cached"])
def test_a_limit_holds_for_what_is_defined_after_it_was_written(engine, wrap):
    """Guard: `look_again`."""
    source = Limits({"storage.gb": 5, "ram": 5})
    quota = opened(engine, limits=wrap(source))
    quota.claim({"storage.gb": 1}, project="acme")
    for _ in range(2):
        quota.undefine_resource("ram") if "ram" in quota.limits() else None
        quota.define_resource("ram")
        with pytest.raises(OverLimit):
            quota.claim({"ram": 6}, project="acme")


@pytest.mark.parametrize("wrap", [lambda source: source, cached], ids=["asked each time", "cached"])
def test_a_limit_holds_for_what_another_process_defines_after_a_few_seconds(engine, wrap, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    quota = opened(engine, limits=wrap(Limits({"storage.gb": 5, "ram": 5})))
    quota.claim({"storage.gb": 1}, project="acme")
    Delimiter(engine).define_resource("ram")
    clock.now += 6
    engine.clock_offset += 6 * 10**6
    with pytest.raises(OverLimit):
        quota.claim({"ram": 6}, project="acme")


def test_a_project_that_was_moved_here_is_held_to_the_limits_of_its_new_ancestors(engine):
    class OfAcme:
        def limits(self, scope: Scope) -> Mapping[str, int]:
            return {"storage.gb": 5} if scope == ACME else {}

    quota = opened(engine, limits=OfAcme())
    for name in ("acme", "web"):
        quota.add_project(name)
    quota.claim({"storage.gb": 1}, project="web")
    quota.move_project("web", parent="acme")
    with pytest.raises(OverLimit):
        quota.claim({"storage.gb": 5}, project="web")


def test_an_answer_that_its_source_changes_in_place_is_a_new_one(engine):
    """Guard: the copy in `_asked`."""
    source = Limits({"storage.gb": 5})
    quota = opened(engine, limits=source)
    quota.claim({"storage.gb": 1}, project="acme")
    source.answer["storage.gb"] = 2
    with pytest.raises(OverLimit):
        quota.claim({"storage.gb": 2}, project="acme")


def test_one_text_is_no_list_of_ancestors(engine):
    quota = opened(engine, projects=Projects("acme"))
    with pytest.raises(StoreUnavailable, match="one text"):
        quota.claim({"storage.gb": 1}, project="web")


def test_what_a_foreign_exception_says_is_not_passed_on(engine):
    quota = opened(engine, limits=Limits(OSError("https://quota:s3cret@contracts")))
    with pytest.raises(StoreUnavailable) as caught:
        quota.claim({"storage.gb": 1}, project="acme")
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
