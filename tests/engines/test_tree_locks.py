"""Who waits for whom: a first claim for a change of the tree, and the other way round; nobody else for either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, OverLimit


@contextmanager
def caller(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=1) as quota:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("other", None), ("mid", "top"), ("warm", "mid"), ("kid", "mid")):
            quota.add_project(name, parent=parent)
        for name in ("top", "other"):
            quota.update_limits("cores", project=name, max=10)
        for _ in range(2):
            quota.claim({"cores": 1}, project="warm")
        yield quota


def _move(quota: Delimiter) -> None:
    quota.move_project("mid", parent="other")


def _limit(quota: Delimiter) -> None:
    quota.update_limits("cores", project="mid", max=5)


def _default(quota: Delimiter) -> None:
    quota.define_resource("cores", project_max=5)


@pytest.mark.parametrize("edit", [_move, _limit, _default])
def test_an_edit_waits_for_a_first_claim(
    store_url: str, quota: Delimiter, edit: Callable[[Delimiter], None]
) -> None:
    """Its counter is not to be seen yet. Guards: ``Projects.share`` and the shared definition, in ``_make``."""
    with caller(store_url) as connection:
        quota.claim({"cores": 4}, project="kid", connection=connection)
        with pytest.raises(Conflict):
            edit(quota)
        connection.commit()
    edit(quota)
    assert list(quota.reconcile()) == []
    assert quota.usage(project="mid")["cores"].used == 6
    assert quota.usage(project="other")["cores"].used == (6 if edit is _move else 0)


@pytest.mark.stores("postgresql", "mariadb")
def test_a_first_claim_waits_for_a_change_of_the_tree(store_url: str, quota: Delimiter) -> None:
    """And one that has its counters does not. Guard: ``Projects.hold``, played here by another session."""
    with caller(store_url) as connection:
        connection.exec_driver_sql("SELECT * FROM delimiter_tree FOR UPDATE").all()
        quota.claim({"cores": 1}, project="warm")
        with pytest.raises(Conflict):
            quota.claim({"cores": 1}, project="kid")
        with pytest.raises(Conflict):
            _limit(quota)
        connection.rollback()
    quota.claim({"cores": 1}, project="kid")
    assert quota.usage(project="top")["cores"].used == 4


@pytest.mark.stores("postgresql", "mariadb")
def test_a_change_of_the_tree_holds_it(store_url: str, quota: Delimiter) -> None:
    """Two at once could make a circle. Guard: ``Projects.hold``; a session that shares the row keeps it out."""
    with caller(store_url) as connection:
        share = "FOR SHARE" if "postgresql" in store_url else "LOCK IN SHARE MODE"
        connection.exec_driver_sql(f"SELECT * FROM delimiter_tree {share}").all()
        for edit in (
            _move,
            lambda q: q.add_project("new", parent="mid"),
            lambda q: q.remove_project("kid"),
            lambda q: q.set_overbooking("forbidden"),
        ):
            with pytest.raises(Conflict):
                edit(quota)
        connection.rollback()
    _move(quota)


def _defaults(quota: Delimiter, limit: int) -> None:
    quota.define_resource("cores", project_max=limit)


def _total(quota: Delimiter, limit: int) -> None:
    quota.update_limits("cores", max=limit)


def _ancestor(quota: Delimiter, limit: int) -> None:
    quota.update_limits("cores", project="mid", max=limit)


@pytest.mark.parametrize("parent", [None, "first"], ids=["by-one-statement", "step-by-step"])
@pytest.mark.parametrize("edit", [_defaults, _total, _ancestor])
def test_a_first_limit_holds_for_ways_that_are_remembered(
    store_url: str, quota: Delimiter, edit: Callable[[Delimiter, int], None], parent: str | None
) -> None:
    """By another process. Guard: the generations that ``Bounds`` raises when an ancestor, or the total, turns.

    A claim that hangs on another is decided step by step, and again in a new transaction.
    """
    quota.claim({"cores": 1}, project="warm", id="first")
    with Delimiter(store_url) as other:
        edit(other, 5)
    quota.claim({"cores": 2}, project="warm", parent=parent)
    with pytest.raises(OverLimit):
        quota.claim({"cores": 1}, project="kid")
    assert list(quota.reconcile()) == []
