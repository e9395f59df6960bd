"""New claims in a caller's transaction, which cannot be rolled back: what the one statement leaves is gone on from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, OverLimit, Request
from delimiter.changes import Admit, NewClaim
from engines.held_rows import counters, hold, is_held, session, waiting

pytestmark = pytest.mark.together


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=30) as quota:
        quota.define_resource("cores", project_max=10)
        quota.define_resource("ram", project_max=100)
        for number in range(2):  # a way is remembered from the second time on
            quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", id=f"warm-{number}")
        yield quota


def sound(quota: Delimiter, cores: int, ram: int) -> None:
    usage = quota.usage(project="acme")
    assert (usage["cores"].used, usage["ram"].used) == (cores, ram)
    assert list(quota.reconcile()) == []


def test_a_refusal_leaves_nothing_in_the_transaction(store_url: str, quota: Delimiter) -> None:
    """Guard: nothing is charged unless all fits, nor is a row that was placed taken for a claim that was made."""
    with session(store_url) as caller:
        with pytest.raises(OverLimit) as told:
            quota.claim({"cores": 9, "ram": 5}, project="acme", user="john", id="big", connection=caller)
        assert [violation.used for violation in told.value.violations] == [2]
        quota.claim({"cores": 1, "ram": 5}, project="acme", user="john", connection=caller)
        caller.commit()
    sound(quota, 3, 7)
    assert "big" not in {claim.id for claim in quota.claims()}


def test_a_replay_leaves_its_neighbours_to_be_charged(store_url: str, quota: Delimiter) -> None:
    """Guard: the number of rows that could be placed; where one could not be, none is left there uncharged."""
    requests = [
        Request({"cores": 1, "ram": 1}, project="acme", user="john", id=id)
        for id in ("new", "warm-0", "other")
    ]
    with session(store_url) as caller:
        assert [claim.id for claim in quota.claim_all(requests, connection=caller)] == [
            "new",
            "warm-0",
            "other",
        ]
        caller.commit()
    sound(quota, 4, 4)
    with session(store_url) as connection:
        held = connection.scalar(sa.text("SELECT count(*) FROM delimiter_allocations"))
    assert held == 8


@pytest.mark.stores("postgresql", "mariadb")
def test_who_waits_for_an_id_has_placed_none_that_comes_later(store_url: str, quota: Delimiter) -> None:
    """Guard: claims are placed in the order of their ids; without it two lists of the same wait in a circle."""
    both = Admit(tuple(NewClaim(id, {"cores": 1, "ram": 1}, "acme", "john") for id in ("b", "a")))
    with session(store_url) as caller:
        quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", id="a", connection=caller)
        with waiting(store_url, lambda: quota._engine.apply([both])) as answers:
            quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", id="b", connection=caller)
            caller.commit()
            (claims,) = answers.result(20)
    assert isinstance(claims, tuple)
    assert [claim.id for claim in claims] == ["b", "a"]
    sound(quota, 4, 4)


@pytest.mark.stores("postgresql", "mariadb")
def test_who_waits_for_an_id_has_locked_no_counter(store_url: str, quota: Delimiter) -> None:
    """Guard: rows of claims are placed before counters are locked, in one statement too."""
    with session(store_url) as caller, session(store_url) as other:
        quota.claim({"cores": 1, "ram": 1}, project="globex", user="mary", id="a", connection=caller)
        again = Admit((NewClaim("a", {"cores": 1, "ram": 1}, "acme", "john"),))
        with waiting(store_url, lambda: quota._engine.apply([again])) as answer:
            # Its id is far from the other's: MariaDB keeps the gap before what somebody waits for.
            quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", id="z", connection=other)
            other.commit()
            caller.rollback()
            assert isinstance(answer.result(20)[0], tuple)
    sound(quota, 4, 4)


@pytest.mark.stores("postgresql", "mariadb")
@pytest.mark.parametrize("cores", [1, 8], ids=["fits", "does not fit"])
def test_a_claim_is_decided_on_what_it_waited_for(store_url: str, quota: Delimiter, cores: int) -> None:
    """Guards: the counters are locked and then compared, and what is added is added to what stands there then."""
    with session(store_url) as caller:
        quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", connection=caller)
        claim = {"cores": cores, "ram": 1}
        with waiting(store_url, lambda: quota.claim(claim, project="acme", user="john")) as answer:
            caller.commit()
            assert (answer.exception(20) is None) == (cores == 1)
    sound(quota, 4 if cores == 1 else 3, 4 if cores == 1 else 3)


def test_what_hangs_on_a_parent_is_released_with_it(quota: Delimiter) -> None:
    """Guard: only claims without a parent are made by the one statement, which locks no parents."""
    parent = quota.claim({"cores": 1, "ram": 1}, project="acme", user="john")
    child = quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", parent=parent.id)
    assert quota.get_claim(child.id).parent == parent.id
    quota.release(parent.id)
    sound(quota, 2, 2)


@pytest.mark.stores("postgresql", "mariadb")
def test_counters_are_locked_from_the_lowest(store_url: str, quota: Delimiter) -> None:
    """Guard: the order of the locks in the one statement; without it two claims wait for each other in a circle."""
    low, *_, high = counters(store_url)
    claim = {"ram": 1, "cores": 1}
    with session(store_url) as holder:
        hold(holder, "counters", high)
        with waiting(store_url, lambda: quota.claim(claim, project="acme", user="john")):
            held = is_held(store_url, "counters", low)
            holder.rollback()
    assert held
    sound(quota, 3, 3)
