"""The example service on a fresh store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from examples.database_service.service import Service
from examples.database_service.settings import Settings


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file in which the service is installed: to copy it is faster than to make the tables each time."""
    file = tmp_path_factory.mktemp("template") / "service.db"
    Service.install(
        Settings(database_url=f"sqlite:///{file}", hypervisor=str(file.with_name("hypervisor.db")))
    )
    return file


@pytest.fixture
def settings(store_name: str, store_url: str, tmp_path: Path, _template: Path) -> Settings:
    settings = Settings(
        database_url=store_url,
        hypervisor=str(tmp_path / "hypervisor.db"),
        build_seconds=0.005,
        poll_seconds=0.02,
        lease_seconds=3.0,
    )
    if store_name == "sqlite":
        shutil.copy(_template, sa.make_url(store_url).database or "")
    else:
        Service.install(settings)
    return settings


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    service = Service.open(settings)
    yield service
    service.close()
