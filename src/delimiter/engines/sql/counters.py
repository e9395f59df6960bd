"""Counters: which ones a claim is charged to, making them, locking them in order, adding to them.

A claim's way through the scopes is worked out once and remembered with the generation of the counter it starts from.
What is remembered may be old: the locked row tells, because every change of the way raises the generation of the
counters it begins at. Limits are not remembered at all; they stand on the locked rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from functools import lru_cache, partial
from typing import Any, Final
from weakref import WeakSet

import sqlalchemy as sa

from delimiter.engines.records import Counter
from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.definitions import Definition
from delimiter.engines.sql.events import Standing
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.ways import Charged, Outdated, Start, Way, WayReader
from delimiter.errors import Conflict
from delimiter.model import UNLIMITED, Resource, Scope
from delimiter.refusals import counted_not_claimed

__all__ = ["Counters", "effective", "is_limited"]

#: Ways remembered; beyond that all are forgotten and found again.
_MOST_REMEMBERED: Final = 100_000


class Counters:
    """The counters of one store. Statements are built once; calls only bind values."""

    def __init__(self, ground: Ground) -> None:
        tables, database = ground.tables, ground.database
        self._limits = tables.limits
        self._database = ground.database
        self._definitions = ground.definitions
        self._projects = ground.projects
        self._events = ground.events
        self._ways: dict[Start, Way] = {}
        #: Grows after a remembered way was forgotten or replaced: what was worked out from it before is old then. (If
        #: it grew first, another thread could take what is still there for what is there from now on.)
        self.epoch = 0
        c = tables.counters.c
        columns = [column for column in c if column.name not in ("used_below", "reserved_below")]
        by_id = sa.select(*columns).where(c.id.in_(sa.bindparam("ids", expanding=True)))
        by_id = database.by_key(by_id.order_by(c.id), tables.counters)
        self._look = by_id
        # One global order, by a number: no two operations can wait for each other.
        self._lock = database.locked(by_id)
        self._try_lock = database.locked(by_id, skip_locked=True)
        self._insert = database.insert_ignoring(tables.counters)
        self._reader = WayReader(tables, ground.definitions, ground.projects)
        # Cached per number of rows and columns: the text of a statement must not be built at every claim.
        self._add_statement = lru_cache(maxsize=256)(partial(_adding, database, tables.counters))

    # -- which --------------------------------------------------------------------------------------------------

    def ways(
        self,
        connection: sa.Connection,
        starts: Iterable[Start],
        *,
        held: Set[int] = frozenset(),
        charged: bool = False,
    ) -> dict[Start, Way]:
        """Work out (or remember) the ways from these starts; make the counters that are missing.

        ``held`` are counters that the transaction has locked already, in vain. ``charged``: a claim is charged to each
        of the starts, so that none is missing.
        """
        wanted = set(starts)
        found = {start: way for start in wanted if (way := self._ways.get(start)) is not None}
        missing = wanted - found.keys()
        if not missing:
            return found
        if not (held or charged):
            self._projects.queue(connection)
        read = self._read(connection, missing)
        found.update(read)
        unmade = missing - read.keys()
        if unmade:
            if held:
                raise out_of_order()
            self.change_in(connection)
            self._make(connection, unmade)
            # All of them again: the definitions are locked only now, and a way read before may be old already.
            found.update(self._reader.read(connection, missing))
            if missing - found.keys():
                raise Outdated  # made, and not to be seen: a snapshot from before
        elif connection.get_transaction() not in _changing(connection):
            self._remember(read)
        return found

    def learn(self, connection: sa.Connection, starts: Collection[Start]) -> None:
        """Remember the ways of those that have counters, by a read without locks; the others are left out."""
        names = {resource for resource, _ in starts}
        known = {name for name in names if self._definitions.id_if_known(connection, name) is not None}
        read = self._read(connection, {start for start in starts if start[0] in known})
        if read and connection.get_transaction() not in _changing(connection):
            for name in known:
                self._definitions.id_of(connection, name)
            self._remember(read)

    def _read(self, connection: sa.Connection, starts: Collection[Start]) -> dict[Start, Way]:
        read = self._reader.read(connection, starts)
        # Is one of them counted by now? Not before: whoever begins to count raises the generations that were read.
        self._definitions.look_again({resource for resource, _ in starts})
        return read

    def refuse_counted(self, connection: sa.Connection, resources: Iterable[str]) -> None:
        """What is counted from a table of the service is not claimed."""
        for resource in sorted(set(resources)):
            if self._definitions.is_counted(connection, resource):
                raise counted_not_claimed(resource)

    def change_in(self, connection: sa.Connection) -> None:
        """Remember no way that this transaction sees: numbers and generations that are rolled back are given again."""
        _changing(connection).add(connection.get_transaction())

    def remembered(self, start: Start) -> Way | None:
        return self._ways.get(start)

    def _remember(self, ways: Mapping[Start, Way]) -> None:
        changed = any(self._ways.get(start, way) != way for start, way in ways.items())
        if len(self._ways) > _MOST_REMEMBERED:
            self._ways.clear()
            changed = True  # which of them has changed when it is read again nobody could tell
        self._ways.update(ways)
        if changed:
            self.epoch += 1

    def forget(self, starts: Collection[Start]) -> None:
        for start in starts:
            self._ways.pop(start, None)
        self.epoch += 1
        self._definitions.look_again({resource for resource, _ in starts})

    def _make(self, connection: sa.Connection, starts: Iterable[Start]) -> None:
        """The first claim of a scope makes its counter, from limits and a tree that nobody changes meanwhile.

        So it does for the limited ancestors that have none yet: whoever has a counter has one above it for each of
        those. The tree's and the definition's rows are share-locked until the transaction ends: a change of either
        waits, and then finds the new counter. All are made before any counter is locked, in one order.
        """
        starts = set(starts)
        version = self._projects.share(connection)
        names = sorted({resource for resource, _ in starts})
        definitions = self._definitions.locked(connection, names)
        if self._database.plain_reads_lag and not (
            self._projects.is_seen(connection, version)
            and self._definitions.are_seen(connection, definitions.values())
        ):
            raise Conflict("limits or projects have changed since the transaction's snapshot; start it anew")
        above = self._projects.above(connection, {s.name for _, s in starts if s.kind == "project"})
        ancestors = {
            (resource, Scope("project", ancestor))
            for resource, scope in starts
            if scope.kind == "project"
            for ancestor in above.get(scope.name, ())
        } - starts
        bounds = self.bounds(connection, definitions, starts | ancestors)
        ancestors = {start for start in ancestors if is_limited(*bounds[start])}
        for resource, scope in sorted(starts | self._unmade(connection, ancestors)):
            self.make_one(connection, definitions[resource], scope, bounds[resource, scope])
        if self._database.plain_reads_lag and self._unmade(connection, ancestors):
            raise Conflict("an ancestor's counter is younger than the transaction's snapshot; start it anew")

    def _unmade(self, connection: sa.Connection, starts: Iterable[Start]) -> set[Start]:
        wanted = set(starts)
        return wanted - self._reader.read(connection, wanted).keys() if wanted else wanted

    def bounds(
        self, connection: sa.Connection, definitions: Mapping[str, Definition], starts: Iterable[Start]
    ) -> dict[Start, tuple[int, int]]:
        """The maximum and minimum in force, from the tables of rules: for counters that are not there yet."""
        ids = {definition.id: name for name, definition in definitions.items()}
        wanted = set(starts)
        l = self._limits.c  # noqa: E741
        own: dict[Start, Any] = {}
        for part in chunks(sorted({scope.name for _, scope in wanted})):
            rows = sa.select(self._limits).where(l.resource_id.in_(sorted(ids)), l.scope.in_(part))
            for row in connection.execute(rows):
                own[ids[row.resource_id], Scope(row.kind, row.scope)] = row
        return {
            (name, scope): effective(definitions[name].resource, scope, own.get((name, scope)))
            for name, scope in wanted
        }

    def make_one(
        self,
        connection: sa.Connection,
        definition: Definition,
        scope: Scope,
        bounds: tuple[int, int],
        held: tuple[int, int] = (0, 0),
    ) -> None:
        """A scope's counter. ``held`` is what is charged to it already, and how much of that is reserved.

        To a project it comes from those below it: what it holds itself would have made a counter before.
        """
        below = held if scope.kind == "project" else (0, 0)
        connection.execute(
            self._insert,
            {
                "resource_id": definition.id,
                "kind": scope.kind,
                "scope": scope.name,
                "used": held[0],
                "reserved": held[1],
                "used_below": below[0],
                "reserved_below": below[1],
                "maximum": bounds[0],
                "minimum": bounds[1],
                # A rolled-back counter's number may be given again; then its generation must not be.
                "generation": definition.version,
            },
        )

    # -- locking and adding -------------------------------------------------------------------------------------

    def lock(
        self,
        connection: sa.Connection,
        ways: Mapping[Start, Way],
        *,
        wait: bool = True,
        held: Set[int] = frozenset(),
    ) -> Charged:
        """Lock every counter on these ways; :class:`Outdated` if one of the ways is not the way any more.

        With ``wait=False`` a counter that another transaction holds makes it ``Outdated`` too. ``held`` as above: what
        is locked beside them must come after them, or two transactions could wait for each other.
        """
        if held:
            ids = {id for way in ways.values() for id, _ in way.counters()}
            if any(id < max(held) for id in ids - held):
                raise out_of_order()
        return self._charged(connection, ways, self._lock if wait else self._try_lock, held)

    def look(self, connection: sa.Connection, ways: Mapping[Start, Way]) -> Charged:
        """The same counters without a lock: who goes by them must find them unchanged when it writes them."""
        return self._charged(connection, ways, self._look, frozenset())

    def _charged(
        self, connection: sa.Connection, ways: Mapping[Start, Way], statement: sa.Select[Any], held: Set[int]
    ) -> Charged:
        levels = dict(pair for way in ways.values() for pair in way.counters())
        ids = sorted(levels)
        rows: dict[int, Any] = {}
        for part in chunks(ids):
            rows.update((row.id, row) for row in connection.execute(statement, {"ids": part}))
        if not all(self._is_way(connection, start, way, rows) for start, way in ways.items()):
            self.forget(ways)
            raise Outdated(held | rows.keys())
        counters = {id: self.counter(connection, row, levels[id]) for id, row in rows.items()}
        return Charged({start: [counters[id] for id, _ in way.counters()] for start, way in ways.items()})

    def _is_way(self, connection: sa.Connection, start: Start, way: Way, rows: Mapping[int, Any]) -> bool:
        own = rows.get(way.own)
        resource, scope = start
        return (
            own is not None
            and own.generation == way.generation
            # A number can be given again after the transaction that drew it was rolled back: is it still this scope?
            and (own.kind, own.scope) == scope
            and own.resource_id == self._definitions.id_of(connection, resource)
            and all(id in rows for id, _ in way.above)
        )

    def counter(self, connection: sa.Connection, row: Any, level: int = 0) -> Counter:
        return Counter(
            key=row.id,
            resource=self._definitions.name_of(connection, row.resource_id),
            scope=Scope(row.kind, row.scope),
            limit=row.maximum,
            floor=row.minimum,
            used=row.used,
            reserved=row.reserved,
            level=level,
            revision=row.revision,
            over_quota=bool(row.over_quota),
        )

    def add(self, connection: sa.Connection, counters: Iterable[Counter]) -> None:
        """Write what was decided, onto the value that stands on the row; and who is back within quota because of it."""
        changed = [counter for counter in counters if counter.changed]
        for part in chunks(changed):
            columns = ["used"]
            if any(counter.reserved_change for counter in part):
                columns.append("reserved")
            if any(counter.used_below_change or counter.reserved_below_change for counter in part):
                columns += ["used_below", "reserved_below"]
            values: dict[str, int] = {}
            for number, counter in enumerate(part):
                values[f"id{number}"] = counter.key
                for column in columns:
                    values[f"{column}{number}"] = getattr(counter, f"{column}_change")
            connection.execute(self._add_statement(len(part), tuple(columns)), values)
        self._events.crossed(
            connection,
            (
                (c.resource, c.scope, Standing(c.limit, c.used), Standing(c.limit, c.used_now))
                for c in changed
            ),
        )


def _changing(connection: sa.Connection) -> WeakSet[Any]:
    """Transactions that have made counters or changed ways, which nobody else sees and which may be rolled back.

    Kept at the connection: several stores of one process may work in one transaction of the caller's.
    """
    transactions: WeakSet[Any] = connection.info.setdefault("delimiter_changing", WeakSet())
    return transactions


def out_of_order() -> Conflict:
    return Conflict("limits or projects have changed since the transaction began; start it anew")


def is_limited(maximum: int, minimum: int) -> bool:
    """Whether a project must be charged for those below it: a maximum or a floor has to be watched there."""
    return maximum != UNLIMITED or minimum > 0


def effective(resource: Resource, scope: Scope, own: Any | None) -> tuple[int, int]:
    """The maximum and minimum in force, where ``own`` (a row, if any) has a scope's own ones."""
    default = resource.default(scope.kind)
    if own is None:
        return default
    return (
        default[0] if own.maximum is None else own.maximum,
        default[1] if own.minimum is None else own.minimum,
    )


def _adding(database: Database, table: sa.Table, count: int, columns: tuple[str, ...]) -> sa.Update:
    c = table.c
    ids = [sa.bindparam(f"id{number}", type_=sa.BigInteger) for number in range(count)]

    def by_id(column: str) -> sa.ColumnElement[int]:
        changes = [(id, sa.bindparam(f"{column}{n}", type_=sa.BigInteger)) for n, id in enumerate(ids)]
        return sa.case(*((c.id == id, change) for id, change in changes), else_=0)

    values: dict[Any, Any] = {c[column]: c[column] + by_id(column) for column in columns}
    return database.by_key(sa.update(table).where(c.id.in_(ids)).values(values), table)
