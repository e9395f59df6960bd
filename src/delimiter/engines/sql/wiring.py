"""The rooms of this package put together, and how something is run in a transaction of Delimiter's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from delimiter.engine import Engine, OpenOptions
from delimiter.engines.sql.bounds import Bounds
from delimiter.engines.sql.changes import Changes
from delimiter.engines.sql.claims import Claims
from delimiter.engines.sql.conditions import Conditions
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.crossings import Crossings
from delimiter.engines.sql.databases import Clock, database_of
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.edits import Edits
from delimiter.engines.sql.events import EventLog
from delimiter.engines.sql.expiry import Expiry, RunOut
from delimiter.engines.sql.galera import Galera
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.guards import Guards
from delimiter.engines.sql.limits import Limits
from delimiter.engines.sql.locking import CounterLocks
from delimiter.engines.sql.moving import Moving
from delimiter.engines.sql.projects import Projects
from delimiter.engines.sql.promises import Promises
from delimiter.engines.sql.readings import Readings
from delimiter.engines.sql.schema import tables_of
from delimiter.engines.sql.sums import Sums
from delimiter.engines.sql.surveys import Surveys
from delimiter.engines.sql.together import Arrivals, Together
from delimiter.engines.sql.transactions import Transactions
from delimiter.engines.sql.upgrade import upgrade
from delimiter.engines.sql.upkeep import Upkeep
from delimiter.engines.sql.ways import Outdated
from delimiter.engines.sql.writing import ClaimWriter
from delimiter.errors import Conflict

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = ["Wired"]

T = TypeVar("T")


class Wired(Engine):
    """The parts of one store, put together, and the ways to run something in a transaction."""

    def __init__(self, engine: sa.Engine, options: OpenOptions, *, owned: bool) -> None:
        database = database_of(engine.dialect)
        tables = tables_of(options.table_prefix, options.schema)
        self._options = options
        self._tables = tables
        self._database = database
        self._clock = Clock(database)
        no_op = sa.update(tables.counters).where(tables.counters.c.id == -1).values(used=0)
        galera = Galera(database, tables)
        self._transactions = Transactions(
            engine, galera, owned=owned, on_loop=self.asynchronous, no_op=no_op, timeout=options.timeout
        )
        self._definitions = Definitions(tables, database)
        self._projects = Projects(tables, database, galera)
        self._events = EventLog(tables, database, self._clock)
        ground = Ground(
            tables, database, self._clock, self._definitions, self._projects, self._events, galera
        )
        self._claims = Claims(ground)
        writer = ClaimWriter(ground)
        self._locks = locks = CounterLocks(tables, database)
        counters, sums = Counters(ground), Sums(tables)
        self._expiry = Expiry(ground, self._claims, writer, counters)
        self._changes = Changes(self._claims, writer, counters, self._expiry)
        self._together = together = Together(ground, counters, self._transactions)
        self._arrivals = Arrivals(
            self._transactions, self._in_own, together, self._changes, self._claims, counters, locks
        )
        self._counts = Counts(ground)
        self._crossings = Crossings(ground, counters, locks, self._counts)
        self._guards = Guards(
            ground, self._transactions, counters, self._changes, self._counts, self._crossings
        )
        self._readings = Readings(ground, self._claims, self._counts)
        self._surveys = Surveys(ground, counters, self._counts)
        bounds = Bounds(ground, locks, sums, counters, self._expiry)
        self._limits = Limits(ground, locks, sums, bounds, self._readings, self._counts)
        moving = Moving(ground, counters, locks, self._limits, self._expiry, self._counts)
        promises = Promises(ground, counters)
        self._edits = Edits(
            ground,
            counters,
            locks,
            self._limits,
            moving,
            promises,
            self._readings,
            self._crossings,
            self._counts,
        )
        self._upkeep = Upkeep(ground, writer, counters, locks, sums, bounds, self._expiry)
        self._conditions = Conditions(tables, galera)
        self._ready = not options.create
        self._making = threading.Lock()

    @property
    def clock_offset(self) -> int:
        return self._clock.offset

    @clock_offset.setter
    def clock_offset(self, value: int) -> None:
        self._clock.offset = value

    # -- transactions -------------------------------------------------------------------------------------------

    def _in_own(self, step: Callable[[sa.Connection], T], *, patience: float | None = None) -> T:
        """Do something in a new transaction; begin again where the remembered way was old or a sweep is due.

        ``patience``: seconds to wait for a lock, where less than the usual.
        """
        self.prepare()
        deadline = time.monotonic() + self._options.timeout
        while time.monotonic() < deadline:
            try:
                with self._transactions.own(patience=patience) as connection:
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

    def _reading(self, step: Callable[[sa.Connection], T], connection: CallersConnection | None = None) -> T:
        self.prepare()
        if connection is not None:
            if self._counts.names():
                self._guards.flush(connection)  # rows that are counted may be waiting there
            with self._transactions.of_caller(connection, writing=False) as joined:
                return step(joined)
        with self._transactions.reading() as reading:
            return step(reading)

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
