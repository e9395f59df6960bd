"""Many claims that are there before anybody calls, made by the database itself: each step copies what is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa

__all__ = ["copy_claims", "doubled", "look_at"]

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def doubled(present: int, wanted: int) -> Iterator[tuple[str, int]]:
    """For each copying: a letter that makes new ids of the old ones, and how many rows to copy."""
    for letter in _LETTERS:
        if present >= wanted:
            return
        some = min(present, wanted - present)
        yield letter, some
        present += some


def copy_claims(engine: sa.Engine, prefix: str, schema: str | None, wanted: int) -> None:
    """Copies of the first claim in Delimiter's tables; its counters do not know of them yet.

    Through the library each would be decided on. That takes minutes for a million, and ends in the same rows.
    """
    metadata = sa.MetaData(schema=schema)
    claims = sa.Table(f"{prefix}claims", metadata, autoload_with=engine)
    allocations = sa.Table(f"{prefix}allocations", metadata, autoload_with=engine)
    copied = [column for column in claims.c if column.name not in {"id", "claim_id"}]
    with engine.begin() as connection:
        first = connection.execute(sa.select(sa.func.min(claims.c.id))).scalar_one()
        last = connection.execute(sa.select(sa.func.max(claims.c.id))).scalar_one()
        mine = sa.or_(claims.c.id == first, claims.c.id > last)
        for letter, some in doubled(1, wanted):
            rows = sa.select(sa.literal(letter) + claims.c.claim_id, *copied).where(mine).limit(some)
            connection.execute(
                sa.insert(claims).from_select(["claim_id", *(column.name for column in copied)], rows)
            )
        held = (
            sa.select(allocations.c.resource_id, allocations.c.amount)
            .where(allocations.c.claim == first)
            .subquery()
        )
        rows = (
            sa.select(claims.c.id, held.c.resource_id, held.c.amount)
            .join_from(claims, held, sa.true())
            .where(claims.c.id > last)
        )
        connection.execute(sa.insert(allocations).from_select(["claim", "resource_id", "amount"], rows))
    look_at(engine, [claims, allocations])


def look_at(engine: sa.Engine, tables: list[sa.Table]) -> None:
    """Let the database look at its rows, as it does by itself in time."""
    look = {"postgresql": "VACUUM ANALYZE {}", "sqlite": "ANALYZE {}"}.get(
        engine.dialect.name, "ANALYZE TABLE {}"
    )
    quote = engine.dialect.identifier_preparer.format_table
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            connection.exec_driver_sql(look.format(quote(table))).close()
