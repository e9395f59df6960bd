"""Resizing, and the floors under what is provisioned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from delimiter import BelowMinimum, Delimiter, OverLimit, UnknownResource, Usage, Violation
from delimiter.conformance.contract import OWNERS, Contract, move_time, sight, violation

if TYPE_CHECKING:
    from delimiter.engine import Engine


class ChangeContract(Contract):
    def test_a_resize_is_the_whole_new_content(self, quota: Delimiter) -> None:
        for name in ("cores", "ram", "disc"):
            quota.define_resource(name)
        quota.claim({"cores": 2, "ram": 8}, project="acme", user="john", id="c", external_id="vm")
        claim = quota.resize("c", {"cores": 3, "disc": 1})
        assert (claim.id, claim.resources, claim.external_id) == ("c", {"cores": 3, "disc": 1}, "vm")
        for scope in OWNERS:
            assert {name: one.used for name, one in quota.usage(**scope).items()} == {
                "cores": 3,
                "disc": 1,
                "ram": 0,
            }
        assert [one.id for one in quota.claims(resource="disc")] == ["c"]
        assert list(quota.claims(resource="ram")) == []
        assert quota.resize("c", {"cores": 3, "disc": 1}) == claim

    def test_only_the_difference_of_a_resize_is_checked(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=9, project_max=8, user_max=7)
        quota.claim({"cores": 5}, project="acme", user="john", id="c")
        quota.resize("c", {"cores": 7})
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.resize("c", {"cores": 10})
        assert refused.value.violations == (
            violation("cores", "total", limit=9, used=7, requested=3),
            violation("cores", "project:acme", limit=8, used=7, requested=3),
            violation("cores", "user:john", limit=7, used=7, requested=3),
        )
        assert sight(quota) == before

    def test_a_shrink_passes_every_upper_limit(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.define_resource("ram", user_max=4)
        quota.claim({"cores": 9, "ram": 4}, user="john", id="c")
        quota.update_limits("cores", user="john", max=1)
        quota.update_limits("cores", max=0)
        assert quota.resize("c", {"cores": 8, "ram": 4}).resources == {"cores": 8, "ram": 4}
        with pytest.raises(OverLimit) as refused:
            quota.resize("c", {"cores": 7, "ram": 5})
        assert refused.value.violations == (violation("ram", "user:john", limit=4, used=4, requested=1),)
        assert quota.get_claim("c").resources == {"cores": 8, "ram": 4}

    def test_a_resized_reservation_stays_one(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_max=5)
        made = quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
        claim = quota.resize("r", {"cores": 5})
        assert (claim.state, claim.expires_at) == ("reserved", made.expires_at)
        assert quota.usage(user="john")["cores"] == Usage(5, 5, 5)
        move_time(engine, 60)
        assert quota.usage(user="john")["cores"] == Usage(5, 0, 0)
        quota.expire_reservations()
        assert quota.usage(user="john")["cores"] == Usage(5, 0, 0)

    def test_a_resize_counts_nothing_that_ran_out(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_max=5)
        quota.reserve({"cores": 4}, user="john", expires_in=60)
        quota.claim({"cores": 1}, user="john", id="c")
        move_time(engine, 60)
        assert quota.resize("c", {"cores": 5}).resources == {"cores": 5}

    def test_a_transfer_counts_nothing_that_ran_out(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_max=5)
        quota.reserve({"cores": 4}, user="mary", expires_in=60)
        quota.claim({"cores": 5}, user="john", id="c")
        move_time(engine, 60)
        assert quota.transfer("c", user="mary").user == "mary"

    def test_a_resize_to_the_unknown(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="c")
        before = sight(quota)
        with pytest.raises(UnknownResource):
            quota.resize("c", {"cores": 1, "discs": 1})
        assert sight(quota) == before

    # -- floors -------------------------------------------------------------------------------------------------

    def test_a_release_must_leave_the_floors(self, quota: Delimiter) -> None:
        quota.define_resource("cores", min=6, project_min=5, user_min=4)
        quota.claim({"cores": 4}, project="acme", user="john", id="a")
        quota.claim({"cores": 3}, project="acme", user="john", id="b")
        before = sight(quota)
        with pytest.raises(BelowMinimum) as refused:
            quota.release("b")
        assert refused.value.violations == (
            Violation("cores", "total", limit=6, used=7, requested=-3, available=1),
            Violation("cores", "project:acme", limit=5, used=7, requested=-3, available=2),
        )
        assert sight(quota) == before
        quota.release("b", force=True)
        assert quota.usage()["cores"].used == 4
        with pytest.raises(BelowMinimum) as refused:
            quota.release("a")
        assert [(one.scope, one.available) for one in refused.value.violations] == [
            ("total", 0),
            ("project:acme", 0),
            ("user:john", 0),
        ]

    def test_a_release_down_to_the_floor(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_min=2)
        quota.claim({"cores": 2}, project="acme")
        quota.claim({"cores": 5}, project="acme", id="c")
        quota.release("c")
        assert quota.usage(project="acme")["cores"].used == 2

    def test_own_floors_go_before_defaults(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_min=1)
        quota.update_limits("cores", user="john", min=0)
        quota.update_limits("cores", user="mary", min=2)
        quota.claim({"cores": 1}, user="john", id="johns")
        quota.claim({"cores": 2}, user="mary", id="marys")
        quota.release("johns")
        with pytest.raises(BelowMinimum):
            quota.resize("marys", {"cores": 1})
        quota.update_limits("cores", user="mary", min=None)
        quota.resize("marys", {"cores": 1})
        with pytest.raises(BelowMinimum):
            quota.release("marys")

    def test_a_shrink_must_leave_the_floors(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_min=3)
        quota.define_resource("ram", user_min=1)
        quota.claim({"cores": 5, "ram": 1}, user="john", id="c")
        quota.resize("c", {"cores": 3, "ram": 1})
        before = sight(quota)
        with pytest.raises(BelowMinimum) as refused:
            quota.resize("c", {"cores": 2})
        assert refused.value.violations == (
            Violation("cores", "user:john", limit=3, used=3, requested=-1, available=0),
            Violation("ram", "user:john", limit=1, used=1, requested=-1, available=0),
        )
        assert sight(quota) == before
        assert quota.resize("c", {"cores": 2}, force=True).resources == {"cores": 2}

    def test_upper_limits_are_told_before_floors(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_min=2)
        quota.define_resource("ram", user_max=2)
        quota.claim({"cores": 2, "ram": 1}, user="john", id="c")
        with pytest.raises(OverLimit):
            quota.resize("c", {"cores": 1, "ram": 3})
        with pytest.raises(OverLimit):
            quota.resize("c", {"cores": 1, "ram": 3}, force=True)

    def test_a_floor_of_the_whole_tree(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_min=4)
        quota.claim({"cores": 3}, project="acme", id="stays")
        quota.claim({"cores": 1}, project="zeta", id="root")
        quota.claim({"cores": 2}, project="acme", id="child", parent="root")
        before = sight(quota)
        with pytest.raises(BelowMinimum) as refused:
            quota.release("root")
        assert {(one.scope, one.used, one.requested) for one in refused.value.violations} == {
            ("project:acme", 5, -2),
            ("project:zeta", 1, -1),
        }
        assert sight(quota) == before
        quota.release("root", force=True)
        assert [one.id for one in quota.claims()] == ["stays"]

    def test_floors_bind_only_what_is_provisioned(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_min=2)
        quota.claim({"cores": 2}, user="john", id="c")
        for id in ("released", "resized", "expired"):
            quota.reserve({"cores": 3}, user="john", id=id, expires_in=60)
        quota.release("released")
        quota.resize("resized", {"cores": 1})
        with pytest.raises(BelowMinimum) as refused:
            quota.release("c")  # reservations do not hold the floor up
        assert [(one.used, one.requested) for one in refused.value.violations] == [(2, -2)]
        move_time(engine, 60)
        assert quota.expire_reservations() == 2
        assert quota.usage(user="john")["cores"] == Usage(-1, 2, 0)

    def test_a_floor_may_lie_above_what_there_is(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_min=9)
        quota.reserve({"cores": 1}, user="john", id="c", expires_in=60)
        quota.provision("c")
        quota.resize("c", {"cores": 3})
        with pytest.raises(BelowMinimum) as refused:
            quota.release("c")
        assert refused.value.violations == (
            Violation("cores", "user:john", limit=9, used=3, requested=-3, available=0),
        )

    def test_what_grows_is_no_matter_of_floors(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_min=5)
        quota.claim({"cores": 1}, user="john", id="c")
        assert quota.resize("c", {"cores": 2}).resources == {"cores": 2}

    def test_releasing_twice_is_harmless_above_a_floor_too(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_min=1)
        quota.claim({"cores": 1}, user="john", id="c")
        quota.release("c", force=True)
        quota.release("c")
