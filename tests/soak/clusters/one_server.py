"""One database server: it is killed and started, paused, robbed of its connections, and answers to COMMIT get lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from server_process import ServerProcess
from servers import SqlServer
from soak.clusters import Fault
from soak.clusters.wires import Wires


class OneServer(ABC):
    """A server of the tests, a database on it, and a proxy in front of it for each client process."""

    transactions = True
    tolerance_us = 5_000.0

    def __init__(self, server: SqlServer) -> None:
        self._server = server
        self.store = server.name
        self._database = server.create_database()
        self.url = self._database.render_as_string(hide_password=False)
        self.service_url = self.url
        self.engine: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
        self._wires = Wires()

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        found = []
        for number in range(count):
            url = self._database
            if number % 2:
                assert url.host is not None
                assert url.port is not None
                url = url.set(port=self._wires.to(url.host, url.port))
            text = url.render_as_string(hide_password=False)
            found.append((text, text))
        return found

    def faults(self) -> list[Fault]:
        found = [
            *self._wires.faults(),
            Fault("no connection is left", self._take_connections, self._give_back, 0.5, 1.5),
        ]
        if self._server.throw_away:
            found += [
                Fault("the server is killed", self._kill, self._server.start, 0.1, 1.0, takes_a_node=True),
                Fault("the server stands still", self._pause, self._server.resume, 0.3, 2.0),
            ]
        return found

    def left(self) -> list[str]:
        with self._server.admin() as connection:
            return self.transactions_left(connection)

    @abstractmethod
    def transactions_left(self, connection: sa.Connection) -> list[str]:
        """One line each."""

    def logs(self) -> Iterator[Path]:
        if isinstance(self._server, ServerProcess):
            yield self._server.log

    def close(self) -> None:
        self._wires.close()
        self._server.ensure_running()
        self._give_back()
        self._server.drop_database(self._database)

    # -- what can be done to it -------------------------------------------------------------------------------------

    def _kill(self) -> str:
        self._server.kill()
        return "kill -9 of the whole server"

    def _pause(self) -> str:
        self._server.pause()
        return "SIGSTOP of the whole server"

    @abstractmethod
    def _take_connections(self) -> str:
        """Nobody new is let in, and those who are in are thrown out."""

    @abstractmethod
    def _give_back(self) -> None:
        """And let in again; does nothing where nobody was shut out."""
