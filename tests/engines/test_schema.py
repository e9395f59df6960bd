"""The tables: made once by whoever comes first, the same fresh or migrated, out of the service's way."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from delimiter import Delimiter, InvalidRequest, OverLimit, StoreUnavailable
from delimiter.engines.sql import upgrade as upgrading
from delimiter.engines.sql.schema import HEAD, Tables
from delimiter.hosting import leave_out
from servers import SqlServer


@contextmanager
def connected(url: str | sa.URL) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        yield connection


def differences(url: str, tables: Tables) -> list[Any]:
    """What Alembic's autogenerate would change to turn the database into the metadata."""
    ours = {table.name for table in tables.metadata.tables.values()}
    with connected(url) as connection:
        options = {
            "include_object": lambda obj, name, kind, *_: kind != "table" or name in ours,
            "compare_type": True,
            "include_schemas": tables.schema is not None,
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))


def test_migrated_is_what_the_metadata_says(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.prepare()
    assert differences(store_url, Tables()) == []


def test_migrated_is_the_same_as_fresh(store_name: str, database_url: Callable[[str], str]) -> None:
    """Column by column and index by index, as the database itself reports them."""
    migrated, fresh = database_url(store_name), database_url(store_name)
    with Delimiter(migrated) as quota:
        quota.prepare()
    with connected(fresh) as connection:
        Tables().metadata.create_all(connection)
    assert reported(migrated) == reported(fresh)


def reported(url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with connected(url) as connection:
        inspector = sa.inspect(connection)
        for name in sorted(inspector.get_table_names()):
            if name == "delimiter_version":
                continue
            found[name] = {
                "columns": [
                    (c["name"], str(c["type"]), getattr(c["type"], "collation", None), c["nullable"])
                    for c in inspector.get_columns(name)
                ],
                "key": inspector.get_pk_constraint(name)["constrained_columns"],
                "indexes": sorted(
                    (i["name"], i["column_names"], bool(i["unique"])) for i in inspector.get_indexes(name)
                ),
                "unique": sorted(
                    (u["name"], u["column_names"]) for u in inspector.get_unique_constraints(name)
                ),
                "foreign": [
                    (f["constrained_columns"], f["referred_table"]) for f in inspector.get_foreign_keys(name)
                ],
            }
    return found


def test_a_store_of_the_first_tables_goes_on(store_url: str) -> None:
    """Migrated with claims in it: they count as before, and the first nesting finds what they hold."""
    engine = sa.create_engine(store_url)
    with engine.begin() as connection:
        upgrading.run_migrations(connection, Tables(), target="0001")
        for statement in _FIRST_ROWS:
            connection.exec_driver_sql(statement)
    engine.dispose()
    with Delimiter(store_url) as quota:
        assert quota.usage(project="acme")["a.thing"].used == 3
        quota.add_project("corp")
        quota.update_limits("a.thing", project="corp", max=4)
        quota.add_project("acme", parent="corp")
        assert quota.usage(project="corp")["a.thing"].used == 3
        with pytest.raises(OverLimit):
            quota.claim({"a.thing": 2}, project="acme")
        assert list(quota.reconcile()) == []


_FIRST_ROWS = (
    (
        "INSERT INTO delimiter_resources (id, name, service, unit, description, total_max, total_min, project_max,"
        " project_min, user_max, user_min, defined, version)"
        " VALUES (1001, 'a.thing', 'a', '', '', -1, 0, 5, 0, -1, 0, 1, 0)"
    ),
    (
        "INSERT INTO delimiter_claims (id, claim_id, project_id, state, created_at, fingerprint, children, version)"
        " VALUES (1001, 'c1', 'acme', 'provisioned', 1, 'none', 0, 0)"
    ),
    "INSERT INTO delimiter_allocations (claim, resource_id, amount) VALUES (1001, 1001, 3)",
    (
        "INSERT INTO delimiter_counters (id, resource_id, kind, scope, used, reserved, maximum, minimum, generation)"
        " VALUES (1001, 1001, 'project', 'acme', 3, 0, 5, 0, 0)"
    ),
)


def test_the_head_is_the_last_migration() -> None:
    assert ScriptDirectory(str(upgrading._MIGRATIONS)).get_current_head() == HEAD


def first_call(url: str) -> str:
    with Delimiter(url, timeout=60) as quota:
        quota.define_resource("a.thing", max=5)
        return quota.claim({"a.thing": 1}, project="acme", id="the-only").id


def test_many_processes_start_at_once(store_url: str) -> None:
    """Guard: the lock around the migrations (``_alone``); without it some of them fail on tables that exist."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=spawn) as pool:
        assert list(pool.map(first_call, [store_url] * 4)) == ["the-only"] * 4
    with Delimiter(store_url) as quota:
        assert quota.usage()["a.thing"].used == 1


def test_without_create_no_ddl_is_issued(store_url: str) -> None:
    with (
        Delimiter(store_url, create=False) as quota,
        pytest.raises(StoreUnavailable, match="create=True") as error,
    ):
        quota.resources()
    assert not error.value.retryable
    with connected(store_url) as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_a_newer_schema_is_refused(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.prepare()
    with connected(store_url) as connection:
        connection.execute(sa.text("UPDATE delimiter_version SET version_num = '9999'"))
    with Delimiter(store_url) as quota, pytest.raises(StoreUnavailable, match="newer Delimiter"):
        quota.resources()


def test_an_up_to_date_store_is_only_read(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.prepare()
    statements: list[str] = []
    with Delimiter(store_url) as quota:
        pool_engine = quota._engine._transactions._engine  # type: ignore[attr-defined]
        sa.event.listen(pool_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        quota.prepare()
    assert not [
        s for s in statements if s.lstrip().split()[0].upper() not in ("SELECT", "PRAGMA", "SHOW", "DESCRIBE")
    ]


@pytest.mark.stores("postgresql")
def test_a_schema_and_a_prefix_of_its_own(store_url: str) -> None:
    with connected(store_url) as connection:
        connection.execute(sa.text("CREATE SCHEMA quotas"))
    with Delimiter(store_url, schema="quotas", table_prefix="q_") as quota:
        quota.define_resource("a.thing", max=5)
        quota.claim({"a.thing": 2}, project="acme")
        quota.release(next(quota.claims()).id)
        assert quota.usage()["a.thing"].used == 0
        assert list(quota.reconcile()) == []
    with connected(store_url) as connection:
        inspector = sa.inspect(connection)
        assert inspector.get_table_names() == []
        tables = Tables(prefix="q_", schema="quotas")
        expected = {table.name for table in tables.metadata.tables.values()} | {tables.version_name}
        assert expected == set(inspector.get_table_names(schema="quotas"))
    assert differences(store_url, Tables(prefix="q_", schema="quotas")) == []


@pytest.mark.stores("postgresql", "mariadb")
@pytest.mark.parametrize("joined", [False, True])
def test_a_connection_without_a_default_schema(store_url: str, store_name: str, *, joined: bool) -> None:
    url = sa.make_url(store_url)
    if store_name == "mariadb":
        url = url._replace(database=None)
    else:
        url = url.update_query_dict({"options": "-c search_path=nowhere"})
    nowhere = sa.create_engine(url, poolclass=NullPool) if joined else url
    with pytest.raises(InvalidRequest, match="there is no place for the tables"), Delimiter(nowhere) as quota:
        quota.resources()
    with connected(store_url) as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_two_prefixes_are_two_quotas(store_url: str) -> None:
    with Delimiter(store_url, table_prefix="one_") as one, Delimiter(store_url, table_prefix="two_") as two:
        one.define_resource("a.thing", max=1)
        assert [two.resources(), [r.name for r in one.resources()]] == [[], ["a.thing"]]


@pytest.mark.stores("postgresql", "mariadb")
def test_least_privileges_suffice(
    store_url: str, store_name: str, server: Callable[[str], SqlServer]
) -> None:
    """SELECT, INSERT, UPDATE and DELETE on the tables, and nothing else, with ``create=False``."""
    with Delimiter(store_url) as quota:
        quota.define_resource("a.thing", project_max=3, user_max=3)
    limited = sa.make_url(store_url).set(username="tenant", password="secret")  # noqa: S106
    name = limited.database
    with server(store_name).admin() as admin:
        if store_name == "postgresql":
            admin.execute(sa.text("CREATE ROLE tenant LOGIN PASSWORD 'secret'"))
        else:
            admin.execute(sa.text("CREATE USER tenant@'%' IDENTIFIED BY 'secret'"))
            admin.execute(sa.text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{name}`.* TO tenant@'%'"))
    if store_name == "postgresql":
        with connected(store_url) as connection:
            connection.execute(sa.text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
            grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tenant"
            connection.execute(sa.text(grant))
            connection.execute(sa.text("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tenant"))
    try:
        with Delimiter(limited.render_as_string(hide_password=False), create=False) as quota:
            quota.define_resource("a.thing", max=10, project_max=3, user_max=3)
            held = quota.reserve({"a.thing": 1}, project="acme", user="john", expires_in=60)
            quota.resize(quota.provision(held.id).id, {"a.thing": 2})
            quota.update_limits("a.thing", project="acme", max=2)
            quota.release(held.id)
            quota.expire_reservations()
            quota.prune(older_than=0)
            assert list(quota.reconcile(repair=True)) == []
            assert quota.usage()["a.thing"].used == 0
    finally:
        with connected(store_url) as connection:
            if store_name == "postgresql":
                connection.execute(sa.text("DROP OWNED BY tenant"))
        with server(store_name).admin() as admin:
            admin.execute(
                sa.text("DROP ROLE tenant" if store_name == "postgresql" else "DROP USER tenant@'%'")
            )


def test_the_service_can_autogenerate_beside_it(store_url: str) -> None:
    """The service's own Alembic does not propose to drop Delimiter's tables, nor loses sight of its own."""
    with Delimiter(store_url) as quota:
        quota.prepare()
    service = sa.MetaData()
    sa.Table("instances", service, sa.Column("id", sa.Integer, primary_key=True))
    with connected(store_url) as connection:
        plain = compare_metadata(MigrationContext.configure(connection), service)
        options = {"include_name": leave_out()}
        beside = compare_metadata(MigrationContext.configure(connection, opts=options), service)
    assert any(change[0] == "remove_table" for change in plain if isinstance(change, tuple))
    assert [change[0] for change in beside if isinstance(change, tuple)] == ["add_table"]


def test_every_table_of_ours_is_left_out() -> None:
    tables = Tables()
    names = {table.name for table in tables.metadata.tables.values()} | {tables.version_name}
    assert [name for name in names if leave_out()(name, "table", {})] == []


def test_john_is_three_users(store_url: str) -> None:
    """Names are bytes: neither case nor a final space is folded away by a collation."""
    with Delimiter(store_url) as quota:
        quota.define_resource("a.thing", user_max=1)
        for user in ("John", "john", "john "):
            quota.claim({"a.thing": 1}, user=user, id=user)
        assert [quota.usage(user=user)["a.thing"].used for user in ("John", "john", "john ", "JOHN")] == [
            1,
            1,
            1,
            0,
        ]
        assert [claim.user for claim in quota.claims(user="john")] == ["john"]
        assert quota.get_claim("john ").id == "john "
