"""Races of processes: 32 threads in 4 of them, on one store."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from delimiter import Delimiter, OverLimit
from delimiter.conformance.contract import Contract
from delimiter.conformance.counting import Bundles, assert_counts, assert_full, kinds, together, total
from delimiter.engine import Capability

if TYPE_CHECKING:
    from collections.abc import Callable

    from delimiter.engine import Engine

_PROCESSES = 4
_THREADS = 8


def _bundles(url: str, process: int) -> int:
    """One process of the race: everybody starts on an empty store, defines and claims."""
    bundles = Bundles()
    with Delimiter(url, timeout=60) as quota:
        bundles.define(quota)
        jobs = [
            partial(bundles.claim_some, quota, rounds=10, seed=process * 100 + number)
            for number in range(_THREADS)
        ]
        return total(together(jobs))


def _last_units(url: str, process: int) -> int:
    with Delimiter(url, timeout=60) as quota:
        quota.define_resource("cores", max=100)

        def take(number: int) -> int:
            admitted = 0
            for _ in range(4):
                try:
                    quota.claim({"cores": 1}, project=f"p{process}", user=f"u{number % 3}")
                except OverLimit:
                    continue
                admitted += 1
            return admitted

        return total(together([partial(take, number) for number in range(_THREADS)]))


def _same_ids(url: str, process: int) -> int:
    with Delimiter(url, timeout=60) as quota:
        quota.define_resource("cores", user_max=_THREADS)
        jobs = [
            partial(quota.claim, {"cores": 1}, user="john", id=f"c{(process + n) % _THREADS}")
            for n in range(_THREADS)
        ]
        return kinds(together(jobs)).get("Claim", 0)


class ProcessContract(Contract):
    @pytest.fixture
    def shared_url(self, engine: Engine) -> str:
        if Capability.SHARED not in engine.capabilities:
            pytest.skip("this engine does not declare SHARED")
        url = self.store_url(engine)
        assert url is not None, "an engine that declares SHARED overrides `store_url`"
        return url

    def _race(self, work: Callable[[str, int], int], url: str) -> int:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
            return sum(pool.map(work, [url] * _PROCESSES, range(_PROCESSES)))

    def test_processes_meet_every_limit_exactly(self, quota: Delimiter, shared_url: str) -> None:
        """Guard: what decides lies in the store; a lock or a cache of the process would not do."""
        held = self._race(_bundles, shared_url)
        assert held == len(list(quota.claims()))
        bundles = Bundles()
        bundles.fill(quota)
        bundles.assert_met(quota)

    def test_processes_take_the_last_units(self, quota: Delimiter, shared_url: str) -> None:
        """Guard: the counter of the total is one row for all processes."""
        assert self._race(_last_units, shared_url) == 100
        assert_full(quota, "cores", 100)
        assert_counts(quota, projects=[f"p{n}" for n in range(4)], users=["u0", "u1", "u2"])

    def test_processes_replay_the_same_ids(self, quota: Delimiter, shared_url: str) -> None:
        """Guard: the unique key of the claim's id."""
        assert self._race(_same_ids, shared_url) == _PROCESSES * _THREADS
        assert_full(quota, "cores", _THREADS, user="john")
        assert len(list(quota.claims())) == _THREADS
