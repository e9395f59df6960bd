"""Alembic migrations of Delimiter's own tables; run by :mod:`delimiter.engines.sql.upgrade`, never by the
service's. A version's ``upgrade(op, tables)`` gets Alembic's operations and the prefix and schema as arguments.
"""
