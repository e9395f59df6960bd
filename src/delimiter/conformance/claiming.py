"""Claims, refusals and checks, one at a time; and the listing of claims."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from delimiter import Claim, Delimiter, OverLimit, Request, UnknownClaim, UnknownResource, Usage
from delimiter.conformance.contract import Contract, move_time, sight, violation

if TYPE_CHECKING:
    from delimiter.engine import Engine


class ClaimingContract(Contract):
    def test_a_claim_says_what_it_is(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.define_resource("ram")
        root = quota.claim({"cores": 1}, project="acme")
        uuid.UUID(root.id)
        assert root == Claim(root.id, {"cores": 1}, "acme", None, None, "provisioned")
        claim = quota.claim(
            {"ram": 4, "cores": 2}, project="acme", user="john", id="c", parent=root.id, external_id="vm"
        )
        assert claim == Claim(
            "c", {"cores": 2, "ram": 4}, "acme", "john", root.id, "provisioned", external_id="vm"
        )
        assert quota.get_claim("c") == quota.get_claim("vm") == claim

    def test_everybody_named_is_charged_and_nobody_else(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, project="acme", user="john")
        quota.claim({"cores": 2}, project="acme")
        quota.claim({"cores": 4}, user="john")
        assert quota.usage()["cores"].used == 7
        assert quota.usage(project="acme")["cores"].used == 3
        assert quota.usage(user="john")["cores"].used == 5
        assert quota.usage(user="acme")["cores"].used == 0

    def test_each_limit_must_have_room(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=6, project_max=4, user_max=3)
        quota.claim({"cores": 3}, project="acme", user="john")
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 1}, project="zeta", user="john")
        assert refused.value.violations == (violation("cores", "user:john", limit=3, used=3, requested=1),)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 2}, project="acme", user="mary")
        assert refused.value.violations == (violation("cores", "project:acme", limit=4, used=3, requested=2),)
        quota.claim({"cores": 1}, project="acme", user="mary")
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 3}, project="zeta", user="zoe")
        assert refused.value.violations == (violation("cores", "total", limit=6, used=4, requested=3),)
        quota.claim({"cores": 2}, project="zeta", user="zoe")

    def test_every_limit_in_the_way_is_named(self, quota: Delimiter) -> None:
        quota.define_resource("ram", max=10, project_max=9, user_max=8)
        quota.define_resource("cores", max=3, project_max=2, user_max=1)
        quota.define_resource("disc")
        quota.claim({"cores": 1, "ram": 8, "disc": 5}, project="acme", user="john")
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"ram": 4, "disc": 1, "cores": 3}, project="acme", user="john")
        assert refused.value.violations == (
            violation("cores", "total", limit=3, used=1, requested=3),
            violation("cores", "project:acme", limit=2, used=1, requested=3),
            violation("cores", "user:john", limit=1, used=1, requested=3),
            violation("ram", "total", limit=10, used=8, requested=4),
            violation("ram", "project:acme", limit=9, used=8, requested=4),
            violation("ram", "user:john", limit=8, used=8, requested=4),
        )
        assert sight(quota) == before

    def test_a_refusal_tells_the_callers_own_numbers_only(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=7654, user_max=4321)
        quota.update_limits("cores", project="acme", max=6543)
        quota.claim({"cores": 7000}, project="zeta")
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 9000}, project="acme", user="john")
        text = str(refused.value)
        assert "6543" in text
        assert "4321" in text
        for secret in ("7654", "7000", "654 "):
            assert secret not in text

    def test_a_refused_claim_leaves_no_trace(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=2)
        quota.define_resource("ram", project_max=2)
        before = sight(quota)
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1, "ram": 3}, project="acme", id="c", external_id="vm")
        assert sight(quota) == before
        for name in ("c", "vm"):
            with pytest.raises(UnknownClaim):
                quota.get_claim(name)
        quota.update_limits("ram", project="acme", max=3)
        assert quota.claim({"cores": 1, "ram": 3}, project="acme", id="c", external_id="vm").id == "c"

    def test_what_fits_exactly_is_admitted(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=5, project_max=5, user_max=5)
        quota.claim({"cores": 5}, project="acme", user="john")
        assert quota.usage(user="john")["cores"] == Usage(5, 5, 0)

    def test_what_is_released_is_free_again(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=2)
        for _ in range(3):
            claim = quota.claim({"cores": 2}, user="john")
            quota.release(claim.id)
        assert quota.usage(user="john")["cores"].used == 0

    def test_check_tells_what_a_claim_would_be_told(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=10, project_max=6, user_max=5)
        quota.define_resource("ram", user_max=3)
        quota.define_resource("disc")
        quota.claim({"cores": 4, "ram": 1}, project="acme", user="john")
        before = sight(quota)
        wanted = {"cores": 3, "ram": 2, "disc": 9}
        decision = quota.check(wanted, project="acme", user="john")
        assert (decision.allowed, bool(decision)) == (False, False)
        assert dict(decision.available) == {"cores": 1, "ram": 2, "disc": None}
        with pytest.raises(OverLimit) as refused:
            quota.claim(wanted, project="acme", user="john")
        assert tuple(decision.violations) == refused.value.violations
        assert sight(quota) == before
        allowed = quota.check({"cores": 1, "ram": 2}, project="acme", user="john")
        assert allowed
        assert allowed.violations == ()
        assert dict(quota.check({"cores": 1}, user="mary").available) == {"cores": 5}
        assert dict(quota.check({"cores": 1}, project="zeta").available) == {"cores": 6}
        with pytest.raises(UnknownResource):
            quota.check({"cores": 1, "discs": 1}, user="john")

    def test_check_never_says_less_than_nothing(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 5}, project="acme")
        quota.update_limits("cores", project="acme", max=3)
        decision = quota.check({"cores": 1}, project="acme")
        assert dict(decision.available) == {"cores": 0}
        assert decision.violations == (violation("cores", "project:acme", limit=3, used=5, requested=1),)

    def test_check_does_not_count_what_ran_out(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", max=2, user_max=2)
        quota.reserve({"cores": 2}, user="john", expires_in=60)
        assert not quota.check({"cores": 1}, user="john")
        move_time(engine, 60)
        assert quota.check({"cores": 2}, user="john")
        assert quota.usage(user="john") == {"cores": Usage(2, 0, 0)}
        assert quota.usage() == {"cores": Usage(2, 0, 0)}

    def test_claims_are_listed_by_owner_resource_and_state(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.define_resource("ram")
        quota.claim({"cores": 1}, project="acme", user="john", id="a")
        quota.claim({"ram": 1}, project="acme", user="mary", id="b")
        quota.claim({"cores": 1, "ram": 1}, user="john", id="c")
        quota.reserve({"cores": 1}, project="acme", expires_in=600, id="d")
        quota.reserve({"cores": 1}, project="acme", expires_in=60, id="e")
        quota.release("b")
        move_time(engine, 60)

        def listed(**query: object) -> list[str]:
            return [claim.id for claim in quota.claims(**query)]  # type: ignore[arg-type]

        assert listed() == ["a", "c", "d"]
        assert listed(project="acme") == ["a", "d"]
        assert listed(user="john") == ["a", "c"]
        assert listed(project="acme", user="john") == ["a"]
        assert listed(resource="ram") == ["c"]
        assert listed(resource="ram", state="released") == ["b"]
        assert listed(state="reserved") == ["d"]
        assert listed(state="provisioned") == ["a", "c"]
        assert listed(state="expired") == ["e"]
        assert quota.expire_reservations() == 1
        assert listed(state="expired") == ["e"]
        assert listed(state="expired", project="acme") == ["e"]
        assert listed(state="expired", project="zeta") == []
        assert listed(resource="nothing") == []

    def test_claims_come_in_the_order_they_were_made(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        for start in range(0, 1000, 100):  # those of one list were made at one moment, in no order
            quota.claim_all([Request({"cores": 1}, user="john", id=f"{start}-{n}") for n in range(100)])
        quota.claim({"cores": 1}, user="john", id="a")
        quota.resize("200-3", {"cores": 2})
        listed = [claim.id for claim in quota.claims()]
        assert len(set(listed)) == len(listed) == 1001
        assert [one.split("-")[0] for one in listed[::100]] == [*(str(n) for n in range(0, 1000, 100)), "a"]
        assert len(list(quota.claims(user="john", resource="cores", state="provisioned"))) == 1001

    def test_claims_may_be_changed_while_they_are_listed(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim_all([Request({"cores": 1}, user="john") for _ in range(20)])
        for claim in quota.claims():
            quota.release(claim.id)
        assert list(quota.claims()) == []
        assert quota.usage()["cores"].used == 0
