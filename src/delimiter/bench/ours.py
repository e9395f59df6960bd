"""Delimiter itself, in each way that a service may call it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from delimiter import Conflict, Delimiter, InvalidRequest, OverLimit, Request, Unsupported, aio
from delimiter.bench import filling
from delimiter.bench.scenario import CONTESTED, LIMIT, ancestry, project_of, user_of
from delimiter.bench.way import AsyncWay, Counted, ThreadedWay, Way, again

__all__ = ["InCallersTransaction", "OnTheLoop", "Threads"]

#: Seconds for one call; in a long queue nobody shall give up.
_PATIENCE: Final = 600.0
#: Claims of different projects that are made in one step, before anybody calls.
_AT_ONCE: Final = 100

_ASYNC_DRIVERS: Final = {
    "postgresql": "postgresql+psycopg_async",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
    "sqlite": "sqlite+aiosqlite",
}


class _Ours(Way):
    """The tables, the limits and the count are the same however the library is called."""

    def _handle(self, *, create: bool = False) -> Delimiter:
        return Delimiter(self.place.url, create=create, **self._options())

    def _options(self) -> dict[str, Any]:
        place = self.place
        return {"table_prefix": place.prefix, "schema": place.schema, "timeout": _PATIENCE}

    @property
    def _amounts(self) -> dict[str, int]:
        return dict.fromkeys(self.scenario.names, 1)

    def create(self) -> None:
        scenario = self.scenario
        with self._handle(create=True) as quota:
            for name in scenario.names:
                quota.define_resource(name, project_max=LIMIT, user_max=LIMIT)
            # The first claim of a project or user makes its counters; what is measured is what comes after.
            quota.release(quota.claim_all([self._request(CONTESTED)])[0].id)
            for name in scenario.names:
                quota.update_limits(name, project=project_of(CONTESTED), max=scenario.contested_limit)
            if scenario.depth > 1:
                for number in range(scenario.projects):
                    _add_with_ancestors(quota, ancestry(number, scenario.depth))
            for some in _in_parts(range(scenario.projects), _AT_ONCE):
                quota.claim_all([self._request(number) for number in some])
            if scenario.claims > 1:
                engine = self.place.engine(connections=1)
                filling.copy_claims(engine, self.place.prefix, self.place.schema, scenario.claims)
                engine.dispose()
                for drift in quota.reconcile(repair=True):
                    assert drift.repaired

    def _request(self, number: int) -> Request:
        return Request(self._amounts, project=project_of(number), user=user_of(number))

    def count(self) -> Counted:
        with self._handle() as quota:
            first = self.scenario.names[0]
            contested = quota.usage(project=project_of(CONTESTED))
            everything = quota.usage()
            drifts = [str(drift) for drift in quota.reconcile()]
        uneven = {usage.used for usage in everything.values()} != {everything[first].used}
        return Counted(
            claims=everything[first].used - contested[first].used,
            contested=contested[first].used,
            faults=(*drifts, *(("the resources were not claimed alike",) if uneven else ())),
        )


def _add_with_ancestors(quota: Delimiter, names: Sequence[str]) -> None:
    parent = None
    for name in reversed(names):
        quota.add_project(name, parent=parent)
        parent = name


def _in_parts(numbers: range, size: int) -> Iterator[list[int]]:
    rest = iter(numbers)
    while part := list(islice(rest, size)):
        yield part


class Threads(_Ours, ThreadedWay):
    name = "threads"
    title = "Delimiter, threads"
    summary = "claim() in transactions of its own, called by threads"

    def open(self, connections: int) -> None:
        self._quota = self._handle()
        self._each = self._amounts

    def claim(self, number: int) -> bool:
        try:
            self._quota.claim(self._each, project=project_of(number), user=user_of(number))
        except OverLimit:
            return False
        return True

    def close(self) -> None:
        self._quota.close()


class OnTheLoop(_Ours, AsyncWay):
    name = "asyncio"
    title = "Delimiter, asyncio"
    summary = "the same, awaited by tasks of one event loop"

    @classmethod
    def missing(cls, url: str) -> str | None:
        try:
            sa.make_url(_on_loop(url)).get_dialect().import_dbapi()
        except (ImportError, InvalidRequest, Unsupported) as error:
            return f"no asynchronous driver ({error}): pip install 'delimiter[asyncio]'"
        return None

    async def open(self, connections: int) -> None:
        self._quota = aio.Delimiter(_on_loop(self.place.url), create=False, **self._options())
        self._each = self._amounts

    async def claim(self, number: int) -> bool:
        try:
            await self._quota.claim(self._each, project=project_of(number), user=user_of(number))
        except OverLimit:
            return False
        return True

    async def close(self) -> None:
        await self._quota.close()


def _on_loop(url: str) -> str:
    parsed = sa.make_url(url)
    if not parsed.get_dialect().is_async:
        parsed = parsed.set(drivername=_ASYNC_DRIVERS[parsed.get_backend_name()])
        # asyncmy encrypts only where it is told to, and does not know PyMySQL's word for not doing so.
        parsed = parsed.difference_update_query(["ssl_disabled"])
    return parsed.render_as_string(hide_password=False)


class InCallersTransaction(_Ours, ThreadedWay):
    """A handler of a service: its row and the claim commit together."""

    name = "in-transaction"
    title = "Delimiter, in the caller's transaction"
    summary = "claim(connection=…) and the service's own INSERT, committed together by the service"

    _things: ClassVar[str] = "things"

    def create(self) -> None:
        super().create()
        engine = self.place.engine(connections=1)
        self._table().metadata.create_all(engine)
        engine.dispose()

    def _table(self) -> sa.Table:
        return sa.Table(
            self.place.prefix + self._things,
            sa.MetaData(schema=self.place.schema),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("claim", sa.String(36), nullable=False),
        )

    def open(self, connections: int) -> None:
        self._engine = self.place.engine(connections=connections)
        self._quota = Delimiter(self._engine, create=False, **self._options())
        self._insert = sa.insert(self._table()).values(claim=sa.bindparam("claim"))
        self._each = self._amounts

    def claim(self, number: int) -> bool:
        def attempt() -> bool:
            with self._engine.begin() as connection:
                claim = self._quota.claim(
                    self._each, project=project_of(number), user=user_of(number), connection=connection
                )
                connection.execute(self._insert, {"claim": claim.id})
            return True

        try:
            return again(attempt, lambda error: isinstance(error, Conflict), self.stopping)
        except OverLimit:
            return False

    def close(self) -> None:
        self._quota.close()
        self._engine.dispose()
