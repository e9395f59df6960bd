"""Guards beside guards in another order, beside claims and edits; and on asynchronous connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from delimiter import Conflict, Delimiter, OverLimit, Request, aio
from engines.instances import ROWS, SIZE, Base, Instances, Volume
from engines.service import PLACES, READ_COMMITTED, SERVER_PLACES, Place, until_decided
from servers import by_driver

_COMMITTED = [one for one in SERVER_PLACES if one.values[0].level == READ_COMMITTED]
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+psycopg_async",
    "mariadb": "mysql+asyncmy",
}


@pytest.fixture
def quota(rows: Instances) -> Iterator[Delimiter]:
    with Delimiter(rows.url, timeout=30) as quota:
        for name in (ROWS, SIZE, "storage.gb"):
            quota.define_resource(name, project_max=500)
        rows.counted_by(quota)
        yield quota


@pytest.mark.slow
@pytest.mark.parametrize("place", _COMMITTED)
def test_locks_are_taken_in_one_order(place: Place, quota: Delimiter, rows: Instances) -> None:
    """Guard: `Changes.decide_beside`, which locks what is counted and what is tracked at once, by number.

    In either order of resources, beside claims, moves and changes of limits: no deadlock, and everybody is decided.
    """
    for name, parent in (("top", None), ("acme", "top"), ("zeta", "top")):
        quota.add_project(name, parent=parent)
    quota.update_limits(ROWS, project="top", max=1000)

    def guarded(names: list[str], project: str) -> None:
        with (
            rows.engine.begin() as c,
            quota.guard(dict.fromkeys(names, 1), project=project, user="john", connection=c),
        ):
            rows.add(c, project, "john")

    def work(number: int) -> None:
        project = ("acme", "zeta")[number % 2]
        names = [ROWS, SIZE, "storage.gb"]
        calls: list[Callable[[], Any]] = [
            lambda: guarded(names, project),
            lambda: guarded(names[::-1], project),
            lambda: quota.claim_all([Request({"storage.gb": 1}, project=one) for one in ("zeta", "acme")]),
            lambda: quota.update_limits(ROWS, project=project, max=400 + number),
            lambda: quota.move_project("zeta", parent=None if number % 4 else "top"),
        ]
        for turn in range(5):
            until_decided(noting(calls[(number + turn) % 5]))

    conflicts: list[str] = []

    def noting(call: Callable[[], Any]) -> Callable[[], Any]:
        def noted() -> Any:
            try:
                return call()
            except Conflict as conflict:
                conflicts.append(str(conflict))
                raise

        return noted

    # The counters are there: nobody meets another over making them.
    for project in ("acme", "zeta"):
        guarded([ROWS, SIZE, "storage.gb"], project)
        quota.update_limits(ROWS, project=project, max=400)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(10)))
    # A limit or the tree changed while a guard had locks already: that one begins anew. No deadlock, no lock timeout.
    assert {message for message in conflicts if "have changed since" not in message} == set()
    assert len(rows.rows()) == quota.usage(user="john")[ROWS].used == 22
    assert quota.usage(user="john")["storage.gb"].used == 22
    assert list(quota.reconcile()) == []


@pytest.mark.parametrize("optimistic", [False, True], ids=["locked", "optimistic"])
@pytest.mark.parametrize("place", [one for one in PLACES if one.values[0].level in ("begin", READ_COMMITTED)])
def test_asynchronous_sessions(place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool) -> None:
    """Twelve tasks for three volumes; then what is raised inside, and the session afterwards."""
    Base.metadata.drop_all(rows.engine)
    Base.metadata.create_all(rows.engine)
    quota.define_resource("volumes", project_max=3)
    url = by_driver(rows.url, _DRIVERS[place.store])

    async def create(store: aio.Delimiter, engine: Any, number: int) -> bool:
        while True:
            try:
                async with (
                    AsyncSession(engine) as session,
                    session.begin(),
                    store.guard({"volumes": 1}, project="acme", connection=session, optimistic=optimistic),
                ):
                    session.add(Volume(name=f"v{number}", project_id="acme"))
            except OverLimit:
                return False
            except Conflict:
                continue
            return True

    async def main() -> int:
        engine = create_async_engine(url)
        async with aio.Delimiter(url.render_as_string(hide_password=False), timeout=30) as store:
            await store.count("volumes", sa.func.count(), project=Volume.project_id)
            told = await asyncio.gather(*(create(store, engine, number) for number in range(12)))
            async with AsyncSession(engine) as session, session.begin():
                with pytest.raises(KeyError):  # noqa: PT012 - the guard around it is what raises
                    async with store.guard({"volumes": 1}, project="zeta", connection=session):
                        session.add(Volume(name="gone", project_id="zeta"))
                        raise KeyError
                async with store.guard({"volumes": 1}, project="zeta", connection=session):
                    session.add(Volume(name="kept", project_id="zeta"))
            assert (await store.usage(project="zeta"))["volumes"].used == 1
            assert (await store.usage(project="acme"))["volumes"].used == 3
        await engine.dispose()
        return sum(told)

    try:
        assert asyncio.run(main()) == 3
    finally:
        Base.metadata.drop_all(rows.engine)
