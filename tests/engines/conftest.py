"""What several modules of tests on engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from delimiter import Delimiter
from delimiter.engine import Engine, OpenOptions, open_engine
from engines.instances import Base, Instances, Volume
from engines.service import Place
from galera import Galera


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """Of an empty store of the kind that the test's mark names."""
    engine = open_engine(store_url, OpenOptions(timeout=30))
    yield engine
    engine.close()


@pytest.fixture
def addresses(galera_server: Galera, emptied_url: Callable[[str], str]) -> list[str]:
    """The same empty store by way of each node of Galera."""
    urls = galera_server.urls(sa.make_url(emptied_url("galera")))
    return [url.render_as_string(hide_password=False) for url in urls]


@pytest.fixture
def rows(place: Place, emptied_url: Callable[[str], str]) -> Iterator[Instances]:
    """The service's own table, on each place that the test asks for."""
    with Instances(place, emptied_url(place.store)).created() as rows:
        yield rows


@pytest.fixture
def mapped(rows: Instances) -> Iterator[sa.Engine]:
    """The service's engine, with the tables of its mapped classes."""
    Base.metadata.drop_all(rows.engine)
    Base.metadata.create_all(rows.engine)
    yield rows.engine
    Base.metadata.drop_all(rows.engine)


@pytest.fixture
def volumes(quota: Delimiter, mapped: sa.Engine) -> sa.Engine:
    """The same; two volumes of a project are counted, by a mapped class, in the ``quota`` of the module."""
    quota.define_resource("volumes", project_max=2)
    quota.count("volumes", sa.func.count(), project=Volume.project_id, where=Volume.deleted.is_(False))
    return mapped
