"""Operations on a stage: one thread each, which goes on by one statement when it is told to.

A thread stops at a gate before each statement, COMMIT and ROLLBACK it sends. After it is let through, the stage waits
until every thread is at its next gate, has finished, or waits for a lock: the server itself says so. Nothing is slept
through: a thread that waits is left alone, and goes on by itself when the other's step frees the lock.
"""

from __future__ import annotations

import enum
import random
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

__all__ = ["Hang", "Kind", "Stage", "Step", "independent"]

#: Seconds in which something must happen on the stage; a deadlock is broken by the database long before.
_LONGEST: Final = 20.0

#: Statements of one operation, with all its attempts; whoever needs more goes round in circles.
_MOST_STEPS: Final = 500

#: Attempts that an operation may begin in a row while others could go on: then it is their turn.
_IN_A_ROW: Final = 2


class Kind(enum.Enum):
    """What a step can mean to others."""

    READ = "read"  # takes no lock: it sees what is committed, and nobody sees it
    TOUCH = "touch"  # writes or locks (at SERIALIZABLE: any statement)
    COMMIT = "commit"
    ROLLBACK = "rollback"
    TIME = "time"  # the store's clock goes forward


@dataclass(frozen=True, slots=True)
class Step:
    """What a thread is about to do."""

    kind: Kind
    text: str
    #: What it reads, locks or writes; at the end of a transaction, all that it has locked or written. ``None``: it may
    #: be any.
    tables: frozenset[str] | None = None
    #: It may be what decides which COMMITs its transaction will see, of whatever tables.
    takes_snapshot: bool = False

    def __str__(self) -> str:
        return self.text or self.kind.value.upper()


def independent(one: Step, other: Step) -> bool:
    """Whether two steps of different transactions, one after the other, come to the same in both orders.

    - A plain read sees nothing of another transaction until that commits, and leaves nothing.
    - Steps in different tables do not meet. But above READ COMMITTED the step that takes a transaction's snapshot
      depends on every COMMIT; and at SERIALIZABLE PostgreSQL looks at all tables together.

    All else is taken to depend on each other. (Which of two the database gives up to end a deadlock may depend on who
    came last; that one of them was given up does not.)
    """
    kinds = {one.kind, other.kind}
    if Kind.TIME in kinds:
        return False
    if Kind.COMMIT in kinds and (one.takes_snapshot or other.takes_snapshot):
        return False
    if Kind.READ in kinds and Kind.COMMIT not in kinds:
        return True
    return one.tables is not None and other.tables is not None and not one.tables & other.tables


class Hang(Exception):
    """Nothing moves any more, or an operation never ends."""


class _Abandoned(BaseException):
    """The operation's thread is to end."""


class Observer(Protocol):
    """Knows from the server who waits for a lock."""

    def waiting(self, pids: Collection[int]) -> set[int]:
        """Those of these sessions that wait for a lock right now."""


class _State(enum.Enum):
    RUNNING = "running"
    AT_GATE = "at a gate"
    DONE = "done"


@dataclass(slots=True)
class Actor:
    """One operation's thread."""

    number: int
    state: _State = _State.DONE
    step: Step | None = None
    pid: int = 0
    taken: int = 0
    #: Attempts begun since somebody else made a step.
    in_a_row: int = 0
    deadlocks: int = 0
    conflicts: int = 0
    outcome: Any = None
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Stage:
    """Threads that are let through their gates one step at a time."""

    def __init__(self, actors: int, observer: Observer) -> None:
        self.actors = [Actor(number) for number in range(actors)]
        self._observer = observer
        #: The steps of the schedule under way.
        self.taken: list[tuple[int, Step]] = []
        self._changed = threading.Condition()
        self._free = False
        self._here = threading.local()
        self._work: list[Callable[[], Any] | None] = [None] * actors
        self._begin = [threading.Semaphore(0) for _ in range(actors)]
        self._threads = [
            threading.Thread(target=self._live, args=(number,), name=f"actor-{number}", daemon=True)
            for number in range(actors)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._work = [None] * len(self.actors)
        for begin in self._begin:
            begin.release()
        for thread in self._threads:
            thread.join(timeout=_LONGEST)

    # -- the scheduler's side ---------------------------------------------------------------------------------------

    def begin(self, operations: list[Callable[[], Any]]) -> None:
        """Bring every operation to its first gate, one after the other."""
        self._free = False
        self.taken = []
        for actor in self.actors:
            actor.state, actor.step, actor.taken, actor.in_a_row = _State.DONE, None, 0, 0
            actor.deadlocks, actor.conflicts, actor.outcome = 0, 0, None
        for number, operation in enumerate(operations):
            self._work[number] = operation
            self.actors[number].state = _State.RUNNING
            self._begin[number].release()
            self._settle()

    def enabled(self) -> dict[int, Step]:
        """Who can be let through, and what it would do. Whoever has begun anew too often lets others go first."""
        able = {a.number: a for a in self.actors if a.state is _State.AT_GATE}
        patient = {number for number, actor in able.items() if actor.in_a_row > _IN_A_ROW}
        chosen = able.keys() - patient or able.keys()
        return {number: able[number].step for number in sorted(chosen)}  # type: ignore[misc]

    def take(self, number: int) -> None:
        """Let one through, and wait until everybody is at a gate, has finished, or waits for a lock."""
        actor = self.actors[number]
        assert actor.step is not None
        self.taken.append((number, actor.step))
        actor.taken += 1
        if actor.taken > _MOST_STEPS:
            raise Hang(f"operation {number + 1} has taken {_MOST_STEPS} steps and is not decided")
        for other in self.actors:
            if other is not actor:
                other.in_a_row = 0
        actor.state = _State.RUNNING
        actor.go.release()
        self._settle()

    def finish(self) -> None:
        """Let everybody run to the end without gates, as far as that is still to come."""
        self._free = True
        for actor in self.actors:
            if actor.state is _State.AT_GATE:
                actor.state = _State.RUNNING
                actor.go.release()
        with self._changed:
            if not self._changed.wait_for(self._all_done, timeout=_LONGEST):
                raise Hang("operations do not end, even without gates")

    def _all_done(self) -> bool:
        return all(actor.state is _State.DONE for actor in self.actors)

    def _settle(self) -> None:
        deadline = time.monotonic() + _LONGEST
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._running(), timeout=0.001)
            running = {actor.pid for actor in self._running()}
            if not running:
                return
            waiting = self._observer.waiting(running)
            still = self._running()
            # Who waits goes on only by a step of another, and those are all at gates. (Should everybody wait, it is a
            # deadlock, which the database breaks.)
            if all(actor.pid in waiting for actor in still) and any(
                actor.state is _State.AT_GATE for actor in self.actors
            ):
                return
            if time.monotonic() > deadline:
                raise Hang(f"nothing has moved for {_LONGEST:g} s")

    def _running(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.state is _State.RUNNING]

    # -- the operations' side ---------------------------------------------------------------------------------------

    def _live(self, number: int) -> None:
        actor = self.actors[number]
        self._here.actor = actor
        while True:
            self._begin[number].acquire()
            work = self._work[number]
            if work is None:
                return
            try:
                actor.outcome = work()
            except BaseException as error:
                actor.outcome = error
            with self._changed:
                actor.state = _State.DONE
                self._changed.notify_all()

    def gate(self, step: Step, pid: int | None = None) -> None:
        """Stop until it is this thread's turn. (A thread that is no operation's passes.)"""
        actor: Actor | None = getattr(self._here, "actor", None)
        if actor is None or self._free:
            return
        with self._changed:
            actor.step = step
            actor.state = _State.AT_GATE
            self._changed.notify_all()
        actor.go.acquire()
        if pid is not None:
            actor.pid = pid

    def pause(self, _seconds: float = 0.0) -> None:
        """In place of a wait before another attempt."""
        actor: Actor = self._here.actor
        actor.conflicts += 1
        actor.in_a_row += 1
        if self._free:
            threading.Event().wait(random.uniform(0, 0.02))

    def notice_deadlock(self) -> None:
        """The database has broken one, at this thread's cost."""
        actor: Actor | None = getattr(self._here, "actor", None)
        if actor is not None:
            actor.deadlocks += 1
