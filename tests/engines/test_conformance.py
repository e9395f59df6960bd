"""The project's own engines pass the suite that everybody's engine must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from delimiter.conformance import EngineConformance
from delimiter.engine import Engine, OpenOptions, open_engine
from delimiter.engines.zookeeper.engine import ZooKeeperEngine


class TestMemory(EngineConformance):
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        engine = open_engine("memory://", OpenOptions())
        yield engine
        engine.close()


class OnStore(EngineConformance):
    """An engine of a store that has a URL; which one, and how it is empty at each test, the classes below say."""

    address = ""

    @pytest.fixture
    def engine(self, empty_store: str) -> Iterator[Engine]:
        self.address = empty_store
        engine = open_engine(self.address, OpenOptions(timeout=60))
        yield engine
        engine.close()

    def open_another(self, engine: Engine) -> Engine:
        another = open_engine(self.address, OpenOptions(timeout=60))
        another.clock_offset = engine.clock_offset
        return another

    def store_url(self, engine: Engine) -> str:
        return self.address


class OnSQL(OnStore):
    """One engine on three databases: which one is the name of the class below."""

    store: str

    @pytest.fixture
    def empty_store(self, emptied_url: Callable[[str], str]) -> str:
        return emptied_url(self.store)

    def database(self, engine: Engine) -> sa.Engine:
        return sa.create_engine(self.address)


@pytest.mark.stores("sqlite")
class TestSQLite(OnSQL):
    store = "sqlite"


@pytest.mark.stores("postgresql")
class TestPostgreSQL(OnSQL):
    store = "postgresql"


@pytest.mark.stores("mariadb")
class TestMariaDB(OnSQL):
    store = "mariadb"


@pytest.mark.stores("zookeeper")
class TestZooKeeper(OnStore):
    """A fresh path for each test: on this store that costs less than to empty one."""

    machine_examples = 12

    @pytest.fixture
    def empty_store(self, database_url: Callable[[str], str]) -> str:
        return database_url("zookeeper")

    def trace(self, engine: Engine) -> object:
        """How many changes the server has seen but those of the clock, which is written by every call."""
        assert isinstance(engine, ZooKeeperEngine)
        client, clock = engine.ground.session.client, engine.ground.layout.clock
        written = client.exists(clock).version
        return client.last_zxid - written
