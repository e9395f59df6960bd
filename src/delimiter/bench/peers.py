"""What the ways that services write by hand have in common.

Each is written as somebody would who knows the database well: prepared statements, one order of locks, the lowest
isolation level that the way is right at, a pool of bounded size, and a new transaction for another attempt, after a
short wait with jitter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from delimiter.bench import filling
from delimiter.bench.scenario import CONTESTED, LIMIT, ancestry, project_of, scopes_of, user_of
from delimiter.bench.way import Counted, Stopped, ThreadedWay, again
from delimiter.ids import new_id

__all__ = ["HandWritten", "is_contested", "met_another"]

#: What drivers call a transaction that met another one: SQLSTATE of PostgreSQL, numbers of MariaDB and of SQLite.
_MEETINGS: Final = frozenset({"40001", "40P01", 1213, 1205, 1020, 5, 6})


def met_another(error: Exception) -> bool:
    """Whether a new transaction may succeed where this one failed."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    origin = error.orig
    code = getattr(origin, "sqlstate", None) or getattr(origin, "sqlite_errorcode", None)
    if code is None and origin.args:
        code = origin.args[0]
    return code in _MEETINGS


class HandWritten(ThreadedWay):
    """A claim is a row, with a row for each resource it holds; what limits it is for the ways to say."""

    #: Lower is not possible; the usual one of each database is higher or the same.
    isolation: ClassVar[str | None] = None

    def tables(self) -> sa.MetaData:
        """The tables of this way; also sets ``self.claims`` and ``self.amounts``."""
        metadata = sa.MetaData(schema=self.place.schema)
        self.claims = sa.Table(
            f"{self.place.prefix}claims",
            metadata,
            sa.Column("id", sa.String(36), primary_key=True),
            sa.Column("project", sa.String(60), nullable=False, index=True),
            sa.Column("owner", sa.String(60), nullable=False, index=True),
        )
        self.amounts = sa.Table(
            f"{self.place.prefix}amounts",
            metadata,
            sa.Column("claim", sa.String(36), primary_key=True),
            sa.Column("resource", sa.String(40), primary_key=True),
            sa.Column("amount", sa.BigInteger, nullable=False),
            *self.summed_by(),
        )
        return metadata

    def summed_by(self) -> Iterable[Any]:
        """Columns and indexes by which amounts are summed, where they are."""
        return ()

    # -- in the process that directs ----------------------------------------------------------------------------

    def create(self) -> None:
        metadata = self.tables()
        engine = self.place.engine(connections=1)
        metadata.create_all(engine)
        with engine.begin() as connection:
            self.set_limits(connection)
            if self.scenario.claims:
                self._fill(connection)
        filling.look_at(engine, list(metadata.tables.values()))
        engine.dispose()

    @abstractmethod
    def set_limits(self, connection: sa.Connection) -> None:
        """Write the limits of every scope."""

    def limits(self) -> list[tuple[str, str, int]]:
        """Every resource and scope with its limit. The contestant has none that matters, and no ancestors."""
        scenario = self.scenario
        scopes = {scope: LIMIT for number in range(scenario.projects) for scope in self.scopes(number)}
        scopes |= {f"user:{user_of(CONTESTED)}": LIMIT}
        scopes |= {f"project:{project_of(CONTESTED)}": scenario.contested_limit}
        return [(name, scope, most) for scope, most in scopes.items() for name in scenario.names]

    def _fill(self, connection: sa.Connection) -> None:
        wanted = self.scenario.claims
        claims = self.claims
        first = {"id": "-", "project": project_of(0), "owner": user_of(0)}
        connection.execute(sa.insert(claims), first)
        for letter, some in filling.doubled(1, wanted):
            rows = sa.select(sa.literal(letter) + claims.c.id, claims.c.project, claims.c.owner).limit(some)
            connection.execute(sa.insert(claims).from_select(["id", "project", "owner"], rows))
        columns = [column.name for column in self.amounts.c]
        for name in self.scenario.names:
            held: dict[str, Any] = {
                "claim": claims.c.id,
                "resource": sa.literal(name),
                "amount": sa.literal_column("1"),
                "project": claims.c.project,
                "owner": claims.c.owner,
            }
            connection.execute(
                sa.insert(self.amounts).from_select(columns, sa.select(*(held[column] for column in columns)))
            )
        self.filled(connection, wanted)

    def filled(self, connection: sa.Connection, claims: int) -> None:
        """So many claims of the first project are there: count them, where something is counted."""

    def count(self) -> Counted:
        self.tables()
        engine = self.place.engine(connections=1)
        with engine.connect() as connection:
            contested = is_contested(self.claims.c.project)
            found = connection.execute(sa.select(contested, sa.func.count()).group_by(contested))
            by_project: dict[int, int] = {kind: number for kind, number in found}  # noqa: C416 - rows, not pairs
            counted = Counted(by_project.get(0, 0), by_project.get(1, 0))
            held = connection.execute(sa.select(sa.func.sum(self.amounts.c.amount))).scalar_one() or 0
            faults = list(self.faults(connection, counted))
            connection.rollback()
        engine.dispose()
        if held != (counted.claims + counted.contested) * self.scenario.resources:
            faults.append(f"{held} held by {counted.claims + counted.contested} claims")
        return Counted(counted.claims, counted.contested, tuple(faults))

    def faults(self, connection: sa.Connection, counted: Counted) -> Iterable[str]:
        """Where what is counted disagrees with the claims."""
        return ()

    # -- in a process that calls --------------------------------------------------------------------------------

    def open(self, connections: int) -> None:
        self.tables()
        self.engine = self.place.engine(connections=connections, isolation=self._isolation())
        self.prepare()

    def _isolation(self) -> str | None:
        return None if self.place.dialect == "sqlite" else self.isolation

    def prepare(self) -> None:
        """Make the statements, once."""
        self._insert_claim = sa.insert(self.claims).values(
            {name: sa.bindparam(name) for name in ("id", "project", "owner")}
        )
        columns = [column.name for column in self.amounts.c]
        self._insert_amounts = sa.insert(self.amounts).values(
            [
                {
                    column: resource if column == "resource" else sa.bindparam(_BOUND.get(column, column))
                    for column in columns
                }
                for resource in self.scenario.names
            ]
        )

    def claim(self, number: int) -> bool:
        scopes = self.scopes(number)
        return again(lambda: self.attempt(number, scopes), self.met, self.stopping)

    def met(self, error: Exception) -> bool:
        """Whether another claim was in the way, and a new transaction may succeed."""
        return met_another(error)

    @contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """A connection from the pool, unless the measurement ended while this caller stood in its queue."""
        with self.engine.connect() as connection:
            if self.stopping():
                raise Stopped
            yield connection

    @abstractmethod
    def attempt(self, number: int, scopes: list[str]) -> bool:
        """One transaction: admitted, refused, or an error of the database."""

    def insert(self, connection: sa.Connection, number: int) -> None:
        """The rows of a claim, each table by one statement."""
        row = {"id": new_id(), "project": project_of(number), "owner": user_of(number)}
        connection.execute(self._insert_claim, row)
        held = {"id": row["id"], "amount": 1}
        if "project" in self.amounts.c:
            held |= {"project": row["project"], "owner": row["owner"]}
        connection.execute(self._insert_amounts, held)

    def scopes(self, number: int) -> list[str]:
        return scopes_of(number, 1 if number == CONTESTED else self.scenario.depth)

    def levels(self, number: int) -> list[str]:
        """The projects that a claim of this one is charged to."""
        return ancestry(number, 1 if number == CONTESTED else self.scenario.depth)

    def close(self) -> None:
        self.engine.dispose()


#: Columns of amounts that are bound by the name that the claim's row has for it.
_BOUND: Final = {"claim": "id"}


def is_contested(project: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    """1 for the contested project, 0 for the others."""
    return sa.case((project == sa.literal_column(f"'{project_of(CONTESTED)}'"), 1), else_=0)
