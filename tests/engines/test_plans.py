"""A store grows: what was planned for its first rows is planned anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import sqlalchemy as sa

from delimiter import Delimiter
from delimiter.engines.sql import plans
from delimiter.engines.sql.store import SqlEngine

pytestmark = pytest.mark.stores("postgresql")

_NAMES: Final = [f"name-{number}" for number in range(16)]
_MANY: Final = 50_000
_READ: Final = sa.text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'delimiter_claims'")
_GROW: Final = sa.text(
    "INSERT INTO delimiter_claims (claim_id, project_id, state, fingerprint, children, version, created_at)"
    f" SELECT 'bulk-' || n, 'acme', 'provisioned', 'none', 0, 0, 1 FROM generate_series(1, {_MANY}) AS n"
)


@pytest.fixture
def engine(store_url: str) -> Iterator[SqlEngine]:
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        assert isinstance(quota._engine, SqlEngine)
        yield quota._engine


def rows_read(engine: SqlEngine) -> int:
    """How many rows of claims are read from one end to the other, to look for sixteen names."""
    with engine._transactions.own() as own:
        before = own.scalar(_READ) or 0
        assert engine._claims.in_use(own, _NAMES) == set()
        return (own.scalar(_READ) or 0) - before


def test_a_table_that_has_grown_is_not_read_whole(engine: SqlEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the plans of a connection are made anew. The first one is for a table without a row."""
    now = 0.0
    monkeypatch.setattr(plans, "monotonic", lambda: now)
    engine._transactions.dispose()  # the connection that is made now was made at that time
    with engine._transactions.own() as own:
        own.execute(sa.text("ALTER TABLE delimiter_claims SET (autovacuum_enabled = off)"))
    for _ in range(20):
        rows_read(engine)
    with engine._transactions.own() as own:
        own.execute(_GROW)
    assert rows_read(engine) >= _MANY
    now = 2 * plans._LONGEST
    assert rows_read(engine) == 0


def test_they_are_made_anew_less_and_less_often(engine: SqlEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cursor:
        def execute(self, statement: str) -> None:
            sent.append((now, statement))

        def close(self) -> None:
            pass

    sent: list[tuple[float, str]] = []
    now = 0.0
    monkeypatch.setattr(plans, "monotonic", lambda: now)
    with engine._transactions.reading() as reading:
        reading.info.clear()
        driver: Any = reading.connection
        monkeypatch.setattr(driver, "cursor", Cursor)
        for second in range(241):
            now = float(second)
            plans.Plans(engine._transactions.database).renew(reading)
    assert [at for at, _ in sent] == [1, 3, 7, 15, 31, 63, 123, 183]
    assert {statement for _, statement in sent} == {"DISCARD PLANS"}
