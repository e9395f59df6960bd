"""Somebody holds a row, somebody else wants it: what tests of locks stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from engines.service import eventually, waiting_for_locks


@contextmanager
def session(url: str, **options: Any) -> Iterator[sa.Connection]:
    """A connection of somebody else's; what it has not committed is rolled back."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, **options)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def hold(connection: sa.Connection, table: str, id: int) -> None:
    """Lock one row, until the transaction ends."""
    held = connection.exec_driver_sql(f"SELECT id FROM delimiter_{table} WHERE id = {id} FOR UPDATE").all()
    assert held == [(id,)]


def is_held(url: str, table: str, id: int) -> bool:
    """Whether another transaction has locked this row."""
    with session(url) as connection:
        try:
            connection.exec_driver_sql(
                f"SELECT id FROM delimiter_{table} WHERE id = {id} FOR UPDATE NOWAIT"
            ).all()
        except sa.exc.OperationalError:
            return True
        return False


def counters(url: str) -> list[int]:
    """The numbers of all counters, in order."""
    with session(url) as connection:
        return list(connection.scalars(sa.text("SELECT id FROM delimiter_counters ORDER BY id")))


def claims(url: str) -> dict[str, int]:
    """The numbers of all claims."""
    with session(url) as connection:
        rows = connection.execute(sa.text("SELECT claim_id, id FROM delimiter_claims"))
        return {row.claim_id: row.id for row in rows}


@contextmanager
def waiting(url: str, call: Callable[[], Any]) -> Iterator[Future[Any]]:
    """A call in another thread, once it waits for a lock that the test holds; let go of that before the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        count = waiting_for_locks(url)
        eventually(lambda: count() or future.done(), what="the call waits for a lock", within=20)
        assert not future.done(), f"it waited for nothing: {future.exception() or future.result()}"
        yield future
