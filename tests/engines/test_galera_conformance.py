"""The races of the suite for engines, on a cluster: its two handles are on two nodes, blind to each other's locks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from delimiter.conformance.races import RaceContract
from delimiter.conformance.rule_races import RuleRaceContract
from delimiter.engine import Engine, OpenOptions, open_engine
from galera import Galera


@pytest.mark.stores("galera")
class TestGalera(RaceContract, RuleRaceContract):
    @pytest.fixture
    def engine(self, emptied_url: Callable[[str], str], galera_server: Galera) -> Iterator[Engine]:
        url = sa.make_url(emptied_url("galera"))
        self.addresses = [one.render_as_string(hide_password=False) for one in galera_server.urls(url)]
        engine = open_engine(self.addresses[0], OpenOptions(timeout=60))
        yield engine
        engine.close()

    def open_another(self, engine: Engine) -> Engine:
        another = open_engine(self.addresses[1], OpenOptions(timeout=60))
        another.clock_offset = engine.clock_offset
        return another

    def database(self, engine: Engine) -> sa.Engine:
        return sa.create_engine(self.addresses[0])
