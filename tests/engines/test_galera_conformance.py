"""The races of the suite for engines, on a cluster: its two handles are on two nodes, blind to each other's locks."""

from __future__ import annotations

import pytest

from delimiter.conformance.races import RaceContract
from delimiter.conformance.rule_races import RuleRaceContract
from delimiter.engine import Engine, OpenOptions, open_engine
from engines.on_store import OnSQL


@pytest.mark.stores("galera")
class TestGalera(OnSQL, RaceContract, RuleRaceContract):
    @pytest.fixture
    def empty_store(self, addresses: list[str]) -> str:
        self.other_address = addresses[1]
        return addresses[0]

    def open_another(self, engine: Engine) -> Engine:
        another = open_engine(self.other_address, OpenOptions(timeout=60))
        another.clock_offset = engine.clock_offset
        return another
