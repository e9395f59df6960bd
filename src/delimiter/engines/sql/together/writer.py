"""What a database must be able to do with a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.together.gathering import Batch
from delimiter.model import CEILING, UNLIMITED

__all__ = ["AtOnceWriter", "BatchWriter", "Written"]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch. Not ``admitted``: what it has left must be taken back, or gone on from."""

    admitted: bool
    #: When each reservation runs out.
    times: Mapping[str, int] = field(default_factory=dict)
    #: Whether all claims could be placed and the counters were locked; where asked for, the rows of claims, and the
    #: moment from which the time of those counts that run out.
    locked: bool = False
    placed: Mapping[str, int] = field(default_factory=dict)
    now: int | None = None


class BatchWriter(ABC):
    """Writes batches on one store."""

    def __init__(self, ground: Ground) -> None:
        self._tables = ground.tables
        self._clock = ground.clock
        self._now = ground.database.now

    def joins(self, connection: sa.Connection) -> bool:
        """Whether it can write in a caller's transaction too, and is any better there."""
        return True

    @abstractmethod
    def write(
        self, connection: sa.Connection, batch: Batch, *, joined: bool = False, patience: float | None = None
    ) -> Written:
        """Write all of it, if all of it fits.

        First the rows of claims, then the locks on counters by their numbers, then what was added. ``joined``: in a
        caller's transaction, which cannot be rolled back: what is not admitted leaves rows of claims and locks on
        all counters, or neither, and nothing is added. ``patience``: seconds to wait for a lock at most, or what the
        database takes for the shortest time.
        """

    def _names(self, connection: sa.Connection) -> dict[str, str]:
        """The tables' names as this dialect writes them."""
        named = connection.dialect.identifier_preparer.format_table
        tables: dict[str, Any] = {
            "claims": self._tables.claims,
            "counters": self._tables.counters,
            "allocations": self._tables.allocations,
        }
        return {name: named(table) for name, table in tables.items()}

    @staticmethod
    def _room(used: str) -> str:
        """SQL for whether ``used`` more fits on a counter's row; without a sum that the column could not hold."""
        return f"used <= CASE maximum WHEN {UNLIMITED} THEN {CEILING} ELSE maximum END - {used}"


class AtOnceWriter(BatchWriter):
    """Writes batches where one statement can be a transaction of its own."""

    @abstractmethod
    def write_at_once(
        self, connection: sa.Connection, batch: Batch, *, patience: float | None = None
    ) -> Written:
        """The same by such a statement: all of it is committed, or nothing."""
