"""Rows of claims: finding and locking them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engines.records import Entry
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.ground import Ground

__all__ = ["Claims"]


class Claims:
    """Finds the claims of one store. Statements are built once; calls only bind values."""

    def __init__(self, ground: Ground) -> None:
        tables, database, clock = ground.tables, ground.database, ground.clock
        self._database = ground.database
        self._definitions = ground.definitions
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
            c.created_at,
            c.changed_at,
        )
        rows = sa.select(*self.columns)
        name: sa.BindParameter[str] = sa.bindparam("name")
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
        self._resolve_external = sa.select(c.id).where(
            c.external_id.in_(sa.bindparam("names", expanding=True))
        )
        self._in_use = sa.union_all(
            sa.select(c.claim_id).where(c.claim_id.in_(sa.bindparam("names", expanding=True))),
            sa.select(c.live_external_id).where(
                c.live_external_id.in_(sa.bindparam("names", expanding=True))
            ),
        )
        self._read_keys = rows.where(keys).order_by(c.id)
        self._children = sa.select(c.id, c.claim_id, c.children).where(
            c.parent_id.in_(sa.bindparam("parents", expanding=True))
        )
        self._amounts = database.current(
            sa.select(a.claim, a.resource_id, a.amount).where(
                a.claim.in_(sa.bindparam("keys", expanding=True))
            )
        )

    def now(self, connection: sa.Connection) -> int:
        """The database's clock, in microseconds since 1970."""
        return int(connection.execute(self._now).scalar_one())

    def find(self, connection: sa.Connection, name: str, *, lock: bool) -> Entry | None:
        """A claim by its own id, by the external id of a live one, or of the last that had it."""
        for statement in self._find.values():
            entry = self._first(connection, self._database.locked(statement) if lock else statement, name)
            if entry is not None:
                return entry
        return None

    def replayed(self, connection: sa.Connection, id: str) -> Entry | None:
        """The claim that has this as its own id, held as it is.

        Shared: the attempt to insert the same id holds the row like that already, on MariaDB, and two requests that
        are repeated at once must not wait for each other.
        """
        return self._first(connection, self._database.locked(self._find["own id"], share=True), id)

    def holder(self, connection: sa.Connection, external_id: str) -> Entry | None:
        """The unswept claim that holds an external id; not locked."""
        return self._first(connection, self._database.current(self._find["live external id"]), external_id)

    def _first(self, connection: sa.Connection, statement: sa.Select[Any], name: str) -> Entry | None:
        row = connection.execute(statement, {"name": name}).first()
        return None if row is None else self.with_amounts(connection, [row])[0]

    def named(self, connection: sa.Connection, names: Sequence[str]) -> list[Entry]:
        """Every claim that has one of these as its id or external id, live or ended; not locked."""
        keys: set[int] = set()
        for part in chunks(names):
            keys.update(row.id for row in connection.execute(self._resolve, {"names": part}))
            keys.update(connection.scalars(self._resolve_external, {"names": part}))
        rows: list[Any] = []
        for found in chunks(sorted(keys)):
            rows.extend(connection.execute(self._read_keys, {"keys": found}))
        return self.with_amounts(connection, rows)

    def in_use(self, connection: sa.Connection, names: Iterable[str]) -> set[str]:
        """Those of these names that no new claim can have: ids of claims, and external ids of live ones."""
        used: set[str] = set()
        for part in chunks(sorted(names)):
            used.update(connection.scalars(self._in_use, {"names": part}))
        return used

    def lock_named(self, connection: sa.Connection, names: Iterable[str], *, joined: bool) -> list[Entry]:
        """Lock the claims of these ids or external ids that exist, in order of their rows."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        lagging = joined and self._database.plain_reads_lag
        if len(wanted) == 1 and not lagging:
            entry = self.find(connection, wanted[0], lock=True)
            return [] if entry is None else [entry]
        keys = self._keys_of(connection, wanted)
        locked = self.lock_keys(connection, keys.values())
        if lagging:
            locked += self._lock_unseen(connection, wanted, keys, locked)
        return locked

    def _keys_of(self, connection: sa.Connection, names: Sequence[str]) -> dict[str, int]:
        """Found without locks: a locking search for what is not there would lock the gap where others insert."""
        keys = {}
        for part in chunks(names):
            for row in connection.execute(self._resolve, {"names": part}):
                keys[row.claim_id] = row.id
        for name in names:
            if name not in keys and (entry := self.find(connection, name, lock=False)) is not None:
                keys[name] = entry.key
        return keys

    def _lock_unseen(
        self,
        connection: sa.Connection,
        names: Sequence[str],
        keys: Mapping[str, int],
        locked: Sequence[Entry],
    ) -> list[Entry]:
        """What a snapshot does not show, or shows under a name it no longer has: searched for in the present."""
        present = {entry.key: entry for entry in locked}
        unseen = [name for name in names if not _still_called(name, present.get(keys.get(name, 0)))]
        found = (self.find(connection, name, lock=True) for name in unseen)
        return [entry for entry in found if entry is not None and entry.key not in present]

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
        # Where a read of the present locks, it comes second: rows are locked for writing first, in their order.
        present = self._database.current(self._children)
        search = self._children
        while unsearched:
            keys: list[int] = []
            level = unsearched
            while level:
                rows = [
                    row for part in chunks(level) for row in connection.execute(search, {"parents": part})
                ]
                keys.extend(row.id for row in rows if row.claim_id not in known)
                level = [row.claim_id for row in rows if row.children and row.claim_id not in known]
            found = [entry for entry in self.lock_keys(connection, keys) if entry.id not in known]
            known.update((entry.id, entry) for entry in found)
            below.extend(found)
            again = bool(found) or search is not present
            unsearched = [entry.id for entry in known.values() if entry.children] if again else []
            search = present
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
            changed_at=max(row.created_at, row.changed_at),
        )


def _still_called(name: str, entry: Entry | None) -> bool:
    return entry is not None and (entry.id == name or (entry.external_id == name and not entry.ended))
