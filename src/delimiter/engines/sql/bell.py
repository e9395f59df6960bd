"""A bell that rings when another transaction has committed events: PostgreSQL's LISTEN."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from delimiter.waiting import Bell

__all__ = ["ListeningBell"]

#: Seconds of one look at the connection, for which closing has to wait (and for the connection to be opened).
_SLICE: Final = 0.2


class ListeningBell(Bell):
    """Listens on a connection of its own, opened at the first wait and again after it was lost.

    ``connect`` gives a psycopg connection in autocommit mode, or ``None`` where the driver cannot listen: then this
    bell is silent, and its owner looks by itself.
    """

    def __init__(self, connect: Callable[[], Any | None], channel: str) -> None:
        super().__init__()
        self._connect = connect
        self._channel = channel
        self._connection: Any | None = None
        #: Held while the connection is in use: it is closed by whoever comes after.
        self._using = threading.Lock()

    def wait(self, seconds: float) -> None:
        remaining = seconds
        while remaining > 0 and not self._closed.is_set():
            heard = self._heard(min(remaining, _SLICE))
            if heard is None:
                super().wait(remaining)
                return
            if heard:
                return
            remaining -= _SLICE

    def _heard(self, seconds: float) -> bool | None:
        """Whether it rang; ``None`` where one cannot listen (now)."""
        with self._using:
            if self._closed.is_set():
                return True
            try:
                if self._connection is None:
                    self._connection = self._connect()
                    if self._connection is None:
                        return None
                    self._connection.execute(f'LISTEN "{self._channel.replace(chr(34), chr(34) * 2)}"')
                    return True  # what was committed before it listened did not ring
                return any(True for _ in self._connection.notifies(timeout=seconds, stop_after=1))
            except Exception:  # whatever the driver raises: polling goes on, and finds what the store says
                self._drop()
                return None

    def close(self) -> None:
        super().close()
        with self._using:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
