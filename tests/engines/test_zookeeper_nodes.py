"""How much a ZooKeeper store takes, and what it makes of nodes that it has not written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from delimiter import Delimiter, InvalidRequest, OverLimit, Request, StoreUnavailable, UnknownClaim, aio
from delimiter.edits import AddProject, LimitChange, SetLimit
from delimiter.engines.zookeeper.engine import ZooKeeperEngine
from delimiter.engines.zookeeper.layout import digest
from delimiter.model import Scope
from engines.zookeeper_store import open_store, path_of, somebody_else

pytestmark = pytest.mark.stores("zookeeper")


@pytest.fixture
def quota(engine: ZooKeeperEngine) -> Delimiter:
    quota = Delimiter(engine, timeout=30)
    quota.define_resource("cores", max=100, user_max=9)
    return quota


@pytest.fixture
def client(store_url: str) -> Iterator[KazooClient]:
    with somebody_else(store_url) as client:
        yield client


# --- bounds ---------------------------------------------------------------------------------------


def _children(count: int) -> list[Request]:
    return [Request({"cores": 1}, project="acme", parent="root") for _ in range(count)]


def test_what_is_too_large_for_one_step_is_refused(store_url: str) -> None:
    """Guard: the size is known before anything is sent. A server would only drop the connection."""
    with Delimiter(store_url, timeout=60) as quota:
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


def test_thousands_of_rules(store_url: str) -> None:
    """More than one node can hold. Guard: the rules lie in parts, and only parts that changed are written."""
    names = [f"{number:04}" + "x" * 200 for number in range(3000)]
    with Delimiter(store_url, timeout=60) as quota, Delimiter(store_url, timeout=60) as other:
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
def test_blocks(store_url: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists go on in the next block, and blocks that are empty go."""
    monkeypatch.setattr("delimiter.engines.zookeeper.writing._IN_BLOCK", size)
    monkeypatch.setattr("delimiter.engines.zookeeper.writing._LOOK_EVERY", 1)
    for module in ("layout", "claims", "writing", "upkeep"):
        monkeypatch.setattr(f"delimiter.engines.zookeeper.{module}.CHILDREN_IN_BLOCK", size)
    for module in ("layout", "eventlog"):
        monkeypatch.setattr(f"delimiter.engines.zookeeper.{module}.EVENTS_IN_BLOCK", size + 1)
    engine = open_store(store_url)
    with Delimiter(engine) as quota, Delimiter(open_store(store_url)) as other:
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


def test_without_create_nothing_is_made(store_url: str, client: KazooClient) -> None:
    with Delimiter(store_url, create=False) as quota, pytest.raises(StoreUnavailable) as raised:
        quota.usage()
    assert not raised.value.retryable
    assert client.exists(path_of(store_url)) is None


@pytest.mark.parametrize(
    "data, error",
    [
        (b"somebody else's", InvalidRequest),
        (b'{"delimiter":"other"}', InvalidRequest),
        (b'{"delimiter":"store","layout":99}', StoreUnavailable),
    ],
)
def test_a_path_that_is_in_use(
    store_url: str, client: KazooClient, data: bytes, error: type[Exception]
) -> None:
    client.create(path_of(store_url), data)
    with Delimiter(store_url) as quota, pytest.raises(error):
        quota.define_resource("cores")
    assert client.get(path_of(store_url))[0] == data
    assert client.get_children(path_of(store_url)) == []


def test_a_path_that_somebody_has_made_for_us(store_url: str, client: KazooClient) -> None:
    client.create(path_of(store_url))
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        assert quota.resources()[0].name == "cores"


def test_a_store_below_other_nodes(store_url: str) -> None:
    with Delimiter(f"{store_url}/deep/down") as quota:
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


def test_with_a_password(store_url: str, client: KazooClient) -> None:
    """The nodes of a store that is opened with a password are for those who know it."""
    named = store_url.replace("://", "://me:s%2Fecret@")
    with Delimiter(named) as quota:
        quota.define_resource("cores", max=2)
        quota.claim({"cores": 1}, user="john")
    with pytest.raises(NoAuthError):
        client.get(path_of(store_url))
    with Delimiter(store_url) as stranger, pytest.raises(StoreUnavailable) as raised:
        stranger.usage()
    assert "s/ecret" not in str(raised.value)


async def _on_loop(store_url: str) -> int:
    async with aio.Delimiter(store_url) as quota:
        await quota.define_resource("cores", max=3)
        await quota.claim({"cores": 2}, user="john", id="c")
        with pytest.raises(OverLimit):
            await quota.claim({"cores": 2}, user="john")
        return (await quota.usage())["cores"].used


def test_asyncio(store_url: str) -> None:
    assert asyncio.run(_on_loop(store_url)) == 2


def test_an_unknown_claim(quota: Delimiter) -> None:
    with pytest.raises(UnknownClaim):
        quota.release("nobody's")
