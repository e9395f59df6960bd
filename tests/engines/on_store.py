"""An engine of a store that has a URL, for the classes that hold it to a part of the suite or to all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from delimiter.conformance.contract import Contract
from delimiter.engine import Engine, OpenOptions, open_engine

__all__ = ["OnSQL", "OnStore"]


class OnStore(Contract):
    """Which store, and how it is empty at each test, says the fixture ``empty_store`` of a class below."""

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
    """One engine on several databases: which one is the name of the class below."""

    store: str

    @pytest.fixture
    def empty_store(self, emptied_url: Callable[[str], str]) -> str:
        return emptied_url(self.store)

    def database(self, engine: Engine) -> sa.Engine:
        return sa.create_engine(self.address)
