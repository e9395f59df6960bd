"""A client's clock that is wrong, and jumps: the library is not to go by it."""

from __future__ import annotations

import datetime as dt
import random
import time
from typing import Any


def skew(seed: str) -> None:
    """From now on this process's clock of the day is off, by another amount every second. Call it before imports."""
    real_ns, real_datetime = time.time_ns, dt.datetime

    def offset_ns() -> int:
        second = time.monotonic_ns() // 1_000_000_000
        return (
            random.Random(f"{seed}-{second}").choice((-86_400, -600, -3, 0, 3, 600, 86_400)) * 1_000_000_000
        )

    class Kind(type):
        """What the drivers make are real ones; those are datetimes too."""

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real_datetime)

    class Skewed(real_datetime, metaclass=Kind):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return real_datetime.fromtimestamp((real_ns() + offset_ns()) / 1e9, tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(dt.UTC).replace(tzinfo=None)

    time.time_ns = lambda: real_ns() + offset_ns()
    time.time = lambda: (real_ns() + offset_ns()) / 1e9
    dt.datetime = Skewed  # type: ignore[misc]
