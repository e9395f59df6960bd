"""What HTTP clients are told of an error: enough to go on, and nothing of others or of the store."""

from __future__ import annotations

import json

import pytest

from delimiter import (
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
    Violation,
)
from delimiter.problems import problem

INSIDE = "postgresql://root:hunter2@10.0.0.7/db SELECT * FROM delimiter_claims 'claim-of-somebody-else'"
_EDITED = Conflict(INSIDE)
_EDITED.retryable = False

PLAIN = [
    (UnknownResource(INSIDE), 404, "unknown-resource", None),
    (UnknownProject(INSIDE), 404, "unknown-project", None),
    (UnknownClaim(INSIDE), 404, "unknown-claim", None),
    (ClaimExpired(INSIDE), 410, "claim-expired", None),
    (ClaimReleased(INSIDE), 410, "claim-released", None),
    (ClaimConflict(INSIDE), 409, "claim-conflict", None),
    (InvalidRequest(INSIDE), 400, "invalid-request", None),
    (Unsupported(INSIDE), 501, "unsupported", None),
    (Conflict(INSIDE), 503, "conflict", "1"),
    (_EDITED, 409, "edited-meanwhile", None),
    (StoreUnavailable(INSIDE), 503, "store-unavailable", "1"),
    (StoreUnavailable(INSIDE, in_doubt=True, claim_id="mine"), 503, "store-unavailable", "1"),
    (StoreUnavailable(INSIDE, retryable=False), 503, "store-unavailable", None),
    (DelimiterError(INSIDE), 500, "internal", None),
]


@pytest.mark.parametrize("error, status, kind, retry_after", PLAIN)
def test_status_and_headers(error: DelimiterError, status: int, kind: str, retry_after: str | None) -> None:
    found = problem(error)
    body = found.body()
    assert (found.status, body["status"], body["type"]) == (status, status, f"urn:delimiter:{kind}")
    assert body["title"]
    assert body["detail"].endswith(".")
    assert found.headers["Content-Type"] == "application/problem+json"
    assert found.headers.get("Retry-After") == retry_after
    told = json.dumps(body)
    assert not [word for word in INSIDE.split() if word in told]


def test_every_kind_of_error_has_a_row() -> None:
    kinds = set(DelimiterError.__subclasses__()) | {OverLimit, BelowMinimum}
    told = {type(row[0]) for row in PLAIN} | {OverLimit, BelowMinimum}
    assert {kind for kind in kinds if not kind.__name__.startswith("_")} <= told


def test_a_kind_of_ones_own_is_told_as_what_it_is() -> None:
    class Gone(ClaimReleased):
        pass

    assert problem(Gone("it")).status == 410


@pytest.mark.parametrize("kind", [OverLimit, BelowMinimum])
def test_a_refusal_gives_the_readers_own_numbers_only(kind: type[OverLimit | BelowMinimum]) -> None:
    """Guard: `violations` are those whose scope is among `own`; unfiltered, the parent's and the total's get out."""
    own = Violation("storage.gb", "project:web", 20, 15, 10, 5)
    others = [
        Violation("storage.gb", scope, limit, used, 10, 3)
        for scope, limit, used in (("project:parent", 70_001, 69_998), ("total", 90_001, 89_998))
    ]
    found = problem(kind([own, *others], own=["project:web", "user:john"]))
    body = found.body()
    assert (found.status, found.retry_after) == (403, None)
    assert body["violations"] == [
        {
            "resource": "storage.gb",
            "scope": "project:web",
            "limit": 20,
            "used": 15,
            "requested": 10,
            "available": 5,
        }
    ]
    told = json.dumps(body)
    assert "20" in body["detail"]
    assert not [
        hidden for hidden in ("70001", "69998", "90001", "89998", "parent", "total") if hidden in told
    ]


def test_a_refusal_by_others_alone_has_no_numbers() -> None:
    total = Violation("storage.gb", "total", 90_001, 89_998, 10, 3)
    body = problem(OverLimit([total], own=["project:web"])).body()
    assert body["violations"] == []
    assert body["detail"] == "There is no room for 10 more storage.gb in what is shared with others."
