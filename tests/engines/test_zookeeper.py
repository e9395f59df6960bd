"""What is particular to ZooKeeper: multis whose results must be read, answers that never come, sessions that expire.

Everything that holds on every store is in the conformance suite.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
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
    InvalidRequest,
    OverLimit,
    Request,
    StoreUnavailable,
    UnknownClaim,
    aio,
)
from delimiter.edits import AddProject, LimitChange, SetLimit
from delimiter.engine import OpenOptions, open_engine
from delimiter.engines.zookeeper import session as sessions
from delimiter.engines.zookeeper.engine import ZooKeeperEngine
from delimiter.engines.zookeeper.multi import Multi
from delimiter.model import Scope
from engines.proxy import CuttingProxy, is_multi
from engines.service import eventually
from servers import Server

pytestmark = pytest.mark.stores("zookeeper")


@pytest.fixture
def url(database_url: Callable[[str], str]) -> str:
    return database_url("zookeeper")


@pytest.fixture
def engine(url: str) -> Iterator[ZooKeeperEngine]:
    engine = _open(url)
    yield engine
    engine.close()


@pytest.fixture
def quota(engine: ZooKeeperEngine) -> Delimiter:
    quota = Delimiter(engine, timeout=30)
    quota.define_resource("cores", max=100, user_max=9)
    return quota


@pytest.fixture
def client(url: str) -> Iterator[KazooClient]:
    """Somebody else, on the same servers."""
    client = KazooClient(_hosts(url))
    client.start()
    yield client
    client.stop()
    client.close()


def _open(url: str, *, timeout: float = 30, create: bool = True) -> ZooKeeperEngine:
    engine = open_engine(url, OpenOptions(timeout=timeout, create=create))
    assert isinstance(engine, ZooKeeperEngine)
    return engine


def _hosts(url: str) -> str:
    return f"{make_url(url).host}:{make_url(url).port}"


def _path(url: str) -> str:
    return f"/{make_url(url).database}"


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


def test_what_was_overtaken_is_decided_again(url: str, quota: Delimiter, engine: ZooKeeperEngine) -> None:
    """Guard: the versions in the multi. Without them the second claim is made on what the first has read.

    Between reading and committing, another process takes the last unit.
    """
    quota.update_limits("cores", max=1)
    other = _open(url)
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
    assert [claim.user for claim in quota.claims()] == ["mary"]
    assert list(quota.reconcile()) == []


def test_nothing_rests_on_what_a_process_remembers(url: str, quota: Delimiter) -> None:
    """Guard: the version of the rules in every multi."""
    with Delimiter(url) as other:
        other.claim({"cores": 1}, user="john")
        quota.update_limits("cores", user="john", max=1)
        with pytest.raises(OverLimit):
            other.claim({"cores": 1}, user="john")
        quota.update_limits("cores", user="john", max=2)
        other.claim({"cores": 1}, user="john")
    assert quota.usage(user="john")["cores"].used == 2


# --- answers that never come ----------------------------------------------------------------------


@pytest.fixture
def proxy(url: str) -> Iterator[CuttingProxy]:
    address = make_url(url)
    proxy = CuttingProxy(address.host or "", address.port or 0, is_commit=is_multi)
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
    url: str, quota: Delimiter, proxy: CuttingProxy, verb: str
) -> None:
    """Guard: in doubt the change is made again with its id, whose node can be made but once."""
    quota.claim({"cores": 1}, user="mary", id="before")
    through = make_url(url).set(port=proxy.port).render_as_string()
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


def test_in_doubt_the_caller_is_told(url: str, quota: Delimiter, proxy: CuttingProxy) -> None:
    """Guard: no answer to a multi is ``in_doubt``; the same id settles it later."""
    through = make_url(url).set(port=proxy.port).render_as_string()
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
def test_every_call_ends_in_time(url: str, quota: Delimiter, zookeeper_server: Server, call: str) -> None:
    """A server that is there and does not answer."""
    calls: dict[str, Callable[[Delimiter], object]] = {
        "claim": lambda q: q.claim({"cores": 1}, user="john"),
        "usage": lambda q: q.usage(),
        "limit": lambda q: q.update_limits("cores", max=7),
    }
    if not zookeeper_server.throw_away:
        pytest.skip("a server of your own is not stopped")
    with Delimiter(url, timeout=1) as hurried:
        hurried.usage()
        os.kill(zookeeper_server.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
        try:
            with pytest.raises(StoreUnavailable):
                calls[call](hurried)
        finally:
            os.kill(zookeeper_server.pid, signal.SIGCONT)  # type: ignore[attr-defined]
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
    url: str, quota: Delimiter, engine: ZooKeeperEngine
) -> None:
    """Guard: the lock goes with the session, and the multi that writes the edit needs it."""
    version = quota.version()
    with Delimiter(url, timeout=30) as other:
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


def _close_and_wait(url: str, closed: Any) -> None:
    sessions._SESSION_TIMEOUT = 1.0  # type: ignore[misc]
    engine = _open(url)
    engine.make_sure()
    with engine._edits._closing.closed():
        closed.set()
        threading.Event().wait()


def test_an_editor_that_is_killed(url: str, quota: Delimiter, engine: ZooKeeperEngine) -> None:
    """Guard: a store that is closed, and whose lock is gone, is opened by whoever comes next."""
    version = quota.version()
    context = multiprocessing.get_context("spawn")
    closed = context.Event()
    editor = context.Process(target=_close_and_wait, args=(url, closed))
    editor.start()
    try:
        assert closed.wait(60)
        with Delimiter(url, timeout=0.3) as hurried, pytest.raises((Conflict, StoreUnavailable)):
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


def test_no_threads_are_left(url: str) -> None:
    before = set(threading.enumerate())
    with Delimiter(url) as quota:
        quota.define_resource("cores")
    assert set(threading.enumerate()) - before == set()
    assert quota.resources()[0].name == "cores"  # it can be used again
    quota.close()


# --- bounds ---------------------------------------------------------------------------------------


def _children(count: int) -> list[Request]:
    return [Request({"cores": 1}, project="acme", parent="root") for _ in range(count)]


def test_what_is_too_large_for_one_step_is_refused(url: str) -> None:
    """Guard: the size is known before anything is sent. A server would only drop the connection."""
    with Delimiter(url, timeout=60) as quota:
        quota.define_resource("cores", max=10_000)
        with pytest.raises(InvalidRequest, match="in parts"):
            quota.claim_all([Request({"cores": 1}, project="acme") for _ in range(2000)])
        assert list(quota.claims()) == []
        quota.claim({"cores": 1}, project="acme", id="root")
        for _ in range(2):
            quota.claim_all(_children(580))
        for call in (lambda: quota.release("root"), lambda: quota.transfer("root", user="john")):
            with pytest.raises(InvalidRequest, match="in parts"):
                call()
        assert quota.usage()["cores"].used == 1161
        for claim in [one for one in quota.claims() if one.parent == "root"][:400]:
            quota.release(claim.id)
        quota.release("root")
        assert quota.usage()["cores"].used == 0
        assert list(quota.reconcile()) == []


def test_a_name_that_is_too_large_for_one_step(quota: Delimiter) -> None:
    edits = [SetLimit("cores", Scope("user", f"{n}" * 250), LimitChange(max=n)) for n in range(10)]
    assert quota.edit(edits) == []
    assert len(quota.own_limits()) == 10


def test_thousands_of_rules(url: str) -> None:
    """More than one node can hold. Guard: the rules lie in parts, and only parts that changed are written."""
    names = [f"{number:04}" + "x" * 200 for number in range(3000)]
    with Delimiter(url, timeout=60) as quota, Delimiter(url, timeout=60) as other:
        quota.define_resource("cores", max=10_000)
        for start in range(0, 3000, 500):
            quota.edit(
                SetLimit("cores", Scope("project", name), LimitChange(max=number, min=0))
                for number, name in enumerate(names[start : start + 500], start=start)
            )
        quota.edit([AddProject(names[0], None), AddProject(names[1], names[0])])
        assert len(other.own_limits()) == 3000
        assert other.limits(project=names[7]) == {"cores": 7}
        with pytest.raises(OverLimit):
            other.claim({"cores": 1}, project=names[1])  # below one whose limit is 0


@pytest.mark.parametrize("size", [1, 3])
def test_blocks(url: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists go on in the next block, and blocks that are empty go."""
    monkeypatch.setattr("delimiter.engines.zookeeper.writing._IN_BLOCK", size)
    monkeypatch.setattr("delimiter.engines.zookeeper.writing._LOOK_EVERY", 1)
    for module in ("layout", "claims", "writing", "upkeep"):
        monkeypatch.setattr(f"delimiter.engines.zookeeper.{module}.CHILDREN_IN_BLOCK", size)
    for module in ("layout", "eventlog"):
        monkeypatch.setattr(f"delimiter.engines.zookeeper.{module}.EVENTS_IN_BLOCK", size + 1)
    engine = _open(url)
    with Delimiter(engine) as quota, Delimiter(_open(url)) as other:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, project="acme", id="root")
        for number in range(8):
            handle = (quota, other)[number % 2]
            handle.claim({"cores": 1}, project="acme", id=f"c{number}", parent="root")
        assert [one.id for one in quota.claims()] == ["root", *(f"c{number}" for number in range(8))]
        for limit in (5, 50, 4, 40):
            quota.update_limits("cores", project="acme", max=limit)
        assert [one.seq for one in quota.events()] == list(range(1, 9))
        quota.release("c3")
        quota.release("root")
        assert [one.id for one in quota.claims(state="released")] == [
            "root",
            *(f"c{number}" for number in range(8)),
        ]
        assert quota.usage()["cores"].used == 0
        assert quota.prune(older_than=0) == 9
        assert quota.prune_events(older_than=0) == 8
        quota.prune(older_than=0)
        layout, session = engine.ground.layout, engine.ground.session
        assert len(session.children(layout.live)) == len(session.children(layout.ended)) == 1
        assert len(session.children(layout.events)) <= 1
        quota.claim({"cores": 1}, project="acme", id="again")
        assert [one.id for one in quota.claims()] == ["again"]


# --- whatever else is found at a path -------------------------------------------------------------


def test_without_create_nothing_is_made(url: str, client: KazooClient) -> None:
    with Delimiter(url, create=False) as quota, pytest.raises(StoreUnavailable) as raised:
        quota.usage()
    assert not raised.value.retryable
    assert client.exists(_path(url)) is None


@pytest.mark.parametrize(
    "data, error",
    [
        (b"somebody else's", InvalidRequest),
        (b'{"delimiter":"other"}', InvalidRequest),
        (b'{"delimiter":"store","layout":99}', StoreUnavailable),
    ],
)
def test_a_path_that_is_in_use(url: str, client: KazooClient, data: bytes, error: type[Exception]) -> None:
    client.create(_path(url), data)
    with Delimiter(url) as quota, pytest.raises(error):
        quota.define_resource("cores")
    assert client.get(_path(url))[0] == data
    assert client.get_children(_path(url)) == []


def test_a_path_that_somebody_has_made_for_us(url: str, client: KazooClient) -> None:
    client.create(_path(url))
    with Delimiter(url) as quota:
        quota.define_resource("cores")
        assert quota.resources()[0].name == "cores"


def test_a_store_below_other_nodes(url: str) -> None:
    with Delimiter(f"{url}/deep/down") as quota:
        quota.define_resource("cores", max=1)
        assert quota.limits() == {"cores": 1}


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[1]", b'{"version":1}', b"x\x9c\x00", b'{"id":1,"own":3}'])
@pytest.mark.parametrize("place", ["claim", "counter", "rules", "names", "live"])
def test_nodes_that_are_not_ours(
    quota: Delimiter, engine: ZooKeeperEngine, client: KazooClient, place: str, rubbish: bytes
) -> None:
    """Nothing is guessed from what somebody else has written."""
    quota.claim({"cores": 1}, user="john", id="c", external_id="vm")
    layout = engine.ground.layout
    from delimiter.engines.zookeeper.layout import digest

    paths = {
        "claim": layout.claim(digest("c")),
        "counter": layout.counter("cores", Scope("user", "john")),
        "rules": layout.rules,
        "names": layout.name("vm"),
        "live": layout.live,
    }
    client.set(paths[place], rubbish)
    with Delimiter(_url_of(engine)) as other, pytest.raises(StoreUnavailable) as raised:
        _look_and_claim(other)
    assert not raised.value.retryable
    assert paths[place] in str(raised.value)


def _look_and_claim(quota: Delimiter) -> None:
    quota.get_claim("vm")
    quota.claim({"cores": 1}, user="john")


def _url_of(engine: ZooKeeperEngine) -> str:
    return f"zookeeper://{engine.ground.session.address.hosts}{engine.ground.layout.root}"


def test_with_a_password(url: str, client: KazooClient) -> None:
    """The nodes of a store that is opened with a password are for those who know it."""
    named = url.replace("://", "://me:s%2Fecret@")
    with Delimiter(named) as quota:
        quota.define_resource("cores", max=2)
        quota.claim({"cores": 1}, user="john")
    with pytest.raises(NoAuthError):
        client.get(_path(url))
    with Delimiter(url) as stranger, pytest.raises(StoreUnavailable) as raised:
        stranger.usage()
    assert "s/ecret" not in str(raised.value)


async def _on_loop(url: str) -> int:
    async with aio.Delimiter(url) as quota:
        await quota.define_resource("cores", max=3)
        await quota.claim({"cores": 2}, user="john", id="c")
        with pytest.raises(OverLimit):
            await quota.claim({"cores": 2}, user="john")
        return (await quota.usage())["cores"].used


def test_asyncio(url: str) -> None:
    import asyncio

    assert asyncio.run(_on_loop(url)) == 2


def test_an_unknown_claim(quota: Delimiter) -> None:
    with pytest.raises(UnknownClaim):
        quota.release("nobody's")
