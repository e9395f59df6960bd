"""kill -9 of workers that run the recipes on SQLite, at random moments, again and again."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from examples.recipes import claim_afterwards, reserve_first, resize, shared
from examples.recipes.reserve_first import VCPU
from examples.recipes.resize import Resize
from examples.recipes.shared import DATABASES

from delimiter.testing import Sandbox
from engines.service import assert_sound, eventually
from recipes.cloud import Cloud
from recipes.scenarios import LONG, NO, World

_WAVES = 2
_WORKERS = 2
_KINDS = ("reserve", "afterwards", "resize", "shared", "deleted")


def _do(world: World, name: str) -> None:
    """The job of this name, the same whoever does it; jobs of a kind have recipes in common."""
    quota, cloud = world.quota, world.cloud
    match name.split("-", maxsplit=1)[0]:
        case "reserve":
            reserve_first.create(quota, cloud, name, project="acme", size=4)
        case "afterwards":
            claim_afterwards.create(quota, cloud, name, project="acme", size=4)
        case "resize":
            claim = reserve_first.create(quota, cloud, name, project="acme", size=4)
            job = Resize("r1", name, claim.id, "acme", old=4, new=8)
            assert world.engine is not None
            resize.begin(quota, world.engine, cloud, job)
            resize.confirm(quota, world.engine, cloud, job)
        case "shared":
            compute = shared.Compute(quota, cloud)
            shared.create_database(quota, compute, world.databases, name, project="acme", size=4)
        case _:
            claim = reserve_first.create(quota, cloud, name, project="acme", size=4)
            assert claim.external_id is not None
            reserve_first.delete(quota, cloud, claim.external_id)


@contextmanager
def _world(folder: Path) -> Iterator[World]:
    engine = sa.create_engine(f"sqlite:///{folder / 'quota.db'}", connect_args={"timeout": 30})
    with (
        Sandbox(engine, timeout=30) as sandbox,
        closing(Cloud(folder / "cloud.db")) as cloud,
        closing(Cloud(folder / "databases.db")) as databases,
    ):
        yield World(sandbox, engine, cloud, databases)
    engine.dispose()


def _work(folder: Path, journal: Path, worker: int) -> None:
    """Does one job after another until it is killed; what it begins is written down before."""
    with _world(folder) as world, journal.open("a") as lines:
        for number in count():
            name = f"{_KINDS[number % len(_KINDS)]}-{worker}-{number}"
            lines.write(f"{name}\n")
            lines.flush()
            with suppress(*NO):
                _do(world, name)


def _begun(journals: list[Path]) -> list[str]:
    """Whole lines only: the last one may be half written."""
    lines = [line for one in journals if one.exists() for line in one.read_text().splitlines(keepends=True)]
    return [line.strip() for line in lines if line.endswith("\n")]


def _has_begun(journals: list[Path], jobs: int) -> bool:
    return len(_begun(journals)) >= jobs


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """What workers that are dead now have left, and the names of the jobs that they had begun."""
    folder = tmp_path_factory.mktemp("wreck")
    with _world(folder) as world:
        for name in (VCPU, DATABASES):
            world.quota.define_resource(name, project_max=10_000)
    begun = _kill_workers(folder)
    assert len(begun) >= 6 * _WAVES * _WORKERS
    return folder, begun


@pytest.fixture
def world(wreck: tuple[Path, list[str]], tmp_path: Path) -> Iterator[World]:
    """A copy of it."""
    with _world(Path(shutil.copytree(wreck[0], tmp_path / "wreck"))) as world:
        yield world


@pytest.fixture
def begun(wreck: tuple[Path, list[str]]) -> list[str]:
    return wreck[1]


def _kill_workers(folder: Path) -> list[str]:
    context = multiprocessing.get_context("spawn")
    dice = random.Random(7)
    journals: list[Path] = []
    for wave in range(_WAVES):
        workers = []
        for number in range(_WORKERS):
            journal = folder / f"journal{wave}-{number}"
            worker = context.Process(
                target=_work, args=(folder, journal, wave * _WORKERS + number), daemon=True
            )
            worker.start()
            workers.append(worker)
            journals.append(journal)
        for worker, journal in zip(workers, journals[-_WORKERS:], strict=True):
            eventually(partial(_has_begun, [journal], 6), what="a worker works", within=60)
            threading.Event().wait(dice.uniform(0, 0.1))
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        for worker in workers:
            worker.join(10)
            worker.close()
    return _begun(journals)


def _expected(name: str, *, late: bool) -> list[list[int]]:
    """What may be there of this job when somebody has come back to it."""
    match name.split("-", maxsplit=1)[0]:
        case "resize":
            return [[8], [4]] if late else [[8]]
        case "deleted":
            return [[]]
        case _:
            return [[4]]


@pytest.mark.slow
@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_somebody_comes_back_to_every_job(late: bool, world: World, begun: list[str]) -> None:
    """There is one thing for each job, and one claim for each thing. Guard: ids made of the names."""
    if late:
        world.sandbox.clock.advance(LONG)
    for name in begun:
        with suppress(*NO):
            _do(world, name)
    things = world.cloud.things()
    for name in begun:
        sizes = [thing.size for thing in things if thing.name in (name, f"{name}.server")]
        assert sizes in _expected(name, late=late), name
    world.sandbox.clock.advance(LONG)
    _assert_settled(world)


@pytest.mark.slow
@pytest.mark.stores("sqlite")
def test_nobody_comes_back(world: World) -> None:
    """When the reservations have run out, each dead worker has left at most one thing for a listing to name.

    Guard: each recipe finishes one thing before it begins another, and gives it an end.
    """
    world.sandbox.clock.advance(LONG)
    found = [one for name in (VCPU, DATABASES) for one in world.differences(name)]
    assert len(found) <= _WAVES * _WORKERS
    for name in (VCPU, DATABASES):
        world.mend(name)
    _assert_settled(world)


def _assert_settled(world: World) -> None:
    assert_sound(world.sandbox.quota)
    for name in (VCPU, DATABASES):
        assert world.differences(name) == []
        assert world.used(name) == world.there(name)
