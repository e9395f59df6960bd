"""Who waits for whom, and decides on what is true then: one transaction is held open, and another one meets it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, InvalidRequest, OverLimit
from delimiter.edits import AdoptLimits
from delimiter.model import Scope
from engines.held_rows import claims, counters, hold, session, waiting

pytestmark = pytest.mark.stores("postgresql", "mariadb")

HOUR = 3_600_000_000


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=20) as quota:
        quota.define_resource("a", project_max=4)
        quota.claim({"a": 1}, project="acme", user="john", id="warm")
        yield quota


def test_a_claim_decides_on_what_it_waited_for(store_url: str, quota: Delimiter) -> None:
    """Guard: the lock in ``Counters._lock``; without it both find room for the last unit."""
    with session(store_url) as caller:
        quota.claim({"a": 2}, project="acme", connection=caller)
        with waiting(store_url, lambda: quota.claim({"a": 2}, project="acme")) as claim:
            caller.commit()
            with pytest.raises(OverLimit):
                claim.result(20)
    assert quota.usage(project="acme")["a"].used == 3


def test_two_first_claims_make_one_counter(store_url: str, quota: Delimiter) -> None:
    """Guard: the unique key of counters; without it each has a counter with the whole limit."""
    with session(store_url) as caller:
        quota.claim({"a": 3}, project="new", connection=caller)
        with waiting(store_url, lambda: quota.claim({"a": 3}, project="new")) as claim:
            caller.commit()
            with pytest.raises(OverLimit):
                claim.result(20)
    assert quota.usage(project="new")["a"].used == 3


def test_an_edit_sums_what_it_waited_for(store_url: str, quota: Delimiter) -> None:
    """Guard: the lock in ``CounterLocks``; without it the counter is written as it was before the claim."""
    with session(store_url) as caller:
        quota.claim({"a": 2}, project="acme", connection=caller)
        with waiting(store_url, lambda: quota.update_limits("a", project="acme", max=3)) as edit:
            caller.commit()
            assert edit.result(20) == []
    assert quota.usage(project="acme")["a"].used == 3
    assert list(quota.reconcile()) == []


def test_two_edits_of_one_limit(store_url: str, quota: Delimiter) -> None:
    """One sets the maximum, one the minimum. Guard: ``Definitions.locked`` against everybody; else one is lost."""
    quota.update_limits("a", project="acme", max=9)
    with session(store_url) as other:
        other.execute(sa.text("SELECT id FROM delimiter_resources FOR UPDATE")).all()
        other.execute(sa.text("UPDATE delimiter_limits SET maximum = 5"))
        with waiting(store_url, lambda: quota.update_limits("a", project="acme", min=1)) as edit:
            other.commit()
            edit.result(20)
    assert quota.limits(project="acme") == {"a": 5}


def test_a_verb_waits_for_its_claim(store_url: str, quota: Delimiter) -> None:
    """Guard: the lock in ``Claims.find``; without it the claim is given back twice."""
    quota.claim({"a": 1}, project="acme", id="once")
    with session(store_url) as caller:
        quota.release("once", connection=caller)
        with waiting(store_url, lambda: quota.release("once")) as release:
            caller.commit()
            release.result(20)
    assert quota.usage(project="acme")["a"].used == 1
    assert list(quota.reconcile()) == []


def test_what_is_replayed_is_held(store_url: str, quota: Delimiter) -> None:
    """Until the caller commits. Guard: ``Claims.replayed`` locks it; else it ends while the caller builds on it."""
    with session(store_url) as caller:
        quota.claim({"a": 1}, project="acme", user="john", id="warm", connection=caller)
        with waiting(store_url, lambda: quota.release("warm")) as release:
            caller.commit()
            release.result(20)
    assert list(quota.claims()) == []


def test_replays_share_what_they_find(store_url: str, quota: Delimiter) -> None:
    """Guard: ``Claims.replayed`` shares the row: who repeats a request waits for nobody who has repeated it."""

    def again(**where: Any) -> str:
        return quota.claim({"a": 1}, project="acme", user="john", id="warm", **where).id

    with session(store_url) as caller, ThreadPoolExecutor(1) as pool:
        assert again(connection=caller) == "warm"
        replay = pool.submit(again)
        try:
            assert replay.result(15) == "warm"
        finally:
            caller.rollback()


def test_a_release_waits_for_what_is_below(store_url: str, quota: Delimiter) -> None:
    """Guard: the lock in ``Claims._lock_keys``; without it the child gives back what it held before."""
    quota.claim({"a": 1}, project="zeta", parent="warm", id="child")
    with session(store_url) as caller:
        quota.resize("child", {"a": 3}, connection=caller)
        with waiting(store_url, lambda: quota.release("warm")) as release:
            caller.commit()
            release.result(20)
    assert quota.usage()["a"].used == 0
    assert list(quota.reconcile()) == []


def test_a_release_finds_what_came_in_between(store_url: str, quota: Delimiter) -> None:
    """Guard: ``Claims.lock_below`` looks again once it has the locks; else the grandchild outlives the release."""
    quota.claim({"a": 1}, project="acme", parent="warm", id="child")
    with session(store_url) as caller:
        quota.claim({"a": 1}, project="zeta", parent="child", id="grandchild", connection=caller)
        with waiting(store_url, lambda: quota.release("warm")) as release:
            caller.commit()
            release.result(20)
    assert [claim.id for claim in quota.claims()] == []


def test_undefining_waits_for_claims_under_way(store_url: str, quota: Delimiter) -> None:
    """Guard: ``Limits.undefine`` locks the counters before it looks for claims."""
    quota.release("warm")
    with session(store_url) as caller:
        quota.claim({"a": 1}, project="acme", connection=caller)
        with waiting(store_url, lambda: quota.undefine_resource("a")) as edit:
            caller.commit()
            with pytest.raises(InvalidRequest):
                edit.result(20)
    assert quota.usage(project="acme")["a"].used == 1
    assert list(quota.reconcile()) == []


def test_removing_a_project_waits_for_claims_under_way(store_url: str, quota: Delimiter) -> None:
    """Guard: ``Moving.remove`` locks the counters before it looks for claims."""
    quota.add_project("kid")
    quota.release(quota.claim({"a": 1}, project="kid").id)
    with session(store_url) as caller:
        quota.claim({"a": 1}, project="kid", connection=caller)
        with waiting(store_url, lambda: quota.remove_project("kid")) as edit:
            caller.commit()
            with pytest.raises(InvalidRequest):
                edit.result(20)
    assert list(quota.reconcile()) == []


def test_a_move_waits_for_first_claims(store_url: str, quota: Delimiter) -> None:
    """Guard: ``Projects.hold``; who only shares the tree misses a counter that is being made, and leaves its load."""
    for name, parent in (("top", None), ("other", None), ("kid", "top")):
        quota.add_project(name, parent=parent)
    quota.update_limits("a", project="other", max=9)
    with session(store_url) as caller:
        quota.claim({"a": 2}, project="kid", connection=caller)
        with waiting(store_url, lambda: quota.move_project("kid", parent="other")) as move:
            caller.commit()
            move.result(20)
    assert quota.usage(project="other")["a"].used == 2
    assert list(quota.reconcile()) == []


def test_a_repair_waits_for_what_is_under_way(store_url: str, quota: Delimiter) -> None:
    """Guard: the lock in ``Upkeep.repair``; without it the counter is written as it should have been before."""
    with session(store_url) as other:
        other.execute(sa.text("UPDATE delimiter_counters SET used = used + 7 WHERE kind = 'user'"))
        other.commit()
    with session(store_url) as caller:
        quota.claim({"a": 2}, user="john", connection=caller)
        with waiting(store_url, lambda: list(quota.reconcile(repair=True))) as repair:
            caller.commit()
            (drift,) = repair.result(20)
    assert (drift.recorded, drift.actual, drift.repaired) == (10, 3, True)
    assert quota.usage(user="john")["a"].used == 3
    assert list(quota.reconcile()) == []


def test_an_edit_at_a_version_keeps_others_out(store_url: str, quota: Delimiter) -> None:
    """Somebody shares the tree, and is about to define something. Guard: ``Edits.make`` holds it, then compares."""
    seen = quota.version()
    share = "FOR SHARE" if "postgresql" in store_url else "LOCK IN SHARE MODE"
    with session(store_url) as other:
        other.exec_driver_sql(f"SELECT * FROM delimiter_tree {share}").all()
        with waiting(store_url, lambda: quota.update_limits("a", project="acme", max=3, if_version=seen)):
            other.rollback()
    assert quota.limits(project="acme") == {"a": 3}


def test_adoptions_of_one_scope_wait_for_each_other(store_url: str, quota: Delimiter) -> None:
    """Guard: the lock in ``Edits._is_newer``; without it the older answer is written last, and stands."""
    scope = Scope("project", "acme")
    quota._engine.adopt(AdoptLimits(scope, {"a": 9}, 10))
    with session(store_url) as other:
        other.execute(sa.text("UPDATE delimiter_adoptions SET as_of = 100"))
        adoption = AdoptLimits(scope, {"a": 2}, 50)
        with waiting(store_url, lambda: quota._engine.adopt(adoption)) as adopting:
            other.commit()
            adopting.result(20)
    assert quota.limits(project="acme") == {"a": 9}


def test_who_numbers_events_waits_for_another(store_url: str, quota: Delimiter) -> None:
    """Guard: the lock in ``EventLog.number``; without it numbers that another has given are given again."""
    quota.update_limits("a", project="acme", max=3)
    with session(store_url) as other:
        other.execute(sa.text("UPDATE delimiter_numbering SET last_seq = 5"))
        with waiting(store_url, lambda: [event.seq for event in quota.events()]) as numbers:
            other.commit()
            assert numbers.result(20) == [6]


# -- what ran out -----------------------------------------------------------------------------------------------


def test_a_sweep_leaves_what_another_one_holds(store_url: str, quota: Delimiter) -> None:
    """Guard: ``SKIP LOCKED`` in ``Expiry._due``; two sweeps would give one reservation back twice, or wait."""
    quota.reserve({"a": 1}, project="acme", id="held", expires_in=60)
    quota.reserve({"a": 1}, project="zeta", id="free", expires_in=60)
    quota._engine.clock_offset = HOUR
    with session(store_url) as other, ThreadPoolExecutor(1) as pool:
        hold(other, "claims", claims(store_url)["held"])
        swept = pool.submit(quota.expire_reservations)
        try:
            assert swept.result(15) == 1
        finally:
            other.rollback()
    assert quota.expire_reservations() == 1


def test_what_was_renewed_meanwhile_is_not_swept(store_url: str, quota: Delimiter) -> None:
    """Guard: ``Ledger.expire`` looks at the time on the locked row; without it a live reservation is taken away."""
    quota.reserve({"a": 3}, project="acme", id="held", expires_in=60)
    with session(store_url) as caller, Delimiter(store_url, timeout=20) as later:
        later._engine.clock_offset = HOUR
        quota.renew("held", expires_in=7200, connection=caller)
        with waiting(store_url, lambda: later.claim({"a": 1}, project="acme")) as claim:
            caller.commit()
            with pytest.raises(OverLimit):
                claim.result(20)
        assert later.get_claim("held").state == "reserved"


def test_a_callers_sweep_waits_for_no_counter(store_url: str, quota: Delimiter) -> None:
    """What ran out is charged to a user whose counter another one holds. Guard: ``wait`` in ``Expiry._sweep``."""
    quota.reserve({"a": 3}, project="acme", user="mary", expires_in=60)
    quota._engine.clock_offset = HOUR
    with (
        session(store_url, isolation_level="READ COMMITTED") as caller,
        session(store_url) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        hold(other, "counters", counters(store_url)[-1])
        claim = pool.submit(lambda: quota.claim({"a": 1}, project="acme", connection=caller))
        try:
            with pytest.raises(Conflict, match="being swept"):
                claim.result(15)
        finally:
            other.rollback()
        caller.rollback()
        quota.claim({"a": 3}, project="acme", connection=caller)
        caller.rollback()
