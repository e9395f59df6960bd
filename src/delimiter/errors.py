"""Everything Delimiter raises, under one roof.

A program catches :class:`OverLimit` to tell its user no, :class:`Conflict` to start its transaction anew, and
:class:`DelimiterError` for all the rest. No exception of a database driver comes out bare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from delimiter.model import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from delimiter.model import Violation

__all__ = [
    "BelowMinimum",
    "ClaimConflict",
    "ClaimExpired",
    "ClaimReleased",
    "Conflict",
    "DelimiterError",
    "InvalidRequest",
    "OverLimit",
    "StoreUnavailable",
    "UnknownClaim",
    "UnknownProject",
    "UnknownResource",
    "Unsupported",
]


class DelimiterError(Exception):
    """The root of everything that Delimiter raises."""

    #: Whether the same call may succeed if it is simply made again, in a new transaction.
    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (multiprocessing, job queues); most constructors here take more than a message.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(kind: type[DelimiterError], args: tuple[Any, ...], state: dict[str, Any]) -> DelimiterError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class _Refusal(DelimiterError):
    """A refusal with its reasons; ``own`` are the scopes whose numbers the caller may be told."""

    violations: tuple[Violation, ...]

    def __init__(self, violations: Sequence[Violation], *, own: Iterable[str] = ()) -> None:
        self.violations = tuple(violations)
        self.own = frozenset(own)
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        return " ".join(dict.fromkeys(self._phrase(v, own=v.scope in self.own) for v in self.violations))

    def _phrase(self, violation: Violation, *, own: bool) -> str:
        raise AssertionError("a refusal says why")  # pragma: no cover - both kinds below do


class OverLimit(_Refusal):
    """What was asked for does not fit.

    ``violations`` names every limit in the way, not only the first, for logs and operators. ``str()`` is a sentence
    for an end user and gives the numbers of the caller's own project and user only: that a neighbour or the whole
    deployment is full is said, how much it holds is not.
    """

    def _phrase(self, violation: Violation, *, own: bool) -> str:
        if not own:
            more = f"{violation.requested} more {violation.resource}"
            return f"There is no room for {more} in what is shared with others."
        what = f"{violation.resource} of {_spoken(violation.scope)}"
        if violation.limit == UNLIMITED:  # rows that came in past what their guard was asked for
            return f"{what}: {violation.requested} came in, but only {violation.available} were asked for."
        return (
            f"{what}: {violation.requested} more requested, but only "
            f"{violation.available} available ({violation.used} of {violation.limit} used)."
        )


class BelowMinimum(_Refusal):
    """What is given back would leave less than the floor (``min``) of a scope.

    In its ``violations`` the ``limit`` is the floor, ``used`` what is provisioned, ``requested`` the (negative)
    difference and ``available`` what can still be given back. ``force=True`` does it all the same.
    """

    def _phrase(self, violation: Violation, *, own: bool) -> str:
        if not own:
            return f"What you share with others must keep its minimum of {violation.resource}."
        return (
            f"{violation.resource} of {_spoken(violation.scope)} must not fall below {violation.limit}: "
            f"{violation.used} provisioned, {-violation.requested} to be given back."
        )


def _spoken(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return f"{kind} {name}" if name else "the whole deployment"


class UnknownResource(DelimiterError):
    """No such resource is defined; ``define_resource`` makes it known."""


class UnknownClaim(DelimiterError):
    """No claim was ever known by this id or external id (or it has been pruned)."""


class UnknownProject(DelimiterError):
    """The project tree has no such project."""


class ClaimExpired(DelimiterError):
    """The reservation ran out before this call; nothing is consumed."""


class ClaimReleased(DelimiterError):
    """The claim was released before this call; nothing is consumed."""


class ClaimConflict(DelimiterError):
    """The id was used for another request before, or the external id belongs to another live claim."""


class InvalidRequest(DelimiterError, ValueError):
    """The call itself is wrong. Nothing was changed; making it again will not help."""


class Conflict(DelimiterError):
    """The transaction met another one and must be started anew: roll back and run it again.

    Calls without ``connection`` are retried inside, until ``timeout``.
    """

    retryable = True


class StoreUnavailable(DelimiterError):
    """The store cannot be reached or did not answer. Delimiter fails closed: nothing is guessed.

    ``in_doubt`` tells whether the change may have happened all the same; calling again with the same ``claim_id``
    settles it. ``retryable`` is false where only an operator can help: missing tables, missing rights.
    """

    claim_id: str | None
    in_doubt: bool

    def __init__(
        self, message: str, *, claim_id: str | None = None, in_doubt: bool = False, retryable: bool = True
    ) -> None:
        super().__init__(message)
        self.claim_id = claim_id
        self.in_doubt = in_doubt
        self.retryable = retryable


class Unsupported(DelimiterError):
    """This store cannot do that, and says so rather than doing it by halves."""
