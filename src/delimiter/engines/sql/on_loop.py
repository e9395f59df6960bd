"""The SQL engine on an asynchronous driver. A room of its own, since greenlet comes with the extra ``asyncio`` only."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from delimiter.engine import OpenOptions
from delimiter.engines.sql.store import SqlEngine, refuse_single_connection
from delimiter.errors import InvalidRequest

__all__ = ["SqlEngineOnLoop", "join", "open_url"]


def open_url(url: sa.URL, options: OpenOptions, arguments: dict[str, Any]) -> SqlEngine:
    return SqlEngineOnLoop(create_async_engine(url, **arguments).sync_engine, options, owned=True)


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
        await_only(asyncio.sleep(seconds))
