"""PostgreSQL, MariaDB and ZooKeeper for the tests, and an empty database on them for each test.

A server is either a throw-away one, started the first time somebody asks for it, with the durability a real
one has (fsync and the like are left alone, so that what a kill test shows is true); or one of the
developer's own, named in DELIMITER_TEST_POSTGRESQL_URL or DELIMITER_TEST_MARIADB_URL, whose user may create
and drop databases, or in DELIMITER_TEST_ZOOKEEPER_URL.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from server_process import ServerNotAvailable, ServerProcess, binary

#: For PyMySQL, which else reads the system's certificates for each connection anew: longer than most tests talk to a
#: server. Those of the tests do not encrypt.
NOT_ENCRYPTED: Final = {"ssl_disabled": "true"}


def by_driver(url: str | URL, drivername: str) -> URL:
    """The same database by another driver, without what only PyMySQL understands."""
    return make_url(url).set(drivername=drivername).difference_update_query(NOT_ENCRYPTED)


class Server(ABC):
    """A server: where it is, and empty databases on it."""

    name: str
    url: URL
    throw_away = False  # kill() and start() work
    _numbers = itertools.count(1)

    @abstractmethod
    def create_database(self) -> URL:
        """A fresh, empty database; its name is unique on the server."""

    @abstractmethod
    def drop_database(self, url: URL) -> None:
        """Drops it, whoever is still connected."""

    @abstractmethod
    def open_connections(self, url: URL) -> list[str]:
        """What is still connected to the database, one line each; empty when every pool has been closed."""

    def ensure_running(self) -> None:  # noqa: B027 - a server of somebody else's runs
        """Starts it again when a test has killed it."""

    def start(self) -> None:
        raise ServerNotAvailable(f"{self.name}: a server of your own is not started or killed by tests")

    kill = stop = pause = resume = start

    def crashes(self) -> dict[str, str]:
        """What has ended by itself, and what it wrote last. (Of a server of somebody else's nothing is known.)"""
        return {}

    def close(self) -> None:  # noqa: B027 - a server of somebody else's goes on
        """Ends what was started for the tests."""


class SqlServer(Server):
    """A database server, asked in SQL."""

    @contextlib.contextmanager
    def admin(self) -> Iterator[Connection]:
        """A connection in AUTOCOMMIT that may create and drop databases; it leaves nothing open."""
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def create_database(self) -> URL:
        name = f"delimiter_test_{os.getpid()}_{next(self._numbers)}"
        with self.admin() as connection:
            connection.execute(text(self._create_statement(name)))
        return self.url.set(database=name)

    def drop_database(self, url: URL) -> None:
        with self.admin() as connection:
            connection.execute(text(self._drop_statement(url.database or "")))

    def open_connections(self, url: URL) -> list[str]:
        with self.admin() as connection:
            rows = connection.execute(text(self._connections_statement()), {"name": url.database}).all()
        return [" · ".join(str(value) for value in row) for row in rows]

    @abstractmethod
    def _create_statement(self, name: str) -> str: ...

    @abstractmethod
    def _drop_statement(self, name: str) -> str: ...

    @abstractmethod
    def _connections_statement(self) -> str:
        """Asks for what is connected to ``:name``."""


class PostgreSQL(SqlServer):
    """A PostgreSQL that somebody else runs."""

    name = "postgresql"

    def __init__(self, url: URL) -> None:
        self.url = url

    def _create_statement(self, name: str) -> str:
        return f'CREATE DATABASE "{name}" TEMPLATE template0'

    def _drop_statement(self, name: str) -> str:
        return f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'

    def _connections_statement(self) -> str:
        return (
            "SELECT pid, state, application_name, query FROM pg_stat_activity "
            "WHERE datname = :name AND backend_type = 'client backend'"
        )


class MariaDB(SqlServer):
    """A MariaDB that somebody else runs."""

    name = "mariadb"

    def __init__(self, url: URL) -> None:
        self.url = url

    def drop_database(self, url: URL) -> None:
        # DROP DATABASE would wait for the metadata locks of open transactions: end those connections first.
        with self.admin() as connection:
            end_mariadb_sessions(connection, url.database)
        super().drop_database(url)

    def _create_statement(self, name: str) -> str:
        return f"CREATE DATABASE `{name}`"

    def _drop_statement(self, name: str) -> str:
        return f"DROP DATABASE IF EXISTS `{name}`"

    def _connections_statement(self) -> str:
        return "SELECT id, command, state, info FROM information_schema.processlist WHERE db = :name"


def end_mariadb_sessions(connection: Connection, database: str | None) -> int:
    """Of all that are connected to this database; how many there were."""
    sessions = text("SELECT id FROM information_schema.processlist WHERE db = :name")
    ids = connection.scalars(sessions, {"name": database}).all()
    for number in ids:
        with contextlib.suppress(DBAPIError):  # it may have gone by itself
            connection.execute(text(f"KILL CONNECTION {int(number)}"))
    return len(ids)


class ThrowAwayPostgreSQL(ServerProcess, PostgreSQL):
    account = "postgres"
    death_signal = "QUIT"
    stop_signal = signal.SIGINT

    def __init__(self) -> None:
        self._initdb = binary("initdb", "/usr/lib/postgresql/*/bin", "postgresql")
        self._postgres = binary("postgres", "/usr/lib/postgresql/*/bin", "postgresql")
        super().__init__()

    def _initialise(self) -> None:
        self.url = URL.create(
            "postgresql+psycopg", "postgres", host="127.0.0.1", port=self.port, database="postgres"
        )
        self._run(
            self._initdb, "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8",
            "--locale=C.UTF-8", f"--pgdata={self.data}",
        )  # fmt: skip

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "shared_buffers": "64MB",
        }
        return [
            self._postgres,
            "-D",
            str(self.data),
            *(f"--{key}={value}" for key, value in settings.items()),
        ]


class ThrowAwayMariaDB(ServerProcess, MariaDB):
    account = "mysql"
    death_signal = "KILL"
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self._install = binary("mariadb-install-db", "/usr/bin", "mariadb-server")
        self._mariadbd = binary("mariadbd", "/usr/sbin", "mariadb-server")
        super().__init__()

    def _initialise(self) -> None:
        # Over TCP and without name look-ups the client is 127.0.0.1, for which there is a root of its own.
        self.url = URL.create("mysql+pymysql", "root", host="127.0.0.1", port=self.port, query=NOT_ENCRYPTED)
        self._run(
            self._install, "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.folder}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip

    def _command(self) -> list[str]:
        return [
            self._mariadbd,
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={self.folder}",  # a server that starts removes the temporary tables of all that share the folder
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            "--skip-name-resolve",
            "--max-connections=500",
            "--innodb-buffer-pool-size=128M",
            "--character-set-server=utf8mb4",  # as Debian configures it
            "--collation-server=utf8mb4_general_ci",
        ]


def _start_galera() -> Server:
    from galera import Galera  # its nodes are servers of this module

    return Galera()


def _start_zookeeper() -> Server:
    from zookeeper_servers import ThrowAwayZooKeeper

    return ThrowAwayZooKeeper()


def _own_zookeeper(url: URL) -> Server:
    from zookeeper_servers import ZooKeeper

    return ZooKeeper(url)


_OWN: dict[str, tuple[str, Callable[[URL], Server]]] = {
    "postgresql": ("DELIMITER_TEST_POSTGRESQL_URL", PostgreSQL),
    "mariadb": ("DELIMITER_TEST_MARIADB_URL", MariaDB),
    "zookeeper": ("DELIMITER_TEST_ZOOKEEPER_URL", _own_zookeeper),
}
_THROW_AWAY: dict[str, Callable[[], Server]] = {
    "postgresql": ThrowAwayPostgreSQL,
    "mariadb": ThrowAwayMariaDB,
    "galera": _start_galera,
    "zookeeper": _start_zookeeper,
}


class Servers:
    """The servers of one session, each made when first asked for; why one is missing is remembered."""

    def __init__(self) -> None:
        self._made: dict[str, Server] = {}
        self.missing: dict[str, str] = {}

    def get(self, name: str) -> Server:
        """The server, running. Raises ServerNotAvailable, each time with the reason found the first time."""
        if name in self.missing:
            raise ServerNotAvailable(self.missing[name])
        try:
            if name not in self._made:
                variable, own = _OWN.get(name, ("", MariaDB))
                address = os.environ.get(variable)
                self._made[name] = own(make_url(address)) if address else _THROW_AWAY[name]()
            self._made[name].ensure_running()
        except ServerNotAvailable as reason:
            self.missing[name] = str(reason)
            raise
        return self._made[name]

    def crashes(self) -> dict[str, str]:
        """What has ended, of all that runs for this session, and nobody has told it to."""
        return {how: words for server in self._made.values() for how, words in server.crashes().items()}

    def close(self) -> None:
        for server in self._made.values():
            server.close()
