"""What only records what exists: claims that no limit refuses, corrections, and what is known of a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest

from delimiter import (
    Claim,
    ClaimConflict,
    ClaimReleased,
    Delimiter,
    DelimiterError,
    UnknownClaim,
    UnknownResource,
    Usage,
)
from delimiter.changes import Admit, Correct, NewClaim
from delimiter.conformance.contract import OWNERS, Contract, move_time, plant, sight, used

if TYPE_CHECKING:
    from delimiter.engine import Answer, Engine

#: What may happen to the claim "c" (5 cores of acme and john, known as "vm") between a look at it and its correction.
_MEANWHILE: Final[dict[str, Callable[[Delimiter], Any]]] = {
    "grown": lambda q: q.resize("c", {"cores": 6}),
    "shrunk": lambda q: q.resize("c", {"cores": 4}),
    "holds something else": lambda q: q.resize("c", {"ram": 5}),
    "transferred": lambda q: q.transfer("c", project="acme"),
    "released": lambda q: q.release("c"),
    "grown and shrunk again": lambda q: (q.resize("c", {"cores": 6}), q.resize("c", {"cores": 5})),
    "there and back": lambda q: (
        q.transfer("c", project="zeta"),
        q.transfer("c", project="acme", user="john"),
    ),
}


def correction(seen: Claim, engine: Engine, resources: dict[str, int], **owner: str | None) -> Correct:
    """To these contents and this owner, if nothing has changed it until now."""
    owner = owner or {"project": seen.project, "user": seen.user}
    return Correct(seen, engine.now(), resources, owner.get("project"), owner.get("user"))


def existing(id: str, cores: int, **fields: Any) -> NewClaim:
    return NewClaim(id, {"cores": cores}, **fields)


def made(answer: Answer) -> tuple[Claim, ...]:
    assert not isinstance(answer, DelimiterError), answer
    return answer


class ExistingContract(Contract):
    # -- claims for what exists -----------------------------------------------------------------------------------

    def test_no_limit_refuses_what_exists(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", max=3, project_max=4, user_max=5)
        plant(quota)
        quota.claim({"cores": 3}, project="acme", user="john")
        claims = (
            existing("a", 2, project="shop", user="john", external_id="vm-a"),
            existing("b", 7, project="zeta"),
        )
        (answer,) = engine.apply([Admit(claims, existing=True)])
        assert [(one.id, one.state, one.external_id) for one in made(answer)] == [
            ("a", "provisioned", "vm-a"),
            ("b", "provisioned", None),
        ]
        assert used(quota, "cores", "acme", "web", "shop", "zeta") == [5, 2, 2, 7]
        assert quota.usage()["cores"] == Usage(3, 12, 0)
        assert quota.usage(user="john")["cores"] == Usage(5, 5, 0)
        told = sorted((one.kind, one.scope, one.limit, one.used) for one in quota.events())
        assert told == [
            ("over_quota", "project:acme", 4, 5),
            ("over_quota", "project:zeta", 4, 7),
            ("over_quota", "total", 3, 12),
        ]
        assert not quota.check({"cores": 1}, project="acme")
        assert list(quota.reconcile()) == []
        assert made(engine.apply([Admit(claims, existing=True)])[0]) == answer

    def test_what_exists_is_claimed_all_or_none(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, project="acme", external_id="vm-1")
        before = sight(quota)
        for wrong, error in (
            (existing("b", 1, project="acme", external_id="vm-1"), ClaimConflict),
            (existing("b", 1, project="acme", external_id="vm-0"), ClaimConflict),
            (NewClaim("b", {"discs": 1}, project="acme"), UnknownResource),
            (existing("b", 1, project="acme", parent="nobody"), UnknownClaim),
        ):
            claims = (existing("a", 1, project="acme", external_id="vm-0"), wrong)
            (answer,) = engine.apply([Admit(claims, existing=True)])
            assert isinstance(answer, error)
            assert sight(quota) == before

    def test_nobody_is_over_quota_by_what_ran_out(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_max=5)
        claim = quota.claim({"cores": 1}, user="john")
        quota.reserve({"cores": 4}, user="john", expires_in=60)
        move_time(engine, 60)
        made(engine.apply([Admit((existing("a", 2, user="john"),), existing=True)])[0])
        made(engine.apply([correction(claim, engine, {"cores": 3})])[0])
        assert quota.usage(user="john")["cores"] == Usage(5, 5, 0)
        assert [one.kind for one in quota.events()] == []
        assert list(quota.reconcile()) == []

    # -- corrections ----------------------------------------------------------------------------------------------

    def test_a_correction_is_the_whole_new_claim(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", max=9, project_max=6, user_max=9, project_min=2)
        quota.define_resource("ram")
        plant(quota)
        seen = quota.claim({"cores": 5}, project="acme", user="john", id="c", external_id="vm")
        child = quota.claim({"cores": 1}, project="acme", parent="c")
        (claim,) = made(engine.apply([correction(seen, engine, {"cores": 8, "ram": 2}, project="shop")])[0])
        assert claim == quota.get_claim("vm")
        assert (claim.id, claim.resources, claim.project, claim.user, claim.state) == (
            "c",
            {"cores": 8, "ram": 2},
            "shop",
            None,
            "provisioned",
        )
        assert used(quota, "cores", "acme", "web", "shop") == [9, 8, 8]
        assert quota.usage(user="john")["cores"].used == 0
        assert {one.scope for one in quota.events()} == {"project:acme", "project:web", "project:shop"}
        assert made(engine.apply([correction(claim, engine, {})])[0]) == ()  # below the floor
        assert quota.get_claim("c").state == "released"
        assert quota.get_claim(child.id).live, "that claim alone"
        assert used(quota, "cores", "acme", "web", "shop") == [1, 0, 0]
        assert list(quota.reconcile()) == []

    @pytest.mark.parametrize("meanwhile", _MEANWHILE)
    def test_what_has_changed_is_not_corrected(
        self, quota: Delimiter, engine: Engine, meanwhile: str
    ) -> None:
        quota.define_resource("cores")
        quota.define_resource("ram")
        seen = quota.claim({"cores": 5}, project="acme", user="john", id="c", external_id="vm")
        correct = correction(seen, engine, {"cores": 9}, project="zeta")
        move_time(engine, 1)
        _MEANWHILE[meanwhile](quota)
        before = sight(quota)
        assert isinstance(engine.apply([correct])[0], ClaimConflict | ClaimReleased)
        assert sight(quota) == before

    def test_only_what_was_seen_is_corrected(self, quota: Delimiter, engine: Engine) -> None:
        """Though it has not changed since the time that is named: it is another than the one that was looked at."""
        quota.define_resource("cores")
        seen = quota.claim({"cores": 1}, project="acme", id="c")
        quota.resize("c", {"cores": 2})
        move_time(engine, 10)
        refused = engine.apply([Correct(seen, engine.now(), {"cores": 5}, "acme", None)])[0]
        assert isinstance(refused, ClaimConflict)
        assert quota.get_claim("c").resources == {"cores": 2}

    def test_a_change_is_known_by_its_time(self, quota: Delimiter, engine: Engine) -> None:
        """As it was seen, though it has been another meanwhile: the moment of the last change tells."""
        quota.define_resource("cores")
        cases: dict[str, Callable[[], Any]] = {
            "resized": lambda: (quota.resize("c", {"cores": 2}), quota.resize("c", {"cores": 1})),
            "transferred": lambda: (
                quota.transfer("c", user="mary"),
                quota.transfer("c", project="acme"),
            ),
        }
        quota.claim({"cores": 1}, project="acme", id="c")
        move_time(engine, 10)
        for change in cases.values():
            seen, looked = quota.get_claim("c"), engine.now()
            move_time(engine, 10)
            change()
            assert quota.get_claim("c") == seen
            refused = engine.apply([Correct(seen, looked, {"cores": 5}, "acme", None)])[0]
            assert isinstance(refused, ClaimConflict)
            move_time(engine, 10)
        corrected = engine.apply([Correct(quota.get_claim("c"), engine.now(), {"cores": 5}, "acme", None)])[0]
        assert made(corrected)[0].resources == {"cores": 5}
        younger = quota.claim({"cores": 1}, project="acme")
        refused = engine.apply([Correct(younger, engine.now() - 60_000_000, {}, "acme", None)])[0]
        assert isinstance(refused, ClaimConflict)

    def test_many_are_corrected_each_by_itself(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", project_max=10)
        seen = [quota.claim({"cores": 1}, project="acme", user="john", id=f"c{n}") for n in range(6)]
        quota.resize("c1", {"cores": 2})
        unknown = Claim("c9", {"cores": 1}, "acme", None, None, "provisioned")
        answers = engine.apply(
            [
                correction(seen[0], engine, {"cores": 9}),
                correction(seen[1], engine, {"cores": 3}),
                correction(seen[2], engine, {}),
                correction(seen[3], engine, {"discs": 1}),
                correction(seen[4], engine, {"cores": 1}, project="zeta"),
                correction(unknown, engine, {"cores": 1}),
            ]
        )
        kinds = [type(one) if isinstance(one, DelimiterError) else len(one) for one in answers]
        assert kinds == [1, ClaimConflict, 0, UnknownResource, 1, UnknownClaim]
        assert used(quota, "cores", "acme", "zeta") == [9 + 2 + 1 + 1, 1]
        assert list(quota.reconcile()) == []

    # -- what is known of a name ----------------------------------------------------------------------------------

    def test_every_claim_that_had_a_name_is_found(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        first = engine.now()
        for id, external_id in (("a", "vm-1"), ("b", "vm-2"), ("vm-3", None), ("d", None)):
            quota.claim({"cores": 1}, project="acme", id=id, external_id=external_id)
        quota.release("a")
        quota.claim({"cores": 2}, project="acme", id="e", external_id="vm-1")
        quota.reserve({"cores": 1}, project="acme", id="f", external_id="vm-4", expires_in=60)
        move_time(engine, 100)
        names = ["vm-1", "vm-2", "vm-3", "vm-4", "nobody"]

        def found(since: int) -> dict[str, tuple[str, bool]]:
            return {one.id: (one.state, recent) for one, recent in engine.claims_named(names, since=since)}

        states = {
            "a": "released",
            "b": "provisioned",
            "vm-3": "provisioned",
            "e": "provisioned",
            "f": "expired",
        }
        assert found(first - 1) == {id: (state, True) for id, state in states.items()}
        assert found(engine.now()) == {id: (state, False) for id, state in states.items()}
        for scope in OWNERS[:2]:
            assert quota.usage(**scope)["cores"].used == 5

    def test_what_was_touched_lately_is_told(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        verbs: dict[str, Callable[[str], Any]] = {
            "resize": lambda one: quota.resize(one, {"cores": 2}),
            "the same again": lambda one: quota.resize(one, {"cores": 1}),
            "transfer": lambda one: quota.transfer(one, user="john"),
            "release": quota.release,
            "a child": lambda one: quota.claim({"cores": 1}, project="acme", parent=one),
            "nothing": lambda _: None,
        }
        for id in verbs:
            quota.claim({"cores": 1}, project="acme", id=id)
        quota.reserve({"cores": 1}, project="acme", id="provision", expires_in=3600)
        quota.reserve({"cores": 1}, project="acme", id="ran out", expires_in=60)
        move_time(engine, 59)
        since = engine.now()
        move_time(engine, 30)
        for id, verb in verbs.items():
            verb(id)
        quota.provision("provision")
        for _ in range(2):
            touched = {
                one.id
                for one, recent in engine.claims_named([*verbs, "provision", "ran out"], since=since)
                if recent
            }
            assert touched == {"resize", "transfer", "release", "a child", "provision", "ran out"}
            quota.expire_reservations()
