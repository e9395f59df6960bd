"""Races inside callers' own transactions, which commit or roll back as they like."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from delimiter import Conflict, Delimiter, OverLimit, Request
from delimiter.conformance.contract import Contract
from delimiter.conformance.counting import Bundles, assert_counts, assert_full, together, total
from delimiter.conformance.own_rows import OwnRows
from delimiter.engine import Capability

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from delimiter.engine import Engine

_LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


class TransactionRaceContract(Contract):
    @pytest.fixture
    def callers(self, engine: Engine, quota: Delimiter) -> Iterator[OwnRows]:
        if Capability.CALLERS_TRANSACTION not in engine.capabilities:
            pytest.skip("this engine does not declare CALLERS_TRANSACTION")
        Bundles().define(quota)
        rows = OwnRows(self.database(engine))
        yield rows
        rows.close()

    @pytest.mark.parametrize("level", _LEVELS)
    def test_callers_that_roll_back_at_random(
        self, handles: list[Delimiter], callers: OwnRows, level: str
    ) -> None:
        """Guards: counters are changed in the caller's transaction, under its locks, from the locked row; a stale
        snapshot is a ``Conflict``. Every caller has read something before it claims."""
        bundles, database = Bundles(), callers.at(level)

        def work(number: int) -> int:
            dice, kept = random.Random(number), 0
            for step in range(8):
                row = number * 100 + step
                kept += _until_decided(lambda row=row: self._once(handles, callers, database, dice, row))
            return kept

        kept = total(together([partial(work, number) for number in range(8)]))
        assert len(callers.all()) == kept
        assert len(list(handles[0].claims())) == 2 * kept
        assert_counts(handles[1], projects=bundles.projects, users=bundles.users)
        bundles.fill(handles[0])
        bundles.assert_met(handles[1])

    def _once(
        self, handles: list[Delimiter], callers: OwnRows, database: sa.Engine, dice: random.Random, row: int
    ) -> int:
        """One transaction: look, write a row, claim twice in one list, and commit or roll back; 1 if it is kept."""
        bundles, quota = Bundles(), handles[row % 2]
        requests = [
            Request(
                dict.fromkeys(dice.sample(bundles.resources, 3), 1),
                project=dice.choice(bundles.projects),
                user=dice.choice(bundles.users),
            )
            for _ in range(2)
        ]
        with database.connect() as connection:
            if dice.random() < 0.5:
                callers.look(connection)
            callers.add(connection, row)
            try:
                quota.claim_all(requests, connection=connection)
            except OverLimit:
                connection.rollback()
                return 0
            if dice.random() < 0.4:
                connection.rollback()
                return 0
            connection.commit()
        return 1

    @pytest.mark.parametrize("level", _LEVELS)
    def test_the_last_units_for_callers(self, handles: list[Delimiter], callers: OwnRows, level: str) -> None:
        """Guard: the limit is decided on the locked row, whatever the caller's snapshot shows."""
        handles[0].define_resource("cores", max=20)
        database = callers.at(level)

        def take(number: int, step: int) -> int:
            with database.connect() as connection:
                callers.look(connection)
                try:
                    handles[number % 2].claim({"cores": 1}, project=f"p{number}", connection=connection)
                except OverLimit:
                    connection.rollback()
                    return 0
                callers.add(connection, number * 100 + step)
                connection.commit()
            return 1

        def work(number: int) -> int:
            return sum(_until_decided(partial(take, number, step)) for step in range(4))

        assert total(together([partial(work, number) for number in range(8)])) == 20
        assert len(callers.all()) == 20
        assert_full(handles[0], "cores", 20)
        assert_counts(handles[0], projects=[f"p{n}" for n in range(8)])


def _until_decided(transaction: object) -> int:
    """What a caller does who meets a ``Conflict``: roll back, and start the whole transaction anew."""
    import sqlalchemy as sa

    assert callable(transaction)
    for _ in range(500):
        try:
            return int(transaction())
        except Conflict:
            continue
        except sa.exc.DBAPIError:  # the caller's own statement met somebody else's
            continue
    raise AssertionError("a transaction was never decided")
