"""Making and upgrading the tables, safely while many processes start at once.

The migrations are Alembic's, kept inside the package, with a version table of their own beside the service's. They run
without Alembic's module-level proxies (``alembic.op``, ``alembic.context``), which a process has only once: the
service may be running its own migrations at the same moment. The first look is one small SELECT; only a store that is
not up to date takes the lock and loads Alembic.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from delimiter.engines.sql.databases import Database, Fault
from delimiter.engines.sql.schema import HEAD, Tables
from delimiter.engines.sql.transactions import Transactions
from delimiter.errors import Conflict, InvalidRequest, StoreUnavailable

__all__ = ["run_migrations", "upgrade"]

#: Seconds for which one process may make tables before another takes it for dead.
_TURN: Final = 120

#: Waits in the database, so that it is the same on an event loop.
_A_MOMENT: Final = sa.select(sa.func.sleep(0.1))

#: Any fixed number that no other program is likely to lock (PostgreSQL's advisory locks are numbers).
_LOCK: Final = 0x64656C696D

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(transactions: Transactions, tables: Tables, *, timeout: float) -> None:
    """Bring the tables to :data:`HEAD`; nothing is written if they are."""
    with transactions.reading() as connection:
        if (
            transactions.database.row_locks
            and (tables.schema or connection.dialect.default_schema_name) is None
        ):
            raise InvalidRequest(
                "there is no place for the tables: the connection has no default schema; name the database in the URL"
                " (…://user:password@host/database), or say schema="
            )
        if _is_current(connection, tables):
            return
    if transactions.owned and not transactions.database.row_locks:
        with transactions.reading() as connection:
            # WAL lets readers go on while somebody writes; the file remembers it. Not possible in a transaction.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    with transactions.own() as connection, _alone(connection, transactions, tables, timeout):
        if not _is_current(connection, tables):
            run_migrations(connection, tables)


def _is_current(connection: sa.Connection, tables: Tables) -> bool:
    if not sa.inspect(connection).has_table(tables.version_name, schema=tables.schema):
        return False
    version = sa.table(tables.version_name, sa.column("version_num"), schema=tables.schema)
    found = connection.scalar(sa.select(version.c.version_num))
    if found is not None and found > HEAD:
        raise StoreUnavailable(
            f"the tables are of version {found}, made by a newer Delimiter; this one knows {HEAD}: upgrade the library",
            retryable=False,
        )
    return bool(found == HEAD)


def run_migrations(connection: sa.Connection, tables: Tables, *, target: str = "head") -> None:
    """Run what is missing up to ``target`` on this connection, in the transaction that is open."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_MIGRATIONS))

    def missing(revision: Any, _: MigrationContext) -> Any:
        return scripts._upgrade_revs(target, revision)  # noqa: SLF001 - what Alembic's own command calls

    options = {
        "fn": missing,
        "script": scripts,
        "version_table": tables.version_name,
        "version_table_schema": tables.schema,
        # The caller holds the lock and the transaction in which everything happens.
        "transactional_ddl": False,
    }
    context = MigrationContext.configure(connection=connection, opts=options)
    context.run_migrations(op=Operations(context), tables=tables)


@contextmanager
def _alone(
    connection: sa.Connection, transactions: Transactions, tables: Tables, timeout: float
) -> Iterator[None]:
    """Only one process makes tables at a time; the others wait and then find them made."""
    match transactions.database.name:
        case "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield
        case "mariadb":
            with _alone_on_server(connection, timeout):
                if transactions.galera.is_one(connection):
                    with _alone_on_all_nodes(connection, transactions.database, tables, timeout):
                        yield
                else:
                    yield
        case _:  # SQLite: the transaction itself is alone
            yield


@contextmanager
def _alone_on_server(connection: sa.Connection, timeout: float) -> Iterator[None]:
    got = connection.scalar(sa.select(sa.func.get_lock("delimiter_migrations", max(1, round(timeout)))))
    if got != 1:
        raise Conflict("another process is still making the tables")
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # with the connection the lock is gone too
            connection.execute(sa.select(sa.func.release_lock("delimiter_migrations")))


@contextmanager
def _alone_on_all_nodes(
    connection: sa.Connection, database: Database, tables: Tables, timeout: float
) -> Iterator[None]:
    """The same on Galera, whose nodes do not see each other's locks: a row that only one of them can have written.

    Its table is there only meanwhile. Who took it and died is waited for until its time is over.
    """
    metadata = sa.MetaData(schema=tables.schema)
    lease = sa.Table(
        f"{tables.prefix}upgrading",
        metadata,
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )
    deadline = time.monotonic() + timeout
    while not (taken := _took(connection, database, lease)) and not _is_current(connection, tables):
        if time.monotonic() > deadline:
            raise Conflict(
                f"another process is still making the tables; if it has died, its turn is over {_TURN} s after it began"
            )
        connection.execute(_A_MOMENT)
        connection.rollback()
    try:
        yield
    finally:
        if taken:
            with suppress(SQLAlchemyError):
                connection.execute(sa.schema.DropTable(lease, if_exists=True))


def _took(connection: sa.Connection, database: Database, lease: sa.Table) -> bool:
    """Whether the row is ours now. Its transaction is over either way, so that the next one sees what others did."""
    now: sa.ColumnElement[int] = sa.literal_column(database.now, sa.BigInteger)
    free = sa.update(lease).where(lease.c.id == 1, lease.c.until <= now)
    try:
        connection.execute(sa.schema.CreateTable(lease, if_not_exists=True))
        connection.execute(database.insert_ignoring(lease).values(id=1, until=0))
        taken = connection.execute(free.values(until=now + _TURN * 1_000_000)).rowcount == 1
        connection.commit()
    except DBAPIError as error:
        connection.rollback()
        fault = None if error.orig is None else database.faults.get(database.code(error.orig))
        if error.connection_invalidated or fault not in (Fault.CONFLICT, Fault.NO_TABLES):
            raise
        return False
    return taken
