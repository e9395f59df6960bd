"""What is claimed, summed over the claims themselves: what counters must agree with, and what stands in for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from delimiter.engines.sql.schema import Tables
from delimiter.model import LIVE_STATES, UNLIMITED, Scope, ScopeKind

__all__ = ["Sums", "group_key", "halves", "whole"]

T = TypeVar("T")

_LOW: int = 2**32 - 1


def halves(amount: sa.ColumnElement[int], name: str) -> list[sa.ColumnElement[Any]]:
    """A sum as two columns: 64-bit amounts of many claims may add up to more than SQLite's SUM can hold."""
    high = sa.func.coalesce(sa.func.sum(amount.op(">>")(sa.literal_column("32"))), 0)
    low = sa.func.coalesce(sa.func.sum(amount.op("&")(sa.literal_column(str(_LOW)))), 0)
    return [high.label(f"{name}_high"), low.label(f"{name}_low")]


def whole(row: Any, name: str) -> int:
    return (int(getattr(row, f"{name}_high") or 0) << 32) + int(getattr(row, f"{name}_low") or 0)


class _GroupKey(FunctionElement[Any]):
    inherit_cache = True


@compiles(_GroupKey)
def _plain(element: _GroupKey, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.process(element.clauses, **kwargs)


@compiles(_GroupKey, "mysql", "mariadb")
def _not_plain(element: _GroupKey, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"coalesce({compiler.process(element.clauses, **kwargs)})"


def group_key(column: sa.ColumnElement[T], name: str) -> sa.Label[T]:
    """A column by which sums are grouped that are joined to something else by it: to be selected, and grouped by.

    MariaDB considers to add up only the groups that are wanted ("split materialized"). Who is killed while it
    considers that (by KILL QUERY, or as one who gives way on Galera) has it read a plan that was never made, and the
    whole server goes down: seen with 10.11.19, in ``choose_best_splitting``. Of what is not a plain column it does not.
    """
    return sa.type_coerce(_GroupKey(column), column.type).label(name)


class Sums:
    """Sums over the claims of one store. Reservations that ran out are in them until they are swept."""

    def __init__(self, tables: Tables) -> None:
        self._counters = tables.counters
        c, a = tables.claims.c, tables.allocations.c
        self._owner = {"total": sa.literal(""), "project": c.project_id, "user": c.user_id}
        self._live = c.state.in_(LIVE_STATES)
        self._claimed = tables.claims.join(tables.allocations, a.claim == c.id)
        reserved = sa.case((c.state == "reserved", a.amount), else_=0)
        self._both = [*halves(a.amount, "used"), *halves(reserved, "reserved")]
        self._allocations, self._claims = a, c
        self._ancestors = tables.ancestors
        self._resources, self._limits = tables.resources, tables.limits

    def of_scope(self, connection: sa.Connection, resource_id: int, scope: Scope) -> tuple[int, int]:
        """What the claims of a scope itself hold of one resource, and how much of it is reserved."""
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

    def below(self, connection: sa.Connection, resource_id: int, project: str) -> tuple[int, int]:
        """What the claims of all projects below this one hold, and how much of it is reserved."""
        x = self._ancestors.c
        lower = sa.select(x.project).where(x.ancestor == project)
        statement = (
            sa.select(*self._both)
            .select_from(self._claimed)
            .where(self._allocations.resource_id == resource_id, self._live)
            .where(self._claims.project_id.in_(lower))
        )
        row = connection.execute(statement).one()
        return whole(row, "used"), whole(row, "reserved")

    def beside_counters(self, connection: sa.Connection, kind: ScopeKind) -> Iterator[Any]:
        """Each counter of a kind with the sums it should hold, in one snapshot.

        Rows have what the counter holds, its limits, and the halves of the sums: of the scope's own claims, and of
        those below it.
        """
        k, owner = self._counters.c, self._owner[kind]
        own = self._grouped(owner, self._claimed, by_owner=kind != "total").subquery()

        def at_counter(sums: sa.Subquery) -> sa.ColumnElement[bool]:
            return sa.and_(k.resource_id == sums.c.resource_id, k.kind == kind, k.scope == sums.c.scope)

        held = [k.used, k.reserved, k.used_below, k.reserved_below, k.maximum, k.minimum]
        columns = [k.id, k.resource_id, k.scope, *held, *_amounts(own, "")]
        joined = self._counters.outerjoin(own, at_counter(own))
        if kind == "project":
            below = self._below().subquery()
            joined = joined.outerjoin(below, at_counter(below))
            columns += _amounts(below, "below_")
        counted = sa.select(*columns).select_from(joined).where(k.kind == kind)
        yield from connection.execute(counted)

    def without_counter(self, connection: sa.Connection, kind: ScopeKind) -> Iterator[Any]:
        """Sums that have no counter and need one, in one snapshot: an owner's, and of what is below a limited project.

        Rows have ``resource_id``, ``scope``, and the halves; two of one scope are to be added.
        """
        own = self._grouped(self._owner[kind], self._claimed, by_owner=True).subquery()
        parts = [self._lacking(own, kind, sa.true())]
        if kind == "project":
            below = self._below().subquery()
            parts.append(self._lacking(below, kind, self._has_limit(below)))
        yield from connection.execute(sa.union_all(*parts))

    def _lacking(self, sums: sa.Subquery, kind: ScopeKind, needed: sa.ColumnElement[bool]) -> sa.Select[Any]:
        k = self._counters.c
        here = sa.and_(k.resource_id == sums.c.resource_id, k.kind == kind, k.scope == sums.c.scope)
        return (
            sa.select(sums.c.resource_id, sums.c.scope, *_amounts(sums, ""))
            .select_from(sums.outerjoin(self._counters, here))
            .where(k.id.is_(None), needed)
        )

    def _has_limit(self, sums: sa.Subquery) -> sa.ColumnElement[bool]:
        """Whether the rules give the project a limit: without a counter they alone can tell."""
        r, l = self._resources, self._limits  # noqa: E741
        here = sa.and_(l.c.resource_id == r.c.id, l.c.kind == "project", l.c.scope == sums.c.scope)
        return sa.exists(
            sa.select(r.c.id)
            .select_from(r.outerjoin(l, here))
            .where(r.c.id == sums.c.resource_id, r.c.defined == 1)
            .where(
                sa.or_(
                    sa.func.coalesce(l.c.maximum, r.c.project_max) != UNLIMITED,
                    sa.func.coalesce(l.c.minimum, r.c.project_min) > 0,
                )
            )
        )

    def _below(self) -> sa.Select[Any]:
        """What is claimed below each project that has any below it."""
        x = self._ancestors.c
        nested = self._claimed.join(self._ancestors, x.project == self._claims.project_id)
        return self._grouped(x.ancestor, nested, by_owner=True)

    def _grouped(
        self, owner: sa.ColumnElement[Any], claims: sa.FromClause, *, by_owner: bool
    ) -> sa.Select[Any]:
        resource_id = group_key(self._allocations.resource_id, "resource_id")
        scope = group_key(owner, "scope") if by_owner else owner.label("scope")
        return (
            sa.select(resource_id, scope, *self._both)
            .select_from(claims)
            .where(self._live, owner.is_not(None))
            .group_by(resource_id, *([scope] if by_owner else []))
        )


def _amounts(sums: sa.Subquery, prefix: str) -> list[sa.ColumnElement[Any]]:
    names = ("used_high", "used_low", "reserved_high", "reserved_low")
    return [sums.c[name].label(prefix + name) for name in names]
