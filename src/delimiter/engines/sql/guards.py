"""Guards: the caller writes rows of counted resources, and what they add up to stays within the limits.

The guard of a scope is its counter's row, on which the limit stands. It is locked before anything is summed, and it is
written (its revision), so that a transaction whose snapshot is older than another guard's rows is found out at every
isolation level. An optimistic guard locks nothing on entering; on leaving it writes the rows only if they are as it
saw them, and whoever comes second begins anew.

The generation check of the optimistic way is the one proposed by Jay Pipes on the OpenStack developers' list in 2016.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction

from delimiter.changes import Admit
from delimiter.counted import Guard, GuardRequest
from delimiter.engines.ledger import over_limit
from delimiter.engines.records import Counter
from delimiter.engines.sql.changes import Changes
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.crossings import Crossings
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.transactions import Transactions
from delimiter.engines.sql.ways import Charged, Outdated, Start
from delimiter.errors import Conflict, DelimiterError, InvalidRequest, OverLimit
from delimiter.model import UNLIMITED, Violation

__all__ = ["Guards"]

#: Where a connection remembers the transaction in which a guard is open.
_OPEN: Final = "delimiter_guard"

#: How often an optimistic guard works out its way anew before it gives up.
_ATTEMPTS: Final = 8


class Guards:
    """Opens guards on one store."""

    def __init__(
        self,
        ground: Ground,
        transactions: Transactions,
        counters: Counters,
        changes: Changes,
        counts: Counts,
        crossings: Crossings,
    ) -> None:
        self.transactions = transactions
        self._counters = counters
        self._changes = changes
        self._counts = counts
        self._crossings = crossings
        self._plain_reads_lag = ground.database.plain_reads_lag
        k = ground.tables.counters.c
        by_ids = k.id.in_(sa.bindparam("ids", expanding=True))
        self._revisions = sa.select(k.id, k.revision).where(by_ids)
        raised = sa.update(ground.tables.counters).values(revision=k.revision + 1)
        self._raise = ground.database.by_key(raised.where(by_ids), ground.tables.counters)
        self._raise_seen = ground.database.by_key(
            raised.where(
                k.id == sa.bindparam("key"),
                k.revision == sa.bindparam("seen"),
                k.maximum == sa.bindparam("limit"),
            ),
            ground.tables.counters,
        )

    def enter(self, given: Any, request: GuardRequest) -> Guard:
        """``given`` is the caller's connection or session."""
        with self.transactions.of_caller(given, writing=True) as joined:
            _refuse_nesting(joined)
        self.flush(given)
        with self.transactions.of_caller(given, writing=False) as joined:
            guard = _SqlGuard(self, given, given.begin_nested(), joined, request)
            try:
                guard.take(joined)
            except OverLimit:
                guard.abandon()
                # The locks are gone with the savepoint, and a refusal waits for nobody.
                with suppress(SQLAlchemyError), joined.begin_nested():
                    guard.tell(joined, wait=False)
                raise
            except BaseException:
                guard.abandon()
                raise
            # Only now: a connection that was fresh has begun with the savepoint.
            guard.mark(joined)
            return guard

    def flush(self, given: Any) -> None:
        """What the caller's own rows raise is the caller's to see, but for a meeting with another transaction."""
        if not isinstance(given, Session):
            return
        try:
            given.flush()
        except SQLAlchemyError as error:
            if self.transactions.met_another(error):
                raise Conflict(
                    "the rows met those of another transaction; roll back and start anew"
                ) from error
            raise

    # -- what a guard does --------------------------------------------------------------------------------------

    def lock(
        self, joined: sa.Connection, request: GuardRequest, starts: Sequence[Start]
    ) -> tuple[Any, Charged]:
        """The claim on what is tracked (or why it is refused), and the rows of the guard: in one order of locks."""
        admit = None if request.claim is None else Admit((request.claim,))
        if request.optimistic:
            with suppress(Outdated):
                self._counters.ways(joined, starts)  # what is missing is made before anything is locked
            answer = self._changes.decide_beside(joined, admit, ())[0] if admit else None
            return answer, self._look(joined, starts)
        answer, charged = self._changes.decide_beside(joined, admit, starts)
        if starts and self._plain_reads_lag:
            self._refuse_lag(joined, charged)
        return answer, charged

    def _look(self, joined: sa.Connection, starts: Sequence[Start]) -> Charged:
        for _ in range(_ATTEMPTS if starts else 0):
            with suppress(Outdated):
                return self._counters.look(joined, self._counters.ways(joined, starts))
        if starts:
            raise Conflict("the transaction's snapshot is older than a change of limits; start it anew")
        return Charged({})

    def _refuse_lag(self, joined: sa.Connection, charged: Charged) -> None:
        """Whether what is summed next is older than the rows that are locked: MariaDB does not say so itself."""
        locked = {counter.key: counter.revision for counter in charged.all()}
        seen = {row.id: row.revision for row in self._in_parts(joined, self._revisions, locked)}
        if any(seen.get(key) != revision for key, revision in locked.items()):
            raise Conflict("another guard has written since the transaction's snapshot; start it anew")

    @staticmethod
    def _in_parts(joined: sa.Connection, statement: Any, keys: Iterable[int]) -> Iterator[Any]:
        for part in chunks(sorted(keys)):
            yield from joined.execute(statement, {"ids": part})

    def count(self, joined: sa.Connection, rows: Iterable[Counter]) -> dict[Start, int]:
        """What each uses. Below a project without a limit others come and go without meeting this guard."""
        starts = {(row.resource, row.scope): row.limit for row in rows}
        alone = {
            start for start, limit in starts.items() if limit == UNLIMITED and start[1].kind == "project"
        }
        return self._counts.of(joined, starts, alone=alone)

    def refuse(self, request: GuardRequest, rows: Iterable[Counter]) -> None:
        """What cannot be counted, or could never be found."""
        for resource in request.counted:
            for scope in request.scopes:
                self._counts.refuse_stranger(resource, scope)
        for row in rows:
            self._counts.refuse_uncountable(row.resource, row.scope, row.limit)

    def write(self, joined: sa.Connection, rows: Iterable[Counter]) -> None:
        for part in chunks(sorted(row.key for row in rows)):
            joined.execute(self._raise, {"ids": part})

    def write_seen(self, joined: sa.Connection, rows: Iterable[Counter]) -> None:
        """Write each row if nobody has since it was looked at."""
        for row in sorted(rows, key=lambda row: row.key):
            values = {"key": row.key, "seen": row.revision, "limit": row.limit}
            if joined.execute(self._raise_seen, values).rowcount != 1:
                raise Conflict("somebody else was here meanwhile; roll back and run the transaction anew")

    def tell(
        self, joined: sa.Connection, rows: Iterable[Counter], sums: dict[Start, int], *, wait: bool
    ) -> None:
        self._crossings.notice(joined, [(row, sums[row.resource, row.scope]) for row in rows], wait=wait)


class _SqlGuard(Guard):
    """One open guard. A savepoint makes it all or nothing: what was written inside goes when it is refused."""

    def __init__(
        self, guards: Guards, given: Any, savepoint: Any, joined: sa.Connection, request: GuardRequest
    ) -> None:
        self._guards = guards
        self._given = given
        self._savepoint = savepoint
        self._info = joined.info
        self._request = request
        self._rows: list[Counter] = []
        self._sums: dict[Start, int] = {}
        self._mark: weakref.ref[Any] | None = None

    def take(self, joined: sa.Connection) -> None:
        """Take the guards, count, and admit or refuse."""
        request = self._request
        starts = [(resource, scope) for resource in request.counted for scope in request.scopes]
        self._guards.refuse(request, ())
        answer, charged = self._guards.lock(joined, request, starts)
        if isinstance(answer, DelimiterError) and not isinstance(answer, OverLimit):
            raise answer
        self._rows = _in_order(charged.all(), request.counted)
        self._guards.refuse(request, self._rows)
        self._sums = self._guards.count(joined, self._rows)
        found = [
            over_limit(
                row.resource,
                row.scope,
                row.limit,
                self._sums[row.resource, row.scope],
                request.counted[row.resource],
            )
            for row in self._rows
        ]
        violations = [violation for violation in found if violation is not None]
        if isinstance(answer, OverLimit):
            violations = sorted([*answer.violations, *violations], key=lambda violation: violation.resource)
        if violations:
            raise self._refusal(violations)
        if not request.optimistic:
            self._guards.write(joined, self._rows)
            self.tell(joined)
        self.claim = None if answer is None else answer[0]

    def leave(self) -> None:
        try:
            self._refuse_ended()
            self._guards.flush(self._given)
            with self._guards.transactions.of_caller(self._given, writing=False) as joined:
                if self._request.optimistic:
                    self._guards.write_seen(joined, self._rows)
                self._count_again(joined)
                self._savepoint.commit()
        except BaseException:
            self.abandon()
            raise
        self._close()

    def _count_again(self, joined: sa.Connection) -> None:
        """More than was asked for must not come in; nor must anything that an optimistic guard did not see."""
        after = self._guards.count(joined, self._rows)
        violations = []
        for row in self._rows:
            start, asked = (row.resource, row.scope), self._request.counted[row.resource]
            came = after[start] - self._sums[start]
            if came > asked:
                limit, used = row.limit, self._sums[start]
                violations.append(Violation(row.resource, str(row.scope), limit, used, came, asked))
        if violations:
            raise self._refusal(violations)
        self._sums = after
        self.tell(joined)

    def mark(self, joined: sa.Connection) -> None:
        """That a guard is open in this transaction; the connection may go back to its pool and be another's."""
        self._mark = weakref.ref(joined.get_transaction())
        self._info[_OPEN] = self._mark

    def abandon(self) -> None:
        # A session's savepoint that a failed flush has taken back still waits to be told so.
        if self._savepoint.is_active or isinstance(self._savepoint, SessionTransaction):
            with suppress(SQLAlchemyError):  # the transaction may be gone already, and the savepoint with it
                self._savepoint.rollback()
        self._close()

    def tell(self, joined: sa.Connection, *, wait: bool = True) -> None:
        """Of scopes that have come to be over quota, or no longer are, since somebody last looked."""
        if self._sums:
            self._guards.tell(joined, self._rows, self._sums, wait=wait)

    def _close(self) -> None:
        if self._mark is not None and self._info.get(_OPEN) is self._mark:
            del self._info[_OPEN]

    def _refuse_ended(self) -> None:
        if not self._savepoint.is_active:
            raise InvalidRequest(
                "the transaction was committed or rolled back inside the guard; leave the guard first, then commit"
            )

    def _refusal(self, violations: Sequence[Violation]) -> OverLimit:
        return OverLimit(violations, own={str(scope) for scope in self._request.scopes})


def _in_order(rows: Iterable[Counter], resources: Iterable[str]) -> list[Counter]:
    """Those of counted resources: by resource; within one, from the whole deployment down the tree to the user."""
    counted = set(resources)
    return sorted(
        (row for row in rows if row.resource in counted),
        key=lambda row: (row.resource, row.scope.rank, row.level, row.scope.name),
    )


def _refuse_nesting(joined: sa.Connection) -> None:
    transaction = joined.get_transaction()
    open_in = joined.info.get(_OPEN)
    if open_in is not None and open_in() is transaction and transaction is not None:
        raise InvalidRequest(
            "a guard is open in this transaction already and guards do not nest; name all resources in one guard"
        )
