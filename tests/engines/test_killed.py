"""Who is killed, or vanishes, in the midst of a call: nobody else suffers for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, OverLimit


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
    """Guard: ``GroupKey``. Of 4,000 ``KILL QUERY`` one met MariaDB 10.11.19 while it considered a plan of that kind."""
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
