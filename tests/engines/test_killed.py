"""Who is killed, or vanishes, in the midst of a call: nobody else suffers for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Claim, Conflict, Delimiter, OverLimit, StoreUnavailable
from delimiter.engines.sql import databases


@contextmanager
def considered(engine: sa.Engine) -> Iterator[list[tuple[str, str]]]:
    """Each statement with what MariaDB's optimizer considered for it."""
    found: list[tuple[str, str]] = []

    def trace(connection: Any, _: Any) -> None:
        with closing(connection.cursor()) as cursor:
            cursor.execute(
                "SET SESSION optimizer_trace = 'enabled=on', optimizer_trace_max_mem_size = 16777216"
            )

    def read(connection: sa.Connection, _: Any, statement: str, *_more: Any) -> None:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute("SELECT trace FROM information_schema.optimizer_trace")
            found.extend((statement, str(row[0])) for row in cursor.fetchall())

    sa.event.listen(engine, "connect", trace)
    sa.event.listen(engine, "after_cursor_execute", read)
    try:
        yield found
    finally:
        engine.dispose()


@pytest.mark.stores("mariadb")
def test_who_is_killed_while_sums_are_planned_does_not_take_the_server_along(store_url: str) -> None:
    """Guard: ``group_key``. One of 4,000 ``KILL QUERY`` met MariaDB 10.11.19 considering such a plan."""
    engine = sa.create_engine(store_url)
    with considered(engine) as plans, Delimiter(engine) as quota:
        quota.define_resource("cores", max=40, project_max=20, user_max=9)
        quota.define_resource("ram")
        for project, parent in {"acme": None, "web": "acme", "shop": "web"}.items():
            quota.add_project(project, parent=parent)
        for number in range(4):
            quota.claim({"cores": 2, "ram": 1}, project="shop", user="john", id=f"{number}")
        quota.reserve({"cores": 1, "ram": 1}, project="web", user="mary", expires_in=600)
        quota.usage()
        owners: list[dict[str, Any]] = [{"project": "acme"}, {"project": "shop"}, {"user": "john"}]
        for owner in owners:
            quota.usage(**owner)
            quota.limits(**owner)
            quota.check({"cores": 1, "ram": 1}, **owner)
            quota.explain({"cores": 30, "ram": 1}, **owner)
        with suppress(OverLimit):
            quota.claim({"cores": 2}, project="shop", user="john")
        quota.move_project("shop", parent="acme")
        quota.update_limits("cores", project="web", max=10)
        quota.update_limits("ram", project="acme", max=10)
        assert len(quota.tree()) == 3
        assert list(quota.reconcile(repair=True)) == []
        list(quota.claims())
        list(quota.events())
        quota.resize("1", {"cores": 1})
        quota.transfer("2", project="web", user="mary")
        quota.release("3")
        quota.expire_reservations()
    looked_at = [statement for statement, plan in plans if "check_split_materialized" in plan]
    assert len(looked_at) >= 10, "the optimizer says nothing any more of sums that could be split"
    assert [statement for statement, plan in plans if "choose_best_splitting" in plan] == []


class _StandsStill:
    """Who has locked counters and written a table stands still, as if it had lost the network, until it is let go."""

    def __init__(self, table: str) -> None:
        self._written = f"UPDATE delimiter_{table} "
        self.reached = threading.Event()
        self.let_go = threading.Event()
        self.thread: int | None = None

    def __call__(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.get_ident() == self.thread and statement.startswith(self._written):
            self.reached.set()
            assert self.let_go.wait(60)

    def transfer(self, quota: Delimiter) -> Claim:
        self.thread = threading.get_ident()
        return quota.transfer("held", project="globex")

    def go_on(self) -> None:
        self.thread = None
        self.let_go.set()


@contextmanager
def _standing_still(table: str = "counters") -> Iterator[_StandsStill]:
    still = _StandsStill(table)
    sa.event.listen(sa.Engine, "after_cursor_execute", still)
    try:
        yield still
    finally:
        still.go_on()
        sa.event.remove(sa.Engine, "after_cursor_execute", still)


@dataclass
class _Scene:
    """Somebody whose transactions may stand still for a second, somebody else, and a claim of ``acme``."""

    quota: Delimiter
    other: Delimiter
    pool: ThreadPoolExecutor

    def used(self) -> list[int]:
        """Of ``acme`` and ``globex``; every counter agrees with its claims."""
        assert list(self.other.reconcile()) == []
        return [self.other.usage(project=one)["cores"].used for one in ("acme", "globex")]


@pytest.fixture
def scene(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Scene]:
    monkeypatch.setattr(databases, "_SHORTEST_IDLE", 1.0)
    with (
        Delimiter(store_url, timeout=1) as quota,
        Delimiter(store_url, timeout=10) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.define_resource("cores", project_max=3)
        other.claim({"cores": 1}, project="acme", id="held")
        yield _Scene(quota, other, pool)


@pytest.mark.stores("postgresql", "mariadb")
def test_who_vanishes_holds_no_lock_for_longer_than_a_call(scene: _Scene) -> None:
    """Guard: the server ends a transaction of ours that stands still. It may never be told that a client has gone.

    (A client whose server does not answer gives up by itself, and the packet that would say so is not sent.)
    """
    with _standing_still() as still:
        vanishing = scene.pool.submit(still.transfer, scene.quota)
        assert still.reached.wait(10)
        for _ in range(2):
            scene.other.claim({"cores": 1}, project="acme")
        with pytest.raises(OverLimit):
            scene.other.claim({"cores": 1}, project="acme")
        still.go_on()
        told = vanishing.exception(60)
    assert isinstance(told, Conflict | StoreUnavailable)
    assert scene.used() == [3, 0]
    scene.other.transfer("held", project="globex")
    assert scene.used() == [2, 1]


@pytest.mark.stores("postgresql", "mariadb")
@pytest.mark.parametrize("table", ["claims", "counters"])  # a statement follows, or COMMIT
def test_who_is_held_up_for_too_long_begins_anew(
    scene: _Scene, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The call comes back to find its transaction ended, and is made in another one, once."""
    monkeypatch.setattr(scene.quota, "_timeout", 30.0)
    with _standing_still(table) as still:
        held_up = scene.pool.submit(still.transfer, scene.quota)
        assert still.reached.wait(10)
        scene.other.claim({"cores": 1}, project="acme")  # as soon as the other's locks are gone
        still.go_on()
        assert held_up.result(30).project == "globex"
    assert scene.used() == [1, 1]


@pytest.mark.stores("postgresql", "mariadb")
def test_a_call_may_take_a_hundred_years(store_url: str) -> None:
    """More than servers and drivers take: as long as they do."""
    with Delimiter(store_url, timeout=timedelta(days=36_500)) as quota:
        quota.define_resource("cores", max=2)
    engine = sa.create_engine(store_url)
    with Delimiter(engine, timeout=timedelta(days=36_500)) as quota:
        for _ in range(2):  # the first has a counter made, the second is one statement
            quota.claim({"cores": 1}, user="john")
    engine.dispose()
