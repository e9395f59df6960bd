"""Brings what outside sources say into the store before a claim is decided on it.

Claims are decided on locked rows alone, so a limit from elsewhere has to be written onto them: by whoever meets the new
answer first, stamped with the store's clock at the moment the source was asked. What was asked later wins, so two
processes with answers of different ages never overwrite each other in turns.

An answer that has not changed costs a comparison. Only every few seconds it is stamped anew, so that it stands in the
store whatever others have written there: for each scope that is in use, in each process, a short transaction with one
row written and a COMMIT. A look without writing would not do: the older answer of another process could then still win.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from delimiter.edits import AdoptAncestors, Adoption, AdoptLimits
from delimiter.errors import Conflict, DelimiterError, InvalidRequest, StoreUnavailable, Unsupported
from delimiter.model import Scope
from delimiter.source import CachedSource, Fetched, LimitSource, ProjectSource, ancestors_in, maxima_in

if TYPE_CHECKING:
    from delimiter.engine import Engine
    from delimiter.model import CallersConnection

__all__ = ["Freshness"]

T = TypeVar("T")

#: Scopes whose last answer is remembered; beyond that all are forgotten and asked for again.
_MOST_REMEMBERED: Final = 100_000

#: Keys kept to be written before a caller's next transaction; beyond that they are left to whoever needs them.
_MOST_POSTPONED: Final = 16

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
        #: What could not be written beside a caller's transaction, which held the rows perhaps: the caller starts
        #: anew, and then it is written before anything is claimed.
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
        if connection is not None:
            self._catch_up(connection)
        names = [scope.name for scope in scopes if scope.kind == "project"]
        charged = dict.fromkeys([Scope.total(), *scopes])
        for name in names:
            for ancestor in self._ancestors_of(name, connection):
                charged[Scope("project", ancestor)] = None
        if self._limits is not None:
            for scope in charged:
                self._freshen_limits(self._limits, scope, connection)

    def freshen_above(self, parents: Iterable[str]) -> None:
        """The same before projects come to lie below these: what they hold is charged there, and further up.

        Where the parents are is looked up anew, for another process may have moved them.
        """
        scopes = [Scope("project", parent) for parent in parents]
        for scope in scopes:
            self._ancestors.pop(scope.name, None)
        if scopes:
            self.freshen(scopes)

    def _catch_up(self, connection: CallersConnection) -> None:
        """Try once what was postponed, the newest first, for this call may be that of a caller who begins anew.

        If it is another's, their trouble is not this one's: what fails is left to those who need it, in their own turn.
        """
        with suppress(DelimiterError):
            for key in reversed(list(self._postponed)):
                postponed = self._postponed.pop(key, None)
                if postponed is not None:
                    self._bring(key, *postponed, connection)

    def _freshen_limits(
        self, source: LimitSource, scope: Scope, connection: CallersConnection | None
    ) -> None:
        def ask(clock: Callable[[], int]) -> Fetched[Mapping[str, int]]:
            if isinstance(source, CachedSource):
                return source.fetched_limits(scope, clock)
            return self._asked(scope, lambda: maxima_in(scope, source.limits(scope)), clock)

        def adoption(fetched: Fetched[Mapping[str, int]]) -> Adoption:
            return AdoptLimits(scope, fetched.value, fetched.as_of)

        self._freshen_key(scope, ask, adoption, connection)

    def _ancestors_of(self, project: str, connection: CallersConnection | None) -> Sequence[str]:
        source = self._projects
        if source is None:
            return self._remembered_ancestors(project)

        def ask(clock: Callable[[], int]) -> Fetched[Sequence[str]]:
            if isinstance(source, CachedSource):
                return source.fetched_ancestors(project, clock)
            return self._asked(project, lambda: ancestors_in(project, source.ancestors(project)), clock)

        def adoption(fetched: Fetched[Sequence[str]]) -> Adoption:
            return AdoptAncestors(project, tuple(fetched.value), fetched.as_of)

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
            return self._bring(key, ask, adoption, connection)
        except Conflict:
            if connection is not None:
                if len(self._postponed) >= _MOST_POSTPONED:
                    self._postponed.clear()
                self._postponed.pop(key, None)  # so that it is the newest
                self._postponed[key] = (ask, adoption)
            raise

    def _bring(
        self,
        key: Scope | str,
        ask: Callable[[Callable[[], int]], Fetched[T]],
        adoption: Callable[[Fetched[T]], Adoption],
        connection: CallersConnection | None,
    ) -> Fetched[T]:
        """Ask, and write the answer if it is a new one, or was written some time ago."""
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
            committed = self._run(
                lambda: self._engine.adopt(change, connection=connection), connection=connection
            )
            if committed:  # a caller's transaction may be rolled back, and with it what was written
                if len(self._written) > _MOST_REMEMBERED:
                    self._written.clear()
                self._written[key] = _Written(fetched, time.monotonic() + _WRITTEN_FOR, later)
        return fetched

    def _clock(self) -> int:
        now: int = self._run(self._engine.now)
        return now
