"""Opening a database by URL, or joining the SQLAlchemy engine that the service has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from delimiter.engine import OpenOptions
from delimiter.engines.sql.databases import connect_args, database_of
from delimiter.engines.sql.nodes import Node, Nodes, notice_silence, parsed
from delimiter.engines.sql.store import SqlEngine
from delimiter.errors import InvalidRequest, Unsupported

__all__ = ["open_sql"]

#: Connections of one process to a database that Delimiter opens itself.
_CONNECTIONS: Final = 10


def open_sql(store: Any, options: OpenOptions) -> SqlEngine:
    """Open a URL, or join the SQLAlchemy engine that the service has."""
    if isinstance(store, sa.Engine):
        refuse_single_connection(store)
        return SqlEngine(store, options, owned=False)
    if not isinstance(store, str | sa.URL):
        from delimiter.engines.sql import on_loop

        return on_loop.join(store, options)
    try:
        url, nodes = parsed(store)
    except (ArgumentError, ValueError):
        # Not a word of the URL, nor of the error, which quotes it: there may be a password in it.
        raise InvalidRequest(
            "this is no store URL; write for example postgresql+psycopg://user:password@host:5432/database,"
            " with special characters in the password percent-encoded"
        ) from None
    try:
        return _open_url(url, nodes, options)
    except (NoSuchModuleError, ImportError) as error:
        raise Unsupported(f"no driver for {url.drivername} ({error}). {_which_driver(url)}") from error


def _open_url(url: sa.URL, nodes: Sequence[Node], options: OpenOptions) -> SqlEngine:
    on_event_loop = url.get_dialect().is_async
    if on_event_loop and not options.asynchronous:
        raise InvalidRequest(f"{url.drivername} is asynchronous: open it with delimiter.aio.Delimiter")
    # A node that is gone must not take the whole of a call's time.
    patience = options.timeout / (2 * len(nodes)) if nodes else options.timeout
    arguments = _owned_engine_arguments(url, options.timeout, patience)

    def attended(engine: sa.Engine) -> sa.Engine:
        if nodes:
            Nodes(nodes).serve(engine)
        if database_of(engine.dialect).silent_drivers:
            notice_silence(engine, options.timeout)
        return engine

    if on_event_loop:
        from delimiter.engines.sql import on_loop

        return on_loop.open_url(url, options, arguments, attended)
    return SqlEngine(attended(sa.create_engine(url, **arguments)), options, owned=True)


def _which_driver(url: sa.URL) -> str:
    return {
        "postgresql": "Write postgresql+psycopg://… and install delimiter with the extra [postgresql]",
        "sqlite": "Write sqlite:///… ; for asyncio sqlite+aiosqlite:///… with the extra [asyncio]",
    }.get(
        url.get_backend_name(),
        "Write mysql+pymysql://… and install delimiter with the extra [mysql];"
        " for asyncio mysql+asyncmy://… with [asyncio]",
    )


def refuse_single_connection(engine: sa.Engine) -> None:
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):
        raise InvalidRequest(
            "the engine's pool shares one connection, so a claim could not have a transaction of its own beside"
            " the service's; use a file database and the default pool, or memory:// in tests"
        )


def _owned_engine_arguments(url: sa.URL, timeout: float, patience: float) -> dict[str, Any]:
    """How Delimiter opens a database of its own; ``patience`` is for one attempt to connect."""
    database = database_of(url.get_dialect()())
    if database.name == "sqlite" and url.database in (None, "", ":memory:"):
        raise InvalidRequest(
            "an in-memory SQLite database is a different one for each connection; use a file (sqlite:///quota.db)"
            " or memory:// for a quota that lives in this process only"
        )
    arguments: dict[str, Any] = {
        "connect_args": connect_args(url, timeout, patience),
        # Bounded, and kept: callers beyond it wait a moment here rather than for each other's locks in the database.
        "pool_size": _CONNECTIONS,
        "max_overflow": 0,
        "pool_timeout": timeout,
        # Every transaction is ended before its connection goes back; a second ROLLBACK would be a wasted round trip.
        "pool_reset_on_return": None,
    }
    if database.isolation is not None:
        arguments["isolation_level"] = database.isolation
    return arguments
