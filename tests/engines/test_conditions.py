"""What is unsafe about how a server is set up, on real servers that are set up so."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

import pytest
import sqlalchemy as sa

from delimiter import Delimiter
from delimiter.engines.sql import conditions
from servers import SqlServer


def found(quota: Delimiter) -> dict[str, bool]:
    """Which settings are told of, and whether they are severe; each with a danger and a remedy in words."""
    weaknesses = quota.condition().weaknesses
    for weakness in weaknesses:
        assert weakness.danger.endswith(".")
        assert weakness.remedy.endswith(".")
        assert str(weakness).startswith(weakness.setting)
    return {weakness.setting: weakness.severe for weakness in weaknesses}


def test_a_server_as_it_comes(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.prepare()
        assert found(quota) == {}
        assert bool(quota.condition().kept) == (not store_url.startswith("sqlite"))


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(
    "pragma, told",
    [
        ("synchronous = OFF", {"synchronous = OFF": True}),
        ("synchronous = NORMAL", {"synchronous = NORMAL": False}),
        ("synchronous = FULL", {}),
    ],
)
def test_durability_on_sqlite(store_url: str, pragma: str, told: dict[str, bool]) -> None:
    engine = sa.create_engine(store_url)
    sa.event.listen(engine, "connect", lambda driver, _: driver.execute(f"PRAGMA {pragma}"))
    with Delimiter(store_url) as quota:
        quota.prepare()
    assert found(Delimiter(engine)) == told
    engine.dispose()


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("mode", ["MEMORY", "OFF"])
def test_a_journal_that_a_crash_loses(store_url: str, mode: str) -> None:
    engine = sa.create_engine(store_url)
    sa.event.listen(engine, "connect", lambda driver, _: driver.execute(f"PRAGMA journal_mode = {mode}"))
    assert found(Delimiter(engine)) == {f"journal_mode = {mode.lower()}": True}
    engine.dispose()


_POSTGRESQL = {
    "fsync": ("off", True),
    "full_page_writes": ("off", True),
    "synchronous_commit": ("off", True),
    "default_transaction_read_only": ("on", True),
}


@pytest.mark.stores("postgresql")
@pytest.mark.parametrize("setting", _POSTGRESQL)
def test_durability_on_postgresql(postgresql_server: SqlServer, store_url: str, setting: str) -> None:
    value, severe = _POSTGRESQL[setting]
    with Delimiter(store_url) as quota:
        quota.prepare()
    with postgresql_server.admin() as connection:
        database = sa.make_url(store_url).database
        server_wide = setting in ("fsync", "full_page_writes")
        whose = "SYSTEM" if server_wide else f'DATABASE "{database}"'
        try:
            connection.execute(sa.text(f"ALTER {whose} SET {setting} = {value}"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
            with Delimiter(store_url, create=False) as quota:
                _until(lambda: found(quota) == {f"{setting} = {value}": severe})
        finally:
            connection.execute(sa.text(f"ALTER {whose} RESET {setting}"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))


@pytest.mark.stores("postgresql")
def test_tables_that_are_not_logged(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.prepare()
        engine = sa.create_engine(store_url)
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE delimiter_claims SET UNLOGGED"))
        engine.dispose()
        assert found(quota) == {"UNLOGGED tables: delimiter_claims": True}


@pytest.mark.parametrize(
    "settings, standby, followers, told",
    [
        ({}, True, 0, {"a standby": True}),
        ({"synchronous_standby_names": ""}, False, 1, {"synchronous_standby_names is empty": False}),
        (
            {"synchronous_standby_names": "*", "synchronous_commit": "local"},
            False,
            1,
            {"synchronous_commit = local": False},
        ),
        ({"synchronous_standby_names": "*", "synchronous_commit": "remote_apply"}, False, 1, {}),
    ],
)
def test_standbys_of_postgresql(settings, standby, followers, told):
    weak = conditions._weak_postgresql(settings, [], standby=standby, followers=followers)
    assert {one.setting: one.severe for one in weak} == told


_MARIADB = {
    "innodb_flush_log_at_trx_commit": ("2", "innodb_flush_log_at_trx_commit = 2"),
    "read_only": ("1", "read_only = ON"),
}


@pytest.mark.stores("mariadb")
@pytest.mark.parametrize("setting", _MARIADB)
def test_durability_on_mariadb(mariadb_server: SqlServer, store_url: str, setting: str) -> None:
    value, told = _MARIADB[setting]
    with Delimiter(store_url) as quota, mariadb_server.admin() as connection:
        quota.prepare()
        before = connection.scalar(sa.text(f"SELECT @@GLOBAL.{setting}"))
        try:
            connection.execute(sa.text(f"SET GLOBAL {setting} = {value}"))
            assert found(quota) == {told: True}
        finally:
            connection.execute(sa.text(f"SET GLOBAL {setting} = {before}"))


@pytest.mark.stores("mariadb")
def test_a_table_that_innodb_does_not_keep(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.prepare()
        engine = sa.create_engine(store_url)
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE delimiter_tree ENGINE=MyISAM"))
        engine.dispose()
        assert found(quota) == {"delimiter_tree (MyISAM)": True}


@pytest.mark.stores("mariadb")
def test_a_replica_of_another(mariadb_server: SqlServer, store_url: str) -> None:
    with Delimiter(store_url) as quota, mariadb_server.admin() as connection:
        quota.prepare()
        try:
            connection.execute(sa.text("CHANGE MASTER 'other' TO MASTER_HOST='127.0.0.1', MASTER_PORT=1"))
            assert found(quota) == {"a replica": True}
        finally:
            connection.execute(sa.text("RESET SLAVE 'other' ALL"))
        assert found(quota) == {}


@pytest.mark.parametrize(
    "settings, status, size, told",
    [
        ({"innodb_doublewrite": "OFF"}, {}, 0, {"innodb_doublewrite = OFF": True}),
        ({"log_bin": "ON", "sync_binlog": "0"}, {}, 0, {"sync_binlog = 0": True}),
        ({"log_bin": "ON", "sync_binlog": "0"}, {}, 3, {}),
        ({}, {"Slaves_connected": "1"}, 0, {"rpl_semi_sync_master_enabled = OFF": False}),
        ({"rpl_semi_sync_master_enabled": "ON"}, {"Slaves_connected": "1"}, 0, {}),
        ({"innodb_flush_log_at_trx_commit": "0"}, {}, 3, {"innodb_flush_log_at_trx_commit = 0": False}),
        ({"innodb_flush_log_at_trx_commit": "0"}, {}, 2, {"innodb_flush_log_at_trx_commit = 0": True}),
    ],
)
def test_other_weaknesses_of_mariadb(settings, status, size, told):
    assert {one.setting: one.severe for one in conditions._weak_mariadb(settings, status, size)} == told


_SOUND = ({"wsrep_sync_wait": "15"}, {"wsrep_ready": "ON", "wsrep_cluster_status": "Primary"}, 3)


@pytest.mark.parametrize(
    "settings, status, size, told",
    [
        ({}, {}, 3, {}),
        ({}, {}, 5, {}),
        ({}, {}, 2, {"wsrep_cluster_size = 2": False}),
        ({}, {}, 4, {"wsrep_cluster_size = 4": False}),
        ({}, {"wsrep_ready": "OFF"}, 3, {"wsrep_ready = OFF": True}),
        ({"wsrep_sync_wait": "6"}, {}, 3, {"wsrep_sync_wait = 6": False}),
        ({"wsrep_dirty_reads": "ON"}, {}, 3, {"wsrep_dirty_reads = ON": True}),
        ({"wsrep_osu_method": "RSU"}, {}, 3, {"wsrep_OSU_method = RSU": False}),
        (
            {"binlog_format": "MIXED"},
            {},
            3,
            {"binlog_format = MIXED, innodb_autoinc_lock_mode = None": True},
        ),
        ({}, {"wsrep_flow_control_paused": "0.25"}, 3, {"wsrep_flow_control_paused = 0.25": False}),
    ],
)
def test_weaknesses_of_galera(settings, status, size, told):
    weak = conditions._weak_galera({**_SOUND[0], **settings}, {**_SOUND[1], **status}, size)
    assert {one.setting: one.severe for one in weak} == told


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        Event().wait(0.05)  # a server reads its configuration a moment later
    assert holds()
