"""A tree six deep and three wide under load, while projects move, come and go and limits change.

Watched all the time in one consistent read: what an ancestor's counter says is the sum of its subtree, and within its
limit. Guards: each of these was taken out, and this test (or ``test_tree_moments.py``) failed: the generations raised
below a project that is moved or limited, the tree's row that makers share and movers hold, the order of the counters'
locks in a move, the part from below taken off the old ancestors.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, InvalidRequest, OverLimit, UnknownProject
from delimiter.edits import AddProject, LimitChange, SetLimit
from delimiter.model import Scope

_DEEP, _WIDE = 6, 3
_PROCESSES, _THREADS, _ROUNDS = 4, 8, 12
_RESOURCES: Final = ("cores", "ram")
#: Of the project at the top, and of those on the third level: the load comes near both.
_TOP, _THIRD = 150, 40


def names(level: int) -> list[str]:
    """The projects of one level; a name tells the way: ``p.0.2`` lies below ``p.0``."""
    found = ["p"]
    for _ in range(level - 1):
        found = [f"{name}.{number}" for name in found for number in range(_WIDE)]
    return found


_LEAVES: Final = names(_DEEP)


def grow(quota: Delimiter) -> None:
    for resource in _RESOURCES:
        quota.define_resource(resource)
    edits: list[Any] = [
        AddProject(name, name.rpartition(".")[0] or None)
        for level in range(1, _DEEP + 1)
        for name in names(level)
    ]
    for resource in _RESOURCES:
        edits.append(SetLimit(resource, Scope("project", "p"), LimitChange(max=_TOP)))
        edits += [SetLimit(resource, Scope("project", name), LimitChange(max=_THIRD)) for name in names(3)]
    assert quota.edit(edits) == []


# -- the load -----------------------------------------------------------------------------------------------------


def claimers(url: str, process: int) -> int:
    """One process of them: what it holds at the end."""
    sys.setswitchinterval(1e-4)
    with Delimiter(url, timeout=120) as quota, ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(lambda n: _claimer(quota, process * 100 + n), range(_THREADS)))


def _claimer(quota: Delimiter, seed: int) -> int:
    """No error but a refusal may come out: deadlocks are the library's own affair."""
    dice = random.Random(seed)
    held: dict[str, int] = {}
    for _ in range(_ROUNDS):
        if held and dice.random() < 0.3:
            id, _ = held.popitem()
            quota.release(id)
            continue
        wanted = {name: dice.randint(1, 3) for name in _RESOURCES}
        project = dice.choice(_LEAVES if dice.random() < 0.8 else names(dice.randint(1, _DEEP - 1)))
        try:
            if dice.random() < 0.3:
                claim = quota.reserve(wanted, project=project, expires_in=600)
            else:
                claim = quota.claim(wanted, project=project)
        except OverLimit:
            continue
        if dice.random() < 0.2:
            with suppress(OverLimit):
                wanted = dict(
                    quota.resize(claim.id, {name: dice.randint(1, 3) for name in _RESOURCES}).resources
                )
        held[claim.id] = sum(wanted.values())
    return sum(held.values())


def gardener(url: str, seed: int) -> dict[str, int]:
    """Moves, removes and adds projects, and gives and takes limits, until told to stop; how often each was done."""
    dice = random.Random(seed)
    done: dict[str, int] = {"moved": 0, "refused": 0, "removed": 0, "limited": 0}
    with Delimiter(url, timeout=120) as quota:
        for _ in range(40):
            try:
                _garden(quota, dice, done)
            except (OverLimit, InvalidRequest, UnknownProject):
                done["refused"] += 1
    return done


def _garden(quota: Delimiter, dice: random.Random, done: dict[str, int]) -> None:
    match dice.randrange(4):
        case 0 | 1:
            project = dice.choice([*names(4), *names(5), *_LEAVES])
            quota.move_project(project, parent=dice.choice([*names(3), *names(4)]))
            done["moved"] += 1
        case 2:
            project = dice.choice(_LEAVES)
            parent = dict(quota.projects()).get(project)
            quota.remove_project(project)
            done["removed"] += 1
            quota.add_project(project, parent=parent)
        case _:
            # A first limit and its end: each turns an ancestor from derived to counted, or back.
            resource, project = dice.choice(_RESOURCES), dice.choice([*names(2), *names(4)])
            quota.update_limits(resource, project=project, max=dice.choice([None, _TOP]))
            done["limited"] += 1


# -- the reader ---------------------------------------------------------------------------------------------------

#: One statement, so of one moment: each counter with a limit, and the sum of what its subtree holds itself.
_LOOK: Final = """
SELECT k.scope, k.maximum, k.used, k.used_below,
  (SELECT COALESCE(SUM(o.used - o.used_below), 0) FROM delimiter_counters o
    WHERE o.resource_id = k.resource_id AND o.kind = 'project' AND (o.scope = k.scope OR o.scope IN
      (SELECT a.project FROM delimiter_ancestors a WHERE a.ancestor = k.scope))) AS subtree
FROM delimiter_counters k WHERE k.kind = 'project' AND k.maximum <> -1
"""


@contextmanager
def watched(url: str) -> Iterator[list[str]]:
    """What a separate reader finds wrong, and at the end how often it looked."""
    wrong: list[str] = []
    looks = 0
    stop = threading.Event()
    engine = sa.create_engine(url)

    def look() -> None:
        nonlocal looks
        while not stop.is_set():
            with engine.connect() as connection:
                rows = connection.execute(sa.text(_LOOK)).all()
            looks += 1
            wrong.extend(f"{row}" for row in rows if row.used != row.subtree or row.used > row.maximum)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        yield wrong
    finally:
        stop.set()
        reader.join()
        engine.dispose()
    assert looks > 10, "the reader hardly looked"


@pytest.mark.slow
@pytest.mark.stores("postgresql", "mariadb")
def test_every_ancestor_is_the_sum_of_its_subtree(store_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    with Delimiter(store_url, timeout=120) as quota:
        grow(quota)
        with watched(store_url) as wrong, ProcessPoolExecutor(_PROCESSES + 2, mp_context=spawn) as pool:
            holding = [pool.submit(claimers, store_url, number) for number in range(_PROCESSES)]
            gardening = [pool.submit(gardener, store_url, seed) for seed in (1, 2)]
            held = sum(one.result() for one in holding)
            done = [one.result() for one in gardening]
        assert wrong == []
        for what in ("moved", "limited"):
            assert sum(one[what] for one in done) >= 5, done
        claims = list(quota.claims())
        assert sum(sum(claim.resources.values()) for claim in claims) == held
        assert list(quota.reconcile()) == []
        assert_sums(quota, claims)


def assert_sums(quota: Delimiter, claims: list[Any]) -> None:
    """Every project uses what the claims in its subtree hold, worked out here from the tree and the claims alone."""
    parents = dict(quota.projects())
    expected: dict[tuple[str, str], int] = {}
    for claim in claims:
        project = claim.project
        while project is not None:
            for name, amount in claim.resources.items():
                expected[project, name] = expected.get((project, name), 0) + amount
            project = parents.get(project)
    seen = {(one.id, name): usage.used for one in quota.tree() for name, usage in one.usage.items()}
    assert {key: used for key, used in seen.items() if used} == expected
