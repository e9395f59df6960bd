"""Nodes that somebody else has written: nothing is guessed from them, and it is said which they are."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

import pytest

from delimiter import Delimiter, StoreUnavailable
from delimiter.engines.zookeeper.engine import ZooKeeperEngine
from delimiter.engines.zookeeper.layout import digest

pytestmark = pytest.mark.stores("zookeeper")


@pytest.fixture
def quota(engine: ZooKeeperEngine) -> Delimiter:
    quota = Delimiter(engine, timeout=30)
    quota.define_resource("cores", max=100)
    return quota


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":' * 50_000,
        zlib.compress(b'{"a":"' + b"x" * 70_000_000 + b'"}'),
        b'{"external_id":"vm","ids":[[null]]}',
        b'{"external_id":"vm","ids":["c",7]}',
    ],
    ids=["deep", "long", "a list", "a number"],
)
def test_a_name_that_somebody_else_has_written(
    quota: Delimiter, engine: ZooKeeperEngine, content: bytes
) -> None:
    quota.claim({"cores": 1}, user="john", id="c", external_id="vm")
    engine.ground.session.client.set(engine.ground.layout.name("vm"), content)
    for call in (lambda: quota.get_claim("vm"), lambda: quota.release("vm")):
        with pytest.raises(StoreUnavailable, match="not as Delimiter writes it"):
            call()


@pytest.mark.parametrize(
    "field, value",
    [
        ("resources", []),
        ("resources", {"cores": "1"}),
        ("project", 7),
        ("state", "gone"),
        ("expires_at", "soon"),
        ("expires_at", 2**60),
        ("ended_at", -1),
        ("children", -1),
        ("block", None),
        ("place", True),
    ],
)
def test_a_claim_that_somebody_else_has_written(
    quota: Delimiter, engine: ZooKeeperEngine, field: str, value: object
) -> None:
    quota.claim({"cores": 1}, user="john", id="c")
    path = engine.ground.layout.claim(digest("c"))
    client = engine.ground.session.client
    client.set(path, json.dumps({**json.loads(client.get(path)[0]), field: value}).encode())
    for call in (
        lambda: quota.get_claim("c"),
        lambda: quota.release("c"),
        lambda: list(quota.claims()),
        lambda: list(quota.reconcile()),
    ):
        with pytest.raises(StoreUnavailable, match="not as Delimiter writes it"):
            call()


@pytest.mark.parametrize(
    "node, call",
    [
        ("live/foo", "claims"),
        ("live/00000000/foo", "claims"),
        ("live/00000000/a.b.c", "reconcile"),
        ("ending/foo", "usage"),
        ("ending/00000000/foo", "expire"),
        ("ended/00000000/foo", "prune"),
    ],
)
def test_a_node_in_the_lists_that_is_not_ours(
    quota: Delimiter, engine: ZooKeeperEngine, node: str, call: str
) -> None:
    quota.claim({"cores": 1}, user="john")
    engine.ground.session.client.create(f"{engine.ground.layout.root}/{node}", makepath=True)
    calls: dict[str, Callable[[], object]] = {
        "claims": lambda: list(quota.claims()),
        "reconcile": lambda: list(quota.reconcile()),
        "usage": quota.usage,
        "expire": quota.expire_reservations,
        "prune": lambda: quota.prune(older_than=0),
    }
    with pytest.raises(StoreUnavailable, match="not as Delimiter writes it"):
        calls[call]()
