"""By hand, with a counter for each resource and scope: conditional UPDATE, SELECT FOR UPDATE, SERIALIZABLE."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from delimiter.bench.peers import HandWritten
from delimiter.bench.way import Counted

__all__ = ["ConditionalUpdate", "SelectForUpdate", "Serializable"]


class _Ledger(HandWritten):
    """A row for each resource and scope holds what is used, beside its limit."""

    def tables(self) -> sa.MetaData:
        metadata = super().tables()
        self.counters = sa.Table(
            f"{self.place.prefix}counters",
            metadata,
            sa.Column("resource", sa.String(40), primary_key=True),
            sa.Column("scope", sa.String(60), primary_key=True),
            sa.Column("used", sa.BigInteger, nullable=False),
            sa.Column("maximum", sa.BigInteger, nullable=False),
        )
        return metadata

    def set_limits(self, connection: sa.Connection) -> None:
        rows = [
            {"resource": resource, "scope": scope, "used": 0, "maximum": most}
            for resource, scope, most in self.limits()
        ]
        connection.execute(sa.insert(self.counters), rows)

    def filled(self, connection: sa.Connection, claims: int) -> None:
        connection.execute(
            sa.update(self.counters).where(self.counters.c.scope.in_(self.scopes(0))).values(used=claims)
        )

    def faults(self, connection: sa.Connection, counted: Counted) -> Iterable[str]:
        c = self.counters.c
        kind = sa.func.substr(c.scope, 1, 4)
        found = sa.select(c.resource, kind, sa.func.sum(c.used)).group_by(c.resource, kind)
        expected = {
            "user": counted.claims + counted.contested,
            "proj": counted.claims * self.scenario.depth + counted.contested,
        }
        for resource, of, used in connection.execute(found):
            if used != expected[of]:
                yield f"{used} {resource} counted of all {of}…, {expected[of]} claimed"
        passed = sa.select(sa.func.count()).select_from(self.counters).where(c.used > c.maximum)
        if over := connection.execute(passed).scalar_one():
            yield f"{over} counters are over their limits"


class ConditionalUpdate(_Ledger):
    """What most services write: the database compares with the limit, the number of rows tells the answer."""

    name = "conditional-update"
    title = "conditional UPDATE"
    summary = (
        "one conditional UPDATE for each resource and scope, then the INSERTs; one statement a round trip"
    )

    def prepare(self) -> None:
        super().prepare()
        c = self.counters.c
        self._take = (
            sa.update(self.counters)
            .where(c.resource == sa.bindparam("r"), c.scope == sa.bindparam("s"))
            .where(c.used + sa.bindparam("n") <= c.maximum)
            .values(used=c.used + sa.bindparam("n"))
        )

    def attempt(self, number: int, scopes: list[str]) -> bool:
        with self.connected() as connection:
            for resource in self.scenario.names:
                for scope in scopes:
                    taken = connection.execute(self._take, {"r": resource, "s": scope, "n": 1})
                    if taken.rowcount != 1:
                        connection.rollback()
                        return False
            self.insert(connection, number)
            connection.commit()
        return True


class SelectForUpdate(_Ledger):
    """All counters of a claim are locked by one statement, in order; the program decides, and writes by one more."""

    name = "select-for-update"
    title = "SELECT FOR UPDATE"
    summary = "SELECT … FOR UPDATE of all counters, decided in the program, then UPDATE and INSERTs"
    databases = frozenset({"postgresql", "mysql", "mariadb"})

    def prepare(self) -> None:
        super().prepare()
        c = self.counters.c
        mine = sa.and_(
            c.resource.in_(sa.bindparam("resources", expanding=True)),
            c.scope.in_(sa.bindparam("scopes", expanding=True)),
        )
        look = sa.select(c.used, c.maximum).where(mine).order_by(c.resource, c.scope)
        # A small table would be scanned whole, and every row on the way locked.
        look = look.with_hint(self.counters, "FORCE INDEX (PRIMARY)", "mysql")
        look = look.with_hint(self.counters, "FORCE INDEX (PRIMARY)", "mariadb")
        self._look = self.locked(look)
        self._write = sa.update(self.counters).where(mine).values(used=c.used + sa.bindparam("n"))

    def locked(self, look: sa.Select[int, int]) -> sa.Select[int, int]:
        return look.with_for_update(key_share=True)

    def attempt(self, number: int, scopes: list[str]) -> bool:
        key = {"resources": list(self.scenario.names), "scopes": scopes}
        with self.connected() as connection:
            if any(used + 1 > most for used, most in connection.execute(self._look, key)):
                connection.rollback()
                return False
            connection.execute(self._write, {**key, "n": 1})
            self.insert(connection, number)
            connection.commit()
        return True


class Serializable(SelectForUpdate):
    """The same without locks: the database finds out who met, and they begin anew."""

    name = "serializable"
    title = "SERIALIZABLE, retries"
    summary = "SELECT, decided in the program, UPDATE and INSERTs at SERIALIZABLE; begun anew when it fails"
    databases = frozenset({"postgresql", "mysql", "mariadb", "sqlite"})
    isolation = "SERIALIZABLE"

    def locked(self, look: sa.Select[int, int]) -> sa.Select[int, int]:
        return look
