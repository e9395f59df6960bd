"""A small service that adopts Delimiter, sync or async: its table, its sessions, and what is there in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

import delimiter.aio
from delimiter import Delimiter
from servers import by_driver

_ASYNC_DRIVERS: Final = {"sqlite": "aiosqlite", "postgresql": "psycopg_async", "mysql": "asyncmy"}


class Base(DeclarativeBase):
    pass


class Instance(Base):
    __tablename__ = "instances"

    id: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    project: Mapped[str] = mapped_column(sa.String(100), index=True)


#: What each instance asks for: a place that is tracked, and one that is counted from the rows.
ONE_INSTANCE: Final = {"compute.instances": 1, "service.rows": 1}
_COUNTED: Final[Any] = {"amount": sa.func.count(), "project": Instance.project}


def options_of(address: sa.URL) -> dict[str, Any]:
    if address.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 30}}
    return {"isolation_level": "READ COMMITTED"}


class AdoptingService:
    """`limit` instances for each project."""

    def __init__(self, url: str, *, limit: int) -> None:
        address = sa.make_url(url)
        self.engine = sa.create_engine(address, **options_of(address))
        self.sessions = sessionmaker(self.engine)
        self.quota = Delimiter(url, timeout=60)
        for name in ONE_INSTANCE:
            self.quota.define_resource(name, project_max=limit)
        self.quota.define_resource("compute.ram_mb")
        Base.metadata.create_all(self.engine)
        self.quota.count("service.rows", **_COUNTED)

    def rows(self) -> list[str]:
        with self.sessions() as session:
            return sorted(session.scalars(sa.select(Instance.id)))

    def claims(self) -> list[str]:
        return sorted(claim.id for claim in self.quota.claims())

    def assert_sound(self) -> None:
        """Rows, claims and usage tell the same, and counters are what the claims add up to."""
        assert self.rows() == self.claims()
        usage = self.quota.usage()
        assert [usage[name].used for name in ONE_INSTANCE] == [len(self.rows())] * 2
        assert list(self.quota.reconcile()) == []

    def close(self) -> None:
        self.quota.close()
        self.engine.dispose()

    def __enter__(self) -> AdoptingService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSide:
    """The same service's asynchronous sessions and quota; made and closed in the loop."""

    def __init__(self, url: str) -> None:
        address = sa.make_url(url)
        backend = address.get_backend_name()
        address = by_driver(address, f"{backend}+{_ASYNC_DRIVERS[backend]}")
        self.engine: AsyncEngine = create_async_engine(address, **options_of(address))
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine)
        self.quota = delimiter.aio.Delimiter(self.engine, timeout=60)

    async def __aenter__(self) -> AsyncSide:
        await self.quota.count("service.rows", **_COUNTED)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.quota.close()
        await self.engine.dispose()


def kinds(answers: Sequence[Any]) -> dict[str, int]:
    """How often which: names of errors, "done" for everything else."""
    named = [type(answer).__name__ if isinstance(answer, BaseException) else "done" for answer in answers]
    return {name: named.count(name) for name in sorted(set(named))}
