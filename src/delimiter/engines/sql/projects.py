"""The tree of projects: its rows, its lock, and who lies below or above whom.

Every change of the tree holds its one row against everybody and writes it. Whoever makes a scope's first counter or
sets a limit shares that row first, so that neither meets a tree that is just changing: a new counter never has an old
way, and no counter is missed when a subtree is moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engines.sql.chunking import chunks
from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.galera import Galera
from delimiter.engines.sql.schema import Tables
from delimiter.model import Project, in_order

__all__ = ["Projects", "within"]


_QUEUE_ROW: Final = 3


class Projects:
    """The tree of one store."""

    def __init__(self, tables: Tables, database: Database, galera: Galera) -> None:
        self._galera = galera
        self._projects = tables.projects
        self._ancestors = tables.ancestors
        self._tree = tables.tree
        p, x, t = tables.projects.c, tables.ancestors.c, tables.tree.c
        row = sa.select(t.version, t.overbooking).where(t.id == 1)
        self._row = row
        self._shared = database.locked(row, share=True)
        self._exclusive = database.locked(row)
        self._queue = database.queue(tables.tree, {"id": _QUEUE_ROW, "version": 1, "overbooking": 1})
        self._write = sa.update(tables.tree).where(t.id == 1)
        self._find = sa.select(p.project, p.parent).where(p.project == sa.bindparam("name"))
        self._above = (
            sa.select(x.project, x.ancestor, x.distance)
            .where(x.project.in_(sa.bindparam("names", expanding=True)))
            .order_by(x.project, x.distance)
        )
        self._below = sa.select(x.project, x.distance).where(x.ancestor == sa.bindparam("name"))
        self._all_below = sa.select(x.ancestor, x.project).where(
            x.ancestor.in_(sa.bindparam("names", expanding=True))
        )
        self._children = sa.select(p.project).where(p.parent == sa.bindparam("name")).order_by(p.project)

    # -- the lock -----------------------------------------------------------------------------------------------

    def share(self, connection: sa.Connection) -> int:
        """Keep the tree as it is until the transaction ends; its version."""
        self._galera.meet(connection)
        return self._locked_version(connection)

    def _locked_version(self, connection: sa.Connection) -> int:
        return int(connection.execute(self._shared).one().version)

    def hold(self, connection: sa.Connection) -> None:
        """Keep everybody else away from the tree until the transaction ends."""
        self._galera.meet(connection)
        connection.execute(self._exclusive).one()

    def queue(self, connection: sa.Connection) -> None:
        """Where plain reads lock, who may have to make what it does not find goes one after the other.

        Many could share the gap in which a row is missing. Then nobody can insert it, and those whom a deadlock sends
        away come back to share the gap before the last one can. The row they queue for is the third of the tree's
        table, which nobody else locks.
        """
        if self._queue is not None:
            connection.execute(self._queue)

    def is_seen(self, connection: sa.Connection, version: int) -> bool:
        """Whether the transaction's snapshot shows the tree as it is on the locked row."""
        return self.version(connection) == version

    def is_present(self, connection: sa.Connection) -> bool:
        """The same, for who does not hold the row: it is shared for a look, and until the transaction ends."""
        return self.is_seen(connection, self._locked_version(connection))

    def version(self, connection: sa.Connection) -> int:
        return int(connection.execute(self._row).one().version)

    def changed(self, connection: sa.Connection) -> None:
        """Every change writes the row: a snapshot from before notices it."""
        connection.execute(self._write.values(version=self._tree.c.version + 1))

    def overbooking(self, connection: sa.Connection) -> bool:
        return bool(connection.execute(self._row).one().overbooking)

    def set_overbooking(self, connection: sa.Connection, *, allowed: bool) -> None:
        connection.execute(self._write.values(overbooking=int(allowed)))
        self.changed(connection)

    # -- reading ------------------------------------------------------------------------------------------------

    def find(self, connection: sa.Connection, name: str) -> Project | None:
        row = connection.execute(self._find, {"name": name}).first()
        return None if row is None else Project(row.project, row.parent)

    def all(self, connection: sa.Connection) -> list[Project]:
        rows = connection.execute(sa.select(self._projects.c.project, self._projects.c.parent))
        return in_order(Project(row.project, row.parent) for row in rows)

    def above(self, connection: sa.Connection, names: Iterable[str]) -> dict[str, list[str]]:
        """The ancestors of each, its parent first; nothing for a root."""
        found: dict[str, list[str]] = defaultdict(list)
        for part in chunks(sorted(set(names))):
            for row in connection.execute(self._above, {"names": part}):
                found[row.project].append(row.ancestor)
        return found

    def below(self, connection: sa.Connection, name: str) -> list[str]:
        """Everything below, in no order, without the project itself."""
        return [row.project for row in connection.execute(self._below, {"name": name})]

    def all_below(self, connection: sa.Connection, names: Iterable[str]) -> dict[str, list[str]]:
        """The same of several; those with nothing below them are left out."""
        found: dict[str, list[str]] = defaultdict(list)
        for part in chunks(sorted(set(names))):
            for row in connection.execute(self._all_below, {"names": part}):
                found[row.ancestor].append(row.project)
        return found

    def first_child(self, connection: sa.Connection, name: str) -> str | None:
        return connection.execute(self._children.limit(1), {"name": name}).scalar()

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, connection: sa.Connection, name: str, parent: str | None, above: Sequence[str]) -> None:
        """A project that has nothing below it; ``above`` are its ancestors, the parent first."""
        connection.execute(sa.insert(self._projects).values(project=name, parent=parent))
        self._link(connection, {name: 0}, above)
        self.changed(connection)

    def move(
        self,
        connection: sa.Connection,
        name: str,
        parent: str | None,
        above: Sequence[str],
        old: Sequence[str],
    ) -> None:
        """A project and all below it, from below ``old`` to below ``above`` (its parent first)."""
        p, x = self._projects.c, self._ancestors.c
        connection.execute(sa.update(self._projects).where(p.project == name).values(parent=parent))
        rows = connection.execute(self._below, {"name": name})
        depths = {name: 0, **{row.project: row.distance for row in rows}}
        for part in chunks(sorted(depths)):
            if old:
                leaving = sa.delete(self._ancestors).where(x.project.in_(part), x.ancestor.in_(old))
                connection.execute(leaving)
        self._link(connection, depths, above)
        self.changed(connection)

    def remove(self, connection: sa.Connection, name: str) -> None:
        """A project that has nothing below it."""
        connection.execute(sa.delete(self._projects).where(self._projects.c.project == name))
        connection.execute(sa.delete(self._ancestors).where(self._ancestors.c.project == name))
        self.changed(connection)

    def _link(self, connection: sa.Connection, depths: dict[str, int], above: Sequence[str]) -> None:
        rows: list[dict[str, Any]] = [
            {"project": project, "ancestor": ancestor, "distance": depth + distance}
            for project, depth in sorted(depths.items())
            for distance, ancestor in enumerate(above, start=1)
        ]
        for part in chunks(rows):
            connection.execute(sa.insert(self._ancestors), list(part))


def within(
    tables: Tables, column: sa.ColumnElement[Any], project: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    """Whether the column names the project or one below it."""
    x = tables.ancestors.c
    return sa.or_(column == project, column.in_(sa.select(x.project).where(x.ancestor == project)))
