"""Counted resources over their limits: each crossing is told once, by whoever looks first. And what indexes are for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, InvalidRequest, OverLimit
from engines.instances import ROWS, SIZE, Instances
from engines.service import PLACES, READ_COMMITTED, Place, until_decided

pytestmark = pytest.mark.parametrize(
    "place", [one for one in PLACES if one.values[0].level in ("begin", READ_COMMITTED)]
)


@pytest.fixture
def quota(rows: Instances) -> Iterator[Delimiter]:
    with Delimiter(rows.url, timeout=60) as quota:
        quota.define_resource(ROWS, project_max=4)
        quota.define_resource(SIZE)
        rows.counted_by(quota)
        yield quota


def _told(quota: Delimiter) -> list[tuple[str, str, int | None]]:
    return [(e.kind, e.scope, e.used) for e in quota.events() if e.kind != "limit_changed"]


def _refused(quota: Delimiter, rows: Instances, project: str) -> None:
    with (
        rows.engine.begin() as c,
        pytest.raises(OverLimit),
        quota.guard({ROWS: 1}, project=project, connection=c),
    ):
        pytest.fail("entered")


def test_a_guard_notices(place: Place, quota: Delimiter, rows: Instances) -> None:
    """What was written past every guard, once; and that it is gone again, once."""
    with rows.engine.begin() as c, quota.guard({ROWS: 1}, project="acme", connection=c):
        rows.add(c, "acme")
    rows.add_past_guards("acme", rows=5)
    for _ in range(2):
        _refused(quota, rows, "acme")
    assert _told(quota) == [("over_quota", "project:acme", 6)]
    rows.delete("acme", rows=5)
    for _ in range(2):
        with rows.engine.begin() as c, quota.guard({ROWS: 1}, project="acme", connection=c):
            rows.add(c, "acme")
    assert _told(quota)[1:] == [("back_within_quota", "project:acme", 1)]


def test_refused_guards_notice_once_however_many(place: Place, quota: Delimiter, rows: Instances) -> None:
    """Guard: the mark is compared as it is written (`Crossings.notice`): a refused guard holds no lock."""
    with rows.engine.begin() as c, quota.guard({ROWS: 1}, project="acme", connection=c):
        rows.add(c, "acme")
    rows.add_past_guards("acme", rows=5)
    start = Barrier(16)

    def refused(_: int) -> None:
        start.wait()
        until_decided(lambda: _refused(quota, rows, "acme"))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(refused, range(16)))
    assert _told(quota) == [("over_quota", "project:acme", 6)]


def test_a_change_of_limits_notices(place: Place, quota: Delimiter, rows: Instances) -> None:
    """Of scopes without a counter too; ``update_limits`` answers with who is over."""
    quota.add_project("top")
    quota.add_project("acme", parent="top")
    rows.add_past_guards("acme", "john", rows=4)
    for _ in range(2):
        (over,) = quota.update_limits(ROWS, project="top", max=3)
        assert (over.scope, over.limit, over.used) == ("project:top", 3, 4)
    (over,) = quota.update_limits(ROWS, user="john", max=1)
    (total,) = quota.update_limits(ROWS, max=2)
    assert (over.scope, total.scope) == ("user:john", "total")
    quota.define_resource(ROWS, project_max=2)
    assert sorted(_told(quota)) == [
        ("over_quota", "project:acme", 4),
        ("over_quota", "project:top", 4),
        ("over_quota", "total", 4),
        ("over_quota", "user:john", 4),
    ]
    before = len(_told(quota))
    quota.update_limits(ROWS, max=4)
    quota.update_limits(ROWS, project="top", max=4)
    assert sorted(_told(quota)[before:]) == [
        ("back_within_quota", "project:top", 4),
        ("back_within_quota", "total", 4),
    ]


def test_reconcile_notices_once_however_many_look(place: Place, quota: Delimiter, rows: Instances) -> None:
    """Guard: the counters are locked before they are looked at (`Crossings.look`); without that, several tell of it."""
    rows.add_past_guards("acme", rows=6)
    rows.add_past_guards("zeta", rows=5)
    start = Barrier(16)

    def look(_: int) -> list[Any]:
        start.wait()
        return list(until_decided(lambda: list(quota.reconcile()))[0])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(look, range(16))) == [[]] * 16
        assert sorted(_told(quota)) == [("over_quota", "project:acme", 6), ("over_quota", "project:zeta", 5)]
        rows.delete("acme", rows=6)
        list(pool.map(look, range(16)))
    assert _told(quota)[2:] == [("back_within_quota", "project:acme", 0)]


# --- the tree, and undefining --------------------------------------------------------------------------------------


def test_the_tree_knows_of_rows(place: Place, quota: Delimiter, rows: Instances) -> None:
    """A project with rows neither moves to where there is no room, nor is removed; nor is its resource undefined."""
    for name, parent in (("top", None), ("acme", "top"), ("zeta", None)):
        quota.add_project(name, parent=parent)
    rows.add_past_guards("acme", rows=3)
    rows.add_past_guards("zeta", rows=2)
    with pytest.raises(OverLimit) as refused:
        quota.move_project("zeta", parent="top")
    assert [(v.scope, v.used, v.requested) for v in refused.value.violations] == [("project:top", 3, 2)]
    for call in (lambda: quota.remove_project("zeta"), lambda: quota.undefine_resource(ROWS)):
        with pytest.raises(InvalidRequest):
            call()
    used = {one.id: (one.parent, one.usage[ROWS].used) for one in quota.tree()}
    assert used == {"top": (None, 3), "acme": ("top", 3), "zeta": (None, 2)}
    rows.delete("zeta", rows=2)
    quota.move_project("zeta", parent="top")
    quota.remove_project("zeta")
    rows.delete("acme", rows=3)
    quota.undefine_resource(ROWS)
    assert ROWS not in quota.usage()


# --- indexes -------------------------------------------------------------------------------------------------------


def test_missing_indexes(place: Place, quota: Delimiter, rows: Instances) -> None:
    """The statements it prints run, and then nothing is missing; odd names, and whatever begins with the column."""
    metadata = sa.MetaData()

    def table(name: str, *more: Any) -> sa.Table:
        owners = [sa.Column(owner, sa.String(60)) for owner in ("Owner id", "user")]
        return sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True), *owners, *more)

    tables = [
        table("Odd things", sa.Column("size", sa.Integer)),
        table("indexed", sa.Index("i", "Owner id", "id"), sa.UniqueConstraint("user", "id", name="u")),
    ]
    metadata.drop_all(rows.engine)
    metadata.create_all(rows.engine)
    try:
        for one in tables:
            quota.define_resource(one.name)
            amount = sa.func.sum(one.c.size) if "size" in one.c else sa.func.count()
            quota.count(one.name, amount, project=one.c["Owner id"], user=one.c.user)
        missing = quota.missing_indexes()
        assert [(index.table, index.column) for index in missing] == [
            ("Odd things", "Owner id"),
            ("Odd things", "user"),
        ]
        with rows.engine.begin() as c:
            for index in missing:
                c.exec_driver_sql(index.ddl)
        assert quota.missing_indexes() == []
    finally:
        metadata.drop_all(rows.engine)


_EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN ", "mariadb": "EXPLAIN "}


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_a_guards_sums_use_the_index(
    place: Place, quota: Delimiter, rows: Instances, *, nested: bool
) -> None:
    """Among 20 000 rows of others; the statement is the one that the guard itself sends."""
    quota.add_project("top")
    for name in ("acme", "zeta"):
        quota.add_project(name, parent="top")
    quota.update_limits(ROWS, project="top", max=50)
    sent: list[tuple[str, Any]] = []

    def remember(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM instances" in statement and "sum0" in statement:
            sent.append((statement, parameters))

    others = [{"project_id": f"p{n % 400}", "user_id": f"u{n % 400}", "size": 1} for n in range(20_000)]
    with rows.engine.begin() as c:
        c.execute(sa.insert(rows.table), others)
    with rows.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.exec_driver_sql("ANALYZE TABLE instances" if place.store == "mariadb" else "ANALYZE")
    sa.event.listen(rows.engine, "before_cursor_execute", remember)
    project = "acme" if nested else "top"
    with rows.engine.begin() as c, quota.guard({ROWS: 1}, project=project, user="john", connection=c):
        rows.add(c, "acme", "john")
    sa.event.remove(rows.engine, "before_cursor_execute", remember)
    assert len(sent) == 2
    with rows.engine.connect() as c:
        plan = [tuple(row) for row in c.exec_driver_sql(_EXPLAIN[place.store] + sent[0][0], sent[0][1])]
    text = "\n".join(map(str, plan))
    assert "ix_instances_project_id" in text, text
    assert "ix_instances_user_id" in text, text
    assert "Seq Scan on instances" not in text, text
    assert "SCAN instances" not in text.replace("USING", ""), text
    if place.store == "mariadb":
        assert not [row for row in plan if row[2] == "instances" and row[3] in ("ALL", "index")], text
