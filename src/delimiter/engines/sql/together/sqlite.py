"""SQLite: there are no round trips to save, so plain statements, each run for many rows."""

from __future__ import annotations

import sqlalchemy as sa

from delimiter.engines.sql.together.gathering import Batch
from delimiter.engines.sql.together.writer import BatchWriter, Written

__all__ = ["SQLiteWriter"]


class SQLiteWriter(BatchWriter):
    """The transaction is the one writer already, so nothing has to be locked."""

    _statements: tuple[str, str, str, str] | None = None

    def joins(self, _connection: sa.Connection) -> bool:
        return False

    def write(
        self, connection: sa.Connection, batch: Batch, *, joined: bool = False, patience: float | None = None
    ) -> Written:
        if self._statements is None:
            self._statements = self._build(connection)
        place, add, hold, times = self._statements
        run = connection.exec_driver_sql
        now = run(times, (self._clock.offset,)).scalar_one()
        placed = run(
            place,
            [
                (
                    claim.id,
                    claim.project,
                    claim.user,
                    claim.external_id,
                    claim.external_id,
                    "provisioned" if claim.expires_in is None else "reserved",
                    None if claim.expires_in is None else now + claim.expires_in,
                    claim.fingerprint,
                    now,
                )
                for claim in batch.claims
            ],
        )
        if placed.rowcount != len(batch.claims):
            return Written(admitted=False)
        added = run(
            add,
            [
                (c.used, c.reserved, c.used_below, c.reserved_below, number, c.generation, c.used)
                for number, c in batch.charges.items()
            ],
        )
        if added.rowcount != len(batch.charges):
            return Written(admitted=False, locked=True)
        run(hold, [(resource, amount, id) for id, resource, amount in batch.amounts])
        return Written(admitted=True, times=batch.times(now))

    def _build(self, connection: sa.Connection) -> tuple[str, str, str, str]:
        names = self._names(connection)
        place = (
            f"INSERT INTO {names['claims']} (claim_id, project_id, user_id, external_id, live_external_id, state,"  # noqa: S608
            " expires_at, fingerprint, created_at, children, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)"
            " ON CONFLICT DO NOTHING"
        )
        add = (
            f"UPDATE {names['counters']} SET used = used + ?, reserved = reserved + ?, used_below = used_below + ?,"  # noqa: S608
            " reserved_below = reserved_below + ?"
            f" WHERE id = ? AND generation = coalesce(?, generation) AND {self._room('?')}"
        )
        hold = (
            f"INSERT INTO {names['allocations']} (resource_id, amount, claim)"  # noqa: S608
            f" SELECT ?, ?, id FROM {names['claims']} WHERE claim_id = ?"
        )
        return place, add, hold, f"SELECT {self._now} + ?"
