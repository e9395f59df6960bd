"""The SQL engine on an asynchronous driver. A room of its own, since greenlet comes with the extra ``asyncio`` only."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from delimiter.engine import OpenOptions
from delimiter.engines.sql.opening import refuse_single_connection
from delimiter.engines.sql.store import SqlEngine
from delimiter.errors import InvalidRequest
from delimiter.waiting import Ticket

T = TypeVar("T")

#: Rounds of the loop until a leader, too, has its answer, which takes the longest way: its task ends, then the shield
#: around it, then its caller goes on.
_UNTIL_ALL_WENT_ON: Final = 3

__all__ = ["SqlEngineOnLoop", "join", "open_url"]


def open_url(
    url: sa.URL,
    options: OpenOptions,
    arguments: dict[str, Any],
    attended: Callable[[sa.Engine], sa.Engine],
) -> SqlEngine:
    engine = attended(create_async_engine(url, **arguments).sync_engine)
    return SqlEngineOnLoop(engine, options, owned=True)


def join(engine: Any, options: OpenOptions) -> SqlEngine:
    """Join the asynchronous engine that the service has."""
    if not isinstance(engine, AsyncEngine):
        raise InvalidRequest(f"a store is a URL or an SQLAlchemy engine, not {type(engine).__name__}")
    if not options.asynchronous:
        raise InvalidRequest("an AsyncEngine is for delimiter.aio.Delimiter")
    refuse_single_connection(engine.sync_engine)
    return SqlEngineOnLoop(engine.sync_engine, options, owned=False)


class SqlEngineOnLoop(SqlEngine):
    """The same on an asynchronous driver: every call runs in a greenlet, and waiting lets the event loop go on."""

    asynchronous = True

    def __init__(self, engine: sa.Engine, options: OpenOptions, *, owned: bool) -> None:
        super().__init__(engine, options, owned=owned)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._tickets: _Tickets | None = None

    def pause(self, seconds: float) -> None:
        if _home.loop is None:
            await_only(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)

    def let_go(self, tickets: Sequence[Ticket], at_last: Callable[[], None]) -> None:
        for ticket in tickets:
            ticket.open()
        _after_rounds(asyncio.get_running_loop(), _UNTIL_ALL_WENT_ON if tickets else 0, at_last)

    def ticket(self) -> Ticket:
        if self._tickets is None or self._tickets.loop is not asyncio.get_running_loop():
            self._tickets = _Tickets()
        return _TicketOnLoop(self._tickets)

    def shielded(self, call: Callable[[], T]) -> T:
        task = asyncio.ensure_future(_spawned(call))
        self._under_way.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._under_way.discard)
        return await_only(asyncio.shield(task))

    def close(self) -> None:
        if self._under_way:  # their callers were cancelled
            await_only(asyncio.wait(self._under_way))
        super().close()

    def beside(self, call: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()

        def in_a_thread() -> T:
            _home.loop = loop
            try:
                return call()
            finally:
                _home.loop = None

        return await_only(asyncio.to_thread(in_a_thread))

    def now(self) -> int:
        # Whoever asks a source, beside the loop, asks for the store's time just before.
        if _home.loop is None:
            return super().now()
        return asyncio.run_coroutine_threadsafe(_spawned(super().now), _home.loop).result()


def _after_rounds(loop: asyncio.AbstractEventLoop, rounds: int, call: Callable[[], None]) -> None:
    if rounds:
        loop.call_soon(_after_rounds, loop, rounds - 1, call)
    else:
        call()


class _Tickets:
    """Those who wait on one loop, and the one timer for all of them: they are many, and mostly need none."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self._younger: list[asyncio.Future[bool]] = []
        self._older: list[asyncio.Future[bool]] = []
        self._ticking = False

    def future(self, seconds: float) -> asyncio.Future[bool]:
        future = self.loop.create_future()
        self._younger.append(future)
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(seconds, self._tick, seconds)
        return future

    def _tick(self, seconds: float) -> None:
        """Who has waited for as long as that, or up to twice as long, looks around."""
        for future in self._older:
            if not future.done():
                future.set_result(False)
        self._older, self._younger = self._younger, []
        self._ticking = bool(self._older)
        if self._ticking:
            self.loop.call_later(seconds, self._tick, seconds)


class _TicketOnLoop(Ticket):
    """A future of the loop, and another when one was waited for in vain."""

    __slots__ = ("_future", "_opened", "_tickets")

    def __init__(self, tickets: _Tickets) -> None:
        self.then = None
        self.gone = False
        self._tickets = tickets
        self._opened = False
        self._future: asyncio.Future[bool] | None = None

    def wait(self, seconds: float) -> bool:
        return self._opened or await_only(self.waited(seconds))

    def waited(self, seconds: float) -> Awaitable[bool]:
        future = self._future = self._tickets.future(seconds)
        if self._opened:
            future.set_result(True)
        return future

    def open(self) -> None:
        self._opened = True
        if self._future is not None and not self._future.done():
            self._future.set_result(True)


class _Home(threading.local):
    """In a thread beside the loop: the loop, on which alone the driver can be used."""

    loop: asyncio.AbstractEventLoop | None = None


_home = _Home()


async def _spawned(call: Callable[[], T]) -> T:
    return await greenlet_spawn(call)
