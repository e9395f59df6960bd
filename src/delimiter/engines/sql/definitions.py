"""Definitions of resources as the store holds them: their numbers, remembered, and their rows, locked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa

from delimiter.engines.sql.databases import Database
from delimiter.engines.sql.schema import Tables
from delimiter.model import Resource
from delimiter.refusals import unknown_resource

__all__ = ["Definition", "Definitions", "resource_of"]


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition and the number its rows refer to."""

    id: int
    resource: Resource
    defined: bool
    version: int
    #: The service's own table that it is counted from, as JSON; ``None``: it is tracked.
    counted_from: str | None = None


class Definitions:
    """Names and numbers of resources. A number never changes and is never given again, so it may be remembered.

    (Once it is committed: one that was given in a transaction which is rolled back can be given again.)
    """

    def __init__(self, tables: Tables, database: Database) -> None:
        r = tables.resources.c
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        #: Transactions that are making definitions, and may be rolled back.
        self._making: WeakSet[Any] = WeakSet()
        #: Resources that some process has said it counts, as far as this one has met them.
        self._counted: set[str] = set()
        known = sa.select(r.id, r.name, r.counted_from)
        self._by_name = known.where(r.name == sa.bindparam("name"))
        self._by_id = known.where(r.id == sa.bindparam("id"))
        self._every_counted = sa.select(r.name, r.counted_from).where(
            r.defined == 1, r.counted_from.is_not(None)
        )
        self._record = (
            sa.update(tables.resources)
            .where(r.id == sa.bindparam("key"))
            .values(counted_from=sa.bindparam("from_where"))
        )
        by_ids = (
            sa.select(tables.resources).where(r.id.in_(sa.bindparam("ids", expanding=True))).order_by(r.id)
        )
        by_ids = database.by_key(by_ids, tables.resources)
        self._shared = database.locked(by_ids, share=True)
        self._exclusive = database.locked(by_ids)
        self._all = sa.select(tables.resources).where(r.defined == 1).order_by(r.id)
        self._sum_of_versions = sa.select(sa.func.coalesce(sa.func.sum(r.version), 0))
        self._versions = sa.select(r.id, r.version, r.counted_from).where(
            r.id.in_(sa.bindparam("ids", expanding=True))
        )

    def id_of(self, connection: sa.Connection, name: str) -> int:
        """A resource's number; :class:`UnknownResource` if it was never defined."""
        id = self.id_if_known(connection, name)
        if id is None:
            raise unknown_resource(name)
        return id

    def id_if_known(self, connection: sa.Connection, name: str) -> int | None:
        known = self._ids.get(name)
        if known is not None:
            return known
        row = connection.execute(self._by_name, {"name": name}).first()
        return None if row is None else self._remembered(connection, row).id

    def id_to_claim(self, name: str) -> int | None:
        """Its number, if that is remembered, and that nobody counts it."""
        return None if name in self._counted else self._ids.get(name)

    def name_of(self, connection: sa.Connection, id: int) -> str:
        known = self._names.get(id)
        if known is not None:
            return known
        return str(self._remembered(connection, connection.execute(self._by_id, {"id": id}).one()).name)

    def _remembered(self, connection: sa.Connection, row: Any) -> Any:
        if row.counted_from is not None:
            self._counted.add(row.name)
        if connection.get_transaction() not in self._making:
            self._ids[row.name], self._names[row.id] = row.id, row.name
        return row

    # -- counted resources --------------------------------------------------------------------------------------

    def look_again(self, names: Iterable[str]) -> None:
        """Whether these are counted may have changed: read their rows again when they are met next."""
        for name in names:
            if (id := self._ids.pop(name, None)) is not None:
                self._names.pop(id, None)

    def is_counted(self, connection: sa.Connection, name: str) -> bool:
        """Whether somebody counts it from a table of the service.

        That it is not is remembered until the ways to its counters have changed, as they do when somebody begins to
        count it; that it is, is looked up each time.
        """
        self.id_of(connection, name)
        if name not in self._counted:
            return False
        row = connection.execute(self._by_name, {"name": name}).first()
        if row is not None and row.counted_from is None:
            self._counted.discard(name)
        return name in self._counted

    def counted(self, connection: sa.Connection) -> dict[str, str]:
        """The resources that are counted, and from where."""
        return {row.name: row.counted_from for row in connection.execute(self._every_counted)}

    def is_recorded(self, connection: sa.Connection, name: str, from_where: str) -> bool:
        """Whether it stands so, or cannot yet: a service may count what it defines only afterwards."""
        row = connection.execute(self._by_name, {"name": name}).first()
        if row is not None and row.counted_from is not None:
            self._counted.add(name)
        return row is None or row.counted_from == from_where

    def record_counted(self, connection: sa.Connection, name: str, from_where: str) -> None:
        row = connection.execute(self._by_name, {"name": name}).one()
        connection.execute(self._record, {"key": row.id, "from_where": from_where})
        self._counted.add(name)

    # -- definitions --------------------------------------------------------------------------------------------

    def make_in(self, connection: sa.Connection) -> None:
        """Remember nothing that this transaction sees: it makes a definition, and may be rolled back."""
        self._making.add(connection.get_transaction())

    def locked(
        self, connection: sa.Connection, names: Collection[str], *, exclusive: bool = False
    ) -> dict[str, Definition]:
        """The definitions as they are, locked in order of their numbers: shared, or against everybody."""
        ids = sorted(self.id_of(connection, name) for name in names)
        rows = connection.execute(self._exclusive if exclusive else self._shared, {"ids": ids}).all()
        self._counted.update(row.name for row in rows if row.counted_from is not None)
        found = {row.name: _definition(row) for row in rows}
        for name in names:
            if name not in found or not found[name].defined:
                raise unknown_resource(name)
        return found

    def all(self, connection: sa.Connection) -> list[Definition]:
        """Every definition that stands, in order of their numbers."""
        return [_definition(row) for row in connection.execute(self._all)]

    def hold(self, connection: sa.Connection, names: Iterable[str]) -> dict[str, int]:
        """Keep everybody else from changing those of these that are known, defined or not; their numbers."""
        ids = {name: id for name in names if (id := self.id_if_known(connection, name)) is not None}
        if ids:
            connection.execute(self._exclusive, {"ids": sorted(ids.values())}).all()
        return ids

    def sum_of_versions(self, connection: sa.Connection) -> int:
        """Grows with every change of a definition or a limit."""
        return int(connection.execute(self._sum_of_versions).scalar_one())

    def are_seen(self, connection: sa.Connection, locked: Iterable[Definition]) -> bool:
        """Whether the transaction's snapshot shows these as they are on the locked rows.

        Every change of a limit raises the version: where it is old, so are the counters that a plain read shows. To
        begin to count raises none, but a snapshot that does not show it would let the resource be claimed.
        """
        present = {definition.id: (definition.version, definition.counted_from) for definition in locked}
        rows = connection.execute(self._versions, {"ids": sorted(present)})
        return {row.id: (row.version, row.counted_from) for row in rows} == present


def _definition(row: Any) -> Definition:
    return Definition(row.id, resource_of(row), bool(row.defined), row.version, row.counted_from)


def resource_of(row: Any) -> Resource:
    return Resource(
        name=row.name,
        service=row.service,
        max=row.total_max,
        min=row.total_min,
        project_max=row.project_max,
        project_min=row.project_min,
        user_max=row.user_max,
        user_min=row.user_min,
        unit=row.unit,
        description=row.description,
    )
