"""What is claimed, summed over the claims themselves: what counters must agree with, and what stands in for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from delimiter.engines.sql.schema import Tables
from delimiter.model import Scope, ScopeKind

__all__ = ["Sums", "halves", "whole"]

_LOW: int = 2**32 - 1


def halves(amount: sa.ColumnElement[int], name: str) -> list[sa.ColumnElement[Any]]:
    """A sum as two columns: 64-bit amounts of many claims may add up to more than SQLite's SUM can hold."""
    high = sa.func.coalesce(sa.func.sum(amount.op(">>")(sa.literal_column("32"))), 0)
    low = sa.func.coalesce(sa.func.sum(amount.op("&")(sa.literal_column(str(_LOW)))), 0)
    return [high.label(f"{name}_high"), low.label(f"{name}_low")]


def whole(row: Any, name: str) -> int:
    return (int(getattr(row, f"{name}_high") or 0) << 32) + int(getattr(row, f"{name}_low") or 0)


class Sums:
    """Sums over the claims of one store. Reservations that ran out are in them until they are swept."""

    def __init__(self, tables: Tables) -> None:
        self._counters = tables.counters
        c, a = tables.claims.c, tables.allocations.c
        self._owner = {"total": sa.literal(""), "project": c.project_id, "user": c.user_id}
        self._live = c.state.in_(("reserved", "provisioned"))
        self._claimed = tables.claims.join(tables.allocations, a.claim == c.id)
        reserved = sa.case((c.state == "reserved", a.amount), else_=0)
        self._both = [*halves(a.amount, "used"), *halves(reserved, "reserved")]
        self._allocations, self._claims = a, c

    def of_total(self, connection: sa.Connection, resource_id: int) -> tuple[int, int]:
        """What all claims hold of one resource, and how much of it is reserved."""
        return self.of_scope(connection, resource_id, Scope.total())

    def of_scope(self, connection: sa.Connection, resource_id: int, scope: Scope) -> tuple[int, int]:
        statement = (
            sa.select(*self._both)
            .select_from(self._claimed)
            .where(self._allocations.resource_id == resource_id, self._live)
        )
        if scope.kind != "total":
            statement = statement.where(self._owner[scope.kind] == scope.name)
        row = connection.execute(statement).one()
        return whole(row, "used"), whole(row, "reserved")

    def is_claimed(self, connection: sa.Connection, resource_id: int) -> bool:
        found = sa.select(self._claims.id).select_from(self._claimed)
        return (
            connection.execute(
                found.where(self._allocations.resource_id == resource_id, self._live).limit(1)
            ).first()
            is not None
        )

    def beside_counters(self, connection: sa.Connection, kind: ScopeKind) -> Iterator[Any]:
        """Each counter of a kind with the sum it should hold, and sums that have no counter; one snapshot each.

        Rows have ``id`` (``None`` without a counter), ``resource_id``, ``scope``, ``used`` and ``reserved`` (``None``
        likewise) and the halves of the sums. The unlimited total has no counter and needs none.
        """
        k, owner, a = self._counters.c, self._owner[kind], self._allocations
        sums = (
            sa.select(a.resource_id, owner.label("scope"), *self._both)
            .select_from(self._claimed)
            .where(self._live, owner.is_not(None))
            .group_by(a.resource_id, *([] if kind == "total" else [owner]))
            .subquery()
        )
        here = sa.and_(k.resource_id == sums.c.resource_id, k.kind == kind, k.scope == sums.c.scope)
        amounts = [sums.c.used_high, sums.c.used_low, sums.c.reserved_high, sums.c.reserved_low]
        counted = (
            sa.select(k.id, k.resource_id, k.scope, k.used, k.reserved, *amounts)
            .select_from(self._counters.outerjoin(sums, here))
            .where(k.kind == kind)
        )
        yield from connection.execute(counted)
        if kind != "total":
            uncounted = (
                sa.select(k.id, sums.c.resource_id, sums.c.scope, k.used, k.reserved, *amounts)
                .select_from(sums.outerjoin(self._counters, here))
                .where(k.id.is_(None))
            )
            yield from connection.execute(uncounted)
