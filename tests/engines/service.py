"""A service with rows of its own beside the store: what tests of `connection=` stand on.

Its own table has one row for each claim that its transactions committed, so that both can be compared; and a row that
is read before a claim, so that a transaction at REPEATABLE READ has its snapshot from then on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Any, Final

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter
from driver_errors import met_another

READ_COMMITTED: Final = "READ COMMITTED"
REPEATABLE_READ: Final = "REPEATABLE READ"
SERIALIZABLE: Final = "SERIALIZABLE"


@dataclass(frozen=True)
class Place:
    """A database and how the service's transactions run on it."""

    store: str
    #: An isolation level; on SQLite how transactions begin: as pysqlite does it, or by SQLAlchemy's recipe.
    level: str

    def __str__(self) -> str:
        return f"{self.store}-{self.level.lower().replace(' ', '-')}"

    @property
    def old_snapshots(self) -> bool:
        """Whether what was read before may be older than what others have committed since."""
        return self.level in (REPEATABLE_READ, SERIALIZABLE, "begin")

    def engine(self, url: str, **arguments: Any) -> sa.Engine:
        if self.store != "sqlite":
            return sa.create_engine(url, isolation_level=self.level, **arguments)
        engine = sa.create_engine(url, **{"connect_args": {"timeout": 30}, **arguments})
        if self.level == "begin":
            _begin_by_event(engine)
        return engine


def _begin_by_event(engine: sa.Engine) -> None:
    """SQLAlchemy's recipe: pysqlite never begins by itself, so that reads and savepoints are in the transaction."""

    @sa.event.listens_for(engine, "connect")
    def connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


def _param(place: Place) -> Any:
    return pytest.param(place, marks=pytest.mark.stores(place.store), id=str(place))


_SQLITE = [Place("sqlite", "legacy"), Place("sqlite", "begin")]
_SERVERS = [
    Place(store, level)
    for store in ("postgresql", "mariadb")
    for level in (READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE)
]
#: For `@pytest.mark.parametrize("place", …)`.
PLACES: Final = [_param(place) for place in (*_SQLITE, *_SERVERS)]
SERVER_PLACES: Final = [_param(place) for place in _SERVERS]


class Service:
    """The service's own tables, on an engine of its own."""

    def __init__(self, place: Place, url: str) -> None:
        self.engine = place.engine(url, pool_size=16)
        metadata = sa.MetaData()
        self._rows = sa.Table("service_rows", metadata, sa.Column("id", sa.String(100), primary_key=True))
        self._settings = sa.Table(
            "service_settings", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)
        )
        self._metadata = metadata

    def create(self) -> None:
        with self.engine.begin() as connection:
            self._metadata.create_all(connection)
            connection.execute(sa.insert(self._settings).values(id=1))

    def look(self, connection: Any) -> None:
        """Read something of one's own: the snapshot is taken."""
        connection.execute(sa.select(self._settings.c.id).where(self._settings.c.id == 1)).all()

    def add(self, connection: Any, id: str) -> None:
        connection.execute(sa.insert(self._rows).values(id=id))

    def remove(self, connection: Any, id: str) -> None:
        connection.execute(sa.delete(self._rows).where(self._rows.c.id == id))

    def rows(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.scalars(sa.select(self._rows.c.id)))

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def until_decided(transaction: Callable[[], Any], *, within: float = 120.0) -> tuple[Any, int]:
    """What a caller does who meets a Conflict: roll back and start anew. The answer, and how often it met one.

    Those who met once part for a moment: on MariaDB at SERIALIZABLE a crowd that begins anew at once keeps one out.
    """
    deadline = time.monotonic() + within
    conflicts = 0
    while time.monotonic() < deadline:
        try:
            return transaction(), conflicts
        except Conflict:
            conflicts += 1
        except sa.exc.DBAPIError as error:
            if not met_another(error):
                raise
            conflicts += 1
        Event().wait(random.uniform(0, min(0.25, 0.001 * 2 ** min(conflicts, 10))))
    raise AssertionError(f"not decided within {within} s, after {conflicts} conflicts")


def assert_sound(quota: Delimiter) -> None:
    """Counters are the sums of the claims, and no limit is passed."""
    assert list(quota.reconcile()) == []
    claims = list(quota.claims())
    scopes: list[dict[str, Any]] = [{}]
    scopes += [{"project": name} for name in {one.project for one in claims} if name is not None]
    scopes += [{"user": name} for name in {one.user for one in claims} if name is not None]
    for scope in scopes:
        charged = [one for one in claims if all(getattr(one, kind) == name for kind, name in scope.items())]
        for resource, usage in quota.usage(**scope).items():
            assert usage.used == sum(one.resources.get(resource, 0) for one in charged), (scope, resource)
            assert usage.limit == -1 or usage.used <= usage.limit, (scope, resource, usage)


def eventually(condition: Callable[[], Any], *, what: str, within: float = 20.0) -> Any:
    """Wait until something is so."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        Event().wait(0.01)
    return found


def waiting_for_locks(url: str) -> Callable[[], int]:
    """How many transactions of this database wait for a lock right now."""
    address = sa.make_url(url)
    statement = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        " AND trx_mysql_thread_id IN"
        " (SELECT id FROM information_schema.processlist WHERE db = database())",
    }[address.get_backend_name()]

    def count() -> int:
        Event().wait(0.12)  # InnoDB shows the same picture again to whoever looks sooner than after 0.1 s
        engine = sa.create_engine(address, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return int(connection.scalar(sa.text(statement)) or 0)

    return count
