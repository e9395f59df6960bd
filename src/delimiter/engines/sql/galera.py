"""What claims need of Galera that one server gives by its locks alone.

The nodes of a Galera cluster do not see each other's locks. They compare, at COMMIT, the rows that transactions have
*written*: of two that wrote one row without having seen each other, the second is told of a deadlock (error 1213) and
has done nothing. So what is to be exact must be written by both sides, and a row that is only locked guards nothing.
A lock is still of use: what another node has written there is applied first, or ends the transaction that holds it.

How each guard of this package is kept where the nodes meet:

==================================  ==========================================================================
guard                               row that both sides write
==================================  ==========================================================================
what a scope holds, and its limit   its counter (``used``; the limit, the generation, when limits change)
the way to a counter                the counter it begins at: every change of a way raises its generation
a claim's state                     the claim (``version``, state); a new child writes its parent (``children``)
one id, one external id             the unique keys, which are compared like rows
a scope's first counter, against    the meeting row, see below. (On one server the row of the tree is shared by
definitions, limits and moves       whoever makes a counter or sets a limit, and held by whoever moves.)
a definition, a list of edits,      the meeting row
promises, limits from outside
undefining, removing a project      the counters, which go, or the meeting row where there is none yet
guards of counted resources         the counters (``revision``)
crossings of counted resources      the counter (``over_quota``, compared in the same statement)
numbers of events                   the row of the last number; ids grow with what a node has seen, so that two
                                    events of one scope stand in the order in which they happened
sweeping, pruning, repairing        the claims, which end or go; the counters
making the tables                   a row of a table of its own, for that time (:mod:`.upgrade`)
==================================  ==========================================================================

A node that gives way to another's transaction ends its own: the next statement, or COMMIT, says so (error 1213). Not so
in the midst of a compound statement. There it rolls back what was done, says nothing, and goes on with the rest, in a
transaction that has lost its beginning. So what is made by one has to be looked for before COMMIT; and in a caller's
transaction, whose own rows might be lost, none is used.

The **meeting row** is the second row of the tree's table. It is there on Galera only.

A node may also show what is not yet the present: what another has committed comes to it a moment later. An admission
cannot be wrong because of that, a refusal could. So each transaction of our own first waits until the node has applied
whatever was committed before it began (``wsrep_sync_wait``).
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.schema import Tables

__all__ = ["Galera"]

_IS_ONE: Final = "SHOW GLOBAL VARIABLES LIKE 'wsrep\\_on'"

#: Waits once, in the first statement of a transaction: reads, updates, deletes and inserts all do.
_ALWAYS_WAIT: Final = "SET SESSION wsrep_sync_wait = 15"
_WAIT_ONCE: Final = "SET STATEMENT wsrep_sync_wait = 15 FOR SELECT 1"

#: Where a connection of our own remembers that it waits always.
_WAITS: Final = "delimiter_waits"

_MEETING_ROW: Final = 2


class Galera:
    """Whether the server is a node of Galera, asked once, and what is done because of it."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._known: bool | None = None if database.replicates_by_rows else False
        t = tables.tree.c
        self._meet = sa.update(tables.tree).where(t.id == _MEETING_ROW).values(version=t.version + 1)
        first = {"id": _MEETING_ROW, "version": 1, "overbooking": 1}
        self._first = database.insert_ignoring(tables.tree).values(first)

    def is_one(self, connection: sa.Connection) -> bool:
        if self._known is None:
            row = connection.exec_driver_sql(_IS_ONE).first()
            self._known = row is not None and row[1] == "ON"
        return self._known

    @property
    def is_none(self) -> bool:
        """Whether it is known not to be one."""
        return self._known is False

    def catch_up(self, connection: sa.Connection, *, ours: bool) -> None:
        """At the start of a transaction: see what was committed before, on any node.

        A connection that is ``ours`` alone is told once; one of the service's keeps its settings.
        """
        if self._known is False:
            return
        if self._known is None and self.is_one(connection) is not None:
            connection.rollback()
        if not self._known:
            return
        if not ours:
            connection.exec_driver_sql(_WAIT_ONCE)
        elif _WAITS not in connection.info:
            connection.exec_driver_sql(_ALWAYS_WAIT)
            connection.info[_WAITS] = True

    def meet(self, connection: sa.Connection) -> None:
        """Whoever else does this without having seen it is told of a conflict."""
        if self.is_one(connection) and connection.execute(self._meet).rowcount == 0:
            connection.execute(self._first)
