"""Rows of claims: finding and locking them, placing new ones, writing what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engine import NewClaim
from delimiter.engines.records import Entry
from delimiter.engines.sql.databases import Clock, Database
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.schema import Tables

__all__ = ["Claims", "chunks"]

#: Rows named in one statement.
_CHUNK: Final = 400

#: Rows written by one statement.
_AMOUNTS: Final = 100


def chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))


class Claims:
    """The claims of one store. Statements are built once; calls only bind values."""

    def __init__(self, tables: Tables, database: Database, clock: Clock, definitions: Definitions) -> None:
        self._table = tables.claims
        self._allocations = tables.allocations
        self._database = database
        self._definitions = definitions
        c, a = tables.claims.c, tables.allocations.c
        self.columns: Final = (
            c.id,
            c.claim_id,
            c.project_id,
            c.user_id,
            c.parent_id,
            c.external_id,
            c.state,
            c.expires_at,
            c.ended_at,
            c.fingerprint,
            c.children,
        )
        rows = sa.select(*self.columns)
        name: sa.BindParameter[str] = sa.bindparam("name")
        self._clock = clock
        self._now = sa.select(clock.now())
        self._find = {
            "own id": rows.where(c.claim_id == name),
            "live external id": rows.where(c.live_external_id == name),
            "external id": rows.where(c.external_id == name)
            .order_by(c.ended_at.desc(), c.id.desc())
            .limit(1),
        }
        keys = c.id.in_(sa.bindparam("keys", expanding=True))
        self._lock_keys = database.locked(database.by_key(rows.where(keys).order_by(c.id), tables.claims))
        self._resolve = sa.select(c.id, c.claim_id).where(
            c.claim_id.in_(sa.bindparam("names", expanding=True))
        )
        self._children = sa.select(c.id, c.claim_id, c.children).where(
            c.parent_id.in_(sa.bindparam("parents", expanding=True))
        )
        self._amounts = database.current(
            sa.select(a.claim, a.resource_id, a.amount).where(
                a.claim.in_(sa.bindparam("keys", expanding=True))
            )
        )
        self._build_writes(keys)

    def _build_writes(self, keys: sa.ColumnElement[bool]) -> None:
        c, a, by_key = self._table.c, self._allocations.c, self._database.by_key
        self._insert = (
            self._database.insert_ignoring(self._table)
            .values(created_at=self._clock.now())
            .returning(c.id, c.claim_id)
        )
        # Cached per number of rows: one statement for all, whose text is not built at every claim.
        self._insert_amounts = lru_cache(maxsize=128)(self._build_insert_amounts)
        # Kept in this order: MariaDB assigns from left to right, and the moment of expiry must move before it goes.
        end = by_key(sa.update(self._table).where(keys), self._table)
        self._end = {
            "expired": end.ordered_values(
                (c.ended_at, c.expires_at),
                (c.state, "expired"),
                (c.expires_at, None),
                (c.live_external_id, None),
                (c.version, c.version + 1),
            ),
            "released": end.ordered_values(
                (c.ended_at, self._clock.now()),
                (c.state, "released"),
                (c.expires_at, None),
                (c.live_external_id, None),
                (c.version, c.version + 1),
            ),
        }
        self._move = end.values(
            project_id=sa.bindparam("project"), user_id=sa.bindparam("user"), version=c.version + 1
        )
        self._grow = by_key(sa.update(self._table).where(c.id == sa.bindparam("key")), self._table).values(
            children=c.children + sa.bindparam("added"), version=c.version + 1
        )
        self._change = by_key(sa.update(self._table).where(c.id == sa.bindparam("key")), self._table).values(
            state=sa.bindparam("new_state"),
            expires_at=sa.bindparam("new_expiry"),
            external_id=sa.bindparam("new_external"),
            live_external_id=sa.bindparam("new_live_external"),
            version=c.version + 1,
        )
        # One key a statement: a list of keys may be looked for by scanning the table, waiting for every row's lock.
        self._delete = sa.delete(self._table).where(c.id == sa.bindparam("key"))
        self._delete_amounts = sa.delete(self._allocations).where(a.claim == sa.bindparam("key"))

    def now(self, connection: sa.Connection) -> int:
        """The database's clock, in microseconds since 1970."""
        return int(connection.execute(self._now).scalar_one())

    # -- finding ------------------------------------------------------------------------------------------------

    def find(self, connection: sa.Connection, name: str, *, lock: bool) -> Entry | None:
        """A claim by its own id, by the external id of a live one, or of the last that had it."""
        for statement in self._find.values():
            entry = self._first(connection, self._database.locked(statement) if lock else statement, name)
            if entry is not None:
                return entry
        return None

    def lock_own(self, connection: sa.Connection, id: str) -> Entry | None:
        """Lock the claim that has this as its own id."""
        return self._first(connection, self._database.locked(self._find["own id"]), id)

    def holder(self, connection: sa.Connection, external_id: str) -> Entry | None:
        """The unswept claim that holds an external id; not locked."""
        return self._first(connection, self._database.current(self._find["live external id"]), external_id)

    def _first(self, connection: sa.Connection, statement: sa.Select[Any], name: str) -> Entry | None:
        row = connection.execute(statement, {"name": name}).first()
        return None if row is None else self.with_amounts(connection, [row])[0]

    def lock_named(self, connection: sa.Connection, names: Iterable[str]) -> list[Entry]:
        """Lock the claims of these ids or external ids that exist, in order of their rows."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        if len(wanted) == 1:
            entry = self.find(connection, wanted[0], lock=True)
            return [] if entry is None else [entry]
        keys = {}
        for part in chunks(wanted):
            for row in connection.execute(self._resolve, {"names": part}):
                keys[row.claim_id] = row.id
        for name in wanted:
            if name not in keys and (entry := self.find(connection, name, lock=False)) is not None:
                keys[name] = entry.key
        return self.lock_keys(connection, keys.values())

    def lock_keys(self, connection: sa.Connection, keys: Iterable[int]) -> list[Entry]:
        rows: list[Any] = []
        for part in chunks(sorted(set(keys))):
            rows.extend(connection.execute(self._lock_keys, {"keys": part}).all())
        return self.with_amounts(connection, rows)

    def lock_below(self, connection: sa.Connection, roots: Iterable[Entry]) -> list[Entry]:
        """Lock everything below claims that are locked already; a new child would have to write their rows.

        Found first without locks, level by level, then locked in one order, then looked for again: what came in
        between is locked too. A claim that never had a child costs nothing.
        """
        known = {entry.id: entry for entry in roots}
        below: list[Entry] = []
        unsearched = [entry.id for entry in known.values() if entry.children]
        while unsearched:
            keys: list[int] = []
            level = unsearched
            while level:
                rows = [
                    row
                    for part in chunks(level)
                    for row in connection.execute(self._database.current(self._children), {"parents": part})
                ]
                keys.extend(row.id for row in rows if row.claim_id not in known)
                level = [row.claim_id for row in rows if row.children and row.claim_id not in known]
            found = [entry for entry in self.lock_keys(connection, keys) if entry.id not in known]
            known.update((entry.id, entry) for entry in found)
            below.extend(found)
            unsearched = [entry.id for entry in known.values() if entry.children] if found else []
        return below

    def with_amounts(self, connection: sa.Connection, rows: Sequence[Any]) -> list[Entry]:
        amounts = self._amounts_of(connection, [row.id for row in rows])
        return [self.entry_of(row, amounts[row.id]) for row in rows]

    def _amounts_of(self, connection: sa.Connection, keys: Sequence[int]) -> dict[int, dict[str, int]]:
        found: dict[int, dict[str, int]] = defaultdict(dict)
        for part in chunks(keys):
            for row in connection.execute(self._amounts, {"keys": part}).all():
                found[row.claim][self._definitions.name_of(connection, row.resource_id)] = row.amount
        return found

    @staticmethod
    def entry_of(row: Any, amounts: Mapping[str, int]) -> Entry:
        return Entry(
            id=row.claim_id,
            resources=dict(sorted(amounts.items())),
            project=row.project_id,
            user=row.user_id,
            parent=row.parent_id,
            external_id=row.external_id,
            state=row.state,
            expires_at=row.expires_at,
            ended_at=row.ended_at,
            fingerprint=row.fingerprint,
            key=row.id,
            children=row.children,
        )

    # -- writing ------------------------------------------------------------------------------------------------

    def place(
        self, connection: sa.Connection, claims: Iterable[tuple[NewClaim, str | None]], now: int
    ) -> dict[str, int]:
        """Insert the rows of new claims (each with its parent's own id), in order of id; the keys of those inserted.

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
            for claim, parent in sorted(claims, key=lambda pair: pair[0].id)
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
        for at in range(0, len(rows), _AMOUNTS):
            part = rows[at : at + _AMOUNTS]
            values = {f"{column}{n}": value for n, row in enumerate(part) for column, value in row.items()}
            connection.execute(self._insert_amounts(connection.dialect, len(part)), values)

    def _build_insert_amounts(self, dialect: sa.Dialect, count: int) -> sa.TextClause:
        """As text: SQLAlchemy compiles an INSERT of several rows anew each time, which cost more than running it."""
        columns = [column.name for column in self._allocations.c]
        table = dialect.identifier_preparer.format_table(self._allocations).replace(":", "\\:")
        rows = (f"({', '.join(f':{column}{n}' for column in columns)})" for n in range(count))
        return sa.text(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join(rows)}")  # noqa: S608 - our own names
