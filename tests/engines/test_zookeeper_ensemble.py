"""Three ZooKeeper servers, each on a host of its own: one is killed, one is cut off, and every count stays exact."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from conftest import not_tested
from delimiter import Conflict, Delimiter, OverLimit, Request, StoreUnavailable
from delimiter.conformance import processes
from engines.service import eventually
from network import Network
from server_process import ServerNotAvailable
from zookeeper_servers import ThrowAwayZooKeeper, ZooKeeperEnsemble

pytestmark = [pytest.mark.stores("zookeeper"), pytest.mark.slow]

_CALLERS = 48
_LIMIT = 300


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        network = Network(3)
    except ServerNotAvailable as reason:
        not_tested(reason)
    yield network
    network.close()


@pytest.fixture(scope="module")
def _ensemble(network: Network) -> Iterator[ZooKeeperEnsemble]:
    try:
        ensemble = ZooKeeperEnsemble(3, network)
    except ServerNotAvailable as reason:
        not_tested(reason)
    yield ensemble
    ensemble.close()


@pytest.fixture
def ensemble(_ensemble: ZooKeeperEnsemble, network: Network) -> Iterator[ZooKeeperEnsemble]:
    """All three, whatever a test did to them."""
    yield _ensemble
    for host in network.hosts:
        network.heal(host)
    for server in _ensemble.servers:
        server.ensure_running()
    _ensemble.wait_until_ready()


@pytest.fixture
def url(ensemble: ZooKeeperEnsemble, request: pytest.FixtureRequest) -> str:
    return ensemble.url(request.node.name.replace("[", "-").replace("]", ""))


@pytest.fixture
def quota(url: str) -> Iterator[Delimiter]:
    with Delimiter(url, timeout=60) as quota:
        quota.define_resource("cores", max=_LIMIT)
        yield quota


def _callers(url: str, meanwhile: Callable[[], None], *, after: int) -> set[str]:
    """Claims by many callers, through four handles, until there is no room; the ids that were acknowledged.

    ``meanwhile`` happens when so many are.
    """
    got: set[str] = set()
    lock, enough = threading.Lock(), threading.Event()

    def claim(quota: Delimiter, caller: int) -> None:
        for number in range(_LIMIT):
            id = f"{caller}-{number}"
            try:
                quota.claim({"cores": 1}, project=f"p{caller % 5}", user=f"u{caller}", id=id)
            except OverLimit:
                return
            with lock:
                got.add(id)
                if len(got) >= after:
                    enough.set()

    with ExitStack() as stack, ThreadPoolExecutor(_CALLERS) as pool:
        handles = [stack.enter_context(Delimiter(url, timeout=60)) for _ in range(4)]
        claimed = [pool.submit(claim, handles[caller % len(handles)], caller) for caller in range(_CALLERS)]
        assert enough.wait(60)
        meanwhile()
        for one in claimed:
            one.result()
    return got


def _assert_exact(quota: Delimiter, got: set[str]) -> None:
    assert len(got) == _LIMIT
    assert {claim.id for claim in quota.claims()} == got
    assert quota.usage()["cores"].used == _LIMIT
    assert list(quota.reconcile()) == []


def test_processes_on_three_servers(url: str, quota: Delimiter) -> None:
    """32 threads in 4 processes. Guard: the versions in the multi; what a server that lags has read does not count."""
    quota.update_limits("cores", max=100)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        admitted = sum(pool.map(processes._last_units, [url] * 4, range(4)))
    assert admitted == 100
    assert len(list(quota.claims())) == quota.usage()["cores"].used == 100
    assert list(quota.reconcile()) == []


def test_the_leader_is_killed(url: str, quota: Delimiter, ensemble: ZooKeeperEnsemble) -> None:
    """Guard: what is in doubt is settled by its id: without that some are claimed twice, or lost."""
    _assert_exact(quota, _callers(url, ensemble.leader.kill, after=60))


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_server_is_cut_off(
    url: str, quota: Delimiter, ensemble: ZooKeeperEnsemble, network: Network, role: str
) -> None:
    """Clients still reach it, and it reaches nobody. Guard: a multi is decided by a majority."""
    lost = ensemble.leader if role == "leader" else ensemble.followers[0]
    assert lost.host is not None
    got = _callers(url, partial(network.cut, lost.host), after=60)
    _assert_exact(quota, got)
    alone = ensemble.url("alone", servers=[lost])
    with Delimiter(alone, timeout=1) as outside, pytest.raises(StoreUnavailable):
        outside.define_resource("cores")


def test_a_follower_that_lags_refuses_nothing_that_fits(
    url: str, quota: Delimiter, ensemble: ZooKeeperEnsemble
) -> None:
    """Guard: before a refusal, a write has gone through a majority, and the server that is read has followed it."""
    path = url.rpartition("/")[2]
    quota.update_limits("cores", max=1)
    with Delimiter(ensemble.url(path, servers=ensemble.followers[:1]), timeout=60) as far:
        for number in range(30):
            quota.claim({"cores": 1}, user="john", id=f"c{number}")
            with pytest.raises(OverLimit):
                far.claim({"cores": 1}, user="mary")
            quota.release(f"c{number}")
            assert far.check({"cores": 1}, user="mary")
            assert far.claim({"cores": 1}, user="mary").live
            far.release(next(iter(far.claims(user="mary"))).id)


def test_a_multi_that_is_almost_too_large_passes(quota: Delimiter) -> None:
    """Guard: servers pass on to each other more than they were sent; the bound leaves room for that."""
    quota.update_limits("cores", max=10_000)
    claims = quota.claim_all([Request({"cores": 1}, project="acme", user=f"u{n % 9}") for n in range(1100)])
    assert len(claims) == quota.usage()["cores"].used == 1100


def test_without_a_majority_nothing_is_said(url: str, quota: Delimiter, ensemble: ZooKeeperEnsemble) -> None:
    """Fail closed: two of three are gone, so nobody is told anything, and afterwards all goes on."""
    quota.claim({"cores": 1}, user="john", id="before")
    gone: list[ThrowAwayZooKeeper] = ensemble.followers
    for server in gone:
        server.kill()
    with Delimiter(url, timeout=1) as hurried:
        for call in (lambda: hurried.claim({"cores": 1}, user="john"), hurried.usage):
            with pytest.raises((StoreUnavailable, Conflict)):
                call()
    for server in gone:
        server.start()
    ensemble.wait_until_ready()
    eventually(lambda: quota.usage()["cores"].used in (1, 2), what="the servers again")
    assert list(quota.reconcile()) == []
