"""A decorator that runs a handler in a transaction, and in a new one when it met another."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import scoped_session, sessionmaker

from delimiter import validation
from delimiter.engines.sql.databases import Fault, database_of
from delimiter.errors import Conflict, InvalidRequest, Unsupported
from delimiter.handlers.arguments import Asked, Handler
from delimiter.waiting import pauses

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

__all__ = ["as_conflict", "transactional"]

#: Waits between attempts start near the time of one transaction.
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.5


def transactional(
    sessions: sessionmaker[Any] | Engine | async_sessionmaker[Any] | AsyncEngine | Callable[..., Any],
    *,
    connection: str = "session",
    timeout: float | timedelta = 10.0,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Each call of the handler in a transaction of its own, committed when it returns, rolled back when it raises.

    ``sessions`` opens it: a ``sessionmaker`` or an ``Engine``, asynchronous ones for a coroutine function, or a
    function of the arguments that gives one (``lambda self: self.sessions``). The handler receives the session (or
    the connection) as the parameter that ``connection`` names; callers do not see it.

    After ``Conflict``, or when the database broke a deadlock in a statement of the handler's own or in its COMMIT,
    the handler is called again with the same arguments in a **new** transaction, after a pause that differs each time,
    until ``timeout`` (seconds or ``timedelta``) is over; then it is ``Conflict``. So there must be nothing in it but
    the database. How long one statement waits for a lock is up to the database's settings.

    >>> from sqlalchemy import create_engine
    >>> from delimiter import Delimiter
    >>> engine = create_engine("sqlite:///handlers-example.db")
    >>> quota = Delimiter(engine)
    >>> quota.define_resource("compute.instances", project_max=1)
    >>> @transactional(engine, connection="connection")
    ... def replace_instance(connection, old, new, project):
    ...     quota.release(old, connection=connection)
    ...     quota.claim({"compute.instances": 1}, project=project, id=new, connection=connection)
    >>> first = quota.claim({"compute.instances": 1}, project="acme", id="vm-1")
    >>> replace_instance("vm-1", "vm-2", project="acme")
    >>> [claim.id for claim in quota.claims(project="acme")]
    ['vm-2']
    """
    seconds = validation.microseconds(timeout, "timeout") / 1_000_000
    constant = _opens(sessions) is not None
    if not isinstance(connection, str):
        raise InvalidRequest(f"connection is the name of the handler's parameter, not {connection!r}")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        handler = Handler(function, filled=(connection,))
        if constant:
            _refuse_mixture(handler, sessions)
        opener = (lambda _: sessions) if constant else handler.function_of_arguments(sessions, "sessions")  # type: ignore[arg-type]

        def begin(arguments: Any) -> Any:
            chosen: Any = opener(arguments)
            if not constant:
                _refuse_mixture(handler, chosen)
            return chosen.begin()

        run = _async_call if handler.asynchronous else _call
        return handler.decorated(run(handler, begin, connection, seconds))

    return decorate


def _call(handler: Handler, begin: Asked, connection: str, seconds: float) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = handler.bind(args, kwargs)
        attempts = _Attempts(seconds)
        while True:
            joined = None
            try:
                with begin(arguments) as joined:
                    return handler.call(arguments, **{connection: joined})
            except (Conflict, OperationalError) as error:
                pause = attempts.pause_after(error, joined)
            time.sleep(pause)

    return call


def _async_call(handler: Handler, begin: Asked, connection: str, seconds: float) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        arguments = handler.bind(args, kwargs)
        attempts = _Attempts(seconds)
        while True:
            joined = None
            try:
                async with begin(arguments) as joined:
                    return await handler.call(arguments, **{connection: joined})
            except (Conflict, OperationalError) as error:
                pause = attempts.pause_after(error, joined)
            await asyncio.sleep(pause)

    return call


def as_conflict(error: BaseException, connection: Any) -> Conflict | None:
    """The ``Conflict`` that it is or means: a statement of the service's own, or its COMMIT, met another transaction.

    ``None`` for anything else. A COMMIT whose answer was lost is no such thing: it may have happened.
    """
    if isinstance(error, Conflict):
        return error
    if not isinstance(error, OperationalError) or error.orig is None or error.connection_invalidated:
        return None
    try:
        bound = connection if hasattr(connection, "dialect") else connection.get_bind()
        database = database_of(bound.dialect)
    except (AttributeError, SQLAlchemyError, Unsupported):
        return None
    if database.faults.get(database.code(error.orig)) is not Fault.CONFLICT:
        return None
    return Conflict("a statement of the service's own met another transaction; roll back and start anew")


class _Attempts:
    """How often it is tried: by time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._pauses = pauses(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)

    def pause_after(self, error: Exception, connection: Any) -> float:
        """Seconds until the next attempt; raises what is not to be tried again."""
        conflict = as_conflict(error, connection)
        if conflict is None or not conflict.retryable:
            raise error
        pause = next(self._pauses)
        if time.monotonic() + pause > self._deadline:
            raise Conflict(f"not decided within {self._seconds:g} s: {conflict}") from error
        return pause


def _opens(sessions: object) -> str | None:
    """``"sync"`` or ``"async"`` if it opens transactions, ``None`` if it is a function that is to be asked."""
    if isinstance(sessions, Engine | sessionmaker):
        return "sync"
    # Whoever has one of these has imported that module; here it would ask for an extra.
    asynchronous = sys.modules.get("sqlalchemy.ext.asyncio")
    if asynchronous is not None and isinstance(
        sessions, (asynchronous.AsyncEngine, asynchronous.async_sessionmaker)
    ):
        return "async"
    if callable(sessions) and not isinstance(sessions, type | scoped_session):
        return None
    raise InvalidRequest(
        "a new transaction for each attempt is opened by a sessionmaker or an engine (or their asynchronous kin),"
        f" not by {sessions.__name__ if isinstance(sessions, type) else f'a {type(sessions).__name__}'}"
    )


def _refuse_mixture(handler: Handler, sessions: object) -> None:
    kind = _opens(sessions)
    if kind is None:
        raise InvalidRequest(
            f"the function of {handler.name}'s arguments gave {sessions!r}: it must give a sessionmaker or an engine"
        )
    handler.refuse_mixture(
        awaited=kind == "async",
        plain="a sessionmaker or an Engine",
        asynchronous="an async_sessionmaker or an AsyncEngine",
    )
