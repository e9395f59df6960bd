"""The moments at which rules change: a limit that holds from the next claim on, and first claims that meet an edit."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Final

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, OverLimit

_TIMES: Final = 1000
_ROUNDS: Final = 12
_NEW: Final = 8


# -- from the next claim on ---------------------------------------------------------------------------------------


def claim_in_a_loop(url: str, told: Connection, *, paced: bool) -> None:
    """Process A: when each of its claims began, and how it was answered. ``paced``: one for each word from B."""
    with Delimiter(url, timeout=60) as quota:
        while (told.recv() if paced or told.poll() else "go") == "go":
            began = time.monotonic_ns()
            try:
                claim = quota.claim({"cores": 1}, project="leaf")
            except OverLimit:
                told.send((began, False))
            else:
                told.send((began, True))
                quota.release(claim.id)


@pytest.mark.slow
@pytest.mark.stores("sqlite", "postgresql")
def test_a_limit_holds_from_the_next_claim_on_in_every_process(store_url: str, store_name: str) -> None:
    """Of an ancestor, with everything remembered. Guard: the limit in force stands on the row that a claim locks.

    On SQLite process A claims when it is told to: a loop that never lets go of the file starves other writers, who
    can only poll for it.
    """
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    paced = store_name == "sqlite"
    with Delimiter(store_url, timeout=60) as quota:
        quota.define_resource("cores")
        quota.add_project("top")
        quota.add_project("leaf", parent="top")
        quota.update_limits("cores", project="top", max=1)
        process = spawn.Process(
            target=claim_in_a_loop, args=(store_url, theirs), kwargs={"paced": paced}, daemon=True
        )
        process.start()
        for _ in range(_TIMES):
            for limit in (0, 1):
                quota.update_limits("cores", project="top", max=limit)
                returned = time.monotonic_ns()
                if paced:
                    mine.send("go")
                assert _next_answer(mine, returned) is bool(limit)
        mine.send("stop")
        while process.is_alive():
            if mine.poll(0.05):
                mine.recv()
        process.join()
    assert process.exitcode == 0


def _next_answer(pipe: Connection, returned: int) -> bool:
    """The answer to the first claim that began after the call had returned."""
    while True:
        began, admitted = pipe.recv()
        if began >= returned:
            return bool(admitted)


# -- first claims -------------------------------------------------------------------------------------------------


def _lower_default(quota: Delimiter, round: int) -> None:
    quota.define_resource("cores", project_max=2 if round % 2 else 3, user_max=-1)


def _first_limit(quota: Delimiter, round: int) -> None:
    quota.update_limits("cores", project="top", max=5 if round % 2 else None)


def _first_limit_of_all(quota: Delimiter, round: int) -> None:
    quota.update_limits("cores", max=1000 if round % 2 else None)


def _move(quota: Delimiter, round: int) -> None:
    quota.move_project("mid", parent="other" if round % 2 else "top")


def _add(quota: Delimiter, round: int) -> None:
    for number in range(_NEW):
        try:
            quota.add_project(f"late{round}-{number}", parent="mid")
        except OverLimit:  # its claims were there first, and "top" has no room for them
            continue


@pytest.mark.parametrize("edit", [_lower_default, _first_limit, _first_limit_of_all, _move, _add])
def test_first_claims_meet_an_edit(store_url: str, edit: Callable[[Delimiter, int], None]) -> None:
    """Two handles, as two processes would have. Guards: the tree's and the definition's rows, which makers share."""
    with (
        Delimiter(store_url, timeout=60) as quota,
        Delimiter(store_url, timeout=60) as other,
        ThreadPoolExecutor(_NEW + 1) as pool,
    ):
        quota.define_resource("cores", project_max=3 if edit is _lower_default else -1)
        for name, parent in (("top", None), ("other", None), ("mid", "top")):
            quota.add_project(name, parent=parent)
        for round in range(_ROUNDS):
            if edit is not _add:
                for number in range(_NEW):
                    quota.add_project(f"late{round}-{number}", parent="mid")
            barrier = threading.Barrier(_NEW + 1)
            claims = [pool.submit(_claim, quota, barrier, f"late{round}-{n}") for n in range(_NEW)]
            edited = pool.submit(_edit, other, barrier, edit, round)
            edited.result()
            for claim in claims:
                claim.result()
            assert_sound(quota, store_url)


def _claim(quota: Delimiter, barrier: threading.Barrier, project: str) -> bool:
    barrier.wait()
    try:
        quota.claim({"cores": 1}, project=project, user="john")
    except OverLimit:
        return False
    return True


def _edit(
    quota: Delimiter, barrier: threading.Barrier, edit: Callable[[Delimiter, int], None], round: int
) -> None:
    barrier.wait()
    edit(quota, round)


def assert_sound(quota: Delimiter, url: str) -> None:
    """No counter has an old limit or lacks one, none is missing above another, nothing is missed in a sum."""
    assert list(quota.reconcile()) == []
    own = {
        (one.resource, one.scope.name): one.max for one in quota.own_limits() if one.scope.kind == "project"
    }
    default = quota.resources()[0].project_max
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        counters: dict[str, Any] = {
            row.scope: row
            for row in connection.execute(
                sa.text("SELECT scope, maximum, used FROM delimiter_counters WHERE kind = 'project'")
            )
        }
        ways = connection.execute(sa.text("SELECT project, ancestor FROM delimiter_ancestors")).all()
    engine.dispose()
    for scope, counter in counters.items():
        limit = own.get(("cores", scope))
        assert counter.maximum == (default if limit is None else limit), scope
    for way in ways:
        limit = own.get(("cores", way.ancestor))
        if way.project in counters and (default if limit is None else limit) != -1:
            assert way.ancestor in counters, way
