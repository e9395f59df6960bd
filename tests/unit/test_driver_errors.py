"""What errors of drivers mean: to callers of the product, and to the tests, which have a short list of their own."""

from __future__ import annotations

import sqlite3

import psycopg.errors
import pymysql
import pytest
import sqlalchemy as sa

from delimiter import Conflict, DelimiterError, InvalidRequest, StoreUnavailable
from delimiter.engines.sql.databases import database_of
from delimiter.engines.sql.galera import Galera
from delimiter.engines.sql.schema import Tables
from delimiter.engines.sql.transactions import Transactions
from driver_errors import met_another

_name = lambda value: f"{type(value).__name__}: {value}" if isinstance(value, Exception) else None  # noqa: E731


@pytest.mark.parametrize(
    "raised, met",
    [
        (psycopg.errors.SerializationFailure("could not serialize"), True),
        (psycopg.errors.DeadlockDetected("deadlock"), True),
        (psycopg.errors.UniqueViolation("there already"), False),
        (psycopg.errors.InFailedSqlTransaction("failed before"), False),
        (pymysql.OperationalError(1213, "deadlock", sqlstate="40001"), True),
        (pymysql.OperationalError(1205, "lock wait timeout", sqlstate="HY000"), True),
        (pymysql.OperationalError(1020, "changed since", sqlstate="HY000"), True),
        (pymysql.IntegrityError(1062, "there already", sqlstate="23000"), False),
        (pymysql.OperationalError(2013, "lost connection"), False),
        (sqlite3.OperationalError("database is locked"), True),
        (sqlite3.OperationalError("disk full"), False),
    ],
    ids=_name,
)
def test_what_is_taken_for_another_transaction(raised: Exception, *, met: bool) -> None:
    """Guard: ``codes_of``. PyMySQL's errors have MariaDB's number, and beside it an SQLSTATE that says less."""
    assert met_another(sa.exc.DBAPIError("INSERT", {}, raised)) is met


#: By the driver's module: a URL, which nobody connects to, and what all its errors inherit from.
_DRIVERS = {
    "psycopg": ("postgresql+psycopg://h1/quota", psycopg.Error),
    "pymysql": ("mysql+pymysql://h1/quota", pymysql.Error),
    "sqlite3": ("sqlite:///quota.db", sqlite3.Error),
}


def _busy(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "raised, becomes, retryable",
    [
        (psycopg.errors.SerializationFailure("could not serialize"), Conflict, True),
        (psycopg.errors.DeadlockDetected("deadlock"), Conflict, True),
        (psycopg.errors.LockNotAvailable("lock timeout"), Conflict, True),
        (psycopg.errors.QueryCanceled("statement timeout"), Conflict, True),
        (psycopg.errors.UniqueViolation("there already"), Conflict, True),
        (psycopg.errors.InFailedSqlTransaction("failed before"), Conflict, True),
        (psycopg.errors.UndefinedTable("no such table"), StoreUnavailable, False),
        (psycopg.errors.InvalidSchemaName("no such schema"), StoreUnavailable, False),
        (psycopg.errors.InsufficientPrivilege("not yours"), StoreUnavailable, False),
        (psycopg.errors.UntranslatableCharacter("not in LATIN1"), InvalidRequest, False),
        (psycopg.errors.AdminShutdown("the server shuts down"), StoreUnavailable, True),
        (psycopg.errors.DiskFull("no space left"), StoreUnavailable, True),
        (pymysql.OperationalError(1213, "deadlock"), Conflict, True),
        (pymysql.OperationalError(1205, "lock wait timeout"), Conflict, True),
        (pymysql.OperationalError(1020, "changed since"), Conflict, True),
        (pymysql.IntegrityError(1062, "there already"), Conflict, True),
        # Galera has rolled back for another node's transaction, and the next statement is the first to notice.
        (pymysql.OperationalError(1305, "SAVEPOINT sa_savepoint_1 does not exist"), Conflict, True),
        (pymysql.ProgrammingError(1146, "no such table"), StoreUnavailable, False),
        (pymysql.OperationalError(1049, "no such database"), StoreUnavailable, False),
        (pymysql.OperationalError(1142, "not yours"), StoreUnavailable, False),
        (pymysql.DataError(1366, "not in latin1"), InvalidRequest, False),
        (pymysql.OperationalError(2013, "lost connection"), StoreUnavailable, True),
        (pymysql.OperationalError(1047, "WSREP has not yet prepared node"), StoreUnavailable, True),
        (_busy(sqlite3.SQLITE_BUSY), Conflict, True),
        (_busy(sqlite3.SQLITE_BUSY_SNAPSHOT), Conflict, True),
        (_busy(sqlite3.SQLITE_LOCKED), Conflict, True),
        (sqlite3.OperationalError("no such table: delimiter_claims"), StoreUnavailable, False),
        (sqlite3.OperationalError("disk full"), StoreUnavailable, False),
    ],
    ids=_name,
)
def test_what_a_caller_is_told(raised: Exception, becomes: type[DelimiterError], *, retryable: bool) -> None:
    """Guard: ``Database.faults``. What is not there is an error of the store, which no new transaction helps with."""
    url, base = _DRIVERS[type(raised).__module__.partition(".")[0]]
    engine = sa.create_engine(url)
    galera = Galera(database_of(engine.dialect), Tables())
    transactions = Transactions(
        engine, galera, owned=True, on_loop=False, no_op=sa.text("SELECT 1"), timeout=1
    )
    with pytest.raises(becomes) as told, transactions.translating():
        raise sa.exc.DBAPIError.instance("UPDATE", {}, raised, base)
    assert type(told.value) is becomes
    assert told.value.retryable is retryable
    assert told.value.__cause__ is not None
