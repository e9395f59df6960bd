"""SQLite: a file. There is no server; clients die while they write to it, or stop while they hold its lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from soak.clusters import Cluster, Fault


class SqliteFile:
    """One file in the folder of the run."""

    store = "sqlite"
    transactions = True
    tolerance_us = 10_000.0  # its clock has milliseconds

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'quota.db'}"
        self.service_url = self.url
        self.engine: dict[str, Any] = {"connect_args": {"timeout": 10}}

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        return [(self.url, self.url)] * count

    def faults(self) -> list[Fault]:
        return []

    def left(self) -> list[str]:
        engine = sa.create_engine(self.url, connect_args={"timeout": 2}, poolclass=sa.NullPool)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        except sa.exc.OperationalError as error:
            return [f"a lock on the file: {error.orig}"]
        return []

    def logs(self) -> Iterator[Path]:
        return iter(())

    def close(self) -> None:
        pass


@contextmanager
def start(folder: Path, servers: Any = None) -> Iterator[Cluster]:
    del servers
    yield SqliteFile(folder)
