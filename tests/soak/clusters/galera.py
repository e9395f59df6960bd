"""Three nodes of Galera: killed, cut off from each other, isolated, paused; answers to COMMIT get lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from galera import Galera, Node, across
from soak.clusters import Cluster, Fault, on_server
from soak.clusters.mariadb import transactions_in
from soak.clusters.victim import Victim
from soak.clusters.wires import Wires


class ThreeNodes:
    """The cluster of the tests and a database on it; clients know all nodes."""

    store = "galera"
    transactions = True
    tolerance_us = 5_000.0

    def __init__(self, galera: Galera, seed: str) -> None:
        self._galera = galera
        self._database = galera.create_database()
        self.url = galera.together(self._database)
        self.service_url = self._on(galera.nodes[0])
        # The service reads what was committed before, whichever node it asks, and holds no locks where it is cut off.
        session = "SET SESSION wsrep_sync_wait = 15, idle_transaction_timeout = 10"
        init = {"init_command": session, "connect_timeout": 5}
        self.engine: dict[str, Any] = {"isolation_level": "READ COMMITTED", "connect_args": init}
        self._wires = Wires()
        self._victim = Victim(galera.nodes, seed, named=_named, whole=galera.ensure_running)

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        """Delimiter is told of all nodes; the service's own engine goes to one of them, another for each client."""
        found = []
        for number in range(count):
            nodes = self._galera.nodes[number % 3 :] + self._galera.nodes[: number % 3]
            places = [(node.address, node.port) for node in nodes]
            if number % 2:
                places = [("127.0.0.1", self._wires.to(*place)) for place in places]
            found.append((across(places, self._database.database), self._on(nodes[0])))
        return found

    def _on(self, node: Node) -> str:
        return node.url.set(database=self._database.database).render_as_string(hide_password=False)

    def faults(self) -> list[Fault]:
        found = [
            *self._wires.faults(),
            Fault(
                "a node is killed",
                self._victim.kill,
                self._galera.ensure_running,
                2.0,
                6.0,
                takes_a_node=True,
            ),
            Fault("a node stands still", self._victim.pause, self._victim.resume, 0.5, 5.0),
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
        with sa.create_engine(node.url, poolclass=sa.NullPool).connect() as connection:
            for line in transactions_in(connection, self._database.database):
                yield f"on {_named(node)} {line}"

    def logs(self) -> Iterator[Path]:
        for node in self._galera.nodes:
            yield node.log

    def close(self) -> None:
        self._wires.close()
        self._galera.ensure_running()
        self._galera.drop_database(self._database)

    # -- what can be done to it -------------------------------------------------------------------------------------

    def _cut(self) -> str:
        self._galera.cut(self._victim.draw())
        return self._victim.told("clients still reach")

    def _isolate(self) -> str:
        self._galera.isolate(self._victim.draw())
        return self._victim.told("nobody reaches")

    def _heal(self) -> None:
        self._galera.heal(self._victim.server)
        self._galera.ensure_running()


def _named(node: Node) -> str:
    return f"node {node.number + 1}"


def start(folder: Path, servers: Any = None) -> AbstractContextManager[Cluster]:
    """The three nodes of the test session, or three of its own."""
    return on_server("galera", servers, lambda galera: ThreeNodes(galera, folder.name.rpartition("-")[0]))
