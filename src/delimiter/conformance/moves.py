"""What moves in the tree: whole projects, claims from branch to branch, and limits that come later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from delimiter import Delimiter, Overage, OverLimit, Usage
from delimiter.conformance.contract import Contract, move_time, plant, sight, used, violation

if TYPE_CHECKING:
    from delimiter.engine import Engine


class MoveContract(Contract):
    # -- limits that come later -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("by_default", [False, True])
    def test_the_first_limit_of_an_ancestor_counts_what_is_there(
        self, quota: Delimiter, *, by_default: bool
    ) -> None:
        """While nothing limits it, an ancestor need not be counted: the limit must find all that lies below."""
        quota.define_resource("cores")
        plant(quota)
        for number, project in enumerate(("acme", "dev", "web", "shop", "lab")):
            quota.claim({"cores": 2**number}, project=project)
        quota.reserve({"cores": 32}, project="shop", expires_in=600)
        if by_default:
            quota.define_resource("cores", project_max=50)
        else:
            quota.update_limits("cores", project="acme", max=50)
            assert quota.update_limits("cores", project="web", max=43) == [
                Overage("cores", "project:web", limit=43, used=44)
            ]
            quota.update_limits("cores", project="web", max=None)
        assert quota.usage(project="acme")["cores"] == Usage(50, 47, 32)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 4}, project="shop")
        assert refused.value.violations[0] == violation(
            "cores", "project:acme", limit=50, used=47, requested=4
        )
        quota.claim({"cores": 3}, project="dev")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="acme")
        assert list(quota.reconcile()) == []

    def test_a_limit_of_an_ancestor_comes_and_goes(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        plant(quota)
        for limit in (5, 10, 15):
            assert quota.update_limits("cores", project="acme", max=limit) == []
            quota.claim({"cores": 1}, project="shop")
            with pytest.raises(OverLimit):
                quota.claim({"cores": limit}, project="dev")
            quota.update_limits("cores", project="acme", max=None)
            quota.claim({"cores": 1}, project="web")
            quota.update_limits("cores", project="acme", max=-1)
            quota.claim({"cores": 2}, project="dev")
        assert quota.update_limits("cores", project="acme", max=11) == [
            Overage("cores", "project:acme", limit=11, used=12)
        ]

    def test_what_ran_out_does_not_count_at_an_ancestor(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.update_limits("cores", project="acme", max=5)
        quota.reserve({"cores": 3}, project="shop", expires_in=60)
        quota.reserve({"cores": 2}, project="dev", expires_in=600)
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="web")
        move_time(engine, 60)
        assert quota.check({"cores": 3}, project="web")
        quota.claim({"cores": 3}, project="web")
        move_time(engine, 600)
        assert quota.usage(project="acme")["cores"] == Usage(5, 3, 0)
        quota.update_limits("cores", project="zeta", max=3)
        quota.claim({"cores": 3}, project="lab", id="c")
        quota.move_project("dev", parent="zeta")
        assert used(quota, "cores", "acme", "zeta") == [3, 3]
        quota.expire_reservations()
        assert used(quota, "cores", "acme", "zeta", "dev") == [3, 3, 0]

    # -- adding ---------------------------------------------------------------------------------------------------

    def test_a_project_brings_along_what_it_holds(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 3}, project="new")
        quota.reserve({"cores": 2}, project="new", expires_in=600)
        plant(quota, {"acme": None, "web": "acme"})
        quota.update_limits("cores", project="acme", max=6)
        quota.claim({"cores": 2}, project="web")
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.add_project("new", parent="web")
        assert refused.value.violations == (violation("cores", "project:acme", limit=6, used=2, requested=5),)
        assert sight(quota) == before
        quota.update_limits("cores", project="acme", max=7)
        quota.add_project("new", parent="web")
        assert quota.usage(project="acme")["cores"] == Usage(7, 7, 2)
        assert quota.usage(project="web")["cores"] == Usage(-1, 7, 2)
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="new")

    # -- moving ---------------------------------------------------------------------------------------------------

    def test_a_moved_project_carries_its_usage(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", max=99)
        quota.define_resource("ram")
        plant(quota)
        quota.update_limits("cores", project="acme", max=20)
        quota.update_limits("cores", project="zeta", max=9)
        quota.claim({"cores": 1, "ram": 10}, project="shop", user="john")
        quota.claim({"cores": 2}, project="web")
        quota.reserve({"cores": 4}, project="shop", expires_in=60, id="held")
        quota.claim({"cores": 8}, project="dev")
        quota.move_project("web", parent="zeta")
        assert dict(quota.projects())["web"] == "zeta"
        assert used(quota, "cores", "acme", "web", "zeta", "shop") == [8, 7, 7, 5]
        assert quota.usage(project="zeta")["cores"] == Usage(9, 7, 4)
        assert used(quota, "ram", "acme", "zeta") == [0, 10]
        assert (quota.usage()["cores"].used, quota.usage(user="john")["cores"].used) == (15, 1)
        with pytest.raises(OverLimit):
            quota.claim({"cores": 3}, project="shop")
        quota.claim({"cores": 12}, project="dev")
        move_time(engine, 60)
        assert quota.usage(project="zeta")["cores"] == Usage(9, 3, 0)
        quota.claim({"cores": 6}, project="shop", id="c")
        quota.move_project("shop", parent=None)
        assert used(quota, "cores", "zeta", "web", "shop") == [2, 2, 7]
        quota.release("c")
        assert used(quota, "cores", "zeta", "web", "shop", "acme") == [2, 2, 1, 20]
        assert list(quota.reconcile()) == []

    def test_a_move_is_refused_where_there_is_no_room(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=10)
        quota.define_resource("ram")
        plant(quota)
        quota.update_limits("cores", project="zeta", max=6)
        quota.update_limits("cores", project="lab", max=4)
        quota.update_limits("ram", project="zeta", max=5)
        quota.claim({"cores": 3}, project="lab")
        quota.claim({"cores": 3, "ram": 6}, project="shop")
        quota.reserve({"cores": 1}, project="web", expires_in=600)
        before, version = sight(quota), quota.version()
        with pytest.raises(OverLimit) as refused:
            quota.move_project("web", parent="lab")
        assert refused.value.violations == (
            violation("cores", "project:zeta", limit=6, used=3, requested=4),
            violation("cores", "project:lab", limit=4, used=3, requested=4),
            violation("ram", "project:zeta", limit=5, used=0, requested=6),
        )
        assert not any(number in str(refused.value) for number in ("limit", "of 6", "of 4"))
        assert sight(quota) == before
        assert quota.version() == version
        quota.update_limits("cores", project="zeta", max=7)
        quota.update_limits("cores", project="lab", max=7)
        quota.update_limits("ram", project="zeta", max=6)
        quota.move_project("web", parent="lab")
        assert used(quota, "cores", "zeta", "lab", "acme") == [7, 7, 0]

    def test_common_ancestors_are_not_touched_by_a_move(self, quota: Delimiter) -> None:
        """The total and acme are full, and over quota even: what moves inside them asks nothing of them."""
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 4}, project="shop", user="john")
        quota.claim({"cores": 2}, project="dev")
        quota.update_limits("cores", max=3)
        quota.update_limits("cores", project="acme", max=5)
        quota.update_limits("cores", project="shop", max=1)
        quota.update_limits("cores", user="john", max=1)
        quota.move_project("shop", parent="dev")
        assert used(quota, "cores", "acme", "web", "dev") == [6, 0, 6]
        quota.move_project("shop", parent="acme")
        assert used(quota, "cores", "acme", "web", "dev") == [6, 0, 2]
        quota.move_project("shop", parent=None)
        with pytest.raises(OverLimit) as refused:
            quota.move_project("shop", parent="web")
        assert refused.value.violations == (violation("cores", "project:acme", limit=5, used=2, requested=4),)

    def test_an_empty_project_moves_below_a_full_one(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 3}, project="lab")
        quota.update_limits("cores", project="zeta", max=1)
        quota.move_project("web", parent="lab")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="shop")

    def test_a_move_ignores_floors(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_min=2)
        plant(quota)
        quota.claim({"cores": 2}, project="shop")
        quota.move_project("shop", parent="zeta")
        assert used(quota, "cores", "web", "acme", "zeta") == [0, 0, 2]

    # -- claims between branches ----------------------------------------------------------------------------------

    def test_transfers_between_branches(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.update_limits("cores", project="acme", max=5)
        quota.update_limits("cores", project="zeta", max=3)
        quota.claim({"cores": 3}, project="shop", id="root")
        quota.reserve({"cores": 2}, project="web", id="child", parent="root", expires_in=600)
        quota.transfer("root", project="dev")  # acme is full, but inside it nothing grows
        assert used(quota, "cores", "acme", "web", "dev") == [5, 0, 5]
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.transfer("root", project="lab")
        assert refused.value.violations == (violation("cores", "project:zeta", limit=3, used=0, requested=5),)
        assert sight(quota) == before
        quota.transfer("child", project="lab")
        assert quota.usage(project="zeta")["cores"] == Usage(3, 2, 2)
        assert quota.usage(project="acme")["cores"] == Usage(5, 3, 0)
        quota.transfer("root", project="acme")
        assert used(quota, "cores", "acme", "dev", "zeta", "lab") == [5, 0, 0, 0]
        quota.transfer("root", user="john")
        assert used(quota, "cores", "acme", "zeta") == [0, 0]
        assert list(quota.reconcile()) == []

    def test_a_transfer_to_an_ancestor_and_back(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=4)
        plant(quota)
        quota.claim({"cores": 4}, project="shop", id="c")
        quota.transfer("c", project="acme")
        assert used(quota, "cores", "acme", "web", "shop") == [4, 0, 0]
        assert {one.id: one.usage["cores"].used for one in quota.tree() if one.usage["cores"].used} == {
            "acme": 4
        }
        assert list(quota.reconcile()) == []
        quota.transfer("c", project="shop")
        assert list(quota.reconcile()) == []
        assert used(quota, "cores", "acme", "web", "shop") == [4, 4, 4]
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="dev")
