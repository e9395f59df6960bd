"""Three servers of ZooKeeper: the leader or a follower is killed, cut off, paused; answers to multis get lost."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from network import Network
from proxy import ZOOKEEPER_MULTI, CuttingProxy
from server_process import ServerNotAvailable
from soak.clusters import Cluster, Fault
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
        self._dice = random.Random(seed)
        self._path = f"soak-{os.getpid()}"
        self.url = ensemble.url(self._path)
        self.service_url = self.url
        self.engine: dict[str, Any] = {}
        self._proxies: list[CuttingProxy] = []
        self._victim: ThrowAwayZooKeeper = ensemble.servers[0]

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        found = []
        for number in range(count):
            url = self.url
            if number % 2:
                proxies = [
                    CuttingProxy(one.address, one.port, commits=ZOOKEEPER_MULTI)
                    for one in self._ensemble.servers
                ]
                self._proxies += proxies
                url = f"zookeeper://{','.join(f'127.0.0.1:{proxy.port}' for proxy in proxies)}/{self._path}"
            found.append((url, url))
        return found

    def faults(self) -> list[Fault]:
        found = [
            Fault("answers to multis are lost", self._arm, self._disarm),
            Fault("multis are lost", self._arm_before, self._disarm),
            Fault("the leader is killed", self._kill_leader, self._start, 1.0, 3.0, takes_a_node=True),
            Fault("a server is killed", self._kill, self._start, 1.0, 3.0),
            Fault("a server stands still", self._pause, self._go_on, 0.5, 4.0),
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
        for proxy in self._proxies:
            proxy.close()

    # -- what can be done to it -------------------------------------------------------------------------------------

    def _pick(self) -> ThrowAwayZooKeeper:
        self._victim = self._dice.choice(self._ensemble.servers)
        return self._victim

    def _pick_leader(self) -> ThrowAwayZooKeeper:
        self._victim = self._ensemble.leader
        return self._victim

    def _named(self, what: str) -> str:
        return f"{what} server {self._victim.number}"

    def _arm(self) -> str:
        for proxy in self._proxies:
            proxy.arm()
        return "the next answer to a multi is lost, and the connection with it"

    def _arm_before(self) -> str:
        for proxy in self._proxies:
            proxy.arm(lost=True)
        return "the next multi is lost, and the connection with it"

    def _disarm(self) -> None:
        for proxy in self._proxies:
            proxy.disarm()

    def _kill_leader(self) -> str:
        self._pick_leader().kill()
        return self._named("kill -9 of the leader,")

    def _kill(self) -> str:
        self._pick().kill()
        return self._named("kill -9 of")

    def _start(self) -> None:
        self._victim.start()
        self._ensemble.wait_until_ready()

    def _pause(self) -> str:
        pid = self._pick().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        return self._named("SIGSTOP of")

    def _go_on(self) -> None:
        if self._victim.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._victim.pid, signal.SIGCONT)
        self._ensemble.wait_until_ready()

    def _cut_leader(self) -> str:
        victim = self._pick_leader()
        assert self._network is not None
        assert victim.host is not None
        self._network.cut(victim.host)
        return self._named("clients still reach the leader,")

    def _isolate(self) -> str:
        victim = self._pick()
        assert self._network is not None
        assert victim.host is not None
        self._network.isolate(victim.host)
        return self._named("nobody reaches")

    def _heal(self) -> None:
        assert self._network is not None
        assert self._victim.host is not None
        self._network.heal(self._victim.host)
        self._ensemble.wait_until_ready()


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
