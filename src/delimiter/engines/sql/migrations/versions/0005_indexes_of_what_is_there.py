"""The indexes of what most claims do not have leave those claims out: a new claim is not written into them.

PostgreSQL and SQLite can, in one transaction; on MariaDB nothing changes.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = ("external_id", "parent_id", "expires_at", "ended_at")


def upgrade(op: Operations, tables: Any) -> None:
    """``tables`` carries the prefix and the schema the service chose."""
    if op.get_bind().dialect.name not in ("postgresql", "sqlite"):
        return
    table = tables.prefix + "claims"
    for column in _COLUMNS:
        given = sa.text(f"{column} IS NOT NULL")
        op.drop_index(f"{table}_{column}", table, schema=tables.schema)
        op.create_index(
            f"{table}_{column}",
            table,
            [column],
            schema=tables.schema,
            postgresql_where=given,
            sqlite_where=given,
        )
