"""Every recipe, with a worker that dies at every step of it: before the first, between any two, after the last.

The steps are found by running: each call of the quota, of the other system and each COMMIT is one (`crashes.Steps`), so
a step that is added to a recipe is a place to die at. The scenarios say how it may end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from examples.recipes.reserve_first import VCPU
from examples.recipes.shared import DATABASES

from delimiter import Delimiter
from delimiter.testing import Sandbox
from recipes.cloud import Cloud
from recipes.crashes import Crash, Steps
from recipes.scenarios import LONG, NO, SCENARIOS, Scenario, World

RESOURCES = (VCPU, DATABASES)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with nothing but definitions, to be copied: that is faster than to make it each time."""
    file = tmp_path_factory.mktemp("empty") / "quota.db"
    with Delimiter(f"sqlite:///{file}") as quota:
        _define(quota)
    return file


def _define(quota: Delimiter) -> None:
    quota.define_resource(VCPU, project_max=8)
    quota.define_resource(DATABASES, project_max=1)


class Place:
    """Where worlds are made, one after another, each with an empty store and empty systems beside it."""

    def __init__(self, store: str, folder: Path, empty_store: Path) -> None:
        self._folder, self._empty_store = folder, empty_store
        self._engine = None
        if store == "sqlite":
            self._engine = sa.create_engine(f"sqlite:///{folder / 'quota.db'}")
            sa.event.listen(self._engine, "connect", _fast)
        self._numbers = count()

    @contextmanager
    def world(self, scenario: Scenario) -> Iterator[World]:
        number = next(self._numbers)
        with ExitStack() as stack:
            if self._engine is not None:
                shutil.copy(self._empty_store, self._folder / "quota.db")
                stack.callback(self._engine.dispose)
            store = "memory://" if self._engine is None else self._engine
            sandbox = stack.enter_context(Sandbox(store, create=False))
            cloud, databases = (
                stack.enter_context(closing(Cloud(self._folder / f"{name}{number}.db")))
                for name in ("cloud", "databases")
            )
            if self._engine is None:
                _define(sandbox.quota)
            world = World(sandbox, self._engine, cloud, databases)
            scenario.prepare(world)
            yield world


def _fast(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")  # the machine does not die here


@pytest.fixture
def place(store: str, tmp_path: Path, empty_store: Path) -> Place:
    return Place(store, tmp_path, empty_store)


def _param(name: str, store: str, *marks: Any) -> Any:
    return pytest.param(
        SCENARIOS[name], store, id=f"{name}-{store}", marks=[pytest.mark.stores(store), *marks]
    )


_WITHOUT_TRANSACTIONS = [name for name, one in SCENARIOS.items() if not one.needs_transactions]
_ON_MEMORY = [_param(name, "memory") for name in _WITHOUT_TRANSACTIONS]
_WITH_TRANSACTIONS = [_param(name, "sqlite") for name, one in SCENARIOS.items() if one.needs_transactions]
_ON_SQLITE_TOO = [_param(name, "sqlite", pytest.mark.slow) for name in _WITHOUT_TRANSACTIONS]
on_every_store = pytest.mark.parametrize(
    "scenario, store", [*_ON_MEMORY, *_WITH_TRANSACTIONS, *_ON_SQLITE_TOO]
)
on_one_store = pytest.mark.parametrize("scenario, store", [*_ON_MEMORY, *_WITH_TRANSACTIONS])


def crashed(world: World, scenario: Scenario, dies_before: int) -> list[str] | None:
    """The steps that a worker took before it died, or ``None``: it came through."""
    steps = Steps(dies_before)
    try:
        with suppress(*NO):
            scenario.run(world.watched(steps))
        steps.take("the end")  # it died before it could tell that it was through
    except Crash:
        return steps.taken
    return None


def at_every_step(place: Place, scenario: Scenario) -> Iterator[tuple[World, list[str]]]:
    """A world for each step before which a worker died, and the steps it took."""
    for number in count():
        with place.world(scenario) as world:
            taken = crashed(world, scenario, number)
            if taken is None:
                assert number > 1
                return
            try:
                yield world, taken
            except AssertionError as error:
                error.add_note(f"the worker died after {taken}")
                raise


def come_back(world: World, scenario: Scenario) -> None:
    """Another worker runs the same function with the same arguments."""
    with suppress(*NO):
        scenario.run(world)


def assert_settled(world: World) -> None:
    """What is there is paid for, and nothing else is."""
    assert [world.used(name) for name in RESOURCES] == [world.there(name) for name in RESOURCES]
    assert [world.differences(name) for name in RESOURCES] == [[], []]


@on_every_store
def test_somebody_comes_back_at_once(scenario: Scenario, place: Place) -> None:
    """It ends as if nobody had died, and nothing is still reserved. Guards: ids made of the name; release on a no."""
    for world, _ in at_every_step(place, scenario):
        come_back(world, scenario)
        assert world.sizes() == scenario.ends
        assert_settled(world)
        world.sandbox.clock.advance(LONG)
        assert_settled(world)


@on_one_store
def test_somebody_comes_back_when_the_reservations_have_run_out(scenario: Scenario, place: Place) -> None:
    """Guard: `hold` tries another id for each reservation that ran out."""
    for world, _ in at_every_step(place, scenario):
        world.sandbox.clock.advance(LONG)
        come_back(world, scenario)
        assert world.sizes() in (scenario.ends, *scenario.late)
        world.sandbox.clock.advance(LONG)
        assert_settled(world)


@on_one_store
def test_others_have_taken_the_room_meanwhile(scenario: Scenario, place: Place) -> None:
    """Guard: after a refusal what an earlier run made is taken down there."""
    for world, _ in at_every_step(place, scenario):
        world.sandbox.clock.advance(LONG)
        world.crowd(*RESOURCES)
        come_back(world, scenario)
        assert world.sizes() in (scenario.ends, *scenario.crowded)
        world.sandbox.clock.advance(LONG)
        assert_settled(world)


@on_one_store
def test_nobody_comes_back(scenario: Scenario, place: Place) -> None:
    """When the reservations have run out, usage is what is there, but for what a listing names.

    And until then nothing exists that is not paid for, where the recipe says so. Guard: the order of the steps.
    """
    for world, _ in at_every_step(place, scenario):
        if scenario.paid_first:
            assert world.there(VCPU) <= world.used(VCPU)
        world.sandbox.clock.advance(LONG)
        for name in RESOURCES:
            found = world.differences(name)
            unpaid = sum(max(0, one.there - one.claimed) for one in found)
            unfounded = sum(max(0, one.claimed - one.there) for one in found)
            assert world.used(name) == world.there(name) - unpaid + unfounded
            assert len(found) <= 1
            assert not (unpaid if scenario.leaves == "unfounded" else unfounded)
            world.mend(name)
        assert_settled(world)


@pytest.mark.slow
@on_one_store
def test_whoever_comes_back_dies_too(scenario: Scenario, place: Place) -> None:
    """At every step of the second run, for every step of the first; the third comes through."""
    for second in count():
        died_again = False
        for world, _ in at_every_step(place, scenario):
            died_again = crashed(world, scenario, second) is not None or died_again
            come_back(world, scenario)
            assert world.sizes() == scenario.ends
            world.sandbox.clock.advance(LONG)
            assert_settled(world)
        if not died_again:
            return
