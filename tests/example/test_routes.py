"""The example service's routes, one by one, with a worker that is called by the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn
from examples.database_service.api import create_app
from examples.database_service.service import Service
from examples.database_service.settings import Settings
from examples.database_service.worker import Worker

from example.running import assert_settled, picture, volume_of, wanted

pytestmark = pytest.mark.stores("sqlite")


@pytest.fixture
def http(service: Service, settings: Settings) -> Iterator[httpx.Client]:
    """A client of the API, which runs in a thread, on a service of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    server = uvicorn.Server(uvicorn.Config(create_app(Service.open(settings)), log_level="warning"))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def work(service: Service) -> None:
    worker = Worker(service)
    while worker.work_once():
        pass


def created(http: httpx.Client, user: str = "john", key: str = "a", **sizes: Any) -> dict[str, Any]:
    answer = http.post("/clusters", headers={"X-User": user, "Idempotency-Key": key}, json=wanted(**sizes))
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def used(http: httpx.Client, user: str = "john") -> dict[str, int]:
    usage = http.get("/usage", headers={"X-User": user}).json()
    return {name: one["used"] for name, one in usage.items() if one["used"]}


def as_john(http: httpx.Client, method: str, path: str, **arguments: Any) -> Any:
    return http.request(method, path, headers={"X-User": "john"}, **arguments)


@pytest.mark.stores("sqlite", "postgresql", "mariadb")
def test_the_story(service: Service, http: httpx.Client):
    """A cluster of four nodes; the third volume grows, the fourth is deleted; the cluster goes with all of it."""
    assert http.get("/limits", headers={"X-User": "john"}).json() == {
        "database.clusters": 4,
        "database.instances": 25,
        "memory.gb": 10,
        "storage.gb": 20_000,
    }
    cluster = created(http, instances=4, storage_gb=1000)
    assert [instance["state"] for instance in cluster["instances"]] == ["building"] * 4
    full = {"database.clusters": 1, "database.instances": 4, "memory.gb": 4, "storage.gb": 4000}
    assert used(http) == full
    assert picture(service, ["john"]).reserved == {("john", "memory.gb"): 4, ("john", "storage.gb"): 4000}
    work(service)
    assert assert_settled(service, ["john"]).reserved == {}

    volumes = [instance["volumes"][0]["id"] for instance in cluster["instances"]]
    assert as_john(http, "PATCH", f"/volumes/{volumes[2]}", json={"storage_gb": 2000}).status_code == 202
    assert used(http)["storage.gb"] == 5000
    assert as_john(http, "DELETE", f"/volumes/{volumes[3]}").status_code == 202
    assert used(http)["storage.gb"] == 5000  # it is still there
    work(service)
    assert used(http) == {**full, "storage.gb": 4000}
    assert_settled(service, ["john"])

    assert as_john(http, "DELETE", f"/clusters/{cluster['id']}").status_code == 202
    assert used(http)["storage.gb"] == 4000
    work(service)
    assert used(http) == {}
    assert as_john(http, "GET", "/clusters").json() == []
    assert_settled(service, ["john"])


@pytest.mark.parametrize(
    "sizes, resource, available",
    [
        ({"instances": 26, "memory_gb": 1}, "database.instances", 25),
        ({"instances": 11, "memory_gb": 1}, "memory.gb", 10),
        ({"instances": 2, "storage_gb": 10_001}, "storage.gb", 20_000),
    ],
)
def test_over_quota_is_a_403_with_its_numbers(service, http, sizes, resource, available):
    answer = http.post("/clusters", headers={"X-User": "john", "Idempotency-Key": "a"}, json=wanted(**sizes))
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:delimiter:over-limit"
    told = {violation["resource"]: violation["available"] for violation in problem["violations"]}
    assert told[resource] == available
    assert used(http) == {}
    assert picture(service, ["john"]).ids == set()
    created(http, instances=1)  # the same key: a refusal left nothing


def test_the_named_user_has_a_smaller_contract(http):
    created(http, user="amrith", instances=1)
    headers = {"X-User": "amrith", "Idempotency-Key": "b"}
    for instances, refused_by in ((2, "database.instances"), (1, "database.clusters")):
        answer = http.post("/clusters", headers=headers, json=wanted(instances=instances))
        assert answer.status_code == 403
        assert [violation["resource"] for violation in answer.json()["violations"]] == [refused_by]


def test_the_same_key_again_is_the_same_cluster(service, http):
    first = created(http, instances=2)
    headers = {"X-User": "john", "Idempotency-Key": "a"}
    again = http.post("/clusters", headers=headers, json=wanted(instances=2))
    assert (again.status_code, again.json()) == (200, first)
    other = http.post("/clusters", headers=headers, json=wanted(instances=3))
    assert other.status_code == 422
    assert created(http, user="mary", instances=2)["id"] != first["id"]  # another user's key is another key
    work(service)
    as_john(http, "DELETE", f"/clusters/{first['id']}")
    work(service)
    gone = http.post("/clusters", headers=headers, json=wanted(instances=2))
    assert gone.status_code == 410
    assert used(http) == {}


def test_sixteen_equal_requests_at_once_are_one_cluster(service, http):
    """The unique key of the cluster's row decides; taken out, each request has a cluster of its own."""
    headers = {"X-User": "john", "Idempotency-Key": "a"}

    def ask(_: int) -> Any:
        return http.post("/clusters", headers=headers, json=wanted(instances=10))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert used(http)["database.instances"] == 10


def test_a_volume_grows_before_and_shrinks_after_the_real_one(service, http):
    instance = created(http, storage_gb=15_000)["instances"][0]
    path = f"/volumes/{volume_of(service, instance['id'])}"
    too_much = as_john(http, "PATCH", path, json={"storage_gb": 20_001})
    assert too_much.status_code == 403
    assert too_much.json()["violations"][0]["requested"] == 5001
    assert as_john(http, "PATCH", path, json={"storage_gb": 20_000}).status_code == 202
    assert used(http)["storage.gb"] == 20_000
    work(service)
    assert as_john(http, "PATCH", path, json={"storage_gb": 5}).status_code == 202
    assert used(http)["storage.gb"] == 20_000
    work(service)
    assert used(http)["storage.gb"] == 5
    assert_settled(service, ["john"])


def test_an_instance_goes_with_its_volume_and_the_cluster_stays(service, http):
    cluster = created(http, instances=2)
    work(service)
    assert as_john(http, "DELETE", f"/instances/{cluster['instances'][0]['id']}").status_code == 202
    work(service)
    assert used(http) == {
        "database.clusters": 1,
        "database.instances": 1,
        "memory.gb": 1,
        "storage.gb": 100,
    }
    assert_settled(service, ["john"])
    as_john(http, "DELETE", f"/instances/{cluster['instances'][1]['id']}")
    work(service)
    assert used(http) == {"database.clusters": 1}
    as_john(http, "DELETE", f"/clusters/{cluster['id']}")
    assert used(http) == {}


def test_what_is_asked_for_while_it_is_built_is_not_lost(service, http):
    instance = created(http, storage_gb=10)["instances"][0]
    volume = volume_of(service, instance["id"])
    ensure = service.hypervisor.ensure

    def ensure_and_be_overtaken(name: str, kind: str, gb: int) -> Any:
        if kind == "volume" and gb == 10:
            assert as_john(http, "PATCH", f"/volumes/{volume}", json={"storage_gb": 30}).status_code == 202
        return ensure(name, kind, gb)

    service.hypervisor.ensure = ensure_and_be_overtaken
    work(service)
    assert {thing.name: thing.gb for thing in service.hypervisor.things()}[volume] == 30
    assert_settled(service, ["john"])


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("GET", "/clusters/{cluster}", None),
        ("PATCH", "/volumes/{volume}", {"storage_gb": 5}),
        ("DELETE", "/volumes/{volume}", None),
        ("DELETE", "/instances/{instance}", None),
        ("DELETE", "/clusters/{cluster}", None),
    ],
)
@pytest.mark.parametrize("whose", ["nobody's", "another user's"])
def test_what_is_not_yours_is_not_there(service, http, method, path, body, whose):
    cluster = created(http, user="mary")
    instance = cluster["instances"][0]
    ids = {"cluster": cluster["id"], "instance": instance["id"], "volume": instance["volumes"][0]["id"]}
    if whose == "nobody's":
        ids = dict.fromkeys(ids, "none")
    answer = as_john(http, method, path.format(**ids), json=body)
    assert answer.status_code == 404
    assert used(http, "mary")["storage.gb"] == 100


@pytest.mark.parametrize(
    "headers, body",
    [
        ({"X-User": "john"}, wanted()),
        ({"Idempotency-Key": "a"}, wanted()),
        ({"X-User": "John", "Idempotency-Key": "a"}, wanted()),
        ({"X-User": "john", "Idempotency-Key": "a"}, wanted(instances=0)),
        ({"X-User": "john", "Idempotency-Key": "a"}, {**wanted(), "colour": "red"}),
    ],
)
def test_bad_requests_change_nothing(service, http, headers, body):
    assert http.post("/clusters", headers=headers, json=body).status_code == 422
    assert picture(service, ["john"]).ids == set()


def test_what_is_deleted_cannot_be_resized(service, http):
    instance = created(http)["instances"][0]
    volume = volume_of(service, instance["id"])
    as_john(http, "DELETE", f"/volumes/{volume}")
    answer = as_john(http, "PATCH", f"/volumes/{volume}", json={"storage_gb": 5})
    assert (answer.status_code, answer.json()["title"]) == (409, "The volume is deleting.")
    as_john(http, "DELETE", f"/instances/{instance['id']}")
    assert as_john(http, "PATCH", f"/volumes/{volume}", json={"storage_gb": 5}).status_code == 409
    work(service)
    assert used(http) == {"database.clusters": 1}
