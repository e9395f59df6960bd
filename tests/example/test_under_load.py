"""The example service as it is run: 64 clients, an API, and workers that are killed at random moments.

At every moment no limit is passed: not in the service's rows, not in what Delimiter says, not in what really exists.
When the dust has settled all three agree exactly, and when everything is deleted nothing is left.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest
from examples.database_service.service import Service
from examples.database_service.sweeper import sweep

from engines.service import eventually
from example.running import Picture, Processes, assert_settled, picture, wanted, work_left

CLIENTS = 64
REQUESTS = 2  # of each client
USERS = [*(f"user-{number}" for number in range(7)), "amrith"]
#: Of the whole deployment, less than its users may have together: so they fight for it.
INSTANCES, STORAGE_GB = 40, 60_000


class Client:
    """Creates, resizes and deletes what its user has, at random; several clients are the same user."""

    def __init__(self, http: httpx.AsyncClient, number: int) -> None:
        self._http = http
        self._dice = random.Random(number)
        self._number = number
        self._headers = {"X-User": USERS[number % len(USERS)]}
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        for step in range(REQUESTS):
            key = f"{self._number}-{step}"
            await self._create(key)
            await self._do_something()

    async def _create(self, key: str) -> None:
        sizes = wanted(
            instances=self._dice.randint(1, 4), storage_gb=self._dice.choice([100, 1000, 5000]), name=key
        )
        times = self._dice.choice([1, 1, 2])  # some ask twice, at the same time, with the same key
        headers = {**self._headers, "Idempotency-Key": key}
        both = [self._http.post("/clusters", headers=headers, json=sizes) for _ in range(times)]
        answers = await asyncio.gather(*both)
        # Asked twice, the second may come so late that somebody of the same user has deleted what the first has made.
        expected = {200, 202, 403} if times == 1 else {200, 202, 403, 410}
        for answer in answers:
            self._note("create", answer, expected)
        made = {answer.json()["id"] for answer in answers if answer.is_success}
        assert len(made) <= 1

    async def _do_something(self) -> None:
        answer = await self._http.get("/clusters", headers=self._headers)
        self._note("list", answer, {200})
        clusters = answer.json()
        if not clusters:
            return
        cluster = self._dice.choice(clusters)
        what = self._dice.choice(["resize", "resize", "volume", "instance", "cluster"])
        if what == "cluster" or not cluster["instances"]:
            await self._change("delete", f"/clusters/{cluster['id']}")
            return
        instance = self._dice.choice(cluster["instances"])
        if what == "instance" or not instance["volumes"]:
            await self._change("delete", f"/instances/{instance['id']}")
            return
        path = f"/volumes/{instance['volumes'][0]['id']}"
        if what == "volume":
            await self._change("delete", path)
        else:
            await self._change("patch", path, json={"storage_gb": self._dice.choice([50, 2000, 9000])})

    async def _change(self, method: str, path: str, **arguments: Any) -> None:
        answer = await self._http.request(method, path, headers=self._headers, **arguments)
        # Somebody else of the same user may have deleted it meanwhile.
        self._note(method, answer, {202, 403, 404, 409})

    def _note(self, what: str, answer: httpx.Response, expected: set[int]) -> None:
        assert answer.status_code in expected, (what, answer.status_code, answer.text)
        self.answers[f"{what} {answer.status_code}"] += 1


class Watcher:
    """Looks at it all, all the time, and writes down every limit that is passed."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._totals = {"database.instances": INSTANCES, "storage.gb": STORAGE_GB, "database.clusters": 300}
        self._limits = {
            (user, resource): limit
            for user in USERS
            for resource, limit in service.quota.limits(user=user).items()
        }
        self.looks = 0
        self.violations: list[str] = []

    def look(self) -> Picture:
        seen = picture(self._service, USERS)
        for name in ("rows", "usage", "real"):
            amounts = getattr(seen, name)
            for key, amount in amounts.items():
                if amount > self._limits.get(key, 2**63):
                    self.violations.append(f"{name}: {key} has {amount} of {self._limits[key]}")
        # Each user's usage is read for itself; in the rows and in what exists a sum is of one moment.
        for name in ("rows", "real"):
            for resource, limit in self._totals.items():
                total = sum(n for (_, of), n in getattr(seen, name).items() if of == resource)
                if total > limit:
                    self.violations.append(f"{name}: {total} {resource} in all, of {limit}")
        for resource, usage in self._service.quota.usage().items():
            if usage.limit != -1 and usage.used > usage.limit:
                self.violations.append(f"usage: {usage.used} {resource} in all, of {usage.limit}")
        self.looks += 1
        return seen

    def keep_looking(self, stop: Event) -> None:
        while not stop.wait(0.02):
            self.look()


async def everybody(url: str) -> Counter[str]:
    limits = httpx.Limits(max_connections=2 * CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        clients = [Client(http, number) for number in range(CLIENTS)]
        await asyncio.gather(*(client.run() for client in clients))
    return sum((client.answers for client in clients), Counter())


def delete_everything(url: str) -> None:
    with httpx.Client(base_url=url, timeout=120) as http:
        for user in USERS:
            for cluster in http.get("/clusters", headers={"X-User": user}).raise_for_status().json():
                http.delete(f"/clusters/{cluster['id']}", headers={"X-User": user}).raise_for_status()


@pytest.mark.slow
@pytest.mark.leaves_connections
@pytest.mark.stores("sqlite", "postgresql")
def test_quota_is_never_passed_and_nothing_leaks(service: Service):
    """Taken out, each makes it fail: the guard around new instances (rows pass the limit), and the names of things,
    chosen by the service (they leak)."""
    service.quota.update_limits("database.instances", max=INSTANCES)
    service.quota.update_limits("storage.gb", max=STORAGE_GB)
    watcher = Watcher(service)
    stop = Event()
    with Processes(service, workers=3) as running, ThreadPoolExecutor(2) as pool:
        running.answering()
        watching = pool.submit(watcher.keep_looking, stop)
        killing = pool.submit(running.keep_killing, stop, seed=1)
        try:
            answers = asyncio.run(everybody(running.url))
        finally:
            stop.set()
        killed = killing.result()
        watching.result()

        eventually(lambda: work_left(service) == 0, what="all work done", within=60)
        watcher.look()
        assert not sweep(service)
        assert assert_settled(service, USERS).ids, "nothing was made"
        delete_everything(running.url)
        eventually(lambda: work_left(service) == 0, what="all work done", within=60)
        seen = assert_settled(service, USERS)
    assert (seen.rows, seen.usage, seen.real, seen.claims, seen.things) == ({}, {}, {}, set(), set())
    assert watcher.violations == []
    print(f"{watcher.looks} looks, {killed} workers killed, {dict(sorted(answers.items()))}")  # noqa: T201
    assert answers["create 202"]
    assert answers["create 403"]
    assert killed
    assert watcher.looks > 10
