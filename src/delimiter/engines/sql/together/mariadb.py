"""MariaDB: one compound statement, whose parts go on only while all is as expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engines.sql.together.gathering import Batch
from delimiter.engines.sql.together.writer import BatchWriter, Written

__all__ = ["MariaDBWriter"]

#: Waits for locks are bounded by the session's setting; it is put back, also where a statement fails.
_AS_BEFORE: Final = " SET SESSION innodb_lock_wait_timeout = usually;"

_CHARGES: Final = ("used", "reserved", "used_below", "reserved_below")


class MariaDBWriter(BatchWriter):
    """Rows are written as values, not from a query: that would hold the table's counter of ids to its end.

    Where a row cannot be placed, none is, and nothing is locked. Counters are locked by the primary key, and so in the
    order of numbers, all of them before one is written: what does not fit must leave nothing in a caller's transaction.
    """

    _named: dict[str, str] | None = None

    def write(
        self, connection: sa.Connection, batch: Batch, *, joined: bool = False, patience: float | None = None
    ) -> Written:
        if self._named is None:
            self._named = {name: text.replace("%", "%%") for name, text in self._names(connection).items()}
        claims, charges = batch.claims, batch.charges
        values: list[Any] = [self._clock.offset]
        for claim in claims:
            values += (
                claim.id,
                claim.project,
                claim.user,
                claim.external_id,
                claim.external_id,
                "provisioned" if claim.expires_in is None else "reserved",
                claim.expires_in,
                claim.fingerprint,
            )
        for amount in batch.amounts:
            values += amount
        row = connection.exec_driver_sql(self._text(batch, patience), tuple(values)).one()
        if row.placed != len(claims):
            return Written(admitted=False)
        if row.fitted == len(charges):
            return Written(admitted=True, times=batch.times(row.n))
        placed = self._placed(connection, [claim.id for claim in claims]) if joined else {}
        return Written(admitted=False, placed=placed, locked=True, now=row.n)

    def _placed(self, connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
        assert self._named is not None
        wanted = ",".join(["%s"] * len(ids))
        rows = connection.exec_driver_sql(
            f"SELECT claim_id, id FROM {self._named['claims']} WHERE claim_id IN ({wanted})",  # noqa: S608
            tuple(ids),
        )
        return {row.claim_id: row.id for row in rows}

    def _text(self, batch: Batch, patience: float | None) -> str:
        assert self._named is not None
        names, charges = self._named, batch.charges
        claims = ",".join(["(%s,%s,%s,%s,%s,%s,n+%s,%s,n,0,0)"] * len(batch.claims))
        held = ",".join(["(%s,%s,%s)"] * len(batch.amounts))
        changed = ", ".join(
            f"{name} = {name} + {_by_id({n: getattr(c, name) for n, c in charges.items()}, '0')}"
            for name in _CHARGES
            if any(getattr(charge, name) for charge in charges.values())
        )
        used = _by_id({number: charge.used for number, charge in charges.items()}, "0")
        begun = {n: c.generation for n, c in charges.items() if c.generation is not None}
        generations = _by_id(begun, "generation")
        wanted = f"FROM {names['counters']} FORCE INDEX (PRIMARY) WHERE id IN ({','.join(map(str, charges))})"
        return (
            "BEGIN NOT ATOMIC DECLARE n BIGINT; DECLARE placed INT; DECLARE fitted INT DEFAULT 0;"  # noqa: S608
            f"{'' if patience is None else _briefly(patience)}"
            f" SAVEPOINT delimiter_together; SET n = {self._now} + %s;"
            f" INSERT IGNORE INTO {names['claims']} (claim_id, project_id, user_id, external_id, live_external_id,"
            f" state, expires_at, fingerprint, created_at, children, version) VALUES {claims};"
            " SET placed = ROW_COUNT();"
            f" IF placed = {len(batch.claims)} THEN"
            # All of them, in the order of the key, and only that key's rows: a small table would be scanned whole.
            f" SELECT SUM(generation = {generations} AND {self._room(used)}) INTO fitted {wanted} FOR UPDATE;"
            f" IF fitted = {len(charges)} THEN"
            f" UPDATE {names['counters']} FORCE INDEX (PRIMARY) SET {changed}"
            f" WHERE id IN ({','.join(map(str, charges))});"
            f" INSERT INTO {names['allocations']} (claim, resource_id, amount)"
            f" WITH v(claim, resource, amount) AS (VALUES {held})"
            f" SELECT c.id, v.resource, v.amount FROM v JOIN {names['claims']} c ON c.claim_id = v.claim;"
            " END IF; ELSE ROLLBACK TO SAVEPOINT delimiter_together; END IF;"
            f"{'' if patience is None else _AS_BEFORE} SELECT placed, fitted, n; END"
        )


def _by_id(values: Mapping[int, int], otherwise: str) -> str:
    return f"CASE id {' '.join(f'WHEN {number} THEN {value}' for number, value in values.items())} ELSE {otherwise} END"


def _briefly(patience: float) -> str:
    return (
        " DECLARE usually INT DEFAULT @@SESSION.innodb_lock_wait_timeout;"
        f" DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN{_AS_BEFORE} RESIGNAL; END;"
        f" SET SESSION innodb_lock_wait_timeout = {max(1, round(patience))};"
    )
