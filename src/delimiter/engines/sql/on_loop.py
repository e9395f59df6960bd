"""The SQL engine on an asynchronous driver. A room of its own, since greenlet comes with the extra ``asyncio`` only."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from delimiter.engine import OpenOptions
from delimiter.engines.sql.opening import refuse_single_connection
from delimiter.engines.sql.store import SqlEngine
from delimiter.errors import InvalidRequest

T = TypeVar("T")

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

    def pause(self, seconds: float) -> None:
        if _home.loop is None:
            await_only(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)

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


class _Home(threading.local):
    """In a thread beside the loop: the loop, on which alone the driver can be used."""

    loop: asyncio.AbstractEventLoop | None = None


_home = _Home()


async def _spawned(call: Callable[[], T]) -> T:
    return await greenlet_spawn(call)
