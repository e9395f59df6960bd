"""Alembic migrations of Delimiter's own tables; run by :mod:`delimiter.engines.sql.upgrade`, never by the service's."""
