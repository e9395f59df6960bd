"""The pytest plugin: fixtures. pytest loads it where Delimiter is installed; ``-p no:delimiter`` turns it off.

Nothing is opened, and no database library imported, before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import sqlalchemy

    from delimiter import Delimiter, aio
    from delimiter.testing import Clock, Faults, Sandbox


@pytest.fixture
def delimiter_store() -> Any:
    """Where the quota of a test is kept: ``memory://``. Override it with a URL, or with an engine of your service."""
    return "memory://"


@pytest.fixture
def delimiter_sqlite(tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    """An SQLAlchemy engine on a new SQLite file, for the service's own tables and for ``connection=``."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'delimiter.db'}", connect_args={"timeout": 30})
    yield engine
    engine.dispose()


@pytest.fixture
def delimiter_sandbox(delimiter_store: Any) -> Iterator[Sandbox]:
    """The store of this test with all that can be done to it; the fixtures below are its parts."""
    from delimiter.testing import Sandbox

    with Sandbox(delimiter_store) as sandbox:
        yield sandbox


@pytest.fixture
def delimiter_quota(delimiter_sandbox: Sandbox) -> Delimiter:
    """A ``Delimiter`` on an empty store."""
    return delimiter_sandbox.quota


@pytest.fixture
def delimiter_aio_quota(delimiter_sandbox: Sandbox) -> aio.Delimiter:
    """The same store for asyncio (it needs the extra ``asyncio``)."""
    return delimiter_sandbox.aio_quota


@pytest.fixture
def delimiter_clock(delimiter_sandbox: Sandbox) -> Clock:
    """Moves the time of both quotas."""
    return delimiter_sandbox.clock


@pytest.fixture
def delimiter_faults(delimiter_sandbox: Sandbox) -> Faults:
    """Orders failures for both quotas."""
    return delimiter_sandbox.faults
