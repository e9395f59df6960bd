"""What happens between two moments of a guard, on two connections: each of its inner guards, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from delimiter import Conflict, Delimiter, OverLimit
from driver_errors import met_another
from engines.instances import ROWS, Instances
from engines.service import (
    PLACES,
    READ_COMMITTED,
    REPEATABLE_READ,
    SERVER_PLACES,
    Place,
    eventually,
    until_decided,
    waiting_for_locks,
)

_LOCKED_OR_NOT = pytest.mark.parametrize("optimistic", [False, True], ids=["locked", "optimistic"])
_COMMITTED = [one for one in SERVER_PLACES if one.values[0].level == READ_COMMITTED]
_REPEATABLE = [one for one in SERVER_PLACES if one.values[0].level == REPEATABLE_READ]
_OTHERS_WITH_SNAPSHOTS = [
    one for one in PLACES if one.values[0].old_snapshots and one.values[0].level != REPEATABLE_READ
]


@pytest.fixture
def quota(place: Place, rows: Instances) -> Iterator[Delimiter]:
    with Delimiter(rows.url) as quota:
        quota.define_resource(ROWS)
        rows.counted_by(quota)
        yield quota


def _create(quota: Delimiter, rows: Instances, project: str, count: int = 1) -> None:
    with rows.engine.begin() as c, quota.guard({ROWS: count}, project=project, connection=c):
        for _ in range(count):
            rows.add(c, project)


# --- the lock ------------------------------------------------------------------------------------------------------


def _second_while_one_is_open(
    quota: Delimiter, rows: Instances, pool: ThreadPoolExecutor, entered: list[str]
) -> Future[None]:
    """One guard is open; another one waits for it; then the first commits."""

    def second() -> None:
        with rows.engine.begin() as c, quota.guard({ROWS: 1}, project="acme", connection=c):
            entered.append("second")
            rows.add(c, "acme")

    with rows.engine.begin() as c, quota.guard({ROWS: 1}, project="acme", connection=c):
        rows.add(c, "acme")
        waiting = pool.submit(second)
        eventually(waiting_for_locks(rows.url), what="the second waits")
    return waiting


@pytest.mark.parametrize("place", _COMMITTED)
def test_who_waits_for_a_guard_gets_through(place: Place, quota: Delimiter, rows: Instances) -> None:
    """Guard: the lock on entering (`Guards.lock`). Without it the other's row is taken for one of the caller's own."""
    quota.update_limits(ROWS, project="acme", max=3)
    _create(quota, rows, "acme")  # its counter is there: the second waits for nothing but the lock
    entered: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        _second_while_one_is_open(quota, rows, pool, entered).result()
    assert entered == ["second"]
    assert rows.sum_of() == 3


@pytest.mark.parametrize("place", _COMMITTED)
def test_who_waits_counts_afterwards(place: Place, quota: Delimiter, rows: Instances) -> None:
    """Guard: the sum is a statement after the lock (`_SqlGuard.take`). Taken before it, the second enters: 1 of 2."""
    quota.update_limits(ROWS, project="acme", max=2)
    _create(quota, rows, "acme")
    entered: list[str] = []
    with ThreadPoolExecutor(1) as pool, pytest.raises(OverLimit) as refused:
        _second_while_one_is_open(quota, rows, pool, entered).result()
    assert entered == []
    assert [(one.used, one.requested) for one in refused.value.violations] == [(2, 1)]
    assert rows.sum_of() == 2


# --- snapshots -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Meanwhile:
    """What others do, and commit, that leaves no room; who is guarded then, and what is full at the end."""

    prepare: Callable[[Delimiter, Instances], object]
    do: Callable[[Delimiter, Instances], object]
    project: str = "top"
    full: str | None = "top"


def _limited(quota: Delimiter, rows: Instances) -> None:
    quota.update_limits(ROWS, project="top", max=10)
    _create(quota, rows, "top", 5)


def _and(*steps: Callable[[Delimiter, Instances], object]) -> Callable[[Delimiter, Instances], object]:
    return lambda quota, rows: [step(quota, rows) for step in steps]


def _move(quota: Delimiter, _: Instances) -> None:
    quota.move_project("child", parent="top")


_MEANWHILE = {
    "a guard": _Meanwhile(_limited, lambda q, r: _create(q, r, "top", 5)),
    "a guard below": _Meanwhile(_limited, lambda q, r: _create(q, r, "other", 5)),
    "a lower limit": _Meanwhile(
        _and(_limited, lambda q, r: _create(q, r, "other", 4)),
        lambda q, r: q.update_limits(ROWS, project="top", max=9),
    ),
    "a project that moves in": _Meanwhile(_and(_limited, lambda q, r: _create(q, r, "child", 5)), _move),
    "the same, never guarded": _Meanwhile(
        _and(_limited, lambda q, r: r.add_past_guards("child", rows=5)), _move
    ),
    "a project that is added": _Meanwhile(
        _and(_limited, lambda q, r: _create(q, r, "fresh", 5)),
        lambda q, r: q.add_project("fresh", parent="top"),
    ),
    "its own move": _Meanwhile(
        _and(_limited, lambda q, r: _create(q, r, "child", 5)), _move, project="child"
    ),
    "the total's first limit": _Meanwhile(
        lambda q, r: _create(q, r, "top", 10), lambda q, r: q.update_limits(ROWS, max=10), full=None
    ),
    "an ancestor's first limit": _Meanwhile(
        lambda q, r: _create(q, r, "other", 10),
        lambda q, r: q.update_limits(ROWS, project="top", max=10),
        project="other",
    ),
    "rows below, and then its first limit": _Meanwhile(
        lambda q, r: _create(q, r, "top", 4),
        _and(
            lambda q, r: _create(q, r, "other", 6),
            lambda q, _: q.update_limits(ROWS, project="top", max=10),
        ),
    ),
    "a first default": _Meanwhile(
        lambda q, r: _create(q, r, "other", 10),
        lambda q, r: q.define_resource(ROWS, project_max=10),
        project="other",
    ),
}


def _and_what(place: Any, meanwhile: str) -> Any:
    return pytest.param(*place.values, meanwhile, marks=place.marks, id=f"{place.id}-{meanwhile}")


def _plant(quota: Delimiter, rows: Instances, what: _Meanwhile) -> None:
    for name, parent in (("top", None), ("child", None), ("other", "top")):
        quota.add_project(name, parent=parent)
    what.prepare(quota, rows)


def _one_more(
    quota: Delimiter,
    rows: Instances,
    project: str,
    *,
    optimistic: bool,
    before: Callable[[], object] | None = None,
    inside: Callable[[], object] | None = None,
) -> None:
    with rows.engine.begin() as c:
        rows.look(c)
        if before is not None:
            before()
        with quota.guard({ROWS: 1}, project=project, connection=c, optimistic=optimistic):
            rows.add(c, project)
            if inside is not None:
                inside()


def _still_full(quota: Delimiter, rows: Instances, what: _Meanwhile) -> None:
    owner: dict[str, Any] = {} if what.full is None else {"project": what.full}
    found = quota.usage(**owner)[ROWS]
    assert found.used == rows.sum_of() == len(rows.rows())
    assert found.used == (10 if found.limit == 10 else 9)
    with pytest.raises(OverLimit):
        until_decided(lambda: _one_more(quota, rows, what.project, optimistic=False))


@_LOCKED_OR_NOT
@pytest.mark.parametrize(
    "place, meanwhile",
    [
        *(_and_what(place, what) for place in _REPEATABLE for what in _MEANWHILE),
        *(_and_what(place, "a guard") for place in _OTHERS_WITH_SNAPSHOTS),
    ],
)
def test_a_snapshot_from_before(
    place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool, meanwhile: str
) -> None:
    """Guards: the revision that every guard writes (`Guards.write`), and that it is compared with what a plain read
    shows on MariaDB (`Guards._refuse_lag`); that changes of the tree and of limits write it too
    (`CounterLocks.raise_generations`, `.raise_revisions`). Without any of them one row too many comes in.
    """
    what = _MEANWHILE[meanwhile]
    _plant(quota, rows, what)
    with pytest.raises((OverLimit, Conflict, DBAPIError)) as raised:
        _one_more(quota, rows, what.project, optimistic=optimistic, before=lambda: what.do(quota, rows))
    # The caller's own insert may meet another transaction too, at SERIALIZABLE.
    assert not isinstance(raised.value, DBAPIError) or met_another(raised.value)
    _still_full(quota, rows, what)


@pytest.mark.parametrize("meanwhile", _MEANWHILE)
@pytest.mark.parametrize("place", [*_COMMITTED, *_REPEATABLE])
def test_inside_an_optimistic_guard(place: Place, quota: Delimiter, rows: Instances, meanwhile: str) -> None:
    """Guard: the compare on leaving (`Guards.write_seen`), of the revision and of the limit."""
    what = _MEANWHILE[meanwhile]
    _plant(quota, rows, what)
    with pytest.raises(Conflict):
        _one_more(quota, rows, what.project, optimistic=True, inside=lambda: what.do(quota, rows))
    _still_full(quota, rows, what)


@pytest.mark.parametrize("meanwhile", _MEANWHILE)
@pytest.mark.parametrize("place", _COMMITTED)
def test_a_locked_guard_keeps_others_waiting(
    place: Place, quota: Delimiter, rows: Instances, meanwhile: str
) -> None:
    """Guard: the lock on every row of the way. Without it the other one decides on rows that are not there yet.

    There is room for the row of the guard or for what the other one wants, not for both.
    """
    what = _MEANWHILE[meanwhile]
    _plant(quota, rows, what)

    def other() -> str:
        try:
            what.do(quota, rows)
        except OverLimit:
            return "refused"
        return "done"

    with ThreadPoolExecutor(1) as pool, rows.engine.begin() as c:
        with quota.guard({ROWS: 1}, project=what.project, connection=c):
            waiting = pool.submit(other)
            eventually(waiting_for_locks(rows.url), what="the other waits")
            rows.add(c, what.project)
        c.commit()
        told = waiting.result()
    limits = "limit" in meanwhile or "default" in meanwhile
    assert told == ("done" if limits else "refused")
    over = [(one.kind, one.used) for one in quota.events() if one.kind == "over_quota"]
    assert bool(over) == limits, over  # a limit that came later than the row is over quota, and that is told
    assert rows.sum_of() == quota.usage()[ROWS].used


@_LOCKED_OR_NOT
@pytest.mark.parametrize("place", _COMMITTED)
def test_what_comes_in_below_an_unlimited_project_is_not_the_callers(
    place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool
) -> None:
    """Guard: without a limit there is no lock in common, so only rows of the project itself are compared."""
    quota.add_project("top")
    quota.add_project("other", parent="top")
    _one_more(quota, rows, "top", optimistic=optimistic, inside=lambda: _create(quota, rows, "other", 5))
    assert rows.sum_of() == quota.usage(project="top")[ROWS].used == 6


@pytest.mark.parametrize("place", _COMMITTED)
def test_a_crossing_that_another_has_told_meanwhile(place: Place, quota: Delimiter, rows: Instances) -> None:
    """After the locks of a refused guard are gone, and before it tells: another one is refused, and tells.

    Guards: `Crossings.notice` compares the mark as it writes it, and reads whether it has; else it is told twice.
    """
    quota.update_limits(ROWS, project="acme", max=3)
    _create(quota, rows, "acme")
    rows.add_past_guards("acme", rows=5)
    savepoints: list[sa.Connection] = []

    def refused() -> None:
        with (
            rows.engine.begin() as c,
            pytest.raises(OverLimit),
            quota.guard({ROWS: 1}, project="acme", connection=c),
        ):
            pytest.fail("entered")

    @sa.event.listens_for(rows.engine, "savepoint")
    def begun(connection: sa.Connection, _name: str) -> None:
        savepoints.append(connection)
        if len(savepoints) == 2:  # that in which the first one tells
            refused()

    refused()
    assert len(savepoints) == 4
    assert [e.kind for e in quota.events()] == ["limit_changed", "over_quota"]
