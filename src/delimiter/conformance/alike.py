"""Whether two engines have said the same: all of it, but for the moments between two calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from delimiter import Claim, Delimiter, DelimiterError, Explanation, Violation
from delimiter.model import SCOPE_KINDS

__all__ = ["alike", "by_id", "told"]

#: Times that are drawn lie hundreds of seconds apart; the two engines are asked one right after the other.
_MOMENT: Final = timedelta(seconds=50)


def by_id(claims: Iterable[Claim]) -> list[Claim]:
    """Those of one list were made at one moment, in no order."""
    return sorted(claims, key=lambda one: one.id)


def told(call: Callable[[Delimiter], Any], quota: Delimiter) -> Any:
    """What was answered; of a refusal its kind, its violations, and whose numbers may be told."""
    try:
        return call(quota)
    except DelimiterError as error:
        return type(error), _ordered(getattr(error, "violations", ())), getattr(error, "own", None)


def _ordered(violations: Sequence[Violation]) -> list[Violation]:
    """By resource, then the total, projects from the root down, users; several users stand in any order."""
    places = [(one.resource, SCOPE_KINDS.index(one.scope.partition(":")[0])) for one in violations]
    assert places == sorted(places)
    users = iter(sorted((one for one in violations if one.scope.startswith("user:")), key=repr))
    return [next(users) if one.scope.startswith("user:") else one for one in violations]


def alike(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(alike, theirs, ours))
    if isinstance(theirs, Claim) and isinstance(ours, Claim):
        return _together(theirs.expires_at, ours.expires_at) and theirs == replace(
            ours, expires_at=theirs.expires_at
        )
    if isinstance(theirs, Explanation) and isinstance(ours, Explanation):
        return (
            theirs.room_at.keys() == ours.room_at.keys()
            and all(_together(at, ours.room_at[name]) for name, at in theirs.room_at.items())
            and theirs == replace(ours, room_at=theirs.room_at)
        )
    return bool(theirs == ours)


def _together(one: datetime | None, other: datetime | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < _MOMENT
