"""One database server: it is killed and started, paused, robbed of its connections, and answers to COMMIT get lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from proxy import CuttingProxy
from server_process import ServerProcess
from servers import Server
from soak.clusters import Fault


class OneServer:
    """A server of the tests, a database on it, and a proxy in front of it for each client process."""

    transactions = True
    tolerance_us = 5_000.0

    def __init__(self, server: Server) -> None:
        self._server = server
        self.store = server.name
        self._database = server.create_database()
        self.url = self._database.render_as_string(hide_password=False)
        self.service_url = self.url
        self.engine: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
        self._proxies: list[CuttingProxy] = []

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        """Every second client goes through a proxy: bytes that are passed on in Python take their time."""
        found = []
        for number in range(count):
            url = self._database
            if number % 2:
                assert url.host is not None
                assert url.port is not None
                self._proxies.append(CuttingProxy(url.host, url.port))
                url = url.set(port=self._proxies[-1].port)
            text = url.render_as_string(hide_password=False)
            found.append((text, text))
        return found

    def faults(self) -> list[Fault]:
        found = [
            Fault("answers to COMMIT are lost", self._arm, self._disarm),
            Fault("COMMITs are lost", self._arm_before, self._disarm),
            Fault("no connection is left", self._take_connections, self._give_back, 0.5, 1.5),
        ]
        if self._server.throw_away:
            found += [
                Fault("the server is killed", self._kill, self._server.start, 0.1, 1.0, takes_a_node=True),
                Fault("the server stands still", self._pause, self._go_on, 0.3, 2.0),
            ]
        return found

    def left(self) -> list[str]:
        with self._server.admin() as connection:
            return self.transactions_left(connection)

    def transactions_left(self, connection: sa.Connection) -> list[str]:
        raise NotImplementedError

    def logs(self) -> Iterator[Path]:
        if isinstance(self._server, ServerProcess):
            yield self._server.log

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.close()
        self._server.ensure_running()
        self._give_back()
        self._server.drop_database(self._database)

    # -- what can be done to it -------------------------------------------------------------------------------------

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
        self._server.kill()
        return "kill -9 of the whole server"

    def _pause(self) -> str:
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)
        return "SIGSTOP of the whole server"

    def _go_on(self) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert isinstance(self._server, ServerProcess)
        pid = self._server.pid
        assert pid is not None
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def _take_connections(self) -> str:
        """Nobody new is let in, and those who are in are thrown out."""
        raise NotImplementedError

    def _give_back(self) -> None:
        raise NotImplementedError


@contextmanager
def running(kind: type[OneServer], name: str, servers: Any) -> Iterator[OneServer]:
    """On a server of the test session, or on one of its own."""
    from servers import Servers

    own = None if servers is not None else Servers()
    try:
        cluster = kind((own if own is not None else servers).get(name))
        try:
            yield cluster
        finally:
            cluster.close()
    finally:
        if own is not None:
            own.close()
