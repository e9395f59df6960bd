"""MariaDB: one compound statement, whose parts go on only while all is as expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa

from delimiter.changes import NewClaim
from delimiter.engines.sql.databases import whole_seconds
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.together.gathering import Batch
from delimiter.engines.sql.together.writer import AtOnceWriter, Written
from delimiter.errors import Conflict

__all__ = ["MariaDBWriter"]

_CHARGES: Final = ("used", "reserved", "used_below", "reserved_below")


class MariaDBWriter(AtOnceWriter):
    """Rows are written as values, not from a query: that would hold the table's counter of ids to its end.

    Where a row cannot be placed, none is, and nothing is locked. Counters are locked by the primary key, and so in the
    order of numbers, all of them before one is written: what does not fit must leave nothing in a caller's transaction.
    """

    _named: dict[str, str] | None = None

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._galera = ground.galera

    def joins(self, connection: sa.Connection) -> bool:
        return not self._galera.is_one(connection)

    def write(
        self, connection: sa.Connection, batch: Batch, *, joined: bool = False, patience: float | None = None
    ) -> Written:
        row = self._execute(connection, batch, patience, joined=joined)
        if row.placed != len(batch.claims):
            return Written(admitted=False)
        if row.fitted == len(batch.charges):
            if self._galera.is_one(connection) and not self._are_there(connection, batch.claims):
                raise Conflict("another node's transaction came first")
            return Written(admitted=True, times=batch.times(row.n))
        placed = self._placed(connection, [claim.id for claim in batch.claims]) if joined else {}
        return Written(admitted=False, placed=placed, locked=True, now=row.n)

    def write_at_once(
        self, connection: sa.Connection, batch: Batch, *, patience: float | None = None
    ) -> Written:
        """It ends the transaction that it begins; what it holds is written before the counters are locked."""
        row = self._execute(connection, batch, patience, at_once=True)
        locked = row.placed == len(batch.claims)
        if locked and row.fitted == len(batch.charges):
            return Written(admitted=True, times=batch.times(row.n))
        return Written(admitted=False, locked=locked)

    def _execute(
        self,
        connection: sa.Connection,
        batch: Batch,
        patience: float | None,
        *,
        joined: bool = False,
        at_once: bool = False,
    ) -> Any:
        if self._named is None:
            quote = connection.dialect.identifier_preparer.quote
            self._named = {
                **self._names(connection),
                "by claim": quote(f"{self._tables.prefix}claims_claim_id"),
            }
        values: list[Any] = [self._clock.offset]
        for claim in batch.claims:
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
        if not joined:
            for amount in batch.amounts:
                values += amount
        text = self._text(batch, patience, joined=joined, at_once=at_once)
        result = connection.exec_driver_sql(text, tuple(values))
        return _read_to_its_end(result) if self._galera.is_one(connection) else result.one()

    def _are_there(self, connection: sa.Connection, claims: Sequence[NewClaim]) -> bool:
        """Whether it is still the transaction that the claims were placed in.

        Where Galera gives way to another node's transaction in the midst of a compound statement, it rolls back what
        was done, says nothing, and goes on with the rest. Afterwards COMMIT says it.
        """
        return len(self._placed(connection, [claim.id for claim in claims])) == len(claims)

    def _placed(self, connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
        assert self._named is not None
        wanted = ",".join(["%s"] * len(ids))
        rows = connection.exec_driver_sql(
            f"SELECT claim_id, id FROM {self._named['claims']} WHERE claim_id IN ({wanted})",  # noqa: S608
            tuple(ids),
        )
        return {row.claim_id: row.id for row in rows}

    def _text(self, batch: Batch, patience: float | None, *, joined: bool, at_once: bool) -> str:
        assert self._named is not None
        names, charges = self._named, batch.charges
        place, held = self._one_by_one(batch) if joined else self._all_rows(batch)
        hold = f" INSERT INTO {names['allocations']} (claim, resource_id, amount){held};"
        changed = ", ".join(
            f"{name} = {name} + {_by_id({n: getattr(c, name) for n, c in charges.items()}, '0')}"
            for name in _CHARGES
            if any(getattr(charge, name) for charge in charges.values())
        )
        used = _by_id({number: charge.used for number, charge in charges.items()}, "0")
        begun = {n: c.generation for n, c in charges.items() if c.generation is not None}
        generations = _by_id(begun, "generation")
        # All of them, in the order of the key, and only that key's rows: a small table would be scanned whole.
        of_all = f"{names['counters']} FORCE INDEX (PRIMARY)"
        wanted = f"WHERE id IN ({','.join(map(str, charges))})"
        lock = (
            f" SELECT SUM(generation = {generations} AND {self._room(used)}) INTO fitted FROM {of_all} {wanted}"  # noqa: S608
            " FOR UPDATE;"
        )
        fits = f" IF fitted = {len(charges)} THEN UPDATE {of_all} SET {changed} {wanted};"  # noqa: S608
        if at_once:
            begin, go_on, back = "", f"{hold}{lock}{fits} COMMIT; ELSE ROLLBACK; END IF;", " ROLLBACK;"
        else:
            begin, go_on = " SAVEPOINT delimiter_together;", f"{lock}{fits}{hold} END IF;"
            back = " ROLLBACK TO SAVEPOINT delimiter_together;"
        first, briefly, as_before = (
            ("", "", "") if patience is None else self._bounded(whole_seconds(patience))
        )
        return (
            f"{first}BEGIN NOT ATOMIC DECLARE n BIGINT; DECLARE placed INT DEFAULT 0; DECLARE fitted INT DEFAULT 0;"
            f"{''.join(f' DECLARE c{number} BIGINT;' for number in range(len(batch.claims))) if joined else ''}"
            f"{briefly}{begin} SET n = {self._now} + %s;{place}"
            f" IF placed = {len(batch.claims)} THEN{go_on} ELSE{back} END IF;"
            f"{as_before} SELECT placed, fitted, n; END"
        )

    def _bounded(self, seconds: int) -> tuple[str, str, str]:
        """The bound on waits for locks: before the statement, at its beginning, and put back at its end.

        For the statement alone, however it ends; a node of Galera, which may end a compound in its midst, is told for
        the session.
        """
        if self._galera.is_none:
            return f"SET STATEMENT innodb_lock_wait_timeout = {seconds} FOR ", "", ""
        as_before = " SET SESSION innodb_lock_wait_timeout = usually;"
        briefly = (
            " DECLARE usually INT DEFAULT @@SESSION.innodb_lock_wait_timeout;"
            f" DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN{as_before} RESIGNAL; END;"
            f" SET SESSION innodb_lock_wait_timeout = {seconds};"
        )
        return "", briefly, as_before

    def _all_rows(self, batch: Batch) -> tuple[str, str]:
        """All rows of claims by one INSERT; what they hold finds them by their ids."""
        assert self._named is not None
        held = ",".join(["(%s,%s,%s)"] * len(batch.amounts))
        hold = (
            f" WITH v(claim, resource, amount) AS (VALUES {held})"  # noqa: S608
            f" SELECT STRAIGHT_JOIN c.id, v.resource, v.amount FROM v JOIN {self._named['claims']} c"
            f" FORCE INDEX ({self._named['by claim']}) ON c.claim_id = v.claim"
        )
        return f" {self._insert(len(batch.claims))} SET placed = ROW_COUNT();", hold

    def _one_by_one(self, batch: Batch) -> tuple[str, str]:
        """In a caller's transaction no row is looked for: above READ COMMITTED that would lock the gap beside it."""
        places = {claim.id: number for number, claim in enumerate(batch.claims)}
        return (
            "".join(
                f" {self._insert(1)} SET placed = placed + ROW_COUNT(), c{number} = LAST_INSERT_ID();"
                for number in places.values()
            ),
            " VALUES "
            + ",".join(f"(c{places[id]},{resource},{amount})" for id, resource, amount in batch.amounts),
        )

    def _insert(self, rows: int) -> str:
        assert self._named is not None
        return (
            f"INSERT IGNORE INTO {self._named['claims']} (claim_id, project_id, user_id, external_id,"  # noqa: S608
            " live_external_id, state, expires_at, fingerprint, created_at, children, version) VALUES"
            f" {','.join(['(%s,%s,%s,%s,%s,%s,n+%s,%s,n,0,0)'] * rows)};"
        )


def _read_to_its_end(result: sa.CursorResult[Any]) -> Any:
    """The row. Where Galera has given way meanwhile, an error comes after it, which says no more than COMMIT will.

    Left to be met when the cursor is closed, it would stand with its traceback in the service's log.
    """
    row = result.fetchone()
    further = getattr(result.cursor, "nextset", None)  # an asynchronous driver's has been read already
    if further is not None:
        with suppress(result.context.dialect.loaded_dbapi.Error):
            further()
    result.close()
    return row


def _by_id(values: Mapping[int, int], otherwise: str) -> str:
    """The value of each row, by its id. Many have the same: a list is searched by halves, but WHENs one by one."""
    alike: dict[int, list[str]] = {}
    for number, value in values.items():
        alike.setdefault(value, []).append(str(number))
    cases = "".join(f" WHEN id IN ({','.join(numbers)}) THEN {value}" for value, numbers in alike.items())
    return f"CASE{cases} ELSE {otherwise} END" if cases else otherwise
