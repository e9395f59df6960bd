"""Events under concurrency: each crossing once, numbered once committed, none missed by a follower."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Final

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, Event, OverLimit

_THREADS, _ROUNDS = 8, 12


def cross(quota: Delimiter, number: int) -> int:
    """Over quota and back, again and again; how often. Each has a project of its own, below one that all share."""
    project = f"p{number}"
    for round in range(_ROUNDS):
        claim = quota.claim({"cores": 2}, project=project)
        assert len(quota.update_limits("cores", project=project, max=1)) == 1
        if round % 2:
            quota.release(claim.id)
            quota.update_limits("cores", project=project, max=None)
        else:
            quota.update_limits("cores", project=project, max=None)
            quota.release(claim.id)
    return _ROUNDS


def test_each_crossing_is_told_once(store_url: str) -> None:
    """While two readers number and read. Guards: the lock of the numbering, and crossings told from the locked row."""
    with (
        Delimiter(store_url, timeout=60) as quota,
        Delimiter(store_url, timeout=60) as other,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        quota.define_resource("cores")
        quota.add_project("top")
        for number in range(_THREADS):
            quota.add_project(f"p{number}", parent="top")
        seen: list[list[Event]] = [[], []]
        done = threading.Event()

        def read(handle: Delimiter, into: list[Event]) -> None:
            last = False
            while not last:
                last = done.is_set()
                into.extend(handle.events(after=into[-1].seq if into else 0))

        readers = [
            threading.Thread(target=read, args=pair) for pair in zip((quota, other), seen, strict=True)
        ]
        for reader in readers:
            reader.start()
        crossed = sum(pool.map(lambda n: cross((quota, other)[n % 2], n), range(_THREADS)))
        done.set()
        for reader in readers:
            reader.join()
        assert seen[0] == seen[1]
        assert [event.seq for event in seen[0]] == list(range(1, len(seen[0]) + 1))
        kinds = [event.kind for event in seen[0]]
        assert kinds.count("over_quota") == kinds.count("back_within_quota") == crossed
        assert kinds.count("limit_changed") == 2 * crossed
        for number in range(_THREADS):
            turns = [e.kind for e in seen[0] if e.scope == f"project:p{number}" and e.kind != "limit_changed"]
            assert turns == ["over_quota", "back_within_quota"] * _ROUNDS


def test_many_releases_make_one_crossing(store_url: str) -> None:
    """Guard: the crossing is read off the row that the release has locked, not off one it looked at before."""
    with Delimiter(store_url, timeout=60) as quota, ThreadPoolExecutor(_THREADS) as pool:
        quota.define_resource("cores")
        for name, parent in (("top", None), ("leaf", "top")):
            quota.add_project(name, parent=parent)
        for name in ("top", "leaf"):
            quota.update_limits("cores", project=name, max=100)
        ids = [quota.claim({"cores": 1}, project="leaf").id for _ in range(24)]
        after = quota.subscribe(lambda _: None)
        after.close()
        for name in ("top", "leaf"):
            quota.update_limits("cores", project=name, max=12)
        list(pool.map(quota.release, ids))
        told = [(e.kind, e.scope) for e in quota.events(after=after.seq) if e.kind != "limit_changed"]
        assert sorted(told) == [
            (kind, f"project:{name}")
            for kind in ("back_within_quota", "over_quota")
            for name in ("leaf", "top")
        ]
        with pytest.raises(OverLimit):
            quota.claim({"cores": 13}, project="leaf")


# -- followers ----------------------------------------------------------------------------------------------------

_KILLS: Final = 4


def follow(url: str, after: int, told: Connection) -> None:
    """A follower: it keeps the number of each event with the event."""
    stop = threading.Event()
    with (
        Delimiter(url, timeout=60) as quota,
        quota.subscribe(lambda e: told.send((e.seq, e.scope)), after=after),
    ):
        stop.wait()


@pytest.mark.slow
@pytest.mark.leaves_connections
def test_a_killed_follower_goes_on_without_gap_or_repeat(store_url: str) -> None:
    """kill -9 in the midst of events, and another goes on after the last that was kept."""
    spawn = multiprocessing.get_context("spawn")
    with Delimiter(store_url, timeout=60) as quota:
        quota.define_resource("cores")
        writing = threading.Thread(target=_write, args=(quota,))
        writing.start()
        kept: list[tuple[int, str]] = []
        try:
            for turn in itertools.count():
                mine, theirs = spawn.Pipe()
                follower = spawn.Process(
                    target=follow, args=(store_url, kept[-1][0] if kept else 0, theirs), daemon=True
                )
                follower.start()
                theirs.close()
                wanted = len(kept) + 60 if turn < _KILLS else 600
                while len(kept) < min(wanted, 600):
                    kept.append(mine.recv())
                os.kill(follower.pid or 0, signal.SIGKILL)
                follower.join()
                if len(kept) == 600:
                    break
        finally:
            writing.join()
        assert [seq for seq, _ in kept] == list(range(1, 601))
        assert [scope for _, scope in kept] == [event.scope for event in quota.events()]


def _write(quota: Delimiter) -> None:
    for number in range(600):
        quota.update_limits("cores", user=f"u{number}", max=1)


@pytest.mark.stores("postgresql")
def test_a_commit_wakes_the_follower(store_url: str) -> None:
    """Guard: NOTIFY; without it the follower finds the event when it looks by itself, and the bell never rings."""
    engine = sa.create_engine(store_url)
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        bell = quota._engine.bell()
        bell.wait(10)  # it listens from now on
        rung = threading.Event()

        def wait() -> None:
            bell.wait(30)
            rung.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        quota.update_limits("cores", user="john", max=1)
        assert rung.wait(20)
        waiting.join()
        bell.close()
    engine.dispose()
