"""Plans of statements that are asked again, where a database keeps them while their tables grow.

PostgreSQL makes the plan of a prepared statement for whatever is asked next. One that was made when a table had hardly
a page reads all of it, however many it has got since, until autovacuum has counted them, which it does once a minute.
So a new store became slower with each claim: 32 callers who claim and release had a quarter of their rate after 20
seconds.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Final

import sqlalchemy as sa

from delimiter.engines.sql.databases import Database

__all__ = ["Plans"]

#: Plans are made anew after so many seconds, then after twice as many, and so on. (A plan that was made for a hundred
#: pages is right for a million, too.)
_FIRST: Final = 1.0
_LONGEST: Final = 60.0

#: Where a connection remembers when its plans are due, and how long it is from the last time to that.
_DUE: Final = "delimiter_plans_due"


class Plans:
    """Has them made anew on one connection after the other, in a transaction of our own or outside of any."""

    def __init__(self, database: Database) -> None:
        self._forget = database.forget_plans

    def renew(self, connection: sa.Connection) -> None:
        if self._forget is None:
            return
        now = monotonic()
        due, pause = connection.info.setdefault(_DUE, (now + _FIRST, _FIRST))
        if now < due:
            return
        pause = min(2 * pause, _LONGEST)
        connection.info[_DUE] = now + pause, pause
        # If the connection is lost, the next statement says so better.
        with suppress(connection.dialect.loaded_dbapi.Error):
            cursor = connection.connection.cursor()
            cursor.execute(self._forget)
            cursor.close()
