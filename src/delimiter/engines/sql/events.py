"""Events: written in the transaction of the change that makes them, numbered when they are first read.

A number drawn at the insert would show a reader 8 before 7, if 7 commits later, and the reader would never see 7. So
an event has none at first; whoever reads takes a lock, numbers what has been committed, and commits. The change itself
touches nothing that others wait for: it inserts rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from delimiter.engines.records import instant
from delimiter.engines.sql.databases import Clock, Database
from delimiter.engines.sql.schema import Tables
from delimiter.model import UNLIMITED, Event, EventKind, Scope

__all__ = ["EventLog", "Standing"]

#: Events numbered in one transaction.
_AT_ONCE: Final = 500


class Standing(NamedTuple):
    """A scope's limit and what it uses, at one moment."""

    limit: int
    used: int
    #: Of a counted resource, how it stood when somebody last looked: what was used then, no one knows.
    noticed: bool | None = None

    @property
    def over(self) -> bool:
        if self.noticed is not None:
            return self.noticed
        return self.limit != UNLIMITED and self.used > self.limit


class EventLog:
    """The events of one store."""

    def __init__(self, tables: Tables, database: Database, clock: Clock) -> None:
        self._database = database
        #: The channel on which a database that can do so tells its listeners.
        self.channel = f"{tables.prefix}events"
        e, n = tables.events.c, tables.numbering.c
        self._insert = sa.insert(tables.events).values(at=clock.now())
        self._notify = sa.select(sa.func.pg_notify(self.channel, ""))
        self._lock_numbering = database.locked(sa.select(n.last_seq).where(n.id == 1))
        self._unnumbered = sa.select(e.id).where(e.seq.is_(None)).order_by(e.id).limit(_AT_ONCE)
        self._any_unnumbered = sa.select(e.id).where(e.seq.is_(None)).limit(1)
        self._number = database.by_key(
            sa.update(tables.events).where(e.id == sa.bindparam("key")).values(seq=sa.bindparam("number")),
            tables.events,
        )
        self._numbered = sa.update(tables.numbering).where(n.id == 1).values(last_seq=sa.bindparam("last"))
        self._page = (
            sa.select(tables.events)
            .where(e.seq > sa.bindparam("after"))
            .order_by(e.seq)
            .limit(sa.bindparam("size"))
        )
        due = e.at <= clock.now() - sa.bindparam("age", type_=sa.BigInteger)
        old = sa.select(e.id).where(e.seq.is_not(None), due).order_by(e.seq).limit(sa.bindparam("size"))
        self._old = database.locked(old, skip_locked=True)
        self._forget = sa.delete(tables.events).where(e.id == sa.bindparam("key"))
        self._last = sa.select(n.last_seq).where(n.id == 1)

    # -- writing ------------------------------------------------------------------------------------------------

    def limit_changed(
        self, connection: sa.Connection, resource: str, scope: str, before: int, after: int, used: int | None
    ) -> None:
        if before != after:
            self._write(connection, [_row("limit_changed", resource, scope, after, before, used)])

    def crossed(
        self, connection: sa.Connection, standings: Iterable[tuple[str, Scope, Standing, Standing]]
    ) -> None:
        """Tell of those (resource, scope, before, after) who have come to hold more than their limit, or no longer do.

        Both are of the locked row, so each crossing is told by the one who made it, and once.
        """
        rows = []
        for resource, scope, before, after in standings:
            if before.over != after.over:
                kind: EventKind = "over_quota" if after.over else "back_within_quota"
                rows.append(_row(kind, resource, str(scope), after.limit, before.limit, after.used))
        self._write(connection, rows)

    def _write(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
        if rows:
            connection.execute(self._insert, rows)
            if self._database.notifies:
                connection.execute(self._notify)

    # -- reading ------------------------------------------------------------------------------------------------

    def all_numbered(self, connection: sa.Connection) -> bool:
        return connection.execute(self._any_unnumbered).first() is None

    def number(self, connection: sa.Connection) -> bool:
        """Number some of those that were committed since, in a transaction of its own; whether there may be more."""
        last = connection.execute(self._lock_numbering).scalar_one()
        keys = list(connection.scalars(self._unnumbered))
        if keys:
            rows = [{"key": key, "number": last + place} for place, key in enumerate(keys, start=1)]
            connection.execute(self._number, rows)
            connection.execute(self._numbered, {"last": last + len(keys)})
        return len(keys) == _AT_ONCE

    def page(self, connection: sa.Connection, *, after: int, size: int) -> list[Event]:
        rows = connection.execute(self._page, {"after": after, "size": size})
        return [
            Event(
                seq=row.seq,
                kind=row.kind,
                resource=row.resource,
                scope=row.scope,
                limit=row.maximum,
                previous_limit=row.previous,
                used=row.used,
                at=instant(row.at),
            )
            for row in rows
        ]

    def prune(self, connection: sa.Connection, *, older_than: int, size: int) -> int:
        """Forget some that were read long ago, the oldest first; how many."""
        keys = list(connection.scalars(self._old, {"age": older_than, "size": size}))
        if keys:
            connection.execute(self._forget, [{"key": key} for key in sorted(keys)])
        return len(keys)

    def last(self, connection: sa.Connection) -> int:
        return int(connection.execute(self._last).scalar_one())


def _row(
    kind: EventKind, resource: str, scope: str, limit: int, previous: int, used: int | None
) -> dict[str, Any]:
    return {
        "seq": None,
        "kind": kind,
        "resource": resource,
        "scope": scope,
        "maximum": limit,
        "previous": previous,
        "used": used,
    }
