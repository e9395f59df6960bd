"""Definitions of resources as the store holds them: their numbers, remembered, and their rows, locked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


class Definitions:
    """Names and numbers of resources. A number never changes and is never given again, so it may be remembered."""

    def __init__(self, tables: Tables, database: Database) -> None:
        r = tables.resources.c
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._by_name = sa.select(r.id, r.name).where(r.name == sa.bindparam("name"))
        self._by_id = sa.select(r.id, r.name).where(r.id == sa.bindparam("id"))
        by_ids = (
            sa.select(tables.resources).where(r.id.in_(sa.bindparam("ids", expanding=True))).order_by(r.id)
        )
        by_ids = database.by_key(by_ids, tables.resources)
        self._shared = database.locked(by_ids, share=True)
        self._exclusive = database.locked(by_ids)
        self._versions = sa.select(r.id, r.version).where(r.id.in_(sa.bindparam("ids", expanding=True)))

    def id_of(self, connection: sa.Connection, name: str) -> int:
        """A resource's number; :class:`UnknownResource` if it was never defined."""
        id = self.id_if_known(connection, name)
        if id is None:
            raise unknown_resource(name)
        return id

    def id_if_known(self, connection: sa.Connection, name: str) -> int | None:
        if name not in self._ids:
            row = connection.execute(self._by_name, {"name": name}).first()
            if row is None:
                return None
            self._ids[row.name], self._names[row.id] = row.id, row.name
        return self._ids[name]

    def name_of(self, connection: sa.Connection, id: int) -> str:
        if id not in self._names:
            row = connection.execute(self._by_id, {"id": id}).one()
            self._ids[row.name], self._names[row.id] = row.id, row.name
        return self._names[id]

    def locked(
        self, connection: sa.Connection, names: Iterable[str], *, exclusive: bool = False
    ) -> dict[str, Definition]:
        """The definitions as they are, locked in order of their numbers: shared, or against everybody."""
        ids = sorted(self.id_of(connection, name) for name in names)
        rows = connection.execute(self._exclusive if exclusive else self._shared, {"ids": ids}).all()
        found = {
            row.name: Definition(row.id, resource_of(row), bool(row.defined), row.version) for row in rows
        }
        for name in names:
            if name not in found or not found[name].defined:
                raise unknown_resource(name)
        return found

    def are_seen(self, connection: sa.Connection, locked: Iterable[Definition]) -> bool:
        """Whether the transaction's snapshot shows these as they are on the locked rows.

        Every change of a limit raises the version: where it is old, so are the counters that a plain read shows.
        """
        versions = {definition.id: definition.version for definition in locked}
        rows = connection.execute(self._versions, {"ids": sorted(versions)})
        return {row.id: row.version for row in rows} == versions


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
