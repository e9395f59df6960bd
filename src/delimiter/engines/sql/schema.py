"""The tables, for whatever prefix and schema the service chose. :mod:`.migrations` makes exactly these.

Names and ids compare byte by byte on every database: ``John``, ``john`` and ``john `` are three users. Times are whole
microseconds since 1970 (UTC) by the database's clock. There are no foreign keys, on
purpose: the checks lock rows and gaps that operations of others need (a resource's row is common to every claim of
the deployment; taking back a refused claim would lock the place where the next one is written). That nothing is left
dangling is the code's promise: a claim and its allocations are written and deleted in one transaction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from delimiter.model import SCOPE_KINDS

__all__ = ["HEAD", "Tables", "exact", "tables_of"]

#: The revision of :mod:`.migrations` that these tables are.
HEAD: Final = "0005"

#: A row's own number: 64 bits; SQLite numbers rows only in a column that is called INTEGER.
_KEY: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


_TEXT: Final = sa.Text().with_variant(mysql.TEXT(charset="utf8mb4"), "mysql", "mariadb")


def exact(length: int) -> sa.types.TypeEngine[str]:
    """Text that compares byte by byte: no case folding, no padding (``utf8mb4_bin`` would ignore a final space)."""
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="C"), "postgresql")
        .with_variant(
            mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb"
        )
    )


class Tables:
    """The tables as SQLAlchemy knows them. ``schema`` and ``prefix`` are the service's choice."""

    def __init__(self, *, prefix: str = "delimiter_", schema: str | None = None) -> None:
        self.prefix = prefix
        self.schema = schema
        self.version_name = f"{prefix}version"
        self.metadata = sa.MetaData(schema=schema)
        self.resources = self._resources()
        self.limits = self._limits()
        self.counters = self._counters()
        self.claims = self._claims()
        self.allocations = self._allocations()
        self.projects = self._projects()
        self.ancestors = self._ancestors()
        self.tree = self._tree()
        self.events = self._events()
        self.numbering = self._numbering()
        self.adoptions = self._adoptions()

    def _table(self, name: str, *contents: Any, **options: Any) -> sa.Table:
        return sa.Table(
            self.prefix + name,
            self.metadata,
            *contents,
            mysql_engine="InnoDB",
            mysql_row_format="DYNAMIC",
            mariadb_engine="InnoDB",
            mariadb_row_format="DYNAMIC",
            **options,
        )

    def _index(self, table: str, *columns: str) -> sa.Index:
        return sa.Index(f"{self.prefix}{table}_{'_'.join(columns)}", *columns)

    def _index_where_given(self, table: str, column: str) -> sa.Index:
        """Most rows have nothing there, and are not written into it; MariaDB has no such indexes."""
        given = sa.text(f"{column} IS NOT NULL")
        return sa.Index(f"{self.prefix}{table}_{column}", column, postgresql_where=given, sqlite_where=given)

    def _resources(self) -> sa.Table:
        return self._table(
            "resources",
            sa.Column("id", _KEY, primary_key=True, autoincrement=True),
            sa.Column("name", exact(255), nullable=False),
            sa.Column("service", exact(255), nullable=False),
            sa.Column("unit", _TEXT, nullable=False),
            sa.Column("description", _TEXT, nullable=False),
            *(
                sa.Column(f"{kind}_{bound}", sa.BigInteger(), nullable=False)
                for kind in SCOPE_KINDS
                for bound in ("max", "min")
            ),
            # An undefined resource stays as a row, so that ended claims still tell what they held.
            sa.Column("defined", sa.SmallInteger(), nullable=False),
            # Written by every change of a limit, so that a snapshot taken before it cannot go unnoticed.
            sa.Column("version", sa.BigInteger(), nullable=False),
            # The service's own table that a counted resource is counted from, and by which columns: for operators.
            sa.Column("counted_from", _TEXT, nullable=True),
            sa.UniqueConstraint("name", name=f"{self.prefix}resources_name"),
            sqlite_autoincrement=True,
        )

    def _limits(self) -> sa.Table:
        return self._table(
            "limits",
            sa.Column("resource_id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("kind", exact(8), primary_key=True),
            sa.Column("scope", exact(255), primary_key=True),
            sa.Column("maximum", sa.BigInteger(), nullable=True),
            sa.Column("minimum", sa.BigInteger(), nullable=True),
        )

    def _counters(self) -> sa.Table:
        return self._table(
            "counters",
            sa.Column("id", _KEY, primary_key=True, autoincrement=True),
            sa.Column("resource_id", sa.BigInteger(), nullable=False),
            sa.Column("kind", exact(8), nullable=False),
            sa.Column("scope", exact(255), nullable=False),
            sa.Column("used", sa.BigInteger(), nullable=False),
            sa.Column("reserved", sa.BigInteger(), nullable=False),
            # The limit in force stands beside what is used: it must be read from the row that is locked.
            sa.Column("maximum", sa.BigInteger(), nullable=False),
            sa.Column("minimum", sa.BigInteger(), nullable=False),
            # Raised when the way from this scope to what limits it from above has changed.
            sa.Column("generation", sa.BigInteger(), nullable=False),
            # The part of ``used`` and ``reserved`` that comes from the projects below: 0 where the project has no
            # limit, since nothing below is charged to it then.
            sa.Column("used_below", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
            sa.Column("reserved_below", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
            # Raised by every guard of a counted resource: what was summed before another's rows came in is noticed.
            sa.Column("revision", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
            # Whether a counted resource was over its limit when somebody last looked; no number of it is stored.
            sa.Column("over_quota", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
            sa.UniqueConstraint("resource_id", "kind", "scope", name=f"{self.prefix}counters_scope"),
            sqlite_autoincrement=True,
        )

    def _claims(self) -> sa.Table:
        return self._table(
            "claims",
            sa.Column("id", _KEY, primary_key=True, autoincrement=True),
            sa.Column("claim_id", exact(255), nullable=False),
            sa.Column("project_id", exact(255), nullable=True),
            sa.Column("user_id", exact(255), nullable=True),
            sa.Column("parent_id", exact(255), nullable=True),
            sa.Column("external_id", exact(255), nullable=True),
            # The external id again while the claim is live, NULL afterwards: unique among live claims only.
            sa.Column("live_external_id", exact(255), nullable=True),
            sa.Column("state", exact(12), nullable=False),
            # Set exactly while the claim is an unswept reservation: the index holds nothing else worth finding.
            sa.Column("expires_at", sa.BigInteger(), nullable=True),
            sa.Column("ended_at", sa.BigInteger(), nullable=True),
            sa.Column("created_at", sa.BigInteger(), nullable=False),
            sa.Column("fingerprint", exact(64), nullable=False),
            sa.Column("children", sa.BigInteger(), nullable=False),
            # Raised by every change, so that the row is written and a snapshot from before cannot go unnoticed.
            sa.Column("version", sa.BigInteger(), nullable=False),
            # Of the last change of owner, contents, state or external id; 0: there was none.
            sa.Column("changed_at", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
            sa.UniqueConstraint("claim_id", name=f"{self.prefix}claims_claim_id"),
            sa.UniqueConstraint("live_external_id", name=f"{self.prefix}claims_live_external_id"),
            self._index_where_given("claims", "external_id"),
            self._index_where_given("claims", "parent_id"),
            self._index("claims", "project_id"),
            self._index("claims", "user_id"),
            self._index_where_given("claims", "expires_at"),
            self._index_where_given("claims", "ended_at"),
            sqlite_autoincrement=True,
        )

    def _allocations(self) -> sa.Table:
        return self._table(
            "allocations",
            sa.Column("claim", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("resource_id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("amount", sa.BigInteger(), nullable=False),
            self._index("allocations", "resource_id"),
        )

    def _projects(self) -> sa.Table:
        return self._table(
            "projects",
            sa.Column("project", exact(255), primary_key=True),
            sa.Column("parent", exact(255), nullable=True),
        )

    def _ancestors(self) -> sa.Table:
        """Every project with each of its ancestors, so that a way to the root is one join, however long it is."""
        return self._table(
            "ancestors",
            sa.Column("project", exact(255), primary_key=True),
            sa.Column("ancestor", exact(255), primary_key=True),
            sa.Column("distance", sa.BigInteger(), nullable=False),
            self._index("ancestors", "ancestor"),
        )

    def _tree(self) -> sa.Table:
        """One row: who changes the tree holds it, who makes counters or sets limits shares it.

        (On Galera there is a second one, which all of these write: see :mod:`.galera`. For a third one those queue who
        make counters where plain reads lock: see :meth:`.Projects.queue`.)
        """
        return self._table(
            "tree",
            sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("version", sa.BigInteger(), nullable=False),
            sa.Column("overbooking", sa.SmallInteger(), nullable=False),
        )

    def _events(self) -> sa.Table:
        return self._table(
            "events",
            sa.Column("id", _KEY, primary_key=True, autoincrement=True),
            # Given when the event is first read, and so after its commit; the ids are given at the inserts.
            sa.Column("seq", sa.BigInteger(), nullable=True),
            sa.Column("kind", exact(20), nullable=False),
            sa.Column("resource", exact(255), nullable=False),
            sa.Column("scope", exact(264), nullable=False),
            sa.Column("maximum", sa.BigInteger(), nullable=False),
            sa.Column("previous", sa.BigInteger(), nullable=False),
            sa.Column("used", sa.BigInteger(), nullable=True),
            sa.Column("at", sa.BigInteger(), nullable=False),
            sa.UniqueConstraint("seq", name=f"{self.prefix}events_seq"),
            sqlite_autoincrement=True,
        )

    def _numbering(self) -> sa.Table:
        """One row: whoever numbers events holds it."""
        return self._table(
            "numbering",
            sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("last_seq", sa.BigInteger(), nullable=False),
        )

    def _adoptions(self) -> sa.Table:
        """When what was last adopted from a source outside was asked for there."""
        return self._table(
            "adoptions",
            sa.Column("kind", exact(12), primary_key=True),
            sa.Column("scope", exact(255), primary_key=True),
            sa.Column("as_of", sa.BigInteger(), nullable=False),
        )


@lru_cache(maxsize=64)
def tables_of(prefix: str, schema: str | None) -> Tables:
    """The same tables each time; nobody changes them.

    A statement is compiled once for each engine of SQLAlchemy and each set of tables: whoever opens a store for every
    request, on an engine that is kept, would have all of them compiled again.
    """
    return Tables(prefix=prefix, schema=schema)
