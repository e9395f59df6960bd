"""What is released or transferred as a whole is judged by one moment, however long its locks took."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, Request
from engines.service import assert_sound, eventually, waiting_for_locks


@pytest.mark.stores("postgresql", "mariadb")
def test_a_release_that_waited_for_what_is_below(store_url: str):
    """While it waits, both reservations run out, and the one below is swept: then both have expired, not only that one.

    Guard: the clock is read again once everything below is locked.
    """
    waiting = waiting_for_locks(store_url)
    engine = sa.create_engine(store_url)
    with Delimiter(store_url) as quota, Delimiter(store_url) as later, ThreadPoolExecutor(1) as pool:
        quota.define_resource("cores", project_max=1)
        quota.define_resource("ram")
        above = Request({"ram": 1}, project="acme", id="above", expires_in=60)
        quota.claim_all(
            [above, Request({"cores": 1}, project="acme", id="below", parent="above", expires_in=60)]
        )
        later._engine.clock_offset += 61_000_000
        with engine.connect() as connection:
            later.claim({"cores": 1}, project="acme", connection=connection)  # sweeps the one below
            released = pool.submit(quota.release, "above")
            eventually(lambda: waiting() == 1, what="the release waits")
            quota._engine.clock_offset += 61_000_000
            connection.commit()
        released.result(20)
        assert {id: quota.get_claim(id).state for id in ("above", "below")} == {
            "above": "expired",
            "below": "expired",
        }
        assert_sound(quota)
    engine.dispose()
