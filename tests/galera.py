"""Three MariaDB nodes that replicate with Galera, on hosts whose wires can be cut, and an empty database on them.

With root each node is a host of its own (see ``network.py``): clients reach it at one address, and the nodes talk to
each other at another, so that a node can be cut off from the others while clients still reach it. Without root they
share 127.0.0.1, and can be killed but not cut off.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Event
from urllib.parse import urlencode

import pymysql
from sqlalchemy import URL, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from network import Host, Network
from server_process import START_TIMEOUT, ServerNotAvailable, ServerProcess, binary, free_port
from servers import NOT_ENCRYPTED, MariaDB, end_mariadb_sessions

NODES = 3

#: A dead node is noticed within a second, and shut out after three, rather than after five and fifteen.
_FAILURE_DETECTION = {
    "evs.keepalive_period": "PT0.2S",
    "evs.inactive_check_period": "PT0.2S",
    "evs.suspect_timeout": "PT1S",
    "evs.inactive_timeout": "PT3S",
    "evs.install_timeout": "PT3S",
    # Shorter than the time after which a node is suspected: else two that were apart suspect each other again before
    # one has told the other again that it is there, and never come together.
    "evs.join_retrans_period": "PT0.3S",
}


class Node(ServerProcess):
    """One node. It keeps its data and its addresses when it is killed, and joins again when it is started."""

    name = "galera"
    account = "mysql"
    death_signal = "KILL"
    stop_signal = signal.SIGTERM

    def __init__(self, cluster: Galera, number: int, host: Host | None, wires: list[str]) -> None:
        self.number = number
        self._cluster = cluster
        self._wires = wires  # where each node listens for the others
        self._install = binary("mariadb-install-db", "/usr/bin", "mariadb-server")
        self._mariadbd = binary("mariadbd", "/usr/sbin", "mariadb-server")
        self._provider = _provider()
        self._transfers = [free_port(), free_port()]
        super().__init__(host)

    @property
    def alive(self) -> bool:
        """Whether its process is there; ``ready`` says whether it takes work."""
        return self._process is not None and self._process.poll() is None

    def status(self) -> dict[str, str]:
        """Its ``wsrep_…`` status; empty when it does not answer."""
        try:  # the driver alone: a node that is not ready answers this, and nothing that SQLAlchemy asks first
            connection = pymysql.connect(
                host=self.address, port=self.port, user="root", connect_timeout=2, ssl_disabled=True
            )
            with contextlib.closing(connection), connection.cursor() as cursor:
                cursor.execute("SHOW STATUS LIKE 'wsrep%'")
                return dict(cursor.fetchall())
        except pymysql.MySQLError:
            return {}

    @property
    def ready(self) -> bool:
        """It is synchronised with a majority of the nodes."""
        status = self.status()
        return status.get("wsrep_ready") == "ON" and status.get("wsrep_local_state_comment") == "Synced"

    def start(self) -> None:
        """Joins the others, or, where none is running, begins the cluster anew. Call it from the main thread."""
        if self.alive:
            return
        self._process = None
        super().start()

    def _answers(self) -> bool:
        return self.ready

    def _initialise(self) -> None:
        self.url = URL.create("mysql+pymysql", "root", host=self.address, port=self.port, query=NOT_ENCRYPTED)
        first = self._cluster.nodes[0] if self._cluster.nodes else None
        if first is not None:
            self._run("cp", "--archive", f"{first.folder}/pristine", str(self.data))
            return
        rights = self.folder / "rights.sql"
        rights.write_text(
            "FLUSH PRIVILEGES;\nCREATE USER root@'%';\nGRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;\n"
        )
        rights.chmod(0o644)
        self._run(
            self._install, "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.folder}",
            "--skip-test-db",
            "--auth-root-authentication-method=normal", f"--extra-file={rights}",
        )  # fmt: skip

    def keep_pristine(self) -> None:
        """A copy of its data for the others to begin with, so that they need not be sent the whole of it."""
        self.stop()
        self._run("cp", "--archive", str(self.data), f"{self.folder}/pristine")
        self.start()

    def position(self) -> str:
        """Up to where its data reach, ``uuid:number``, read from the files of a node that is not running."""
        file = self.data / "grastate.dat"
        state = file.read_text() if file.exists() else ""
        if not state:
            return "00000000-0000-0000-0000-000000000000:-1"
        if re.search(r"^seqno:\s+-1$", state, re.MULTILINE) is None:
            found = dict(re.findall(r"^(uuid|seqno):\s+(\S+)$", state, re.MULTILINE))
            return f"{found['uuid']}:{found['seqno']}"
        done = subprocess.run(
            [*self._as_account(), self._mariadbd, *self._settings(), "--wsrep-recover"],
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        recovered = re.search(r"Recovered position:\s*(\S+)", done.stdout + done.stderr)
        if recovered is None:
            raise ServerNotAvailable(f"galera: no position found: {(done.stderr or done.stdout)[-600:]}")
        return recovered.group(1)

    def _command(self) -> list[str]:
        begin = not any(node.alive for node in self._cluster.nodes)
        position = self.position()
        state = self.data / "grastate.dat"
        if begin and state.exists():
            (self.data / "gvwstate.dat").unlink(missing_ok=True)  # the cluster it was in is no more
            state.write_text(state.read_text().replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1"))
        return [
            self._mariadbd,
            *self._settings(),
            f"--wsrep_start_position={position}",
            *(["--wsrep-new-cluster"] if begin else []),
        ]

    def _settings(self) -> list[str]:
        wire, transfer = self._wires[self.number], self._transfers
        inner, port = wire.split(":")
        provider = {
            "base_host": inner,
            "base_port": port,
            "gmcast.listen_addr": f"tcp://{wire}",
            "ist.recv_addr": f"{inner}:{transfer[0]}",
            "gcache.size": "32M",
            **_FAILURE_DETECTION,
        }
        return [
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={self.folder}",
            f"--port={self.port}",
            f"--bind-address={self.address}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            "--skip-name-resolve",
            "--max-connections=300",
            "--innodb-buffer-pool-size=64M",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={self._provider}",
            f"--wsrep-cluster-address=gcomm://{','.join(self._wires)}",
            "--wsrep-cluster-name=delimiter",
            f"--wsrep-node-name=node{self.number + 1}",
            f"--wsrep-node-address={wire}",
            f"--wsrep-sst-receive-address={inner}:{transfer[1]}",
            "--wsrep-sst-method=rsync",
            "--wsrep-slave-threads=2",
            f"--wsrep-provider-options={';'.join(f'{key}={value}' for key, value in provider.items())}",
        ]


class Galera(MariaDB):
    """The cluster. ``url`` is that of a node that takes work; ``urls`` gives those of all of them."""

    name = "galera"
    throw_away = True

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._network: Network | None = None
        self.nodes: list[Node] = []
        atexit.register(self.close)
        try:
            if os.geteuid() == 0:
                self._network = Network(NODES)
            hosts: list[Host | None] = list(self._network.hosts) if self._network else [None] * NODES
            wires = [f"{host.inner if host else '127.0.0.1'}:{free_port()}" for host in hosts]
            for number, host in enumerate(hosts):
                self.nodes.append(Node(self, number, host, wires))
                if number == 0:
                    self.nodes[0].keep_pristine()
            self.wait_until_whole()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> URL:  # type: ignore[override]
        return next((node.url for node in self.nodes if node.ready), self.nodes[0].url)

    def urls(self, url: URL) -> list[URL]:
        """The same database on each node."""
        return [node.url.set(database=url.database) for node in self.nodes]

    def together(self, url: URL) -> str:
        """The database as a store's URL that names all nodes."""
        return across([(node.address, node.port) for node in self.nodes], url.database)

    def cut(self, node: Node) -> None:
        """It no longer reaches the other nodes, nor they it; clients reach all of them."""
        self._wired().cut(self._host(node))

    def isolate(self, node: Node) -> None:
        """Nobody reaches it."""
        self._wired().isolate(self._host(node))

    def heal(self, node: Node) -> None:
        """Its wires are whole again; ``wait_until_whole`` waits until it takes part."""
        self._wired().heal(self._host(node))

    def wait_until_whole(self, size: int | None = None) -> None:
        """Until all running nodes are synchronised with each other (and, where ``size`` is given, that many are)."""
        alive = [node for node in self.nodes if node.alive]
        self._wait_until_together(alive, size or len(alive), "all of them")

    def wait_until_shut_out(self, node: Node) -> None:
        """Until the others have gone on without it: they are the majority, and take work."""
        rest = [other for other in self.nodes if other is not node and other.alive]
        self._wait_until_together(rest, len(rest), f"without node {node.number + 1}")

    def _wait_until_together(self, nodes: list[Node], size: int, who: str) -> None:
        wanted = {"wsrep_ready": "ON", "wsrep_cluster_status": "Primary", "wsrep_local_state_comment": "Synced",
                  "wsrep_cluster_size": str(size)}  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            found = [node.status() for node in nodes]
            if nodes and all(status.get(key) == value for status in found for key, value in wanted.items()):
                return
            if time.monotonic() > deadline:
                shown = [{key: status.get(key) for key in wanted} for status in found]
                raise ServerNotAvailable(f"galera: the nodes do not come together, {who}: {shown}")
            Event().wait(0.05)

    def ensure_running(self) -> None:
        """Starts what was killed and heals what was cut; a cluster that does not come together begins anew."""
        for node in self.nodes:
            if self._network is not None:
                self.heal(node)
        try:
            self._start_all()
        except ServerNotAvailable:
            self.kill()
            self._start_all()

    def _start_all(self) -> None:
        down = [node for node in self.nodes if not node.alive]
        if len(down) == NODES:  # the one that has the most begins
            down.sort(key=lambda node: int(node.position().rpartition(":")[2]), reverse=True)
        for node in down:
            node.start()
        self.wait_until_whole(NODES)

    def start(self) -> None:
        self.ensure_running()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def crashes(self) -> dict[str, str]:
        return {f"node {node.number + 1}: {how}": words
                for node in self.nodes for how, words in node.crashes().items()}  # fmt: skip

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        for node in reversed(self.nodes):
            node.close()
        if self._network is not None:
            self._network.close()

    def create_database(self) -> URL:
        url = super().create_database()
        for node in self.nodes:
            if node.alive:
                _synchronise(node)  # a schema change comes to the other nodes a moment later
        return url

    def drop_database(self, url: URL) -> None:
        for node in self.nodes:
            engine = create_engine(node.url, poolclass=NullPool)
            with contextlib.suppress(DBAPIError), engine.connect() as connection:
                end_mariadb_sessions(connection, url.database)
        super().drop_database(url)

    def open_connections(self, url: URL) -> list[str]:
        found: list[str] = []
        for node in self.nodes:
            engine = create_engine(node.url, poolclass=NullPool)
            with contextlib.suppress(DBAPIError), engine.connect() as connection:
                rows = connection.execute(text(self._connections_statement()), {"name": url.database})
                found += [f"{node.number + 1}: " + " · ".join(str(value) for value in row) for row in rows]
        return found

    def _wired(self) -> Network:
        if self._network is None:
            raise ServerNotAvailable("galera: cutting nodes off needs root, for network namespaces")
        return self._network

    def _host(self, node: Node) -> Host:
        assert node.host is not None
        return node.host


def across(places: Iterable[tuple[str, int]], database: str | None) -> str:
    """The URL of a store that is reached at each of these hosts and ports."""
    listed = ",".join(f"{host}:{port}" for host, port in places)
    return f"mysql+pymysql://root@{listed}/{database}?{urlencode(NOT_ENCRYPTED)}"


def _synchronise(node: Node) -> None:
    """Until this node has applied what was committed on any of them."""
    with create_engine(node.url, poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql("SET SESSION wsrep_sync_wait = 15")
        connection.exec_driver_sql("SELECT 1")


def _provider() -> str:
    """Galera's own library, which Debian's mariadb-server brings."""
    for pattern in ("usr/lib/galera/libgalera_smm.so", "usr/lib*/galera*/libgalera_smm.so"):
        for path in sorted(Path("/").glob(pattern)):
            return str(path)
    raise ServerNotAvailable("galera: libgalera_smm.so is not installed (Debian's package galera-4)")
