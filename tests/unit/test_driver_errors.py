"""Which errors of a caller's own statements the tests take for the meeting of two transactions."""

from __future__ import annotations

import sqlite3

import psycopg.errors
import pymysql
import pytest
import sqlalchemy as sa

from driver_errors import met_another


@pytest.mark.parametrize(
    "raised, met",
    [
        (psycopg.errors.SerializationFailure("could not serialize"), True),
        (psycopg.errors.DeadlockDetected("deadlock"), True),
        (psycopg.errors.UniqueViolation("there already"), False),
        (psycopg.errors.InFailedSqlTransaction("failed before"), False),
        (pymysql.OperationalError(1213, "deadlock", sqlstate="40001"), True),
        (pymysql.OperationalError(1205, "lock wait timeout", sqlstate="HY000"), True),
        (pymysql.OperationalError(1020, "changed since", sqlstate="HY000"), True),
        (pymysql.IntegrityError(1062, "there already", sqlstate="23000"), False),
        (pymysql.OperationalError(2013, "lost connection"), False),
        (sqlite3.OperationalError("database is locked"), True),
        (sqlite3.OperationalError("disk full"), False),
    ],
    ids=lambda value: f"{type(value).__name__}: {value}" if isinstance(value, Exception) else None,
)
def test_what_is_taken_for_another_transaction(raised: Exception, *, met: bool) -> None:
    """Guard: ``codes_of``. PyMySQL's errors have MariaDB's number, and beside it an SQLSTATE that says less."""
    assert met_another(sa.exc.DBAPIError("INSERT", {}, raised)) is met
