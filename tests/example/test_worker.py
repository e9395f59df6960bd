"""The example's worker dies at each step; the next worker, the expiry or the sweeper puts it right. Nothing leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from examples.database_service.clusters import Clusters, Refused
from examples.database_service.models import Instance
from examples.database_service.service import Service
from examples.database_service.sweeper import sweep
from examples.database_service.views import NewCluster
from examples.database_service.worker import Worker

from delimiter import OverLimit
from example.running import assert_settled, lease_is_over, picture, volume_of

pytestmark = pytest.mark.stores("sqlite")

ONE = NewCluster(name="one", instances=1, memory_gb=1, storage_gb=10)


class Died(BaseException):
    """Nobody catches it, as nobody catches kill -9."""


class Deaths:
    """Counts the places where a worker can die, and lets it die at one of them.

    They are found, not listed: before and after each call of the hypervisor, and before and after each COMMIT. So a
    step that is added to the worker is among them.
    """

    def __init__(self, service: Service, fatal: int | None) -> None:
        self._service = service
        self._fatal = fatal
        self.places = 0

    def place(self) -> None:
        self.places += 1
        if self.places == self._fatal:
            raise Died

    @contextmanager
    def installed(self) -> Iterator[None]:
        hypervisor = self._service.hypervisor
        hypervisor.ensure = self._around(hypervisor.ensure)  # type: ignore[method-assign]
        hypervisor.destroy = self._around(hypervisor.destroy)  # type: ignore[method-assign]
        sa.event.listen(self._service.sessions.class_, "before_commit", self._before_commit)
        sa.event.listen(self._service.sessions.class_, "after_commit", self._after_commit)
        try:
            yield
        finally:
            del hypervisor.ensure, hypervisor.destroy
            sa.event.remove(self._service.sessions.class_, "before_commit", self._before_commit)
            sa.event.remove(self._service.sessions.class_, "after_commit", self._after_commit)

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            self.place()
            answer = call(*arguments)
            self.place()
            return answer

        return called

    def _before_commit(self, _session: Any) -> None:
        self.place()

    def _after_commit(self, _session: Any) -> None:
        self.place()


def all_work(service: Service) -> None:
    worker = Worker(service)
    while worker.work_once():
        pass


def built(service: Service) -> str:
    """The volume of a ready cluster of one instance."""
    cluster = Clusters(service).create("john", "a", ONE)[0]
    all_work(service)
    return volume_of(service, cluster.instances[0].id)


# What the worker has to do, and what there is of john's afterwards: instances, memory and storage.


def to_build(service: Service) -> dict[str, int]:
    Clusters(service).create("john", "a", ONE)
    return {"database.clusters": 1, "database.instances": 1, "memory.gb": 1, "storage.gb": 10}


def to_build_what_fails(service: Service) -> dict[str, int]:
    Clusters(service).create("john", "a", ONE.model_copy(update={"memory_gb": 9}))
    return {"database.clusters": 1}


def to_grow(service: Service) -> dict[str, int]:
    Clusters(service).resize_volume("john", built(service), 25)
    return {"database.clusters": 1, "database.instances": 1, "memory.gb": 1, "storage.gb": 25}


def to_shrink(service: Service) -> dict[str, int]:
    Clusters(service).resize_volume("john", built(service), 4)
    return {"database.clusters": 1, "database.instances": 1, "memory.gb": 1, "storage.gb": 4}


def to_delete_a_volume(service: Service) -> dict[str, int]:
    Clusters(service).delete_volume("john", built(service))
    return {"database.clusters": 1, "database.instances": 1, "memory.gb": 1}


def to_delete_it_all(service: Service) -> dict[str, int]:
    built(service)
    with service.reading() as session:
        cluster_id = session.scalars(sa.select(Instance.cluster_id)).one()
    Clusters(service).delete_cluster("john", cluster_id)
    return {}


#: Each with the number of places in it where a worker can die.
WORK = {
    to_build: 8,
    to_build_what_fails: 13,
    to_grow: 8,
    to_shrink: 8,
    to_delete_a_volume: 8,
    to_delete_it_all: 8,
}


def of_john(service: Service) -> dict[str, int]:
    return {resource: used for (_, resource), used in picture(service, ["john"]).usage.items()}


@pytest.mark.parametrize("work, places", WORK.items(), ids=lambda given: getattr(given, "__name__", ""))
def test_every_place_is_known(service, work, places):
    expected = work(service)
    deaths = Deaths(service, fatal=None)
    with deaths.installed():
        all_work(service)
    in_vain = 2  # around the COMMIT of the last look, which finds no work
    assert deaths.places - in_vain == places, (
        "the worker has other steps than before; see that each is tried below"
    )
    assert of_john(service) == expected
    assert_settled(service, ["john"])


@pytest.mark.parametrize(
    "work, place",
    [
        pytest.param(work, place, marks=() if work is to_build else pytest.mark.slow)
        for work, places in WORK.items()
        for place in range(1, places + 1)
    ],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_the_next_worker_puts_it_right(service, work, place):
    """The names of things and the ids of claims make it harmless to do a step again; without them it leaks.

    And a worker releases only after it has destroyed: the other way round, more exists than is held.
    """
    expected = work(service)
    limits = service.quota.limits(user="john")
    with Deaths(service, fatal=place).installed(), pytest.raises(Died):
        all_work(service)
    seen = picture(service, ["john"])
    for resource, limit in limits.items():
        assert seen.real.get(("john", resource), 0) <= seen.usage.get(("john", resource), 0) <= limit
    lease_is_over(service)
    all_work(service)
    assert of_john(service) == expected
    assert_settled(service, ["john"])
    assert not sweep(service)


@pytest.mark.parametrize("place", range(1, WORK[to_build] - 1))
def test_when_nobody_comes_the_quota_comes_back_and_late_comers_clean_up(service, place):
    """Without a worker for longer than a reservation lives; then there is one again, and takes it all down.

    The worker's `renew` is the guard: without it the late worker would build what nobody holds quota for.
    """
    to_build(service)
    with Deaths(service, fatal=place).installed(), pytest.raises(Died):
        all_work(service)
    service.quota._engine.clock_offset += int(service.settings.expires_in + 1) * 1_000_000
    assert of_john(service) == {"database.clusters": 1, "database.instances": 1}
    lease_is_over(service)
    all_work(service)
    assert of_john(service) == {"database.clusters": 1}
    with service.reading() as session:
        instance = session.scalars(sa.select(Instance)).one()
    assert (instance.state, instance.reason) == ("failed", "nobody came to build it in time")
    assert_settled(service, ["john"])
    Clusters(service).delete_cluster("john", instance.cluster_id)
    all_work(service)
    assert of_john(service) == {}
    assert_settled(service, ["john"])


def test_a_reservation_that_runs_out_while_it_is_built_is_given_up(service):
    to_build(service)
    ensure = service.hypervisor.ensure

    def slowly(name: str, kind: str, gb: int) -> Any:
        service.quota._engine.clock_offset += int(service.settings.expires_in + 1) * 1_000_000
        return ensure(name, kind, gb)

    service.hypervisor.ensure = slowly
    all_work(service)
    assert of_john(service) == {"database.clusters": 1}
    assert_settled(service, ["john"])


def test_two_workers_never_have_the_same_instance(service):
    to_build(service)
    first, second = Worker(service), Worker(service)
    assert first._take() is not None
    assert second._take() is None


def test_a_worker_that_sleeps_past_its_lease_records_nothing(service):
    """`_still_mine` is the guard; without it the sleeper provisions what another worker takes care of."""
    to_build(service)
    sleeper = Worker(service)
    job = sleeper._take()
    lease_is_over(service)
    other = Worker(service)._take()
    sleeper._record_ready(job, {job.instance_id: "vm-1", **dict.fromkeys(job.volumes, "volume-1")})
    assert picture(service, ["john"]).reserved == {("john", "memory.gb"): 1, ("john", "storage.gb"): 10}
    assert other.revision == job.revision
    lease_is_over(service)
    all_work(service)
    assert_settled(service, ["john"])


def test_the_sweeper_finds_what_no_worker_looks_for(service):
    volume = built(service)
    assert not sweep(service)
    service.hypervisor.ensure("left-over", "volume", 500)  # made by a worker that slept while it was deleted
    service.hypervisor.ensure(volume, "volume", 11)
    swept = sweep(service)
    assert (swept.destroyed, swept.lost, len(swept.resized)) == (["left-over"], [], 1)
    all_work(service)
    assert of_john(service)["storage.gb"] == 10
    assert not sweep(service)
    assert_settled(service, ["john"])

    service.hypervisor.destroy(volume)  # by hand
    swept = sweep(service)
    assert (swept.destroyed, len(swept.lost), swept.resized) == ([], 1, [])
    all_work(service)
    assert of_john(service) == {"database.clusters": 1}
    assert not sweep(service)
    assert_settled(service, ["john"])


def test_the_sweeper_leaves_alone_what_is_just_being_made(service):
    """The order of its readings is the guard: rows only after the listing, and it would take down what has come since;
    only before it, and it would destroy what is new."""
    things = service.hypervisor.things

    def create(key: str) -> None:
        Clusters(service).create("john", key, ONE)
        all_work(service)

    def listing_between_two_creations() -> Any:
        create("before")
        listing = things()
        create("after")
        return listing

    service.hypervisor.things = listing_between_two_creations
    assert not sweep(service)
    del service.hypervisor.things
    assert_settled(service, ["john"])


def test_the_sweeper_leaves_alone_what_is_asked_for_otherwise_meanwhile(service):
    """The revision is the guard; without it a volume whose deletion was recorded after the listing is a lost one."""
    volume = built(service)
    things = service.hypervisor.things

    def listing_after_a_deletion() -> Any:
        Clusters(service).delete_volume("john", volume)
        all_work(service)
        return things()

    service.hypervisor.things = listing_after_a_deletion
    assert not sweep(service)
    del service.hypervisor.things
    assert_settled(service, ["john"])


def test_a_refused_request_leaves_its_transaction_clean(service):
    clusters = Clusters(service)
    for wanted in (ONE.model_copy(update={"instances": 26}), ONE.model_copy(update={"storage_gb": 20_001})):
        with pytest.raises(OverLimit):
            clusters.create("john", "a", wanted)
    with pytest.raises(Refused):
        clusters.delete_cluster("john", "a")
    assert of_john(service) == {}
    assert_settled(service, ["john"])
