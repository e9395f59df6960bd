"""What one caller did, in memory that does not grow however long it calls."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Tally", "Times"]

#: Times are told apart from this one on and up to that one (seconds) ...
_LEAST: Final = 1e-7
_MOST: Final = 1e3
#: ... and fall into buckets one per cent wide.
_WIDTH: Final = math.log(1.01)
_BUCKETS: Final = int(math.log(_MOST / _LEAST) / _WIDTH) + 1


class Times:
    """How long answers took (seconds). All buckets are there from the beginning: a load of hours takes no more memory.

    >>> times = Times()
    >>> for milliseconds in range(1, 101):
    ...     times.add(milliseconds / 1000)
    >>> round(times.quantile(0.5), 2)
    0.05
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = array("I", [0]) * _BUCKETS

    def add(self, seconds: float) -> None:
        bucket = int(math.log(max(seconds, _LEAST) / _LEAST) / _WIDTH)
        self._counts[min(bucket, _BUCKETS - 1)] += 1

    def update(self, other: Times) -> None:
        for bucket, count in enumerate(other._counts):
            if count:
                self._counts[bucket] += count

    def quantile(self, share: float) -> float | None:
        """The time within which that share of the answers came; ``None``: there were none."""
        if not (total := sum(self._counts)):
            return None
        seen = itertools.accumulate(self._counts)
        bucket = next(bucket for bucket, count in enumerate(seen) if count and count >= share * total)
        return _LEAST * math.exp((bucket + 0.5) * _WIDTH)


@dataclass(slots=True)
class Tally:
    """Answers, and how long each took: ``admitted`` and ``refused`` within what was measured, ``all_admitted`` ever."""

    admitted: int = 0
    refused: int = 0
    all_admitted: int = 0
    all_refused: int = 0
    #: Claims that were not decided when the measurement ended.
    undecided: int = 0
    times: Times = field(default_factory=Times)

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
            self.times.add(seconds)

    def merge(self, others: Iterable[Tally]) -> Tally:
        for other in others:
            self.admitted += other.admitted
            self.refused += other.refused
            self.all_admitted += other.all_admitted
            self.all_refused += other.all_refused
            self.undecided += other.undecided
            self.times.update(other.times)
        return self
