"""Making a batch in a transaction, in the way of each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from delimiter.changes import Change, NewClaim
from delimiter.engine import Answer
from delimiter.engines.records import instant
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.together.gathering import Batch, Gathering
from delimiter.engines.sql.together.mariadb import MariaDBWriter
from delimiter.engines.sql.together.postgresql import PostgreSQLWriter
from delimiter.engines.sql.together.sqlite import SQLiteWriter
from delimiter.engines.sql.together.writer import AtOnceWriter, BatchWriter
from delimiter.engines.sql.transactions import Transactions
from delimiter.model import Claim

__all__ = ["Left", "Together"]

_WRITERS: dict[str, type[BatchWriter]] = {
    "postgresql": PostgreSQLWriter,
    "mariadb": MariaDBWriter,
    "sqlite": SQLiteWriter,
}


class Together:
    """Makes batches of new claims on one store."""

    def __init__(self, ground: Ground, counters: Counters, transactions: Transactions) -> None:
        self._transactions = transactions
        self.gathering: Final = Gathering(ground.definitions, counters)
        self._writer = _WRITERS[ground.database.name](ground)

    def make(
        self, batch: Batch, *, patience: float | None = None, likely: bool = True
    ) -> tuple[dict[int, Answer], bool]:
        """The answers, by the number of the change, if all of them were made, in a transaction of their own.

        None at all: something was not as expected. Whether it was that something did not fit comes second. ``likely``:
        nobody has found that they do not fit; the shortest way leaves an error in the server's log if they do not.
        """
        writer = self._writer
        if likely and isinstance(writer, AtOnceWriter) and self._transactions.can_at_once():
            if not self._transactions.owned:  # connections of our own wait no longer than a call may take
                patience = patience or self._transactions.timeout
            with self._transactions.at_once() as connection:
                written = writer.write_at_once(connection, batch, patience=patience)
        else:
            with self._transactions.own() as own:
                written = writer.write(own, batch, patience=patience)
                if not written.admitted:
                    own.rollback()
        return (_answers(batch, written.times) if written.admitted else {}), written.locked

    def make_joined(self, connection: sa.Connection, changes: Sequence[Change]) -> list[Answer] | Left:
        """The same in the caller's transaction, or what it has left there, to go on from."""
        if not self._writer.joins(connection):
            return Left()
        batch = self.gathering.gather(changes)
        if not changes or len(batch.lists) < len(changes):
            return Left()
        written = self._writer.write(connection, batch, joined=True)
        if written.admitted:
            return list(_answers(batch, written.times).values())
        return Left(written.placed, frozenset(batch.charges) if written.locked else frozenset(), written.now)


@dataclass(frozen=True, slots=True)
class Left:
    """Rows of claims that are there, and counters that are locked, though nothing is decided yet.

    ``now``: the moment those rows were written by, which says when they run out.
    """

    placed: Mapping[str, int] = field(default_factory=dict)
    held: frozenset[int] = frozenset()
    now: int | None = None


def _answers(batch: Batch, times: Mapping[str, int]) -> dict[int, Answer]:
    return {
        number: tuple(_made(claim, times.get(claim.id)) for claim in claims)
        for number, claims in batch.lists.items()
    }


def _made(claim: NewClaim, expires_at: int | None) -> Claim:
    return Claim(
        id=claim.id,
        resources=dict(claim.resources),
        project=claim.project,
        user=claim.user,
        parent=None,
        state="provisioned" if claim.expires_in is None else "reserved",
        external_id=claim.external_id,
        expires_at=None if expires_at is None else instant(expires_at),
    )
