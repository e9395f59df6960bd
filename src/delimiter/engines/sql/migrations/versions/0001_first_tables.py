"""The first tables: resources, limits, counters, claims, allocations.

Written out in full: a migration must go on making what it made on the day it was released, whatever
:mod:`delimiter.engines.sql.schema` becomes. That both agree at the head is tested.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(mysql.TEXT(charset="utf8mb4"), "mysql", "mariadb")


def _exact(length: int) -> Any:
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="C"), "postgresql")
        .with_variant(
            mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb"
        )
    )


def _create(op: Operations, tables: Any, name: str, *contents: Any, **options: Any) -> None:
    op.create_table(
        tables.prefix + name,
        *contents,
        schema=tables.schema,
        # MariaDB commits each statement of this kind: whoever died half-way left the first tables.
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_row_format="DYNAMIC",
        mariadb_engine="InnoDB",
        mariadb_row_format="DYNAMIC",
        **options,
    )


def _index(op: Operations, tables: Any, table: str, column: str) -> None:
    name = tables.prefix + table
    op.create_index(f"{name}_{column}", name, [column], schema=tables.schema, if_not_exists=True)


def upgrade(op: Operations, tables: Any) -> None:
    """``tables`` carries the prefix and the schema the service chose."""
    _resources_and_limits(op, tables)
    _counters(op, tables)
    _claims(op, tables)
    _allocations(op, tables)


def _resources_and_limits(op: Operations, tables: Any) -> None:
    _create(
        op,
        tables,
        "resources",
        sa.Column("id", _KEY, primary_key=True, autoincrement=True),
        sa.Column("name", _exact(255), nullable=False),
        sa.Column("service", _exact(255), nullable=False),
        sa.Column("unit", _TEXT, nullable=False),
        sa.Column("description", _TEXT, nullable=False),
        sa.Column("total_max", sa.BigInteger(), nullable=False),
        sa.Column("total_min", sa.BigInteger(), nullable=False),
        sa.Column("project_max", sa.BigInteger(), nullable=False),
        sa.Column("project_min", sa.BigInteger(), nullable=False),
        sa.Column("user_max", sa.BigInteger(), nullable=False),
        sa.Column("user_min", sa.BigInteger(), nullable=False),
        sa.Column("defined", sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("name", name=f"{tables.prefix}resources_name"),
        sqlite_autoincrement=True,
    )
    _create(
        op,
        tables,
        "limits",
        sa.Column("resource_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("kind", _exact(8), primary_key=True),
        sa.Column("scope", _exact(255), primary_key=True),
        sa.Column("maximum", sa.BigInteger(), nullable=True),
        sa.Column("minimum", sa.BigInteger(), nullable=True),
    )


def _counters(op: Operations, tables: Any) -> None:
    _create(
        op,
        tables,
        "counters",
        sa.Column("id", _KEY, primary_key=True, autoincrement=True),
        sa.Column("resource_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", _exact(8), nullable=False),
        sa.Column("scope", _exact(255), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("maximum", sa.BigInteger(), nullable=False),
        sa.Column("minimum", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("resource_id", "kind", "scope", name=f"{tables.prefix}counters_scope"),
        sqlite_autoincrement=True,
    )


def _claims(op: Operations, tables: Any) -> None:
    _create(
        op,
        tables,
        "claims",
        sa.Column("id", _KEY, primary_key=True, autoincrement=True),
        sa.Column("claim_id", _exact(255), nullable=False),
        sa.Column("project_id", _exact(255), nullable=True),
        sa.Column("user_id", _exact(255), nullable=True),
        sa.Column("parent_id", _exact(255), nullable=True),
        sa.Column("external_id", _exact(255), nullable=True),
        sa.Column("live_external_id", _exact(255), nullable=True),
        sa.Column("state", _exact(12), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", _exact(64), nullable=False),
        sa.Column("children", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("claim_id", name=f"{tables.prefix}claims_claim_id"),
        sa.UniqueConstraint("live_external_id", name=f"{tables.prefix}claims_live_external_id"),
        sqlite_autoincrement=True,
    )
    for column in ("external_id", "parent_id", "project_id", "user_id", "expires_at", "ended_at"):
        _index(op, tables, "claims", column)


def _allocations(op: Operations, tables: Any) -> None:
    _create(
        op,
        tables,
        "allocations",
        sa.Column("claim", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("resource_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )
    _index(op, tables, "allocations", "resource_id")
