"""Gates before all that an engine's connections send, with what each step can mean to others.

Statements that touch nothing anybody else could notice have none: SAVEPOINT and its RELEASE, settings of the session,
and the end of a transaction that has only read (below SERIALIZABLE).
"""

from __future__ import annotations

import re
from typing import Any, Final

import sqlalchemy as sa

from driver_errors import DEADLOCKS, codes_of
from interleavings.stage import Kind, Stage, Step

__all__ = ["Gates"]

_LOCKS: Final = re.compile(r"\bFOR (NO KEY UPDATE|UPDATE|SHARE|KEY SHARE)\b|\bLOCK IN SHARE MODE\b")
#: A compound statement that ends its transaction itself.
_COMMITS: Final = re.compile(r" COMMIT;")
_UNNOTICED: Final = re.compile(r"\s*(SAVEPOINT|RELEASE SAVEPOINT|SET(?! STATEMENT))\b")
_TABLES: Final = re.compile(r"\b(?:delimiter|service)_[a-z]+\b")
_SPACE: Final = re.compile(r"\s+")

#: Where a connection keeps the tables that its transaction has locked or written.
_TOUCHED: Final = "interleavings_touched"

#: And its latest transaction that has sent something.
_BEGUN: Final = "interleavings_begun"


class Gates:
    """The gates of one engine."""

    def __init__(self, stage: Stage, engine: sa.Engine) -> None:
        self._stage = stage
        self._level = engine.dialect._on_connect_isolation_level
        #: PostgreSQL finds what cannot be put in one order by what all tables together show.
        self._all_together = self._level == "SERIALIZABLE" and engine.dialect.name == "postgresql"
        sa.event.listen(engine, "before_cursor_execute", self._at_statement)
        sa.event.listen(engine, "do_executemany", self._at_many)
        sa.event.listen(engine, "commit", self._at_commit)
        sa.event.listen(engine, "rollback", self._at_rollback)
        sa.event.listen(engine, "handle_error", self._at_error)

    def _step(self, statement: str, *, first: bool, outside: bool) -> Step:
        """``outside``: of any transaction, so that what it writes is committed with it."""
        text = _SPACE.sub(" ", statement).strip()
        if text.startswith("ROLLBACK TO"):
            return Step(Kind.ROLLBACK, text)
        plain = text.startswith("SELECT") and not _LOCKS.search(text)
        kind = Kind.READ if plain and self._level != "SERIALIZABLE" else Kind.TOUCH
        if _COMMITS.search(text) or (outside and not plain):
            kind = Kind.COMMIT
        tables = None if self._all_together else frozenset(_TABLES.findall(text)) or None
        # PostgreSQL's snapshot is the first statement's, MariaDB's the first plain read's.
        takes_snapshot = self._level != "READ COMMITTED" and (first or kind is Kind.READ)
        return Step(kind, text, tables, takes_snapshot)

    def _stop(self, connection: sa.Connection, statement: str) -> None:
        if _UNNOTICED.match(statement):
            return
        first = connection.info.get(_BEGUN) is not connection.get_transaction()
        connection.info[_BEGUN] = connection.get_transaction()
        driver: Any = connection.connection.dbapi_connection
        outside = connection.dialect.detect_autocommit_setting(driver)
        step = self._step(statement, first=first, outside=outside)
        if step.kind is Kind.TOUCH:
            connection.info.setdefault(_TOUCHED, []).append(step.tables)
        self._stage.gate(step, _session(connection))

    def _at_statement(
        self, connection: sa.Connection, _cursor: Any, statement: str, _values: Any, _context: Any, many: Any
    ) -> None:
        if not many:
            self._stop(connection, statement)

    def _at_many(self, cursor: Any, statement: str, rows: Any, context: Any) -> bool:
        for values in rows:  # the server sees one after the other
            self._stop(context.root_connection, statement)
            cursor.execute(statement, values)
        return True

    def _at_commit(self, connection: sa.Connection) -> None:
        self._at_end(connection, Kind.COMMIT)

    def _at_rollback(self, connection: sa.Connection) -> None:
        self._at_end(connection, Kind.ROLLBACK)

    def _at_end(self, connection: sa.Connection, kind: Kind) -> None:
        touched = connection.info.pop(_TOUCHED, None)
        if touched:
            tables = None if None in touched else frozenset().union(*touched)
            self._stage.gate(Step(kind, "", tables), _session(connection))

    def _at_error(self, context: Any) -> None:
        if codes_of(context.original_exception) & DEADLOCKS:
            self._stage.notice_deadlock()


def _session(connection: sa.Connection) -> int:
    """The server's number for it."""
    driver: Any = connection.connection.dbapi_connection
    return int(driver.info.backend_pid if hasattr(driver, "info") else driver.thread_id())
