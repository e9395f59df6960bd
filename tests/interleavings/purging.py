"""MariaDB's purge, at once: deleted rows are locked like others until it has cleared them away.

By itself it comes every half second. A session that sets ``innodb_max_purge_lag_wait`` wakes it, which takes a
millisecond or two; the session itself is told a tenth of a second later, so there are several of them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import sqlalchemy as sa

__all__ = ["Purge"]

_SESSIONS: Final = 16

#: Seconds after which a schedule begins all the same.
_LONGEST: Final = 1.0


class Purge:
    """Wakes it, and waits until nothing is left to be cleared away."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(url, pool_size=_SESSIONS + 1, isolation_level="AUTOCOMMIT")
        self._raw: Any = self._engine.raw_connection()
        self._sessions = ThreadPoolExecutor(_SESSIONS, thread_name_prefix="purge")
        self._own = threading.local()

    def run(self) -> None:
        self._sessions.submit(self._wake)
        deadline = time.monotonic() + _LONGEST
        while self._left() and time.monotonic() < deadline:
            continue

    def _wake(self) -> None:
        if not hasattr(self._own, "raw"):
            self._own.raw = self._engine.raw_connection()
        cursor = self._own.raw.cursor()
        cursor.execute("SET GLOBAL innodb_max_purge_lag_wait = 0")
        cursor.close()

    def _left(self) -> int:
        cursor = self._raw.cursor()
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'")
        length = int(cursor.fetchone()[1])
        cursor.close()
        return length

    def close(self) -> None:
        self._sessions.shutdown()
        self._raw.close()
        self._engine.dispose()
