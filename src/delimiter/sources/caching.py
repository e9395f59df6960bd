"""A source that is asked seldom: answers with an age, one question at a time, and old answers while it is down."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol, TypeAlias, TypeVar, overload

from delimiter import validation
from delimiter.errors import DelimiterError, InvalidRequest, StoreUnavailable, Unsupported
from delimiter.model import Scope
from delimiter.source import Fetched, LimitSource, ProjectSource, ancestors_in, maxima_in

__all__ = ["Cached", "CachedLimits", "CachedLimitsAndProjects", "CachedProjects", "CachedState", "cached"]

T = TypeVar("T")

#: A scope whose limits, or a project whose ancestors are remembered.
Key: TypeAlias = Scope | str

#: Seconds until a source that failed is asked again for the same key: twice as long each time, up to the second.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0


@dataclass(frozen=True, slots=True)
class CachedState:
    """What is remembered for one key: a scope whose limits, or a project whose ancestors were asked for.

    ``age`` is the time since the source was asked for what is served now (``None``: it never answered), ``expires_in``
    what is left until it is asked again (below 0: overdue), both in seconds. ``stale``: the answer has expired, and is
    served only because the source fails. ``last_error`` says why, until it answers again.
    """

    key: Key
    age: float | None
    expires_in: float
    stale: bool
    last_error: str | None


@dataclass(slots=True)
class _Entry:
    fetched: Fetched[Any] | None = None
    #: Whether ``as_of`` is a store's: a question that came without its clock has none.
    dated: bool = False
    asked_at: float = -math.inf
    expires_at: float = -math.inf
    failures: int = 0
    retry_at: float = -math.inf
    error: Exception | None = None


@dataclass(slots=True)
class _Flight:
    """A question that is under way. Whoever asks for the same meanwhile waits for its answer."""

    landed: threading.Event = field(default_factory=threading.Event)
    #: Nothing of these three: it was given up (by Ctrl-C, say), and whoever waits asks for himself.
    fetched: Fetched[Any] | None = None
    failure: Exception | None = None
    no_time: Exception | None = None

    def outcome(self) -> Fetched[Any] | None:
        if self.no_time is not None:
            raise self.no_time
        if self.failure is not None:
            raise _unavailable(self.failure) from self.failure
        return self.fetched


class Cached:
    """What :func:`cached` makes: with ``limits`` or ``ancestors``, or both, as its source has them."""

    def __init__(
        self,
        source: Any,
        *,
        expires_in: float,
        serve_stale_for: float,
        max_keys: int,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._expires_in = expires_in
        self._serve_stale_for = serve_stale_for
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        #: The one that was used longest ago comes first, and is the first to be forgotten.
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._flights: dict[tuple[Key, bool], _Flight] = {}

    def fetched_limits(
        self, scope: Scope, clock: Callable[[], int] | None = None
    ) -> Fetched[Mapping[str, int]]:
        """The limits of a scope, and when they were asked for by the store's ``clock`` (microseconds since 1970).

        The same object until the source is asked again. ``StoreUnavailable`` if there is nothing, or nothing young
        enough, to answer with.
        """
        if not isinstance(self._source, LimitSource):
            raise Unsupported("this source knows no limits")
        return self._fetched(scope, self._source.limits, maxima_in, clock)

    def fetched_ancestors(
        self, project: str, clock: Callable[[], int] | None = None
    ) -> Fetched[Sequence[str]]:
        """The same of a project's ancestors."""
        if not isinstance(self._source, ProjectSource):
            raise Unsupported("this source knows no projects")
        return self._fetched(project, self._source.ancestors, ancestors_in, clock)

    def age(self, key: Key) -> float | None:
        """Seconds since the source was asked for what is served now; ``None``: nothing is.

        ``key`` is a scope for its limits, a project's id for its ancestors.
        """
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None or entry.fetched is None else self._clock() - entry.asked_at

    def state(self) -> list[CachedState]:
        """What is remembered, what used last at the end."""
        with self._lock:
            now = self._clock()
            return [
                CachedState(
                    key=key,
                    age=None if entry.fetched is None else now - entry.asked_at,
                    expires_in=(entry.retry_at if entry.fetched is None else entry.expires_at) - now,
                    stale=entry.fetched is not None and now >= entry.expires_at,
                    last_error=None if entry.error is None else _told(entry.error),
                )
                for key, entry in self._entries.items()
            ]

    # -- asking -------------------------------------------------------------------------------------------------

    def _fetched(
        self,
        key: Key,
        ask: Callable[[Any], Any],
        look_through: Callable[[Any, Any], T],
        clock: Callable[[], int] | None,
    ) -> Fetched[T]:
        dated = clock is not None
        while True:
            with self._lock:
                answer = self._remembered(key, dated=dated)
                if answer is not None:
                    return answer
                flight = self._flights.get((key, dated))
                mine = flight is None
                if flight is None:
                    flight = self._flights[key, dated] = _Flight()
            if mine:
                self._fly(flight, key, lambda: look_through(key, ask(key)), clock)
            else:
                flight.landed.wait()
            if (fetched := flight.outcome()) is not None:
                return fetched

    def _remembered(self, key: Key, *, dated: bool) -> Fetched[Any] | None:
        """What can be answered without asking, if anything; raises where asking is not due yet."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        now = self._clock()
        usable = entry.fetched if entry.dated or not dated else None
        if usable is not None and now < entry.expires_at:
            return usable
        if entry.error is None or now >= entry.retry_at:
            return None
        if (old := self._old_answer(entry, usable, now)) is not None:
            return old
        raise _unavailable(entry.error) from entry.error

    def _old_answer(self, entry: _Entry, usable: Fetched[Any] | None, now: float) -> Fetched[Any] | None:
        """What is served while the source fails, if it is young enough."""
        return usable if now < entry.expires_at + self._serve_stale_for else None

    def _fly(
        self, flight: _Flight, key: Key, ask: Callable[[], Any], clock: Callable[[], int] | None
    ) -> None:
        """Ask, and keep the answer for all who wait and who come. Not under the lock: other keys go on meanwhile."""
        try:
            try:
                # The store's time first, so that an answer is at least as young as it says. A store that cannot tell
                # the time says nothing about the source: that is passed on, and not remembered.
                as_of = 0 if clock is None else clock()
            except Exception as error:
                flight.no_time = error
                return
            asked_at = self._clock()
            try:
                fetched = Fetched(ask(), as_of)
            except Exception as error:  # whatever a source of somebody else's may raise
                self._failed(flight, key, error, dated=clock is not None)
            else:
                # A new object each time, even if the answer is the same: its new as_of has to reach the store.
                # Suppose this process knows A, another wrote B, and the limit is A again: if an equal answer counted
                # as already written, B would stay there for as long as the other process does not ask again.
                with self._lock:
                    self._entries[key] = _Entry(
                        fetched, clock is not None, asked_at, asked_at + self._expires_in
                    )
                    self._entries.move_to_end(key)
                    self._forget_the_oldest()
                flight.fetched = fetched
        finally:
            with self._lock:
                del self._flights[key, clock is not None]
            flight.landed.set()

    def _failed(self, flight: _Flight, key: Key, error: Exception, *, dated: bool) -> None:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            self._forget_the_oldest()
            now = self._clock()
            entry.error = error
            entry.retry_at = now + min(_FIRST_PAUSE * 2**entry.failures, _LONGEST_PAUSE, self._expires_in)
            entry.failures = min(entry.failures + 1, 10)
            flight.fetched = self._old_answer(entry, entry.fetched if entry.dated or not dated else None, now)
        if flight.fetched is None:
            flight.failure = error

    def _forget_the_oldest(self) -> None:
        while len(self._entries) > self._max_keys:
            self._entries.popitem(last=False)


class CachedLimits(Cached):
    """A cached source of limits."""

    def limits(self, scope: Scope) -> Mapping[str, int]:
        """The maxima that this scope has of its own, as they are remembered."""
        return self.fetched_limits(scope).value


class CachedProjects(Cached):
    """A cached source of projects."""

    def ancestors(self, project: str) -> Sequence[str]:
        """The ancestors of a project, its parent first, as they are remembered."""
        return self.fetched_ancestors(project).value


class CachedLimitsAndProjects(CachedLimits, CachedProjects):
    """A cached source of both."""


class _LimitsAndProjects(LimitSource, ProjectSource, Protocol):
    pass


@overload
def cached(
    source: _LimitsAndProjects,
    *,
    expires_in: float | timedelta = ...,
    serve_stale_for: float | timedelta = ...,
    max_keys: int = ...,
    clock: Callable[[], float] = ...,
) -> CachedLimitsAndProjects: ...


@overload
def cached(
    source: LimitSource,
    *,
    expires_in: float | timedelta = ...,
    serve_stale_for: float | timedelta = ...,
    max_keys: int = ...,
    clock: Callable[[], float] = ...,
) -> CachedLimits: ...


@overload
def cached(
    source: ProjectSource,
    *,
    expires_in: float | timedelta = ...,
    serve_stale_for: float | timedelta = ...,
    max_keys: int = ...,
    clock: Callable[[], float] = ...,
) -> CachedProjects: ...


def cached(
    source: LimitSource | ProjectSource,
    *,
    expires_in: float | timedelta = 60,
    serve_stale_for: float | timedelta = 3600,
    max_keys: int = 100_000,
    clock: Callable[[], float] = time.monotonic,
) -> Cached:
    """A source that asks ``source`` once, and then not again for ``expires_in`` (seconds, or a ``timedelta``).

    That nothing is said of a scope is remembered too. However many threads want the same, one asks and the others
    wait for it. While the source fails, its last answer is served for another ``serve_stale_for``; it is asked again
    after a second, then after two, and so on up to ten. With no answer that young, ``StoreUnavailable``.
    :meth:`Cached.state` tells how old everything is. Of more than ``max_keys`` scopes and projects those used longest
    ago are forgotten. An answer that is none counts as a failure. Raises ``InvalidRequest``.

    Make one for each store: answers carry the time of the store that asked. A source should give up by itself when
    it gets no answer; everybody who wants the same waits with it.

    >>> class Contracts:
    ...     def limits(self, scope):
    ...         print("asked for", scope)
    ...         return {"storage.gb": 500}
    >>> contracts = cached(Contracts(), expires_in=60)
    >>> [dict(contracts.limits(Scope("project", "acme"))) for _ in range(2)]
    asked for project:acme
    [{'storage.gb': 500}, {'storage.gb': 500}]
    """
    if isinstance(max_keys, bool | float) or max_keys < 1:
        raise InvalidRequest(f"max_keys must be a whole number above 0, not {max_keys!r}")
    kinds: dict[tuple[bool, bool], type[Cached]] = {
        (True, True): CachedLimitsAndProjects,
        (True, False): CachedLimits,
        (False, True): CachedProjects,
    }
    kind = kinds.get((isinstance(source, LimitSource), isinstance(source, ProjectSource)))
    if kind is None:
        raise InvalidRequest("a source has a method limits(scope), or ancestors(project), or both")
    return kind(
        source,
        expires_in=validation.microseconds(expires_in, "expires_in") / 1_000_000,
        serve_stale_for=validation.microseconds(serve_stale_for, "serve_stale_for", zero=True) / 1_000_000,
        max_keys=max_keys,
        clock=clock,
    )


# -- failures -----------------------------------------------------------------------------------------------------


def _unavailable(error: Exception) -> StoreUnavailable:
    """A new one for each who is told, as each has a traceback of its own."""
    retryable = error.retryable if isinstance(error, StoreUnavailable) else True
    return StoreUnavailable(f"the source of limits or projects failed: {_told(error)}", retryable=retryable)


def _told(error: Exception) -> str:
    # Our own sentences are meant to be read by others; anybody else's may hold an address with its password.
    return str(error) if isinstance(error, DelimiterError) else type(error).__name__
