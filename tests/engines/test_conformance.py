"""The project's own engines pass the suite that everybody's engine must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from delimiter.conformance import EngineConformance
from delimiter.engine import Engine, OpenOptions, open_engine
from delimiter.engines.zookeeper.engine import ZooKeeperEngine
from engines.on_store import OnSQL, OnStore


class TestMemory(EngineConformance):
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        engine = open_engine("memory://", OpenOptions())
        yield engine
        engine.close()


@pytest.mark.stores("sqlite")
class TestSQLite(OnSQL, EngineConformance):
    store = "sqlite"


@pytest.mark.stores("postgresql")
class TestPostgreSQL(OnSQL, EngineConformance):
    store = "postgresql"


@pytest.mark.stores("mariadb")
class TestMariaDB(OnSQL, EngineConformance):
    store = "mariadb"


@pytest.mark.stores("zookeeper")
class TestZooKeeper(OnStore, EngineConformance):
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
