"""ZooKeeper for the tests: one server, or several that form an ensemble, each on a host of its own if one is given.

A store is a path, so a fresh one for each test costs nothing. Sessions and elections are quick here (a tick is half a
second), so that a test of a lost session or leader need not wait for long.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from sqlalchemy import URL

from server_process import START_TIMEOUT, ServerNotAvailable, ServerProcess, binary, free_port
from servers import Server

if TYPE_CHECKING:
    from network import Host, Network

_JAR = Path("/usr/share/java/zookeeper.jar")
TICK = 500  # milliseconds


class ZooKeeper(Server):
    """A ZooKeeper that somebody else runs."""

    name = "zookeeper"

    def __init__(self, url: URL) -> None:
        self.url = url

    def create_database(self) -> URL:
        """A path that nobody has used."""
        return self.url.set(database=f"delimiter_test_{time.time_ns()}_{next(self._numbers)}")

    def drop_database(self, url: URL) -> None:
        """Nothing: with the server its nodes go."""

    def open_connections(self, url: URL) -> list[str]:
        """Every connection, whichever path it works on, but the one that asks."""
        lines = [line.strip() for line in self.say("cons").splitlines() if line.strip()]
        return [line for line in lines if "[0]" not in line]

    def say(self, word: str) -> str:
        """The answer to one of ZooKeeper's four-letter words; empty if it does not answer."""
        with contextlib.suppress(OSError), socket.create_connection(self._place(), timeout=2) as connection:
            connection.sendall(word.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        return ""

    def _place(self) -> tuple[str, int]:
        return self.url.host or "127.0.0.1", self.url.port or 2181


class ThrowAwayZooKeeper(ServerProcess, ZooKeeper):
    """One server: alone, or ``member`` number one, two or three of an ensemble."""

    account = "zookeeper"
    death_signal = "KILL"
    stop_signal = signal.SIGTERM

    def __init__(
        self, host: Host | None = None, *, number: int = 0, members: dict[int, str] | None = None
    ) -> None:
        self._java = binary("java", "/usr/bin", "default-jre-headless")
        if not _JAR.exists():
            raise ServerNotAvailable(
                f"{_JAR} is not there (`make servers` installs Debian's package zookeeper)"
            )
        self.number = number
        self._members = members or {}
        super().__init__(host)

    @property
    def role(self) -> str:
        """``leader``, ``follower`` or ``standalone``; empty while it does not serve."""
        lines = self.say("srvr").splitlines()
        return next((line.partition(": ")[2] for line in lines if line.startswith("Mode: ")), "")

    def _initialise(self) -> None:
        self.url = URL.create("zookeeper", host=self.address, port=self.port)
        settings = {
            "tickTime": TICK,
            "initLimit": 20,
            "syncLimit": 4,
            "dataDir": self.data,
            "clientPort": self.port,
            "clientPortAddress": self.address,
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "preAllocSize": 1024,
            **{f"server.{number}": place for number, place in self._members.items()},
        }
        self.data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.data, self.account)
        (self.data / "myid").write_text(str(self.number))
        self._configuration.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    @property
    def _configuration(self) -> Path:
        return self.folder / "zoo.cfg"

    def _command(self) -> list[str]:
        return [
            self._java,
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{self.folder}:{_JAR}",
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(self._configuration),
        ]

    def _answers(self) -> bool:
        """A member of an ensemble serves only when the others are there; until then it says that it lives."""
        return "imok" in self.say("ruok") if self._members else bool(self.role)


class ZooKeeperEnsemble:
    """Several servers: on 127.0.0.1, or each on a host of a network. To be made from the main thread.

    >>> with ZooKeeperEnsemble(3) as ensemble:  # doctest: +SKIP
    ...     quota = Delimiter(ensemble.url("quota"))
    """

    def __init__(self, size: int = 3, network: Network | None = None) -> None:
        hosts: list[Host] | list[None] = network.hosts[:size] if network is not None else [None] * size
        places = {
            number: f"{'127.0.0.1' if host is None else host.inner}:{free_port()}:{free_port()}"
            for number, host in enumerate(hosts, start=1)
        }
        self.servers: list[ThrowAwayZooKeeper] = []
        try:
            for number, host in zip(places, hosts, strict=True):
                self.servers.append(ThrowAwayZooKeeper(host, number=number, members=places))
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def url(self, path: str, *, servers: Iterable[ThrowAwayZooKeeper] | None = None) -> str:
        """The URL of a store: on all servers, or as those see it that know only some of them."""
        chosen = self.servers if servers is None else list(servers)
        return f"zookeeper://{','.join(f'{one.address}:{one.port}' for one in chosen)}/{path}"

    @property
    def leader(self) -> ThrowAwayZooKeeper:
        return next(one for one in self.servers if one.role == "leader")

    @property
    def followers(self) -> list[ThrowAwayZooKeeper]:
        return [one for one in self.servers if one.role == "follower"]

    def wait_until_ready(self, size: int | None = None) -> None:
        """Until so many serve (all of them) and one of them leads."""
        deadline = time.monotonic() + START_TIMEOUT
        wanted = len(self.servers) if size is None else size
        while True:
            roles = [one.role for one in self.servers]
            if "leader" in roles and len(roles) - roles.count("") >= wanted:
                return
            if time.monotonic() > deadline:
                raise ServerNotAvailable(f"zookeeper: the servers have not found each other: {roles}")
            Event().wait(0.05)

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def __enter__(self) -> ZooKeeperEnsemble:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
