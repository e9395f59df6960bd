"""Combining: changes that threads of one process ask for while a decision is under way are decided together next.

Two decisions of one process on the same counter would only overtake each other, and one would be made for nothing.
Alone, a change pays nothing for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import copy
from typing import Final

from delimiter.changes import Change
from delimiter.engine import Answer
from delimiter.errors import DelimiterError, InvalidRequest, StoreUnavailable

__all__ = ["Combining"]

#: Changes decided together at most: far from what one multi can carry, if they are of ordinary size.
_TOGETHER: Final = 64


class _Waiting:
    """Somebody who waits for the answers to their changes."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = changes
        self.answers: list[Answer] | None = None
        self.error: Exception | None = None
        self.done = False
        self.leads = False

    def settle(self, answers: list[Answer] | None, error: Exception | None) -> None:
        self.answers, self.error, self.done = answers, error, True


class Combining:
    """Hands changes to ``apply``, one call of it at a time."""

    def __init__(self, apply: Callable[[Sequence[Change]], list[Answer]]) -> None:
        self._apply = apply
        self.begin_anew()

    def begin_anew(self) -> None:
        """In a forked child: nobody else is there."""
        self._changed = threading.Condition()
        self._queue: list[_Waiting] = []
        self._busy = False

    def apply(self, changes: Sequence[Change], timeout: float) -> list[Answer]:
        mine = _Waiting(changes)
        together: list[_Waiting] = []
        with self._changed:
            self._queue.append(mine)
            if not self._changed.wait_for(lambda: mine.done or not self._busy, timeout):
                if mine in self._queue:
                    self._queue.remove(mine)
                    raise StoreUnavailable("the decision before this one takes too long")
                raise StoreUnavailable("the servers did not answer in time", in_doubt=True)
            if not mine.done:
                self._busy = True
                together = self._take(mine)
        if together:
            try:
                self._decide(together)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        if mine.error is not None:
            raise mine.error
        assert mine.answers is not None
        return mine.answers

    def _take(self, mine: _Waiting) -> list[_Waiting]:
        """Ours and those that have waited longest."""
        together = [mine]
        self._queue.remove(mine)
        while self._queue and sum(len(one.changes) for one in together) < _TOGETHER:
            together.append(self._queue.pop(0))
        return together

    def _decide(self, together: Sequence[_Waiting]) -> None:
        try:
            answers = iter(self._apply([change for one in together for change in one.changes]))
        except BaseException as error:
            if len(together) > 1 and _is_of_one(error):
                for one in together:  # which of them it is, is seen when each is decided alone
                    self._decide([one])
                return
            for one in together:
                one.settle(None, _as_told_to(one, together, error))
            if not isinstance(error, Exception):
                raise
        else:
            for one in together:
                one.settle([next(answers) for _ in one.changes], None)


def _is_of_one(error: BaseException) -> bool:
    """Whether the others may be better off alone: one asks for what cannot be, or for what is damaged."""
    return isinstance(error, InvalidRequest) or (
        isinstance(error, StoreUnavailable) and not (error.retryable or error.in_doubt)
    )


def _as_told_to(one: _Waiting, together: Sequence[_Waiting], error: BaseException) -> Exception:
    """Each gets an error of their own: what is raised in two threads at once mixes up their tracebacks."""
    if isinstance(error, DelimiterError):
        return copy(error)
    if isinstance(error, Exception) and one is together[0]:
        return error
    return StoreUnavailable(f"the decision was broken off: {type(error).__name__}", in_doubt=True)
