"""A worker: takes an instance that is somebody's wish, makes it so on the hypervisor, and then records it.

Three steps: **take** (a transaction), **make** (slow, with no transaction open), **record** (a transaction). It may die
in or between any of them. What it leaves is an instance whose lease runs out; the next worker does the same three steps
again. So every step must be harmless when it has been done before: things have names, and claims have ids.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid
from dataclasses import dataclass
from threading import Event

from sqlalchemy import select
from sqlalchemy.orm import Session

from delimiter import ClaimExpired
from delimiter.handlers import transactional

from .hypervisor import BuildFailed
from .models import WORK, Cluster, Instance
from .service import Service
from .settings import Settings
from .sweeper import sweep

_LOG = logging.getLogger("database_service.worker")


class LeaseOver(Exception):
    """Somebody else may be at it by now."""


@dataclass(frozen=True)
class Job:
    """An instance as it was when it was taken."""

    instance_id: str
    cluster_id: str
    state: str
    revision: int
    memory_gb: int
    volumes: dict[str, int]  # the wanted size of each
    lease_until: float
    run_out: bool  # nobody came in time, and its quota is no longer held


class Worker:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._sessions = service.sessions
        self._quota = service.quota
        self._hypervisor = service.hypervisor
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def run(self, stop: Event) -> None:
        next_sweep = time.monotonic() + self._service.settings.sweep_seconds
        while not stop.is_set():
            if time.monotonic() >= next_sweep:
                sweep(self._service)
                next_sweep = time.monotonic() + self._service.settings.sweep_seconds
            if not self.work_once():
                stop.wait(self._service.settings.poll_seconds)

    def work_once(self) -> bool:
        """One job, from its beginning to its end; false if there is none."""
        job = self._take()
        if job is None:
            return False
        _LOG.info("%s: instance %s", job.state, job.instance_id)
        try:
            if WORK[job.state] != "ready":
                self._unmake(job)
                self._record_gone(job)
            elif job.run_out:
                self._give_up(job, "nobody came to build it in time")
            else:
                self._record_ready(job, self._make(job))
        except (BuildFailed, ClaimExpired) as failure:
            self._give_up(job, str(failure))
        except LeaseOver:
            _LOG.warning("instance %s: too slow, and left to the next worker", job.instance_id)
        return True

    # -- take -----------------------------------------------------------------------------------------------------

    @transactional(lambda self: self._sessions, timeout=60)
    def _take(self, session: Session) -> Job | None:
        """Nobody else works on it until the lease is over, and its quota is held for as long as a build may take."""
        now, settings = time.time(), self._service.settings
        free = select(Instance).where(Instance.state.in_(WORK), Instance.lease_until < now)
        first = free.order_by(Instance.lease_until, Instance.created_at).limit(1)
        instance = session.scalars(first.with_for_update(skip_locked=True)).one_or_none()
        if instance is None:
            return None
        instance.worker, instance.lease_until = self._name, now + settings.lease_seconds
        run_out = False
        if instance.state == "building":
            try:
                for id in (instance.id, *(volume.id for volume in instance.volumes)):
                    self._quota.renew(id, expires_in=settings.expires_in, connection=session)
            except ClaimExpired:
                run_out = True
        return Job(
            instance.id,
            instance.cluster_id,
            instance.state,
            instance.revision,
            instance.memory_gb,
            {volume.id: volume.wanted_gb for volume in instance.volumes},
            instance.lease_until,
            run_out,
        )

    # -- make -----------------------------------------------------------------------------------------------------

    def _make(self, job: Job) -> dict[str, str]:
        """The hypervisor's id of each thing. Some may be there already: from a worker that died, or to be resized."""
        external_ids = {job.instance_id: self._ensure(job, job.instance_id, "vm", job.memory_gb)}
        for volume_id, gb in job.volumes.items():
            if gb == 0:
                self._hypervisor.destroy(volume_id)
            else:
                external_ids[volume_id] = self._ensure(job, volume_id, "volume", gb)
        return external_ids

    def _ensure(self, job: Job, name: str, kind: str, gb: int) -> str:
        if time.time() > job.lease_until:
            raise LeaseOver(job.instance_id)
        return self._hypervisor.ensure(name, kind, gb)

    def _unmake(self, job: Job) -> None:
        for name in (*job.volumes, job.instance_id):
            self._hypervisor.destroy(name)

    # -- record ---------------------------------------------------------------------------------------------------

    @transactional(lambda self: self._sessions, timeout=60)
    def _record_ready(self, session: Session, job: Job, external_ids: dict[str, str]) -> None:
        """It exists, with the hypervisor's ids: from now on it counts until it is released."""
        instance = self._still_mine(session, job)
        if instance is None:
            return
        instance.external_id = external_ids[instance.id]
        self._quota.provision(instance.id, external_id=instance.external_id, connection=session)
        for volume in list(instance.volumes):
            if volume.wanted_gb == 0:
                self._quota.release(volume.id, connection=session)
                instance.volumes.remove(volume)
                continue
            volume.external_id = external_ids[volume.id]
            self._quota.provision(volume.id, external_id=volume.external_id, connection=session)
            if (
                volume.held_gb > volume.wanted_gb
            ):  # it has shrunk; if it grew, that was claimed when it was asked for
                self._quota.resize(volume.id, {"storage.gb": volume.wanted_gb}, connection=session)
                volume.held_gb = volume.wanted_gb
        instance.state = "ready"

    @transactional(lambda self: self._sessions, timeout=60)
    def _record_gone(self, session: Session, job: Job) -> None:
        """Nothing of it exists any more: now, and not before, its quota goes back."""
        instance = self._still_mine(session, job)
        if instance is None:
            return
        cluster = instance.cluster
        others = [other for other in cluster.instances if other is not instance]
        self._quota.release(instance.id, connection=session)  # with its volumes, which hang on it
        if instance.state == "failing":
            instance.volumes.clear()
            instance.state = "failed"
            return
        session.delete(instance)  # the row is the count: nothing else is to be told of it
        if cluster.state == "deleting" and not others:
            self._quota.release(cluster.id, connection=session)
            session.delete(cluster)

    @transactional(lambda self: self._sessions, timeout=60)
    def _give_up(self, session: Session, job: Job, reason: str) -> None:
        """Next, what there is of it is taken down, as for one that is deleted."""
        _LOG.warning("instance %s: %s", job.instance_id, reason)
        instance = self._still_mine(session, job)
        if instance is not None:
            instance.reason = reason
            instance.ask("failing")

    def _still_mine(self, session: Session, job: Job) -> Instance | None:
        """Ends the lease. ``None`` if it was over, or if more was asked for meanwhile: then it is work again."""
        session.execute(select(Cluster.id).where(Cluster.id == job.cluster_id).with_for_update())
        instance = session.get(Instance, job.instance_id, with_for_update=True)
        if instance is None or instance.worker != self._name:
            return None
        instance.worker, instance.lease_until = None, 0.0
        return instance if instance.revision == job.revision else None


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    service = Service.open(Settings.from_environment())
    try:
        Worker(service).run(stop)
    finally:
        service.close()


if __name__ == "__main__":
    main()
