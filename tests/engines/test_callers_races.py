"""Races inside callers' own transactions: 32 threads in 4 processes, which commit or roll back as they like."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest

from delimiter import Delimiter, OverLimit
from engines.service import PLACES, Place, Service, assert_sound, until_decided

_PROCESSES, _THREADS, _ROUNDS = 4, 8, 5
_PROJECTS = [f"p{n}" for n in range(3)]
_USERS = [f"u{n}" for n in range(4)]
_RESOURCES = [f"r{n}" for n in range(4)]
# The sums of the projects' and of the users' limits pass the totals: whoever fills all gaps meets the totals exactly.
_TOTAL, _PROJECT, _USER = 60, 25, 20


def _one_process(url: str, place: Place, process: int) -> tuple[int, int, int]:
    """Admitted and committed, rolled back after being admitted, refused."""
    sys.setswitchinterval(1e-4)
    with (
        Delimiter(url, timeout=60) as quota,
        Service(place, url) as service,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        told = list(pool.map(lambda n: _one_thread(quota, service, process * 100 + n), range(_THREADS)))
    return sum(one[0] for one in told), sum(one[1] for one in told), sum(one[2] for one in told)


def _one_thread(quota: Delimiter, service: Service, seed: int) -> tuple[int, int, int]:
    dice = random.Random(seed)
    held: list[str] = []
    kept = undone = refused = 0
    for _ in range(_ROUNDS):
        if held and dice.random() < 0.2:
            released = held.pop(dice.randrange(len(held)))
            until_decided(partial(_release, quota, service, released, dice))
            kept -= 1
            continue
        bundle = {name: dice.randint(1, 2) for name in dice.sample(_RESOURCES, 3)}
        owner = (dice.choice(_PROJECTS), dice.choice(_USERS))
        id, _ = until_decided(partial(_claim, quota, service, bundle, owner, dice))
        if id is None:
            refused += 1
        elif id == "":
            undone += 1
        else:
            held.append(id)
            kept += 1
    return kept, undone, refused


def _claim(
    quota: Delimiter, service: Service, bundle: dict[str, int], owner: tuple[str, str], dice: random.Random
) -> str | None:
    """One transaction; the claim's id if it is kept, "" if it was rolled back, None if it was refused."""
    id = str(uuid.uuid4())
    with service.engine.connect() as connection:
        service.look(connection)
        if dice.random() < 0.1:
            quota.usage(project=owner[0], connection=connection)
        service.add(connection, f"tried-{id}")
        try:
            quota.claim(bundle, project=owner[0], user=owner[1], id=id, connection=connection)
        except OverLimit:
            connection.commit()  # it is usable: the row of the try stays, and nothing of the claim
            return None
        service.add(connection, id)
        if dice.random() < 0.4:
            connection.rollback()
            return ""
        connection.commit()
    return id


def _release(quota: Delimiter, service: Service, id: str, dice: random.Random) -> None:
    while True:
        with service.engine.connect() as connection:
            service.look(connection)
            service.remove(connection, id)
            quota.release(id, connection=connection)
            if dice.random() < 0.4:
                connection.rollback()
                continue
            connection.commit()
            return


def _fill(quota: Delimiter) -> None:
    """Each pair takes exactly its headroom; one unit more is refused."""
    for name, project, user in itertools.product(_RESOURCES, _PROJECTS, _USERS):
        room = quota.check({name: 1}, project=project, user=user).available[name]
        assert room is not None
        with pytest.raises(OverLimit):
            quota.claim({name: room + 1}, project=project, user=user)
        if room:
            quota.claim({name: room}, project=project, user=user)


@pytest.fixture
def in_processes() -> Iterator[Callable[..., list[tuple[int, int, int]]]]:
    with ProcessPoolExecutor(_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:

        def run(url: str, place: Place) -> list[tuple[int, int, int]]:
            return list(pool.map(_one_process, [url] * 4, [place] * 4, range(_PROCESSES)))

        yield run


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_callers_that_roll_back_at_random(
    place: Place,
    database_url: Callable[[str], str],
    in_processes: Callable[[str, Place], list[tuple[int, int, int]]],
) -> None:
    """Guards: counters are locked, judged and changed in the caller's transaction (`Counters.lock`, `.add`).

    Without the lock, or with a value written that was read before, a limit is passed or a counter drifts; with a
    transaction of its own inside, what the caller rolled back stays; with a retry inside, leftovers are counted.
    """
    url = database_url(place.store)
    with Delimiter(url, timeout=60) as quota, Service(place, url) as service:
        service.create()
        for name in _RESOURCES:
            quota.define_resource(name, max=_TOTAL, project_max=_PROJECT, user_max=_USER)
        told = in_processes(url, place)
        kept, undone, refused = (sum(one) for one in zip(*told, strict=True))
        live = {claim.id for claim in quota.claims()}
        assert {id for id in service.rows() if not id.startswith("tried-")} == live
        assert len(live) == kept
        assert undone
        assert refused  # else nobody raced for anything
        assert_sound(quota)
        _fill(quota)
        for name in _RESOURCES:
            assert (quota.usage()[name].used, quota.usage()[name].limit) == (_TOTAL, _TOTAL)
        assert_sound(quota)
