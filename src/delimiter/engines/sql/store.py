"""The SQL engine: the contract of :class:`delimiter.engine.Engine` on top of the rooms of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

import sqlalchemy as sa

from delimiter.changes import Change
from delimiter.condition import Condition
from delimiter.counted import Counted, Guard, GuardRequest, MissingIndex
from delimiter.edits import Adoption, Define, Edit, Undefine
from delimiter.engine import Answer, Capability, ClaimQuery
from delimiter.engines.sql.bell import ListeningBell
from delimiter.engines.sql.expiry import RunOut
from delimiter.engines.sql.together.making import Left
from delimiter.engines.sql.wiring import Wired
from delimiter.errors import Conflict, UnknownResource
from delimiter.model import (
    SCOPE_KINDS,
    Claim,
    Consumer,
    Decision,
    Drift,
    Event,
    Level,
    Overage,
    OwnLimit,
    Project,
    ProjectUsage,
    Resource,
    Running,
    Scope,
    Usage,
)
from delimiter.waiting import Bell

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = ["SqlEngine"]

#: Attempts at the repair of one counter, or at an adoption in a caller's transaction.
_REPAIRS: Final = 20

#: Seconds to wait for a lock beside a caller's transaction.
_PATIENCE: Final = 0.5

#: Reservations swept in one transaction where all must be.
_SWEPT_AT_ONCE: Final = 200


class SqlEngine(Wired):
    """Keeps usage in tables of an ordinary SQL database."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.CALLERS_TRANSACTION, Capability.COUNTING, Capability.SHARED}
    )

    largest_batch = 512

    # -- changes ------------------------------------------------------------------------------------------------

    def apply(
        self, changes: Sequence[Change], *, connection: CallersConnection | None = None
    ) -> list[Answer]:
        self.prepare()
        if connection is not None:
            with self._transactions.of_caller(connection, writing=True) as joined:
                made = self._together.make_joined(joined, changes)
                if isinstance(made, Left):
                    return self._changes.decide_joined(
                        joined, changes, placed=made.placed, held=made.held, now=made.now
                    )
                return made
        if len(changes) == 1:
            return self._arrivals.decide(changes)
        return self._in_own(lambda own: self._decide(own, changes))

    def apply_each(self, changes: Sequence[Change]) -> list[Answer]:
        self.prepare()
        return self._arrivals.decide(changes)

    def _decide(self, own: sa.Connection, changes: Sequence[Change]) -> list[Answer]:
        answers, written = self._changes.decide(own, changes)
        if not written:
            own.rollback()
        return answers

    # -- the rules ----------------------------------------------------------------------------------------------

    def edit(
        self, edits: Sequence[Edit], *, dry_run: bool = False, if_version: int | None = None
    ) -> list[Overage]:
        if not dry_run and if_version is None:
            edits = self._without_known_definitions(edits)
            if not edits:
                return []
        if any(isinstance(edit, Undefine) for edit in edits):
            self._sweep_all()

        def step(own: sa.Connection) -> list[Overage]:
            overages = self._edits.make(own, edits, if_version=if_version)
            for edit in edits:
                if isinstance(edit, Define) and edit.resource.name in self._counts:
                    # It may have been counted before it was defined.
                    self._counts.record(own, edit.resource.name)
            if dry_run:
                own.rollback()
            return overages

        return self._in_own(step)

    def _without_known_definitions(self, edits: Sequence[Edit]) -> Sequence[Edit]:
        """Services define their resources at every start: what stands so already needs no lock."""
        definitions = [edit for edit in edits if isinstance(edit, Define)]
        if len({edit.resource.name for edit in definitions}) < len(edits):
            return edits  # there are others, or one is defined twice and only the last is to stand
        return self._reading(
            lambda reading: [
                edit for edit in definitions if not self._limits.is_defined_so(reading, edit.resource)
            ]
        )

    def version(self) -> int:
        return self._reading(self._edits.version)

    def adopt(self, adoption: Adoption, *, connection: CallersConnection | None = None) -> bool:
        if connection is not None and not self._database.row_locks:
            # The caller holds the whole database: only in their own transaction can anything be written.
            self.prepare()
            with self._transactions.of_caller(connection, writing=True) as joined:
                self._adopt_joined(joined, adoption)
            return False
        # The caller may hold the very rows that this would wait for.
        patience = None if connection is None else _PATIENCE
        self._in_own(lambda own: self._edits.adopt(own, adoption), patience=patience)
        return True

    def _adopt_joined(self, joined: sa.Connection, adoption: Adoption) -> None:
        """All of it or nothing: what has to be swept first is swept, and then it is begun again."""
        for _ in range(_REPAIRS):
            try:
                with joined.begin_nested():
                    self._edits.adopt(joined, adoption)
            except RunOut as run_out:
                self._expiry.sweep_keys(joined, run_out.keys, wait=False)
            else:
                return
        raise Conflict("reservations that ran out kept being in the way of limits from outside")

    def now(self) -> int:
        return self._reading(self._claims.now)

    def resources(self) -> list[Resource]:
        return self._reading(self._limits.defined)

    def own_limits(self) -> list[OwnLimit]:
        return self._reading(self._limits.own)

    def projects(self) -> list[Project]:
        return self._reading(self._projects.all)

    def ancestors(self, project: str) -> list[str]:
        return self._reading(lambda reading: self._projects.above(reading, [project]).get(project, []))

    def overbooking(self) -> bool:
        return self._reading(self._projects.overbooking)

    # -- reading ------------------------------------------------------------------------------------------------

    def check(
        self,
        resources: Mapping[str, int],
        scopes: Sequence[Scope],
        *,
        connection: CallersConnection | None = None,
    ) -> Decision:
        return self._reading(lambda reading: self._readings.check(reading, resources, scopes), connection)

    def limits(self, scope: Scope) -> dict[str, int]:
        return self._reading(lambda reading: self._readings.limits(reading, scope))

    def usage(self, scope: Scope, *, connection: CallersConnection | None = None) -> dict[str, Usage]:
        return self._reading(lambda reading: self._readings.usage(reading, scope), connection)

    def levels(
        self, names: Sequence[str], scopes: Sequence[Scope], *, connection: CallersConnection | None = None
    ) -> list[Level]:
        return self._reading(lambda reading: self._readings.levels(reading, names, scopes), connection)

    def tree(self) -> list[ProjectUsage]:
        return self._reading(self._surveys.tree)

    def consumers(self, resource: str, scope: Scope, *, size: int) -> list[Consumer]:
        return self._reading(lambda reading: self._surveys.consumers(reading, resource, scope, size=size))

    def running(self, resource: str, scope: Scope, *, size: int) -> list[Running]:
        return self._reading(lambda reading: self._surveys.running(reading, resource, scope, size=size))

    def get_claim(self, id: str) -> Claim:
        return self._reading(lambda reading: self._readings.claim(reading, id))

    def claims_named(self, names: Sequence[str], *, since: int) -> list[tuple[Claim, bool]]:
        return self._reading(lambda reading: self._readings.named(reading, names, since=since))

    def page_of_claims(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        return self._reading(lambda reading: self._readings.page(reading, query, after=after, size=size))

    # -- counted resources --------------------------------------------------------------------------------------

    def count(self, resource: str, counted: Counted) -> None:
        self._counts.register(resource, counted)
        if not self._reading(lambda reading: self._counts.is_recorded(reading, resource)):
            self._in_own(lambda own: self._begin_to_count(own, resource))

    def _begin_to_count(self, own: sa.Connection, resource: str) -> None:
        """Whoever claimed it until now, in whichever process, finds the way changed, and learns that it must not."""
        self._projects.share(own)
        ids = self._definitions.hold(own, [resource])
        self._locks.raise_generations(own, self._locks.of_resources(own, ids.values()))
        self._counts.record(own, resource)

    def counted_here(self) -> frozenset[str]:
        return self._counts.names()

    def counted(self) -> dict[str, str]:
        return self._reading(self._counts.everywhere)

    def counted_drifts(self, resource: str, counted: Counted) -> Iterator[Drift]:
        self._sweep_all()
        # Rows and claims are read one after the other: what traffic changed in between is different the second time.
        found = self._reading(lambda reading: self._counts.drifts(reading, resource, counted))
        if found:
            again = self._reading(lambda reading: self._counts.drifts(reading, resource, counted))
            yield from (drift for drift in again if drift in found)

    def enter_guard(self, request: GuardRequest, *, connection: CallersConnection) -> Guard:
        self.prepare()
        return self._guards.enter(connection, request)

    def missing_indexes(self) -> list[MissingIndex]:
        return self._reading(self._counts.missing_indexes)

    def condition(self) -> Condition:
        return self._reading(self._conditions.look)

    # -- events -------------------------------------------------------------------------------------------------

    def events(self, *, after: int, size: int) -> list[Event]:
        self._number_events()
        return self._reading(lambda reading: self._events.page(reading, after=after, size=size))

    def last_event(self) -> int:
        self._number_events()
        return self._reading(self._events.last)

    def prune_events(self, *, older_than: int, size: int) -> int:
        self._number_events()
        return self._in_own(lambda own: self._events.prune(own, older_than=older_than, size=size))

    def _number_events(self) -> None:
        if not self._reading(self._events.all_numbered):
            while self._in_own(self._events.number):
                pass

    def bell(self) -> Bell:
        if not self._database.notifies or self.asynchronous:
            return Bell()
        return ListeningBell(self._transactions.listening, self._events.channel)

    # -- upkeep -------------------------------------------------------------------------------------------------

    def sweep(self, *, size: int) -> int:
        return self._in_own(lambda connection: self._expiry.sweep(connection, size=size))

    def _sweep_all(self) -> None:
        while self.sweep(size=_SWEPT_AT_ONCE):
            pass

    def prune(self, *, older_than: int, size: int) -> int:
        self._sweep_all()  # what ran out has ended, swept or not
        return self._in_own(lambda own: self._upkeep.prune(own, older_than=older_than, size=size))

    def drifts(self, *, repair: bool) -> Iterator[Drift]:
        self.prepare()
        self._look_at_counted()
        for kind in SCOPE_KINDS:
            found = self._reading(lambda reading: self._upkeep.suspects(reading, kind))  # noqa: B023
            for scope, drifts in found:
                yield from self._repaired(drifts[0].resource, scope) if repair else drifts

    def _look_at_counted(self) -> None:
        for name in sorted(self._counts.names()):
            for part in self._reading(lambda reading: self._crossings.suspects(reading, name)):  # noqa: B023
                with suppress(UnknownResource):  # undefined meanwhile
                    self._in_own(lambda own: self._crossings.look(own, name, part))  # noqa: B023

    def _repaired(self, resource: str, scope: Scope) -> list[Drift]:
        """In a transaction of its own, which may meet claims under way: again, until it is through."""
        for attempt in range(_REPAIRS):
            try:
                return self._in_own(lambda own: self._upkeep.repair(own, resource, scope))
            except UnknownResource:  # undefined meanwhile, and its counters with it
                return []
            except Conflict:
                self.pause(0.01 * attempt)
        raise Conflict(f"the counter of {resource} and {scope} could not be had for repair; run it again")
