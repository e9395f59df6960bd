"""In which order rows are locked: counters and claims from the lowest number, claims before counters.

One row is held; whoever needs it and another one waits. Which of the others it holds meanwhile tells its order.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from delimiter import Conflict, Delimiter, OverLimit
from delimiter.edits import LimitChange, SetLimit
from delimiter.model import Scope
from engines.held_rows import claims, counters, hold, is_held, session, waiting
from engines.instances import ROWS, Instances
from engines.service import READ_COMMITTED, Place

pytestmark = pytest.mark.stores("postgresql", "mariadb")

#: A claim that hangs on another is decided step by step, any other by one statement.
either_way = pytest.mark.parametrize("parent", [None, "warm"], ids=["by-one-statement", "step-by-step"])


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=20) as quota:
        for name in ("a", "b"):
            quota.define_resource(name)
        quota.claim({"a": 1, "b": 1}, project="acme", id="warm")
        yield quota


@either_way
def test_counters_are_locked_from_the_lowest(store_url: str, quota: Delimiter, parent: str | None) -> None:
    """Guard: ``ORDER BY`` in ``Counters._lock`` and in the one statement (on MariaDB, the primary key)."""
    low, high = counters(store_url)
    with session(store_url) as holder:
        hold(holder, "counters", high)
        with waiting(store_url, lambda: quota.claim({"b": 1, "a": 1}, project="acme", parent=parent)):
            held = is_held(store_url, "counters", low)
            holder.rollback()
    assert held
    assert quota.usage()["a"].used == 2


def test_edits_lock_counters_from_the_lowest(store_url: str, quota: Delimiter) -> None:
    """Guard: ``ORDER BY`` in ``CounterLocks``."""
    quota.claim({"a": 1}, project="zeta")
    low, *_, high = counters(store_url)
    with session(store_url) as holder:
        hold(holder, "counters", high)
        with waiting(store_url, lambda: quota.define_resource("a", project_max=5)):
            held = is_held(store_url, "counters", low)
            holder.rollback()
    assert held
    assert quota.limits(project="zeta")["a"] == 5


def test_a_list_of_edits_locks_all_before_the_first(store_url: str, quota: Delimiter) -> None:
    """Guard: ``Edits._lock_what_they_touch``; edit by edit, the second counter would be locked before the first."""
    low, high = counters(store_url)
    edits = [SetLimit(name, Scope("project", "acme"), LimitChange(max=9)) for name in ("b", "a")]
    with session(store_url) as holder:
        hold(holder, "counters", low)
        with waiting(store_url, lambda: quota.edit(edits)):
            held = is_held(store_url, "counters", high)
            holder.rollback()
    assert not held
    assert quota.limits(project="acme") == {"a": 9, "b": 9}


@either_way
def test_who_waits_for_an_id_holds_no_counter(store_url: str, quota: Delimiter, parent: str | None) -> None:
    """Guard: ``_Attempt.decide`` places the rows of new claims, and may wait at their unique key, before counters.

    So does the one statement.
    """
    (low, _) = counters(store_url)
    quota.claim({"a": 1}, project="zeta")
    with session(store_url) as holder:
        quota.claim({"a": 1}, project="zeta", id="one", connection=holder)
        with waiting(store_url, lambda: quota.claim({"a": 1}, project="acme", id="one", parent=parent)):
            held = is_held(store_url, "counters", low)
            holder.rollback()
    assert not held
    assert quota.get_claim("one").project == "acme"


def test_claims_are_locked_from_the_lowest(store_url: str, quota: Delimiter) -> None:
    """Guard: ``ORDER BY`` in ``Claims._lock_keys``."""
    for id in ("first", "second"):
        quota.claim({"a": 1}, project="acme", parent="warm", id=id)
    keys = claims(store_url)
    with session(store_url) as holder:
        hold(holder, "claims", keys["second"])
        with waiting(store_url, lambda: quota.release("warm")):
            held = is_held(store_url, "claims", keys["first"])
            holder.rollback()
    assert held
    assert quota.usage()["a"].used == 0


def test_a_lower_counter_is_not_locked_late(store_url: str, quota: Delimiter) -> None:
    """A decision that is begun again holds a counter; the one that its way has got since is a lower one.

    Guard: ``Counters.lock`` refuses that; two callers could wait for each other in a circle.
    """
    quota.add_project("acme")
    quota.add_project("kid", parent="acme")
    for _ in range(2):  # the second one remembers the way
        quota.claim({"a": 1}, project="kid")
    with Delimiter(store_url) as other:
        other.update_limits("a", project="acme", max=4)
    with session(store_url, isolation_level="READ COMMITTED") as connection:
        with pytest.raises(Conflict, match="start it anew"):
            quota.claim({"a": 1}, project="kid", connection=connection)
        connection.rollback()
        quota.claim({"a": 1}, project="kid", connection=connection)
        connection.commit()
    with pytest.raises(OverLimit):
        quota.claim({"a": 1}, project="kid")


def test_no_counter_is_made_beside_held_ones(store_url: str, quota: Delimiter) -> None:
    """The project was removed meanwhile, and its counter with it; the user's is held already.

    Guard: ``Counters.ways`` refuses to make one then: who does locks the tree and the definition, which come first.
    """
    quota.add_project("kid")
    for id in ("one", "two"):  # the second one remembers the way
        quota.claim({"a": 1}, project="kid", user="john", id=id)
    with Delimiter(store_url) as other:
        for id in ("one", "two"):
            other.release(id)
        other.remove_project("kid")
    with session(store_url, isolation_level="READ COMMITTED") as connection:
        with pytest.raises(Conflict, match="start it anew"):
            quota.claim({"a": 1}, project="kid", user="john", connection=connection)
        connection.rollback()
        quota.claim({"a": 1}, project="kid", user="john", connection=connection)
        connection.commit()
    assert list(quota.reconcile()) == []


def test_an_optimistic_guard_makes_counters_before_it_locks_any(
    store_url: str, store_name: str, quota: Delimiter
) -> None:
    """Guard: ``Guards.lock`` works out the ways before its claim is decided. Whoever makes counters shares the tree.

    After its claim's counters it could wait for a move that waits for them.
    """
    (low, _) = counters(store_url)
    with (
        Instances(Place(store_name, READ_COMMITTED), store_url).created() as rows,
        session(store_url) as holder,
        rows.engine.begin() as connection,
    ):
        quota.define_resource(ROWS)
        rows.counted_by(quota)
        hold(holder, "tree", 1)
        guard = quota.guard({ROWS: 1, "a": 1}, project="acme", connection=connection, optimistic=True)
        with waiting(store_url, guard.__enter__):
            held = is_held(store_url, "counters", low)
            holder.rollback()
    assert not held
