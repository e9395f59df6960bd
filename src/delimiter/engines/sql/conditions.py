"""What is unsafe about how a database is set up: weak durability, replicas, Galera. It is looked at, never changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from delimiter.condition import Condition, Weakness
from delimiter.engines.sql.galera import Galera
from delimiter.engines.sql.schema import Tables

__all__ = ["Conditions"]

_LOST_AT_A_CRASH: Final = "Claims that were acknowledged can be lost when the server crashes."
_TORN: Final = "A crash can leave pages that are half written, and a store that cannot be read."

#: Share of the time for which a node may have been held up before it is told of.
_HELD_UP: Final = 0.1

#: A cluster of this many keeps a majority when it loses a node.
_ENOUGH_NODES: Final = 3


class Conditions:
    """Looks at the database of one store."""

    def __init__(self, tables: Tables, galera: Galera) -> None:
        self._tables = tables
        self._galera = galera

    def look(self, connection: sa.Connection) -> Condition:
        match connection.dialect.name:
            case "sqlite":
                return Condition("", tuple(_of_sqlite(connection)))
            case "postgresql":
                return self._of_postgresql(connection)
            case _:
                return self._of_mariadb(connection)

    def _names(self) -> list[str]:
        return [table.name for table in self._tables.metadata.sorted_tables]

    # -- PostgreSQL ---------------------------------------------------------------------------------------------

    def _of_postgresql(self, connection: sa.Connection) -> Condition:
        rows = connection.execute(sa.text("SELECT name, setting FROM pg_settings"))
        settings = {row.name: row.setting for row in rows}
        standby = bool(connection.scalar(sa.text("SELECT pg_is_in_recovery()")))
        followers = int(connection.scalar(sa.text("SELECT count(*) FROM pg_stat_replication")) or 0)
        unlogged = connection.scalars(
            sa.text(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relpersistence = 'u' AND n.nspname = COALESCE(:schema, current_schema())"
                " AND c.relname IN :names ORDER BY c.relname"
            ).bindparams(sa.bindparam("names", expanding=True)),
            {"schema": self._tables.schema, "names": self._names()},
        ).all()
        kept = f"PostgreSQL, {'a standby' if standby else f'a primary with {followers} standbys'}"
        return Condition(
            kept, tuple(_weak_postgresql(settings, unlogged, standby=standby, followers=followers))
        )

    # -- MariaDB ------------------------------------------------------------------------------------------------

    def _of_mariadb(self, connection: sa.Connection) -> Condition:
        settings = _pairs(connection, "SHOW GLOBAL VARIABLES")
        status = _pairs(connection, "SHOW GLOBAL STATUS")
        engines = connection.execute(
            sa.text(
                "SELECT table_name, engine FROM information_schema.tables"
                " WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name IN :names ORDER BY table_name"
            ).bindparams(sa.bindparam("names", expanding=True)),
            {"schema": self._tables.schema, "names": self._names()},
        )
        others = [f"{name} ({engine})" for name, engine in engines if str(engine).lower() != "innodb"]
        galera = self._galera.is_one(connection)
        size = int(status.get("wsrep_cluster_size", "0")) if galera else 0
        found = list(_weak_mariadb(settings, status, size))
        if others:
            found.append(
                Weakness(
                    ", ".join(others),
                    "These tables are not kept by InnoDB: what is written there is not taken back, nor replicated.",
                    "Run ALTER TABLE … ENGINE=InnoDB for each.",
                )
            )
        if not galera:
            kept = "MariaDB, one server"
            if _follows(connection):
                kept = "MariaDB, a replica"
                found.append(
                    Weakness(
                        "a replica",
                        "Claims made here do not come to the server that it follows, and may clash with what does.",
                        "Name that server in the store's URL.",
                    )
                )
            return Condition(kept, tuple(found))
        state = status.get("wsrep_local_state_comment", "unknown")
        found += _weak_galera(settings, status, size)
        return Condition(
            f"Galera, a node in state {state} of a {status.get('wsrep_cluster_status', 'unknown')} cluster of {size};"
            f" {status.get('wsrep_local_cert_failures', '0')} transactions failed certification here",
            tuple(found),
        )


def _of_sqlite(connection: sa.Connection) -> Iterator[Weakness]:
    journal = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar()).lower()
    level = int(connection.exec_driver_sql("PRAGMA synchronous").scalar() or 0)
    if journal in ("off", "memory"):
        danger = "A crash in the middle of a transaction can leave a file that cannot be read."
        yield Weakness(f"journal_mode = {journal}", danger, "Run PRAGMA journal_mode = WAL.")
    if level == 0:
        danger = "Claims that were acknowledged can be lost, and the file be damaged, when the machine loses power."
        yield Weakness("synchronous = OFF", danger, "Leave it at FULL.")
    elif level == 1 and journal == "wal":
        yield Weakness(
            "synchronous = NORMAL",
            "Claims acknowledged shortly before the machine loses power can be lost.",
            "Leave it at FULL.",
            severe=False,
        )


def _weak_postgresql(
    settings: Mapping[str, str], unlogged: Any, *, standby: bool, followers: int
) -> Iterator[Weakness]:
    if standby:
        yield Weakness(
            "a standby",
            "It answers questions, from a moment ago, and takes no claims.",
            "Name the primary in the store's URL.",
        )
    elif settings.get("default_transaction_read_only") == "on":
        yield Weakness(
            "default_transaction_read_only = on", "No claim can be made.", "Set it to off for this database."
        )
    if settings.get("fsync") == "off":
        yield Weakness(
            "fsync = off",
            "A crash of the machine can damage the store beyond repair.",
            "Set fsync = on in postgresql.conf and restart.",
        )
    if settings.get("full_page_writes") == "off":
        yield Weakness(
            "full_page_writes = off", _TORN, "Set full_page_writes = on in postgresql.conf and reload."
        )
    commit = settings.get("synchronous_commit", "on")
    names = settings.get("synchronous_standby_names", "")
    if commit == "off":
        yield Weakness(
            "synchronous_commit = off", _LOST_AT_A_CRASH, "Set synchronous_commit = on for the store's role."
        )
    elif commit == "local" and names:
        yield Weakness(
            "synchronous_commit = local",
            "COMMIT does not wait for the synchronous standby: a failover can lose acknowledged claims.",
            "Set synchronous_commit = on for the store's role.",
            severe=False,
        )
    if followers and not names:
        yield Weakness(
            "synchronous_standby_names is empty",
            "A standby follows and COMMIT does not wait for it: a failover can lose claims acknowledged just before.",
            "Name a synchronous standby, or reconcile with your own tables after a failover.",
            severe=False,
        )
    if unlogged:
        yield Weakness(
            f"UNLOGGED tables: {', '.join(unlogged)}",
            "They are emptied after a crash.",
            "Run ALTER TABLE … SET LOGGED for each.",
        )


def _weak_mariadb(settings: Mapping[str, str], status: Mapping[str, str], size: int) -> Iterator[Weakness]:
    """``size``: of the cluster, 0 for a server that is alone."""
    if settings.get("read_only", "OFF") not in ("OFF", "0"):
        yield Weakness(
            "read_only = ON", "The server takes no claims from ordinary users.", "Name the one that does."
        )
    flush = settings.get("innodb_flush_log_at_trx_commit", "1")
    if flush not in ("1", "3"):
        whole = size >= _ENOUGH_NODES
        danger = (
            "A node that crashes is brought up to date by the others, but claims of the last second are lost if all"
            " nodes lose power at once."
            if whole
            else _LOST_AT_A_CRASH
        )
        yield Weakness(
            f"innodb_flush_log_at_trx_commit = {flush}",
            danger,
            "Set it to 1" + (", or keep the nodes on separate power." if whole else "."),
            severe=not whole,
        )
    if settings.get("innodb_doublewrite", "ON") in ("OFF", "0"):
        yield Weakness(
            "innodb_doublewrite = OFF", _TORN, "Turn it on, unless the file system writes whole pages."
        )
    if settings.get("log_bin") == "ON" and settings.get("sync_binlog", "1") == "0" and not size:
        yield Weakness(
            "sync_binlog = 0",
            "After a crash the server keeps what its binary log has, and the end of that may be lost.",
            "Set sync_binlog = 1.",
        )
    if status.get("Slaves_connected", "0") != "0" and settings.get("rpl_semi_sync_master_enabled") != "ON":
        yield Weakness(
            "rpl_semi_sync_master_enabled = OFF",
            "A replica follows and COMMIT does not wait for it: a failover can lose claims acknowledged just before.",
            "Turn on semi-synchronous replication, or reconcile with your own tables after a failover.",
            severe=False,
        )


def _weak_galera(settings: Mapping[str, str], status: Mapping[str, str], size: int) -> Iterator[Weakness]:
    if status.get("wsrep_ready") != "ON" or status.get("wsrep_cluster_status") != "Primary":
        yield Weakness(
            "wsrep_ready = OFF",
            "The node is not in touch with the majority of its cluster and takes no claims.",
            "Name other nodes in the store's URL, and look at its network.",
        )
    if size < _ENOUGH_NODES or size % 2 == 0:
        yield Weakness(
            f"wsrep_cluster_size = {size}",
            "When the network parts an even number in halves, or one of two nodes is lost, no majority is left and the"
            " cluster stops.",
            "Have three nodes, or five (an arbitrator counts as one).",
            severe=False,
        )
    if int(settings.get("wsrep_sync_wait", "0") or 0) & 1 == 0:
        yield Weakness(
            f"wsrep_sync_wait = {settings.get('wsrep_sync_wait', '0')}",
            "In transactions of the service's own a node may refuse a claim, or answer a question, from what was true"
            " a moment ago on another node. (Transactions that Delimiter opens wait by themselves.)",
            "Run SET SESSION wsrep_sync_wait = 15 on the connections of the service's pool, or set it for all.",
            severe=False,
        )
    if settings.get("wsrep_dirty_reads") == "ON":
        yield Weakness(
            "wsrep_dirty_reads = ON",
            "A node that is cut off goes on answering, from what was true before: claims are refused that would fit.",
            "Set it to OFF.",
        )
    if settings.get("wsrep_osu_method", settings.get("wsrep_OSU_method", "TOI")) != "TOI":
        yield Weakness(
            "wsrep_OSU_method = RSU",
            "Tables are made or changed on this node alone, and the others then drop out of the cluster.",
            "Set it to TOI before a new version of Delimiter changes its tables.",
            severe=False,
        )
    if settings.get("binlog_format", "ROW") != "ROW" or settings.get("innodb_autoinc_lock_mode", "2") != "2":
        yield Weakness(
            f"binlog_format = {settings.get('binlog_format')}, innodb_autoinc_lock_mode ="
            f" {settings.get('innodb_autoinc_lock_mode')}",
            "Galera replicates rows, and its nodes number them beside each other: anything else breaks them apart.",
            "Set binlog_format = ROW and innodb_autoinc_lock_mode = 2.",
        )
    paused = 0.0
    with suppress(ValueError):
        paused = float(status.get("wsrep_flow_control_paused", "0"))
    if paused > _HELD_UP:
        yield Weakness(
            f"wsrep_flow_control_paused = {paused:.2f}",
            "The slowest node has held up every claim for so much of the time.",
            "Give it the disk and the processors of the others, or more wsrep_slave_threads.",
            severe=False,
        )


def _pairs(connection: sa.Connection, statement: str) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.exec_driver_sql(statement)}


def _follows(connection: sa.Connection) -> bool:
    try:
        return connection.exec_driver_sql("SHOW ALL SLAVES STATUS").first() is not None
    except DBAPIError:  # it takes a right of its own to ask
        connection.rollback()
        return False
