"""Ids: replays, external ids, and how a claim is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from delimiter import (
    ClaimConflict,
    ClaimExpired,
    ClaimReleased,
    Delimiter,
    DelimiterError,
    OverLimit,
    UnknownClaim,
)
from delimiter.conformance.contract import Contract, Whom, all_claims, move_time, sight

if TYPE_CHECKING:
    from delimiter.engine import Engine


class IdentityContract(Contract):
    def test_the_same_request_again_consumes_nothing(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=3)
        first = quota.claim({"cores": 2}, user="john", id="c")
        for _ in range(3):
            assert quota.claim({"cores": 2}, user="john", id="c") == first
        assert quota.usage(user="john")["cores"].used == 2

    def test_a_replay_shows_the_claim_as_it_is_now(self, quota: Delimiter) -> None:
        """Compared with the request as first made, not with what became of it."""
        quota.define_resource("cores")
        made: dict[str, Any] = {"user": "john", "id": "c", "expires_in": 60}
        quota.reserve({"cores": 2}, **made)
        quota.renew("c", expires_in=1000)
        quota.resize("c", {"cores": 5})
        quota.transfer("c", project="acme")
        quota.provision("c", external_id="vm")
        now = quota.reserve({"cores": 2}, **made)
        assert now == quota.get_claim("c")
        assert (now.resources, now.project, now.user, now.state) == (
            {"cores": 5},
            "acme",
            None,
            "provisioned",
        )
        with pytest.raises(ClaimConflict):
            quota.claim({"cores": 5}, project="acme", id="c", external_id="vm")

    def test_the_time_left_is_not_part_of_a_request(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        first = quota.reserve({"cores": 1}, user="john", id="c", expires_in=600)
        assert quota.reserve({"cores": 1}, user="john", id="c", expires_in=60) == first

    def test_another_request_under_the_same_id(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=2)
        quota.define_resource("ram")
        quota.claim({"cores": 1}, user="john", id="root", external_id="r")
        owner: Whom = {"project": "acme", "user": "john"}
        quota.claim({"cores": 1}, **owner, id="c", parent="root", external_id="vm")
        before = sight(quota)
        same: dict[str, Any] = {**owner, "id": "c", "parent": "root", "external_id": "vm"}
        others: list[dict[str, Any]] = [
            same | {"user": None},
            same | {"project": None},
            same | {"user": "John"},
            same | {"parent": None},
            same | {"parent": "no such claim"},
            same | {"external_id": None},
            same | {"external_id": "VM"},
            same | {"external_id": "r"},
        ]
        for other in others:
            with pytest.raises(ClaimConflict):
                quota.claim({"cores": 1}, **other)
        for resources in ({"cores": 2}, {"ram": 1}, {"cores": 1, "ram": 1}, {"cores": 99}, {"unknown": 1}):
            with pytest.raises(ClaimConflict):
                quota.claim(resources, **same)
        with pytest.raises(ClaimConflict):
            quota.reserve({"cores": 1}, **same, expires_in=60)
        assert sight(quota) == before

    def test_a_replay_of_an_ended_claim(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_max=2)
        quota.claim({"cores": 1}, user="john", id="c")
        quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
        quota.release("c")
        move_time(engine, 60)
        for _ in ("unswept", "swept"):
            with pytest.raises(ClaimReleased):
                quota.claim({"cores": 1}, user="john", id="c")
            with pytest.raises(ClaimExpired):
                quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
            with pytest.raises(ClaimConflict):
                quota.claim({"cores": 2}, user="john", id="c")
            with pytest.raises(ClaimConflict):
                quota.claim({"cores": 1}, user="john", id="r")
            quota.expire_reservations()
        assert quota.usage(user="john")["cores"].used == 0

    def test_a_refused_id_is_decided_again(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=2)
        with pytest.raises(OverLimit):
            quota.claim({"cores": 3}, user="john", id="c")
        assert quota.claim({"cores": 2}, user="john", id="c").resources == {"cores": 2}

    def test_a_replay_outlives_its_parent(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="root", expires_in=60)
        child = quota.claim({"cores": 1}, user="john", id="child", parent="root")
        move_time(engine, 60)
        assert quota.claim({"cores": 1}, user="john", id="child", parent="root") == child

    def test_every_verb_takes_an_external_id(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="c", external_id="vm", expires_in=60)
        assert quota.get_claim("vm").id == "c"
        assert quota.renew("vm", expires_in=90).id == "c"
        assert quota.resize("vm", {"cores": 2}).id == "c"
        assert quota.transfer("vm", user="mary").id == "c"
        assert quota.provision("vm").id == "c"
        assert quota.claim({"cores": 1}, user="mary", id="below", parent="vm").parent == "c"
        quota.release("vm")
        assert [claim.state for claim in all_claims(quota)] == ["released", "released"]

    def test_an_external_id_is_one_live_claims(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="a", external_id="vm")
        quota.reserve({"cores": 1}, user="john", id="b", external_id="vm-b", expires_in=60)
        before = sight(quota)
        calls: list[Any] = [
            lambda: quota.claim({"cores": 1}, user="mary", external_id="vm"),
            lambda: quota.reserve({"cores": 1}, user="mary", external_id="vm-b", expires_in=60),
            lambda: quota.provision("b", external_id="vm"),
        ]
        for call in calls:
            with pytest.raises(ClaimConflict):
                call()
        assert sight(quota) == before
        quota.release("a")
        assert quota.get_claim("vm").id == "a"
        quota.provision("b", external_id="vm")
        assert quota.get_claim("vm").id == "b"
        quota.claim({"cores": 1}, user="john", id="c", external_id="vm-b")
        assert quota.get_claim("vm-b").id == "c"
        quota.reserve({"cores": 1}, user="john", id="d", external_id="e", expires_in=60)
        move_time(engine, 60)
        assert quota.get_claim("e").id == "d"
        quota.claim({"cores": 1}, user="john", id="f", external_id="e")
        assert quota.get_claim("e").id == "f"
        quota.expire_reservations()
        assert quota.get_claim("e").id == "f"

    def test_an_own_id_goes_before_an_external_one(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="a", external_id="b")
        quota.claim({"cores": 2}, user="john", id="b", external_id="a")
        assert quota.get_claim("a").resources == {"cores": 1}
        quota.release("b")
        assert quota.get_claim("b").state == "released"
        assert quota.get_claim("a").state == "provisioned"

    def test_the_last_holder_of_an_external_id_is_found(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        for id in ("a", "b", "c"):
            quota.claim({"cores": 1}, user="john", id=id, external_id="vm")
            quota.release(id)
        assert quota.get_claim("vm").id == "c"
        quota.release("vm")

    def test_the_last_holder_may_be_the_older_claim(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="older", expires_in=60)
        quota.claim({"cores": 1}, user="john", id="younger", external_id="vm")
        quota.release("younger")
        quota.provision("older", external_id="vm")
        quota.release("older")
        assert quota.get_claim("vm").id == "older"

    def test_unknown_ids(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        before = sight(quota)
        calls: list[Any] = [
            lambda: quota.get_claim("nobody"),
            lambda: quota.provision("nobody"),
            lambda: quota.renew("nobody", expires_in=1),
            lambda: quota.resize("nobody", {"cores": 1}),
            lambda: quota.transfer("nobody", user="john"),
            lambda: quota.release("nobody"),
            lambda: quota.claim({"cores": 1}, user="john", parent="nobody"),
            lambda: quota.claim({"cores": 1}, user="john", id="self", parent="self"),
        ]
        for call in calls:
            with pytest.raises(UnknownClaim):
                call()
        assert sight(quota) == before

    @pytest.mark.parametrize("ended", ["released", "expired", "swept"])
    def test_other_verbs_on_an_ended_claim(self, quota: Delimiter, engine: Engine, ended: str) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="c", external_id="vm", expires_in=60)
        if ended == "released":
            quota.release("c")
        move_time(engine, 60)
        if ended == "swept":
            quota.expire_reservations()
        error: type[DelimiterError] = ClaimReleased if ended == "released" else ClaimExpired
        before = sight(quota)
        calls: list[Any] = [
            lambda: quota.provision("c"),
            lambda: quota.provision("vm", external_id="other"),
            lambda: quota.renew("c", expires_in=1),
            lambda: quota.resize("c", {"cores": 1}),
            lambda: quota.transfer("c", user="mary"),
            lambda: quota.claim({"cores": 1}, user="john", parent="vm"),
        ]
        for call in calls:
            with pytest.raises(error):
                call()
        quota.release("c")
        quota.release("vm", force=True)
        assert sight(quota) == before
