"""`guarded` and `transactional` on databases: rows and claims are there together or not at all, sync and async."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from delimiter import Claim, Conflict, OverLimit
from delimiter.handlers import guarded, transactional
from engines.adopting_service import ONE_INSTANCE, AdoptingService, AsyncSide, Instance, kinds

ONE = {**ONE_INSTANCE, "compute.ram_mb": lambda ram: ram}


def fitting(sessions: Any, quota: Any, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Both decorators, as a service writes them."""
    guard = guarded(quota, ONE, project="project", id="id", claim="claim", **options)
    return transactional(sessions, timeout=60)(guard(function))


def create(session: Session, claim: Claim, id: str, project: str, ram: int = 512) -> str:
    session.add(Instance(id=claim.id, project=project))
    session.flush()
    if id.startswith("two"):
        session.add(Instance(id=f"{id}-more", project=project))
    if id.startswith("bad"):
        raise LookupError(id)
    return claim.id


async def create_async(session: AsyncSession, claim: Claim, id: str, project: str, ram: int = 512) -> str:
    session.add(Instance(id=claim.id, project=project))
    await session.flush()
    if id.startswith("two"):
        session.add(Instance(id=f"{id}-more", project=project))
    if id.startswith("bad"):
        raise LookupError(id)
    return claim.id


@pytest.fixture
def service(store_url: str) -> Iterator[AdoptingService]:
    with AdoptingService(store_url, limit=5) as service:
        yield service


def run(service: AdoptingService, url: str, calls: list[tuple[str, str]], *, asynchronous: bool) -> list[Any]:
    """All calls at once, each in a thread or a task; what each returned or raised."""

    async def tasks() -> list[Any]:
        async with AsyncSide(url) as side:
            handler = fitting(side.sessions, side.quota, create_async)
            return await asyncio.gather(*(handler(*call) for call in calls), return_exceptions=True)

    if asynchronous:
        return asyncio.run(tasks())
    handler = fitting(service.sessions, service.quota, create)

    def outcome(call: tuple[str, str]) -> Any:
        try:
            return handler(*call)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_sixteen_calls_for_five_places(service: AdoptingService, store_url: str, asynchronous: bool) -> None:
    """Guard: the `quota.guard` around the handler, in its transaction; without it there are sixteen rows."""
    answers = run(service, store_url, [(f"vm-{n}", "acme") for n in range(16)], asynchronous=asynchronous)
    assert kinds(answers) == {"OverLimit": 11, "done": 5}
    assert service.rows() == service.claims() == sorted(a for a in answers if isinstance(a, str))
    usage = service.quota.usage(project="acme")
    assert (usage["compute.instances"].used, usage["compute.ram_mb"].used) == (5, 5 * 512)
    service.assert_sound()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_handler_that_fails_leaves_nothing(
    service: AdoptingService, store_url: str, asynchronous: bool
) -> None:
    """Guard: claim and rows are in one transaction, which the handler's own error rolls back."""
    answers = run(
        service,
        store_url,
        [("bad-1", "acme"), ("vm-1", "acme"), ("bad-2", "acme")],
        asynchronous=asynchronous,
    )
    assert [type(answer) for answer in answers] == [LookupError, str, LookupError]
    assert service.rows() == service.claims() == ["vm-1"]
    service.assert_sound()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_more_rows_than_were_asked_for(service: AdoptingService, store_url: str, asynchronous: bool) -> None:
    """Guard: the handler runs inside `quota.guard`, which counts again; without it two rows are there for one."""
    calls = [("two-1", "acme"), ("vm-1", "acme")]
    answers = run(service, store_url, calls, asynchronous=asynchronous)
    assert [type(answer) for answer in answers] == [OverLimit, str]
    assert service.rows() == service.claims() == ["vm-1"]


def test_in_a_transaction_of_the_callers(service: AdoptingService) -> None:
    handler = guarded(service.quota, ONE, project="project", id="id", claim="claim")(create)
    with service.sessions.begin() as session:
        for number in range(5):
            handler(session, f"vm-{number}", "acme")
        with pytest.raises(OverLimit):
            handler(session, "vm-5", "acme")
        assert service.claims() == []
    assert service.rows() == service.claims() == [f"vm-{number}" for number in range(5)]


def test_each_attempt_is_a_new_transaction(service: AdoptingService) -> None:
    """Guard: `begin()` is inside the loop; tried again in the same transaction, the first attempt's row is there."""
    seen: list[tuple[int, int]] = []

    @transactional(service.sessions, timeout=60)
    def create_at_the_third_attempt(session: Session) -> None:
        seen.append((id(session), len(session.scalars(sa.select(Instance)).all())))
        session.add(Instance(id=f"vm-{len(seen)}", project="acme"))
        session.flush()
        service.quota.claim({"compute.instances": 1}, project="acme", connection=session)
        held.append(session)  # so that no id comes twice
        if len(seen) < 3:
            raise Conflict("not yet")

    held: list[Session] = []
    create_at_the_third_attempt()
    assert len({number for number, _ in seen}) == 3
    assert [found for _, found in seen] == [0, 0, 0]
    assert service.rows() == ["vm-3"]
    assert len(service.claims()) == 1


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.stores("postgresql")
def test_a_stale_snapshot_is_tried_again(
    service: AdoptingService, store_url: str, asynchronous: bool
) -> None:
    """Guard: the loop around the transaction; without it the caller gets the Conflict."""
    attempts = []

    def meanwhile() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            service.quota.claim({"compute.instances": 1}, project="acme")

    async def look_and_create(session: AsyncSession, id: str) -> None:
        await session.execute(sa.select(Instance))
        meanwhile()
        await opened[0].claim({"compute.instances": 1}, project="acme", id=id, connection=session)
        session.add(Instance(id=id, project="acme"))

    def look_and_create_sync(session: Session, id: str) -> None:
        session.execute(sa.select(Instance))
        meanwhile()
        service.quota.claim({"compute.instances": 1}, project="acme", id=id, connection=session)
        session.add(Instance(id=id, project="acme"))

    opened: list[Any] = []

    async def in_a_loop() -> None:
        async with AsyncSide(store_url) as side:
            opened.append(side.quota)
            engine = side.engine.execution_options(isolation_level="REPEATABLE READ")
            side.sessions.configure(bind=engine)
            await transactional(side.sessions)(look_and_create)("vm-1")

    service.quota.claim({"compute.instances": 1}, project="acme")  # so that its counter is there to be stale
    if asynchronous:
        asyncio.run(in_a_loop())
    else:
        stale = service.engine.execution_options(isolation_level="REPEATABLE READ")
        service.sessions.configure(bind=stale)
        transactional(service.sessions)(look_and_create_sync)("vm-1")
    assert len(attempts) == 2
    assert service.rows() == ["vm-1"]
    assert service.quota.usage(project="acme")["compute.instances"].used == 3


@pytest.mark.stores("postgresql", "mariadb")
def test_a_deadlock_among_the_handlers_own_rows_is_tried_again(service: AdoptingService) -> None:
    """Guard: `as_conflict`; without it one of the two gets the driver's error, for the database breaks the deadlock."""
    with service.sessions.begin() as session:
        session.add_all([Instance(id="a", project="0"), Instance(id="b", project="0")])
    both_hold_one = threading.Barrier(2)
    attempts = []

    @transactional(service.sessions, timeout=60)
    def touch(session: Session, first: str, second: str) -> None:
        attempts.append(first)
        rise = partial(sa.update(Instance).values(project=Instance.project + "1").where, Instance.id == first)
        session.execute(rise())
        if attempts.count(first) == 1:
            both_hold_one.wait(30)
        session.execute(sa.update(Instance).values(project="2").where(Instance.id == second))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(touch, "a", "b"), pool.submit(touch, "b", "a")]:
            done.result(timeout=60)
    assert len(attempts) > 2


def test_an_error_that_would_come_again_is_not_tried_again(service: AdoptingService) -> None:
    """Guard: what the loop catches is Conflict and OperationalError; a key that is there already stays there."""
    attempts = []

    @transactional(service.sessions)
    def create_twice(session: Session) -> None:
        attempts.append(1)
        service.quota.claim({"compute.instances": 1}, project="acme", connection=session)
        session.execute(sa.insert(Instance).values(id="vm-1", project="acme"))
        session.execute(sa.insert(Instance).values(id="vm-1", project="acme"))

    with pytest.raises(sa.exc.IntegrityError):
        create_twice()
    assert attempts == [1]
    assert service.rows() == service.claims() == []


def test_an_engine_opens_connections(service: AdoptingService) -> None:
    @transactional(service.engine, connection="connection")
    @guarded(service.quota, {"compute.instances": 1}, project="project", connection="connection", id="id")
    def create_row(id: str, project: str, *, connection: sa.Connection) -> None:
        connection.execute(sa.insert(Instance).values(id=id, project=project))

    assert list(inspect.signature(create_row).parameters) == ["id", "project"]
    create_row("vm-1", project="acme")
    assert service.rows() == service.claims() == ["vm-1"]


def test_a_reservation_is_provisioned_afterwards(service: AdoptingService) -> None:
    @transactional(service.sessions)
    @guarded(service.quota, {"compute.instances": 1}, user="user", claim="claim", expires_in=600)
    def begin(session: Session, claim: Claim, user: str) -> Claim:
        return claim

    assert begin("john").state == "reserved"
