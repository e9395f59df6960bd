"""Corners of trees and edits where something was wrong once: each test has been seen failing on the code as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, OverLimit, Resource, Scope, UnknownProject, UnknownResource
from delimiter.edits import AddProject, Define, Edit, LimitChange, SetLimit


@contextmanager
def caller(url: str, level: str | None = None) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    if level is not None:
        engine = engine.execution_options(isolation_level=level)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_an_edit_that_was_only_tried_leaves_nothing_in_memory(store_url: str) -> None:
    """The number of a definition that was rolled back may be another's next. Guard: ``Definitions.make_in``."""
    resource = Resource("tried", "tried")
    edits: list[Edit] = [Define(resource), SetLimit("tried", Scope("project", "acme"), LimitChange(max=1))]
    with Delimiter(store_url) as quota:
        assert quota.edit(edits, dry_run=True) == []
        with pytest.raises(UnknownProject):
            quota.edit([*edits, AddProject("web", "nobody")])
        quota.define_resource("real")
        quota.update_limits("real", project="acme", max=5)
        with pytest.raises(UnknownResource):
            quota.claim({"tried": 1}, project="acme")
        quota.define_resource("tried", project_max=7)
        quota.claim({"tried": 6}, project="acme")
        quota.claim({"real": 5}, project="acme")
        assert {name: one.used for name, one in quota.usage(project="acme").items()} == {
            "tried": 6,
            "real": 5,
        }


def test_what_goes_from_a_project_to_its_ancestor_is_counted_once(store_url: str) -> None:
    """Guard: ``Counter.changed`` looks at what comes from below, though the sum stays as it is."""
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("leaf", "top")):
            quota.add_project(name, parent=parent)
        quota.update_limits("cores", project="top", max=10)
        claim = quota.claim({"cores": 10}, project="leaf")
        quota.transfer(claim.id, project="top")
        assert list(quota.reconcile()) == []
        for limit in (None, 10):
            quota.update_limits("cores", project="top", max=limit)
            assert quota.usage(project="top")["cores"].used == 10
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="leaf")


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.stores("postgresql", "mariadb")
def test_an_ancestor_s_first_counter_is_younger_than_the_snapshot(store_url: str, level: str) -> None:
    """Guard: ``_make`` looks whether the transaction sees the ancestors' counters (MariaDB's plain reads lag)."""
    with Delimiter(store_url) as quota, caller(store_url, level) as connection:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("a", "top"), ("b", "top")):
            quota.add_project(name, parent=parent)
        quota.update_limits("cores", project="top", max=10)
        connection.exec_driver_sql("SELECT * FROM delimiter_projects").all()  # the snapshot
        quota.claim({"cores": 10}, project="a")
        with pytest.raises((OverLimit, Conflict)):
            quota.claim({"cores": 10}, project="b", connection=connection)
        connection.rollback()
        assert quota.usage(project="top")["cores"].used == 10
        assert list(quota.reconcile()) == []


def test_an_ancestor_s_counter_that_was_rolled_back_is_not_remembered(store_url: str) -> None:
    """Its number may be given again (SQLite). Guard: ``Counters.change_in`` in ``ways``."""
    with Delimiter(store_url) as quota, caller(store_url) as connection:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("other", None), ("kid", "top")):
            quota.add_project(name, parent=parent)
        quota.update_limits("cores", project="top", max=100)
        quota.update_limits("cores", project="other", max=10)
        quota.claim({"cores": 1}, project="kid", connection=connection)
        quota.claim({"cores": 1}, project="top", connection=connection)
        connection.rollback()
        quota.move_project("top", parent="other")
        quota.claim({"cores": 10}, project="kid")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 90}, project="top")
        assert quota.usage(project="other")["cores"].used == 10


class Said:
    """A source that says what the test wants."""

    def __init__(self) -> None:
        self.limits_of: dict[str, dict[str, int]] = {}

    def limits(self, scope: Scope) -> dict[str, int]:
        return dict(self.limits_of.get(str(scope), {}))


def test_a_way_behind_an_adoption_that_was_rolled_back_is_not_remembered(store_url: str) -> None:
    """Guard: ``Counters.change_in`` in ``Edits.adopt``, which SQLite runs in the caller's transaction."""
    source = Said()
    with (
        Delimiter(store_url) as plain,
        Delimiter(store_url, limits=source) as quota,
        caller(store_url) as connection,
    ):
        plain.define_resource("cores")
        for name, parent in (("top", None), ("mid", "top"), ("kid", "mid")):
            plain.add_project(name, parent=parent)
            plain.claim({"cores": 1}, project=name)
        source.limits_of = {"project:mid": {"cores": 100}}
        quota.claim({"cores": 1}, project="kid", connection=connection)
        connection.rollback()
        source.limits_of = {"project:top": {"cores": 10}}
        quota.usage(project="top")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 90}, project="kid")
        assert list(quota.reconcile()) == []


def test_an_adoption_that_was_rolled_back_is_made_again(store_url: str) -> None:
    """On SQLite it is the caller's to commit. Guard: ``Freshness`` remembers only what was committed."""
    source = Said()
    source.limits_of = {"project:acme": {"cores": 1}}
    with (
        Delimiter(store_url) as plain,
        Delimiter(store_url, limits=source) as quota,
        caller(store_url) as connection,
    ):
        plain.define_resource("cores")
        quota.claim({"cores": 1}, project="acme", connection=connection)
        connection.rollback()
        with pytest.raises(OverLimit):
            quota.claim({"cores": 2}, project="acme")


def test_limits_of_a_source_do_not_lock_a_caller_out_for_ever(store_url: str) -> None:
    """Two first claims in one transaction, whose limits must be written first. Guard: what is postponed."""

    class FiftyEach:
        def limits(self, scope: Scope) -> dict[str, int]:
            return {"cores": 50} if scope.kind == "project" else {}

    with Delimiter(store_url, limits=FiftyEach(), timeout=20) as quota:
        quota.define_resource("cores")
        for _ in range(3):
            with caller(store_url) as connection:
                try:
                    for project in ("a", "b"):
                        quota.claim({"cores": 1}, project=project, connection=connection)
                except Conflict:
                    connection.rollback()
                else:
                    connection.commit()
                    break
        assert quota.usage()["cores"].used == 2


@pytest.mark.parametrize("lost", ["leaf", "top"])
def test_a_lost_counter_is_made_again(store_url: str, lost: str) -> None:
    """Of a project, and of an ancestor, whose way must then be found again from below."""
    with Delimiter(store_url) as quota, caller(store_url) as connection:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("leaf", "top")):
            quota.add_project(name, parent=parent)
        quota.update_limits("cores", project="top", max=10)
        for _ in range(3):
            quota.claim({"cores": 2}, project="leaf")
        connection.exec_driver_sql(f"DELETE FROM delimiter_counters WHERE scope = '{lost}'")
        connection.commit()
        told = [(drift.scope, drift.recorded, drift.actual) for drift in quota.reconcile(repair=True)]
        assert told == [(f"project:{lost}", 0, 6)]
        assert list(quota.reconcile()) == []
        quota.claim({"cores": 4}, project="leaf")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="leaf")
        assert quota.usage(project="top")["cores"].used == 10


def test_a_lost_counter_stops_nobody(store_url: str) -> None:
    """Until it is made again, claims go by a way without it, and then no more.

    Guards: ``Counters._is_way`` asks for all on the way; ``Upkeep._make_again`` raises the generations below.
    """
    with Delimiter(store_url) as quota, caller(store_url) as connection:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("leaf", "top")):
            quota.add_project(name, parent=parent)
        quota.update_limits("cores", project="top", max=10)
        for _ in range(2):
            quota.claim({"cores": 2}, project="leaf")
        connection.exec_driver_sql("DELETE FROM delimiter_counters WHERE scope = 'top'")
        connection.commit()
        quota.claim({"cores": 2}, project="leaf")
        with Delimiter(store_url) as other:
            assert [drift.actual for drift in other.reconcile(repair=True)] == [6]
        with pytest.raises(OverLimit):
            quota.claim({"cores": 5}, project="leaf")


def test_a_way_to_a_counter_that_was_rolled_back_is_not_remembered(store_url: str) -> None:
    """Its number and generation are given again (SQLite), below an ancestor. Guard: ``Counters.change_in``."""
    with Delimiter(store_url) as quota, Delimiter(store_url) as other, caller(store_url) as connection:
        quota.define_resource("cores")
        quota.add_project("top")
        quota.update_limits("cores", project="top", max=5)
        quota.claim({"cores": 1}, project="top")
        for _ in range(2):
            quota.claim({"cores": 1}, project="kid", connection=connection)
        connection.rollback()
        other.add_project("kid", parent="top")
        other.claim({"cores": 1}, project="kid")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 4}, project="kid")
        assert list(quota.reconcile()) == []


def test_an_ancestor_without_a_limit_is_not_charged(store_url: str) -> None:
    """It has a counter, for it has claimed something itself. Guard: ``has_limit`` where ``Counters`` reads ways."""
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        quota.add_project("top")
        quota.add_project("kid", parent="top")
        for project in ("top", "kid", "kid"):
            quota.claim({"cores": 2}, project=project)
        assert quota.usage(project="top")["cores"].used == 6
        assert list(quota.reconcile()) == []


def test_what_a_store_can_count_is_the_limit_of_who_has_none(store_url: str) -> None:
    """``explain`` and ``check`` say the same as a claim."""
    with Delimiter(store_url) as quota:
        quota.define_resource("bytes")
        quota.claim({"bytes": 1}, project="acme")
        asked = {"bytes": 2**63 - 1}
        decision = quota.check(asked, project="acme")
        assert not decision
        assert quota.explain(asked, project="acme").decision == decision
