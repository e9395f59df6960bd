"""Calls that meet are decided together: one wait for the locks, and one COMMIT, for all of them.

A call that finds nobody at work goes at once, and pays nothing for all this. While it is under way others gather. When
it is through, the first of them takes all that wait as one batch, and so on. There is no thread to manage and nobody
lingers: whoever leads is a caller that waits for an answer anyway. Nothing is answered before the COMMIT of its batch.

Nobody harms another. What a batch fails at, and what somebody's lock keeps it from, each of its callers then asks for
alone. A leader that is held up holds up its own batch only: after a moment the next in the queue leads beside it.

Together go changes of one kind, in the order in which they came. (Claims are made by one statement, where the store has
one; releases are not.)

(Flat combining, by Hendler, Incze, Shavit and Tzafrir, 2010. Kubernetes' ResourceQuota and TigerBeetle decide waiting
requests together in this way.)
"""

from __future__ import annotations

import copy
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from delimiter.changes import Admit, Change, Provision, Release, Resize
from delimiter.engine import Answer, Engine
from delimiter.errors import Conflict, DelimiterError, StoreUnavailable
from delimiter.waiting import Ticket, pauses

__all__ = ["Combiner", "Waiting"]

#: Calls that may wait; more than that are told to come back.
_MOST_WAITING: Final = 10_000

#: How often a batch is begun anew.
_MORE_ATTEMPTS: Final = 4

#: How often a change is made with others before it is made alone: it may be in conflict with one of them.
_ATTEMPTS_TOGETHER: Final = 5

#: What is made together. The others are rare, and bear on more than one owner.
_KINDS: Final = (Admit, Provision, Release, Resize)


class Waiting:
    """One call: in the queue, then in a batch."""

    __slots__ = ("answer", "change", "error", "queued", "ticket", "turn")

    def __init__(self, change: Change, ticket: Ticket) -> None:
        self.change = change
        self.ticket = ticket
        self.answer: Answer | None = None
        self.error: DelimiterError | None = None
        #: Whether it has not been taken into a batch yet; and whether it is its turn (which one) to take the next.
        self.queued = True
        self.turn = 0


class Combiner:
    """Gathers the calls of one process on one store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held_up_after = engine.held_up_after
        self._start()

    def _start(self) -> None:
        self._mutex = threading.Lock()
        self._queue: deque[Waiting] = deque()
        #: Each turn at leading has a number; 0: nobody leads.
        self._turn = 0
        self._turns = 0
        self._began = 0.0
        self._process = os.getpid()  # last: whoever sees it finds all the rest

    def caller(self, change: Change, deadline: float, waiting: Waiting | None = None) -> Callable[[], Answer]:
        """What one caller does until it is decided, by the ``deadline`` (monotonic): together, and at last alone.

        ``waiting``: its first attempt, which it has waited for (:meth:`waited`).
        """
        attempts = itertools.count()

        def call() -> Answer:
            attempt = next(attempts)
            if attempt == 0 and waiting is not None:
                return self._outcome(waiting)
            if attempt < _ATTEMPTS_TOGETHER:
                return self.apply(change, deadline=deadline)
            return self._engine.apply([change])[0]

        return call

    def apply(self, change: Change, *, deadline: float) -> Answer:
        """The answer to one change. What is not in a batch by the ``deadline`` (monotonic) is given up, and not made.

        Raises what :meth:`delimiter.engine.Engine.apply` raises.
        """
        if not self._combines(change):
            return self._engine.apply([change])[0]
        waiting = self._queue_up(change)
        if isinstance(waiting, int):
            return self._go_alone(change, waiting)
        try:
            while not (waiting.ticket.wait(self._held_up_after) or self._look(waiting, deadline)):
                pass
            waiting.ticket.pass_on()
        except BaseException:  # whoever gives up, or is interrupted, leaves the queue
            self._leave(waiting)
            raise
        return self._outcome(waiting)

    # -- for coroutines -----------------------------------------------------------------------------------------

    def join(self, change: Change) -> Waiting | None:
        """A place in the queue, if there is something to wait for; then call :meth:`waited`."""
        if not self._combines(change):
            return None
        with self._mutex:
            return self._place(change) if self._turn and len(self._queue) < _MOST_WAITING else None

    async def waited(self, waiting: Waiting, deadline: float) -> Answer | None:
        """The answer, if there is one; else a :meth:`caller` that is given what has been waited for does the rest."""
        try:
            while not (await waiting.ticket.waited(self._held_up_after) or self._look(waiting, deadline)):
                pass
        except DelimiterError as error:
            self._leave(waiting)
            waiting.error = error
        except BaseException:
            self._leave(waiting)
            raise
        return waiting.answer

    # -- waiting ------------------------------------------------------------------------------------------------

    def _combines(self, change: Change) -> bool:
        if self._process != os.getpid():  # a forked child has none of its parent's threads: nobody is at work
            self._start()
        return isinstance(change, _KINDS) and self._engine.largest_batch > 1

    def _queue_up(self, change: Change) -> Waiting | int:
        """A place in the queue; or a turn at once, if nobody is at work."""
        with self._mutex:
            if not self._turn:
                return self._begin_turn()
            if len(self._queue) >= _MOST_WAITING:
                raise Conflict(f"{_MOST_WAITING} calls of this process wait for the store already")
            return self._place(change)

    def _place(self, change: Change) -> Waiting:
        waiting = Waiting(change, self._engine.ticket())
        self._queue.append(waiting)
        return waiting

    def _outcome(self, waiting: Waiting) -> Answer:
        """Of one that waits no longer: lead, if it is its turn; what was not decided together is decided alone."""
        if waiting.turn:
            self._engine.shielded(lambda: self._lead(waiting))
        if waiting.answer is not None:
            return waiting.answer
        if waiting.error is not None:
            raise waiting.error
        return self._engine.apply([waiting.change])[0]

    def _look(self, waiting: Waiting, deadline: float) -> bool:
        """After a while without news: give up, having done nothing; or lead, if the leader is held up.

        What is in a batch already waits for it: that is bounded by the store's own time limits. Whether it has been
        settled: a leader that is interrupted once more may not have come to tell.
        """
        with self._mutex:
            now = time.monotonic()
            if not waiting.queued or waiting.turn:
                return waiting.answer is not None or waiting.error is not None
            if now >= deadline:
                raise Conflict("other calls of this process were still being decided; this one was not begun")
            if self._queue[0] is waiting and now - self._began >= self._held_up_after:
                self._call(self._queue.popleft())
            return False

    def _leave(self, waiting: Waiting) -> None:
        waiting.ticket.leave()
        with self._mutex:
            if not waiting.queued:
                return  # it goes on without its caller
            waiting.queued = False
            if not waiting.turn:
                self._queue.remove(waiting)
                return
        self._hand_over(waiting.turn)

    # -- leading ------------------------------------------------------------------------------------------------

    def _begin_turn(self) -> int:
        self._turns += 1
        self._turn, self._began = self._turns, time.monotonic()
        return self._turn

    def _call(self, waiting: Waiting) -> None:
        waiting.turn = self._begin_turn()
        waiting.ticket.open()

    def _hand_over(self, turn: int) -> None:
        with self._mutex:
            if self._turn != turn:
                return  # somebody leads beside this one, and will hand over
            if self._queue:
                self._call(self._queue.popleft())
            else:
                self._turn = 0

    def _go_alone(self, change: Change, turn: int) -> Answer:
        try:
            return self._engine.apply([change])[0]
        finally:
            self._hand_over(turn)

    def _lead(self, first: Waiting) -> None:
        batch = self._take(first)
        try:
            self._decide(batch)
        finally:
            # They go first: what they ask next is in the next batch then, and not behind one that goes alone.
            tickets = [waiting.ticket for waiting in batch[1:]]
            self._engine.let_go(tickets, lambda: self._hand_over(first.turn))

    def _take(self, first: Waiting) -> list[Waiting]:
        """Those of the same kind that have waited longest; the others stay where they are."""
        batch: list[Waiting] = [first]
        others: list[Waiting] = []
        with self._mutex:
            while self._queue and len(batch) < self._engine.largest_batch:
                waiting = self._queue.popleft()
                (batch if type(waiting.change) is type(first.change) else others).append(waiting)
            self._queue.extendleft(reversed(others))
            for waiting in batch:
                waiting.queued = False
        return batch

    def _decide(self, batch: Sequence[Waiting]) -> None:
        """Whoever has neither an answer nor an error afterwards asks alone."""
        try:
            answers = self._decided([waiting.change for waiting in batch])
        except DelimiterError as error:
            if len(batch) > 1 and not (error.retryable or getattr(error, "in_doubt", False)):
                return  # it may be the fault of one of them
            for waiting in batch:
                waiting.error = copy.copy(error)  # each is raised in a thread of its own
        except BaseException:
            for waiting in batch:
                waiting.error = StoreUnavailable("whoever led the batch was interrupted", in_doubt=True)
            raise
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if isinstance(answer, StoreUnavailable):
                    waiting.error = copy.copy(answer)
                elif not isinstance(answer, Conflict):
                    waiting.answer = answer

    def _decided(self, changes: Sequence[Change]) -> list[Answer]:
        """Again for all of them, where another process was quicker: apart they would only meet it again one by one."""
        for _, pause in zip(range(_MORE_ATTEMPTS), pauses(), strict=False):
            try:
                return self._engine.apply_each(changes)
            except Conflict as conflict:
                if not conflict.retryable:
                    raise
            self._engine.pause(pause)
        return self._engine.apply_each(changes)
