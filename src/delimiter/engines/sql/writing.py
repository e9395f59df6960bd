"""Rows of claims: placing new ones, and writing what became of those that are locked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from delimiter.changes import NewClaim
from delimiter.engines.records import Entry
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.ground import Ground

__all__ = ["ClaimWriter"]

#: Allocations written by one statement.
_AMOUNTS: Final = 100


class ClaimWriter:
    """Writes the claims of one store. Statements are built once; calls only bind values."""

    def __init__(self, ground: Ground) -> None:
        tables, database, clock = ground.tables, ground.database, ground.clock
        self._allocations = tables.allocations
        self._definitions = ground.definitions
        c, a, by_key = tables.claims.c, tables.allocations.c, database.by_key
        keys = c.id.in_(sa.bindparam("keys", expanding=True))
        self._insert = (
            database.insert_ignoring(tables.claims).values(created_at=clock.now()).returning(c.id, c.claim_id)
        )
        # Cached per number of rows: one statement for all, whose text is not built at every claim.
        self._insert_amounts = lru_cache(maxsize=128)(self._build_insert_amounts)
        # Kept in this order: MariaDB assigns from left to right, and the moment of expiry must move before it goes.
        end = by_key(sa.update(tables.claims).where(keys), tables.claims)
        self._end = {
            "expired": end.ordered_values(
                (c.ended_at, c.expires_at),
                (c.state, "expired"),
                (c.expires_at, None),
                (c.live_external_id, None),
                (c.version, c.version + 1),
            ),
            "released": end.ordered_values(
                (c.ended_at, clock.now()),
                (c.state, "released"),
                (c.expires_at, None),
                (c.live_external_id, None),
                (c.version, c.version + 1),
            ),
        }
        self._move = end.values(
            project_id=sa.bindparam("project"),
            user_id=sa.bindparam("user"),
            changed_at=clock.now(),
            version=c.version + 1,
        )
        self._grow = by_key(
            sa.update(tables.claims).where(c.id == sa.bindparam("key")), tables.claims
        ).values(children=c.children + sa.bindparam("added"), changed_at=clock.now(), version=c.version + 1)
        self._change = by_key(
            sa.update(tables.claims).where(c.id == sa.bindparam("key")), tables.claims
        ).values(
            state=sa.bindparam("new_state"),
            expires_at=sa.bindparam("new_expiry"),
            external_id=sa.bindparam("new_external"),
            live_external_id=sa.bindparam("new_live_external"),
            changed_at=clock.now(),
            version=c.version + 1,
        )
        # One key a statement: a list of keys may be looked for by scanning the table, waiting for every row's lock.
        self._delete = sa.delete(tables.claims).where(c.id == sa.bindparam("key"))
        self._delete_amounts = sa.delete(tables.allocations).where(a.claim == sa.bindparam("key"))

    def place(
        self, connection: sa.Connection, claims: Iterable[tuple[NewClaim, str | None]], now: int
    ) -> dict[str, int]:
        """Insert the rows of new claims (each with its parent's own id), parents first; the keys of those inserted.

        An id (or a live external id) that another transaction is just inserting is waited for here, at the unique
        key, before any counter is locked: whoever repeats a request in doubt learns its outcome.
        """
        rows = [
            {
                "claim_id": claim.id,
                "project_id": claim.project,
                "user_id": claim.user,
                "parent_id": parent,
                "external_id": claim.external_id,
                "live_external_id": claim.external_id,
                "state": "provisioned" if claim.expires_in is None else "reserved",
                "expires_at": None if claim.expires_in is None else now + claim.expires_in,
                "ended_at": None,
                "fingerprint": claim.fingerprint,
                "children": 0,
                "version": 0,
            }
            for claim, parent in _parents_first(claims)
        ]
        if not rows:
            return {}
        # One row goes as one: SQLAlchemy's way with many costs more.
        placed = connection.execute(self._insert, rows if len(rows) > 1 else rows[0])
        return {row.claim_id: row.id for row in placed}

    def remove(self, connection: sa.Connection, keys: Sequence[int]) -> None:
        """Delete the rows of a refused claim, which leaves no trace, or of a pruned one."""
        if keys:
            rows = [{"key": key} for key in sorted(keys)]
            connection.execute(self._delete_amounts, rows)
            connection.execute(self._delete, rows)

    def write(self, connection: sa.Connection, entries: Iterable[Entry]) -> None:
        """Write what became of claims whose rows are locked."""
        new, ended, moved, changed, grown = [], [], [], [], []
        for entry in entries:
            if entry.new:
                new.append(entry)
            if entry.children_added:
                grown.append({"key": entry.key, "added": entry.children_added})
            if entry.moved:
                moved.append(entry)
            if entry.ended and entry.changed:
                ended.append(entry)
            elif entry.changed:
                changed.append(entry)
        self._write_amounts(connection, new, [entry for entry in changed if entry.resized and not entry.new])
        if grown:
            connection.execute(self._grow, sorted(grown, key=lambda row: row["key"]))
        self._write_by_group(connection, self._move_groups(moved))
        if changed:
            connection.execute(self._change, [self._changed_row(entry) for entry in changed])
        self._write_by_group(
            connection,
            [(self._end[state], {}, [e.key for e in ended if e.state == state]) for state in self._end],
        )

    def _write_by_group(
        self, connection: sa.Connection, groups: Iterable[tuple[sa.Update, dict[str, Any], list[int]]]
    ) -> None:
        for statement, values, keys in groups:
            for part in chunks(sorted(keys)):
                connection.execute(statement, {**values, "keys": part})

    def _move_groups(self, moved: Iterable[Entry]) -> list[tuple[sa.Update, dict[str, Any], list[int]]]:
        owners: dict[tuple[str | None, str | None], list[int]] = defaultdict(list)
        for entry in moved:
            owners[entry.project, entry.user].append(entry.key)
        return [(self._move, {"project": p, "user": u}, keys) for (p, u), keys in owners.items()]

    @staticmethod
    def _changed_row(entry: Entry) -> dict[str, Any]:
        return {
            "key": entry.key,
            "new_state": entry.state,
            "new_expiry": entry.expires_at,
            "new_external": entry.external_id,
            "new_live_external": entry.external_id,
        }

    def _write_amounts(
        self, connection: sa.Connection, new: Sequence[Entry], resized: Sequence[Entry]
    ) -> None:
        if resized:
            connection.execute(self._delete_amounts, [{"key": entry.key} for entry in resized])
        rows = [
            {"claim": entry.key, "resource_id": self._definitions.id_of(connection, name), "amount": amount}
            for entry in (*new, *resized)
            for name, amount in entry.resources.items()
        ]
        for part in chunks(rows, _AMOUNTS):
            values = {f"{column}{n}": value for n, row in enumerate(part) for column, value in row.items()}
            connection.execute(self._insert_amounts(connection.dialect, len(part)), values)

    def _build_insert_amounts(self, dialect: sa.Dialect, count: int) -> sa.TextClause:
        """As text: SQLAlchemy compiles an INSERT of several rows anew each time, which cost more than running it."""
        columns = [column.name for column in self._allocations.c]
        table = dialect.identifier_preparer.format_table(self._allocations).replace(":", "\\:")
        rows = (f"({', '.join(f':{column}{n}' for column in columns)})" for n in range(count))
        return sa.text(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join(rows)}")  # noqa: S608 - our own names


def _parents_first(claims: Iterable[tuple[NewClaim, str | None]]) -> list[tuple[NewClaim, str | None]]:
    """By generation, then by id: rows are locked by number, and whoever locks a tree begins at its root."""
    listed = list(claims)
    depth: dict[str, int] = {}
    for claim, parent in listed:  # a parent in the list stands before its children
        depth[claim.id] = 0 if parent is None else depth.get(parent, -1) + 1
    return sorted(listed, key=lambda pair: (depth[pair[0].id], pair[0].id))
