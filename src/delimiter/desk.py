"""The desk's lowest drawer: opening and closing, trying again, and upkeep.

:class:`delimiter.rules.Rules` adds definitions, limits and projects, :class:`delimiter.watching.Watching` what can be
asked, and :class:`delimiter.Delimiter` the verbs on claims.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from delimiter import validation
from delimiter.combining import Combiner
from delimiter.condition import Condition
from delimiter.engine import ClaimQuery, Engine, OpenOptions, open_engine
from delimiter.errors import Conflict, DelimiterError, StoreUnavailable
from delimiter.freshness import Freshness
from delimiter.model import Claim, Drift
from delimiter.waiting import pauses

if TYPE_CHECKING:
    from delimiter.model import CallersConnection
    from delimiter.source import LimitSource, ProjectSource

__all__ = ["Desk"]

T = TypeVar("T")

#: Claims swept or pruned in one transaction: long enough to be worth a commit, short enough not to be in the way.
_BATCH: Final = 200

#: Claims fetched at a time: an iterator holds one page, whatever the number of claims.
_PAGE: Final = 500


class Desk:
    """An open store, and how calls to it are made."""

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
        self._timeout = validation.microseconds(timeout, "timeout") / 1_000_000
        options = OpenOptions(create=create, schema=schema, table_prefix=table_prefix, timeout=self._timeout)
        self._engine: Engine = open_engine(url_or_engine, options)
        self._combiner = Combiner(self._engine)
        self._freshness = Freshness(self._engine, limits, projects, self._run)

    def prepare(self) -> None:
        """Make the tables now rather than at the first call (with ``create=True``). Harmless if they are there.

        >>> Delimiter("memory://").prepare()
        """
        self._run(self._engine.prepare)

    def close(self) -> None:
        """Give back the store's connections. An SQLAlchemy engine that was handed in stays open."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- upkeep -------------------------------------------------------------------------------------------------

    def expire_reservations(self) -> int:
        """Sweep the reservations that ran out; how many this call swept.

        Expired reservations stop counting even if nobody calls it: the sweep tidies up. It works in small
        transactions and may run in several processes at once; each reservation is swept by one of them.

        >>> Delimiter("memory://").expire_reservations()
        0
        """
        return self._until_none(lambda: self._engine.sweep(size=_BATCH))

    def prune(self, *, older_than: float | timedelta) -> int:
        """Forget claims that ended longer ago than this (seconds or ``timedelta``); how many were forgotten.

        It is the window in which a replayed id is still known. An ended claim stays while there are claims below it.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> quota.release(quota.claim({"storage.gb": 1}, project="acme").id)
        >>> quota.prune(older_than=timedelta(days=7)), quota.prune(older_than=0)
        (0, 1)
        """
        age = validation.microseconds(older_than, "older_than", zero=True)
        return self._until_none(lambda: self._engine.prune(older_than=age, size=_BATCH))

    def prune_events(self, *, older_than: float | timedelta) -> int:
        """Forget events that happened longer ago than this (seconds or ``timedelta``); how many were forgotten.

        The numbers go on. A follower that is further behind does not see them any more, so keep them for longer than
        any follower may be away. Raises ``InvalidRequest``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> overages = quota.update_limits("storage.gb", project="acme", max=5)
        >>> quota.prune_events(older_than=timedelta(days=90)), quota.prune_events(older_than=0)
        (0, 1)
        """
        age = validation.microseconds(older_than, "older_than", zero=True)
        return self._until_none(lambda: self._engine.prune_events(older_than=age, size=_BATCH))

    def reconcile(self, *, repair: bool = False) -> Iterator[Drift]:
        """Compare every counter with the claims charged to it; yield what disagrees.

        With ``repair`` each is set right before this returns, in a small transaction of its own, safely beside live
        claims. A healthy store yields nothing. Of counted resources (``count``) there is no number that could be off:
        who has come over quota since somebody last looked, or is back within it, is told by :meth:`events`.

        >>> list(Delimiter("memory://").reconcile())
        []
        """
        drifts = self._engine.drifts(repair=repair)
        # Repairs are made now, not when somebody looks at the answer.
        return iter(list(drifts)) if repair else drifts

    def condition(self) -> Condition:
        """How the store is set up, and what is unsafe about that: weak durability, replicas, the nodes of a cluster.

        ``weaknesses`` says each in words, with what to do; ``severe`` ones lose claims or take none.

        >>> Delimiter("memory://").condition().weaknesses
        ()
        """
        return self._run(self._engine.condition)

    def _pages(self, query: ClaimQuery) -> Iterator[Claim]:
        after: int | None = 0
        while after is not None:
            start = after
            page, after = self._run(lambda: self._engine.page_of_claims(query, after=start, size=_PAGE))  # noqa: B023
            yield from page

    # -- trying again -------------------------------------------------------------------------------------------

    def _run(
        self,
        call: Callable[[], T],
        *,
        connection: CallersConnection | None = None,
        claim_id: str | None = None,
        deadline: float | None = None,
    ) -> T:
        """Call the engine; where the transaction is its own, in new transactions until decided or ``timeout``.

        ``deadline`` (monotonic): the end of that time, for who has used some of it already.

        In a caller's transaction nothing is tried again: a retry inside the outer transaction sees its own left-over
        writes, which is how a well-known peer oversubscribes.
        """
        if connection is not None:
            try:
                return call()
            except StoreUnavailable as error:
                error.claim_id = claim_id
                raise
        if deadline is None:
            deadline = time.monotonic() + self._timeout
        waits = pauses()
        in_doubt = False
        while True:
            try:
                return call()
            except DelimiterError as error:
                in_doubt = in_doubt or getattr(error, "in_doubt", False)
                if not isinstance(error, StoreUnavailable) and not error.retryable:
                    if in_doubt:  # what stands in its way may be its own doing
                        raise self._gave_up(error, claim_id, in_doubt=True) from error
                    raise
                if not (error.retryable or in_doubt):
                    raise self._gave_up(error, claim_id, in_doubt=False) from error
                pause = next(waits)
                if time.monotonic() + pause > deadline:
                    raise self._gave_up(error, claim_id, in_doubt=in_doubt) from error
                self._engine.pause(pause)

    def _gave_up(self, error: DelimiterError, claim_id: str | None, *, in_doubt: bool) -> Exception:
        if isinstance(error, Conflict) and not in_doubt:
            return Conflict(
                f"not decided within {self._timeout:g} s: {error}. If this thread holds a transaction that claimed"
                " something, hand that over as connection="
            )
        settled = "call again with the same id to settle it" if claim_id else "look whether it has"
        advice = f"; it may have happened: {settled}" if in_doubt else ""
        return StoreUnavailable(
            f"{error}{advice}", claim_id=claim_id, in_doubt=in_doubt, retryable=error.retryable
        )

    def _until_none(self, step: Callable[[], int]) -> int:
        done = 0
        while count := self._run(step):
            done += count
        return done
