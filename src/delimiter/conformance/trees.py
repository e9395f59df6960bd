"""Parents: what hangs below a claim is released, transferred, or left alone with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from delimiter import ClaimExpired, ClaimReleased, Delimiter, OverLimit, Request, Usage
from delimiter.conformance.contract import Contract, move_time, sight, violation

if TYPE_CHECKING:
    from delimiter.engine import Engine


def _states(quota: Delimiter, *ids: str) -> list[str]:
    return [quota.get_claim(one).state for one in ids]


class TreeContract(Contract):
    def test_releasing_the_top_releases_all_below(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="root")
        quota.claim({"cores": 2}, user="mary", id="a", parent="root")
        quota.reserve({"cores": 4}, project="acme", id="b", parent="root", expires_in=60)
        quota.claim({"cores": 8}, project="acme", user="john", id="aa", parent="a")
        quota.claim({"cores": 16}, user="john", id="other")
        quota.release("a")
        assert _states(quota, "root", "a", "b", "aa") == ["provisioned", "released", "reserved", "released"]
        quota.release("root")
        assert _states(quota, "root", "a", "b", "aa", "other") == ["released"] * 4 + ["provisioned"]
        assert quota.usage()["cores"] == Usage(-1, 16, 0)
        assert quota.usage(user="john")["cores"].used == 16
        assert quota.usage(user="mary")["cores"].used == quota.usage(project="acme")["cores"].used == 0

    def test_a_deep_tree(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=100)
        chain = [
            Request({"cores": 1}, user="john", id=f"c{n}", parent=f"c{n - 1}" if n else None)
            for n in range(100)
        ]
        quota.claim_all(chain)
        quota.transfer("c50", user="mary")
        assert quota.usage(user="john")["cores"].used == quota.usage(user="mary")["cores"].used == 50
        quota.release("c0")
        assert quota.usage()["cores"].used == 0

    def test_expiry_ends_one_claim_alone(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="root", expires_in=60)
        quota.claim({"cores": 2}, user="john", id="child", parent="root")
        quota.reserve({"cores": 4}, user="john", id="grandchild", parent="child", expires_in=600)
        move_time(engine, 60)
        quota.expire_reservations()
        assert _states(quota, "root", "child", "grandchild") == ["expired", "provisioned", "reserved"]
        assert quota.usage(user="john")["cores"] == Usage(-1, 6, 4)
        quota.provision("grandchild")
        quota.release("root")
        assert _states(quota, "root", "child", "grandchild") == ["expired", "released", "released"]
        assert quota.usage(user="john")["cores"] == Usage(-1, 0, 0)
        quota.release("root")

    @pytest.mark.parametrize("swept", [False, True])
    def test_ended_claims_in_between_do_not_hide_what_is_below(
        self, quota: Delimiter, engine: Engine, *, swept: bool
    ) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="root")
        quota.reserve({"cores": 2}, user="john", id="middle", parent="root", expires_in=60)
        quota.claim({"cores": 4}, user="john", id="leaf", parent="middle")
        move_time(engine, 60)
        if swept:
            quota.expire_reservations()
        quota.transfer("root", user="mary")
        assert [quota.get_claim(one).user for one in ("root", "middle", "leaf")] == ["mary", "john", "mary"]
        assert quota.usage(user="mary")["cores"].used == 5
        quota.release("root")
        assert _states(quota, "root", "middle", "leaf") == ["released", "expired", "released"]
        assert quota.usage()["cores"] == Usage(-1, 0, 0)

    def test_an_ended_parent_takes_no_children(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="released")
        quota.release("released")
        quota.reserve({"cores": 1}, user="john", id="expired", expires_in=60)
        move_time(engine, 60)
        before = sight(quota)
        with pytest.raises(ClaimReleased):
            quota.claim({"cores": 1}, user="john", parent="released")
        with pytest.raises(ClaimExpired):
            quota.claim({"cores": 1}, user="john", parent="expired")
        assert sight(quota) == before

    def test_provisioning_is_of_one_claim_alone(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="root", expires_in=60)
        quota.reserve({"cores": 2}, user="john", id="child", parent="root", expires_in=60)
        quota.provision("root")
        assert _states(quota, "root", "child") == ["provisioned", "reserved"]
        assert quota.usage(user="john")["cores"] == Usage(-1, 3, 2)

    # -- transfer -------------------------------------------------------------------------------------------------

    def test_a_transfer_takes_everything_below_along(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, project="acme", user="john", id="root")
        quota.claim({"cores": 2}, project="zeta", user="mary", id="a", parent="root")
        quota.reserve({"cores": 4}, user="zoe", id="b", parent="a", expires_in=60)
        claim = quota.transfer("root", project="new")
        assert (claim.id, claim.project, claim.user) == ("root", "new", None)
        for one in quota.claims():
            assert (one.project, one.user) == ("new", None)
        assert quota.usage(project="new")["cores"] == Usage(-1, 7, 4)
        for project in ("acme", "zeta"):
            assert quota.usage(project=project)["cores"] == Usage(-1, 0, 0)
        for user in ("john", "mary", "zoe"):
            assert quota.usage(user=user)["cores"] == Usage(-1, 0, 0)
        quota.transfer("a", project="new", user="john")
        assert quota.usage(user="john")["cores"] == Usage(-1, 6, 4)
        assert quota.usage()["cores"] == Usage(-1, 7, 4)

    def test_a_transfer_is_checked_against_the_new_owner(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=5, user_max=3)
        quota.claim({"cores": 3}, project="acme", user="john", id="c")
        quota.claim({"cores": 1}, project="zeta", user="mary")
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.transfer("c", project="zeta", user="mary")
        assert refused.value.violations == (violation("cores", "user:mary", limit=3, used=1, requested=3),)
        quota.update_limits("cores", project="zeta", max=3)
        with pytest.raises(OverLimit) as refused:
            quota.transfer("c", project="zeta", user="mary")
        assert refused.value.violations == (
            violation("cores", "project:zeta", limit=3, used=1, requested=3),
            violation("cores", "user:mary", limit=3, used=1, requested=3),
        )
        quota.update_limits("cores", project="zeta", max=None)
        assert sight(quota) == before
        quota.transfer("c", project="zeta")
        assert quota.usage(project="zeta")["cores"].used == 4

    def test_only_the_net_difference_of_a_transfer_counts(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=6, project_max=6, user_max=4)
        quota.claim({"cores": 2}, project="acme", user="john", id="root")
        quota.claim({"cores": 4}, project="acme", user="mary", id="child", parent="root")
        quota.transfer("child", project="acme", user="mary")  # full, but nothing moves
        with pytest.raises(OverLimit) as refused:
            quota.transfer("root", project="acme", user="mary")
        assert refused.value.violations == (violation("cores", "user:mary", limit=4, used=4, requested=2),)
        quota.update_limits("cores", user="mary", max=6)
        quota.transfer("root", project="acme", user="mary")
        assert quota.usage(user="mary")["cores"].used == 6
        assert quota.usage(project="acme")["cores"] == Usage(6, 6, 0)

    def test_a_transfer_tells_the_present_owners_numbers_only(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.update_limits("cores", user="mary", max=8642)
        quota.claim({"cores": 7531}, user="mary")
        quota.claim({"cores": 4000}, user="john", id="c")
        with pytest.raises(OverLimit) as refused:
            quota.transfer("c", user="mary")
        assert "8642" not in str(refused.value)
        assert "7531" not in str(refused.value)

    def test_a_transfer_ignores_floors(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_min=2)
        quota.claim({"cores": 2}, user="john", id="c")
        assert quota.transfer("c", user="mary").user == "mary"

    def test_a_transferred_reservation_keeps_its_time(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        made = quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
        assert quota.transfer("r", user="mary").expires_at == made.expires_at
        move_time(engine, 60)
        assert quota.usage(user="mary")["cores"] == Usage(-1, 0, 0)
        quota.expire_reservations()
        for user in ("john", "mary"):
            assert quota.usage(user=user)["cores"] == Usage(-1, 0, 0)
