"""Nodes of a cluster that die or are cut off while claims go on, and what one URL of all nodes makes of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, OverLimit, StoreUnavailable, aio
from delimiter.conformance.counting import kinds, together
from galera import Galera, Node
from server_process import free_port

pytestmark = pytest.mark.stores("galera")


# --- making the tables ------------------------------------------------------------------------------------------------


def test_tables_are_made_from_all_nodes_at_once(galera_server: Galera) -> None:
    """Guard: a row that only one process can have written; GET_LOCK is known to one node only."""
    url = galera_server.create_database()
    addresses = [one.render_as_string(hide_password=False) for one in galera_server.urls(url)]

    def start(number: int) -> list[str]:
        with Delimiter(addresses[number % 3], timeout=30) as quota:
            quota.define_resource(f"r{number}.x", max=5)
            return [resource.name for resource in quota.resources()]

    try:
        told = together([partial(start, number) for number in range(9)])
        assert kinds(told) == {"list": 9}, told
        with Delimiter(addresses[0]) as quota:
            assert len(quota.resources()) == 9
        with sa.create_engine(addresses[1], poolclass=sa.NullPool).connect() as connection:
            assert "delimiter_upgrading" not in sa.inspect(connection).get_table_names()
    finally:
        galera_server.drop_database(url)


# --- nodes that die or are cut off ----------------------------------------------------------------------------------


class _Load:
    """Callers that claim and release without end, by a URL of all nodes, and keep a journal of what they were told."""

    def __init__(self, address: str, callers: int = 48) -> None:
        self._stop = threading.Event()
        self.held: set[str] = set()
        self.released: set[str] = set()
        self.refused: set[str] = set()
        self.unsettled: list[tuple[str, str]] = []
        self.surprises: list[BaseException] = []
        #: When somebody was last told something, in order.
        self.told: list[float] = [time.monotonic()]
        self._quotas = [Delimiter(address, timeout=30) for _ in range(6)]
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(callers)]

    def __enter__(self) -> _Load:
        self._quotas[0].define_resource("cores", max=150, project_max=60)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for verb, id in self.unsettled:
            self._settle(verb, id)
        for quota in self._quotas:
            quota.close()

    def wait_for(self, more: int) -> float:
        """Until ``more`` calls were answered from now on; the longest time without any answer (seconds)."""
        begun, at = time.monotonic(), len(self.told)
        while len(self.told) < at + more:
            assert time.monotonic() < begun + 60, "nobody is answered any more"
            threading.Event().wait(0.02)
        times = [begun, *self.told[at:]]
        return max(after - before for before, after in itertools.pairwise(times))

    def longest_pause(self, since: float) -> float:
        times = [since, *(moment for moment in self.told if moment > since), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))

    def _work(self, number: int) -> None:
        quota, dice = self._quotas[number % len(self._quotas)], random.Random(number)
        mine: list[str] = []
        for turn in itertools.count():
            if self._stop.is_set():
                return
            id = f"{number}-{turn}"
            verb = "release" if mine and dice.random() < 0.5 else "claim"
            id = mine.pop() if verb == "release" else id
            try:
                if verb == "claim":
                    quota.claim({"cores": 1}, project=f"p{number % 4}", id=id)
                    mine.append(id)
                    self.held.add(id)
                else:
                    quota.release(id)
                    self.held.discard(id)
                    self.released.add(id)
            except OverLimit:
                self.refused.add(id)
            except (StoreUnavailable, Conflict):
                self.unsettled.append((verb, id))
                continue
            except BaseException as error:
                self.surprises.append(error)
            self.told.append(time.monotonic())

    def _settle(self, verb: str, id: str) -> None:
        quota = self._quotas[0]
        if verb == "release":
            quota.release(id)
            self.held.discard(id)
            self.released.add(id)
            return
        try:
            quota.claim({"cores": 1}, project=f"p{int(id.partition('-')[0]) % 4}", id=id)
            self.held.add(id)
        except OverLimit:
            self.refused.add(id)


def _assert_nothing_lost(load: _Load, handles: list[Delimiter]) -> None:
    assert load.surprises == []
    for quota in handles:
        live = {claim.id for claim in quota.claims()}
        assert live == load.held
        assert quota.usage()["cores"].used == len(load.held) <= 150
        assert list(quota.reconcile()) == []
    ended = {claim.id for claim in handles[0].claims(state="released")}
    assert ended == load.released
    assert not load.refused & (ended | load.held)


@contextmanager
def _measured(what: str, load: _Load, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    begun = time.monotonic()
    yield
    with capsys.disabled():
        print(  # noqa: T201 - a figure for whoever runs it
            f"\n    {what}: {time.monotonic() - begun:.1f} s, no answer for {load.longest_pause(begun):.1f} s"
        )


@pytest.mark.slow
def test_a_node_killed_and_then_another_cut_off(
    addresses: list[str], galera_server: Galera, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards: in doubt, a call is repeated with its id; a node without the majority is left, and left out."""
    first, second, _ = galera_server.nodes
    with _Load(galera_server.together(sa.make_url(addresses[0]))) as load:
        load.wait_for(30)
        with _measured("killed, until the others go on", load, capsys):
            first.kill()
            load.wait_for(30)
        with _measured("started, until it has joined", load, capsys):
            first.start()
            galera_server.wait_until_whole(3)
        with _measured("cut off, until the others go on", load, capsys):
            galera_server.cut(second)
            galera_server.wait_until_shut_out(second)
            load.wait_for(30)
        with _measured("healed, until it has joined", load, capsys):
            galera_server.heal(second)
            galera_server.wait_until_whole(3)
        load.wait_for(30)
    with ExitStack() as stack:
        _assert_nothing_lost(load, [stack.enter_context(Delimiter(address)) for address in addresses])


@pytest.mark.slow
def test_a_node_killed_while_another_is_cut_off(
    addresses: list[str], galera_server: Galera, capsys: pytest.CaptureFixture[str]
) -> None:
    """No majority is left: nobody is told anything that is not so, and all goes on when one of the two is back."""
    first, second, third = galera_server.nodes
    with _Load(galera_server.together(sa.make_url(addresses[0]))) as load:
        load.wait_for(30)
        first.kill()
        galera_server.wait_until_shut_out(first)
        load.wait_for(30)
        with _measured(
            "killed before, and another cut off, until it is healed and the others go on", load, capsys
        ):
            galera_server.cut(second)
            _until_no_majority(third)
            galera_server.heal(second)
            load.wait_for(30)
        with _measured("the first started, until it has joined", load, capsys):
            first.start()
            galera_server.wait_until_whole(3)
        load.wait_for(30)
    with ExitStack() as stack:
        _assert_nothing_lost(load, [stack.enter_context(Delimiter(address)) for address in addresses])


def _until_no_majority(node: Node) -> None:
    deadline = time.monotonic() + 30
    while node.ready:
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_a_node_without_the_majority_takes_no_claim(addresses: list[str], galera_server: Galera) -> None:
    """By its own URL it is not available; by one that names all nodes another is found."""
    node = galera_server.nodes[0]
    with Delimiter(addresses[1]) as quota:
        quota.define_resource("cores")
    galera_server.cut(node)
    try:
        galera_server.wait_until_shut_out(node)
        _until_no_majority(node)
        with Delimiter(addresses[0], timeout=1) as quota, pytest.raises(StoreUnavailable):
            quota.claim({"cores": 1}, user="john")
        for _ in range(4):  # each takes the nodes in an order of its own
            with Delimiter(galera_server.together(sa.make_url(addresses[0])), timeout=30) as quota:
                quota.claim({"cores": 1}, user="john")
    finally:
        galera_server.heal(node)
        galera_server.wait_until_whole(3)


def test_asyncio_by_one_url_of_all_nodes(addresses: list[str], galera_server: Galera) -> None:
    """With one among them that does not answer: the driver for asyncio leaves it out, too."""
    url, _, _ = galera_server.together(sa.make_url(addresses[0])).partition(
        "?"
    )  # asyncmy encrypts nothing anyway
    url = url.replace("pymysql", "asyncmy")
    url = url.replace("@", f"@127.0.0.1:{free_port()},")

    async def claim(number: int) -> None:
        async with aio.Delimiter(url) as quota:
            await quota.define_resource("cores", max=4)
            await quota.claim({"cores": 1}, user="john", id=f"c{number}")

    for number in range(4):  # each takes the nodes in an order of its own
        asyncio.run(claim(number))
    with Delimiter(addresses[2]) as quota, pytest.raises(OverLimit):
        quota.claim({"cores": 1}, user="john")


def test_the_condition_of_a_node(addresses: list[str]) -> None:
    """Healthy, and with one piece of advice for transactions of the service's own."""
    with Delimiter(addresses[0]) as quota:
        found = quota.condition()
    assert found.kept.startswith("Galera, a node in state Synced of a Primary cluster of 3")
    assert [(one.setting, one.severe) for one in found.weaknesses] == [("wsrep_sync_wait = 0", False)]
