"""What a change adds to counters and takes from them: worked out first, refused as a whole, or kept as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from delimiter.engines.records import Counter
from delimiter.errors import BelowMinimum, OverLimit
from delimiter.model import CEILING, UNLIMITED, Scope, Violation

__all__ = ["Differences", "over_limit"]


def over_limit(resource: str, scope: Scope, limit: int, used: int, requested: int) -> Violation | None:
    """Why ``requested`` more does not fit, if it does not. Unlimited counts up to what a column can hold."""
    bound = CEILING if limit == UNLIMITED else limit
    if used + requested <= bound:
        return None
    return Violation(resource, str(scope), bound, used, requested, max(0, bound - used))


@dataclass(slots=True)
class _Difference:
    used: int = 0
    reserved: int = 0
    used_below: int = 0
    reserved_below: int = 0

    @property
    def provisioned(self) -> int:
        return self.used - self.reserved


class Differences:
    """By counter: how a change would alter it."""

    def __init__(self) -> None:
        self._by_counter: dict[Counter, _Difference] = {}

    def add(self, counter: Counter, project: str | None, *, used: int, reserved: int) -> None:
        """``project`` is the one that is charged; above it, this comes from below."""
        difference = self._by_counter.setdefault(counter, _Difference())
        difference.used += used
        difference.reserved += reserved
        if counter.is_from_elsewhere(project):
            difference.used_below += used
            difference.reserved_below += reserved

    def refuse_growth(self, own: Iterable[str], *, existing: bool = False) -> None:
        """Refuse what passes a limit; of what exists already, only what no counter could hold."""
        found = [
            over_limit(
                counter.resource,
                counter.scope,
                UNLIMITED if existing else counter.limit,
                counter.used_now,
                difference.used,
            )
            for counter, difference in self._in_order()
            if difference.used > 0
        ]
        if violations := [violation for violation in found if violation is not None]:
            raise OverLimit(violations, own=own)

    def refuse_shrinking(self, own: Iterable[str]) -> None:
        """Refuse what falls below a floor."""
        violations = [
            Violation(
                counter.resource,
                str(counter.scope),
                counter.floor,
                counter.provisioned_now,
                difference.provisioned,
                max(0, counter.provisioned_now - counter.floor),
            )
            for counter, difference in self._in_order()
            if difference.provisioned < 0 and counter.provisioned_now + difference.provisioned < counter.floor
        ]
        if violations:
            raise BelowMinimum(violations, own=own)

    def apply(self) -> None:
        for counter, difference in self._by_counter.items():
            counter.used_change += difference.used
            counter.reserved_change += difference.reserved
            counter.used_below_change += difference.used_below
            counter.reserved_below_change += difference.reserved_below

    def _in_order(self) -> list[tuple[Counter, _Difference]]:
        """By resource; within one, from the whole deployment down the tree of projects to the user."""
        return sorted(
            self._by_counter.items(),
            key=lambda item: (
                item[0].resource,
                item[0].scope.rank,
                item[0].level,
                item[0].scope.name,
            ),
        )
