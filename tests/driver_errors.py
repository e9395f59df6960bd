"""What the errors of database drivers say of other transactions.

The tests have their own short list of it: with the product's they would let pass whatever the product takes for a
conflict.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

#: A deadlock, whose victim the server has rolled back: PostgreSQL, MariaDB.
DEADLOCKS: Final = {"40P01", 1213}

#: What a caller's own statement or COMMIT raises when its transaction met another one.
_MET_ANOTHER: Final = {*DEADLOCKS, "40001", 1205, 1020}


def codes_of(error: Any) -> set[Any]:
    """PostgreSQL's error code, or MariaDB's number (to whose errors PyMySQL gives a code of its own choice too)."""
    return {getattr(error, "sqlstate", None), *error.args[:1]} - {None}


def met_another(error: sa.exc.DBAPIError) -> bool:
    """Whether the caller's own statement failed because of another transaction."""
    return bool(codes_of(error.orig) & _MET_ANOTHER) or "database is locked" in str(error.orig)
