"""Limits from elsewhere beside callers' transactions, and before the tree is changed: whose trouble is whose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from delimiter import Conflict, Delimiter, OverLimit, StoreUnavailable, freshness
from delimiter.edits import AddProject, Adoption, AdoptLimits, MoveProject
from delimiter.engine import Engine, OpenOptions, open_engine
from delimiter.freshness import Freshness
from delimiter.model import Scope
from delimiter.source import maxima_in
from delimiter.sources import cached
from made_up_sources import ACME, Clock

GLOBEX, OTHER = Scope("project", "globex"), Scope("project", "other")

#: Any object: these tests decide themselves what happens beside it.
TRANSACTION: Any = object()


class Contracts:
    """Limits by scope; of those in ``down`` there is no answer."""

    def __init__(self, **table: Mapping[str, int]) -> None:
        self.table = table
        self.down: set[Scope] = set()
        self.asked: list[Scope] = []

    def limits(self, scope: Scope) -> Mapping[str, int]:
        self.asked.append(scope)
        if scope in self.down:
            raise OSError("down")
        return self.table.get(scope.name, {})


class Held:
    """An engine on which a transaction holds the rows of some scopes: who adopts for them waits in vain."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.held: set[Scope] = set()
        self.tried: list[Scope] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def adopt(self, adoption: Adoption, *, connection: Any = None) -> bool:
        assert isinstance(adoption, AdoptLimits)
        self.tried.append(adoption.scope)
        if adoption.scope in self.held:
            raise Conflict("somebody holds these rows")
        return self._engine.adopt(adoption)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = open_engine("memory://", OpenOptions())
    yield made
    made.close()


@pytest.fixture
def source() -> Contracts:
    return Contracts()


@pytest.fixture
def rows(engine: Engine) -> Held:
    return Held(engine)


@pytest.fixture
def fresh(rows: Held, source: Contracts) -> Freshness:
    """Everything is in the store but what concerns globex, whose rows are held: that was postponed."""

    def run(call: Callable[[], Any], *, connection: Any = None) -> Any:
        return call()

    made = Freshness(rows, source, None, run)  # type: ignore[arg-type]
    made.freshen([ACME, OTHER])
    rows.held.add(GLOBEX)
    with pytest.raises(Conflict):
        made.freshen([GLOBEX], TRANSACTION)
    rows.tried.clear()
    source.asked.clear()
    return made


# --- what was postponed ---------------------------------------------------------------------------


def test_who_is_in_no_transaction_does_not_meet_what_was_postponed(fresh, rows, source):
    """Guard: `connection is not None` in `freshen`. It would wait for another's rows, and fail with them."""
    source.down.add(GLOBEX)
    fresh.freshen([OTHER])
    assert GLOBEX not in source.asked
    assert rows.tried == []


@pytest.mark.parametrize("trouble", ["the rows are held", "the source is down"])
def test_the_trouble_of_one_is_not_that_of_another(fresh, rows, source, trouble):
    """Guard: `suppress` in `_catch_up`, and that it forgets what it tried."""
    if trouble == "the source is down":
        rows.held.clear()
        source.down.add(GLOBEX)
    fresh.freshen([OTHER], TRANSACTION)
    assert source.asked.count(GLOBEX) == 1
    fresh.freshen([OTHER], TRANSACTION)
    assert source.asked.count(GLOBEX) == 1, "one look is all that it costs others"
    with pytest.raises((Conflict, StoreUnavailable)):
        fresh.freshen([GLOBEX], TRANSACTION)


def test_a_caller_who_begins_anew_has_it_written_first(fresh, rows):
    """Guard: `_catch_up`. The first claim of the transaction would lock the rows again that the second waits for."""
    rows.held.clear()
    fresh.freshen([ACME], TRANSACTION)
    assert rows.tried == [GLOBEX]
    fresh.freshen([GLOBEX], TRANSACTION)
    assert rows.tried == [GLOBEX]


def test_the_newest_is_tried_first_and_a_failure_ends_it(fresh, rows):
    """Guard: `reversed` in `_catch_up`. However many were postponed, a call waits for the rows of one at most."""
    rows.held.add(OTHER)
    fresh.look_again()
    with pytest.raises(Conflict):
        fresh._freshen_limits(fresh._limits, OTHER, TRANSACTION)  # as of another thread, which was under way
    rows.tried.clear()
    fresh.freshen([], TRANSACTION)
    assert rows.tried == [OTHER, Scope.total()]


def test_what_was_postponed_does_not_pile_up(fresh, rows):
    """Guard: `_MOST_POSTPONED`."""
    for number in range(3 * freshness._MOST_POSTPONED):
        scope = Scope("user", f"u{number}")
        rows.held.add(scope)
        with pytest.raises(Conflict):
            fresh._freshen_limits(fresh._limits, scope, TRANSACTION)
        assert len(fresh._postponed) <= freshness._MOST_POSTPONED


# --- before the tree is changed -------------------------------------------------------------------


def claimed(engine: Engine, source: Contracts) -> Delimiter:
    """In the store there is a tree, and web holds 6; the limits of nobody have been asked for."""
    plain = Delimiter(engine)
    plain.define_resource("storage.gb")
    for name, parent in (("acme", None), ("lab", "acme"), ("web", None)):
        plain.add_project(name, parent=parent)
    plain.claim({"storage.gb": 6}, project="web")
    return Delimiter(engine, limits=source)


@pytest.mark.parametrize("parent", ["acme", "lab"])
def test_a_project_is_moved_by_the_limits_of_its_new_ancestors(engine, parent):
    """Guard: `freshen_above` in `Rules.edit`, of the parent and of those above it."""
    quota = claimed(engine, Contracts(acme={"storage.gb": 5}))
    with pytest.raises(OverLimit) as caught:
        quota.move_project("web", parent=parent)
    assert [one.scope for one in caught.value.violations] == ["project:acme"]
    assert dict(quota.projects())["web"] is None


def test_a_project_is_added_by_the_limits_of_its_ancestors(engine):
    quota = claimed(engine, Contracts(acme={"storage.gb": 5}))
    quota.claim({"storage.gb": 6}, project="new")
    with pytest.raises(OverLimit):
        quota.add_project("new", parent="lab")
    assert "new" not in dict(quota.projects())


def test_every_parent_of_a_list_is_asked_for(engine):
    source = Contracts(acme={"storage.gb": 5})
    quota = claimed(engine, source)
    with pytest.raises(OverLimit):
        quota.edit([AddProject("top", None), AddProject("mid", "lab"), MoveProject("web", "mid")])
    assert ACME in source.asked


def test_a_parent_that_another_process_moved_is_found_where_it_is(engine):
    """Guard: `freshen_above` forgets where the parent was."""
    quota = claimed(engine, Contracts(acme={"storage.gb": 5}))
    plain = Delimiter(engine)
    plain.add_project("den")
    quota.limits(project="den")
    quota.check({"storage.gb": 1}, project="den")  # remembers for some seconds that nobody is above it
    plain.move_project("den", parent="acme")
    with pytest.raises(OverLimit):
        quota.move_project("web", parent="den")


def test_who_becomes_a_root_needs_no_source(engine):
    source = Contracts()
    quota = claimed(engine, source)
    source.down.update([Scope.total(), ACME])
    quota.add_project("root")
    quota.move_project("lab", parent=None)
    quota.remove_project("lab")
    quota.set_overbooking("forbidden")
    assert source.asked == []


def test_without_its_source_nothing_moves_below_a_parent(engine):
    source = Contracts()
    quota = claimed(engine, source)
    source.down.add(ACME)
    with pytest.raises(StoreUnavailable):
        quota.move_project("web", parent="lab")
    assert dict(quota.projects())["web"] is None


# --- what a look costs ----------------------------------------------------------------------------


def test_an_answer_is_stamped_anew_every_few_seconds(rows, source, monkeypatch):
    """As the documentation says: for each scope a write, though `cached` spares the source."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    quota = Delimiter(rows._engine)
    quota.define_resource("storage.gb")
    made = Freshness(rows, cached(source), None, quota._run)
    for _ in range(3):
        made.freshen([ACME])
    assert rows.tried == [Scope.total(), ACME]
    clock.now += 5
    made.freshen([ACME])
    assert rows.tried == [Scope.total(), ACME] * 2
    assert source.asked == [Scope.total(), ACME]


def test_an_answer_is_looked_through_once(engine, monkeypatch):
    """Guard: `CachedSource`. What `cached` remembers has been looked through when it came."""
    seen: list[Scope] = []

    def watched(scope: Scope, answer: Any) -> Mapping[str, int]:
        seen.append(scope)
        return maxima_in(scope, answer)

    monkeypatch.setattr(freshness, "maxima_in", watched)
    for source, times in ((cached(Contracts()), 0), (Contracts(), 2)):
        quota = Delimiter(engine, limits=source)
        quota.limits(project="acme")
        assert len(seen) == times
