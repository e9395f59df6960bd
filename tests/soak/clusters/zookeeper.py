"""Three servers of ZooKeeper: the leader or a follower is killed, cut off, paused; answers to multis get lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from network import Network
from proxy import ZOOKEEPER_MULTI
from server_process import ServerNotAvailable
from soak.clusters import Cluster, Fault
from soak.clusters.victim import Victim
from soak.clusters.wires import Wires
from zookeeper_servers import ThrowAwayZooKeeper, ZooKeeperEnsemble


class ThreeServers:
    """An ensemble and a path in it; clients know all servers."""

    store = "zookeeper"
    transactions = False
    #: Time is reckoned from what the servers wrote last, in milliseconds.
    tolerance_us = 50_000.0

    def __init__(self, ensemble: ZooKeeperEnsemble, network: Network | None, seed: str) -> None:
        self._ensemble = ensemble
        self._network = network
        self._path = f"soak-{os.getpid()}"
        self.url = ensemble.url(self._path)
        self.service_url = self.url
        self.engine: dict[str, Any] = {}
        self._wires = Wires("multi", ZOOKEEPER_MULTI)
        self._victim = Victim(ensemble.servers, seed, named=_named, whole=ensemble.wait_until_ready)

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        found = []
        for number in range(count):
            url = self.url
            if number % 2:
                ports = [self._wires.to(one.address, one.port) for one in self._ensemble.servers]
                url = f"zookeeper://{','.join(f'127.0.0.1:{port}' for port in ports)}/{self._path}"
            found.append((url, url))
        return found

    def faults(self) -> list[Fault]:
        found = [
            *self._wires.faults(),
            Fault("the leader is killed", self._kill_leader, self._start, 1.0, 3.0, takes_a_node=True),
            Fault("a server is killed", self._victim.kill, self._start, 1.0, 3.0),
            Fault("a server stands still", self._victim.pause, self._victim.resume, 0.5, 4.0),
        ]
        if self._network is not None:
            found += [
                Fault(
                    "the leader is cut off from the others",
                    self._cut_leader,
                    self._heal,
                    3.0,
                    6.0,
                    takes_a_node=True,
                ),
                Fault("a server is isolated from everybody", self._isolate, self._heal, 3.0, 6.0),
            ]
        return found

    def left(self) -> list[str]:
        """Locks are ephemeral nodes: they go with the session of who took them."""
        found = [one.say("dump") for one in self._ensemble.servers if one.role == "leader"]
        return [line.strip() for text in found for line in text.splitlines() if f"/{self._path}/" in line]

    def logs(self) -> Iterator[Path]:
        for server in self._ensemble.servers:
            yield server.log

    def close(self) -> None:
        self._wires.close()

    # -- what can be done to it -------------------------------------------------------------------------------------

    def _leader(self) -> ThrowAwayZooKeeper:
        self._victim.server = self._ensemble.leader
        return self._victim.server

    def _kill_leader(self) -> str:
        self._leader().kill()
        return self._victim.told("kill -9 of the leader,")

    def _start(self) -> None:
        self._victim.server.start()
        self._ensemble.wait_until_ready()

    def _cut_leader(self) -> str:
        victim = self._leader()
        assert self._network is not None
        assert victim.host is not None
        self._network.cut(victim.host)
        return self._victim.told("clients still reach the leader,")

    def _isolate(self) -> str:
        victim = self._victim.draw()
        assert self._network is not None
        assert victim.host is not None
        self._network.isolate(victim.host)
        return self._victim.told("nobody reaches")

    def _heal(self) -> None:
        assert self._network is not None
        assert self._victim.server.host is not None
        self._network.heal(self._victim.server.host)
        self._ensemble.wait_until_ready()


def _named(server: ThrowAwayZooKeeper) -> str:
    return f"server {server.number}"


def watch_commits(armed: Path) -> None:
    """Faults of a client at the moment it sends a multi: see :mod:`soak.moments`."""
    from kazoo.client import TransactionRequest

    from soak.moments import around

    send = TransactionRequest.commit_async

    def commit_async(self: TransactionRequest) -> Any:
        return around(lambda: send(self), armed)

    TransactionRequest.commit_async = commit_async


@contextmanager
def start(folder: Path, servers: Any = None) -> Iterator[Cluster]:
    """Three servers of its own, on hosts that can be cut off where that is possible."""
    del servers
    try:
        network = Network(3)
    except ServerNotAvailable:
        network = None
    try:
        with ZooKeeperEnsemble(3, network) as ensemble:
            cluster = ThreeServers(ensemble, network, folder.name.rpartition("-")[0])
            try:
                yield cluster
            finally:
                cluster.close()
    finally:
        if network is not None:
            network.close()
