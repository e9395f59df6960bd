"""What the database can commit at all: one row in each transaction, the same row for all claims of a project."""

from __future__ import annotations

import sqlalchemy as sa

from delimiter.bench.way import Counted, ThreadedWay

__all__ = ["SingleRowCommits"]


class SingleRowCommits(ThreadedWay):
    """A number of each project, raised by one, each time committed by itself, in one round trip."""

    name = "single-row-commits"
    title = "single-row commits"
    summary = (
        "no claim: one UPDATE of the project's row and its commit in one round trip; the most that the database can do"
        " for a project, one call after the other"
    )
    decides = False

    def _table(self) -> sa.Table:
        return sa.Table(
            f"{self.place.prefix}rows",
            sa.MetaData(schema=self.place.schema),
            sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("number", sa.BigInteger, nullable=False),
        )

    def create(self) -> None:
        engine = self.place.engine(connections=1)
        table = self._table()
        table.metadata.create_all(engine)
        rows = [{"id": number, "number": 0} for number in range(self.scenario.projects)]
        with engine.begin() as connection:
            connection.execute(sa.insert(table), rows)
        engine.dispose()

    def count(self) -> Counted:
        engine = self.place.engine(connections=1)
        with engine.connect() as connection:
            raised = connection.execute(sa.select(sa.func.sum(self._table().c.number))).scalar_one()
            connection.rollback()
        engine.dispose()
        return Counted(int(raised), 0)

    def open(self, connections: int) -> None:
        self._engine = self.place.engine(connections=connections, isolation="AUTOCOMMIT")
        row = self._table()
        self._raise = sa.update(row).where(row.c.id == sa.bindparam("row")).values(number=row.c.number + 1)

    def claim(self, number: int) -> bool:
        with self._engine.connect() as connection:
            return connection.execute(self._raise, {"row": number}).rowcount == 1

    def close(self) -> None:
        self._engine.dispose()
