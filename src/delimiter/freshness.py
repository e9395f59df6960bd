"""Brings what outside sources say into the store before a claim is decided on it.

Claims are decided on locked rows alone, so a limit from elsewhere has to be written onto them: by whoever meets the new
answer first, stamped with the store's clock at the moment the source was asked. What was asked later wins, so two
processes with answers of different ages never overwrite each other in turns. An answer that has not changed costs
nothing but a comparison, and every few seconds a look whether it still stands in the store.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from delimiter import validation
from delimiter.edits import AdoptAncestors, Adoption, AdoptLimits
from delimiter.errors import Conflict, DelimiterError, InvalidRequest, StoreUnavailable, Unsupported
from delimiter.model import Scope
from delimiter.source import CachedSource, Fetched, LimitSource, ProjectSource

if TYPE_CHECKING:
    from delimiter.engine import Engine
    from delimiter.model import CallersConnection

__all__ = ["Freshness"]

T = TypeVar("T")

#: Scopes whose last answer is remembered; beyond that all are forgotten and asked for again.
_MOST_REMEMBERED: Final = 100_000

#: Seconds for which what was written is taken to stand in the store still. Another process may have written what the
#: source said in between, or defined a resource that the answer has a limit of: neither can be seen from here.
_WRITTEN_FOR: Final = 5.0

#: Seconds for which a project's ancestors are taken from memory, to know whose limits a claim needs.
_ANCESTORS_FOR: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Written:
    """The last answer for a key, which was written to the store."""

    fetched: Fetched[Any]
    until: float
    #: Microseconds by which the same answer is dated later when it is written again: the store takes it for new, and
    #: what was really asked for later still wins.
    later: int = 0


class Freshness:
    """What one Delimiter knows of its sources. Without sources it does nothing."""

    def __init__(
        self,
        engine: Engine,
        limits: LimitSource | None,
        projects: ProjectSource | None,
        run: Callable[..., Any],
    ) -> None:
        if limits is not None and not isinstance(limits, LimitSource):
            raise InvalidRequest("limits= takes an object with a method limits(scope)")
        if projects is not None and not isinstance(projects, ProjectSource):
            raise InvalidRequest("projects= takes an object with a method ancestors(project)")
        self._engine = engine
        self._limits = limits
        self._projects = projects
        self._run = run
        self._written: dict[Scope | str, _Written] = {}
        #: What could not be written beside a caller's transaction, which held the rows: the caller starts anew, and
        #: then it is written before anything is claimed.
        self._postponed: dict[Scope | str, tuple[Any, Any]] = {}
        self._ancestors: dict[str, tuple[float, Sequence[str]]] = {}

    @property
    def needed(self) -> bool:
        """Whether there is any source outside the store."""
        return self._limits is not None or self._projects is not None

    def refuse_limit_edits(self) -> None:
        if self._limits is not None:
            raise Unsupported("limits of this store come from elsewhere (limits=): change them there")

    def refuse_project_edits(self) -> None:
        if self._projects is not None:
            raise Unsupported("projects of this store come from elsewhere (projects=): change them there")

    def look_again(self) -> None:
        """The rules were edited here: a resource was defined perhaps, or a project has other ancestors now."""
        self._ancestors.clear()
        for key, written in list(self._written.items()):
            self._written[key] = _Written(written.fetched, -math.inf, written.later)

    def freshen(self, scopes: Sequence[Scope], connection: CallersConnection | None = None) -> None:
        """See to it that the store knows the present limits, and the place, of everybody who is charged."""
        if not self.needed:
            return
        for key, (ask, adoption) in list(self._postponed.items()):
            self._freshen_key(key, ask, adoption, connection)
        names = [scope.name for scope in scopes if scope.kind == "project"]
        charged = dict.fromkeys([Scope.total(), *scopes])
        for name in names:
            for ancestor in self._ancestors_of(name, connection):
                charged[Scope("project", ancestor)] = None
        if self._limits is not None:
            for scope in charged:
                self._freshen_limits(self._limits, scope, connection)

    def _freshen_limits(
        self, source: LimitSource, scope: Scope, connection: CallersConnection | None
    ) -> None:
        def ask(clock: Callable[[], int]) -> Fetched[Mapping[str, int]]:
            if isinstance(source, CachedSource):
                return source.fetched_limits(scope, clock)
            return self._asked(scope, lambda: _maxima(source.limits(scope), scope), clock)

        def adoption(fetched: Fetched[Mapping[str, int]]) -> Adoption:
            return AdoptLimits(scope, _maxima(fetched.value, scope), fetched.as_of)

        self._freshen_key(scope, ask, adoption, connection)

    def _ancestors_of(self, project: str, connection: CallersConnection | None) -> Sequence[str]:
        source = self._projects
        if source is None:
            return self._remembered_ancestors(project)

        def ask(clock: Callable[[], int]) -> Fetched[Sequence[str]]:
            if isinstance(source, CachedSource):
                return source.fetched_ancestors(project, clock)
            return self._asked(project, lambda: _path(project, source.ancestors(project)), clock)

        def adoption(fetched: Fetched[Sequence[str]]) -> Adoption:
            return AdoptAncestors(project, _path(project, fetched.value), fetched.as_of)

        return self._freshen_key(project, ask, adoption, connection).value

    def _remembered_ancestors(self, project: str) -> Sequence[str]:
        known = self._ancestors.get(project)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        ancestors: Sequence[str] = self._run(lambda: self._engine.ancestors(project))
        if len(self._ancestors) > _MOST_REMEMBERED:
            self._ancestors.clear()
        self._ancestors[project] = (time.monotonic() + _ANCESTORS_FOR, ancestors)
        return ancestors

    def _asked(self, key: Scope | str, ask: Callable[[], T], clock: Callable[[], int]) -> Fetched[T]:
        """An answer of a source that remembers nothing; the clock is read only where the answer is a new one.

        ``ask`` gives a copy: a source may answer with a mapping of its own, and change it later.
        """
        known = self._written.get(key)
        if known is not None and time.monotonic() < known.until and known.fetched.value == ask():
            return known.fetched
        as_of = clock()
        return Fetched(ask(), as_of)

    def _freshen_key(
        self,
        key: Scope | str,
        ask: Callable[[Callable[[], int]], Fetched[T]],
        adoption: Callable[[Fetched[T]], Adoption],
        connection: CallersConnection | None,
    ) -> Fetched[T]:
        try:
            # Outside any retry: a source that is down is said to be so at once, and no lock waits for it.
            fetched = self._engine.beside(lambda: ask(self._clock))
        except DelimiterError:
            raise
        except Exception as error:
            # Its type only: the text of a foreign error may hold an address with its password. The traceback has it.
            raise StoreUnavailable(
                f"the source of limits or projects failed for {key}: {type(error).__name__}"
            ) from error
        known = self._written.get(key)
        later = known.later + 1 if known is not None and known.fetched is fetched else 0
        if known is None or known.fetched is not fetched or time.monotonic() >= known.until:
            change = adoption(Fetched(fetched.value, fetched.as_of + later))
            try:
                committed = self._run(
                    lambda: self._engine.adopt(change, connection=connection), connection=connection
                )
            except Conflict:
                if connection is not None:
                    self._postponed[key] = (ask, adoption)
                raise
            self._postponed.pop(key, None)
            if committed:  # a caller's transaction may be rolled back, and with it what was written
                if len(self._written) > _MOST_REMEMBERED:
                    self._written.clear()
                self._written[key] = _Written(fetched, time.monotonic() + _WRITTEN_FOR, later)
        return fetched

    def _clock(self) -> int:
        now: int = self._run(self._engine.now)
        return now


def _maxima(answer: Any, scope: Scope) -> dict[str, int]:
    try:
        return {
            validation.name(resource, "a resource's name"): validation.maximum(
                limit, f"the limit of {resource}"
            )
            for resource, limit in dict(answer).items()
        }
    except (TypeError, ValueError) as error:  # InvalidRequest is a ValueError
        raise StoreUnavailable(
            f"the source of limits gave for {scope} what are no limits: {error}", retryable=False
        ) from error


def _path(project: str, answer: Sequence[str]) -> tuple[str, ...]:
    if isinstance(answer, str | bytes):  # a sequence of names as well, of one letter each
        raise StoreUnavailable(
            f"the source of projects gave no ancestors for {project}: it is one text", retryable=False
        )
    try:
        path = tuple(validation.name(ancestor, "an ancestor") for ancestor in answer)
    except (TypeError, InvalidRequest) as error:
        raise StoreUnavailable(
            f"the source of projects gave no ancestors for {project}: {error}", retryable=False
        ) from error
    if len({project, *path}) <= len(path):
        raise StoreUnavailable(
            f"the source of projects gave {project} a circle of ancestors: {', '.join(path)}", retryable=False
        )
    return path
