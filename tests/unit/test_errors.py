"""What errors say, to whom, and that they survive a process border."""

from __future__ import annotations

import pickle

import pytest

import delimiter
from delimiter import (
    BelowMinimum,
    Conflict,
    DelimiterError,
    InvalidRequest,
    OverLimit,
    StoreUnavailable,
    Violation,
)

OWN = Violation("storage.gb", "project:acme", limit=100, used=90, requested=20, available=10)
TOTAL = Violation("storage.gb", "total", limit=7777, used=7776, requested=20, available=1)


def test_an_end_users_sentence_tells_the_callers_own_numbers_only() -> None:
    refusal = OverLimit([TOTAL, OWN], own={"project:acme"})
    assert refusal.violations == (TOTAL, OWN)
    assert "project acme" in str(refusal)
    assert "90 of 100" in str(refusal)
    assert "777" not in str(refusal)


def test_a_floor_is_told_likewise() -> None:
    own = Violation("storage.gb", "user:john", limit=5, used=6, requested=-2, available=1)
    total = Violation("storage.gb", "total", limit=7777, used=7778, requested=-2, available=1)
    refusal = BelowMinimum([own, total], own={"user:john"})
    assert "user john must not fall below 5" in str(refusal)
    assert "777" not in str(refusal)


@pytest.mark.parametrize(
    "error",
    [
        OverLimit([OWN], own={"project:acme"}),
        BelowMinimum([OWN]),
        Conflict("met another"),
        InvalidRequest("no"),
        StoreUnavailable("gone", claim_id="1", in_doubt=True, retryable=False),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_a_process_border(error: DelimiterError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
    assert again.retryable == error.retryable


def test_every_public_error_has_one_root() -> None:
    names = [name for name in delimiter.__all__ if isinstance(getattr(delimiter, name), type)]
    errors = [kind for name in names if issubclass(kind := getattr(delimiter, name), Exception)]
    assert len(errors) == 13
    assert all(issubclass(error, DelimiterError) for error in errors)
    assert issubclass(InvalidRequest, ValueError)
    assert Conflict("x").retryable
