"""What others do between a reading and the multi that rests on it; and what must not stay behind.

Each test lets another process act at exactly that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from delimiter import ClaimConflict, Delimiter, DelimiterError, OverLimit, Request, StoreUnavailable
from delimiter.changes import Admit, NewClaim, Provision, Release
from delimiter.combining import Waiting
from delimiter.engines.zookeeper import claims as claims_module
from delimiter.engines.zookeeper import expiry as expiry_module
from delimiter.engines.zookeeper import upkeep as upkeep_module
from delimiter.engines.zookeeper.claims import Claims
from delimiter.engines.zookeeper.counters import Accounts
from delimiter.engines.zookeeper.engine import ZooKeeperEngine
from delimiter.engines.zookeeper.layout import digest
from delimiter.engines.zookeeper.multi import Multi
from delimiter.engines.zookeeper.session import Node
from servers import Server

pytestmark = pytest.mark.stores("zookeeper")


@pytest.fixture
def quota(engine: ZooKeeperEngine) -> Delimiter:
    quota = Delimiter(engine, timeout=30)
    quota.define_resource("cores", max=100)
    quota.define_resource("disk", max=100)
    return quota


@pytest.fixture
def other(store_url: str, quota: Delimiter) -> Iterator[Delimiter]:
    """Another process."""
    assert quota.resources()
    with Delimiter(store_url, timeout=30) as other:
        yield other


@pytest.fixture
def before_the_next_multi(
    engine: ZooKeeperEngine, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], None]:
    """Let something happen once, when everything is read and nothing sent."""

    def happens(act: Callable[[], object]) -> None:
        waiting, commit = [act], engine.ground.session.commit

        def late(multi: Multi) -> None:
            if multi and waiting:
                waiting.pop()()
            commit(multi)

        monkeypatch.setattr(engine.ground.session, "commit", late)

    return happens


# --- nodes that are made again --------------------------------------------------------------------


def test_an_external_id_that_is_forgotten_and_taken_meanwhile(
    quota: Delimiter, other: Delimiter, before_the_next_multi: Callable[[Callable[[], object]], None]
) -> None:
    """Guard: ``Claims.forgetting`` in the multi. The name's node is made again, with the version it had before."""
    quota.claim({"cores": 1}, user="john", id="first", external_id="vm")
    quota.release("first")

    def meanwhile() -> None:
        assert other.prune(older_than=0) == 1
        other.claim({"disk": 1}, user="mary", id="theirs", external_id="vm")

    before_the_next_multi(meanwhile)
    with pytest.raises(ClaimConflict):
        quota.claim({"cores": 1}, user="john", id="ours", external_id="vm")
    assert [claim.id for claim in quota.claims()] == ["theirs"]
    assert quota.get_claim("vm").id == "theirs"


@pytest.mark.parametrize("verb", ["child", "renew"])
def test_a_claim_that_is_forgotten_and_made_again_meanwhile(
    quota: Delimiter,
    other: Delimiter,
    before_the_next_multi: Callable[[Callable[[], object]], None],
    verb: str,
) -> None:
    """Guard: ``Claims.forgetting`` in the multi. The claim's node is made again, with the version it had before."""
    quota.reserve({"cores": 1}, user="john", id="one", expires_in=600)

    def meanwhile() -> None:
        other.release("one")
        assert other.prune(older_than=0) == 1
        other.reserve({"cores": 5}, user="mary", id="one", expires_in=600)

    before_the_next_multi(meanwhile)
    if verb == "child":
        quota.claim({"disk": 1}, user="john", parent="one")
    else:
        quota.renew("one", expires_in=60)
    assert (quota.get_claim("one").user, quota.get_claim("one").resources) == ("mary", {"cores": 5})
    assert list(quota.reconcile()) == []


# --- refusals -------------------------------------------------------------------------------------


def test_a_refusal_is_of_one_moment(
    quota: Delimiter, other: Delimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``Changes._confirm``. The limit from before it was raised is not held against usage from after that."""
    quota.update_limits("cores", user="john", max=10)
    quota.claim({"cores": 5}, user="john")
    fetch, waiting = Accounts.fetch, [True]

    def late(self: Accounts, charges: Iterator[tuple[str, str | None, str | None]]) -> None:
        if waiting and waiting.pop():
            other.update_limits("cores", user="john", max=20)
            other.claim({"cores": 8}, user="john")
        fetch(self, charges)

    monkeypatch.setattr(Accounts, "fetch", late)
    assert quota.reserve({"cores": 1}, user="john", expires_in=60).live
    monkeypatch.undo()
    with pytest.raises(OverLimit):
        quota.claim({"cores": 7}, user="john")
    assert quota.usage(user="john")["cores"].used == 14


def test_one_who_asks_for_something_damaged_does_not_disturb_others(
    store_url: str, quota: Delimiter, engine: ZooKeeperEngine
) -> None:
    """Guard: in ``Combiner._decide``, what a batch fails at for good is asked for alone by each of its callers."""
    quota.claim({"cores": 1}, user="john", id="damaged")
    quota.claim({"cores": 1}, user="john", id="whole")
    engine.ground.session.client.set(engine.ground.layout.claim(digest("damaged")), b"{}")
    waiting = [Waiting(Release(id), engine.ticket()) for id in ("damaged", "whole")]
    quota._combiner._decide(waiting)
    assert [(one.error, one.answer) for one in waiting] == [(None, None)] * 2
    with pytest.raises(StoreUnavailable):
        quota.release("damaged")
    quota.release("whole")
    assert quota.get_claim("whole").state == "released"


def test_a_release_by_an_external_id_that_comes_with_it(quota: Delimiter, engine: ZooKeeperEngine) -> None:
    """Guard: ``Decision._load_below``. Decided together, a claim is released under the id that it just got, whole."""
    quota.reserve({"cores": 1}, user="john", id="root", expires_in=600)
    quota.claim({"disk": 1}, user="john", id="below", parent="root")
    answers = engine.apply([Provision("root", external_id="vm"), Release("vm")])
    assert [type(one) for one in answers] == [tuple, tuple]
    assert [quota.get_claim(id).state for id in ("root", "below")] == ["released", "released"]
    assert list(quota.reconcile()) == []


# --- edits that broke off -------------------------------------------------------------------------


def test_a_store_that_was_closed_after_all_is_opened(
    quota: Delimiter, other: Delimiter, engine: ZooKeeperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: what is looked at after a multi in doubt is not older than it.

    The answer to the multi that closes the store does not come in time, and nothing is seen of it yet; the session
    goes on, and its lock would stay for good.
    """
    commit, current, meet = engine.ground.session.commit, engine.ground.rulebook.current, engine.ground.meet
    late: list[Multi] = []

    def no_answer(multi: Multi) -> None:
        if late or not multi:
            return commit(multi)
        late.append(multi)
        raise StoreUnavailable("the servers did not answer in time", in_doubt=True)

    def arrives() -> int:
        if len(late) == 1:
            late.append(late[0])
            commit(late[0])
        return meet()

    monkeypatch.setattr(engine.ground.session, "commit", no_answer)
    before = current()
    monkeypatch.setattr(type(engine.ground), "meet", lambda _: arrives())
    with pytest.raises(StoreUnavailable), engine._edits._closing.closed():
        raise AssertionError("not reached")
    monkeypatch.undo()
    assert current().closed is None
    assert current().version == before.version + 2
    assert engine.ground.session.read(engine.ground.layout.lock) is None
    assert other.claim({"cores": 1}, user="mary").live


# --- bounds ---------------------------------------------------------------------------------------


def test_what_is_swept_and_forgotten_and_repaired_fits_into_its_steps(
    store_url: str, quota: Delimiter, engine: ZooKeeperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: upkeep goes in parts that fit; one that does not would only lose its connection, for ever."""
    for module in (expiry_module, upkeep_module):
        monkeypatch.setattr(module, "LARGEST", 8 * 1024)
    sizes, commit = list[int](), engine.ground.session.commit

    def measured(multi: Multi) -> None:
        sizes.append(multi.size)
        commit(multi)

    requests = [Request({"cores": 1}, user=f"u{n}", external_id=f"x{n}", expires_in=60) for n in range(40)]
    quota.claim_all(requests)
    quota.claim_all([Request({"disk": 1}, project=f"p{n}") for n in range(40)])
    engine.clock_offset += 61_000_000
    monkeypatch.setattr(engine.ground.session, "commit", measured)
    assert quota.expire_reservations() == 40
    assert quota.prune(older_than=0) == 40
    layout, session = engine.ground.layout, engine.ground.session
    for shard in layout.resource("disk")[1:]:
        for name in session.children(shard):
            path = f"{shard}/{name}"
            node = session.read(path)
            assert node is not None
            session.client.set(path, node.data.replace(b'"own":[1,0]', b'"own":[2,0]'))
    assert len(list(quota.reconcile(repair=True))) == 40
    assert list(quota.reconcile()) == []
    assert len(sizes) > 8
    assert max(sizes) <= 8 * 1024


def test_an_external_id_stays_small_however_often_it_is_used_again() -> None:
    """Guard: the size of a name's node, which every claim that uses the name again must write."""
    chance = Random(7)
    ids = ["".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(255)) for _ in range(1000)]
    names = claims_module.Names("/path", "vm", ids, 0)
    kept = claims_module._read_names(Node(names.encoded(), 1, 1, 1, 0), "/path", "vm").ids
    assert kept == ids[-len(kept) :]
    assert len(kept) > 10
    assert len(names.encoded()) <= 64 * 1024


def test_a_reconcile_waits_for_an_edit(
    quota: Delimiter, engine: ZooKeeperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``ZooKeeperEngine._drifts`` tries again. Nobody else would, and a store that is closed has no answer."""
    quota.claim({"cores": 1}, user="john")
    editing = engine._edits._closing.closed()
    editing.__enter__()
    opened = []

    def pause(_: float) -> None:
        opened.append(editing.__exit__(None, None, None))

    monkeypatch.setattr(engine, "pause", pause)
    try:
        assert list(quota.reconcile(repair=True)) == []
    finally:
        if not opened:
            pause(0)


# --- servers that do not answer -------------------------------------------------------------------


def test_first_calls_end_in_time_however_many_there_are(store_url: str, zookeeper_server: Server) -> None:
    """Guard: each caller waits for the connection beside the others, and nobody for a client to stop."""
    if not zookeeper_server.throw_away:
        pytest.skip("a server of your own is not stopped")
    with Delimiter(store_url, timeout=1) as hurried, ThreadPoolExecutor(12) as pool:
        zookeeper_server.pause()
        began = time.monotonic()
        try:
            errors = list(pool.map(lambda _: _error_of(hurried.usage), range(12)))
        finally:
            zookeeper_server.resume()
        assert time.monotonic() - began < 5
        assert {type(error) for error in errors} == {StoreUnavailable}


def _error_of(call: Callable[[], object]) -> DelimiterError | None:
    try:
        call()
    except DelimiterError as error:
        return error
    return None


# --- a follower that lags -------------------------------------------------------------------------


def test_a_release_by_an_external_id_that_has_passed_on(
    quota: Delimiter, other: Delimiter, engine: ZooKeeperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: what ended is looked at again behind a write. Beside a change that commits it would be taken as it is.

    Our server has not heard yet that another claim has the external id by now.
    """
    quota.claim({"cores": 1}, user="john", id="first", external_id="vm")
    quota.release("first")
    look_up = Claims.look_up
    lagging = [deepcopy(look_up(engine._listing._claims, ["vm"], ["vm"]))]
    other.claim({"cores": 1}, user="mary", id="second", external_id="vm")

    def stale(self: Claims, ids: Collection[str], names: Collection[str]) -> Any:
        return lagging.pop() if lagging else look_up(self, ids, names)

    monkeypatch.setattr(Claims, "look_up", stale)
    fresh = NewClaim("ours", {"disk": 1}, user="john")
    assert [type(one) for one in engine.apply([Admit((fresh,)), Release("vm")])] == [tuple, tuple]
    assert quota.get_claim("second").state == "released"
    assert [claim.id for claim in quota.claims()] == ["ours"]
