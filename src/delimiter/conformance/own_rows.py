"""A caller's own table, beside Delimiter's, for the tests of ``connection=``."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import sqlalchemy as sa

__all__ = ["OwnRows"]


class OwnRows:
    """One table of the caller's, with one column."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._table = sa.Table(
            "conformance_rows",
            sa.MetaData(),
            sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        )
        self._table.create(engine, checkfirst=True)

    def close(self) -> None:
        with contextlib.suppress(sa.exc.DBAPIError):
            self._table.drop(self.engine)
        self.engine.dispose()

    def at(self, level: str) -> sa.Engine:
        """The same database at another isolation level; a level it does not have is skipped."""
        with self.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            known = connection.dialect.get_isolation_level_values(raw)
        if level not in known:
            pytest.skip(f"this database has no {level}")
        return self.engine.execution_options(isolation_level=level)

    def add(self, connection: Any, number: int) -> None:
        connection.execute(sa.insert(self._table).values(number=number))

    def amount(self) -> Any:
        """What ``count`` counts them by."""
        return sa.func.count(self._table.c.number)

    def look(self, connection: Any) -> list[int]:
        return list(
            connection.execute(sa.select(self._table.c.number).order_by(self._table.c.number)).scalars()
        )

    def all(self) -> list[int]:
        with self.engine.connect() as connection:
            return self.look(connection)
