"""Errors as problem details for HTTP (RFC 9457), for any web framework: the status, the headers and the body.

A body says what its reader may know: of a refusal the numbers of their own project and user, never those of others;
nothing of the store. What is left out belongs in the service's log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from delimiter.errors import (
    BelowMinimum,
    ClaimConflict,
    ClaimExpired,
    ClaimReleased,
    Conflict,
    DelimiterError,
    InvalidRequest,
    OverLimit,
    StoreUnavailable,
    UnknownClaim,
    UnknownProject,
    UnknownResource,
    Unsupported,
)

__all__ = ["MEDIA_TYPE", "Problem", "problem"]

#: What a body is sent as.
MEDIA_TYPE: Final = "application/problem+json"

#: Seconds after which asking again may help. Those who met once should not meet again, but soon is soon enough.
_SOON: Final = 1

_OVER_LIMIT: Final = (403, "over-limit", "Over quota")
_BELOW_MINIMUM: Final = (403, "below-minimum", "Below the minimum")

#: Errors that are the same for everybody: status, type, title and what to do.
_SAID: Final[dict[type[DelimiterError], tuple[int, str, str, str]]] = {
    UnknownResource: (404, "unknown-resource", "Unknown resource", "There is no such resource."),
    UnknownProject: (404, "unknown-project", "Unknown project", "There is no such project."),
    UnknownClaim: (
        *(404, "unknown-claim", "Unknown claim"),
        "There is no such claim, or it ended long ago.",
    ),
    ClaimExpired: (
        *(410, "claim-expired", "Reservation expired"),
        "The reservation has run out, and nothing of it is held; ask anew under a new id.",
    ),
    ClaimReleased: (
        *(410, "claim-released", "Claim released"),
        "The claim was released, and nothing of it is held; ask anew under a new id.",
    ),
    ClaimConflict: (
        *(409, "claim-conflict", "Id in use"),
        "The id is in use for something else; a new request needs a new id.",
    ),
    InvalidRequest: (400, "invalid-request", "Invalid request", "The request is not valid."),
    Unsupported: (501, "unsupported", "Not supported", "This deployment cannot do that."),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem as its reader may see it."""

    status: int
    #: Names the kind of problem for programs, such as ``urn:delimiter:over-limit``.
    type: str
    title: str
    #: A sentence for an end user.
    detail: str
    #: Of a refusal: the limits of the reader's own project and user that are in the way.
    violations: tuple[dict[str, str | int], ...] | None = None
    #: Seconds after which the same request may succeed.
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """``Content-Type``, and ``Retry-After`` where asking again may help."""
        retry = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {"Content-Type": MEDIA_TYPE, **retry}

    def body(self) -> dict[str, Any]:
        """What is sent as JSON."""
        told: dict[str, Any] = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        return told if self.violations is None else {**told, "violations": list(self.violations)}


def problem(error: DelimiterError) -> Problem:
    """What to answer when this was raised.

    ``OverLimit`` and ``BelowMinimum`` are 403: asking again does not help. What is not known is 404, what has ended
    410, an id in use 409. ``Conflict`` is 503 with ``Retry-After`` and not 409, for nothing is wrong with the request
    and the same one succeeds a moment later; only a ``Conflict`` that is not ``retryable`` (somebody has edited the
    rules since) is 409. ``StoreUnavailable`` is 503, with ``Retry-After`` if it is ``retryable``.

    >>> from delimiter import Delimiter
    >>> quota = Delimiter("memory://")
    >>> quota.define_resource("storage.gb", max=500, project_max=20)
    >>> try:
    ...     quota.claim({"storage.gb": 700}, project="acme")
    ... except OverLimit as refusal:
    ...     answer = problem(refusal)
    >>> answer.status, answer.type, [told["scope"] for told in answer.body()["violations"]]
    (403, 'urn:delimiter:over-limit', ['project:acme'])
    """
    if isinstance(error, OverLimit | BelowMinimum):
        return _refusal(error)
    if isinstance(error, Conflict):
        if error.retryable:
            return _new(503, "conflict", "Busy", "Another request was in the way; please try again.", _SOON)
        sentence = "Somebody has changed it since you looked; look again and decide anew."
        return _new(409, "edited-meanwhile", "Edited meanwhile", sentence)
    if isinstance(error, StoreUnavailable):
        return _unavailable(error)
    for kind in type(error).__mro__:
        if kind in _SAID:
            return _new(*_SAID[kind])
    return _new(500, "internal", "Internal error", "Something went wrong.")


def _new(status: int, type: str, title: str, detail: str, retry_after: int | None = None) -> Problem:
    return Problem(status, f"urn:delimiter:{type}", title, detail, retry_after=retry_after)


def _refusal(error: OverLimit | BelowMinimum) -> Problem:
    status, type, title = _OVER_LIMIT if isinstance(error, OverLimit) else _BELOW_MINIMUM
    own: tuple[dict[str, str | int], ...] = tuple(
        {
            "resource": violation.resource,
            "scope": violation.scope,
            "limit": violation.limit,
            "used": violation.used,
            "requested": violation.requested,
            "available": violation.available,
        }
        for violation in error.violations
        if violation.scope in error.own
    )
    return Problem(status, f"urn:delimiter:{type}", title, str(error), violations=own)


def _unavailable(error: StoreUnavailable) -> Problem:
    detail = "Quotas cannot be decided at the moment."
    if error.in_doubt:
        detail += " What was asked for may have happened all the same; the same request with the same id settles it."
    elif error.retryable:
        detail += " Please try again."
    soon = _SOON if error.retryable else None
    return _new(503, "store-unavailable", "Store unavailable", detail, soon)
