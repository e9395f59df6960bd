"""The SQL engine: the contract of :class:`delimiter.engine.Engine` on top of the rooms of this package."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from delimiter.engine import Answer, Capability, Change, ClaimQuery, Engine, LimitChange, OpenOptions
from delimiter.engines.sql.changes import Changes, RunOut
from delimiter.engines.sql.claims import Claims
from delimiter.engines.sql.counters import Counters, Outdated
from delimiter.engines.sql.databases import Clock, connect_args, database_of
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.expiry import Expiry
from delimiter.engines.sql.limits import Limits
from delimiter.engines.sql.readings import Readings
from delimiter.engines.sql.schema import Tables
from delimiter.engines.sql.sums import Sums
from delimiter.engines.sql.transactions import Transactions
from delimiter.engines.sql.upgrade import upgrade
from delimiter.engines.sql.upkeep import Upkeep
from delimiter.engines.sql.writing import ClaimWriter
from delimiter.errors import Conflict, InvalidRequest, UnknownResource, Unsupported
from delimiter.model import Claim, Decision, Drift, Overage, Resource, Scope, Usage

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = ["SqlEngine", "open_sql"]

T = TypeVar("T")

#: Connections of one process to a database that Delimiter opens itself.
_CONNECTIONS: Final = 10

#: Attempts at the repair of one counter.
_REPAIRS: Final = 20

#: Reservations swept in one transaction where all must be.
_SWEPT_AT_ONCE: Final = 200


def open_sql(store: Any, options: OpenOptions) -> SqlEngine:
    """Open a URL, or join the SQLAlchemy engine that the service has."""
    if isinstance(store, sa.Engine):
        refuse_single_connection(store)
        return SqlEngine(store, options, owned=False)
    if not isinstance(store, str | sa.URL):
        from delimiter.engines.sql import on_loop

        return on_loop.join(store, options)
    try:
        url = sa.make_url(store)
    except (ArgumentError, ValueError):
        # Not a word of the URL, nor of the error, which quotes it: there may be a password in it.
        raise InvalidRequest(
            "this is no store URL; write for example postgresql+psycopg://user:password@host:5432/database,"
            " with special characters in the password percent-encoded"
        ) from None
    try:
        return _open_url(url, options)
    except (NoSuchModuleError, ImportError) as error:
        raise Unsupported(f"no driver for {url.drivername} ({error}). {_which_driver(url)}") from error


def _open_url(url: sa.URL, options: OpenOptions) -> SqlEngine:
    on_event_loop = url.get_dialect().is_async
    if on_event_loop and not options.asynchronous:
        raise InvalidRequest(f"{url.drivername} is asynchronous: open it with delimiter.aio.Delimiter")
    arguments = _owned_engine_arguments(url, options.timeout)
    if on_event_loop:
        from delimiter.engines.sql import on_loop

        return on_loop.open_url(url, options, arguments)
    return SqlEngine(sa.create_engine(url, **arguments), options, owned=True)


def _which_driver(url: sa.URL) -> str:
    return {
        "postgresql": "Write postgresql+psycopg://… and install delimiter with the extra [postgresql]",
        "sqlite": "Write sqlite:///… ; for asyncio sqlite+aiosqlite:///… with the extra [asyncio]",
    }.get(
        url.get_backend_name(),
        "Write mysql+pymysql://… and install delimiter with the extra [mysql];"
        " for asyncio mysql+asyncmy://… with [asyncio]",
    )


def refuse_single_connection(engine: sa.Engine) -> None:
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):
        raise InvalidRequest(
            "the engine's pool shares one connection, so a claim could not have a transaction of its own beside"
            " the service's; use a file database and the default pool, or memory:// in tests"
        )


def _owned_engine_arguments(url: sa.URL, timeout: float) -> dict[str, Any]:
    """How Delimiter opens a database of its own."""
    database = database_of(url.get_dialect()())
    if database.name == "sqlite" and url.database in (None, "", ":memory:"):
        raise InvalidRequest(
            "an in-memory SQLite database is a different one for each connection; use a file (sqlite:///quota.db)"
            " or memory:// for a quota that lives in this process only"
        )
    arguments: dict[str, Any] = {
        "connect_args": connect_args(url, timeout),
        # Bounded, and kept: callers beyond it wait a moment here rather than for each other's locks in the database.
        "pool_size": _CONNECTIONS,
        "max_overflow": 0,
        "pool_timeout": timeout,
        # Every transaction is ended before its connection goes back; a second ROLLBACK would be a wasted round trip.
        "pool_reset_on_return": None,
    }
    if database.isolation is not None:
        arguments["isolation_level"] = database.isolation
    return arguments


class SqlEngine(Engine):
    """Keeps usage in tables of an ordinary SQL database."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.CALLERS_TRANSACTION, Capability.SHARED}
    )

    def __init__(self, engine: sa.Engine, options: OpenOptions, *, owned: bool) -> None:
        database = database_of(engine.dialect)
        tables = Tables(prefix=options.table_prefix, schema=options.schema)
        self._options = options
        self._tables = tables
        self._database = database
        self._clock = Clock(database)
        no_op = sa.update(tables.counters).where(tables.counters.c.id == -1).values(used=0)
        self._transactions = Transactions(
            engine, owned=owned, on_loop=self.asynchronous, no_op=no_op, timeout=options.timeout
        )
        self._definitions = Definitions(tables, database)
        self._claims = Claims(tables, database, self._clock, self._definitions)
        writer = ClaimWriter(tables, database, self._clock, self._definitions)
        self._counters = Counters(tables, database, self._definitions)
        self._sums = Sums(tables)
        self._expiry = Expiry(
            tables, database, self._clock, self._definitions, self._claims, writer, self._counters
        )
        self._changes = Changes(self._claims, writer, self._counters, self._expiry)
        self._limits = Limits(tables, database, self._definitions, self._sums)
        self._readings = Readings(tables, self._clock, self._definitions, self._claims)
        self._upkeep = Upkeep(
            tables, database, self._clock, self._definitions, writer, self._counters, self._sums
        )
        self._ready = not options.create
        self._making = threading.Lock()

    @property
    def clock_offset(self) -> int:
        return self._clock.offset

    @clock_offset.setter
    def clock_offset(self, value: int) -> None:
        self._clock.offset = value

    # -- changes ------------------------------------------------------------------------------------------------

    def apply(
        self, changes: Sequence[Change], *, connection: CallersConnection | None = None
    ) -> list[Answer]:
        self.prepare()
        if connection is not None:
            with self._transactions.of_caller(connection, writing=True) as joined:
                return self._changes.decide_joined(joined, changes)
        return self._in_own(lambda own: self._decide(own, changes))

    def _decide(self, own: sa.Connection, changes: Sequence[Change]) -> list[Answer]:
        answers, written = self._changes.decide(own, changes)
        if not written:
            own.rollback()
        return answers

    def _in_own(self, step: Callable[[sa.Connection], T]) -> T:
        """Do something in a new transaction; begin again where the remembered way was old or a sweep is due."""
        self.prepare()
        deadline = time.monotonic() + self._options.timeout
        while time.monotonic() < deadline:
            try:
                with self._transactions.own() as connection:
                    return step(connection)
            except Outdated:
                continue
            except RunOut as run_out:
                self._sweep_keys(run_out.keys)
        raise Conflict("the way to the counters kept changing")

    def _sweep_keys(self, keys: Sequence[int]) -> None:
        """In a transaction of its own; what is outdated now is tried again when the decision meets it again."""
        try:
            with self._transactions.own() as connection:
                self._expiry.sweep_keys(connection, keys, wait=True)
        except Outdated:
            return

    # -- definitions and limits ---------------------------------------------------------------------------------

    def define(self, resource: Resource) -> None:
        if not self._reading(lambda connection: self._limits.is_defined_so(connection, resource)):
            self._in_own(lambda connection: self._limits.define(connection, resource))

    def undefine(self, name: str) -> None:
        self._sweep_all()
        self._in_own(lambda connection: self._limits.undefine(connection, name))

    def set_limit(self, resource: str, scope: Scope, change: LimitChange) -> list[Overage]:
        def step(connection: sa.Connection) -> list[Overage]:
            maximum = self._limits.set(connection, resource, scope, change)
            used = self._readings.used(connection, resource, scope)
            over = 0 <= maximum < used
            return [Overage(resource, str(scope), maximum, used)] if over else []

        return self._in_own(step)

    def resources(self) -> list[Resource]:
        return self._reading(self._limits.defined)

    # -- reading ------------------------------------------------------------------------------------------------

    def check(
        self,
        resources: Mapping[str, int],
        scopes: Sequence[Scope],
        *,
        connection: CallersConnection | None = None,
    ) -> Decision:
        return self._reading(lambda reading: self._readings.check(reading, resources, scopes), connection)

    def limits(self, scope: Scope) -> dict[str, int]:
        return self._reading(lambda reading: self._readings.limits(reading, scope))

    def usage(self, scope: Scope, *, connection: CallersConnection | None = None) -> dict[str, Usage]:
        return self._reading(lambda reading: self._readings.usage(reading, scope), connection)

    def get_claim(self, id: str) -> Claim:
        return self._reading(lambda reading: self._readings.claim(reading, id))

    def page_of_claims(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        return self._reading(lambda reading: self._readings.page(reading, query, after=after, size=size))

    def _reading(self, step: Callable[[sa.Connection], T], connection: CallersConnection | None = None) -> T:
        self.prepare()
        if connection is not None:
            with self._transactions.of_caller(connection, writing=False) as joined:
                return step(joined)
        with self._transactions.reading() as reading:
            return step(reading)

    # -- upkeep -------------------------------------------------------------------------------------------------

    def sweep(self, *, size: int) -> int:
        return self._in_own(lambda connection: self._expiry.sweep(connection, size=size))

    def _sweep_all(self) -> None:
        while self.sweep(size=_SWEPT_AT_ONCE):
            pass

    def prune(self, *, older_than: int, size: int) -> int:
        self._sweep_all()  # what ran out has ended, swept or not
        return self._in_own(lambda own: self._upkeep.prune(own, older_than=older_than, size=size))

    def drifts(self, *, repair: bool) -> Iterator[Drift]:
        self.prepare()
        for kind in ("total", "project", "user"):
            found = self._reading(lambda reading: self._upkeep.suspects(reading, kind))  # noqa: B023
            for scope, drifts in found:
                yield from self._repaired(drifts[0].resource, scope) if repair else drifts

    def _repaired(self, resource: str, scope: Scope) -> list[Drift]:
        """In a transaction of its own, which may meet claims under way: again, until it is through."""
        for attempt in range(_REPAIRS):
            try:
                return self._in_own(lambda own: self._upkeep.repair(own, resource, scope))
            except UnknownResource:  # undefined meanwhile, and its counters with it
                return []
            except Conflict:
                self.pause(0.01 * attempt)
        raise Conflict(f"the counter of {resource} and {scope} could not be had for repair; run it again")

    # -- opening and closing ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make or upgrade the tables, once in this process, on a connection of our own."""
        if self._ready:
            return
        with self._making:
            if not self._ready:
                upgrade(self._transactions, self._tables, timeout=self._options.timeout)
                self._ready = True

    def close(self) -> None:
        self._transactions.dispose()
