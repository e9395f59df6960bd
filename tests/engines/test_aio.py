"""asyncio: the same functions on asynchronous drivers, in the caller's asynchronous transactions, and in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from delimiter import Claim, Conflict, Event, InvalidRequest, OverLimit, Scope, StoreUnavailable, UnknownClaim
from delimiter.aio import Delimiter
from delimiter.combining import Combiner
from servers import by_driver

pytestmark = pytest.mark.asyncio

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg_async", "mariadb": "mysql+asyncmy"}


@pytest.fixture
def async_url(store_url: str, store_name: str) -> str:
    url = by_driver(store_url, DRIVERS[store_name])
    return url.render_as_string(hide_password=False)


@pytest_asyncio.fixture
async def quota(async_url: str) -> AsyncIterator[Delimiter]:
    async with Delimiter(async_url, timeout=60) as quota:
        await quota.define_resource("a.thing", project_max=10)
        yield quota


@pytest_asyncio.fixture
async def engine(async_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(async_url)
    yield engine
    await engine.dispose()


async def claim_ten_times_too_often(quota: Delimiter) -> list[Claim]:
    claims = (quota.claim({"a.thing": 1}, project="acme") for _ in range(100))
    answers = await asyncio.gather(*claims, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Claim, OverLimit}
    return [answer for answer in answers if isinstance(answer, Claim)]


async def test_a_race_of_tasks_meets_the_limit_exactly(quota: Delimiter) -> None:
    """Guard: the counters' row locks (on SQLite BEGIN IMMEDIATE); without them more than ten are admitted."""
    assert len(await claim_ten_times_too_often(quota)) == 10
    assert (await quota.usage(project="acme"))["a.thing"].used == 10
    assert len([claim async for claim in quota.claims(project="acme")]) == 10
    assert [drift async for drift in quota.reconcile()] == []


async def test_many_tasks_may_make_the_first_call(async_url: str) -> None:
    async with Delimiter(async_url) as quota:
        await asyncio.gather(*(quota.define_resource("a.thing", max=7) for _ in range(8)))
        assert await quota.limits() == {"a.thing": 7}


async def test_every_verb(quota: Delimiter) -> None:
    held = await quota.reserve({"a.thing": 1}, project="acme", expires_in=60, id="held")
    assert held.state == "reserved"
    await quota.renew("held", expires_in=120)
    assert (await quota.provision("held", external_id="i-1")).state == "provisioned"
    assert (await quota.resize("i-1", {"a.thing": 3})).resources == {"a.thing": 3}
    assert (await quota.transfer("i-1", project="other")).project == "other"
    assert not (await quota.check({"a.thing": 8}, project="other")).allowed
    assert await quota.update_limits("a.thing", project="other", max=2)
    await quota.release("held")
    assert (await quota.get_claim("held")).state == "released"
    assert await quota.expire_reservations() == 0
    assert await quota.prune(older_than=0) == 1
    with pytest.raises(UnknownClaim):
        await quota.get_claim("held")


@pytest.mark.parametrize("kind", [AsyncSession, AsyncEngine.connect])
async def test_in_the_callers_transaction(quota: Delimiter, engine: AsyncEngine, kind: type) -> None:
    async with kind(engine) as transaction:
        await quota.claim({"a.thing": 4}, project="acme", connection=transaction)
        await transaction.rollback()
        assert (await quota.usage(project="acme"))["a.thing"].used == 0
        await quota.claim({"a.thing": 4}, project="acme", connection=transaction)
        with pytest.raises(OverLimit):
            await quota.claim({"a.thing": 7}, project="acme", connection=transaction)
        await quota.claim({"a.thing": 6}, project="acme", connection=transaction)
        await transaction.commit()
    assert (await quota.usage(project="acme"))["a.thing"].used == 10


async def test_a_caller_in_autocommit_is_refused(quota: Delimiter, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(InvalidRequest, match="AUTOCOMMIT"):
            await quota.claim({"a.thing": 1}, project="acme", connection=connection)
    assert (await quota.usage(project="acme"))["a.thing"].used == 0


async def test_a_synchronous_connection_is_refused(quota: Delimiter, store_url: str) -> None:
    engine = sa.create_engine(store_url)
    with engine.connect() as connection, pytest.raises(InvalidRequest, match="AsyncConnection"):
        await quota.claim({"a.thing": 1}, project="acme", connection=connection)
    engine.dispose()


async def test_an_async_engine_that_the_service_has(quota: Delimiter, engine: AsyncEngine) -> None:
    async with Delimiter(engine) as joined:
        assert len(await claim_ten_times_too_often(joined)) == 10
    async with engine.connect() as connection:  # closing the quota left the service's engine open
        assert await connection.scalar(sa.text("SELECT 1")) == 1


async def test_a_store_with_a_synchronous_driver_runs_in_threads(store_url: str) -> None:
    """Guard: the counters' row locks, as above."""
    async with Delimiter(store_url, timeout=60) as quota:
        await quota.define_resource("a.thing", project_max=10)
        assert len(await claim_ten_times_too_often(quota)) == 10


async def test_the_loop_goes_on_while_a_claim_waits(
    quota: Delimiter, engine: AsyncEngine, store_name: str
) -> None:
    """A claim that waits for another's lock holds up its own task only."""
    async with engine.connect() as connection:
        await quota.claim({"a.thing": 1}, project="acme", connection=connection)
        waiting = asyncio.create_task(quota.claim({"a.thing": 1}, project="acme"))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not waiting.done()
        await connection.rollback()
        await waiting
    assert (await quota.usage(project="acme"))["a.thing"].used == 1


async def test_a_cancelled_claim_leaves_the_store_usable(
    quota: Delimiter, engine: AsyncEngine, async_url: str
) -> None:
    # SQLite's driver cannot be interrupted while it waits for the file's lock: hence the short timeout.
    async with Delimiter(async_url, timeout=1) as hasty, engine.connect() as connection:
        await hasty.claim({"a.thing": 1}, project="acme", connection=connection)
        waiting = asyncio.create_task(hasty.claim({"a.thing": 1}, project="acme", id="cancelled"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await connection.rollback()
    admitted = await claim_ten_times_too_often(quota)
    held = (await quota.usage(project="acme"))["a.thing"].used
    # Cancelled before its lock was had: either it never was, or it is one of the ten.
    assert (len(admitted), held) in ((10, 10), (9, 10))


@pytest.mark.stores("postgresql", "mariadb")
async def test_the_time_of_a_call_is_over_once(quota: Delimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited in vain for others does not begin anew. Guard: the ``deadline`` that goes with what was waited."""
    await quota.claim({"a.thing": 1}, project="acme")
    combiner = quota._quota._combiner
    monkeypatch.setattr(quota._quota, "_timeout", 0.02)  # over at the first look around
    again: list[Any] = []
    monkeypatch.setattr(Combiner, "apply", lambda *given, **_: again.append(given))
    combiner._begin_turn()  # as if somebody were at work
    with pytest.raises(Conflict, match="not decided within"):
        await quota.claim({"a.thing": 1}, project="acme")
    assert again == []
    assert not combiner._queue


@pytest.mark.stores("postgresql", "mariadb")
async def test_a_cancelled_leader_takes_nobody_with_it(
    quota: Delimiter, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``Engine.shielded``; without it those who wait in the leader's batch are never answered, or in doubt."""
    in_doubt: list[str] = []

    def told(message: str, **more: Any) -> StoreUnavailable:
        in_doubt.append(message)
        return StoreUnavailable(message, **more)

    monkeypatch.setattr("delimiter.combining.StoreUnavailable", told)
    led: list[Any] = []
    decide = Combiner._decide

    def decided(self: Combiner, batch: Any) -> None:
        led.append(batch[0].change)
        decide(self, batch)

    monkeypatch.setattr(Combiner, "_decide", decided)
    for number in range(2):
        await quota.claim({"a.thing": 1}, project="acme", id=f"warm-{number}")
    async with engine.connect() as connection:
        await quota.claim({"a.thing": 1}, project="acme", connection=connection)
        # The first goes at once, and waits for the lock; the second leads those who came meanwhile.
        tasks = [
            asyncio.create_task(quota.claim({"a.thing": 1}, project="acme", id=f"t{n}")) for n in range(5)
        ]
        while not led:
            await asyncio.sleep(0.001)
        assert led[0].claims[0].id == "t1"
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        await connection.rollback()
        others = [task for task in tasks if task is not tasks[1]]
        assert [(await task).id for task in others] == ["t0", "t2", "t3", "t4"]
    assert in_doubt == []
    used = (await quota.usage(project="acme"))["a.thing"].used
    claims = {claim.id async for claim in quota.claims(project="acme")}
    assert {"t0", "t2", "t3", "t4"} <= claims
    assert used == len(claims)


@pytest.mark.stores("postgresql", "mariadb")
async def test_a_cancelled_follower_is_not_charged(quota: Delimiter, engine: AsyncEngine) -> None:
    """Whoever gives up before the batch is sent. Guard: ``Combiner._leave``."""
    async with engine.connect() as connection:
        await quota.claim({"a.thing": 1}, project="acme", connection=connection)
        first = asyncio.create_task(quota.claim({"a.thing": 1}, project="acme"))
        while not quota._quota._combiner._turn:
            await asyncio.sleep(0)
        second = asyncio.create_task(quota.claim({"a.thing": 1}, project="acme"))
        while not quota._quota._combiner._queue:
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await connection.rollback()
        await first
    assert (await quota.usage(project="acme"))["a.thing"].used == 1


@pytest.mark.stores("memory")
async def test_memory(store_url: str) -> None:
    async with Delimiter(store_url) as quota:
        await quota.define_resource("a.thing", project_max=10)
        assert len(await claim_ten_times_too_often(quota)) == 10


async def test_projects_limits_and_events(quota: Delimiter) -> None:
    await quota.add_project("corp")
    await quota.add_project("acme", parent="corp")
    await quota.update_limits("a.thing", project="corp", max=3)
    assert len(await asyncio.gather(*_claims(quota, 5), return_exceptions=True)) == 5
    assert (await quota.usage(project="corp"))["a.thing"].used == 3
    assert [one.id for one in await quota.tree()] == ["corp", "acme"]
    assert not (await quota.explain({"a.thing": 1}, project="acme")).decision.allowed
    await quota.update_limits("a.thing", project="corp", max=1)
    assert [event.kind async for event in quota.events()] == ["limit_changed", "limit_changed", "over_quota"]
    assert await quota.last_event() == 3


def _claims(quota: Delimiter, count: int) -> list[Coroutine[Any, Any, Claim]]:
    return [quota.claim({"a.thing": 1}, project="acme") for _ in range(count)]


async def test_a_subscription_is_told_all_in_order(quota: Delimiter) -> None:
    """By a coroutine that fails once: the same event comes again, and none is left out."""
    seen: list[int] = []
    enough = asyncio.Event()

    async def handle(event: Event) -> None:
        await asyncio.sleep(0)
        if len(seen) == 2 and not enough.is_set():
            enough.set()
            raise ValueError("not now")
        seen.append(event.seq)
        if len(seen) == 6:
            done.set()

    done = asyncio.Event()
    async with await quota.subscribe(handle, after=0) as subscription:
        for limit in range(6):
            await quota.update_limits("a.thing", user="john", max=limit)
        await asyncio.wait_for(done.wait(), 60)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert subscription.seq == 6


@pytest.mark.parametrize("after", [-1, True, "1"])
async def test_a_subscription_begins_at_a_number(quota: Delimiter, after: Any) -> None:
    with pytest.raises(InvalidRequest, match="number of an event"):
        await quota.subscribe(print, after=after)


async def test_limits_of_a_source_are_enforced(async_url: str) -> None:
    """The source may block: it is asked beside the loop, and the store's clock on it."""

    class Contracts:
        def limits(self, scope: Scope) -> dict[str, int]:
            return {"a.thing": 2} if str(scope) == "project:acme" else {}

    async with Delimiter(async_url, limits=Contracts(), timeout=60) as quota:
        await quota.define_resource("a.thing")
        answers = await asyncio.gather(*_claims(quota, 5), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Claim"] * 2 + ["OverLimit"] * 3
        assert await quota.limits(project="acme") == {"a.thing": 2}
