"""Racing inserts into the service's own table: the sum meets the limit exactly, at every isolation level."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from delimiter import Delimiter, OverLimit
from engines.instances import ROWS, SIZE, Instances
from engines.service import PLACES, READ_COMMITTED, REPEATABLE_READ, Place, until_decided

_CALLERS = 32
_LIMIT, _OF_A_USER = 6, 2
_USERS = [f"u{n}" for n in range(4)]  # together they may have more than the limit: it is met, and exactly
_LEAVES = ["web", "shop", "dev"]


@pytest.fixture
def quota(place: Place, rows: Instances) -> Iterator[Delimiter]:
    with Delimiter(rows.url, timeout=60) as quota:
        for name in (ROWS, SIZE):
            quota.define_resource(name, user_max=_OF_A_USER)
        rows.counted_by(quota)
        yield quota


@pytest.fixture
def eager_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("optimistic", [False, True], ids=["locked", "optimistic"])
@pytest.mark.parametrize("place", PLACES)
def test_32_callers_meet_the_limit_exactly(
    place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool, nested: bool
) -> None:
    """Guard: ``guard`` itself. Without it all 32 rows come in, as the next test shows with fewer and a barrier.

    A limited project over three without limits of their own, or that project alone; and limits of four users. Every
    third caller has read before, so that above READ COMMITTED its snapshot is old when it enters.
    """
    quota.add_project("acme")
    for name in _LEAVES:
        quota.add_project(name, parent="acme")
    for resource in (ROWS, SIZE):
        quota.update_limits(resource, project="acme", max=_LIMIT)
    start = Barrier(_CALLERS)

    def create(number: int) -> bool:
        project, user = _LEAVES[number % 3] if nested else "acme", _USERS[number % 4]

        def transaction() -> bool:
            with rows.engine.begin() as connection:
                if number % 3 == 0:
                    rows.look(connection)
                try:
                    with quota.guard(
                        {ROWS: 1, SIZE: 1},
                        project=project,
                        user=user,
                        connection=connection,
                        optimistic=optimistic,
                    ):
                        rows.add(connection, project, user)
                except OverLimit:
                    return False
            return True

        start.wait()
        return bool(until_decided(transaction)[0])

    with ThreadPoolExecutor(_CALLERS) as pool:
        admitted = sum(pool.map(create, range(_CALLERS)))
    assert admitted == len(rows.rows()) == rows.sum_of() == _LIMIT
    assert all(rows.sum_of(user=user) <= _OF_A_USER for user in _USERS)
    assert quota.usage(project="acme")[ROWS].used == quota.usage(project="acme")[SIZE].used == _LIMIT
    assert [event for event in quota.events() if event.kind == "over_quota"] == []
    assert list(quota.reconcile()) == []


_SHOWN = [one for one in PLACES if one.values[0].level in (READ_COMMITTED, REPEATABLE_READ)]


@pytest.mark.parametrize("guarded", [False, True], ids=["check then insert", "guard"])
@pytest.mark.parametrize("place", _SHOWN)
def test_a_check_before_an_insert_is_no_guard(
    place: Place, quota: Delimiter, rows: Instances, *, guarded: bool
) -> None:
    """Guard: ``guard``. Four callers check while there is room for one, then all insert: four come in without it."""
    quota.update_limits(ROWS, project="acme", max=1)
    together = Barrier(4)

    def check_then_insert(connection: object) -> bool:
        allowed = quota.check({ROWS: 1}, project="acme", connection=connection).allowed  # type: ignore[arg-type]
        together.wait()  # all have checked
        if allowed:
            rows.add(connection, "acme")
        return allowed

    def insert_in_a_guard(connection: object) -> bool:
        try:
            with quota.guard({ROWS: 1}, project="acme", connection=connection):  # type: ignore[arg-type]
                rows.add(connection, "acme")
        except OverLimit:
            return False
        return True

    def transaction() -> bool:
        with rows.engine.begin() as connection:
            return insert_in_a_guard(connection) if guarded else check_then_insert(connection)

    with ThreadPoolExecutor(4) as pool:
        admitted = sum(pool.map(lambda _: until_decided(transaction)[0], range(4)))
    assert admitted == rows.sum_of(project="acme") == (1 if guarded else 4)
