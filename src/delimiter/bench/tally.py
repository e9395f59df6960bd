"""What one caller did, in memory that does not grow however long it calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Tally", "quantile"]

#: Times fall into buckets one per cent wide.
_WIDTH: Final = math.log(1.01)


@dataclass(slots=True)
class Tally:
    """Answers, and how long each took: ``admitted`` and ``refused`` within what was measured, ``all_admitted`` ever."""

    admitted: int = 0
    refused: int = 0
    all_admitted: int = 0
    all_refused: int = 0
    #: Claims that were not decided when the measurement ended.
    undecided: int = 0
    times: Counter[int] = field(default_factory=Counter)

    def add(self, *, admitted: bool, seconds: float, measured: bool) -> None:
        if admitted:
            self.all_admitted += 1
        else:
            self.all_refused += 1
        if measured:
            if admitted:
                self.admitted += 1
            else:
                self.refused += 1
            self.times[int(math.log(max(seconds, 1e-7)) / _WIDTH)] += 1

    def merge(self, others: Iterable[Tally]) -> Tally:
        for other in others:
            self.admitted += other.admitted
            self.refused += other.refused
            self.all_admitted += other.all_admitted
            self.all_refused += other.all_refused
            self.undecided += other.undecided
            self.times.update(other.times)
        return self


def quantile(times: Counter[int], share: float) -> float | None:
    """The time (seconds) within which that share of the answers came; ``None``: there were none.

    >>> tally = Tally()
    >>> for milliseconds in range(1, 101):
    ...     tally.add(admitted=True, seconds=milliseconds / 1000, measured=True)
    >>> round(quantile(tally.times, 0.5), 2)
    0.05
    """
    wanted = share * times.total()
    seen = 0
    for bucket in sorted(times):
        seen += times[bucket]
        if seen >= wanted:
            return math.exp((bucket + 0.5) * _WIDTH)
    return None
