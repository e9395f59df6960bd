"""Changes of different callers that came together, in transactions of Delimiter's own.

New claims go the shortest way: one statement for all of them, which makes them if all of them fit. Where it makes none,
a read without locks tells who finds no room, and they are refused: it began after their call arrived, so it is true
when it is told. The others are tried once more; what is still undecided is decided one after the other, exactly.

A scope that was found full is read before the next attempt to claim there, so that a flood of refusals locks nothing
and writes nothing. That it was full is only the reason to look: nobody is refused by what is remembered.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import sqlalchemy as sa

from delimiter.changes import Admit, Change
from delimiter.engine import Answer
from delimiter.engines.ledger import Ledger, over_limit
from delimiter.engines.records import Counter
from delimiter.engines.sql.changes import Changes
from delimiter.engines.sql.claims import Claims
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.groups import names_in, without_common_names
from delimiter.engines.sql.locking import CounterLocks
from delimiter.engines.sql.together.gathering import Batch
from delimiter.engines.sql.together.making import Together
from delimiter.engines.sql.transactions import Transactions
from delimiter.engines.sql.ways import Outdated, Start, Way
from delimiter.errors import Conflict, OverLimit, StoreUnavailable

__all__ = ["Arrivals"]

T = TypeVar("T")

#: Full counters that are remembered; beyond that all are forgotten, and found again.
_MOST_FULL: Final = 10_000

#: The part of a call's time after which what is still kept from a batch by somebody's lock is asked for alone.
_HELD_UP: Final = 0.5


class _InOwn(Protocol):
    def __call__(self, step: Callable[[sa.Connection], T], *, patience: float | None = None) -> T: ...


class Arrivals:
    """Decides what came together on one store; each change for itself, in no particular order of commit."""

    #: Seconds that changes of several callers wait for a lock together. Whoever keeps a counter for longer (a
    #: transaction of a service that is not committed yet) is waited for by those alone who need that counter.
    patience: float = 0.05

    def __init__(
        self,
        transactions: Transactions,
        in_own: _InOwn,
        together: Together,
        changes: Changes,
        claims: Claims,
        counters: Counters,
        locks: CounterLocks,
    ) -> None:
        self._transactions = transactions
        self._in_own = in_own
        self._together = together
        self._changes = changes
        self._claims = claims
        self._counters = counters
        self._locks = locks
        self._full: set[int] = set()

    def decide(self, changes: Sequence[Change]) -> list[Answer]:
        """The answer to each. ``Conflict`` as an answer: somebody keeps a lock; ask again for this one alone.

        What is raised says that none was made (or, in doubt, may have been). Where some are made already their callers
        are told so, and only the others of what is in the way: they are not to be made twice.
        """
        answers: dict[int, Answer] = {}
        try:
            self._decide(changes, answers)
        except (Conflict, StoreUnavailable) as error:
            if not answers:
                raise
            answers = {**dict.fromkeys(range(len(changes)), error), **answers}
        return [answers[number] for number in range(len(changes))]

    def _decide(self, changes: Sequence[Change], answers: dict[int, Answer]) -> None:
        until = time.monotonic() + _HELD_UP * self._transactions.timeout
        batch = self._gather(changes)
        if not self._full.isdisjoint(batch.charges):
            self._refuse(
                changes, [number for number in batch.lists if self._may_be_full(changes[number])], answers
            )
            batch = self._rest(changes, batch, answers)
        if batch.lists and self._make(changes, batch, answers, until):
            self._refuse(changes, [number for number in batch.lists if number not in answers], answers)
            left = self._rest(changes, batch, answers)
            if left.lists and len(left.lists) < len(batch.lists):
                self._make(changes, left, answers, until)
        self._decide_exactly(changes, answers, until)

    def _gather(self, changes: Sequence[Change]) -> Batch:
        """Ways that are not remembered are read first, for all who came together, and without locks."""
        batch = self._together.gathering.gather(changes)
        unknown = self._together.gathering.unknown(changes) if len(batch.lists) < len(changes) else ()
        if not unknown:
            return batch
        with self._transactions.reading() as reading:
            self._counters.learn(reading, unknown)
        return self._together.gathering.gather(changes)

    # -- by one statement ---------------------------------------------------------------------------------------

    def _make(
        self, changes: Sequence[Change], batch: Batch, answers: dict[int, Answer], until: float
    ) -> bool:
        """Make all of them, or none. Whether what was in the way is that something does not fit."""
        several = len(changes) > 1
        likely = self._full.isdisjoint(batch.charges)
        try:
            made, locked = self._together.make(
                batch, patience=self.patience if several else None, likely=likely
            )
        except Conflict as conflict:
            if not several or not self._transactions.waited_in_vain(conflict):
                raise
            return self._make_apart(changes, batch, conflict, answers, until)
        answers.update(made)
        return locked and not made

    def _make_apart(
        self,
        changes: Sequence[Change],
        batch: Batch,
        conflict: Conflict,
        answers: dict[int, Answer],
        until: float,
    ) -> bool:
        """Somebody keeps a lock that one of them needs: the others go on without it.

        Those whose counters are free, if that is what it is; else the two halves. Not for longer than ``until``: where
        all of them wait for one lock, each half would wait for it in turn.
        """
        numbers = list(batch.lists)
        if len(numbers) == 1 or time.monotonic() > until:
            answers.update(dict.fromkeys(numbers, conflict))
            return False
        held = batch.charges.keys() - self._in_own(lambda own: self._locks.free(own, batch.charges))
        free = [number for number in numbers if self._is_free(changes[number], held)]
        if not free or len(free) == len(numbers):
            free = numbers[: len(numbers) // 2]
        misfits = False
        for part in (free, [number for number in numbers if number not in free]):
            rest = self._together.gathering.gather(changes, part)
            if rest.lists:
                misfits |= self._make(changes, rest, answers, until)
        return misfits

    def _is_free(self, change: Change, held: Set[int]) -> bool:
        charged = self._charged(change)
        return charged is not None and held.isdisjoint(charged[1])

    def _rest(self, changes: Sequence[Change], batch: Batch, answers: dict[int, Answer]) -> Batch:
        return self._together.gathering.gather(changes, [one for one in batch.lists if one not in answers])

    # -- by a read ----------------------------------------------------------------------------------------------

    def _may_be_full(self, change: Change) -> bool:
        charged = self._charged(change)
        return charged is not None and not self._full.isdisjoint(charged[1])

    def _charged(self, change: Change) -> tuple[dict[Start, Way], dict[int, int]] | None:
        return self._together.gathering.charged(change.claims) if isinstance(change, Admit) else None

    def _refuse(self, changes: Sequence[Change], numbers: Iterable[int], answers: dict[int, Answer]) -> None:
        """Refuse those for whom there is no room in what is committed now.

        Where something is reserved it may have run out: those are left to who can tell. The ids are looked for last: a
        claim that was made before is not refused, and what is not there afterwards was not there before.
        """
        wanted: dict[Hashable, _Wanted] = {}
        for number in numbers:
            change = changes[number]
            key = _what(change, number)
            if key in wanted:
                wanted[key].numbers.append(number)
            elif (charged := self._charged(change)) is not None:
                wanted[key] = _Wanted(change, *charged, [number])
        if not wanted:
            return
        with suppress(Outdated), self._transactions.reading() as reading:
            refused = self._refusals(reading, wanted.values())
            if refused:
                names = {number: set(names_in(changes[number])) for number in refused}
                known = self._claims.in_use(reading, set().union(*names.values()))
                answers.update(
                    {number: refused[number] for number in refused if known.isdisjoint(names[number])}
                )

    def _refusals(self, reading: sa.Connection, wanted: Collection[_Wanted]) -> dict[int, OverLimit]:
        """Of those that ask for the same, worked out once. What does not fit all of them is remembered, too."""
        charged = self._counters.look(
            reading, {start: way for one in wanted for start, way in one.ways.items()}
        )
        counters = {counter.key: counter for counter in charged.all()}
        refused: dict[int, OverLimit] = {}
        sums: dict[int, int] = {}
        for one in wanted:
            misfits = [key for key, more in one.used.items() if _is_misfit(counters[key], more)]
            for key, more in one.used.items():
                sums[key] = sums.get(key, 0) + more * len(one.numbers)
            if misfits and not any(counters[key].reserved for key in misfits):
                answer = Ledger(path=charged.path, now=0).decide(one.change)
                if isinstance(answer, OverLimit):
                    # Each is raised in a thread of its own.
                    refused.update((number, copy.copy(answer)) for number in one.numbers)
        full = {key for key, more in sums.items() if _is_misfit(counters[key], more)}
        self._remember(counters.keys() - full, full)
        return refused

    def _remember(self, free: Iterable[int], full: Iterable[int]) -> None:
        self._full.difference_update(free)
        if len(self._full) > _MOST_FULL:
            self._full.clear()
        self._full.update(full)

    # -- one after the other ------------------------------------------------------------------------------------

    def _decide_exactly(self, changes: Sequence[Change], answers: dict[int, Answer], until: float) -> None:
        left = [number for number in range(len(changes)) if number not in answers]
        while left:
            group, left = without_common_names(changes, left)
            self._decide_group(changes, group, answers, until)

    def _decide_group(
        self, changes: Sequence[Change], numbers: Sequence[int], answers: dict[int, Answer], until: float
    ) -> None:
        def step(own: sa.Connection) -> list[Answer]:
            told, written = self._changes.decide_group(own, [changes[number] for number in numbers])
            if not written:
                own.rollback()
            return told

        several = len(changes) > 1
        try:
            told = self._in_own(step, patience=self.patience if several else None)
        except Conflict as conflict:
            if not several or not self._transactions.waited_in_vain(conflict):
                raise
            if len(numbers) == 1 or time.monotonic() > until:
                answers.update(dict.fromkeys(numbers, conflict))
                return
            middle = len(numbers) // 2
            self._decide_group(changes, numbers[:middle], answers, until)
            self._decide_group(changes, numbers[middle:], answers, until)
        else:
            answers.update(zip(numbers, told, strict=True))


@dataclass(slots=True)
class _Wanted:
    """What some of the changes ask for: the ways to its counters, and how much more is used of each."""

    change: Change
    ways: dict[Start, Way]
    used: dict[int, int]
    numbers: list[int]


def _what(change: Change, number: int) -> Hashable:
    """The same for changes that are refused alike; where it is hard to tell, of each its number."""
    if isinstance(change, Admit) and len(change.claims) == 1:
        claim = change.claims[0]
        return claim.project, claim.user, tuple(claim.resources.items())
    return number


def _is_misfit(counter: Counter, more: int) -> bool:
    return (
        more > 0
        and over_limit(counter.resource, counter.scope, counter.limit, counter.used, more) is not None
    )
