"""FastAPI over HTTP: a 2xx means that row and claim are committed, everything else that neither is there.

Without `from __future__ import annotations`: FastAPI could not find an alias that is local to a function.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import httpx
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import delimiter.fastapi
from delimiter import Claim, Conflict, InvalidRequest, StoreUnavailable
from delimiter.fastapi import claimed, install
from delimiter.handlers import guarded, transactional
from engines.adopting_service import ONE_INSTANCE, AdoptingService, AsyncSide, Instance

pytestmark = [pytest.mark.asyncio, pytest.mark.stores("sqlite", "postgresql")]


class New(BaseModel):
    id: str
    ram: int = 512


def current_project(project: Annotated[str, Header()]) -> str:
    return project


def id_of(new: New) -> str:
    return new.id


def ram_of(new: New) -> int:
    return new.ram


Project = Annotated[str, Depends(current_project)]
AMOUNTS: dict[str, Any] = {**ONE_INSTANCE, "compute.ram_mb": ram_of}


def add_row(session: Any, claim: Claim, project: str) -> dict[str, str]:
    if claim.id.startswith("bad"):
        raise LookupError(claim.id)
    session.add(Instance(id=claim.id, project=project))
    if claim.id.startswith("two"):
        session.add(Instance(id=f"{claim.id}-more", project=project))
    return {"id": claim.id}


def sync_by_dependency(app: FastAPI, service: AdoptingService) -> None:
    def get_session() -> Iterator[Session]:
        with service.sessions() as session:
            yield session

    in_session = Annotated[Session, Depends(get_session)]
    a_claim = claimed(service.quota, AMOUNTS, project=current_project, id=id_of, session=in_session)

    @app.post("/instances", status_code=201)
    def create(session: in_session, claim: Annotated[Claim, a_claim], project: Project) -> dict[str, str]:
        return add_row(session, claim, project)


def async_by_dependency(app: FastAPI, side: AsyncSide) -> None:
    async def get_session() -> AsyncIterator[AsyncSession]:
        async with side.sessions() as session:
            yield session

    async def all_amounts(new: New) -> dict[str, int]:
        return {**ONE_INSTANCE, "compute.ram_mb": new.ram}

    # The quota and the amounts by dependencies, too; the session by its function.
    a_claim = claimed(
        lambda: side.quota, all_amounts, project=current_project, id=Depends(id_of), session=get_session
    )

    @app.post("/instances", status_code=201)
    async def create(
        session: Annotated[AsyncSession, Depends(get_session)],
        claim: Annotated[Claim, a_claim],
        project: Project,
    ) -> dict[str, str]:
        return add_row(session, claim, project)


def sync_by_decorator(app: FastAPI, service: AdoptingService) -> None:
    amounts: dict[str, Any] = {**ONE_INSTANCE, "compute.ram_mb": lambda new: new.ram}

    @app.post("/instances", status_code=201)
    @transactional(service.sessions, timeout=60)
    @guarded(service.quota, amounts, project="project", id=lambda new: new.id, claim="claim")
    def create(session: Session, claim: Claim, new: New, project: Project) -> dict[str, str]:
        return add_row(session, claim, project)


def async_by_decorator(app: FastAPI, side: AsyncSide) -> None:
    amounts: dict[str, Any] = {**ONE_INSTANCE, "compute.ram_mb": lambda new: new.ram}

    @app.post("/instances", status_code=201)
    @transactional(side.sessions, timeout=60)
    @guarded(side.quota, amounts, project="project", id=lambda new: new.id, claim="claim")
    async def create(session: AsyncSession, claim: Claim, new: New, project: Project) -> dict[str, str]:
        return add_row(session, claim, project)


WAYS: list[Callable[..., None]] = [
    sync_by_dependency,
    async_by_dependency,
    sync_by_decorator,
    async_by_decorator,
]
every_way = pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])


@pytest.fixture
def service(store_url: str) -> Iterator[AdoptingService]:
    with AdoptingService(store_url, limit=5) as service:
        yield service


@asynccontextmanager
async def serving(
    way: Callable[..., None], service: AdoptingService, url: str
) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    app = FastAPI()
    install(app)
    async with AsyncSide(url) as side:
        way(app, side if way.__name__.startswith("async") else service)
        async with client_of(app) as client:
            yield app, client


def client_of(app: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers={"project": "acme"})


async def create(client: httpx.AsyncClient, id: str, **more: Any) -> httpx.Response:
    return await client.post("/instances", json={"id": id, **more}, timeout=60)


async def create_at_once(client: httpx.AsyncClient, ids: list[str]) -> list[httpx.Response]:
    return await asyncio.gather(*(create(client, id) for id in ids))


@every_way
async def test_sixteen_requests_for_five_places(
    way: Callable[..., None], service: AdoptingService, store_url: str
) -> None:
    """Guard: the `quota.guard` around the endpoint; without it there are sixteen rows."""
    async with serving(way, service, store_url) as (_, client):
        answers = await create_at_once(client, [f"vm-{n}" for n in range(16)])
    assert Counter(answer.status_code for answer in answers) == {201: 5, 403: 11}
    created = sorted(answer.json()["id"] for answer in answers if answer.status_code == 201)
    assert service.rows() == service.claims() == created
    assert service.quota.usage(project="acme")["compute.ram_mb"].used == 5 * 512
    service.assert_sound()


@every_way
async def test_the_answer_of_a_refusal(
    way: Callable[..., None], service: AdoptingService, store_url: str
) -> None:
    service.quota.update_limits("compute.ram_mb", project="acme", max=1000)
    service.quota.update_limits("compute.ram_mb", max=1001)
    async with serving(way, service, store_url) as (_, client):
        answer = await create(client, "vm-1", ram=5000)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["type"] == "urn:delimiter:over-limit"
    assert "compute.ram_mb of project acme: 5000 more requested, but only 1000 available" in told["detail"]
    assert [one["scope"] for one in told["violations"]] == ["project:acme"]
    assert "1001" not in answer.text
    assert service.rows() == service.claims() == []


@every_way
async def test_an_endpoint_that_fails_leaves_nothing(
    way: Callable[..., None], service: AdoptingService, store_url: str
) -> None:
    """Guard: claim and rows are in one transaction, which the endpoint's own error rolls back."""
    async with serving(way, service, store_url) as (_, client):
        answers = await create_at_once(client, ["bad-1", "vm-1", "bad-2"])
    assert [answer.status_code for answer in answers] == [500, 201, 500]
    assert service.rows() == service.claims() == ["vm-1"]


@every_way
async def test_more_rows_than_were_asked_for_are_a_refusal(
    way: Callable[..., None], service: AdoptingService, store_url: str
) -> None:
    """Guard: leaving the guard is before the answer, and its OverLimit becomes the answer: two rows, one asked for."""
    async with serving(way, service, store_url) as (_, client):
        answer = await create(client, "two-1")
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:delimiter:over-limit")
        assert service.rows() == service.claims() == []
        answers = await create_at_once(client, [f"vm-{n}" for n in range(8)])
    assert Counter(answer.status_code for answer in answers) == {201: 5, 403: 3}
    assert len(service.rows()) == 5


@every_way
async def test_what_is_answered_is_committed(
    way: Callable[..., None], service: AdoptingService, store_url: str
) -> None:
    """Guard: `scope="function"`; without it a dependency commits when the answer has been sent."""
    there_at_the_start: list[tuple[list[str], list[str]]] = []
    async with serving(way, service, store_url) as (app, _):

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                if message["type"] == "http.response.start":
                    there_at_the_start.append((service.rows(), service.claims()))
                await send(message)

            await app(scope, receive, sending)

        async with client_of(watched) as client:
            assert (await create(client, "vm-1")).status_code == 201
    assert there_at_the_start == [(["vm-1"], ["vm-1"])]


@every_way
@pytest.mark.stores("sqlite")
async def test_a_commit_that_fails_is_no_success(
    way: Callable[..., None], service: AdoptingService, store_url: str
) -> None:
    """Guard: `scope="function"`; without it this is answered with 201."""

    def fail(session: Session) -> None:
        if not session.in_nested_transaction():  # the guard's own savepoint has ended well
            raise sa.exc.OperationalError("COMMIT", {}, Exception("disk full"))

    async with serving(way, service, store_url) as (_, client):
        sa.event.listen(Session, "before_commit", fail)
        try:
            answer = await create(client, "vm-1")
        finally:
            sa.event.remove(Session, "before_commit", fail)
    assert answer.status_code == 500
    assert service.rows() == service.claims() == []


@pytest.mark.stores("postgresql")
async def test_who_waits_does_not_lock_out_the_one_that_is_waited_for(
    service: AdoptingService, store_url: str
) -> None:
    """Guard: `_entered_in_a_thread`; entering in the endpoints' threads, they all wait for one that gets no thread."""
    for name in ONE_INSTANCE:
        service.quota.define_resource(name, project_max=50)
    async with serving(sync_by_dependency, service, store_url) as (_, client):
        anyio.to_thread.current_default_thread_limiter().total_tokens = 4
        answers = await asyncio.wait_for(create_at_once(client, [f"vm-{n}" for n in range(60)]), 20)
    assert Counter(answer.status_code for answer in answers) == {201: 50, 403: 10}
    assert len(service.rows()) == len(service.claims()) == 50


@pytest.mark.stores("sqlite")
async def test_a_conflict_in_the_endpoints_transaction(
    service: AdoptingService, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the dependency the client is told to ask again; by the decorator it is tried again here."""
    really = service.quota.guard
    met: list[str] = []

    def guard(*arguments: Any, **options: Any) -> Any:
        if len(met) % 2 == 0:
            met.append("another")
            raise Conflict("another transaction was in the way: UPDATE secret_table")
        met.append("nobody")
        return really(*arguments, **options)

    monkeypatch.setattr(service.quota, "guard", guard)
    async with serving(sync_by_dependency, service, store_url) as (_, client):
        answer = await create(client, "vm-1")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "secret" not in answer.text
        assert (await create(client, "vm-1")).status_code == 201
    async with serving(sync_by_decorator, service, store_url) as (_, client):
        assert (await create(client, "vm-2")).status_code == 201
    assert met == ["another", "nobody"] * 2
    assert service.rows() == service.claims() == ["vm-1", "vm-2"]


@pytest.mark.stores("sqlite")
async def test_what_the_answer_leaves_out_is_logged(
    service: AdoptingService,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def guard(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the store is not available: connection to 10.0.0.7 refused")

    monkeypatch.setattr(service.quota, "guard", guard)
    async with serving(sync_by_dependency, service, store_url) as (_, client):
        with caplog.at_level(logging.WARNING, logger=delimiter.fastapi.__name__):
            answer = await create(client, "vm-1")
    assert answer.status_code == 503
    assert "10.0.0.7" not in answer.text
    assert [record.getMessage() for record in caplog.records] == [
        "POST /instances: StoreUnavailable: the store is not available: connection to 10.0.0.7 refused"
    ]


@every_way
@pytest.mark.stores("sqlite")
async def test_the_description_shows_what_callers_give(
    way: Callable[..., None], service: AdoptingService, store_url: str
) -> None:
    async with serving(way, service, store_url) as (app, client):
        described = app.openapi()["paths"]["/instances"]["post"]
        assert [one["name"] for one in described["parameters"]] == ["project"]
        body = described["requestBody"]["content"]["application/json"]["schema"]
        assert body["$ref"].endswith("/New")
        assert (await client.post("/instances", json={"ram": 1})).status_code == 422
    assert service.rows() == service.claims() == []


@pytest.mark.stores("sqlite")
async def test_what_fastapi_refuses_after_the_claim_leaves_nothing(service: AdoptingService) -> None:
    """Guard: an error is passed on to the guard and rolls back; were it taken for an end, the claim would be there.

    Dependencies are resolved before the endpoint's own arguments are looked at.
    """
    app = FastAPI()

    def get_session() -> Iterator[Session]:
        with service.sessions() as session:
            yield session
            session.commit()

    a_claim = claimed(service.quota, ONE_INSTANCE, project=current_project, session=get_session)

    @app.post("/instances", dependencies=[a_claim])
    def create(count: int) -> None:
        raise AssertionError("never called here")

    async with client_of(app) as client:
        assert (await client.post("/instances?count=many")).status_code == 422
    assert service.rows() == service.claims() == []


def session() -> None:
    raise AssertionError("never called here")


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"project": None}, "somebody must be charged"),
        ({"project": "acme"}, "project is a dependency: a function that FastAPI may call"),
        ({"project": Annotated[str, "no dependency"]}, "project is a dependency"),
        ({"session": "session"}, "session is a dependency"),
        ({"quota": "memory://"}, "quota is a dependency"),
        ({"resources": {}}, "must not be empty"),
        ({"resources": {"a.thing": 0}}, "from 1 to"),
        ({"resources": {"a.thing": "size"}}, "must be a whole number"),
        ({"resources": {"a.thing": 1, 2: current_project}}, "a resource's name must be a string"),
        ({"resources": ["a.thing"]}, "must be a mapping"),
        ({"expires_in": -1}, "expires_in must be above 0"),
    ],
)
async def test_what_claimed_refuses_at_once(arguments: dict[str, Any], says: str) -> None:
    told: dict[str, Any] = {"quota": lambda: None, "resources": {"a.thing": 1}, "session": session}
    told |= {"project": current_project, **arguments}
    with pytest.raises(InvalidRequest) as refused:
        claimed(told.pop("quota"), told.pop("resources"), **told)
    assert says in str(refused.value)
