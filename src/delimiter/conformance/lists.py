"""``claim_all``: several claims, all or nothing."""

from __future__ import annotations

import pytest

from delimiter import (
    ClaimConflict,
    ClaimReleased,
    Delimiter,
    OverLimit,
    Request,
    UnknownClaim,
    UnknownResource,
)
from delimiter.conformance.contract import Contract, all_claims, sight, violation


class ListContract(Contract):
    def test_a_cluster_is_claimed_in_one_go(self, quota: Delimiter) -> None:
        for name in ("clusters", "instances", "gb"):
            quota.define_resource(name)
        requests = [Request({"clusters": 1}, user="john", id="cluster")]
        for number in range(4):
            node = f"node-{number}"
            requests.append(
                Request({"instances": 1}, user="john", id=node, parent="cluster", external_id=f"vm-{number}")
            )
            requests.append(Request({"gb": 1024}, user="john", parent=f"vm-{number}", expires_in=60))
        claims = quota.claim_all(requests)
        assert [claim.id for claim in claims[:2]] == ["cluster", "node-0"]
        assert [claim.parent for claim in claims] == [None] + [
            one for number in range(4) for one in ("cluster", f"node-{number}")
        ]
        assert [claim.state for claim in claims] == ["provisioned"] + ["provisioned", "reserved"] * 4
        assert [quota.get_claim(claim.id) for claim in claims] == claims
        assert quota.usage(user="john")["gb"].reserved == 4096
        quota.release("cluster")
        assert [one.used for one in quota.usage(user="john").values()] == [0, 0, 0]

    def test_a_violation_counts_the_whole_list(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=9, project_max=4, user_max=100)
        quota.claim({"cores": 2}, project="acme", user="john")
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.claim_all(
                [
                    Request({"cores": 2}, project="acme", user="john"),
                    Request({"cores": 3}, project="acme"),
                    Request({"cores": 3}, project="zeta", expires_in=60),
                ]
            )
        assert refused.value.violations == (
            violation("cores", "total", limit=9, used=2, requested=8),
            violation("cores", "project:acme", limit=4, used=2, requested=5),
        )
        assert sight(quota) == before

    def test_the_last_one_that_does_not_fit_refuses_all(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=3)
        before = sight(quota)
        with pytest.raises(OverLimit):
            quota.claim_all([Request({"cores": 1}, user="john", id=str(number)) for number in range(4)])
        assert sight(quota) == before
        assert len(quota.claim_all([Request({"cores": 1}, user="john") for _ in range(3)])) == 3

    @pytest.mark.parametrize(
        "last, error",
        [
            (Request({"discs": 1}, user="john"), UnknownResource),
            (Request({"cores": 1}, user="john", parent="nobody"), UnknownClaim),
            (Request({"cores": 1}, user="john", parent="later"), UnknownClaim),
            (Request({"cores": 1}, user="john", parent="gone"), ClaimReleased),
            (Request({"cores": 1}, user="john", external_id="vm"), ClaimConflict),
            (Request({"cores": 1}, user="john", external_id="new"), ClaimConflict),
            (Request({"cores": 2}, user="john", id="held"), ClaimConflict),
            (Request({"cores": 1}, user="john", id="gone"), ClaimReleased),
        ],
        ids=["resource", "parent", "later-parent", "ended-parent", "external", "twice", "conflict", "ended"],
    )
    def test_any_error_refuses_the_whole_list(
        self, quota: Delimiter, last: Request, error: type[Exception]
    ) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="held", external_id="vm")
        quota.claim({"cores": 1}, user="john", id="gone")
        quota.release("gone")
        before = sight(quota)
        with pytest.raises(error):
            quota.claim_all(
                [
                    Request({"cores": 1}, user="john", id="first", external_id="new"),
                    last,
                    Request({"cores": 1}, user="john", id="later"),
                ]
            )
        assert sight(quota) == before

    def test_known_and_new_ones_mix(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=3)
        first = [Request({"cores": 1}, user="john", id="a"), Request({"cores": 1}, user="john", id="b")]
        quota.claim_all(first)
        mixed = [first[1], Request({"cores": 1}, user="john", id="c", parent="a"), first[0]]
        for _ in range(2):
            assert [claim.id for claim in quota.claim_all(mixed)] == ["b", "c", "a"]
        assert quota.usage(user="john")["cores"].used == 3
        with pytest.raises(OverLimit) as refused:
            quota.claim_all([*mixed, Request({"cores": 2}, user="john")])
        assert refused.value.violations == (violation("cores", "user:john", limit=3, used=3, requested=2),)
        assert len(all_claims(quota)) == 3

    def test_a_parent_in_the_list_goes_before_one_that_ended(self, quota: Delimiter) -> None:
        """An external id means the live claim that has it, also when that claim is only being made."""
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="old", external_id="vm")
        quota.release("old")
        above = Request({"cores": 1}, user="john", id="new", external_id="vm")
        claims = quota.claim_all([above, Request({"cores": 1}, user="john", parent="vm")])
        assert [claim.parent for claim in claims] == [None, "new"]

    def test_a_conflict_is_told_before_a_limit(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=1)
        quota.claim({"cores": 1}, user="john", id="a")
        with pytest.raises(ClaimConflict):
            quota.claim_all([Request({"cores": 9}, user="john"), Request({"cores": 2}, user="john", id="a")])

    def test_a_long_list(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=500, user_max=5)
        requests = [
            Request({"cores": 1}, project="acme", user=f"user-{number % 100}", id=f"c{number}", parent="c0")
            for number in range(500)
        ]
        requests[0] = Request({"cores": 1}, project="acme", user="user-0", id="c0")
        assert len(quota.claim_all(requests)) == 500
        assert quota.usage(project="acme")["cores"].used == 500
        with pytest.raises(OverLimit) as refused:
            quota.claim_all([Request({"cores": 1}, project="acme", user=f"user-{n}") for n in range(100)])
        assert len(refused.value.violations) == 101
        quota.release("c0")
        assert quota.usage(project="acme")["cores"].used == 0
