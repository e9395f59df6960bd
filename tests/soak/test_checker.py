"""The checker on histories made by hand: each kind of violation is found, and what is right passes."""

from __future__ import annotations

from typing import Any

import pytest

from soak.history import History
from soak.judge import judge
from soak.stories import CORES, SECOND, Story, asked, claim


def kinds(history: History) -> set[str]:
    return {violation.kind for violation in judge(history).violations}


def test_a_good_history_passes():
    """Claims up to the limit, a refusal, a release, another claim, a reservation that runs out, one that is kept."""
    story = Story()
    story.claim("a", 30, 1.0)
    story.refused("b", 5, 2.0, "user:john", 34, 30)
    story.claim("c", 4, 3.0)
    story.refused("d", 1, 3.5, "user:john", 34, 34)
    story.release("a", 4.0)
    story.claim("e", 20, 5.0)
    story.reserve("f", 10, 6.0, 2.0)
    story.refused("g", 1, 7.0, "user:john", 34, 34)
    story.claim("h", 10, 9.0)  # f has run out
    story.call("provision", {"id": "f"}, {"error": "ClaimExpired"}, 9.5)
    story.claims["f"]["state"] = "expired"
    story.call("claim", {"requests": [asked("h", 10)]}, {"ok": [claim("h", 10, "john")]}, 10.0)
    story.call("claim", {"requests": [asked("h", 11)]}, {"error": "ClaimConflict"}, 10.5)
    verdict = judge(story.ended())
    assert [str(one) for one in verdict.violations] == []
    assert verdict.answers["claim", "OverLimit"] == 3


def test_what_runs_at_the_same_time_may_go_either_way():
    """A refusal beside a release that takes long, and an admission beside it."""
    story = Story()
    story.claim("a", 34, 1.0)
    story.call("release", {"id": "a"}, {"ok": []}, 2.0, took=1.0)
    story.claims["a"]["state"] = "released"
    story.refused("b", 1, 2.5, "user:john", 34, 34)
    story.claim("c", 34, 2.6)
    assert kinds(story.ended()) == set()


@pytest.mark.parametrize("happened", [True, False])
def test_what_was_never_answered_may_have_happened_or_not(happened: bool):
    story = Story()
    story.call("claim", {"requests": [asked("a", 34)]}, None, 1.0)
    if happened:
        story.refused("b", 1, 2.0, "user:john", 34, 34)
        story.claims["a"] = claim("a", 34, "john")
    else:
        story.claim("b", 1, 2.0)
    assert kinds(story.ended()) == set()


def test_what_was_in_doubt_and_refused_again_has_not_happened():
    """The repetition settles it: from then on there is nothing that could be in the way."""
    story = Story()
    story.claim("a", 34, 0.5)
    key = story.call(
        "claim", {"requests": [asked("b", 1)]}, {"error": "StoreUnavailable", "in_doubt": True}, 1.0
    )
    violation = [CORES, "user:john", 34, 34, 1, 0]
    story.call(
        "claim",
        {"requests": [asked("b", 1)]},
        {"error": "OverLimit", "violations": [violation]},
        2.0,
        repeats=key,
    )
    story.release("a", 3.0)
    story.refused("c", 34, 4.0, "user:john", 34, 1)
    assert kinds(story.ended()) == {"false refusal"}


def test_a_reservation_that_ran_out_while_its_own_call_asked_again():
    """The first try was in doubt and has made it; the second is told that it has run out."""
    story = Story()
    request = {**asked("a", 3), "expires_in": 0.5}
    story.call("reserve", {"requests": [request]}, {"error": "ClaimExpired"}, 1.0, took=2.0)
    story.claims["a"] = {**claim("a", 3, "john"), "state": "expired", "expires_at": 2_000_000}
    assert kinds(story.ended()) == set()
    story.claims["a"]["expires_at"] = 8_000_000
    assert kinds(story.ended()) != set()


def test_a_lost_claim():
    story = Story()
    story.claim("a", 3, 1.0)
    assert kinds(story.ended(lambda claims: claims.pop("a"))) == {"lost"}


def test_a_claim_that_nobody_released():
    story = Story()
    story.claim("a", 3, 1.0)
    assert kinds(story.ended(lambda claims: claims["a"].update(state="released"))) == {"altered"}


def test_a_claim_with_other_contents():
    story = Story()
    story.claim("a", 3, 1.0)
    assert kinds(story.ended(lambda claims: claims["a"].update(resources={CORES: 4}))) == {"altered"}


def test_a_doubled_claim():
    story = Story()
    story.claim("a", 3, 1.0)
    assert "doubled" in kinds(story.ended(lambda claims: claims.update(b={**claims["a"]})))


def test_a_claim_that_was_refused_and_is_there():
    story = Story()
    story.claim("a", 34, 1.0)
    story.refused("b", 1, 2.0, "user:john", 34, 34)
    assert "doubled" in kinds(story.ended(lambda claims: claims.update(b=claim("b", 1, "john"))))


def test_a_claim_from_nowhere():
    story = Story()
    story.claim("a", 1, 1.0)
    assert "doubled" in kinds(story.ended(lambda claims: claims.update(x=claim("x", 1, "john"))))


def test_more_than_the_limit():
    """Each of the two could be admitted alone."""
    story = Story()
    story.claim("a", 20, 1.0, took=0.5)
    story.claim("b", 20, 1.1, took=0.5)
    assert kinds(story.ended()) == {"over"}


def test_more_than_the_limit_for_a_moment_only():
    story = Story()
    story.claim("a", 20, 1.0)
    story.claim("b", 20, 2.0)
    story.release("b", 3.0)
    assert kinds(story.ended()) == {"over"}


def test_growth_above_a_limit_that_was_lowered():
    """What was there stays, and that is right; one more is not."""
    story = Story()
    story.claim("a", 20, 1.0)
    story.limit("user:john", 10, 2.0)
    assert kinds(story.ended()) == set()
    story.claim("b", 1, 3.0)
    assert kinds(story.ended()) == {"over"}


def test_a_limit_that_was_raised_too_late_for_a_claim():
    story = Story()
    story.claim("a", 40, 1.0)
    story.limit("user:john", 50, 2.0)
    assert kinds(story.ended()) == {"over"}


def test_a_false_refusal():
    story = Story()
    story.claim("a", 30, 1.0)
    story.release("a", 2.0)
    story.refused("b", 5, 3.0, "user:john", 34, 30)
    assert kinds(story.ended()) == {"false refusal"}


def test_a_refusal_because_of_what_ran_out():
    story = Story()
    story.reserve("a", 30, 1.0, 1.0)
    story.refused("b", 5, 3.0, "user:john", 34, 30)
    assert kinds(story.ended(lambda claims: claims["a"].update(state="expired"))) == {"false refusal"}


def test_a_refusal_by_a_limit_of_before():
    story = Story()
    story.claim("a", 30, 1.0)
    story.limit("user:john", 40, 2.0)
    story.refused("b", 5, 3.0, "user:john", 34, 30)
    assert kinds(story.ended()) == {"false refusal"}


def test_a_refusal_that_would_have_fitted():
    story = Story()
    story.claim("a", 30, 1.0)
    story.refused("b", 4, 3.0, "user:john", 34, 30)
    assert kinds(story.ended()) == {"false refusal"}


def test_a_refusal_that_does_not_name_all():
    story = Story()
    for number in range(3):
        story.claim(f"a{number}", 19, 1.0 + number, user=f"user{number}")
    story.claim("b", 3, 5.0)
    story.refused("c", 33, 6.0, "user:john", 34, 3)
    assert kinds(story.ended()) == {"false refusal"}


def test_two_ends():
    """Provisioned after it was said to have run out."""
    story = Story()
    story.reserve("a", 3, 1.0, 1.0)
    story.call("provision", {"id": "a"}, {"error": "ClaimExpired"}, 3.0)
    story.call("provision", {"id": "a"}, {"ok": [claim("a", 3, "john")]}, 4.0)
    assert "two ends" in kinds(
        story.ended(lambda claims: claims["a"].update(state="provisioned", expires_at=None))
    )


def test_two_ends_by_release_and_provision():
    story = Story()
    story.reserve("a", 3, 1.0, 60.0)
    story.release("a", 2.0)
    story.call("provision", {"id": "a"}, {"ok": [claim("a", 3, "john")]}, 3.0)
    assert "two ends" in kinds(story.ended())


def test_a_reservation_that_is_swept_twice():
    story = Story()
    story.reserve("a", 3, 1.0, 1.0)
    story.call("expire", {}, {"ok": 1}, 3.0)
    story.call("expire", {}, {"ok": 1}, 3.0)
    assert kinds(story.ended(lambda claims: claims["a"].update(state="expired"))) == {"two ends"}


def test_an_answer_that_belongs_to_no_order():
    story = Story()
    story.claim("a", 3, 1.0)
    story.call("get", {"id": "a"}, {"error": "UnknownClaim"}, 2.0)
    assert kinds(story.ended()) == {"wrong answer"}


def test_usage_that_never_was():
    story = Story()
    story.claim("a", 3, 1.0)
    story.call("usage", {"scope": "user:john"}, {"ok": {CORES: [34, 4, 0]}}, 2.0)
    story.call("usage", {"scope": "user:john"}, {"ok": {CORES: [34, 3, 0]}}, 3.0)
    assert kinds(story.ended()) == {"wrong usage"}


def test_a_check_that_promised_too_much():
    story = Story()
    story.claim("a", 34, 1.0)
    story.call("check", {"resources": {CORES: 1}, "user": "john"}, {"ok": True, "violations": []}, 2.0)
    assert kinds(story.ended()) == {"false admission"}


@pytest.mark.parametrize(
    "more, kind",
    [
        ({"drift": ["used 3, actual 2"]}, "drift"),
        ({"locks": ["a transaction"]}, "stuck"),
        ({"projects": {}}, "rules"),
        ({"service_rows": ["a.1t"]}, "altered"),
        ({"claims": []}, "lost"),
    ],
)
def test_what_is_wrong_at_the_end(more: dict[str, Any], kind: str):
    story = Story()
    story.claim("a", 3, 1.0)
    assert kind in kinds(story.ended(**more))


def test_a_sum_that_no_claims_make():
    story = Story()
    story.claim("a", 3, 1.0)
    history = story.ended()
    history.final["usage"]["user:john"][CORES] = [34, 4, 0]
    assert kinds(history) == {"drift"}


def test_a_call_that_is_stuck_after_the_end_of_all_faults():
    story = Story()
    story.claim("a", 3, 91.0, took=14.0)
    assert kinds(story.ended()) == {"stuck"}


def test_a_transaction_that_was_not_committed_has_done_nothing():
    """COMMIT was never sent: not all of its steps were answered. Sent and not answered: either, but whole."""
    story = Story()
    step = {"verb": "claim", "args": {"requests": [asked("a", 3)]}}
    key = story.call("transaction", {"steps": [step], "end": "commit"}, None, 1.0)
    assert kinds(story.ended()) == set()
    assert "doubled" in kinds(story.ended(lambda claims: claims.update(a=claim("a", 3, "john"))))
    answer = {"ok": [claim("a", 3, "john")]}
    story.lines.append({"t": int(1.5 * SECOND), "s": int(1.2 * SECOND), "o": key, "step": answer})
    assert kinds(story.ended()) == set()
    assert kinds(story.ended(lambda claims: claims.update(a=claim("a", 3, "john")))) == set()


@pytest.mark.parametrize("store, found", [("mariadb", {"false refusal"}), ("galera", set())])
@pytest.mark.parametrize("released", [2.0, 0.5])
def test_a_refusal_as_old_as_its_transaction(store: str, found: set[str], released: float):
    """A node of Galera waits for the others when a transaction begins, and not again."""
    story = Story()
    story.claim("a", 34, 0.1)
    story.release("a", released)
    story.claims["b"] = claim("b", 1, "mary")
    wanted = [{"requests": [asked("b", 1, "mary")]}, {"requests": [asked("c", 1)]}]
    steps = [{"verb": "claim", "args": args} for args in wanted]
    key = story.call("transaction", {"steps": steps, "end": "commit"}, {"end": "committed"}, 1.0, took=3.0)
    refused = {"error": "OverLimit", "violations": [[CORES, "user:john", 34, 34, 1, 0]]}
    for at, answer in ((1.1, {"ok": [story.claims["b"]]}), (3.0, refused)):
        story.lines.append({"t": int((at + 0.1) * SECOND), "s": int(at * SECOND), "o": key, "step": answer})
    history = story.ended()
    history.settings["store"] = store
    assert kinds(history) == (found if released > 1 else {"false refusal"})


def test_a_row_without_its_claim():
    story = Story()
    story.claims["a.1t"] = claim("a.1t", 3, "john")
    step = {"verb": "claim", "args": {"requests": [asked("a.1t", 3)]}}
    key = story.call("transaction", {"steps": [step], "end": "commit"}, {"end": "committed"}, 1.0)
    answer = {"ok": [claim("a.1t", 3, "john")]}
    story.lines.append({"t": int(1.005 * SECOND), "s": int(1.001 * SECOND), "o": key, "step": answer})
    assert kinds(story.ended(service_rows=["a.1t"])) == set()
    assert kinds(story.ended(service_rows=[])) == {"altered"}


def test_a_race_that_did_not_reach_its_limit():
    story = Story()
    story.claim("a", 3, 1.0)
    history = story.ended()
    history.settings["filled"] = CORES
    history.final["usage"]["total"][CORES] = [3, 3, 0]
    assert kinds(history) == set()
    history.final["usage"]["total"][CORES] = [4, 3, 0]
    assert kinds(history) == {"race"}
