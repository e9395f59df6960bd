"""The example service for tests: opened here, or run as it is run in earnest, with processes of its own."""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import sqlalchemy as sa
from examples.database_service import worker
from examples.database_service.models import WORK, Cluster, Instance, Volume
from examples.database_service.service import Service

from engines.service import eventually

ROOT = Path(__file__).parents[2]

#: Workers are forked from a process that has imported everything: those that are killed are back at once.
_WORKERS = multiprocessing.get_context("forkserver")
_WORKERS.set_forkserver_preload(["examples.database_service.worker"])

#: Of a user and a resource, how much.
Amounts = dict[tuple[str, str], int]


def wanted(
    instances: int = 1, memory_gb: int = 1, storage_gb: int = 100, name: str = "one"
) -> dict[str, Any]:
    return {"name": name, "instances": instances, "memory_gb": memory_gb, "storage_gb": storage_gb}


@dataclass(frozen=True)
class Picture:
    """What the service's rows say, what Delimiter says and what really exists, by user and resource."""

    rows: Amounts
    usage: Amounts
    reserved: Amounts
    real: Amounts
    ids: set[str]  # of clusters, instances and volumes, as rows
    claims: set[str]
    things: set[str]


def picture(service: Service, users: list[str]) -> Picture:
    rows: Counter[tuple[str, str]] = Counter()
    real: Counter[tuple[str, str]] = Counter()
    owners: dict[str, str] = {}
    ids: set[str] = set()
    with service.reading() as session:
        for cluster in session.scalars(sa.select(Cluster)):
            ids.add(cluster.id)
            rows[cluster.user_id, "database.clusters"] += 1
            for instance in cluster.instances:
                if instance.state == "failed":
                    continue
                ids.add(instance.id)
                owners[instance.id] = cluster.user_id
                rows[cluster.user_id, "database.instances"] += 1
                rows[cluster.user_id, "memory.gb"] += instance.memory_gb
                for volume in instance.volumes:
                    ids.add(volume.id)
                    owners[volume.id] = cluster.user_id
                    rows[cluster.user_id, "storage.gb"] += volume.held_gb
    things = service.hypervisor.things()
    for thing in things:
        resource = "memory.gb" if thing.kind == "vm" else "storage.gb"
        real[owners.get(thing.name, "nobody"), resource] += thing.gb
    shown = {user: service.quota.usage(user=user) for user in users}
    return Picture(
        rows=dict(rows),
        usage={(user, name): one.used for user in users for name, one in shown[user].items() if one.used},
        reserved={
            (user, name): one.reserved for user in users for name, one in shown[user].items() if one.reserved
        },
        real=dict(real),
        ids=ids,
        claims={claim.id for claim in service.quota.claims()},
        things={thing.name for thing in things},
    )


def assert_settled(service: Service, users: list[str]) -> Picture:
    """No work is left, and the three agree to the last gigabyte."""
    assert work_left(service) == 0
    seen = picture(service, users)
    assert seen.usage == seen.rows
    assert seen.reserved == {}
    on_hypervisor = {key: used for key, used in seen.usage.items() if key[1] in ("memory.gb", "storage.gb")}
    assert seen.real == on_hypervisor
    assert seen.claims == seen.ids
    assert seen.things == seen.ids - _clusters(service)
    assert list(service.quota.reconcile()) == []
    return seen


def _clusters(service: Service) -> set[str]:
    with service.reading() as session:
        return set(session.scalars(sa.select(Cluster.id)))


def work_left(service: Service) -> int:
    with service.reading() as session:
        busy = sa.select(sa.func.count()).select_from(Instance).where(Instance.state.in_(WORK))
        return session.scalar(busy) or 0


def lease_is_over(service: Service) -> None:
    """As if the time of a dead worker's lease had passed."""
    with service.sessions.begin() as session:
        session.execute(sa.update(Instance).values(lease_until=0.0))


def volume_of(service: Service, instance_id: str) -> str:
    with service.reading() as session:
        return session.scalars(sa.select(Volume.id).where(Volume.instance_id == instance_id)).one()


def _work(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    worker.main()


class Processes:
    """The API under uvicorn, and workers, each a process."""

    def __init__(self, service: Service, *, workers: int) -> None:
        self._service = service
        self._environment = service.settings.as_environment()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.api = self._started_api()
        self.workers = [self._new_worker() for _ in range(workers)]

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.terminate()
        for process in self.workers:
            process.terminate()
        self.api.wait(timeout=30)
        for process in self.workers:
            process.join(timeout=30)
            process.close()
        self._listener.close()

    def answering(self) -> None:
        """Wait until the API answers."""
        eventually(self._answers, what="an answer of the API", within=60)

    def keep_killing(self, stop: Event, seed: int) -> int:
        """kill -9 of a worker that has something in its hands, each followed by a new one; how many."""
        killed, dice = 0, random.Random(seed)
        while not stop.wait(dice.uniform(0.05, 0.5)):
            busy = self._busy()
            for victim in [process for process in self.workers if str(process.pid) in busy][:1]:
                victim.kill()
                victim.join()
                self.workers.remove(victim)
                victim.close()
                self.workers.append(self._new_worker())
                killed += 1
        return killed

    def _busy(self) -> set[str]:
        with self._service.reading() as session:
            held = sa.select(Instance.worker).where(Instance.lease_until > time.time())
            return {name.partition("-")[0] for name in session.scalars(held) if name is not None}

    def _answers(self) -> bool:
        assert self.api.poll() is None, "the API has ended"
        try:
            return httpx.get(f"{self.url}/limits", headers={"X-User": "somebody"}, timeout=30).is_success
        except httpx.TransportError:
            return False

    def _started_api(self) -> subprocess.Popen[bytes]:
        listener = self._listener.fileno()
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "--factory", "examples.database_service.api:app_from_environment"),
                *("--fd", str(listener), "--log-level", "warning", "--timeout-keep-alive", "120"),
            ],
            cwd=ROOT,
            env={**os.environ, **self._environment},
            pass_fds=[listener],
        )  # fmt: skip

    def _new_worker(self) -> Any:
        process = _WORKERS.Process(target=_work, args=(self._environment,), daemon=True)
        process.start()
        return process
