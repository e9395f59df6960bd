"""What is particular to ZooKeeper: multis whose results must be read, answers that never come, sessions that expire.

Everything that holds on every store is in the conformance suite.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NoAuthError, NodeExistsError, RolledBackError
from sqlalchemy import make_url

from delimiter import (
    Conflict,
    Delimiter,
    OverLimit,
    Request,
    StoreUnavailable,
)
from delimiter.engines.zookeeper import session as sessions
from delimiter.engines.zookeeper.engine import ZooKeeperEngine
from delimiter.engines.zookeeper.multi import Multi
from engines.service import eventually
from engines.zookeeper_store import open_store
from proxy import ZOOKEEPER_MULTI, CuttingProxy
from servers import Server

pytestmark = pytest.mark.stores("zookeeper")


@pytest.fixture
def quota(engine: ZooKeeperEngine) -> Delimiter:
    quota = Delimiter(engine, timeout=30)
    quota.define_resource("cores", max=100, user_max=9)
    return quota


# --- results --------------------------------------------------------------------------------------


def test_a_multi_that_failed_is_a_conflict(quota: Delimiter, engine: ZooKeeperEngine) -> None:
    """Guard: ``Session._inspect``. kazoo hands the failure over as a list, and raises nothing."""
    multi = Multi()
    multi.create(f"{engine.ground.layout.root}/new")
    multi.check(engine.ground.layout.rules, 4711)
    with pytest.raises(Conflict):
        engine.ground.session.commit(multi)
    assert engine.ground.session.read(f"{engine.ground.layout.root}/new") is None


@pytest.mark.parametrize(
    "results, error, retryable",
    [
        ([True, BadVersionError()], Conflict, True),
        ([RolledBackError(), NodeExistsError()], Conflict, True),
        ([RolledBackError(), NoAuthError()], StoreUnavailable, False),
        ([True], StoreUnavailable, False),  # one of two answers is missing
        ([], StoreUnavailable, False),
    ],
)
def test_every_result_is_looked_at(
    engine: ZooKeeperEngine, results: list[Any], error: type[Exception], retryable: bool
) -> None:
    multi = Multi()
    multi.check("/one", 0)
    multi.check("/two", 0)
    with pytest.raises(error) as raised:
        engine.ground.session._inspect(multi, results)
    assert raised.value.retryable is retryable  # type: ignore[attr-defined]


def test_what_was_overtaken_is_decided_again(
    store_url: str, quota: Delimiter, engine: ZooKeeperEngine
) -> None:
    """Guard: the versions in the multi. Without them the second claim is made on what the first has read.

    Between reading and committing, another process takes the last unit.
    """
    quota.update_limits("cores", max=2)
    quota.claim({"cores": 1}, user="john")
    other = open_store(store_url)
    commit, between = engine.ground.session.commit, threading.Event()

    def overtaken(multi: Multi) -> None:
        if not between.is_set():
            between.set()
            Delimiter(other).claim({"cores": 1}, user="mary")
        commit(multi)

    engine.ground.session.commit = overtaken  # type: ignore[method-assign]
    with pytest.raises(OverLimit):
        quota.claim({"cores": 1}, user="john")
    other.close()
    assert [claim.user for claim in quota.claims()] == ["john", "mary"]
    assert list(quota.reconcile()) == []


def test_nothing_rests_on_what_a_process_remembers(store_url: str, quota: Delimiter) -> None:
    """Guard: the version of the rules in every multi."""
    with Delimiter(store_url) as other:
        other.claim({"cores": 1}, user="john")
        quota.update_limits("cores", user="john", max=1)
        with pytest.raises(OverLimit):
            other.claim({"cores": 1}, user="john")
        quota.update_limits("cores", user="john", max=2)
        other.claim({"cores": 1}, user="john")
    assert quota.usage(user="john")["cores"].used == 2


# --- answers that never come ----------------------------------------------------------------------


@pytest.fixture
def proxy(store_url: str) -> Iterator[CuttingProxy]:
    address = make_url(store_url)
    proxy = CuttingProxy(address.host or "", address.port or 0, commits=ZOOKEEPER_MULTI)
    yield proxy
    proxy.close()


_IN_DOUBT: dict[str, Callable[[Delimiter], object]] = {
    "claim": lambda q: q.claim({"cores": 2}, user="john", id="c"),
    "reserve": lambda q: q.reserve({"cores": 2}, user="john", id="c", expires_in=600),
    "list": lambda q: q.claim_all([Request({"cores": 1}, user="john", id=one) for one in ("c", "d")]),
    "release": lambda q: q.release("before"),
    "resize": lambda q: q.resize("before", {"cores": 3}),
    "transfer": lambda q: q.transfer("before", user="john"),
    "limit": lambda q: q.update_limits("cores", user="john", max=5),
    "project": lambda q: q.add_project("acme"),
}


@pytest.mark.parametrize("verb", _IN_DOUBT)
def test_an_answer_that_is_lost_is_settled(
    store_url: str, quota: Delimiter, proxy: CuttingProxy, verb: str
) -> None:
    """Guard: in doubt the change is made again with its id, whose node can be made but once."""
    quota.claim({"cores": 1}, user="mary", id="before")
    through = make_url(store_url).set(port=proxy.port).render_as_string()
    with Delimiter(through, timeout=30) as cut_off:
        cut_off.usage()
        proxy.arm()
        _IN_DOUBT[verb](cut_off)
    assert proxy.cut == 1
    expected = {"claim": 3, "reserve": 3, "list": 3, "release": 0, "resize": 3}
    assert quota.usage()["cores"].used == expected.get(verb, 1)
    assert len(list(quota.claims())) == {"list": 3, "claim": 2, "reserve": 2, "release": 0}.get(verb, 1)
    assert list(quota.reconcile()) == []
    quota.define_resource("more")  # the store is not left closed


def test_in_doubt_the_caller_is_told(store_url: str, quota: Delimiter, proxy: CuttingProxy) -> None:
    """Guard: no answer to a multi is ``in_doubt``; the same id settles it later."""
    through = make_url(store_url).set(port=proxy.port).render_as_string()
    with Delimiter(through, timeout=2) as cut_off:
        cut_off.usage()
        proxy.arm(last=True)
        with pytest.raises(StoreUnavailable) as raised:
            cut_off.claim({"cores": 2}, user="john", id="c")
        assert (raised.value.in_doubt, raised.value.claim_id) == (True, "c")
        with pytest.raises(StoreUnavailable) as raised:
            cut_off.usage()
        assert not raised.value.in_doubt
    assert quota.claim({"cores": 2}, user="john", id="c").live
    assert quota.usage()["cores"].used == 2


@pytest.mark.parametrize("call", ["claim", "usage", "limit"])
def test_every_call_ends_in_time(
    store_url: str, quota: Delimiter, zookeeper_server: Server, call: str
) -> None:
    """A server that is there and does not answer."""
    calls: dict[str, Callable[[Delimiter], object]] = {
        "claim": lambda q: q.claim({"cores": 1}, user="john"),
        "usage": lambda q: q.usage(),
        "limit": lambda q: q.update_limits("cores", max=7),
    }
    if not zookeeper_server.throw_away:
        pytest.skip("a server of your own is not stopped")
    with Delimiter(store_url, timeout=1) as hurried:
        hurried.usage()
        zookeeper_server.pause()
        try:
            with pytest.raises(StoreUnavailable):
                calls[call](hurried)
        finally:
            zookeeper_server.resume()
    quota.claim({"cores": 1}, user="mary")
    assert list(quota.reconcile()) == []


# --- sessions, and edits that break off -----------------------------------------------------------


def _expire(engine: ZooKeeperEngine) -> None:
    """The servers forget the session, as they do of a client that they have not heard of for long."""
    client = engine.ground.session.client
    thief = KazooClient(engine.ground.session.address.hosts, client_id=client.client_id)
    thief.start()
    thief.stop()
    thief.close()


def test_a_session_that_expired(quota: Delimiter, engine: ZooKeeperEngine) -> None:
    quota.claim({"cores": 1}, user="john", id="before")
    for id in ("c1", "c2", "c3"):
        _expire(engine)
        eventually(partial(_is_claimed, quota, id), what="a new session")
    assert quota.usage()["cores"].used == 4
    assert list(quota.reconcile()) == []


def _is_claimed(quota: Delimiter, id: str) -> bool:
    """What breaks off with a session says so, and can be asked for again."""
    try:
        return quota.claim({"cores": 1}, user="john", id=id).live
    except StoreUnavailable:
        return False


def test_an_edit_whose_session_expired_changes_nothing(
    store_url: str, quota: Delimiter, engine: ZooKeeperEngine
) -> None:
    """Guard: the lock goes with the session, and the multi that writes the edit needs it."""
    version = quota.version()
    with Delimiter(store_url, timeout=30) as other:
        with engine._edits._closing.closed() as closed:
            _expire(engine)
            other.claim({"cores": 1}, user="john")  # opens the store again
            multi = Multi()
            engine.ground.rulebook.open(multi, closed.edition)
            eventually(lambda: engine.ground.session.client.connected, what="a new session")
            with pytest.raises((Conflict, StoreUnavailable)):
                closed.commit(multi)
        assert other.version() == version
        assert other.update_limits("cores", max=50) == []
        assert other.usage()["cores"].used == 1


def _close_and_wait(store_url: str, closed: Any) -> None:
    sessions._SESSION_TIMEOUT = 1.0  # type: ignore[misc]
    engine = open_store(store_url)
    engine.make_sure()
    with engine._edits._closing.closed():
        closed.set()
        threading.Event().wait()


def test_an_editor_that_is_killed(store_url: str, quota: Delimiter, engine: ZooKeeperEngine) -> None:
    """Guard: a store that is closed, and whose lock is gone, is opened by whoever comes next."""
    version = quota.version()
    context = multiprocessing.get_context("spawn")
    closed = context.Event()
    editor = context.Process(target=_close_and_wait, args=(store_url, closed))
    editor.start()
    try:
        assert closed.wait(60)
        with Delimiter(store_url, timeout=0.3) as hurried, pytest.raises((Conflict, StoreUnavailable)):
            hurried.claim({"cores": 1}, user="john")
    finally:
        editor.kill()
        editor.join()
    assert quota.claim({"cores": 1}, user="john").live
    assert quota.version() == version
    assert engine.ground.session.read(engine.ground.layout.lock) is None


def test_a_failure_in_an_edit_leaves_the_store_open(
    quota: Delimiter, engine: ZooKeeperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(engine.ground.rulebook, "write", broken)
        with pytest.raises(RuntimeError):
            quota.update_limits("cores", max=7)
    assert quota.claim({"cores": 1}, user="john").live
    assert quota.limits() == {"cores": 100}


def test_a_forked_child_has_a_session_of_its_own(quota: Delimiter) -> None:
    """Guard: ``Session.notice_fork``. The threads of the parent's client are not in the child."""
    quota.claim({"cores": 1}, user="john")
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        status = 1
        try:
            quota.claim({"cores": 1}, user="john", id="child's")
            quota.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    quota.claim({"cores": 1}, user="john")
    assert quota.usage()["cores"].used == 3


def test_no_threads_are_left(store_url: str) -> None:
    before = set(threading.enumerate())
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
    assert set(threading.enumerate()) - before == set()
    assert quota.resources()[0].name == "cores"  # it can be used again
    quota.close()
