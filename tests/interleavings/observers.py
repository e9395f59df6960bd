"""Who waits for a lock, asked of the server itself."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

__all__ = ["MariaDBObserver", "PostgreSQLObserver", "observer"]


class PostgreSQLObserver:
    """By the server's table of locks, as it is at the moment."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        self._raw: Any = self._engine.raw_connection()
        self._cursor = self._raw.cursor()

    def waiting(self, pids: Collection[int]) -> set[int]:
        self._cursor.execute(
            "SELECT pid FROM unnest(%s::int[]) AS pid WHERE cardinality(pg_blocking_pids(pid)) > 0",
            [list(pids)],
        )
        return {row[0] for row in self._cursor.fetchall()}

    def close(self) -> None:
        self._raw.close()
        self._engine.dispose()


class MariaDBObserver:
    """By InnoDB's monitor: the tables of transactions show a picture that may be a tenth of a second old."""

    _TRANSACTION = re.compile(r"^---TRANSACTION ", re.MULTILINE)
    _SESSION = re.compile(r"MariaDB thread id (\d+)")

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        self._raw: Any = self._engine.raw_connection()
        self._cursor = self._raw.cursor()

    def waiting(self, pids: Collection[int]) -> set[int]:
        self._cursor.execute("SHOW ENGINE INNODB STATUS")
        ((_type, _name, text),) = self._cursor.fetchall()
        text = text[text.index("\nTRANSACTIONS\n") :]
        text = text.partition("\nFILE I/O\n")[0]
        found = set()
        for part in self._TRANSACTION.split(text)[1:]:
            session = self._SESSION.search(part)
            if "\nLOCK WAIT " in part and session is not None:
                found.add(int(session[1]))
        return found.intersection(pids)

    def close(self) -> None:
        self._raw.close()
        self._engine.dispose()


def observer(url: sa.URL) -> PostgreSQLObserver | MariaDBObserver:
    """The one for this database."""
    return PostgreSQLObserver(url) if url.get_backend_name() == "postgresql" else MariaDBObserver(url)
