"""What differs between the databases: one record each, so that no other module asks for a dialect's name."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from delimiter.errors import Unsupported

__all__ = ["Clock", "Database", "Fault", "connect_args", "database_of", "milliseconds", "whole_seconds"]

S = TypeVar("S", bound=Any)


class Fault(enum.Enum):
    """What an error of a driver means to a caller. Whatever has no fault of its own: the store is not available."""

    CONFLICT = "conflict"  # another transaction was in the way: start anew
    LOCK_WAIT = "lock wait"  # it kept a lock for longer than this was to wait: the same
    NO_TABLES = "no tables"
    NO_SCHEMA = "no schema"
    FORBIDDEN = "forbidden"
    UNENCODABLE = "unencodable"


@dataclass(frozen=True)
class Database:
    """A database's ways. Fields say what it needs or can; the SQL that follows from them is made in the statements."""

    name: str
    #: SQL for the clock now, in whole microseconds since 1970, in UTC: of the statement, never of the transaction.
    now: str
    #: The error code of a driver's exception, whatever the driver.
    code: Callable[[BaseException], Any]
    faults: Mapping[Any, Fault]
    insert_ignoring: Callable[[sa.Table], Any]
    #: Rows can be locked one by one. SQLite locks the whole database instead, at BEGIN IMMEDIATE or the first write.
    row_locks: bool = True
    #: A server, which may come back when it is gone.
    remote: bool = True
    #: ``FOR NO KEY UPDATE``: locks against writers without shutting out foreign-key checks.
    no_key_update: bool = False
    #: A small table would be scanned whole, and every row on the way locked: name the index instead.
    hint: str | None = None
    #: At REPEATABLE READ a locking read sees the present and a plain one the snapshot. What belongs to a locked row
    #: must then be read with a lock too. (Elsewhere the lock itself fails when the snapshot is older than the row.)
    plain_reads_lag: bool = False
    #: SQL, true in a transaction whose plain reads lock: what they read is shared until it ends, and the gap where they
    #: found nothing. (A level set by SET TRANSACTION for one transaction is not seen.) ``None``: they never do.
    plain_reads_lock: str | None = None
    #: It may be a node of Galera, which compares rows that were written and knows nothing of other nodes' locks.
    replicates_by_rows: bool = False
    #: LISTEN and NOTIFY: a commit wakes those who wait for events.
    notifies: bool = False
    #: A column of ours and one of the service's can be compared by an index, once the collation is given.
    joins_text: bool = True
    #: The collation of a column that names none; ``None``: columns of any collation can be compared.
    collation: str | None = None
    #: A column of the service's, made to compare byte by byte; ``None``: its own collation does, whichever it is.
    exactly: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]] | None = None
    #: READ COMMITTED must be asked for: the default is higher, or unknown.
    isolation: str | None = "READ COMMITTED"
    #: Tells the level of statements outside transactions; ``None``: to go outside and back costs more than it saves.
    default_isolation: str | None = None
    #: Has all statements of a connection planned anew; ``None``: their plans never outlive what they were made for.
    forget_plans: str | None = None
    #: The drivers do not notice that a server is cut off.
    silent_drivers: bool = False
    #: How each driver that is known well is told to bound its waits, for locks and for the connection (seconds); other
    #: drivers keep their own ways.
    connect_args: Mapping[str, Callable[[float, float], dict[str, Any]]] = field(default_factory=dict)
    #: On connections of the service's own engine, for one transaction: bound the waits for locks (with the timeout in
    #: milliseconds and seconds to fill in), and put back what was.
    bound_waits: str | None = None
    unbound_waits: str | None = None

    def locked(self, statement: S, *, skip_locked: bool = False, share: bool = False) -> S:
        """The select, locking what it returns; with ``skip_locked`` it leaves out what it would have to wait for."""
        if not self.row_locks:
            return statement
        locked = statement.with_for_update(
            skip_locked=skip_locked, read=share, key_share=self.no_key_update and not share
        )
        return cast("S", locked)

    def current(self, statement: S) -> S:
        """The select, sure to see what belongs to rows that are locked already."""
        return self.locked(statement, share=True) if self.plain_reads_lag else statement

    def queue(self, table: sa.Table, row: Mapping[str, Any]) -> sa.Insert | None:
        """Holds a row, and makes it if it is not there, in a transaction whose plain reads lock; in others nothing."""
        if self.plain_reads_lock is None:
            return None
        values = [sa.literal(value).label(name) for name, value in row.items()]
        asked = sa.select(*values).where(sa.text(self.plain_reads_lock))
        return mysql.insert(table).from_select(list(row), asked).on_duplicate_key_update(id=table.c.id)

    def collated(self, column: sa.ColumnElement[str], like: Any) -> sa.ColumnElement[str]:
        """A column of ours, to be compared with one of the service's of this type."""
        if self.collation is None:
            return column
        return sa.collate(column, getattr(like, "collation", None) or self.collation)

    def by_key(self, statement: S, table: sa.Table) -> S:
        """The statement, finding rows of ``table`` by primary key and touching no others."""
        if self.hint is None:
            return statement
        if isinstance(statement, sa.Select):
            return statement.with_hint(table, self.hint)
        return cast("S", statement.with_hint(self.hint))


class Clock:
    """The database's clock, in microseconds since 1970. Tests move time by ``offset`` instead of sleeping."""

    def __init__(self, database: Database) -> None:
        self.offset = 0
        self._database = database

    def now(self) -> sa.ColumnElement[int]:
        """The time as a column; a sub-select is read once per statement, so that an index on a time stays usable."""
        offset = sa.bindparam("clock_offset", callable_=lambda: self.offset, type_=sa.BigInteger, unique=True)
        return sa.select(sa.literal_column(self._database.now, sa.BigInteger) + offset).scalar_subquery()


def _sqlite_code(error: BaseException) -> Any:
    # Extended codes (SQLITE_BUSY_SNAPSHOT and so on) keep the primary one in the low byte. A missing table has no
    # code of its own, and asynchronous adapters lose the code: then the text must do.
    text = str(error)
    if "no such table" in text:
        return "no such table"
    return getattr(error, "sqlite_errorcode", 5 if "locked" in text else 1) & 0xFF


def _mysql_code(error: BaseException) -> Any:
    return error.args[0] if error.args else None


def _postgresql_code(error: BaseException) -> Any:
    return getattr(error, "sqlstate", None) or getattr(
        error, "pgcode", None
    )  # psycopg 3 and asyncpg, psycopg2


#: Seconds for which a transaction of our own may stand still between two statements, however short a call is to be: a
#: process that is held up for a moment, or works something out, is not one that has vanished.
_SHORTEST_IDLE: Final = 10.0


def _psycopg_arguments(timeout: float, patience: float) -> dict[str, Any]:
    return {
        "connect_timeout": max(2, round(patience)),
        "tcp_user_timeout": milliseconds(timeout),  # a server that is cut off is noticed
        # A lock that is not to be had within one call's time is a Conflict, not a thread that hangs. And who is cut off
        # with locks in hand does not hold them for hours: the server may never be told that the client has given up.
        "options": f"-c lock_timeout={milliseconds(timeout)}"
        f" -c idle_in_transaction_session_timeout={milliseconds(max(timeout, _SHORTEST_IDLE))}",
    }


def _pymysql_arguments(timeout: float, patience: float) -> dict[str, Any]:
    return {
        "connect_timeout": whole_seconds(patience, 2),
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {whole_seconds(timeout)},"
        f" idle_transaction_timeout = {whole_seconds(max(timeout, _SHORTEST_IDLE))}",
    }


def milliseconds(timeout: float) -> int:
    """As PostgreSQL takes it: whole, above 0 (which would mean for ever), and 32 bits."""
    return min(max(1, round(timeout * 1000)), 2**31 - 1)


def whole_seconds(timeout: float, least: int = 1) -> int:
    """As MariaDB and PyMySQL take it: a year at most, which is for ever."""
    return min(max(least, round(timeout)), 31_536_000)


def connect_args(url: sa.URL, timeout: float, patience: float) -> dict[str, Any]:
    """How Delimiter connects to a database of its own; what the URL says stays, or is added to.

    ``timeout`` bounds waits for locks, ``patience`` an attempt to connect (seconds).
    """
    database = database_of(url.get_dialect()())
    build = database.connect_args.get(url.get_driver_name())
    arguments = {} if build is None else build(timeout, patience)
    for name in [name for name in arguments if name in url.query]:
        ours = arguments.pop(name)
        if name == "options":
            arguments[name] = f"{url.query[name]} {ours}"
    return arguments


_SQLITE: Final = Database(
    name="sqlite",
    now="CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    code=_sqlite_code,
    # 5 BUSY and 6 LOCKED: somebody else writes. 8 READONLY, 10 IOERR, 13 FULL, 14 CANTOPEN and 26 NOTADB are left.
    faults={5: Fault.CONFLICT, 6: Fault.CONFLICT, 19: Fault.CONFLICT, "no such table": Fault.NO_TABLES},
    insert_ignoring=lambda table: sqlite.insert(table).on_conflict_do_nothing(),
    row_locks=False,
    remote=False,
    exactly=lambda column: sa.collate(column, "BINARY"),
    isolation=None,
    connect_args=dict.fromkeys(("pysqlite", "aiosqlite"), lambda timeout, _: {"timeout": timeout}),
)

_POSTGRESQL: Final = Database(
    name="postgresql",
    now="(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    code=_postgresql_code,
    faults={
        "40001": Fault.CONFLICT,  # could not serialize access
        "40P01": Fault.CONFLICT,  # deadlock
        "55P03": Fault.LOCK_WAIT,
        "57014": Fault.CONFLICT,  # a statement's time ran out
        "23505": Fault.CONFLICT,  # somebody else inserted the same key since we looked
        "25P02": Fault.CONFLICT,  # the caller's transaction has failed before
        "42P01": Fault.NO_TABLES,
        "3F000": Fault.NO_SCHEMA,
        "42501": Fault.FORBIDDEN,
        "22P05": Fault.UNENCODABLE,
        "22021": Fault.UNENCODABLE,
    },
    insert_ignoring=lambda table: postgresql.insert(table).on_conflict_do_nothing(),
    no_key_update=True,
    notifies=True,
    default_isolation="SHOW default_transaction_isolation",
    forget_plans="DISCARD PLANS",
    collation="default",
    connect_args=dict.fromkeys(("psycopg", "psycopg_async"), _psycopg_arguments),
    bound_waits="SET LOCAL lock_timeout = {milliseconds}",
)

_MARIADB: Final = Database(
    name="mariadb",
    now="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    code=_mysql_code,
    faults={
        1213: Fault.CONFLICT,  # deadlock: the whole transaction is gone already. On Galera also at COMMIT
        1205: Fault.LOCK_WAIT,  # only the statement is gone
        1020: Fault.CONFLICT,  # the row has changed since the snapshot (innodb_snapshot_isolation)
        1062: Fault.CONFLICT,
        1305: Fault.CONFLICT,  # Galera has given way to another node, and the savepoint is gone
        1146: Fault.NO_TABLES,
        1049: Fault.NO_SCHEMA,
        1142: Fault.FORBIDDEN,
        1143: Fault.FORBIDDEN,
        1044: Fault.FORBIDDEN,
        1366: Fault.UNENCODABLE,
        1267: Fault.UNENCODABLE,
    },
    insert_ignoring=lambda table: sa.insert(table).prefix_with("IGNORE"),
    hint="FORCE INDEX (PRIMARY)",
    plain_reads_lag=True,
    plain_reads_lock="@@tx_isolation = 'SERIALIZABLE'",
    replicates_by_rows=True,
    silent_drivers=True,
    # The service's column may be of any collation, and columns of two are compared without an index.
    joins_text=False,
    # Of any character set: the usual collations take ``acme``, ``ACME`` and ``acme `` for one.
    exactly=lambda column: sa.collate(
        sa.func.convert(column.op("USING")(sa.literal_column("utf8mb4"))), "utf8mb4_nopad_bin"
    ),
    connect_args=dict.fromkeys(("pymysql", "asyncmy"), _pymysql_arguments),
    bound_waits="SET @delimiter_wait = @@innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout = {seconds}",
    unbound_waits="SET SESSION innodb_lock_wait_timeout = @delimiter_wait",
)


def database_of(dialect: sa.Dialect) -> Database:
    """The record for a dialect of SQLAlchemy."""
    records = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "mysql": _MARIADB, "mariadb": _MARIADB}
    record = records.get(dialect.name)
    if record is None:
        raise Unsupported(f"Delimiter has no engine for {dialect.name}; use SQLite, PostgreSQL or MariaDB")
    return record
