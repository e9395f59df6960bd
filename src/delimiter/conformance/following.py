"""Following events: pages, subscriptions, and what is forgotten."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from delimiter import Delimiter, Event
from delimiter.conformance.contract import Contract, move_time

if TYPE_CHECKING:
    from delimiter.engine import Engine


class FollowerContract(Contract):
    def test_pages_go_on_where_the_last_one_ended(
        self, quota: Delimiter, handles: list[Delimiter], engine: Engine
    ) -> None:
        quota.define_resource("cores")
        assert engine.last_event() == 0
        for limit in range(1, 26):
            quota.update_limits("cores", user="john", max=limit)
        read: list[Event] = []
        while page := engine.events(after=len(read), size=7):
            assert len(page) <= 7
            read += page
        assert [(one.seq, one.limit, one.previous_limit) for one in read] == [
            (limit, limit, limit - 1 if limit > 1 else -1) for limit in range(1, 26)
        ]
        assert engine.last_event() == 25
        assert engine.events(after=25, size=7) == []
        for one in handles:
            assert list(one.events()) == read
            assert list(one.events(after=20)) == read[20:]

    def test_a_subscription_gets_each_event_once(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.update_limits("cores", user="john", max=1)
        got: dict[str, list[int]] = {"all": [], "new": []}
        done = {name: threading.Event() for name in got}

        def callback(name: str) -> Any:
            def note(event: Event) -> None:
                got[name].append(event.seq)
                if event.limit == 99:
                    done[name].set()

            return note

        with (
            quota.subscribe(callback("all"), after=0) as everything,
            quota.subscribe(callback("new")) as news,
        ):
            for limit in (2, 3, 4, 99):
                quota.update_limits("cores", user="john", max=limit)
            assert all(one.wait(30) for one in done.values())
        assert got == {"all": [1, 2, 3, 4, 5], "new": [2, 3, 4, 5]}
        assert everything.seq == news.seq == 5
        quota.update_limits("cores", user="john", max=7)
        assert got["all"][-1] == 5

    def test_a_callback_that_fails_is_called_again(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        for limit in (1, 2):
            quota.update_limits("cores", user="john", max=limit)
        got: list[int] = []
        done = threading.Event()

        def note(event: Event) -> None:
            got.append(event.seq)
            if len(got) == 1:
                raise ValueError("the first time")
            if event.seq == 2:
                done.set()

        with quota.subscribe(note, after=0):
            assert done.wait(30)
        assert got == [1, 1, 2]

    def test_forgotten_events_leave_the_numbers_as_they_are(self, quota: Delimiter, engine: Engine) -> None:
        """Even where all are gone: a follower that kept its last number goes on behind it."""
        quota.define_resource("cores")
        for limit in (1, 2, 3):
            quota.update_limits("cores", user="john", max=limit)
        assert quota.prune_events(older_than=60) == 0
        move_time(engine, 100)
        quota.update_limits("cores", user="john", max=4)
        assert quota.prune_events(older_than=60) == 3
        assert [event.seq for event in quota.events()] == [4]
        move_time(engine, 100)
        assert (quota.prune_events(older_than=60), quota.prune_events(older_than=60)) == (1, 0)
        assert quota.last_event() == 4
        quota.update_limits("cores", user="john", max=5)
        assert [event.seq for event in quota.events(after=4)] == [5]
