"""How calls wait; an engine on an event loop has its own ways, which let the loop go on meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, TypeVar

__all__ = ["Bell", "Ticket", "Waits", "pauses"]

T = TypeVar("T")

#: Waits between attempts start near the time of one transaction and stay far below any timeout (seconds).
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.25


def pauses(*, first: float = _FIRST_PAUSE, longest: float = _LONGEST_PAUSE) -> Iterator[float]:
    """How long to wait before each next attempt, in seconds: up to twice as long each time, and at random.

    So those who met do not meet again. ("Full jitter", by Brooker, 2015.)
    """
    most = first
    while True:
        yield random.uniform(0, most)  # noqa: S311 - not a secret
        most = min(most * 2, longest)


class Bell:
    """What a follower of events waits on between two looks. Another thread may close it."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def wait(self, seconds: float) -> None:
        """Return when it rings, when it is closed, and at the latest after ``seconds``. It may ring for nothing."""
        self._closed.wait(seconds)

    def close(self) -> None:
        self._closed.set()


class Ticket:
    """What one caller waits on until another lets it go on; once."""

    __slots__ = ("_lock", "gone", "then")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        #: What whoever waited here does first when it goes on; and whether it does not wait any more.
        self.then: Callable[[], None] | None = None
        self.gone = False

    def wait(self, seconds: float) -> bool:
        """Whether it was opened before this many seconds had passed; ask again if not."""
        return self._lock.acquire(timeout=seconds)

    def waited(self, seconds: float) -> Awaitable[bool]:
        """The same for a coroutine."""
        return asyncio.to_thread(self.wait, seconds)

    def open(self) -> None:
        with suppress(RuntimeError):  # it is open
            self._lock.release()

    def pass_on(self) -> None:
        """Do what is to be done next; again: nothing."""
        then, self.then = self.then, None
        if then is not None:
            then()

    def leave(self) -> None:
        """Nobody waits here any more: what comes next must not wait for it."""
        self.gone = True
        self.pass_on()


def _at_last(do: Callable[[], None], times: int) -> Callable[[], None]:
    """What does it when it is called for the last of so many times."""
    left = [None] * (times - 1)

    def call() -> None:
        try:
            left.pop()  # by one thread each
        except IndexError:
            do()

    return call


class Waits:
    """How an engine's callers wait: in their own threads, unless it runs on an event loop."""

    def pause(self, seconds: float) -> None:
        """Wait before the desk tries again; an engine that runs on an event loop lets the loop go on meanwhile."""
        time.sleep(seconds)

    def let_go(self, tickets: Sequence[Ticket], at_last: Callable[[], None]) -> None:
        """Open them, and do something when all have gone on.

        One lets the next go on: if all threads were woken at once, they would only wake up to wait for each other. In
        two rows: while the thread of one works, that of the other wakes up, which may take as long.
        """
        half = (len(tickets) + 1) // 2
        rows = [row for row in (tickets[:half], tickets[half:]) if row]
        last = _at_last(at_last, len(rows))
        firsts = []
        for row in rows:
            then = last
            for ticket in reversed(row):
                ticket.then = then
                then = ticket.open
            firsts.append(then)
        for first in firsts or [last]:
            first()
        for ticket in tickets:
            if ticket.gone:
                ticket.pass_on()

    def ticket(self) -> Ticket:
        """Something to wait on; on an event loop it lets the loop go on meanwhile."""
        return Ticket()

    def shielded(self, call: Callable[[], T]) -> T:
        """Call something to its end, also where the caller may be cancelled meanwhile."""
        return call()

    def beside(self, call: Callable[[], T]) -> T:
        """Call something outside that may block; an engine that runs on an event loop does so in a thread."""
        return call()
