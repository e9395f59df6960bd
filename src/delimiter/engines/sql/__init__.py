"""The engine for SQL databases: SQLite, PostgreSQL and MariaDB, through SQLAlchemy Core."""

from delimiter.engines.sql.opening import open_sql
from delimiter.engines.sql.store import SqlEngine

__all__ = ["SqlEngine", "open_sql"]
