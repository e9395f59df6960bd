"""A process that begins knows no ways: it reads those of all who came together, and notices what changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, InvalidRequest, OverLimit
from delimiter.engines.sql.store import SqlEngine
from engines.test_arrivals import admit, sound, statements, told


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    """Of a process that begins: the counters are there."""
    with Delimiter(store_url, timeout=30) as before:
        before.define_resource("cores", project_max=10)
        before.define_resource("ram")
        for number in range(20):
            before.claim({"cores": 1, "ram": 1}, project=f"p{number}", user="john")
    with Delimiter(store_url, timeout=30) as quota:
        quota.prepare()
        yield quota


def engine_of(quota: Delimiter) -> SqlEngine:
    assert isinstance(quota._engine, SqlEngine)
    return quota._engine


def before_statement(number: int, do: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something, once, just before the so-many-th statement by which ways are read."""
    real, seen = sa.Connection.execute, list[str]()

    def execute(self: sa.Connection, statement: Any, *args: Any, **kwargs: Any) -> Any:
        text = str(statement)
        if text.startswith("SELECT") and ("counters" in text or "ancestors" in text):
            seen.append(text)
            if len(seen) == number:
                monkeypatch.setattr(sa.Connection, "execute", real)
                do()
        return real(self, statement, *args, **kwargs)

    monkeypatch.setattr(sa.Connection, "execute", execute)


def test_the_ways_of_all_are_read_together(quota: Delimiter) -> None:
    """Whatever their number. Guard: ``Arrivals._gather``; else each project costs some statements of its own."""
    sent_for = []
    for names in (range(2), range(2, 20)):
        changes = [admit(f"c{number}", project=f"p{number}") for number in names]
        with statements() as sent:
            answers = engine_of(quota).apply_each(changes)
        assert told(answers) == [[f"c{number}"] for number in names]
        sent_for.append(len(sent))
    assert sent_for[1] <= sent_for[0]
    assert list(quota.reconcile()) == []


@pytest.mark.parametrize("number", range(1, 5))
def test_a_way_that_changes_while_it_is_read_is_noticed(
    store_url: str, quota: Delimiter, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Guard: generations are read first, then what is above; the other way round the old way had the new generation."""
    changed = list[str]()

    def change() -> None:
        with Delimiter(store_url) as other:
            other.add_project("parent")
            other.update_limits("cores", project="parent", max=2)
            other.add_project("p0", parent="parent")
        changed.append("the way")

    before_statement(number, change, monkeypatch)
    answers = engine_of(quota).apply_each([admit("a", project="p0"), admit("b", project="p0")])
    assert changed
    assert told(answers) == [["a"], OverLimit]
    assert quota.usage(project="parent")["cores"].used == 2
    sound(quota, p0=2)


def test_what_begins_to_be_counted_while_ways_are_read_is_not_claimed(
    store_url: str, quota: Delimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: whether it is counted is looked at after the generations, which are raised when that begins."""
    things = sa.Table("things", sa.MetaData(), sa.Column("project", sa.String(9)))

    def begin() -> None:
        with Delimiter(store_url) as other:
            other.count("ram", sa.func.count(), project=things.c.project)

    engine = engine_of(quota)
    for name in ("cores", "ram"):  # known already, and that nobody counts them
        with engine._transactions.reading() as reading:
            engine._definitions.id_of(reading, name)
    before_statement(1, begin, monkeypatch)
    answers = engine.apply_each([admit("a", project="p0"), admit("b", project="p1")])
    assert all(isinstance(answer, InvalidRequest) for answer in answers)


@pytest.mark.stores("sqlite")
def test_what_is_old_is_gone_before_it_is_said(quota: Delimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the epoch grows afterwards. Before, another thread could keep what is still there as what is new."""
    counters = engine_of(quota)._arrivals._counters
    engine_of(quota).apply_each([admit("a", project="p0"), admit("b", project="p1")])
    seen = list[int]()

    class Watched(dict[Any, Any]):
        def pop(self, *given: Any) -> Any:
            seen.append(counters.epoch)
            return super().pop(*given)

        def update(self, *given: Any, **more: Any) -> None:
            seen.append(counters.epoch)
            super().update(*given, **more)

    old = dict(counters._ways)
    monkeypatch.setattr(counters, "_ways", Watched(old))
    before = counters.epoch
    counters._remember(old)  # nothing new in it
    assert counters.epoch == before
    counters.forget(list(old))
    assert counters.epoch == before + 1
    counters._remember(old)
    counters._remember(dict.fromkeys(old, None))  # type: ignore[arg-type]
    assert counters.epoch == before + 2
    monkeypatch.setattr("delimiter.engines.sql.counters._MOST_REMEMBERED", 0)
    counters._remember(old)  # all were forgotten
    assert counters.epoch == before + 3
    assert seen == [before] * (1 + len(old)) + [before + 1] * 2 + [before + 2]
