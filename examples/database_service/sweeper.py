"""The nightly check: does what really exists agree with what is on record? It mends what does not.

Everything that a dead worker leaves is put right by the next one. This finds what no worker looks for: a worker that
slept past its lease and made a thing after it was deleted, or an operator who removed a machine by hand.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from delimiter.handlers import transactional

from .models import Cluster, Instance
from .service import Service

_LOG = logging.getLogger("database_service.sweeper")


@dataclass(frozen=True)
class Swept:
    """What was found; nothing, on most nights."""

    destroyed: list[str]  # things that belong to nobody
    lost: list[str]  # ready instances of which something does not exist any more
    resized: list[str]  # ready instances of which something has another size than on record
    drifted: int  # counters that were not the sum of their claims

    def __bool__(self) -> bool:
        return bool(self.destroyed or self.lost or self.resized or self.drifted)


def sweep(service: Service) -> Swept:
    # The order of the three readings keeps what is just being made or removed out of it. What was ready before the
    # listing must be in it; what is in the listing must have a row after it, since a row outlives its things.
    ready = _ready(service)
    there = {thing.name: thing.gb for thing in service.hypervisor.things()}
    known = {name for parts in _parts(service) for name in parts}

    destroyed = [name for name in there if name not in known]
    for name in destroyed:
        service.hypervisor.destroy(name)
    lost, resized = [], []
    mending = Mending(service)
    for instance, parts in ready:
        if not parts.keys() <= there.keys():
            if mending.ask(instance, "failing", "a part of it is gone"):
                lost.append(instance.id)
        elif any(there[name] != gb for name, gb in parts.items()) and mending.ask(instance, "changing"):
            resized.append(instance.id)

    # Upkeep of the record itself. Numbers are right without it; it keeps the tables small, and finds meddling.
    service.quota.expire_reservations()
    service.quota.prune(older_than=timedelta(days=30))
    drifted = list(service.quota.reconcile(repair=True))
    swept = Swept(destroyed, lost, resized, len(drifted))
    if swept:
        _LOG.warning("%s", swept)
    return swept


def _ready(service: Service) -> list[tuple[Instance, dict[str, int]]]:
    with service.reading() as session:
        ready = session.scalars(select(Instance).where(Instance.state == "ready")).all()
        return [(instance, _parts_of(instance)) for instance in ready]


def _parts(service: Service) -> list[dict[str, int]]:
    with service.reading() as session:
        return [_parts_of(instance) for instance in session.scalars(select(Instance))]


def _parts_of(instance: Instance) -> dict[str, int]:
    return {instance.id: instance.memory_gb} | {volume.id: volume.wanted_gb for volume in instance.volumes}


class Mending:
    """Hands an instance to the workers, if nobody has asked anything of it since it was looked at."""

    def __init__(self, service: Service) -> None:
        self._sessions = service.sessions

    @transactional(lambda self: self._sessions)
    def ask(self, session: Session, seen: Instance, state: str, reason: str | None = None) -> bool:
        session.execute(select(Cluster.id).where(Cluster.id == seen.cluster_id).with_for_update())
        instance = session.get(Instance, seen.id, with_for_update=True)
        if instance is None or instance.revision != seen.revision:
            return False
        instance.reason = reason
        instance.ask(state)
        return True
