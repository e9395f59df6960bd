"""Corners of limits, adoptions and repairs where something was wrong once: each test has been seen failing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, InvalidRequest, OverLimit, Scope
from delimiter.edits import AdoptAncestors, Define, LimitChange, SetLimit
from delimiter.model import Resource


@contextmanager
def caller(url: str, level: str | None = None) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    if level is not None:
        engine = engine.execution_options(isolation_level=level)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


class Said:
    """A source that says what the test wants."""

    def __init__(self, **limits: int) -> None:
        self.of = limits

    def limits(self, scope: Scope) -> dict[str, int]:
        return {"cores": self.of[scope.name]} if scope.name in self.of else {}


def test_an_adoption_meets_a_reservation_that_ran_out(store_url: str) -> None:
    """In a caller's transaction: swept, then written whole. Guard: the savepoint around it (SQLite)."""
    source = Said(acme=10)
    with Delimiter(store_url, limits=source, timeout=5) as quota, caller(store_url) as connection:
        quota.define_resource("cores")
        quota.reserve({"cores": 8}, project="acme", expires_in=60)
        quota._engine.clock_offset += 61_000_000
        source.of = {"acme": 5}
        quota.claim({"cores": 3}, project="acme", connection=connection)
        connection.commit()
        assert quota.usage(project="acme")["cores"].limit == 5
        assert list(quota.reconcile()) == []
        with pytest.raises(OverLimit):
            quota.claim({"cores": 3}, project="acme")
        assert [event.kind for event in quota.events()].count("over_quota") == 0


def test_a_list_tells_of_its_end(store_url: str) -> None:
    """Not of what it passes through. Guard: ``Edits._over_quota`` looks after the last edit."""
    acme = Scope("project", "acme")
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        quota.claim({"cores": 8}, project="acme")
        lowered, raised = (SetLimit("cores", acme, LimitChange(max=limit)) for limit in (2, 100))
        assert quota.edit([lowered, raised]) == []
        assert len(quota.edit([raised, lowered], dry_run=True)) == 1
        quota.update_limits("cores", project="acme", max=None)
        assert quota.edit([Define(Resource("cores", "cores", project_max=5)), raised]) == []


@pytest.mark.stores("mariadb")
def test_a_project_moved_in_since_the_snapshot_makes_no_false_refusal(store_url: str) -> None:
    """What ran out there is not to be seen from the snapshot. Guard: ``Projects.is_present`` in ``in_the_way``."""
    with Delimiter(store_url) as quota, caller(store_url, "REPEATABLE READ") as connection:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("kid", "top"), ("new", None)):
            quota.add_project(name, parent=parent)
        quota.update_limits("cores", project="top", max=10)
        quota.claim({"cores": 1}, project="kid")
        quota.reserve({"cores": 8}, project="new", expires_in=60)
        connection.exec_driver_sql("SELECT * FROM delimiter_projects").all()  # the snapshot
        quota.move_project("new", parent="top")
        quota._engine.clock_offset += 61_000_000
        with pytest.raises(Conflict):
            quota.claim({"cores": 5}, project="kid", connection=connection)
        connection.rollback()
        quota.claim({"cores": 5}, project="kid", connection=connection)
        connection.commit()


def test_an_older_answer_moves_no_ancestor(store_url: str) -> None:
    """Guard: the moment is kept for every name on the path, not only for the project that was asked for."""
    with Delimiter(store_url) as quota:
        quota._engine.adopt(AdoptAncestors("mid", ("new",), 200))
        quota._engine.adopt(AdoptAncestors("leaf", ("mid", "old"), 100))
        assert dict(quota.projects()) == {"new": None, "mid": "new", "leaf": "mid", "old": None}


@pytest.mark.parametrize("used", [0, 2])
def test_a_lost_total_is_made_again(store_url: str, used: int) -> None:
    """Though nothing is claimed: without its counter nobody is held to it."""
    with Delimiter(store_url) as quota, caller(store_url) as connection:
        quota.define_resource("cores", max=3)
        if used:
            quota.claim({"cores": used}, project="acme")
        connection.exec_driver_sql("DELETE FROM delimiter_counters WHERE kind = 'total'")
        connection.commit()
        assert [(one.scope, one.actual) for one in quota.reconcile()] == [("total", used)]
        assert [(one.scope, one.repaired) for one in quota.reconcile(repair=True)] == [("total", True)]
        assert list(quota.reconcile()) == []
        with pytest.raises(OverLimit):
            quota.claim({"cores": 4 - used}, project="acme")


def test_a_project_and_what_is_below_it_are_one_drift(store_url: str) -> None:
    with Delimiter(store_url) as quota, caller(store_url) as connection:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("leaf", "top")):
            quota.add_project(name, parent=parent)
        quota.update_limits("cores", project="top", max=10)
        quota.claim({"cores": 1}, project="top")
        quota.claim({"cores": 2}, project="leaf")
        connection.exec_driver_sql("DELETE FROM delimiter_counters WHERE scope = 'top'")
        connection.commit()
        assert [(one.scope, one.recorded, one.actual) for one in quota.reconcile()] == [("project:top", 0, 3)]
        list(quota.reconcile(repair=True))
        assert list(quota.reconcile()) == []
        assert quota.usage(project="top")["cores"].used == 3


@pytest.mark.stores("postgresql", "mariadb")
def test_the_events_of_a_scope_are_in_order(store_url: str) -> None:
    """A limit is lowered while somebody holds the counter. Guard: it is told of when the counter is locked."""
    with Delimiter(store_url, timeout=60) as quota, caller(store_url) as connection:
        quota.define_resource("cores")
        quota.update_limits("cores", project="acme", max=12)
        ids = [quota.claim({"cores": 3}, project="acme").id for _ in range(3)]
        quota.update_limits("cores", project="acme", max=8)  # over quota
        after = quota.last_event()
        quota.resize(ids[0], {"cores": 2}, connection=connection)  # within again; the counter is held
        lowering = threading.Thread(
            target=quota.update_limits, args=("cores",), kwargs={"project": "acme", "max": 3}
        )
        lowering.start()
        quota.release(ids[1], connection=connection)
        connection.commit()
        lowering.join()
        told = [
            (event.kind, event.previous_limit, event.limit, event.used) for event in quota.events(after=after)
        ]
        assert told == [
            ("back_within_quota", 8, 8, 8),
            ("limit_changed", 8, 3, 5),
            ("over_quota", 8, 3, 5),
        ]


@pytest.mark.stores("postgresql", "mariadb")
def test_an_edit_locks_no_more_than_it_changes(store_url: str) -> None:
    """A description, and limits of one project from outside, wait for nobody else's claims."""

    class Two:
        def limits(self, scope: Scope) -> dict[str, int]:
            return {"cores": 5, "ram": 5} if str(scope) == "project:acme" else {}

    with (
        Delimiter(store_url, timeout=2) as quota,
        Delimiter(store_url, limits=Two(), timeout=2) as sourced,
        caller(store_url) as connection,
    ):
        for name in ("cores", "ram"):
            quota.define_resource(name)
        for project in ("acme", "globex"):
            for _ in range(2):
                quota.claim({"cores": 1, "ram": 1}, project=project)
        quota.claim({"cores": 1, "ram": 1}, project="globex", connection=connection)
        quota.define_resource("cores", description="what a machine thinks with")
        sourced.claim({"cores": 1, "ram": 1}, project="acme")
        assert sourced.limits(project="acme") == {"cores": 5, "ram": 5}
        connection.commit()


def test_what_ran_out_puts_nobody_over_quota(store_url: str) -> None:
    """Swept or not. Guard: ``Bounds._look_for_expired``, before anybody is told."""
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("leaf", "top")):
            quota.add_project(name, parent=parent)
        quota.reserve({"cores": 8}, project="leaf", expires_in=60)
        quota.claim({"cores": 2}, project="leaf")
        quota._engine.clock_offset += 61_000_000
        for name in ("top", "leaf"):
            assert quota.update_limits("cores", project=name, max=5) == []
        quota.define_resource("cores", project_max=4)
        assert [event.kind for event in quota.events()] == ["limit_changed"] * 3


def test_a_project_put_in_its_place_from_outside_brings_no_false_alarm(store_url: str) -> None:
    """What ran out there is swept before anybody is told. Guard: ``Moving._refuse`` for what is admitted anyhow."""
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        quota.add_project("top")
        quota.update_limits("cores", project="top", max=5)
        quota.reserve({"cores": 8}, project="kid", expires_in=60)
        quota._engine.clock_offset += 61_000_000
        quota._engine.adopt(AdoptAncestors("kid", ("top",), 1))
        assert [event.kind for event in quota.events()] == ["limit_changed"]
        assert quota.usage(project="top")["cores"].used == 0


def test_a_repair_brings_no_false_alarm(store_url: str) -> None:
    with Delimiter(store_url) as quota, caller(store_url) as connection:
        quota.define_resource("cores", project_max=5)
        quota.claim({"cores": 1}, project="acme")
        quota.reserve({"cores": 4}, project="acme", expires_in=60)
        connection.exec_driver_sql("UPDATE delimiter_allocations SET amount = 8 WHERE amount = 4")
        connection.commit()
        quota._engine.clock_offset += 61_000_000
        list(quota.reconcile(repair=True))
        assert list(quota.events()) == []
        assert list(quota.reconcile()) == []


def test_a_sum_that_no_counter_can_hold_is_bad_input(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.define_resource("bytes")
        quota.add_project("top")
        for number in range(3):
            quota.add_project(f"k{number}", parent="top")
            quota.claim({"bytes": 2**62}, project=f"k{number}")
        for call in (
            lambda: quota.update_limits("bytes", project="top", max=5),
            lambda: quota.update_limits("bytes", max=7),
            lambda: quota.define_resource("bytes", max=5),
        ):
            with pytest.raises(InvalidRequest, match="more than one counter"):
                call()
        assert quota.usage(project="top")["bytes"].used == 3 * 2**62
        assert list(quota.events()) == []
