"""What the database can commit at all: one row in each transaction, and nobody meets anybody."""

from __future__ import annotations

import sqlalchemy as sa

from delimiter.bench.way import Counted, ThreadedWay

__all__ = ["SingleRowCommits"]


class SingleRowCommits(ThreadedWay):
    """Rows that concern nobody else, each committed by itself, in one round trip."""

    name = "single-row-commits"
    title = "single-row commits"
    summary = (
        "no claim: one INSERT of one row and its commit in one round trip; what the database can do at most"
    )
    decides = False

    def _table(self) -> sa.Table:
        return sa.Table(
            f"{self.place.prefix}rows",
            sa.MetaData(schema=self.place.schema),
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
            sa.Column("number", sa.Integer, nullable=False),
            implicit_returning=False,
        )

    def create(self) -> None:
        engine = self.place.engine(connections=1)
        self._table().metadata.create_all(engine)
        engine.dispose()

    def count(self) -> Counted:
        engine = self.place.engine(connections=1)
        with engine.connect() as connection:
            rows = connection.execute(sa.select(sa.func.count()).select_from(self._table())).scalar_one()
            connection.rollback()
        engine.dispose()
        return Counted(rows, 0)

    def open(self, connections: int) -> None:
        self._engine = self.place.engine(connections=connections, isolation="AUTOCOMMIT")
        self._insert = sa.insert(self._table()).values(number=sa.bindparam("n"))

    def claim(self, number: int) -> bool:
        with self._engine.connect() as connection:
            connection.execute(self._insert, {"n": number})
        return True

    def close(self) -> None:
        self._engine.dispose()
