"""Counted resources: what a guard writes, whether a scope was over quota, and where a resource is counted from."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(mysql.TEXT(charset="utf8mb4"), "mysql", "mariadb")


def upgrade(op: Operations, tables: Any) -> None:
    """``tables`` carries the prefix and the schema the service chose."""
    nothing = sa.text("0")
    _add(
        op, tables, "counters", sa.Column("revision", sa.BigInteger(), nullable=False, server_default=nothing)
    )
    _add(
        op,
        tables,
        "counters",
        sa.Column("over_quota", sa.SmallInteger(), nullable=False, server_default=nothing),
    )
    _add(op, tables, "resources", sa.Column("counted_from", _TEXT, nullable=True))


def _add(op: Operations, tables: Any, table: str, column: sa.Column[Any]) -> None:
    """Unless it is there: MariaDB commits each statement of this kind, and somebody may have died half-way."""
    name = tables.prefix + table
    present = {known["name"] for known in sa.inspect(op.get_bind()).get_columns(name, schema=tables.schema)}
    if column.name not in present:
        op.add_column(name, column, schema=tables.schema)
