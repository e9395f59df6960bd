"""The asyncio side of a sandbox. A module of its own, since it needs what the extra ``asyncio`` brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from delimiter import aio
from delimiter.testing.faults import FaultyDelimiter

if TYPE_CHECKING:
    from datetime import timedelta

    from delimiter.engine import Engine
    from delimiter.testing.faults import Faults

__all__ = ["FaultyAioDelimiter"]


class FaultyAioDelimiter(aio.Delimiter):
    """The same store, awaited, with the same failures."""

    def __init__(self, engine: Engine, faults: Faults, *, timeout: float | timedelta) -> None:
        super().__init__(engine, timeout=timeout)
        self._quota = FaultyDelimiter(engine, faults, timeout=timeout)

    def let_threads_go(self) -> None:
        """What ``close`` does beside closing the store, without an event loop: a fixture ends outside of it."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None
