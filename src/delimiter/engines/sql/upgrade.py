"""Making and upgrading the tables, safely while many processes start at once.

The migrations are Alembic's, kept inside the package, with a version table of their own beside the service's. The
first look is one small SELECT; only a store that is not up to date takes the lock and loads Alembic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.schema import HEAD, Tables
from delimiter.errors import Conflict, StoreUnavailable

__all__ = ["upgrade", "version_table"]

#: Any fixed number that no other program is likely to lock (PostgreSQL's advisory locks are numbers).
_LOCK: Final = 0x64656C696D

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def version_table(prefix: str) -> str:
    return f"{prefix}version"


def upgrade(connection: sa.Connection, tables: Tables, database: Database, *, timeout: float) -> None:
    """Bring the tables to :data:`HEAD`; nothing is written if they are."""
    if _is_current(connection, tables):
        return
    connection.rollback()
    with _alone(connection, database, timeout):
        if not _is_current(connection, tables):
            run_migrations(connection, tables)
        connection.commit()


def _is_current(connection: sa.Connection, tables: Tables) -> bool:
    schema = tables.schema
    if not sa.inspect(connection).has_table(version_table(tables.prefix), schema=schema):
        return False
    version = sa.table(version_table(tables.prefix), sa.column("version_num"), schema=schema)
    found = connection.scalar(sa.select(version.c.version_num))
    if found is not None and found > HEAD:
        raise StoreUnavailable(
            f"the tables are of version {found}, made by a newer Delimiter; this one knows {HEAD}: upgrade the library",
            retryable=False,
        )
    return found == HEAD


def run_migrations(connection: sa.Connection, tables: Tables, *, target: str = "head") -> None:
    """Run Alembic on this connection, in the transaction that is open."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, tables=tables, version_table=version_table(tables.prefix))
    command.upgrade(config, target)


@contextmanager
def _alone(connection: sa.Connection, database: Database, timeout: float) -> Iterator[None]:
    """Only one process makes tables at a time; the others wait and then find them made."""
    match database.name:
        case "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield
        case "mariadb":
            got = connection.scalar(
                sa.select(sa.func.get_lock("delimiter_migrations", max(1, round(timeout))))
            )
            if got != 1:
                raise Conflict("another process is still making the tables")
            try:
                yield
            finally:
                with suppress(SQLAlchemyError):  # with the connection the lock is gone too
                    connection.execute(sa.select(sa.func.release_lock("delimiter_migrations")))
        case _:
            # WAL lets readers go on while somebody writes; the file remembers it. Not possible inside a transaction.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.commit()
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield
