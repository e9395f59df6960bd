"""Races inside callers' own transactions, which commit or roll back as they like."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from delimiter import Conflict, Delimiter, Event, OverLimit, Request, Scope
from delimiter.conformance.contract import OWNERS, Contract, Whom, plant, used
from delimiter.conformance.counting import Bundles, assert_counts, assert_full, together, total
from delimiter.conformance.own_rows import OwnRows
from delimiter.engine import Capability
from delimiter.waiting import pauses

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from delimiter.engine import Engine

#: Seconds after which a caller who begins anew and anew has been locked out.
_PATIENCE: Final = 60.0

_LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


#: What fills the last unit above ``new``, a project that never claimed, after a caller's snapshot was taken.
_MEANWHILE: Final[dict[str, Callable[[Delimiter], object]]] = {
    "a sibling's first claim": lambda q: q.claim({"cores": 1}, project="sibling"),
    "a cousin's first claim": lambda q: q.claim({"cores": 1}, project="cousin"),
    "a claim of the parent": lambda q: q.claim({"cores": 1}, project="parent"),
    "a move": lambda q: q.move_project("new", parent="full"),
    "a move of the parent": lambda q: q.move_project("parent", parent="full"),
    "a lower limit": lambda q: q.update_limits("cores", project="top", max=0),
    "a first limit": lambda q: q.update_limits("cores", project="parent", max=0),
    "a limit by default": lambda q: q.define_resource("cores", project_max=0),
}


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

    @pytest.mark.parametrize("level", _LEVELS)
    def test_callers_in_a_tree_that_moves(
        self, handles: list[Delimiter], callers: OwnRows, level: str
    ) -> None:
        """Guard: the way a claim is charged is the one its locked rows show, not that of the caller's snapshot."""
        handles[0].define_resource("cores")
        below = {f"p{number}": "left" for number in range(4)}
        plant(handles[0], {"left": None, "right": None, **below})
        for parent in ("left", "right"):
            handles[0].update_limits("cores", project=parent, max=8)
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
            return sum(_until_decided(partial(take, number, step)) for step in range(5))

        def move(number: int) -> int:
            for step in range(6):
                try:
                    handles[number % 2].move_project(f"p{number}", parent=("right", "left")[step % 2])
                except OverLimit:
                    continue
            return 0

        told = together([partial(work, number) for number in range(4)] + [partial(move, n) for n in range(2)])
        kept = total(told)
        assert len(callers.all()) == kept
        assert sum(used(handles[0], "cores", "left", "right")) == kept
        assert_counts(handles[1], projects=["left", "right", *below])

    @pytest.mark.parametrize("meanwhile", _MEANWHILE)
    @pytest.mark.parametrize("level", _LEVELS)
    def test_a_stale_snapshot_hides_no_ancestor(
        self, handles: list[Delimiter], callers: OwnRows, level: str, meanwhile: str
    ) -> None:
        """Guard: what a new counter is made from, and all that it is charged to, is read from locked rows."""
        quota, other = handles
        quota.define_resource("cores")
        family = {"top": None, "parent": "top", "new": "parent", "sibling": "parent", "cousin": "top"}
        plant(quota, family | {"full": None})
        quota.update_limits("cores", project="top", max=1)
        quota.update_limits("cores", project="full", max=0)
        with callers.at(level).connect() as connection:
            callers.look(connection)
            _MEANWHILE[meanwhile](other)
            with pytest.raises((OverLimit, Conflict)):
                quota.claim({"cores": 1}, project="new", connection=connection)
            connection.rollback()
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="new")
        assert_counts(quota, projects=[*family, "full"])

    @pytest.mark.parametrize("scope", OWNERS, ids=str)
    def test_events_of_a_scope_are_in_their_order(
        self, handles: list[Delimiter], callers: OwnRows, scope: Whom
    ) -> None:
        """Guard: a change of a limit is told only once its counters are locked, and so after what it waited for."""
        quota, other = handles
        name = str(Scope.of(**scope))
        for round_, limits in enumerate([(3, 1), (3, 5), (5, 1), (3, 2)]):
            resource = f"cores{round_}"
            quota.define_resource(resource)
            claim = quota.claim({resource: 6}, project="acme", user="john")
            quota.update_limits(resource, **scope, max=limits[0])
            change = threading.Thread(target=partial(other.update_limits, resource, **scope, max=limits[1]))

            def shrink() -> int:
                with callers.engine.connect() as connection:
                    quota.resize(claim.id, {resource: 5}, connection=connection)  # noqa: B023
                    if change.ident is None:  # noqa: B023
                        change.start()  # noqa: B023
                        change.join(0.3)  # noqa: B023 - it waits for the counter by then, wherever it can
                    quota.resize(claim.id, {resource: 2}, connection=connection)  # noqa: B023
                    connection.commit()
                return 0

            _until_decided(shrink)
            change.join()
            quota.resize(claim.id, {resource: 1})
            assert quota.limits(**scope)[resource] == limits[1]
            _assert_in_order([one for one in quota.events() if (one.resource, one.scope) == (resource, name)])


def _assert_in_order(events: list[Event]) -> None:
    """Each limit follows the one before it, each crossing is of the limit then in force, over and back by turns."""
    limit, over = -1, False
    for event in events:
        if event.kind == "limit_changed":
            assert event.previous_limit == limit, events
            limit = event.limit
        else:
            assert (event.limit, event.kind == "over_quota") == (limit, not over), events
            assert event.used is not None
            assert (event.used > limit) is not over, events
            over = not over


def _until_decided(transaction: object) -> int:
    """What a caller does who meets a ``Conflict``: roll back, pause, and start the whole transaction anew.

    The pauses are of random length, and may be longer each time. They are needed where a plain read locks: at
    SERIALIZABLE on MariaDB each caller shares the gap into which the one that was decided is to write its row, and does
    not queue behind it. If all began at once again, it would wait for as long as they do, and they die of deadlocks
    with it.
    """
    import sqlalchemy as sa

    assert callable(transaction)
    # By time, not by attempts: on a busy machine others need time to commit what stands in the way.
    deadline = time.monotonic() + _PATIENCE
    for pause in pauses():
        if time.monotonic() > deadline:
            break
        try:
            return int(transaction())
        except (Conflict, sa.exc.DBAPIError):  # the latter: the caller's own statement met somebody else's
            threading.Event().wait(pause)
    raise AssertionError("a transaction was never decided")
