"""By hand, without counters: what is used is summed over what is held, each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from delimiter.bench.peers import HandWritten
from delimiter.bench.scenario import project_of, user_of

__all__ = ["CheckThenInsert", "CompareAndSwap"]


class _Summed(HandWritten):
    """What is held carries whose it is, in indexes from which alone it can be summed."""

    nested = False

    def tables(self) -> sa.MetaData:
        metadata = super().tables()
        self.maxima = sa.Table(
            f"{self.place.prefix}limits",
            metadata,
            sa.Column("scope", sa.String(60), primary_key=True),
            sa.Column("resource", sa.String(40), primary_key=True),
            sa.Column("maximum", sa.BigInteger, nullable=False),
        )
        self.guards = sa.Table(
            f"{self.place.prefix}scopes",
            metadata,
            sa.Column("scope", sa.String(60), primary_key=True),
            sa.Column("generation", sa.BigInteger, nullable=False),
        )
        return metadata

    def summed_by(self) -> Iterable[Any]:
        return (
            sa.Column("project", sa.String(60), nullable=False),
            sa.Column("owner", sa.String(60), nullable=False),
            sa.Index(f"{self.place.prefix}amounts_by_project", "project", "resource", "amount"),
            sa.Index(f"{self.place.prefix}amounts_by_owner", "owner", "resource", "amount"),
        )

    def set_limits(self, connection: sa.Connection) -> None:
        found = self.limits()
        rows = [{"resource": resource, "scope": scope, "maximum": most} for resource, scope, most in found]
        connection.execute(sa.insert(self.maxima), rows)
        scopes: dict[str, None] = dict.fromkeys(scope for _, scope, _ in found)
        connection.execute(sa.insert(self.guards), [{"scope": scope, "generation": 0} for scope in scopes])

    def prepare(self) -> None:
        super().prepare()
        a = self.amounts.c
        wanted = a.resource.in_(sa.bindparam("resources", expanding=True))

        def used(kind: str, column: sa.ColumnElement[str]) -> sa.Select[Any]:
            return (
                sa.select(
                    sa.literal_column(f"'{kind}:'").concat(column).label("scope"),
                    a.resource,
                    sa.func.sum(a.amount),
                )
                .where(column == sa.bindparam(kind), wanted)
                .group_by(column, a.resource)
            )

        self._sums = sa.union_all(used("project", a.project), used("user", a.owner))

    def within(self, connection: sa.Connection, number: int, limits: dict[tuple[str, str], int]) -> bool:
        """Whether one more of each resource is within those limits, by what is held now."""
        whose = {"project": project_of(number), "user": user_of(number)}
        sums = connection.execute(self._sums, {**whose, "resources": list(self.scenario.names)})
        used = {(scope, resource): int(total) for scope, resource, total in sums}
        return all(used.get(key, 0) + 1 <= most for key, most in limits.items())


class CompareAndSwap(_Summed):
    """No cached number, no lock: a generation tells whether the sum is still true when the rows are written."""

    name = "compare-and-swap"
    title = "compare-and-swap over SUM"
    summary = (
        "SUM over what is held, INSERTs, UPDATE … WHERE generation = the one seen; begun anew when it is not"
    )

    def prepare(self) -> None:
        super().prepare()
        g, m = self.guards.c, self.maxima.c
        scopes: sa.BindParameter[str] = sa.bindparam("scopes", expanding=True)
        self._seen = (
            sa.select(g.scope, g.generation, m.resource, m.maximum)
            .join_from(self.guards, self.maxima, m.scope == g.scope)
            .where(g.scope.in_(scopes), m.resource.in_(sa.bindparam("resources", expanding=True)))
        )
        self._swap = (
            sa.update(self.guards)
            .where(g.scope == sa.bindparam("s"), g.generation == sa.bindparam("seen"))
            .values(generation=g.generation + 1)
        )

    def attempt(self, number: int, scopes: list[str]) -> bool:
        with self.connected() as connection:
            seen = connection.execute(
                self._seen, {"scopes": scopes, "resources": list(self.scenario.names)}
            ).all()
            limits = {(scope, resource): most for scope, _, resource, most in seen}
            if not self.within(connection, number, limits):
                connection.rollback()
                return False
            self.insert(connection, number)
            generations = {scope: generation for scope, generation, _, _ in seen}
            for scope in scopes:
                swapped = connection.execute(self._swap, {"s": scope, "seen": generations[scope]})
                if swapped.rowcount != 1:
                    connection.rollback()
                    raise _Overtaken
            connection.commit()
        return True

    def met(self, error: Exception) -> bool:
        return isinstance(error, _Overtaken) or super().met(error)


class CheckThenInsert(_Summed):
    """How the client of a limits service is used: it says whether it would fit, and nothing holds until the INSERTs."""

    name = "check-then-insert"
    title = "check, then insert"
    summary = "SUM over what is held, compared with the limits, then the INSERTs in a transaction of their own: racy"
    exact = False

    def open(self, connections: int) -> None:
        super().open(connections)
        # The limits are remembered for as long as the process lives.
        self._maxima: dict[str, dict[tuple[str, str], int]] = {}
        with self.engine.connect() as connection:
            m = self.maxima.c
            for scope, resource, most in connection.execute(sa.select(m.scope, m.resource, m.maximum)):
                self._maxima.setdefault(scope, {})[scope, resource] = most
            connection.rollback()
        # A question needs no transaction; MariaDB's driver would need more round trips to leave one and come back.
        by_itself = self.place.dialect in {"postgresql", "sqlite"}
        self._asking = (
            self.engine.execution_options(isolation_level="AUTOCOMMIT") if by_itself else self.engine
        )

    def attempt(self, number: int, scopes: list[str]) -> bool:
        limits = {key: most for scope in scopes for key, most in self._maxima[scope].items()}
        with self._asking.connect() as connection:
            fits = self.within(connection, number, limits)
            connection.rollback()
        if not fits:
            return False
        with self.connected() as connection:
            self.insert(connection, number)
            connection.commit()
        return True


class _Overtaken(Exception):
    """Somebody else was there since the sum."""
