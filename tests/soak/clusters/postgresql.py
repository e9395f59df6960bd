"""One PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from servers import SqlServer
from soak.clusters import Cluster, on_server
from soak.clusters.one_server import OneServer


class OnePostgreSQL(OneServer):
    def __init__(self, server: SqlServer) -> None:
        super().__init__(server)
        # Limits on connections do not hold for a superuser.
        self._name = f"{self._database.database}_owner"
        with server.admin() as connection:
            connection.exec_driver_sql(f'CREATE ROLE "{self._name}" LOGIN')
            connection.exec_driver_sql(f'ALTER DATABASE "{self._database.database}" OWNER TO "{self._name}"')
        self._database = self._database.set(username=self._name)
        self.url = self.service_url = self._database.render_as_string(hide_password=False)

    def close(self) -> None:
        super().close()
        with self._server.admin() as connection:
            connection.exec_driver_sql(f'DROP ROLE "{self._name}"')

    def _take_connections(self) -> str:
        self._limit(0)
        with self._server.admin() as connection:
            end = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
            ended = connection.execute(end, {"name": self._database.database}).all()
        return f"{len(ended)} sessions are ended, and nobody is let in"

    def _give_back(self) -> None:
        self._limit(-1)

    def _limit(self, number: int) -> None:
        with self._server.admin() as connection:
            connection.exec_driver_sql(
                f'ALTER DATABASE "{self._database.database}" CONNECTION LIMIT {number}'
            )

    def transactions_left(self, connection: sa.Connection) -> list[str]:
        statement = sa.text(
            "SELECT pid, state, query FROM pg_stat_activity WHERE datname = :name AND backend_type = 'client backend'"
        )
        rows = connection.execute(statement, {"name": self._database.database})
        return [f"a session {row.pid} in state {row.state}: {row.query[:100]}" for row in rows]


def start(folder: Path, servers: Any = None) -> AbstractContextManager[Cluster]:
    del folder
    return on_server("postgresql", servers, OnePostgreSQL)
