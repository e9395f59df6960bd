"""Deciding changes in a transaction: lock the claims, place the new ones, lock the counters, decide, write.

The order is the same for every verb, and is what keeps operations from waiting for each other in a circle: claims by
their row's number, the unique keys of new claims, the tree of projects and the definitions of resources while a
scope's first counter is made, then counters by their number. (An external id given by ``provision`` meets its unique
key only at the end: should another claim take it at that very moment, the database finds the deadlock and one of the
two begins anew. A decision that is begun again in a caller's transaction holds counters already: it goes on only
where the order can be kept.) Only what has been locked is decided on; only SQL happens here: no waiting, no trying
again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import sqlalchemy as sa

from delimiter.changes import Admit, Change, Correct, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.engine import Answer
from delimiter.engines.ledger import Ledger
from delimiter.engines.records import Counter, Entry
from delimiter.engines.sql.claims import Claims
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.events import Standing
from delimiter.engines.sql.expiry import Expiry, RunOut
from delimiter.engines.sql.groups import independent
from delimiter.engines.sql.ways import Charged, Outdated, Start
from delimiter.engines.sql.writing import ClaimWriter
from delimiter.errors import (
    Conflict,
    DelimiterError,
    InvalidRequest,
    OverLimit,
    UnknownClaim,
    UnknownResource,
)
from delimiter.model import Scope, Violation

__all__ = ["Changes"]

#: How often a decision is begun again in a caller's transaction before it is called a conflict.
_ATTEMPTS: Final = 8


class Changes:
    """Decides batches of changes on one store."""

    def __init__(self, claims: Claims, writer: ClaimWriter, counters: Counters, expiry: Expiry) -> None:
        self._claims = claims
        self._writer = writer
        self._counters = counters
        self._expiry = expiry

    def decide(self, connection: sa.Connection, changes: Sequence[Change]) -> tuple[list[Answer], bool]:
        """In a transaction of our own: the answers, and whether there is anything to commit.

        :class:`Outdated` and :class:`RunOut` mean: roll back, (sweep,) and decide again in a new transaction.
        """
        answers: list[Answer] = []
        written = False
        for group in independent(changes):
            told, wrote = self.decide_group(connection, group)
            answers.extend(told)
            written |= wrote
        return answers, written

    def decide_group(self, connection: sa.Connection, group: Sequence[Change]) -> tuple[list[Answer], bool]:
        """The same of changes none of which names what another makes or changes, with every lock taken once."""
        attempt = _Attempt(self._claims, self._writer, self._counters, self._expiry, connection)
        answers = attempt.decide(group)
        written = attempt.admitted
        if written:
            attempt.write()
        attempt.undo()
        return answers, written

    def decide_joined(
        self,
        connection: sa.Connection,
        changes: Sequence[Change],
        *,
        placed: Mapping[str, int] | None = None,
        held: frozenset[int] = frozenset(),
        now: int | None = None,
    ) -> list[Answer]:
        """The same in the caller's transaction, which is neither committed nor rolled back here.

        ``placed`` and ``held``: rows of these claims and counters that an attempt before has left there and locked,
        and the time by which it did.
        """
        answers: list[Answer] = []
        for group in [changes] if placed else independent(changes):
            told, _ = self._decide_group_joined(connection, group, placed=placed, held=held, now=now)
            answers.extend(told)
        return answers

    def decide_beside(
        self, connection: sa.Connection, admit: Admit | None, starts: Collection[Start]
    ) -> tuple[Answer | None, Charged]:
        """In the caller's transaction: new claims, and the counters on these ways, locked with theirs in one order."""
        answers, charged = self._decide_group_joined(connection, [admit] if admit else [], starts)
        return next(iter(answers), None), charged

    def _decide_group_joined(
        self,
        connection: sa.Connection,
        group: Sequence[Change],
        beside: Collection[Start] = (),
        *,
        placed: Mapping[str, int] | None = None,
        held: frozenset[int] = frozenset(),
        now: int | None = None,
    ) -> tuple[list[Answer], Charged]:
        attempts = 0
        # What an attempt before has placed stays, and the time by which it did: to take a row back and place it again
        # would be to wait at its unique key with counters locked, and those come after claims.
        kept: dict[str, int] = dict(placed or {})
        while attempts < _ATTEMPTS:
            attempt = _Attempt(
                self._claims,
                self._writer,
                self._counters,
                self._expiry,
                connection,
                joined=True,
                held=held,
                placed=kept,
                now=now,
            )
            try:
                answers = attempt.decide(group, beside)
            except Outdated as outdated:
                attempts += 1
                held |= outdated.locked
            except RunOut as run_out:  # however many there are: each time some are gone
                if not self._expiry.sweep_keys(connection, run_out.keys, wait=False):
                    raise Conflict(
                        "reservations that ran out are just being swept by another transaction"
                    ) from None
            else:
                attempt.write()
                attempt.undo()
                return answers, attempt.charged
            now = attempt.now
        raise Conflict(
            "the transaction's snapshot is older than a change of limits or counters; start it anew"
        )


class _Attempt:
    """One try at deciding a group of changes, and what it has done to the transaction so far."""

    def __init__(
        self,
        claims: Claims,
        writer: ClaimWriter,
        counters: Counters,
        expiry: Expiry,
        connection: sa.Connection,
        *,
        joined: bool = False,
        held: frozenset[int] = frozenset(),
        placed: dict[str, int] | None = None,
        now: int | None = None,
    ) -> None:
        self._claims = claims
        self._writer = writer
        self._counters = counters
        self._expiry = expiry
        self._connection = connection
        self._joined = joined
        self._held = held
        self._placed: dict[str, int] = {} if placed is None else placed
        self.charged = Charged({})
        self.now = now
        self._ledger = Ledger(path=self._path, now=now or 0)

    @property
    def admitted(self) -> bool:
        """Whether anything was admitted that must be written."""
        return any(_is_written(entry) for entry in self._ledger.entries.values())

    def decide(self, changes: Sequence[Change], beside: Collection[Start] = ()) -> list[Answer]:
        self._load(changes)
        new = [pair for change in changes if isinstance(change, Admit) for pair in self._to_place(change)]
        self._place(new)
        refused = self._lock_counters(changes, beside)
        answers = [
            refused.get(number) or self._ledger.decide(change) for number, change in enumerate(changes)
        ]
        for answer in answers:
            if isinstance(answer, OverLimit):
                self._look_for_expired(answer.violations)
        if any(isinstance(change, Correct) or _is_existing(change) for change in changes):
            self._look_for_expired(
                Violation(c.resource, str(c.scope), c.limit, c.used_now, 0, 0)
                for c in self.charged.all()
                if Standing(c.limit, c.used_now).over and not Standing(c.limit, c.used).over
            )
        return answers

    def write(self) -> None:
        """Write what was admitted, in the transaction."""
        entries = [entry for entry in self._ledger.entries.values() if _is_written(entry)]
        for entry in entries:
            if entry.new:
                entry.key = self._placed.pop(entry.id)
        self._writer.write(self._connection, entries)
        self._counters.add(self._connection, self.charged.all())

    def undo(self) -> None:
        """Take back the rows of new claims that were not admitted."""
        self._writer.remove(self._connection, list(self._placed.values()))
        self._placed.clear()

    # -- claims -------------------------------------------------------------------------------------------------

    def _load(self, changes: Sequence[Change]) -> None:
        listed = {claim.id for change in changes if isinstance(change, Admit) for claim in change.claims}
        parents = (
            claim.parent
            for change in changes
            if isinstance(change, Admit)
            for claim in change.claims
            if claim.parent
        )
        targets = [change.id for change in changes if not isinstance(change, Admit)]
        named = [*targets, *(name for name in parents if name not in listed)]
        self._know(self._claims.lock_named(self._connection, named, joined=self._joined))
        roots = []
        for change in changes:
            with suppress(UnknownClaim):
                if isinstance(change, Release | Transfer):
                    roots.append(self._ledger.find(change.id))
        below = self._claims.lock_below(self._connection, roots)
        self._know(below)
        if below and self.now is not None and not self._placed:
            # To lock them may have taken until those above ran out: all of them are judged by one moment, after it.
            self.now = None
            self._read_clock()
        for change in changes:
            if isinstance(change, Provision) and change.external_id is not None:
                self._know_holder(change)
        if any(isinstance(change, Renew) for change in changes):
            self._read_clock()

    def _know(self, entries: Iterable[Entry]) -> None:
        placed = set(self._placed.values())
        entries = [entry for entry in entries if entry.key not in placed]
        self._ledger.add(entries)
        if any(entry.expires_at is not None for entry in entries):
            self._read_clock()

    def _read_clock(self) -> None:
        if self.now is None:
            self.now = self._ledger.now = self._claims.now(self._connection)

    def _know_holder(self, change: Provision) -> None:
        """Who holds the external id to be given. (That nobody takes it meanwhile is the unique key's to say.)"""
        assert change.external_id is not None
        holder = self._claims.holder(self._connection, change.external_id)
        if holder is None or holder.id in self._ledger.entries:
            return
        self._know([holder])
        self._refuse_to_count(holder)

    def _refuse_to_count(self, holder: Entry) -> None:
        """An external id is free again as soon as the reservation that had it ran out."""
        if holder.state_at(self._ledger.now) == "expired":
            raise RunOut([holder.key])

    def _to_place(self, change: Admit) -> Iterator[tuple[NewClaim, str | None]]:
        for number, claim in enumerate(change.claims):
            if claim.id in self._ledger.entries:
                continue
            parent = None
            if claim.parent is not None:
                with suppress(UnknownClaim):  # the ledger will say so
                    parent = self._ledger.parent_id(claim, change.claims[:number])
            yield claim, parent

    def _place(self, new: Sequence[tuple[NewClaim, str | None]]) -> None:
        if any(claim.expires_in is not None for claim, _ in new):
            self._read_clock()
        fresh = [(claim, parent) for claim, parent in new if claim.id not in self._placed]
        self._placed.update(self._writer.place(self._connection, fresh, self._ledger.now))
        for claim, _ in new:
            if claim.id not in self._placed:
                self._know_obstacle(claim)

    def _know_obstacle(self, claim: NewClaim) -> None:
        """Why a row could not be placed: its id is known (a replay), or its external id is in use."""
        entry = self._claims.replayed(self._connection, claim.id)
        if entry is not None:
            self._know([entry])
            return
        if claim.external_id is not None:
            holder = self._claims.holder(self._connection, claim.external_id)
            if holder is not None:
                # Placed just now: the list itself names the external id twice, which the ledger will find.
                if holder.key not in self._placed.values():
                    self._know([holder])
                    self._refuse_to_count(holder)
                return
        raise Outdated  # whoever was in the way has gone again

    # -- counters -----------------------------------------------------------------------------------------------

    def _path(self, resource: str, project: str | None, user: str | None) -> list[Counter]:
        return self.charged.path(resource, project, user)

    def _lock_counters(
        self, changes: Sequence[Change], beside: Collection[Start]
    ) -> dict[int, DelimiterError]:
        """Lock what the changes are charged to; those that name a resource that cannot be claimed are refused here."""
        refused: dict[int, DelimiterError] = {}
        ways = self._counters.ways(self._connection, beside, held=self._held) if beside else {}
        for number, change in enumerate(changes):
            try:
                starts = set(self._starts(change))
                ways.update(self._counters.ways(self._connection, starts, held=self._held))
                if isinstance(change, Admit | Resize | Correct):
                    asked = (name for name, _ in starts) if isinstance(change, Admit) else change.resources
                    self._counters.refuse_counted(self._connection, asked)
            except (UnknownResource, InvalidRequest) as error:
                refused[number] = self._ledger.refused_replay(change) or error
        if ways:
            self.charged = self._counters.lock(self._connection, ways, held=self._held)
        return refused

    def _starts(self, change: Change) -> Iterator[Start]:
        """Where the charges of a change begin: every resource with every owner, before and after."""
        if isinstance(change, Renew):
            return
        if isinstance(change, Admit):
            for claim in change.claims:
                if claim.id not in self._ledger.entries:
                    yield from _starts_of(claim.resources, claim.project, claim.user)
            return
        try:
            root = self._ledger.find(change.id)
        except UnknownClaim:
            return
        if isinstance(change, Provision) and root.state == "provisioned":
            return
        for entry in self._ledger.subtree(root) if isinstance(change, Release | Transfer) else (root,):
            if not entry.ended:
                yield from _starts_of(entry.resources, entry.project, entry.user)
                if isinstance(change, Transfer):
                    yield from _starts_of(entry.resources, change.project, change.user)
        if isinstance(change, Resize) and not root.ended:
            yield from _starts_of(change.resources, root.project, root.user)
        if isinstance(change, Correct) and not root.ended:
            yield from _starts_of(change.resources, change.project, change.user)

    def _look_for_expired(self, suspected: Iterable[Violation]) -> None:
        """Nobody is refused, or over quota, because of reservations that ran out and are still counted."""
        reserved = {(c.resource, str(c.scope)) for c in self.charged.all() if c.reserved}
        violations = [v for v in suspected if (v.resource, v.scope) in reserved]
        if not violations:  # the locked counters tell: nothing is reserved where there is no room
            return
        keys = self._expiry.in_the_way(self._connection, violations, joined=self._joined)
        if keys:
            raise RunOut(keys)


def _starts_of(resources: Iterable[str], project: str | None, user: str | None) -> Iterator[Start]:
    for resource in resources:
        for scope in Scope.owned(project, user):
            yield resource, scope


def _is_written(entry: Entry) -> bool:
    return entry.new or entry.changed or entry.moved or bool(entry.children_added)


def _is_existing(change: Change) -> bool:
    return isinstance(change, Admit) and change.existing
