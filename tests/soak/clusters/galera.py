"""Three nodes of Galera: killed, cut off from each other, isolated, paused; answers to COMMIT get lost."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from galera import Galera, Node
from proxy import CuttingProxy
from soak.clusters import Cluster, Fault


class ThreeNodes:
    """The cluster of the tests and a database on it; clients know all nodes."""

    store = "galera"
    transactions = True
    tolerance_us = 5_000.0

    def __init__(self, galera: Galera, seed: str) -> None:
        self._galera = galera
        self._dice = random.Random(seed)
        self._database = galera.create_database()
        self.url = galera.together(self._database)
        self.service_url = self._on(galera.nodes[0])
        # The service reads what was committed before, whichever node it asks.
        init = {"init_command": "SET SESSION wsrep_sync_wait = 15", "connect_timeout": 5}
        self.engine: dict[str, Any] = {"isolation_level": "READ COMMITTED", "connect_args": init}
        self._proxies: list[CuttingProxy] = []
        self._victim = galera.nodes[0]

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        """Delimiter is told of all nodes; the service's own engine goes to one of them, another for each client."""
        found = []
        for number in range(count):
            nodes = self._galera.nodes[number % 3 :] + self._galera.nodes[: number % 3]
            places = [(node.address, node.port) for node in nodes]
            if number % 2:
                proxies = [CuttingProxy(*place) for place in places]
                self._proxies += proxies
                places = [("127.0.0.1", proxy.port) for proxy in proxies]
            all_ = ",".join(f"{host}:{port}" for host, port in places)
            found.append((f"mysql+pymysql://root@{all_}/{self._database.database}", self._on(nodes[0])))
        return found

    def _on(self, node: Node) -> str:
        return node.url.set(database=self._database.database).render_as_string(hide_password=False)

    def faults(self) -> list[Fault]:
        found = [
            Fault("answers to COMMIT are lost", self._arm, self._disarm),
            Fault("COMMITs are lost", self._arm_before, self._disarm),
            Fault("a node is killed", self._kill, self._galera.ensure_running, 2.0, 6.0, takes_a_node=True),
            Fault("a node stands still", self._pause, self._go_on, 0.5, 5.0),
        ]
        if self._galera.nodes[0].host is not None:
            found += [
                Fault(
                    "a node is cut off from the others", self._cut, self._heal, 3.0, 8.0, takes_a_node=True
                ),
                Fault("a node is isolated from everybody", self._isolate, self._heal, 3.0, 8.0),
            ]
        return found

    def left(self) -> list[str]:
        return [line for node in self._galera.nodes for line in self._left_on(node)]

    def _left_on(self, node: Node) -> Iterator[str]:
        statement = sa.text(
            "SELECT trx_id, trx_state, trx_query FROM information_schema.innodb_trx"
            " WHERE trx_mysql_thread_id IN (SELECT id FROM information_schema.processlist WHERE db = :name)"
        )
        with sa.create_engine(node.url, poolclass=sa.NullPool).connect() as connection:
            for row in connection.execute(statement, {"name": self._database.database}):
                yield f"a transaction on node {node.number + 1} in state {row.trx_state}: {row.trx_query}"

    def logs(self) -> Iterator[Path]:
        for node in self._galera.nodes:
            yield node.log

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.close()
        self._galera.ensure_running()
        self._galera.drop_database(self._database)

    # -- what can be done to it -------------------------------------------------------------------------------------

    def _pick(self) -> Node:
        self._victim = self._dice.choice(self._galera.nodes)
        return self._victim

    def _named(self, what: str) -> str:
        return f"{what} node {self._victim.number + 1}"

    def _arm(self) -> str:
        for proxy in self._proxies:
            proxy.arm()
        return "the next answer to COMMIT is lost, and the connection with it"

    def _arm_before(self) -> str:
        for proxy in self._proxies:
            proxy.arm(lost=True)
        return "the next COMMIT is lost, and the connection with it"

    def _disarm(self) -> None:
        for proxy in self._proxies:
            proxy.disarm()

    def _kill(self) -> str:
        self._pick().kill()
        return self._named("kill -9 of")

    def _pause(self) -> str:
        pid = self._pick().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        return self._named("SIGSTOP of")

    def _go_on(self) -> None:
        if self._victim.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._victim.pid, signal.SIGCONT)
        self._galera.ensure_running()

    def _cut(self) -> str:
        self._galera.cut(self._pick())
        return self._named("clients still reach")

    def _isolate(self) -> str:
        self._galera.isolate(self._pick())
        return self._named("nobody reaches")

    def _heal(self) -> None:
        self._galera.heal(self._victim)
        self._galera.ensure_running()


@contextmanager
def start(folder: Path, servers: Any = None) -> Iterator[Cluster]:
    """The three nodes of the test session, or three of its own."""
    own = None if servers is not None else Galera()
    try:
        cluster = ThreeNodes(
            own if own is not None else servers.get("galera"), folder.name.rpartition("-")[0]
        )
        try:
            yield cluster
        finally:
            cluster.close()
    finally:
        if own is not None:
            own.close()
