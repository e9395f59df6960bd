"""Events: numbered by one head node, in the same multi as the change that makes them.

Only changes that make events touch the head, so it is no hot spot; and since its version is checked, numbers have no
gap and commit in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from threading import Event as Signal
from typing import Any, Final, NamedTuple

from kazoo.exceptions import KazooException

from delimiter.engines.records import instant
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.layout import EVENTS_IN_BLOCK, damaged, decode, encode
from delimiter.engines.zookeeper.multi import Multi
from delimiter.errors import DelimiterError
from delimiter.model import UNLIMITED, Event, EventKind, Scope
from delimiter.waiting import Bell

__all__ = ["EventLog", "Happening", "crossing"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Happening(NamedTuple):
    """An event that has no number yet."""

    kind: EventKind
    resource: str
    scope: str
    limit: int
    previous: int
    used: int | None


def crossing(resource: str, scope: Scope, before: tuple[int, int], after: tuple[int, int]) -> list[Happening]:
    """What is to be told of a scope whose limit and usage were and are these."""
    was_over, is_over = _over(before), _over(after)
    if was_over == is_over:
        return []
    kind: EventKind = "over_quota" if is_over else "back_within_quota"
    return [Happening(kind, resource, str(scope), after[0], before[0], after[1])]


def _over(standing: tuple[int, int]) -> bool:
    limit, used = standing
    return limit != UNLIMITED and used > limit


class EventLog:
    """The events of one store."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._session = ground.session
        self._layout = ground.layout

    def write(self, multi: Multi, happenings: Iterable[Happening], at: int) -> None:
        happenings = list(happenings)
        if not happenings:
            return
        first, last, version = self._head()
        for number, one in enumerate(happenings, start=last + 1):
            if number == 1 or number % EVENTS_IN_BLOCK == 0:
                multi.create(self._layout.event_block(number))
            multi.create(self._layout.event(number), encode({**one._asdict(), "at": at}))
        multi.set(self._layout.events, encode({"last": last + len(happenings), "first": first}), version)

    def last(self) -> int:
        return self._head()[1]

    def page(self, *, after: int, size: int) -> list[Event]:
        first, last, _ = self._head()
        start = max(after + 1, first)
        numbers = range(start, min(last, start + size - 1) + 1)
        return [event for event in self._read(numbers) if event is not None]

    def prune(self, *, older_than: int, size: int) -> int:
        now = self._ground.meet()
        first, last, version = self._head()
        oldest = _EPOCH + timedelta(microseconds=now - older_than)
        multi = Multi()
        forgotten = 0
        for event in self._read(range(first, min(last, first + size - 1) + 1)):
            if event is None or event.at > oldest:
                break
            multi.delete(self._layout.event(event.seq))
            if (event.seq + 1) % EVENTS_IN_BLOCK == 0:
                multi.delete(self._layout.event_block(event.seq))
            forgotten += 1
        if forgotten:
            multi.set(self._layout.events, encode({"last": last, "first": first + forgotten}), version)
            self._session.commit(multi)
        return forgotten

    def bell(self) -> Bell:
        return _Bell(self._ground)

    def _head(self) -> tuple[int, int, int]:
        node = self._session.read(self._layout.events)
        if node is None:
            raise damaged(self._layout.events)
        content = decode(node.data, self._layout.events)
        try:
            return int(content["first"]), int(content["last"]), node.version
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self._layout.events) from error

    def _read(self, numbers: Iterable[int]) -> list[Event | None]:
        paths = {self._layout.event(number): number for number in numbers}
        nodes = self._session.read_all(paths)
        return [
            None if (node := nodes[path]) is None else _event(decode(node.data, path), number, path)
            for path, number in paths.items()
        ]


def _event(content: dict[str, Any], number: int, path: str) -> Event:
    try:
        return Event(
            seq=number,
            kind=content["kind"],
            resource=content["resource"],
            scope=content["scope"],
            limit=content["limit"],
            previous_limit=content["previous"],
            used=content["used"],
            at=instant(content["at"]),
        )
    except (KeyError, OverflowError, TypeError) as error:
        raise damaged(path) from error


class _Bell(Bell):
    """Rings when the head of the events is written. A hint only: who waits looks by itself in any case."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self._ground = ground
        self._rung = Signal()
        self._watch()

    def wait(self, seconds: float) -> None:
        if self._rung.wait(seconds) and not self._closed.is_set():
            self._rung.clear()
            self._watch()  # before its owner looks, so that nothing happens unnoticed in between

    def close(self) -> None:
        super().close()
        self._rung.set()

    def _watch(self) -> None:
        # A watch that could not be set rings for nothing only later: at the end of the wait.
        try:
            client = self._ground.session.client_at_hand
            if client is not None:
                client.get_async(self._ground.layout.events, watch=lambda _: self._rung.set())
        except (KazooException, DelimiterError):
            return
