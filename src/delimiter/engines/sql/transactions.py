"""Transactions: Delimiter's own, at READ COMMITTED, and the caller's, as it is.

Nothing here tries again. A retry needs a new transaction, and who opens those is the desk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import (
    SQLAlchemyError,
)
from sqlalchemy.orm import Session

from delimiter.engines.sql.databases import database_of, milliseconds, whole_seconds
from delimiter.engines.sql.driver_errors import DriverErrors
from delimiter.engines.sql.galera import Galera
from delimiter.engines.sql.plans import Plans
from delimiter.errors import Conflict, InvalidRequest

__all__ = ["Transactions"]

#: Where a connection of our own remembers at which level it is.
_LEVEL: Final = "delimiter_level"


class Transactions(DriverErrors):
    """Opens transactions on an SQLAlchemy engine, and steps into those of callers."""

    def __init__(
        self,
        engine: sa.Engine,
        galera: Galera,
        *,
        owned: bool,
        on_loop: bool,
        no_op: sa.Executable,
        timeout: float,
    ) -> None:
        self.galera = galera
        super().__init__(database_of(engine.dialect))
        self._engine = engine
        self.owned = owned
        self._process = os.getpid()
        self.timeout = timeout
        # On an event loop tasks share a thread and must not block it; there the file's lock alone decides.
        self._writers = None if on_loop or self.database.row_locks else threading.Lock()
        #: Writes nothing, but takes SQLite's write lock.
        self._no_op = no_op
        #: The level that stands for no transaction at all, where it costs nothing to go there.
        self._outside = None if self.database.default_isolation is None else "AUTOCOMMIT"
        self._reads_committed: bool | None = None
        self._plans = Plans(self.database)

    @contextmanager
    def own(self, *, patience: float | None = None) -> Iterator[sa.Connection]:
        """A new transaction at READ COMMITTED; committed at the end, rolled back by any exception.

        It waits for a lock as long as one call may take, or for ``patience`` (seconds).
        """
        with self._turn(), self._connected() as connection, self._bounded_waits(connection, patience):
            with self.translating():
                self._begin(connection)
                self._plans.renew(connection)
                yield connection
            try:
                connection.commit()
            except SQLAlchemyError as error:
                raise self._translated(error, committing=True) from error

    @contextmanager
    def at_once(self) -> Iterator[sa.Connection]:
        """A connection for one statement that is a transaction of its own, at READ COMMITTED, or that ends its own.

        It takes no other round trip for that; but if it is lost meanwhile it is in doubt whether it was committed. The
        statement has to bound its waits itself.
        """
        with self._connected(self._outside) as connection, self.translating(at_once=True):
            self._plans.renew(connection)
            yield connection

    def can_at_once(self) -> bool:
        """Whether a statement can be that here, and is what a transaction of our own would be.

        Outside transactions it is of the server's or the role's default level: that must be READ COMMITTED. On Galera
        it would be committed before it can be seen whether it is all there.
        """
        if self._outside is None:
            return self.galera.is_none
        if self._reads_committed is None:
            with self.reading() as reading:
                level = reading.exec_driver_sql(str(self.database.default_isolation)).scalar_one()
            self._reads_committed = level.upper() == self.database.isolation
        return self._reads_committed

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """SQLite: threads of this process take turns here, in order, rather than by polling for the file's lock."""
        self._notice_fork()
        writers = self._writers
        if writers is None:
            yield
            return
        if not writers.acquire(timeout=self.timeout):
            raise Conflict("other threads of this process are still writing to the database")
        try:
            yield
        finally:
            writers.release()

    @contextmanager
    def _bounded_waits(self, connection: sa.Connection, patience: float | None) -> Iterator[None]:
        """Wait for a lock no longer than one call may take. (Connections of our own are opened that way.)"""
        if (self.owned and patience is None) or self.database.bound_waits is None:
            yield
            return
        longest = self.timeout if patience is None else min(patience, self.timeout)
        values = {"milliseconds": milliseconds(longest), "seconds": whole_seconds(longest)}
        with self.translating():
            connection.exec_driver_sql(self.database.bound_waits.format(**values))
        try:
            yield
        finally:
            if self.database.unbound_waits is not None:
                try:
                    connection.rollback()
                    connection.exec_driver_sql(self.database.unbound_waits)
                except SQLAlchemyError:  # dead, or it may have kept the setting: nobody is to have it
                    connection.invalidate()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """For what only reads: no lock is taken, and each statement sees what is committed when it begins."""
        with self._connected(self._outside) as connection, self.translating():
            self._plans.renew(connection)
            yield connection

    def listening(self) -> Any | None:
        """A connection of the driver, outside the pool, to listen on; ``None`` with a driver that cannot."""
        if self._engine.dialect.driver != "psycopg":
            return None
        pooled = self._engine.raw_connection()
        driver = pooled.driver_connection
        assert driver is not None
        pooled.detach()
        driver.rollback()
        driver.autocommit = True
        return driver

    @contextmanager
    def of_caller(self, given: Any, *, writing: bool) -> Iterator[sa.Connection]:
        """The caller's transaction, if a claim can be safe in it."""
        with self.translating():
            connection = self._joined(given)
            if writing and not self.database.row_locks:
                self._lock_database(connection)
            yield connection

    def dispose(self) -> None:
        if self.owned:
            self._engine.dispose()

    @contextmanager
    def _connected(self, isolation: str | None = None) -> Iterator[sa.Connection]:
        isolation = isolation or self.database.isolation
        self._notice_fork()
        with self.translating():
            connection = self._engine.connect()
        try:
            with self.translating():
                self._be_at(isolation, connection)
                self.galera.catch_up(connection, ours=self.owned)
            yield connection
        finally:
            try:
                connection.rollback()
            except SQLAlchemyError:  # what state it is in nobody knows: it must not be used again
                connection.invalidate()
            connection.close()

    def _be_at(self, isolation: str | None, connection: sa.Connection) -> None:
        """Set the level. A connection of our own that can be outside transactions goes back to the pool as it is: most
        calls want it there, and to go there and back each time takes a tenth of a claim's time.
        """
        if not self.owned or self._outside is None:
            if self._default_level() != isolation:
                connection.execution_options(isolation_level=isolation)
        elif connection.info.get(_LEVEL, self.database.isolation) != isolation:
            driver: Any = connection.connection.dbapi_connection
            level: Any = isolation  # one of SQLAlchemy's names for them
            # Unknown until it is there: after an interruption no batch must be told as made, and then be rolled back.
            connection.info[_LEVEL] = None
            connection.dialect.set_isolation_level(driver, level)
            connection.info[_LEVEL] = isolation

    def _default_level(self) -> str | None:
        """The isolation level the engine was made with, if that can be told: to set it again costs round trips."""
        if self.database.isolation is None:
            return None
        options = self._engine.get_execution_options()
        level = options.get("isolation_level") or getattr(
            self._engine.dialect, "_on_connect_isolation_level", None
        )
        return level.replace("_", " ").upper() if isinstance(level, str) else ""

    def _notice_fork(self) -> None:
        """A forked child must not speak on its parent's sockets, nor close them, nor wait for its threads."""
        if self._process != os.getpid():
            self._process = os.getpid()
            if self._writers is not None:
                self._writers = threading.Lock()
            if self.owned:
                self._engine.dispose(close=False)

    def _begin(self, connection: sa.Connection) -> None:
        if not connection.in_transaction():
            connection.begin()
        if self.database.row_locks:
            return
        if _in_transaction(connection):  # the service's own engine has begun, by an event of its own
            connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    # -- the caller's -------------------------------------------------------------------------------------------

    def _joined(self, given: Any) -> sa.Connection:
        if isinstance(given, Session):
            given = given.connection()
        if not isinstance(given, sa.Connection):
            raise InvalidRequest(
                f"connection must be an SQLAlchemy Connection or Session, not {type(given).__name__}"
                " (async ones go to delimiter.aio.Delimiter)"
            )
        if given.closed:
            raise InvalidRequest("the connection is closed; hand over one that is in a transaction")
        if database_of(given.dialect) is not self.database:
            raise InvalidRequest(
                f"the connection is to {given.dialect.name}, this store is {self.database.name}"
            )
        self._refuse_isolation(given)
        return given

    def _refuse_isolation(self, connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        level = options.get("isolation_level") or getattr(
            connection.dialect, "_on_connect_isolation_level", None
        )
        level = level.replace("_", " ").upper() if level else None
        if level == "READ UNCOMMITTED":
            raise InvalidRequest(
                "READ UNCOMMITTED shows what was never committed; use READ COMMITTED or higher"
            )
        if level == "AUTOCOMMIT" or (self.database.row_locks and self._is_autocommit(connection)):
            raise InvalidRequest(
                "the connection is in AUTOCOMMIT mode and would commit half a claim; use READ COMMITTED or higher"
            )

    def _is_autocommit(self, connection: sa.Connection) -> bool:
        driver = connection.connection.dbapi_connection
        try:
            return connection.dialect.detect_autocommit_setting(driver)  # type: ignore[arg-type]
        except NotImplementedError:  # a driver that cannot tell: ask the server
            return connection.get_isolation_level() == "AUTOCOMMIT"

    def _lock_database(self, connection: sa.Connection) -> None:
        """SQLite: be the writer from here on, so that what is read next is the present.

        A transaction that has read before cannot become the writer if another has written since; SQLite says so at
        this write (BUSY_SNAPSHOT), which is the ``Conflict`` of a stale snapshot.
        """
        connection.execute(self._no_op)
        if not _in_transaction(connection):
            raise InvalidRequest(
                "the SQLite connection is in autocommit mode (isolation_level=None) and no transaction was begun;"
                " begin one, so that the claim commits with your own rows"
            )


def _in_transaction(connection: sa.Connection) -> bool:
    """Whether SQLite itself is in a transaction; what SQLAlchemy believes may differ, since BEGIN comes late."""
    return bool(getattr(connection.connection.driver_connection, "in_transaction", False))
