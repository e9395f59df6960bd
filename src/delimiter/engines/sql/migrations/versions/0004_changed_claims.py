"""When a claim was last changed, so that one that is just changing is not taken for a wrong one.

Of the claims that are there it is not known, and 0.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade(op: Operations, tables: Any) -> None:
    """``tables`` carries the prefix and the schema the service chose."""
    name = tables.prefix + "claims"
    present = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(name, schema=tables.schema)}
    if "changed_at" not in present:
        added = sa.Column("changed_at", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        op.add_column(name, added, schema=tables.schema)
