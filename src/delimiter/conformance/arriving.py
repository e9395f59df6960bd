"""``Engine.apply_each``: changes of different callers, each decided for itself."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from delimiter import (
    BelowMinimum,
    ClaimConflict,
    ClaimReleased,
    Conflict,
    Delimiter,
    OverLimit,
    UnknownClaim,
)
from delimiter.changes import Admit, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.conformance.contract import OWNERS, Contract, Whom, all_claims, plant, used
from delimiter.conformance.counting import assert_counts, assert_full, together, total
from delimiter.engine import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from delimiter.changes import Change
    from delimiter.engine import Engine

#: How long reservations live here (microseconds).
_LIVES = 600_000_000
#: Of one call, when others are in its way.
_ATTEMPTS = 500


def _admit(id: str, amount: int = 1, **more: Any) -> Admit:
    return Admit((NewClaim(id, {"cores": amount}, **({"user": "john"} | more)),))


def _each(engine: Engine, changes: Sequence[Change]) -> list[Answer]:
    """As a desk asks: again where none was made, and alone for whom the answer would have held up the others."""
    told = _until_decided(lambda: engine.apply_each(changes))
    assert len(told) == len(changes)
    return [
        _until_decided(partial(engine.apply, [change]))[0] if isinstance(answer, Conflict) else answer
        for change, answer in zip(changes, told, strict=True)
    ]


def _until_decided(call: Callable[[], list[Answer]]) -> list[Answer]:
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(Conflict):
            return call()
    return call()


def _told(answers: list[Answer]) -> list[Any]:
    """A claim's id for what was admitted, the kind of error for what was refused."""
    return [type(one) if isinstance(one, Exception) else [claim.id for claim in one] for one in answers]


def _admitted(engine: Engine, changes: Sequence[Change]) -> int:
    return sum(isinstance(answer, tuple) for answer in _each(engine, changes))


#: A change that is refused, by the error that is its answer. Of "john", who has 3 of 9 cores, 2 of them "held".
_REFUSED: dict[str, tuple[Change, type[Exception]]] = {
    "too much": (_admit("bad", 8), OverLimit),
    "too much of a list": (
        Admit((NewClaim("bad", {"cores": 1}, user="ann"), NewClaim("worse", {"cores": 9}, user="john"))),
        OverLimit,
    ),
    "grown too much": (Resize("held", {"cores": 9}), OverLimit),
    "moved to where it does not fit": (Transfer("held", None, "full"), OverLimit),
    "below nobody": (_admit("bad", parent="nobody"), UnknownClaim),
    "of nobody": (Release("nobody"), UnknownClaim),
    "below what ended": (_admit("bad", parent="ended"), ClaimReleased),
    "of what ended": (Resize("ended", {"cores": 1}), ClaimReleased),
    "another's id": (_admit("held", 1), ClaimConflict),
    "another's external id": (_admit("bad", external_id="vm"), ClaimConflict),
    "below the floor": (Release("floor"), BelowMinimum),
}


class ArrivalContract(Contract):
    @pytest.fixture
    def peopled(self, quota: Delimiter) -> Delimiter:
        """John holds 3 of 9 cores; one of another user has all of his, and one has ended."""
        quota.define_resource("cores", user_max=9)
        quota.update_limits("cores", user="full", max=1)
        quota.update_limits("cores", user="zoe", min=1)
        quota.claim({"cores": 2}, user="john", id="held", external_id="vm")
        quota.reserve({"cores": 1}, user="john", id="reserved", expires_in=600)
        quota.reserve({"cores": 1}, user="mary", id="waiting", expires_in=600)
        quota.claim({"cores": 1}, user="full", id="full")
        quota.claim({"cores": 1}, user="zoe", id="floor")
        quota.claim({"cores": 1}, user="john", id="ended")
        quota.release("ended")
        return quota

    def test_nobody_arrives(self, engine: Engine) -> None:
        assert engine.apply_each([]) == []

    def test_the_answers_are_in_the_order_of_the_changes(self, engine: Engine, peopled: Delimiter) -> None:
        peopled.claim({"cores": 1}, user="ann", id="small")
        peopled.claim({"cores": 1}, user="ann", id="gone")
        changes: list[Change] = [
            _admit("a", 2),
            Resize("small", {"cores": 3}),
            _admit("b", 9, user="full"),
            Provision("reserved", "host"),
            Release("gone"),
            Renew("waiting", _LIVES),
            Transfer("vm", None, "mary"),
            Admit((NewClaim("c", {"cores": 1}, user="bob"), NewClaim("d", {"cores": 2}, user="bob"))),
            Release("never"),
            _admit("e", 1, user="mary", expires_in=_LIVES),
        ]
        answers = _each(engine, changes)
        assert _told(answers) == [
            ["a"],
            ["small"],
            OverLimit,
            ["reserved"],
            [],
            ["waiting"],
            ["held"],
            ["c", "d"],
            UnknownClaim,
            ["e"],
        ]
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(answer, tuple):
                assert list(answer) == [peopled.get_claim(claim.id) for claim in answer], change
        assert_counts(peopled, users=["john", "ann", "mary", "bob", "full", "zoe"])

    @pytest.mark.parametrize("refused", _REFUSED)
    def test_an_error_is_the_answer_to_one_alone(
        self, engine: Engine, peopled: Delimiter, refused: str
    ) -> None:
        """Guard: a refused change is taken back by itself, or was never begun; its neighbours stay."""
        change, error = _REFUSED[refused]
        before = {claim.id: claim for claim in all_claims(peopled)}
        neighbours = [_admit(f"n{number}", user=user) for number, user in enumerate(("john", "ann", "mary"))]
        answers = _each(engine, [neighbours[0], change, *neighbours[1:]])
        assert _told(answers) == [["n0"], error, ["n1"], ["n2"]]
        after = {claim.id: claim for claim in all_claims(peopled)}
        made = {answer[0].id: answer[0] for answer in answers if isinstance(answer, tuple)}
        assert after == before | made
        assert_counts(peopled, users=["john", "ann", "mary", "full", "zoe"])

    def test_all_are_refused(self, engine: Engine, peopled: Delimiter) -> None:
        before = all_claims(peopled)
        told = _told(_each(engine, [change for change, _ in _REFUSED.values()]))
        assert told == [error for _, error in _REFUSED.values()]
        assert all_claims(peopled) == before
        assert_counts(peopled, users=["john", "ann", "mary", "full", "zoe"])

    def test_equal_ids_are_one_claim(self, engine: Engine, quota: Delimiter) -> None:
        """They are decided as if one had come after the other."""
        quota.define_resource("cores", user_max=9)
        for a, b in (("a", "b"), ("c", "d")):  # the second time the engine may remember something
            answers = _each(engine, [_admit(a, 2), _admit(b), _admit(a, 2), _admit(a, 2)])
            assert _told(answers) == [[a], [b], [a], [a]]
            assert answers[0] == answers[2] == answers[3] == (quota.get_claim(a),)
        assert quota.usage(user="john")["cores"].used == 6
        assert_counts(quota, users=["john"])

    def test_of_different_requests_with_one_id_one_is_made(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=9)
        changes = [_admit("a", 2), _admit("a", 3), _admit("a", 2), _admit("b", 1)]
        *told, neighbour = _told(_each(engine, changes))
        held = quota.get_claim("a").resources["cores"]
        assert told == [["a"] if amount == held else ClaimConflict for amount in (2, 3, 2)]
        assert neighbour == ["b"]
        assert_counts(quota, users=["john"])

    def test_an_id_that_was_refused_is_free(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=9)
        refused, made = _told(_each(engine, [_admit("a", 10), _admit("a", 9)]))
        assert refused in (OverLimit, ClaimConflict), "whichever was decided first"
        assert made == ["a"]
        assert quota.usage(user="john")["cores"].used == 9
        assert_counts(quota, users=["john"])

    def test_one_external_id_is_given_once(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=9)
        changes = [_admit(f"c{number}", user=f"u{number}", external_id="vm") for number in range(4)]
        told = _told(_each(engine, changes))
        assert sorted(map(str, told)).count(str(ClaimConflict)) == 3
        assert told[int(quota.get_claim("vm").id[1:])] == [quota.get_claim("vm").id]
        assert len(list(quota.claims())) == 1
        assert_counts(quota, users=[f"u{number}" for number in range(4)])

    def test_what_is_made_and_released_at_once(self, engine: Engine, quota: Delimiter) -> None:
        """Whichever is decided first; twice released is no error."""
        quota.define_resource("cores", user_max=9)
        quota.claim({"cores": 4}, user="john", id="old")
        made, *released = _told(_each(engine, [_admit("a", 2), Release("a"), Release("old"), Release("old")]))
        assert made == ["a"]
        assert released in ([[], [], []], [UnknownClaim, [], []])
        assert quota.usage(user="john")["cores"].used == (0 if released[0] == [] else 2)
        assert_counts(quota, users=["john"])

    @pytest.mark.parametrize("before", [0, 3], ids=["the first", "with others before"])
    @pytest.mark.parametrize("scope", OWNERS, ids=str)
    def test_the_sum_meets_the_limit(
        self, engine: Engine, quota: Delimiter, scope: Whom, before: int
    ) -> None:
        """Guard: what fits is decided on what all of them together leave, not on what each found.

        An engine may have remembered something after some claims, and decide otherwise.
        """
        quota.define_resource("cores")
        quota.update_limits("cores", **scope, max=30 + before)
        for number in range(before):
            quota.claim({"cores": 1}, project="acme", user="john", id=f"before-{number}")
        amounts = [number % 3 + 1 for number in range(40)]
        changes = [
            _admit(f"c{number}", amount, project="acme") for number, amount in enumerate(amounts)
        ]  # 79 of 30
        answers = _each(engine, changes)
        admitted = [n for n, answer in zip(amounts, answers, strict=True) if isinstance(answer, tuple)]
        refused = [n for n, answer in zip(amounts, answers, strict=True) if isinstance(answer, OverLimit)]
        assert len(admitted) + len(refused) == len(amounts)
        assert sum(admitted) + before == quota.usage(**scope)["cores"].used <= 30 + before
        # What was refused did not fit then, and nothing was given back since.
        assert all(amount > 30 - sum(admitted) for amount in refused)
        room = 30 - sum(admitted)
        more = _told(_each(engine, [_admit(f"d{number}", project="acme") for number in range(room + 3)]))
        assert more.count(OverLimit) == 3
        assert_full(quota, "cores", 30 + before, **scope)
        assert_counts(quota, projects=["acme"], users=["john"])

    def test_the_sum_meets_the_limit_of_an_ancestor(self, engine: Engine, quota: Delimiter) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.update_limits("cores", project="acme", max=10)
        below = ("shop", "dev", "web", "acme")
        told = _told(_each(engine, [_admit(f"c{n}", project=below[n % 4], user=f"u{n}") for n in range(24)]))
        assert told.count(OverLimit) == 14
        assert used(quota, "cores", "acme") == [10]
        assert_counts(quota, projects=["acme", "dev", "web", "shop"], users=[f"u{n}" for n in range(24)])

    @pytest.fixture
    def engines(self, engine: Engine) -> Iterator[list[Engine]]:
        """Two handles on one store."""
        other = self.open_another(engine)
        yield [engine, other]
        if other is not engine:
            other.close()

    def test_lists_meet(self, engines: list[Engine], quota: Delimiter) -> None:
        """Guard: each counter is locked, and decided on as it is then; what another list wrote meanwhile counts."""
        quota.define_resource("cores", project_max=14)
        for round_ in range(5):
            project = f"p{round_}"
            for number, one in enumerate(engines):  # the way to the counters is known to both
                assert _told(_each(one, [_admit(f"{project}-{number}", project=project)])) == [
                    [f"{project}-{number}"]
                ]
            lists = [[_admit(f"{project}-{j}-{n}", project=project) for n in range(8)] for j in range(8)]
            jobs = [partial(_admitted, engines[j % 2], changes) for j, changes in enumerate(lists)]
            assert total(together(jobs)) == 12
            assert_full(quota, "cores", 14, project=project)
        assert_counts(quota, projects=[f"p{round_}" for round_ in range(5)], users=["john"])
