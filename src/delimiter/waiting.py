"""How calls wait; an engine on an event loop has its own ways, which let the loop go on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Bell", "Ticket", "Waits"]

T = TypeVar("T")


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

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        """Whether it was opened before this many seconds had passed; ask again if not."""
        return self._lock.acquire(timeout=seconds)

    def open(self) -> None:
        self._lock.release()


class Waits:
    """How an engine's callers wait: in their own threads, unless it runs on an event loop."""

    def pause(self, seconds: float) -> None:
        """Wait before the desk tries again; an engine that runs on an event loop lets the loop go on meanwhile."""
        time.sleep(seconds)

    def give_way(self) -> None:
        """Let others run who can, for a moment; never wait."""
        time.sleep(0)

    def ticket(self) -> Ticket:
        """Something to wait on; on an event loop it lets the loop go on meanwhile."""
        return Ticket()

    def shielded(self, call: Callable[[], T]) -> T:
        """Call something to its end, also where the caller may be cancelled meanwhile."""
        return call()

    def beside(self, call: Callable[[], T]) -> T:
        """Call something outside that may block; an engine that runs on an event loop does so in a thread."""
        return call()
