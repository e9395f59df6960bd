"""Delimiter for asyncio: the same verbs, awaited. One source: the functions are those of :class:`delimiter.Delimiter`.

With an asynchronous driver (``postgresql+psycopg_async://…``, ``mysql+asyncmy://…``, ``sqlite+aiosqlite://…``, or an
``AsyncEngine``) they run on the event loop, by SQLAlchemy's greenlets; with any other store in threads of their own.
A caller's ``AsyncConnection`` or ``AsyncSession`` is always used where it is, on the loop.

>>> import asyncio
>>> from delimiter.aio import Delimiter
>>> async def main() -> int:
...     async with Delimiter("memory://") as quota:
...         await quota.define_resource("database.instances", user_max=25)
...         await quota.claim({"database.instances": 1}, user="john")
...         return (await quota.usage(user="john"))["database.instances"].used
>>> asyncio.run(main())
1
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.util import greenlet_spawn

from delimiter import validation
from delimiter.engine import OpenOptions, open_engine
from delimiter.errors import InvalidRequest
from delimiter.quota import Delimiter as _Delimiter
from delimiter.quota import claims_of
from delimiter.subscription import AsyncSubscription
from delimiter.watching import sequence

if TYPE_CHECKING:
    from datetime import timedelta

    from delimiter.changes import Change
    from delimiter.model import CallersConnection, Claim, Event
    from delimiter.source import LimitSource, ProjectSource

__all__ = ["Delimiter"]

P = ParamSpec("P")
R = TypeVar("R")

#: Items of an iterator fetched at a time.
_FETCHED_AT_ONCE: Final = 500

#: Calls that may be under way at once on a store without an asynchronous driver.
_THREADS: Final = 32


def _awaited(
    method: Callable[Concatenate[_Delimiter, P], R],
) -> Callable[Concatenate[Delimiter, P], Coroutine[Any, Any, R]]:
    """The same method with the same signature, to be awaited."""

    @functools.wraps(method)
    async def call(self: Delimiter, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._call(method, *args, **kwargs)

    call.__doc__ = f"As :meth:`delimiter.Delimiter.{method.__name__}`, awaited."
    return cast("Callable[Concatenate[Delimiter, P], Coroutine[Any, Any, R]]", call)


def _decided(
    method: Callable[Concatenate[_Delimiter, P], R],
) -> Callable[Concatenate[Delimiter, P], Coroutine[Any, Any, R]]:
    """The same for a method that does no more than to hand over a change: it can wait without a greenlet."""
    awaited = _awaited(method)

    @functools.wraps(method)
    async def call(self: Delimiter, *args: P.args, **kwargs: P.kwargs) -> R:
        desk = self._desk
        if desk is None or not self._prepared or kwargs.get("connection") is not None:
            return await awaited(self, *args, **kwargs)
        return await cast("Coroutine[Any, Any, R]", method(desk, *args, **kwargs))

    call.__doc__ = awaited.__doc__
    return cast("Callable[Concatenate[Delimiter, P], Coroutine[Any, Any, R]]", call)


class _DeskOnLoop(_Delimiter):
    """The same desk, where a change is decided by a coroutine, which a method returns as if it were the answer.

    Most callers only wait for whoever leads their batch; a greenlet for each would cost more than all the rest.
    """

    def __init__(self, quota: _Delimiter) -> None:
        self.__dict__ = quota.__dict__

    def _apply(
        self,
        change: Change,
        connection: CallersConnection | None,
        *,
        claim_id: str,
        told: Callable[[tuple[Claim, ...]], R],
    ) -> R:
        return cast("R", self._decide(change, claim_id, told))

    async def _decide(self, change: Change, claim_id: str, told: Callable[[tuple[Claim, ...]], R]) -> R:
        combiner, deadline = self._combiner, time.monotonic() + self._timeout
        waiting = combiner.join(change)
        if waiting is not None and (answer := await combiner.waited(waiting, deadline)) is not None:
            return told(claims_of(answer))
        call = combiner.caller(change, deadline, waiting)
        decided = await greenlet_spawn(self._run, call, claim_id=claim_id, deadline=deadline)
        return told(claims_of(decided))


def _iterated(
    method: Callable[Concatenate[_Delimiter, P], Iterator[R]],
) -> Callable[Concatenate[Delimiter, P], AsyncIterator[R]]:
    """The same method with the same signature, to be iterated with ``async for``."""

    @functools.wraps(method)
    async def call(self: Delimiter, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        await self._prepare()
        items = await self._run(method, self._quota, *args, **kwargs)
        while page := await self._run(lambda: list(islice(items, _FETCHED_AT_ONCE))):
            for item in page:
                yield item

    call.__doc__ = f"As :meth:`delimiter.Delimiter.{method.__name__}`, iterated with ``async for``."
    return cast("Callable[Concatenate[Delimiter, P], AsyncIterator[R]]", call)


class Delimiter:
    """:class:`delimiter.Delimiter` for asyncio: ``async with``, every call awaited, the same arguments and errors.

    A call that is cancelled while its transaction commits may have happened; its ``id`` tells.
    """

    def __init__(
        self,
        url_or_engine: Any,
        *,
        limits: LimitSource | None = None,
        projects: ProjectSource | None = None,
        create: bool = True,
        schema: str | None = None,
        table_prefix: str = "delimiter_",
        timeout: float | timedelta = 10.0,
    ) -> None:
        seconds = validation.microseconds(timeout, "timeout") / 1_000_000
        options = OpenOptions(
            create=create, schema=schema, table_prefix=table_prefix, timeout=seconds, asynchronous=True
        )
        engine = open_engine(url_or_engine, options)
        self._engine = engine
        self._on_loop = engine.asynchronous
        self._quota = _Delimiter(engine, limits=limits, projects=projects, timeout=seconds)
        # With a source outside the store each call may have to ask that first.
        asks = self._quota._freshness.needed  # noqa: SLF001 - the desk's own
        self._desk = _DeskOnLoop(self._quota) if self._on_loop and not asks else None
        self._threads: ThreadPoolExecutor | None = None
        self._preparing = asyncio.Lock()
        self._prepared = False

    define_resource = _awaited(_Delimiter.define_resource)
    undefine_resource = _awaited(_Delimiter.undefine_resource)
    update_limits = _awaited(_Delimiter.update_limits)
    own_limits = _awaited(_Delimiter.own_limits)
    add_project = _awaited(_Delimiter.add_project)
    move_project = _awaited(_Delimiter.move_project)
    remove_project = _awaited(_Delimiter.remove_project)
    projects = _awaited(_Delimiter.projects)
    set_overbooking = _awaited(_Delimiter.set_overbooking)
    overbooking = _awaited(_Delimiter.overbooking)
    version = _awaited(_Delimiter.version)
    edit = _awaited(_Delimiter.edit)
    resources = _awaited(_Delimiter.resources)
    limits = _awaited(_Delimiter.limits)
    usage = _awaited(_Delimiter.usage)
    tree = _awaited(_Delimiter.tree)
    check = _awaited(_Delimiter.check)
    explain = _awaited(_Delimiter.explain)
    events = _iterated(_Delimiter.events)
    last_event = _awaited(_Delimiter.last_event)
    claim = _decided(_Delimiter.claim)
    reserve = _decided(_Delimiter.reserve)
    claim_all = _decided(_Delimiter.claim_all)
    provision = _decided(_Delimiter.provision)
    renew = _awaited(_Delimiter.renew)
    resize = _decided(_Delimiter.resize)
    transfer = _awaited(_Delimiter.transfer)
    release = _decided(_Delimiter.release)
    count = _awaited(_Delimiter.count)
    counted = _awaited(_Delimiter.counted)
    missing_indexes = _awaited(_Delimiter.missing_indexes)
    condition = _awaited(_Delimiter.condition)
    reconcile_counted = _iterated(_Delimiter.reconcile_counted)
    get_claim = _awaited(_Delimiter.get_claim)
    claims = _iterated(_Delimiter.claims)
    expire_reservations = _awaited(_Delimiter.expire_reservations)
    prune = _awaited(_Delimiter.prune)
    prune_events = _awaited(_Delimiter.prune_events)
    reconcile = _iterated(_Delimiter.reconcile)
    reconcile_with = _iterated(_Delimiter.reconcile_with)
    adopt = _awaited(_Delimiter.adopt)

    @asynccontextmanager
    async def guard(
        self,
        resources: Mapping[str, int],
        *,
        project: str | None = None,
        user: str | None = None,
        connection: CallersConnection,
        optimistic: bool = False,
        id: str | None = None,
        parent: str | None = None,
        external_id: str | None = None,
        expires_in: float | timedelta | None = None,
    ) -> AsyncIterator[Claim | None]:
        """As :meth:`delimiter.Delimiter.guard`, with ``async with`` and an ``AsyncConnection`` or ``AsyncSession``."""
        request = self._quota._guard_request(  # noqa: SLF001 - the desk's own halves of guard()
            resources,
            project=project,
            user=user,
            optimistic=optimistic,
            id=id,
            parent=parent,
            external_id=external_id,
            expires_in=expires_in,
            connection=connection,
        )
        guard = await self._call(_Delimiter._enter_guard, request, connection=connection)  # noqa: SLF001
        joined = cast("AsyncConnection | AsyncSession", connection)
        try:
            yield guard.claim
        except BaseException:
            await joined.run_sync(lambda _: guard.abandon())
            raise
        await self._call(_Delimiter._leave_guard, guard, connection=connection)  # noqa: SLF001

    async def subscribe(
        self, callback: Callable[[Event], object], *, after: int | None = None
    ) -> AsyncSubscription:
        """As :meth:`delimiter.Delimiter.subscribe`, in a task: ``async with await quota.subscribe(handle): …``.

        The callback may be a coroutine function. With an asynchronous driver it looks once a second; any other store
        wakes it as it does the thread.
        """
        if not callable(callback):
            raise InvalidRequest("subscribe takes something to call with each event")
        start = await self.last_event() if after is None else sequence(after)
        return AsyncSubscription(
            lambda seq: self.events(after=seq),
            callback,
            self._engine.bell(),
            after=start,
            rings_in_a_thread=not self._on_loop,
        )

    async def close(self) -> None:
        """Give back the store's connections. An ``AsyncEngine`` that was handed in stays open."""
        await self._run(self._quota.close)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        await self._prepare()
        connection = kwargs.pop("connection", None)
        if connection is None:
            return await self._run(method, self._quota, *args, **kwargs)
        if not isinstance(connection, AsyncConnection | AsyncSession):
            raise InvalidRequest(
                f"connection must be an AsyncConnection or AsyncSession, not {type(connection).__name__}"
            )
        return await connection.run_sync(
            lambda joined: method(self._quota, *args, connection=joined, **kwargs)
        )

    async def _prepare(self) -> None:
        """What the first call does; here, so that no task ever blocks the loop on another's threading lock."""
        if not self._prepared:
            async with self._preparing:
                if not self._prepared:
                    await self._run(self._quota.prepare)
                    self._prepared = True

    async def _run(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        if self._on_loop:
            return await greenlet_spawn(function, *args, **kwargs)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="delimiter")
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
