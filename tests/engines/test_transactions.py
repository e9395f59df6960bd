"""Transactions of the store's own and of callers: time in them, waits in them, and a COMMIT without an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, StoreUnavailable
from engines.held_rows import counters, hold, session
from engines.service import eventually


@pytest.fixture
def service(store_url: str) -> Iterator[sa.Engine]:
    """An engine of the service's own."""
    engine = sa.create_engine(store_url)
    yield engine
    engine.dispose()


def test_time_goes_on_within_a_transaction(service: sa.Engine) -> None:
    """A caller's transaction lasts longer than a reservation lives. Guard: ``Database.now`` is of the statement."""
    with Delimiter(service) as quota, service.connect() as connection:
        quota.define_resource("a")
        quota.reserve({"a": 1}, project="acme", expires_in=0.1, connection=connection)
        used = lambda: quota.usage(project="acme", connection=connection)["a"].used  # noqa: E731
        eventually(lambda: used() == 0, what="the reservation runs out", within=15)


def test_a_commit_without_an_answer_is_in_doubt(service: sa.Engine) -> None:
    """Guard: ``Transactions.own`` says so; what failed before COMMIT is not in doubt."""
    lost: list[str] = []

    @sa.event.listens_for(service, "commit")
    def lose(_connection: sa.Connection) -> None:
        if lost:
            raise sa.exc.OperationalError("COMMIT", {}, Exception("the server closed the connection"))

    with Delimiter(service, timeout=0.5) as quota:
        quota.define_resource("a")
        lost.append("every answer")
        with pytest.raises(StoreUnavailable, match="it may have happened") as caught:
            quota.claim({"a": 1}, project="acme", id="mine")
        assert (caught.value.in_doubt, caught.value.claim_id) == (True, "mine")


@pytest.mark.stores("postgresql", "mariadb")
@pytest.mark.parametrize(
    "call",
    [lambda quota: quota.claim({"a": 1}, project="acme"), lambda quota: quota.release("first")],
    ids=["by-one-statement", "step-by-step"],
)
def test_waits_on_a_services_engine_are_bounded(
    store_url: str, service: sa.Engine, call: Callable[[Delimiter], object]
) -> None:
    """It was made without any bound. Guard: ``Transactions._bounded_waits``; else the call hangs with the other one.

    What is done by one statement bounds its wait itself.
    """
    with Delimiter(service, timeout=1) as quota, session(store_url) as holder, ThreadPoolExecutor(1) as pool:
        quota.define_resource("a")
        quota.claim({"a": 1}, project="acme", id="first")
        hold(holder, "counters", counters(store_url)[0])
        called = pool.submit(call, quota)
        try:
            with pytest.raises(Conflict):
                called.result(20)
        finally:
            holder.rollback()
