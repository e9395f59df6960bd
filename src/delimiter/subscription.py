"""Following events: a thread (or a task) that is woken when there are new ones, and calls back for each in order."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from delimiter.errors import DelimiterError
from delimiter.model import Event
from delimiter.waiting import Bell

__all__ = ["AsyncSubscription", "Subscription"]

_LOG: Final = logging.getLogger(__name__)

#: Seconds between two looks where nothing rings, and before an event whose callback failed is offered again.
_LOOK_EVERY: Final = 1.0


class Subscription:
    """A follower of events. Close it, or use it in a ``with`` block.

    Each event is handed over in order; one whose callback raises is offered again after a pause, and those behind it
    wait. ``seq`` is the last that was handed over: keep it, and a new subscription with ``after=seq`` goes on there.
    """

    def __init__(
        self,
        events: Callable[[int], Iterator[Event]],
        callback: Callable[[Event], object],
        bell: Bell,
        *,
        after: int,
    ) -> None:
        self.seq = after
        self._events = events
        self._callback = callback
        self._bell = bell
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="delimiter-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait until the callback that is under way has returned."""
        self._closed.set()
        self._bell.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                if not all(map(self._handed_over, self._events(self.seq))):
                    self._closed.wait(_LOOK_EVERY)
                    continue
            except DelimiterError as error:
                _LOG.warning("events cannot be read now, trying again: %s", error)
            self._bell.wait(_LOOK_EVERY)

    def _handed_over(self, event: Event) -> bool:
        """Whether the callback has taken it; nothing is handed over once this is closed."""
        if self._closed.is_set():
            return False
        try:
            self._callback(event)
        except Exception:
            _LOG.exception("the callback failed for event %s and is called again with it", event.seq)
            return False
        self.seq = event.seq
        return True


class AsyncSubscription:
    """The same in a task of an event loop: ``await`` its ``close()``, or use it in an ``async with`` block.

    The callback may be a coroutine function; the next event waits until it has returned.
    """

    def __init__(
        self,
        events: Callable[[int], AsyncIterator[Event]],
        callback: Callable[[Event], object],
        bell: Bell,
        *,
        after: int,
        rings_in_a_thread: bool,
    ) -> None:
        self.seq = after
        self._events = events
        self._callback = callback
        self._bell = bell
        self._rings_in_a_thread = rings_in_a_thread
        self._closed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="delimiter-events")

    async def close(self) -> None:
        """Stop, and wait until the callback that is under way has returned."""
        self._closed.set()
        await asyncio.to_thread(self._bell.close)
        if asyncio.current_task() is not self._task:
            await self._task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _follow(self) -> None:
        while not self._closed.is_set():
            handed_over = True
            try:
                async for event in self._events(self.seq):
                    handed_over = await self._handed_over(event)
                    if not handed_over:
                        break
            except DelimiterError as error:
                _LOG.warning("events cannot be read now, trying again: %s", error)
            if not handed_over:
                await self._pause()
            elif self._rings_in_a_thread:
                await asyncio.to_thread(self._bell.wait, _LOOK_EVERY)
            else:
                await self._pause()

    async def _handed_over(self, event: Event) -> bool:
        if self._closed.is_set():
            return False
        try:
            answer = self._callback(event)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            _LOG.exception("the callback failed for event %s and is called again with it", event.seq)
            return False
        self.seq = event.seq
        return True

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), _LOOK_EVERY)
