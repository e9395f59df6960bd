"""The races of the suite for engines where nothing is made together: every claim is decided exactly, by itself.

A claim usually goes the short way, whose statement would keep the limits even if the long way did not.
"""

from __future__ import annotations

import pytest

import apart
from delimiter.conformance.races import RaceContract
from delimiter.conformance.transaction_races import TransactionRaceContract
from delimiter.conformance.tree_races import TreeRaceContract
from engines.on_store import OnSQL


class Apart(OnSQL):
    """The races of new claims: the others go the long way in any case."""

    _move_all = RaceContract._move_all
    test_the_last_units = RaceContract.test_the_last_units
    test_the_whole_headroom_is_taken_once = RaceContract.test_the_whole_headroom_is_taken_once
    test_bundles_meet_every_limit_exactly = RaceContract.test_bundles_meet_every_limit_exactly
    test_one_id_by_many = RaceContract.test_one_id_by_many
    test_one_external_id_by_many = RaceContract.test_one_external_id_by_many
    test_what_ran_out_is_found_by_all_who_need_it = RaceContract.test_what_ran_out_is_found_by_all_who_need_it
    test_a_conflicting_replay_takes_nothing = RaceContract.test_a_conflicting_replay_takes_nothing

    test_the_last_units_of_an_ancestor = TreeRaceContract.test_the_last_units_of_an_ancestor
    test_the_first_limit_of_an_ancestor_under_load = (
        TreeRaceContract.test_the_first_limit_of_an_ancestor_under_load
    )
    test_moves_to_and_fro_under_load = TreeRaceContract.test_moves_to_and_fro_under_load
    test_a_move_holds_for_the_very_next_claim = TreeRaceContract.test_a_move_holds_for_the_very_next_claim

    callers = TransactionRaceContract.callers
    test_the_last_units_for_callers = TransactionRaceContract.test_the_last_units_for_callers

    @pytest.fixture(autouse=True)
    def decided_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        apart.within(monkeypatch)


@pytest.mark.stores("postgresql")
class TestPostgreSQL(Apart):
    store = "postgresql"


@pytest.mark.stores("mariadb")
class TestMariaDB(Apart):
    store = "mariadb"
