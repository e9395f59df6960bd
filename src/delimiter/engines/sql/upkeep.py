"""Upkeep: forgetting claims that ended long ago, and comparing counters with the claims charged to them."""

from __future__ import annotations

import sqlalchemy as sa

from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.databases import Clock, Database
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.schema import Tables
from delimiter.engines.sql.sums import Sums, whole
from delimiter.engines.sql.writing import ClaimWriter
from delimiter.model import Drift, Scope, ScopeKind

__all__ = ["Upkeep"]


class Upkeep:
    """Tidies one store."""

    def __init__(
        self,
        tables: Tables,
        database: Database,
        clock: Clock,
        definitions: Definitions,
        writer: ClaimWriter,
        counters: Counters,
        sums: Sums,
    ) -> None:
        self._definitions = definitions
        self._writer = writer
        self._counters = counters
        self._sums = sums
        self._table = tables.counters
        c, below = tables.claims.c, tables.claims.alias()
        old = (
            sa.select(c.id)
            .where(c.ended_at <= clock.now() - sa.bindparam("age", type_=sa.BigInteger))
            .where(~sa.exists().where(below.c.parent_id == c.claim_id))
            .order_by(c.id)
            .limit(sa.bindparam("size"))
        )
        self._old = database.locked(old, skip_locked=True)
        k = tables.counters.c
        self._lock_counter = database.locked(
            sa.select(k.id, k.used, k.reserved).where(
                k.resource_id == sa.bindparam("resource_id"),
                k.kind == sa.bindparam("kind"),
                k.scope == sa.bindparam("scope"),
            )
        )
        self._put_right = (
            sa.update(tables.counters)
            .where(k.id == sa.bindparam("key"))
            .values(used=sa.bindparam("new_used"), reserved=sa.bindparam("new_reserved"))
        )

    def prune(self, connection: sa.Connection, *, older_than: int, size: int) -> int:
        keys = list(connection.scalars(self._old, {"age": older_than, "size": size}))
        self._writer.remove(connection, keys)
        return len(keys)

    def suspects(self, connection: sa.Connection, kind: ScopeKind) -> list[tuple[Scope, list[Drift]]]:
        """The scopes of a kind whose counters disagree with their claims, in one snapshot."""
        return [
            (scope, drifts)
            for row in self._sums.beside_counters(connection, kind)
            if (
                drifts := _drifts(
                    self._definitions.name_of(connection, row.resource_id),
                    scope := Scope(kind, row.scope),
                    (row.used or 0, row.reserved or 0),
                    (whole(row, "used"), whole(row, "reserved")),
                    repaired=False,
                )
            )
        ]

    def repair(self, connection: sa.Connection, resource: str, scope: Scope) -> list[Drift]:
        """Under the counter's lock nothing is claimed or released there: sum again, in a new statement, and write."""
        if scope.kind != "total":
            self._counters.forget([(resource, scope)])
            self._counters.ways(connection, [(resource, scope)])  # a counter that was lost is made again
        resource_id = self._definitions.id_of(connection, resource)
        row = connection.execute(
            self._lock_counter, {"resource_id": resource_id, "kind": scope.kind, "scope": scope.name}
        ).first()
        if row is None:  # the total's limit was taken away meanwhile, and its counter with it
            return []
        used, reserved = self._sums.of_scope(connection, resource_id, scope)
        drifts = _drifts(resource, scope, (row.used, row.reserved), (used, reserved), repaired=True)
        if drifts:
            connection.execute(self._put_right, {"key": row.id, "new_used": used, "new_reserved": reserved})
        return drifts


def _drifts(
    resource: str, scope: Scope, recorded: tuple[int, int], actual: tuple[int, int], *, repaired: bool
) -> list[Drift]:
    pairs = zip(("used", "reserved"), recorded, actual, strict=True)
    return [
        Drift(resource, str(scope), there, summed, repaired, counter)  # type: ignore[arg-type]
        for counter, there, summed in pairs
        if there != summed
    ]
