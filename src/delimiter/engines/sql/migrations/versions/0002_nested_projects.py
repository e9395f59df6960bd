"""Nested projects, events, and limits adopted from outside.

Counters learn which part of them comes from the projects below. No project has any yet, so it is 0 everywhere.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


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


def upgrade(op: Operations, tables: Any) -> None:
    """``tables`` carries the prefix and the schema the service chose."""
    _counters(op, tables)
    _projects(op, tables)
    _events(op, tables)
    _create(
        op,
        tables,
        "adoptions",
        sa.Column("kind", _exact(12), primary_key=True),
        sa.Column("scope", _exact(255), primary_key=True),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
    )
    _first_row(op, tables, "tree", {"id": 1, "version": 0, "overbooking": 1})
    _first_row(op, tables, "numbering", {"id": 1, "last_seq": 0})


def _counters(op: Operations, tables: Any) -> None:
    name = tables.prefix + "counters"
    present = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(name, schema=tables.schema)}
    for column in ("used_below", "reserved_below"):
        if column not in present:
            added = sa.Column(column, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
            op.add_column(name, added, schema=tables.schema)


def _projects(op: Operations, tables: Any) -> None:
    _create(
        op,
        tables,
        "projects",
        sa.Column("project", _exact(255), primary_key=True),
        sa.Column("parent", _exact(255), nullable=True),
    )
    _create(
        op,
        tables,
        "ancestors",
        sa.Column("project", _exact(255), primary_key=True),
        sa.Column("ancestor", _exact(255), primary_key=True),
        sa.Column("distance", sa.BigInteger(), nullable=False),
    )
    name = tables.prefix + "ancestors"
    op.create_index(f"{name}_ancestor", name, ["ancestor"], schema=tables.schema, if_not_exists=True)
    _create(
        op,
        tables,
        "tree",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("overbooking", sa.SmallInteger(), nullable=False),
    )


def _events(op: Operations, tables: Any) -> None:
    _create(
        op,
        tables,
        "events",
        sa.Column("id", _KEY, primary_key=True, autoincrement=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("kind", _exact(20), nullable=False),
        sa.Column("resource", _exact(255), nullable=False),
        sa.Column("scope", _exact(264), nullable=False),
        sa.Column("maximum", sa.BigInteger(), nullable=False),
        sa.Column("previous", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("seq", name=f"{tables.prefix}events_seq"),
        sqlite_autoincrement=True,
    )
    _create(
        op,
        tables,
        "numbering",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
    )


def _first_row(op: Operations, tables: Any, name: str, values: dict[str, int]) -> None:
    """The only row of a table of one row, unless it is there already."""
    columns: list[Any] = [sa.column(column) for column in values]
    table = sa.table(tables.prefix + name, *columns, schema=tables.schema)
    there = op.get_bind().execute(sa.select(table)).first()
    if there is None:
        op.execute(sa.insert(table).values(**values))
