"""Failures to order, as a service meets them: after Delimiter itself has given up trying again."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from delimiter import validation
from delimiter.errors import Conflict, DelimiterError, InvalidRequest, StoreUnavailable
from delimiter.quota import Delimiter

if TYPE_CHECKING:
    from datetime import timedelta

    from delimiter.counted import Guard, GuardRequest
    from delimiter.engine import Engine
    from delimiter.model import CallersConnection

__all__ = ["Faults", "FaultyDelimiter"]

T = TypeVar("T")

_BY_ORDER: Final = "(a test ordered this failure)"


class _Kind(enum.Enum):
    STORE_DOWN = "the store that is down"
    CONFLICT = "the conflict"
    LOST_ANSWER = "the lost answer"


@dataclass
class _Fault:
    kind: _Kind
    #: How many calls are still to meet it; ``None``: every call.
    left: int | None
    met: int = 0

    def concerns(self, *, change: bool, own: bool) -> bool:
        if self.left == 0:
            return False
        match self.kind:
            case _Kind.STORE_DOWN:
                return True
            case _Kind.CONFLICT:
                return change
            case _Kind.LOST_ANSWER:
                return change and own


class Faults:
    """Failures for the calls that are made inside ``with``, in any thread.

    A test in which nothing met the failure has shown nothing: leaving the ``with`` is then an ``AssertionError``.

    >>> from delimiter import StoreUnavailable
    >>> from delimiter.testing import Sandbox
    >>> with Sandbox() as sandbox, sandbox.faults.store_down():
    ...     try:
    ...         sandbox.quota.claim({"compute.vcpu": 1}, project="acme", id="vm-1")
    ...     except StoreUnavailable as failure:
    ...         print(failure.retryable, failure.in_doubt, failure.claim_id)
    True False vm-1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[_Fault] = []

    @contextmanager
    def store_down(self) -> Iterator[None]:
        """Every call is ``StoreUnavailable``, at once; nothing of it happens."""
        with self._order(_Kind.STORE_DOWN, None):
            yield

    @contextmanager
    def conflict(self, *, times: int = 1) -> Iterator[None]:
        """The next ``times`` changes of claims, or guards entered, are a ``Conflict``; nothing of them happens.

        With ``connection=`` the caller must roll back and begin the whole transaction again.
        """
        with self._order(_Kind.CONFLICT, _at_least_one(times)):
            yield

    @contextmanager
    def lost_answer(self, *, times: int = 1) -> Iterator[None]:
        """The next ``times`` admitted changes happen, but the caller gets ``StoreUnavailable``, ``in_doubt``.

        Calls with ``connection=`` are left alone: there the COMMIT is the caller's, and so is its lost answer.
        """
        with self._order(_Kind.LOST_ANSWER, _at_least_one(times)):
            yield

    @contextmanager
    def _order(self, kind: _Kind, times: int | None) -> Iterator[None]:
        __tracebackhide__ = True
        fault = _Fault(kind, times)
        with self._lock:
            self._ordered.append(fault)
        try:
            yield
        finally:
            with self._lock:
                self._ordered.remove(fault)
        if fault.left or not fault.met:
            wanted = "at least one call" if times is None else f"{times} of them"
            raise AssertionError(f"{kind.value} was met by {fault.met} calls, not by {wanted}")

    def around(
        self,
        call: Callable[[], T],
        *,
        connection: CallersConnection | None,
        claim_id: str | None,
        change: bool,
    ) -> T:
        """Make the call, unless a failure was ordered for it."""
        fault = self._meet(change=change, own=connection is None)
        if fault is None:
            return call()
        if fault.kind is _Kind.STORE_DOWN:
            raise StoreUnavailable(f"the store cannot be reached {_BY_ORDER}", claim_id=claim_id)
        if fault.kind is _Kind.CONFLICT:
            raise Conflict(f"another transaction was in the way {_BY_ORDER}")
        try:
            answer = call()
        except DelimiterError:
            self._meet_not(fault)
            raise
        if isinstance(
            answer, DelimiterError
        ):  # a refusal commits nothing: another call's answer is to be lost
            self._meet_not(fault)
            return answer
        raise StoreUnavailable(
            f"the connection was lost at COMMIT; it may have happened: call again with the same id to settle it"
            f" {_BY_ORDER}",
            claim_id=claim_id,
            in_doubt=True,
        )

    def _meet(self, *, change: bool, own: bool) -> _Fault | None:
        with self._lock:
            for fault in self._ordered:
                if fault.concerns(change=change, own=own):
                    fault.met += 1
                    if fault.left is not None:
                        fault.left -= 1
                    return fault
        return None

    def _meet_not(self, fault: _Fault) -> None:
        with self._lock:
            fault.met -= 1
            if fault.left is not None:
                fault.left += 1


def _at_least_one(times: int) -> int:
    if validation.floor(times, "times") == 0:
        raise InvalidRequest("times must be at least 1, not 0")
    return times


class FaultyDelimiter(Delimiter):
    """A Delimiter that meets the failures that were ordered, where it would have given up trying again."""

    def __init__(self, engine: Engine, faults: Faults, *, timeout: float | timedelta) -> None:
        self._faults = faults
        super().__init__(engine, timeout=timeout)

    def _run(
        self,
        call: Callable[[], T],
        *,
        connection: CallersConnection | None = None,
        claim_id: str | None = None,
        deadline: float | None = None,
    ) -> T:
        inside = super()._run
        return self._faults.around(
            lambda: inside(call, connection=connection, claim_id=claim_id, deadline=deadline),
            connection=connection,
            claim_id=claim_id,
            change=claim_id is not None,
        )

    def _enter_guard(self, request: GuardRequest, *, connection: CallersConnection) -> Guard:
        inside = super()._enter_guard
        if request.claim is not None:
            return inside(request, connection=connection)  # a change that has a claim's id
        return self._faults.around(
            lambda: inside(request, connection=connection), connection=connection, claim_id=None, change=True
        )
