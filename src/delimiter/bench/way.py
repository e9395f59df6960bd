"""What all ways of claiming have in common, so that they can be measured alike."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

import sqlalchemy as sa

from delimiter.bench.scenario import Scenario
from delimiter.waiting import pauses

__all__ = ["AsyncWay", "Counted", "Place", "Stopped", "ThreadedWay", "Way", "again"]

T = TypeVar("T")

#: Waits between two attempts of hand-written code, in seconds: with jitter, doubled each time.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


class Stopped(Exception):
    """The measurement ended while a caller was trying again: its claim was not decided."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a way keeps its tables."""

    url: str
    prefix: str
    schema: str | None = None

    @property
    def dialect(self) -> str:
        return sa.make_url(self.url).get_backend_name()

    def engine(self, *, connections: int, isolation: str | None = None) -> sa.Engine:
        """A pool of that size, set up as its own expert would.

        A transaction is always ended before its connection goes back, so the pool does not do it again. On SQLite it
        begins as a writer, so that nobody has to become one with a snapshot that is old by then.
        """
        sqlite = self.dialect == "sqlite"
        engine = sa.create_engine(
            self.url,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=600,
            pool_reset_on_return=None,
            isolation_level=isolation or ("SERIALIZABLE" if sqlite else "READ COMMITTED"),
            connect_args={"timeout": 600} if sqlite else {},
        )
        if sqlite:
            sa.event.listen(engine, "connect", _leave_transactions_to_us)
            if isolation != "AUTOCOMMIT":
                sa.event.listen(engine, "begin", _begin_as_writer)
        return engine


def _leave_transactions_to_us(raw: object, _: object) -> None:
    raw.isolation_level = None  # type: ignore[attr-defined]  # of sqlite3: the driver begins nothing by itself


def _begin_as_writer(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@dataclass(frozen=True, slots=True)
class Counted:
    """What a way's tables say after the callers are gone."""

    #: Claims that are there, but for those of the contested project.
    claims: int
    #: Claims of the contested project.
    contested: int
    #: What is wrong with them, in sentences: counters that disagree with rows.
    faults: tuple[str, ...] = ()


class Way(ABC):
    """One way to claim.

    The object travels: :meth:`create`, :meth:`count` and :meth:`drop` are called in the process that directs, the
    rest in the processes that call. Nothing is opened before :meth:`open`.
    """

    #: As ``--ways`` names it, and as tables do.
    name: ClassVar[str]
    title: ClassVar[str]
    #: What it does, for whoever reads a table.
    summary: ClassVar[str]
    #: Whether it must never pass a limit; of the others it is counted how far they do.
    exact: ClassVar[bool] = True
    #: Whether it decides claims at all; one that only commits rows shows what the database can do.
    decides: ClassVar[bool] = True
    #: Whether it knows projects within projects.
    nested: ClassVar[bool] = True
    #: The databases it makes sense on.
    databases: ClassVar[frozenset[str]] = frozenset({"postgresql", "mysql", "mariadb", "sqlite"})
    asynchronous: ClassVar[bool] = False

    def __init__(self, place: Place, scenario: Scenario) -> None:
        self.place = place
        self.scenario = scenario
        #: Asked between two attempts: is the measurement over?
        self.stopping: Callable[[], bool] = lambda: False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.scenario)  # nothing that is open travels

    @classmethod
    def missing(cls, url: str) -> str | None:
        """Why this way cannot be measured on that database, if so."""
        backend = sa.make_url(url).get_backend_name()
        return None if backend in cls.databases else f"not on {backend}"

    @classmethod
    def fits(cls, scenario: Scenario) -> bool:
        """Whether it can be measured in this scenario, and says something there."""
        if not cls.decides:
            return not (scenario.flood or scenario.claims or scenario.depth > 1)
        return cls.nested or scenario.depth == 1

    def drop(self) -> None:  # noqa: B027 - most have nothing else
        """Remove what it made beside the tables whose names begin with its prefix."""

    @abstractmethod
    def create(self) -> None:
        """Make the tables, the limits, and the claims that are there before."""

    @abstractmethod
    def count(self) -> Counted:
        """What the tables say now."""


class ThreadedWay(Way):
    """A way that callers in threads use."""

    @abstractmethod
    def open(self, connections: int) -> None:
        """Make what the callers of one process share, with at most so many connections."""

    @abstractmethod
    def claim(self, number: int) -> bool:
        """Claim for that project and its user: admitted, or refused. Raises :class:`Stopped`."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""


class AsyncWay(Way):
    """A way that callers in tasks of one event loop use."""

    asynchronous = True

    @abstractmethod
    async def open(self, connections: int) -> None:
        """Make what the callers of one process share, with at most so many connections."""

    @abstractmethod
    async def claim(self, number: int) -> bool:
        """Claim for that project and its user: admitted, or refused."""

    @abstractmethod
    async def close(self) -> None:
        """Give everything back."""


def again(call: Callable[[], T], wrong: Callable[[Exception], bool], stopping: Callable[[], bool]) -> T:
    """Call, in new transactions, until it is decided; the waits grow, and differ between those who met."""
    waits = pauses(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
    while True:
        try:
            return call()
        except Exception as error:
            if not wrong(error):
                raise
        if stopping():
            raise Stopped
        time.sleep(next(waits))
