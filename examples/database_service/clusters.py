"""What users ask for: each request is one short transaction, with the service's rows and the claims on quota in it.

Nothing is built here. What a request leaves behind is a row in a state that a worker works on, and quota that is held.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from delimiter import Request
from delimiter.handlers import transactional

from .models import Cluster, Instance, Volume
from .service import Service
from .views import ClusterView, NewCluster

_NAMESPACE = uuid.UUID("6e0a7d5c-6d8b-4d3f-8b1e-0d5c4ac2a7f1")


class Refused(Exception):
    """A request that has nothing to do with quota, and cannot be met."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status


class Clusters:
    def __init__(self, service: Service) -> None:
        self._sessions = service.sessions
        self._quota = service.quota
        self._expires_in = service.settings.expires_in

    # `transactional` opens the transaction, commits it, and runs it again in a new one when it met another
    # (`Conflict`). So whatever is raised in here leaves nothing behind: neither rows nor claims.
    @transactional(lambda self: self._sessions, timeout=60)
    def create(self, session: Session, user: str, key: str, wanted: NewCluster) -> tuple[ClusterView, bool]:
        """The cluster, and whether it is new. The same key again: the cluster that is there."""
        id = str(uuid.uuid5(_NAMESPACE, f"{user}/{key}"))
        cluster = Cluster(id=id, user_id=user, name=wanted.name, request=wanted.model_dump_json())
        if not _inserted(session, cluster):
            return _as_it_is(session, id, wanted), False
        # Room for all the instances or for none. This counts the user's rows, on a locked guard, before and after.
        with self._quota.guard({"database.instances": wanted.instances}, user=user, connection=session):
            cluster.instances = [_new_instance(cluster, number, wanted) for number in range(wanted.instances)]
        # Everything that is tracked, in one step and one order of locks. The ids are those of the rows.
        self._quota.claim_all(self._requests(cluster), connection=session)
        return ClusterView.model_validate(cluster), True

    def _requests(self, cluster: Cluster) -> Iterator[Request]:
        """A cluster is its row, and claimed. The rest is only reserved: if no worker ever comes, it runs out."""
        user, expires_in = cluster.user_id, self._expires_in
        yield Request({"database.clusters": 1}, user=user, id=cluster.id)
        for instance in cluster.instances:
            memory = {"memory.gb": instance.memory_gb}
            yield Request(memory, user=user, id=instance.id, parent=cluster.id, expires_in=expires_in)
            for volume in instance.volumes:
                size = {"storage.gb": volume.held_gb}
                yield Request(size, user=user, id=volume.id, parent=instance.id, expires_in=expires_in)

    @transactional(lambda self: self._sessions, timeout=60)
    def resize_volume(self, session: Session, user: str, volume_id: str, gb: int) -> ClusterView:
        instance, volume = _instance_of_volume(session, user, volume_id)
        if instance.state not in ("building", "changing", "ready") or volume.wanted_gb == 0:
            raise Refused(409, f"The volume is {instance.state if volume.wanted_gb else 'deleting'}.")
        # It grows on record before it grows in reality, so the quota is asked now. It shrinks when it has shrunk.
        if gb > volume.held_gb:
            self._quota.resize(volume.id, {"storage.gb": gb}, connection=session)
            volume.held_gb = gb
        volume.wanted_gb = gb
        instance.ask("building" if instance.state == "building" else "changing")
        return ClusterView.model_validate(instance.cluster)

    # Nothing is released in the next three: what exists counts. The worker releases it when it is gone.

    @transactional(lambda self: self._sessions, timeout=60)
    def delete_volume(self, session: Session, user: str, volume_id: str) -> None:
        instance, volume = _instance_of_volume(session, user, volume_id)
        volume.wanted_gb = 0
        if instance.state in ("building", "changing", "ready"):
            instance.ask("building" if instance.state == "building" else "changing")

    @transactional(lambda self: self._sessions, timeout=60)
    def delete_instance(self, session: Session, user: str, instance_id: str) -> None:
        found = session.execute(select(Instance.cluster_id).where(Instance.id == instance_id)).scalar()
        cluster = _locked(session, user, found)
        for instance in cluster.instances:
            if instance.id == instance_id:
                instance.ask("deleting")

    @transactional(lambda self: self._sessions, timeout=60)
    def delete_cluster(self, session: Session, user: str, cluster_id: str) -> None:
        cluster = _locked(session, user, cluster_id)
        cluster.state = "deleting"
        for instance in cluster.instances:
            instance.ask("deleting")
        if not cluster.instances:
            self._quota.release(cluster.id, connection=session)
            session.delete(cluster)


def _inserted(session: Session, cluster: Cluster) -> bool:
    """The unique key decides which of two equal requests is the first; the other waits for it here."""
    try:
        with session.begin_nested():
            session.add(cluster)
    except IntegrityError:
        return False
    return True


def _as_it_is(session: Session, id: str, wanted: NewCluster) -> ClusterView:
    cluster = session.get(Cluster, id)
    if cluster is None:
        raise Refused(409, "The cluster of this key is just being removed.")
    if cluster.request != wanted.model_dump_json():
        raise Refused(422, "The key has been used for another request.")
    return ClusterView.model_validate(cluster)


def _new_instance(cluster: Cluster, number: int, wanted: NewCluster) -> Instance:
    """Ids follow from the cluster's: a request that is made again is made with the same ones."""
    id = uuid.uuid5(uuid.UUID(cluster.id), str(number))
    volume = Volume(id=str(uuid.uuid5(id, "volume")), held_gb=wanted.storage_gb, wanted_gb=wanted.storage_gb)
    return Instance(
        id=str(id), user_id=cluster.user_id, number=number, memory_gb=wanted.memory_gb, volumes=[volume]
    )


def _locked(session: Session, user: str, cluster_id: str | None) -> Cluster:
    """Whoever changes anything of a cluster locks its row first: one order for all, and nobody waits in a circle."""
    statement = select(Cluster).where(Cluster.id == cluster_id, Cluster.user_id == user).with_for_update()
    cluster = session.scalars(statement).one_or_none()
    return cluster if cluster is not None else _not_there()


def _instance_of_volume(session: Session, user: str, volume_id: str) -> tuple[Instance, Volume]:
    path = select(Instance.cluster_id).join(Volume).where(Volume.id == volume_id)
    cluster = _locked(session, user, session.execute(path).scalar())
    for instance in cluster.instances:
        for volume in instance.volumes:
            if volume.id == volume_id:
                return instance, volume
    return _not_there()


def _not_there(*_: Any) -> NoReturn:
    raise Refused(404, "There is no such thing of yours.")
