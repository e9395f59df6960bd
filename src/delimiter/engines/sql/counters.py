"""Counters: which ones a claim is charged to, making them, locking them in order, adding to them.

A claim's way through the scopes is worked out once and remembered with the generation of the counter it starts from.
What is remembered may be old: the locked row tells, because every change of the way raises the generation of the
counters it begins at. Limits are not remembered at all; they stand on the locked rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from delimiter.engines.records import Counter
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.schema import Tables
from delimiter.errors import Conflict
from delimiter.model import Scope

__all__ = ["Counters", "Outdated"]

#: Ways read by one statement: each is a term of its WHERE, of which SQLite takes no more than a thousand.
_STARTS: Final = 200

#: Ways remembered; beyond that all are forgotten and found again.
_MOST_REMEMBERED: Final = 100_000

#: Where a way begins: a resource, and the project or user that is charged first.
Start: TypeAlias = tuple[str, Scope]


class Outdated(Exception):
    """A remembered way is no longer the way. It has been forgotten: work it out again, in a new transaction."""


@dataclass(frozen=True, slots=True)
class _Way:
    """From a project's or user's own counter to those above it that limit it too."""

    own: int
    generation: int
    above: tuple[int, ...]


class Counters:
    """The counters of one store. Statements are built once; calls only bind values."""

    def __init__(self, tables: Tables, database: Database, definitions: Definitions) -> None:
        self._table = tables.counters
        self._limits = tables.limits
        self._database = database
        self._definitions = definitions
        self._ways: dict[Start, _Way] = {}
        #: Counters made in transactions that are still open: nobody else sees them, and they may be rolled back.
        self._made: WeakKeyDictionary[Any, set[Start]] = WeakKeyDictionary()
        c = tables.counters.c
        by_id = sa.select(
            c.id, c.resource_id, c.kind, c.scope, c.used, c.reserved, c.maximum, c.minimum, c.generation
        ).where(c.id.in_(sa.bindparam("ids", expanding=True)))
        by_id = database.by_key(by_id.order_by(c.id), tables.counters)
        # One global order, by a number: no two operations can wait for each other.
        self._lock = database.locked(by_id)
        self._try_lock = database.locked(by_id, skip_locked=True)
        self._insert = database.insert_ignoring(tables.counters)
        self._own_limit = database.locked(
            sa.select(tables.limits.c.maximum, tables.limits.c.minimum).where(
                tables.limits.c.resource_id == sa.bindparam("resource_id"),
                tables.limits.c.kind == sa.bindparam("kind"),
                tables.limits.c.scope == sa.bindparam("scope"),
            ),
            share=True,
        )
        # Cached per number of rows: the text of a statement must not be built at every claim.
        self._add_statement = lru_cache(maxsize=256)(self._build_add)

    # -- which --------------------------------------------------------------------------------------------------

    def ways(self, connection: sa.Connection, starts: Iterable[Start]) -> dict[Start, _Way]:
        """Work out (or remember) the ways from these starts; make the counters that are missing."""
        wanted = set(starts)
        found = {start: way for start in wanted if (way := self._ways.get(start)) is not None}
        missing = wanted - found.keys()
        if not missing:
            return found
        read = self._read_ways(connection, missing)
        found.update(read)
        unmade = missing - read.keys()
        if not unmade:
            made = self._made.get(connection.get_transaction(), ())
            self._remember({start: way for start, way in read.items() if start not in made})
            return found
        self._made.setdefault(connection.get_transaction(), set()).update(unmade)
        self._make(connection, unmade)
        # All of them again: the definitions are locked only now, and a way read before may be old already. What this
        # transaction made is not remembered: if it is rolled back, the counters are gone too.
        found.update(self._read_ways(connection, missing))
        if missing - found.keys():
            raise Outdated  # made, and not to be seen: a snapshot from before
        return found

    def _remember(self, ways: Mapping[Start, _Way]) -> None:
        if len(self._ways) > _MOST_REMEMBERED:
            self._ways.clear()
        self._ways.update(ways)

    def forget(self, starts: Iterable[Start]) -> None:
        for start in starts:
            self._ways.pop(start, None)

    def _read_ways(self, connection: sa.Connection, starts: Iterable[Start]) -> dict[Start, _Way]:
        found: dict[Start, _Way] = {}
        for part in chunks(sorted(starts), _STARTS):
            found.update(self._read_some_ways(connection, part))
        return found

    def _read_some_ways(self, connection: sa.Connection, starts: Sequence[Start]) -> dict[Start, _Way]:
        """One statement, so that a counter's generation and the counters above it are of the same moment."""
        by_resource: dict[int, set[tuple[str, str]]] = {}
        names: dict[int, str] = {}
        for resource, scope in starts:
            id = self._definitions.id_of(connection, resource)
            names[id] = resource
            by_resource.setdefault(id, {("total", "")}).add((scope.kind, scope.name))
        c = self._table.c
        wanted = (
            sa.and_(c.resource_id == id, c.kind == kind, c.scope == scope)
            for id, scopes in sorted(by_resource.items())
            for kind, scope in sorted(scopes)
        )
        rows = connection.execute(
            sa.select(c.id, c.resource_id, c.kind, c.scope, c.generation).where(sa.or_(*wanted))
        ).all()
        totals = {row.resource_id: row.id for row in rows if row.kind == "total"}
        return {
            (names[row.resource_id], Scope(row.kind, row.scope)): _Way(
                row.id, row.generation, (totals[row.resource_id],) if row.resource_id in totals else ()
            )
            for row in rows
            if row.kind != "total"
        }

    def _make(self, connection: sa.Connection, starts: Iterable[Start]) -> None:
        """The first claim of a scope makes its counter, from limits that nobody changes meanwhile.

        The definition's row is share-locked until the transaction ends: a change of limits waits for it, and then
        finds the new counter. All are made before any counter is locked, in one order.
        """
        definitions = self._definitions.locked(connection, sorted({resource for resource, _ in starts}))
        if self._database.plain_reads_lag and not self._definitions.are_seen(
            connection, definitions.values()
        ):
            raise Conflict("limits have changed since the transaction's snapshot; start it anew")
        for resource, scope in sorted(starts):
            definition = definitions[resource]
            own = connection.execute(
                self._own_limit, {"resource_id": definition.id, "kind": scope.kind, "scope": scope.name}
            ).first()
            maximum, minimum = definition.resource.default(scope.kind)
            connection.execute(
                self._insert,
                {
                    "resource_id": definition.id,
                    "kind": scope.kind,
                    "scope": scope.name,
                    "used": 0,
                    "reserved": 0,
                    "maximum": maximum if own is None or own.maximum is None else own.maximum,
                    "minimum": minimum if own is None or own.minimum is None else own.minimum,
                    # A rolled-back counter's number may be given again; then its generation must not be.
                    "generation": definition.version,
                },
            )

    # -- locking and adding -------------------------------------------------------------------------------------

    def lock(self, connection: sa.Connection, ways: Mapping[Start, _Way], *, wait: bool = True) -> Charged:
        """Lock every counter on these ways; :class:`Outdated` if one of the ways is not the way any more.

        With ``wait=False`` a counter that another transaction holds makes it ``Outdated`` too.
        """
        ids = sorted({id for way in ways.values() for id in (way.own, *way.above)})
        statement = self._lock if wait else self._try_lock
        rows: dict[int, Any] = {}
        for part in chunks(ids):
            rows.update((row.id, row) for row in connection.execute(statement, {"ids": part}))
        if not all(self._is_way(connection, start, way, rows) for start, way in ways.items()):
            self.forget(ways)
            raise Outdated
        counters = {id: self._counter(connection, row) for id, row in rows.items()}
        return Charged({start: [counters[id] for id in (way.own, *way.above)] for start, way in ways.items()})

    def _is_way(self, connection: sa.Connection, start: Start, way: _Way, rows: Mapping[int, Any]) -> bool:
        own = rows.get(way.own)
        resource, scope = start
        return (
            own is not None
            and own.generation == way.generation
            # A number can be given again after the transaction that drew it was rolled back: is it still this scope?
            and (own.kind, own.scope) == scope
            and own.resource_id == self._definitions.id_of(connection, resource)
            and all(id in rows for id in way.above)
        )

    def _counter(self, connection: sa.Connection, row: Any) -> Counter:
        return Counter(
            key=row.id,
            resource=self._definitions.name_of(connection, row.resource_id),
            scope=Scope(row.kind, row.scope),
            limit=row.maximum,
            floor=row.minimum,
            used=row.used,
            reserved=row.reserved,
        )

    def add(self, connection: sa.Connection, counters: Iterable[Counter]) -> None:
        """Write what was decided, onto the value that stands on the row."""
        changed = [counter for counter in counters if counter.used_change or counter.reserved_change]
        for part in chunks(changed):
            both = any(counter.reserved_change for counter in part)
            values: dict[str, int] = {}
            for number, counter in enumerate(part):
                values[f"id{number}"] = counter.key
                values[f"used{number}"] = counter.used_change
                if both:
                    values[f"reserved{number}"] = counter.reserved_change
            connection.execute(self._add_statement(len(part), both), values)

    def _build_add(self, count: int, both: bool) -> sa.Update:  # noqa: FBT001 - lru_cache keys are positional
        c = self._table.c
        ids = [sa.bindparam(f"id{number}", type_=sa.BigInteger) for number in range(count)]

        def by_id(column: str) -> sa.ColumnElement[int]:
            changes = [(id, sa.bindparam(f"{column}{n}", type_=sa.BigInteger)) for n, id in enumerate(ids)]
            return sa.case(*((c.id == id, change) for id, change in changes), else_=0)

        values: dict[Any, Any] = {c.used: c.used + by_id("used")}
        if both:
            values[c.reserved] = c.reserved + by_id("reserved")
        return self._database.by_key(sa.update(self._table).where(c.id.in_(ids)).values(values), self._table)


class Charged:
    """The locked counters, by owner: where a claim's charges go."""

    def __init__(self, paths: Mapping[Start, Sequence[Counter]]) -> None:
        self._paths = paths

    def path(self, resource: str, project: str | None, user: str | None) -> list[Counter]:
        """The counters of one resource and owner; what project and user share is charged once."""
        found: dict[int, Counter] = {}
        for scope in Scope.owned(project, user):
            for counter in self._paths[resource, scope]:
                found[counter.key] = counter
        return list(found.values())

    def all(self) -> list[Counter]:
        return list({counter.key: counter for path in self._paths.values() for counter in path}.values())
