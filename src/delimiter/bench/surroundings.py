"""Where it was measured: the machine, the versions, and how the database keeps what it acknowledges."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from delimiter import Delimiter, __version__

__all__ = ["connections_to_spare", "surroundings"]

#: So many are enough for every way; the server's other clients need some too.
_ENOUGH: Final = 48
_LEFT_TO_OTHERS: Final = 5

_FREE: Final = {
    "postgresql": (
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        " - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
    ),
    "mysql": (
        "SELECT @@max_connections - (SELECT variable_value FROM information_schema.global_status"
        " WHERE variable_name = 'THREADS_CONNECTED')"
    ),
}

#: What decides whether an acknowledged claim survives a crash, and what a commit costs.
_DURABILITY: Final = {
    "postgresql": ("SHOW {}", ("fsync", "synchronous_commit", "full_page_writes")),
    "mysql": ("SELECT @@{}", ("innodb_flush_log_at_trx_commit", "sync_binlog", "log_bin")),
    "sqlite": ("PRAGMA {}", ("journal_mode", "synchronous")),
}


def surroundings(quota: Delimiter, engine: sa.Engine) -> dict[str, Any]:
    """The machine, the versions and the store's durability, by name."""
    condition = quota.condition()
    with engine.connect() as connection:
        server, durability = _server(connection), _durability(connection)
        connection.rollback()
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(aliased=True, terse=True),
        "python": platform.python_version(),
        "delimiter": __version__,
        "sqlalchemy": sa.__version__,
        "driver": _driver(engine.dialect),
        "server": server,
        "durability": durability,
        "kept": condition.kept,
        "weaknesses": [str(weakness) for weakness in condition.weaknesses],
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _driver(dialect: sa.Dialect) -> str:
    module = dialect.loaded_dbapi
    version = getattr(module, "__version__", None) or getattr(module, "sqlite_version", "")
    return f"{dialect.driver} {version}".strip()


def _kind(connection: sa.Connection) -> str:
    return {"mariadb": "mysql"}.get(connection.dialect.name, connection.dialect.name)


def _durability(connection: sa.Connection) -> dict[str, Any]:
    show, names = _DURABILITY[_kind(connection)]
    return {name: connection.exec_driver_sql(show.format(name)).scalar() for name in names}


def _server(connection: sa.Connection) -> str:
    dialect = connection.dialect
    if dialect.name == "sqlite":
        return f"SQLite {connection.scalar(sa.text('SELECT sqlite_version()'))}"
    name = (
        "MariaDB"
        if getattr(dialect, "is_mariadb", False)
        else {"postgresql": "PostgreSQL"}.get(dialect.name, "MySQL")
    )
    return f"{name} {'.'.join(str(part) for part in dialect.server_version_info or ())}"


def connections_to_spare(connection: sa.Connection) -> int:
    """How many connections hand-written code may have, in all its processes together."""
    statement = _FREE.get(_kind(connection))
    if statement is None:
        return _ENOUGH
    return min(_ENOUGH, int(connection.scalar(sa.text(statement)) or 0) - _LEFT_TO_OTHERS)
