"""What a worker does, with every recipe, on a good day and on a bad one; and how it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from examples.recipes import claim_afterwards, reserve_first, resize, shared
from examples.recipes.elsewhere import Refused, Thing
from examples.recipes.listing import existing
from examples.recipes.reserve_first import VCPU
from examples.recipes.resize import UNDECIDED, Resize
from examples.recipes.shared import DATABASES

from delimiter import Claim, ClaimExpired, ClaimReleased, OverLimit
from delimiter.testing import Sandbox
from recipes.cloud import Cloud
from recipes.crashes import Steps

#: How a worker says that it is through, though it did not do what it was asked for.
NO: Final = (OverLimit, ClaimExpired, ClaimReleased, Refused, claim_afterwards.Gone)
ACME: Final[dict[str, Any]] = {"project": "acme"}
#: Longer than any reservation of a recipe.
LONG: Final = UNDECIDED + timedelta(minutes=1)


@dataclass
class World:
    """The store and the systems beside it."""

    sandbox: Sandbox
    engine: sa.Engine | None
    cloud: Cloud
    databases: Cloud
    kept: dict[str, Any] = field(default_factory=dict)

    def watched(self, steps: Steps) -> World:
        """As one worker sees it, who dies at some step."""
        watched = World(self.sandbox, steps.watch(self.engine, ""), self.cloud, self.databases, self.kept)
        watched.quota = steps.watch(self.sandbox.quota, "quota")
        watched.cloud = steps.watch(self.cloud, "cloud")
        watched.databases = steps.watch(self.databases, "databases")
        return watched

    def __post_init__(self) -> None:
        self.quota: Any = self.sandbox.quota

    def crowd(self, *resources: str) -> None:
        """Somebody else of the same project takes all the room there is."""
        self.cloud.refuses = False
        for name in resources:
            room = self.quota.check({name: 1}, **ACME).available[name]
            if room:
                thing = self._system(name).create("neighbour", size=room, **ACME)
                self.quota.claim({name: room}, id=thing.id, **ACME)

    def used(self, resource: str) -> int:
        return int(self.sandbox.quota.usage(**ACME)[resource].used)

    def there(self, resource: str) -> int:
        return sum(thing.size for thing in self._things(resource))

    def sizes(self) -> tuple[int, ...]:
        """Of the things that the worker was asked for."""
        things = [*self.cloud.things(), *self.databases.things()]
        return tuple(sorted(thing.size for thing in things if thing.name != "neighbour"))

    def differences(self, resource: str) -> list[Difference]:
        """Everything that a comparison with the listing finds, without any grace: nothing is under way."""
        things = self._things(resource)
        found = self.sandbox.quota.reconcile_with(
            lambda: existing(things, resource), resources=[resource], grace=0
        )
        return [
            Difference(
                str(one.external_id or one.claim_id),
                claimed=int(one.recorded.get(resource) or 0),
                there=int(one.actual.get(resource) or 0),
            )
            for one in found
        ]

    def mend(self, resource: str) -> None:
        """What is done about what the listing tells."""
        cloud = self._system(resource)
        names = {thing.id: thing.name for thing in cloud.things()}
        for one in self.differences(resource):
            if not one.there:
                self.sandbox.quota.release(one.id)
            elif not one.claimed:
                cloud.delete(one.id)
            elif one.claimed > one.there:
                self.sandbox.quota.resize(one.id, {resource: one.there})
            else:
                cloud.begin_resize(names[one.id], one.claimed)
                cloud.confirm_resize(names[one.id])

    def _things(self, resource: str) -> list[Thing]:
        return self._system(resource).things()

    def _system(self, resource: str) -> Cloud:
        return self.cloud if resource == VCPU else self.databases


@dataclass(frozen=True)
class Difference:
    """The thing's id (or the claim's), what is claimed for it, and what there is."""

    id: str
    claimed: int
    there: int


def _nothing(_: World) -> None:
    return


@dataclass(frozen=True)
class Scenario:
    run: Callable[[World], object]
    #: The sizes of the things that are there at the end, if somebody comes back at once.
    ends: tuple[int, ...]
    prepare: Callable[[World], object] = _nothing
    #: Other ends, if the reservations have run out before somebody comes back.
    late: tuple[tuple[int, ...], ...] = ()
    #: Other ends, if others have taken the room meanwhile.
    crowded: tuple[tuple[int, ...], ...] = ()
    #: What a listing may have to name if nobody ever comes back: things that are not paid for, or claims without one.
    leaves: str = "unpaid"
    #: Whether what exists is paid for at every moment, as long as the reservations live.
    paid_first: bool = True
    needs_transactions: bool = False


def _no_room(world: World) -> None:
    world.crowd(VCPU)


# --- reserve first --------------------------------------------------------------------------------


def _create(world: World) -> Claim:
    return reserve_first.create(world.quota, world.cloud, "vm", size=4, **ACME)


def _delete(world: World) -> None:
    reserve_first.delete(world.quota, world.cloud, world.kept["vm"].id)


def _has_vm(world: World) -> None:
    world.kept["claim"] = _create(world)
    world.kept["vm"] = world.cloud.find("vm")


def _refuses(world: World) -> None:
    world.cloud.refuses = True


def _is_slow(world: World) -> None:
    def once() -> None:
        world.cloud.meanwhile = int
        world.sandbox.clock.advance(LONG)

    world.cloud.meanwhile = once


# --- claim afterwards -----------------------------------------------------------------------------


def _create_and_claim(world: World) -> Claim:
    return claim_afterwards.create(world.quota, world.cloud, "vm", size=4, **ACME)


def _appeared(world: World) -> None:
    world.kept["vm"] = world.cloud.create("vm", size=4, **ACME)


def _appeared_and_went(world: World) -> None:
    _appeared(world)
    world.cloud.delete(world.kept["vm"].id)


def _settle(world: World) -> Claim:
    return claim_afterwards.settle(world.quota, world.cloud, world.kept["vm"])


# --- resize ---------------------------------------------------------------------------------------


def _job(world: World, new: int) -> tuple[Any, Any, Any, Resize]:
    job = Resize("r1", "vm", world.kept["claim"].id, "acme", 4, new)
    return world.quota, world.engine, world.cloud, job


def _resized(world: World, new: int) -> None:
    resize.begin(*_job(world, new))
    resize.confirm(*_job(world, new))


def _changed_their_mind(world: World) -> None:
    resize.begin(*_job(world, 8))
    resize.revert(*_job(world, 8))


def _confirmed_too_late(world: World) -> None:
    resize.confirm(*_job(world, 8))


def _nobody_confirmed(world: World) -> None:
    _has_vm(world)
    resize.begin(*_job(world, 8))
    world.sandbox.clock.advance(LONG)
    world.crowd(VCPU)


# --- two services ---------------------------------------------------------------------------------


def _create_database(world: World) -> Claim:
    compute = shared.Compute(world.quota, world.cloud)
    return shared.create_database(world.quota, compute, world.databases, "db", size=4, **ACME)


def _no_database_left(world: World) -> None:
    world.quota.update_limits(DATABASES, max=0, **ACME)


SCENARIOS: Final = {
    "create": Scenario(_create, (4,), crowded=((),)),
    "create, where there is no room": Scenario(_create, (), _no_room),
    "create, and it is refused there": Scenario(_create, (), _refuses),
    "create, slower than the reservation lives": Scenario(
        _create, (4,), _is_slow, crowded=((),), paid_first=False
    ),
    "delete": Scenario(_delete, (), _has_vm, leaves="unfounded"),
    "create and claim": Scenario(_create_and_claim, (4,), crowded=((),), paid_first=False),
    "create and claim, where there is no room": Scenario(_create_and_claim, (), _no_room, paid_first=False),
    "claim what appeared": Scenario(_settle, (4,), _appeared, crowded=((),), paid_first=False),
    "claim what is gone": Scenario(_settle, (), _appeared_and_went, leaves="unfounded"),
    "grow": Scenario(
        lambda world: _resized(world, 8), (8,), _has_vm, ((4,),), ((4,),), needs_transactions=True
    ),
    "shrink": Scenario(
        lambda world: _resized(world, 2), (2,), _has_vm, leaves="unfounded", needs_transactions=True
    ),
    "grow and revert": Scenario(_changed_their_mind, (4,), _has_vm, needs_transactions=True),
    "confirm too late": Scenario(
        _confirmed_too_late, (4,), _nobody_confirmed, paid_first=False, needs_transactions=True
    ),
    "two services": Scenario(_create_database, (1, 4), crowded=((),)),
    "two services, no room for the server": Scenario(_create_database, (), _no_room),
    "two services, no room for the database": Scenario(_create_database, (), _no_database_left),
}
