"""One MariaDB."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from servers import SqlServer, end_mariadb_sessions
from soak.clusters import Cluster, on_server
from soak.clusters.one_server import OneServer


class OneMariaDB(OneServer):
    def __init__(self, server: SqlServer) -> None:
        super().__init__(server)
        self._admin: sa.Connection | None = None
        self._taken: list[sa.Connection] = []

    def _take_connections(self) -> str:
        self._admin = sa.create_engine(self._server.url, poolclass=sa.NullPool).connect()
        self._admin.exec_driver_sql("SET GLOBAL max_connections = 10")  # the least there is
        ended = end_mariadb_sessions(self._admin, self._database.database)
        fill = sa.create_engine(self._server.url, poolclass=sa.NullPool)
        with suppress(sa.exc.DBAPIError):
            while len(self._taken) < 20:
                self._taken.append(fill.connect())
        return f"{ended} sessions are ended, and nobody is let in"

    def _give_back(self) -> None:
        if self._admin is not None:
            self._admin.exec_driver_sql("SET GLOBAL max_connections = 500")
            for one in (self._admin, *self._taken):
                one.close()
            self._admin = None
            self._taken.clear()

    def transactions_left(self, connection: sa.Connection) -> list[str]:
        return transactions_in(connection, self._database.database)


def transactions_in(connection: sa.Connection, database: str | None) -> list[str]:
    """Those that are open there, one line each."""
    statement = sa.text(
        "SELECT trx_id, trx_state, trx_started, trx_query, host, command, time, state"
        " FROM information_schema.innodb_trx JOIN information_schema.processlist ON id = trx_mysql_thread_id"
        " WHERE db = :name"
    )
    rows = connection.execute(statement, {"name": database})
    return [
        f"a transaction {row.trx_id} in state {row.trx_state} since {row.trx_started}: {row.trx_query},"
        f" of {row.host}, for {row.time} s in {row.command}: {row.state}"
        for row in rows
    ]


def start(folder: Path, servers: Any = None) -> AbstractContextManager[Cluster]:
    del folder
    return on_server("mariadb", servers, OneMariaDB)
