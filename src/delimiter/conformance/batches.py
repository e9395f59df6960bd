"""``Engine.apply`` itself: several changes, decided in order, each on what the ones before it left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from delimiter import BelowMinimum, Claim, ClaimConflict, ClaimReleased, Delimiter, OverLimit, UnknownClaim
from delimiter.changes import Admit, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.conformance.contract import Contract, sight, violation
from delimiter.engine import Answer

if TYPE_CHECKING:
    from delimiter.engine import Engine


def _admit(id: str, amount: int = 1, **more: Any) -> Admit:
    return Admit((NewClaim(id, {"cores": amount}, **({"user": "john"} | more)),))


def _told(answers: list[Answer]) -> list[Any]:
    """A claim's id for what was admitted, the kind of error for what was refused."""
    return [type(one) if isinstance(one, Exception) else [claim.id for claim in one] for one in answers]


class BatchContract(Contract):
    def test_nothing_to_do(self, engine: Engine) -> None:
        assert engine.apply([]) == []

    def test_an_early_claim_wins_over_a_later_one(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=3)
        answers = engine.apply([_admit("a", 2), _admit("b", 2), _admit("c", 1), _admit("d", 1)])
        assert _told(answers) == [["a"], OverLimit, ["c"], OverLimit]
        refusals = [one for one in answers if isinstance(one, OverLimit)]
        assert refusals[0].violations == (violation("cores", "user:john", limit=3, used=2, requested=2),)
        assert refusals[1].violations == (violation("cores", "user:john", limit=3, used=3, requested=1),)
        assert quota.usage(user="john")["cores"].used == 3
        assert [claim.id for claim in quota.claims()] == ["a", "c"]

    def test_each_is_decided_on_what_the_ones_before_it_left(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=3)
        answers = engine.apply(
            [
                _admit("a", 3, expires_in=60_000_000),
                _admit("b", 1),
                Resize("a", {"cores": 2}),
                _admit("c", 1, parent="a", external_id="vm"),
                Provision("a", "host"),
                Transfer("vm", None, "mary"),
                _admit("d", 1),
                Release("host"),
                _admit("e", 2, parent="d"),
                Renew("a", 1),
                _admit("f", 1, external_id="vm"),
            ]
        )
        assert _told(answers) == [
            ["a"],
            OverLimit,
            ["a"],
            ["c"],
            ["a"],
            ["c"],
            ["d"],
            [],
            ["e"],
            ClaimReleased,
            OverLimit,
        ]
        shown = answers[5]
        assert isinstance(shown, tuple)
        assert (shown[0].user, shown[0].parent, shown[0].state) == ("mary", "a", "provisioned")
        assert quota.usage(user="john")["cores"].used == 3
        assert quota.usage(user="mary")["cores"].used == 0
        assert [claim.id for claim in quota.claims()] == ["d", "e"]

    def test_a_refused_change_does_not_disturb_its_neighbours(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=9, user_min=1)
        quota.claim({"cores": 1}, user="john", id="floor")
        answers = engine.apply(
            [
                _admit("a", 2),
                _admit("b", 1, parent="nobody"),
                Resize("nobody", {"cores": 1}),
                Admit((NewClaim("c", {"cores": 1}, user="john"), NewClaim("d", {"cores": 99}, user="john"))),
                Resize("a", {"cores": 3}),
                _admit("a", 3),
                Release("floor"),
                Release("a"),
                Release("floor"),
                _admit("c", 4),
            ]
        )
        assert _told(answers) == [
            ["a"],
            UnknownClaim,
            UnknownClaim,
            OverLimit,
            ["a"],
            ClaimConflict,
            [],
            BelowMinimum,
            [],
            ["c"],
        ]
        assert quota.usage(user="john")["cores"].used == 7
        assert [claim.id for claim in quota.claims()] == ["a", "c"]

    def test_a_batch_of_refusals_changes_nothing(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=1)
        quota.claim({"cores": 1}, user="john", id="c")
        before = sight(quota)
        answers = engine.apply([_admit("a"), Resize("c", {"cores": 2}), Release("nobody"), _admit("c", 5)])
        assert _told(answers) == [OverLimit, OverLimit, UnknownClaim, ClaimConflict]
        assert sight(quota) == before

    def test_replays_inside_a_batch(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=2)
        first, again, other, second = engine.apply([_admit("a"), _admit("a"), _admit("a", 2), _admit("b")])
        assert first == again
        assert isinstance(other, ClaimConflict)
        assert isinstance(second, tuple)
        assert quota.usage(user="john")["cores"].used == 2
        assert _told(engine.apply([_admit("a"), Release("a"), _admit("a"), _admit("c")])) == [
            ["a"],
            [],
            ClaimReleased,
            ["c"],
        ]

    def test_a_change_may_name_what_another_one_makes(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=3)
        assert _told(engine.apply([_admit("a"), _admit("b", parent="a"), _admit("c", parent="b")])) == [
            ["a"],
            ["b"],
            ["c"],
        ]
        assert [claim.parent for claim in quota.claims()] == [None, "a", "b"]
        quota.release("a")
        assert quota.usage(user="john")["cores"].used == 0

    def test_an_answer_shows_its_own_moment(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores")
        answers = engine.apply([_admit("a", 1), Resize("a", {"cores": 2}), Resize("a", {"cores": 3})])
        amounts = [one[0].resources["cores"] for one in answers if isinstance(one, tuple)]
        assert amounts == [1, 2, 3]
        assert quota.get_claim("a") == Claim("a", {"cores": 3}, None, "john", None, "provisioned")

    def test_a_long_batch(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", max=100, project_max=30)
        batch = [_admit(f"c{n}", user=None, project=f"p{n % 5}") for n in range(300)]
        answers = engine.apply(batch)
        assert sum(isinstance(one, tuple) for one in answers) == 100
        assert [isinstance(one, tuple) for one in answers] == [True] * 100 + [False] * 200
        assert quota.usage()["cores"].used == 100
