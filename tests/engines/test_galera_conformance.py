"""The races of the suite for engines, on a cluster: its two handles are on two nodes, blind to each other's locks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from delimiter.conformance.races import RaceContract
from delimiter.conformance.rule_races import RuleRaceContract
from delimiter.engine import Engine, OpenOptions, open_engine


@pytest.mark.stores("galera")
class TestGalera(RaceContract, RuleRaceContract):
    @pytest.fixture
    def engine(self, addresses: list[str]) -> Iterator[Engine]:
        self.addresses = addresses
        engine = open_engine(addresses[0], OpenOptions(timeout=60))
        yield engine
        engine.close()

    def open_another(self, engine: Engine) -> Engine:
        another = open_engine(self.addresses[1], OpenOptions(timeout=60))
        another.clock_offset = engine.clock_offset
        return another

    def database(self, engine: Engine) -> sa.Engine:
        return sa.create_engine(self.addresses[0])
