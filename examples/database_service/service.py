"""Puts the parts together, the same for the web process and the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session, sessionmaker

from delimiter import Delimiter

from .hypervisor import Hypervisor
from .models import Base
from .quotas import limit_one_user, open_quota
from .settings import Settings


@dataclass(frozen=True)
class Service:
    settings: Settings
    engine: Engine
    #: Transactions that write; what only reads takes `reading()`.
    sessions: sessionmaker[Session]
    quota: Delimiter
    hypervisor: Hypervisor

    @classmethod
    def open(cls, settings: Settings) -> Service:
        engine = connect(settings.database_url)
        return cls(
            settings,
            engine,
            # What is handed out must be readable after its transaction.
            sessionmaker(engine.execution_options(writes=True), expire_on_commit=False),
            open_quota(engine),
            Hypervisor(settings.hypervisor, build_seconds=settings.build_seconds, crash=settings.crash),
        )

    @classmethod
    def install(cls, settings: Settings) -> None:
        """Before the first start: the tables, and the one user with a smaller contract."""
        engine = connect(settings.database_url)
        Base.metadata.create_all(engine)
        engine.dispose()
        service = cls.open(settings)
        if not service.quota.own_limits():
            limit_one_user(service.quota)
        service.close()

    def reading(self) -> Session:
        return Session(self.engine)

    def close(self) -> None:
        self.quota.close()
        self.engine.dispose()


def connect(url: str) -> Engine:
    """READ COMMITTED is enough for Delimiter, and is not what every database begins with."""
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, isolation_level="READ COMMITTED", pool_size=20, max_overflow=40)
    engine = create_engine(url, connect_args={"timeout": 30}, pool_size=20, max_overflow=40)

    # SQLite has one writer and no locks on rows. So a transaction that is going to write says so at its beginning,
    # and what it reads is the present; the log (WAL) lets others read meanwhile. And the driver is told to leave
    # BEGIN to us, as SQLAlchemy's documentation advises: it comes too late otherwise.
    @event.listens_for(engine, "connect")
    def configure(raw: Any, _record: Any) -> None:
        raw.isolation_level = None
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
