"""The engine for SQL databases: SQLite, PostgreSQL and MariaDB, through SQLAlchemy Core."""

from delimiter.engines.sql.store import SqlEngine, open_sql

__all__ = ["SqlEngine", "open_sql"]
