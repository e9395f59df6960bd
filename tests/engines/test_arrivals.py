"""Changes of different callers that came together: each is answered as if it had come alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import pytest
import sqlalchemy as sa

from delimiter import Claim, ClaimConflict, Conflict, Delimiter, InvalidRequest, OverLimit, UnknownClaim
from delimiter.changes import Admit, Change, NewClaim, Provision, Release, Resize
from delimiter.engine import Answer
from delimiter.engines.sql.store import SqlEngine
from engines.held_rows import session, waiting

pytestmark = pytest.mark.together

_SECOND: Final = 1_000_000
_WRITES: Final = re.compile(r"\b(INSERT|UPDATE|DELETE|BEGIN NOT ATOMIC)\b|FOR (NO KEY )?UPDATE")


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=30) as quota:
        quota.define_resource("cores", project_max=10)
        quota.define_resource("ram")
        for number in range(2):  # a way is remembered from the second time on
            for project in ("acme", "globex", "full"):
                quota.claim({"cores": 1, "ram": 1}, project=project, user="john", id=f"{project}:{number}")
        quota.claim({"cores": 8}, project="full", user="john", id="full-8")
        for project in ("acme", "globex"):
            quota.release(f"{project}:0")
            quota.release(f"{project}:1")
        yield quota


@pytest.fixture
def engine(quota: Delimiter) -> SqlEngine:
    assert isinstance(quota._engine, SqlEngine)
    return quota._engine


def admit(id: str, cores: int = 1, project: str = "acme", **more: Any) -> Admit:
    return Admit((NewClaim(id, {"cores": cores, "ram": 1}, project, "john", **more),))


def told(answers: list[Answer]) -> list[Any]:
    """The ids for what was made, the kind of error for what was not."""
    return [type(one) if isinstance(one, Exception) else [claim.id for claim in one] for one in answers]


def commits(sent: list[str]) -> int:
    """What is committed: by a COMMIT, or by a statement that is a transaction of its own."""
    return sum(text == "COMMIT" for text in sent) or at_once(sent)


def at_once(sent: list[str]) -> int:
    return sum("Delimiter decides again" in text or " COMMIT;" in text for text in sent)


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to the database, COMMIT with it."""
    sent: list[str] = []

    def statement(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        sent.append(text)

    def commit(_connection: Any) -> None:
        sent.append("COMMIT")

    sa.event.listen(sa.Engine, "before_cursor_execute", statement)
    sa.event.listen(sa.Engine, "commit", commit)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", statement)
        sa.event.remove(sa.Engine, "commit", commit)


def sound(quota: Delimiter, **used: int) -> None:
    for project, cores in used.items():
        assert quota.usage(project=project)["cores"].used == cores
    assert list(quota.reconcile()) == []


# --- new claims -----------------------------------------------------------------------------------


def test_claims_of_many_are_made_with_one_commit(
    quota: Delimiter, engine: SqlEngine, store_name: str
) -> None:
    changes = [
        admit(f"{project}-{n}", project=project) for n in range(1, 9) for project in ("acme", "globex")
    ]
    changes.append(admit("held", expires_in=60 * _SECOND))
    with statements() as sent:
        answers = engine.apply_each(changes)
    assert commits(sent) == 1
    assert len(sent) == (6 if store_name == "sqlite" else 1)
    assert told(answers) == [[change.claims[0].id] for change in changes]
    for change, answer in zip(changes, answers, strict=True):
        claim = change.claims[0]
        assert answer == (quota.get_claim(claim.id),)
        assert isinstance(answer, tuple)
        assert answer[0].resources == claim.resources
    sound(quota, acme=9, globex=8)
    assert quota.usage(project="acme")["cores"].reserved == 1


def test_each_is_charged_what_it_takes(quota: Delimiter, engine: SqlEngine) -> None:
    with statements() as sent:
        answers = engine.apply_each([admit("a", 1), admit("b", 2), admit("c", 7, project="globex")])
    assert (commits(sent), told(answers)) == (1, [["a"], ["b"], ["c"]])
    sound(quota, acme=3, globex=7)


def test_where_not_all_fit_each_is_decided_in_the_order_of_the_calls(
    quota: Delimiter, engine: SqlEngine
) -> None:
    """Guard: the rollback of a batch that was not admitted whole; without it claims are there twice, or uncharged."""
    answers = engine.apply_each([admit("a", 6), admit("b", 6), admit("c", 4), admit("d", 5, "globex")])
    assert told(answers) == [["a"], OverLimit, ["c"], ["d"]]
    sound(quota, acme=10, globex=5)
    with pytest.raises(UnknownClaim):
        quota.get_claim("b")


def test_a_batch_takes_nothing_that_is_not_there(quota: Delimiter, engine: SqlEngine) -> None:
    """Guard: the test of every locked row in the statement (``fits``); without it eleven are admitted for ten."""
    answers = engine.apply_each([admit(f"a{n}") for n in range(11)])
    assert sum(isinstance(answer, tuple) for answer in answers) == 10
    sound(quota, acme=10)


def test_an_id_that_is_known_is_not_charged_again(quota: Delimiter, engine: SqlEngine) -> None:
    """Guard: the number of rows that could be placed; without it a replay is charged, or its neighbours are not."""
    first = quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", id="known")
    answers = engine.apply_each([admit("new"), admit("known"), admit("known", 2), admit("later")])
    assert told(answers) == [["new"], ["known"], ClaimConflict, ["later"]]
    assert answers[1] == (first,)
    sound(quota, acme=3)


def test_one_id_twice_in_a_batch_is_one_claim(quota: Delimiter, engine: SqlEngine) -> None:
    answers = engine.apply_each([admit("once"), admit("once"), admit("once", 2), admit("other")])
    assert told(answers) == [["once"], ["once"], ClaimConflict, ["other"]]
    sound(quota, acme=2)


def test_an_id_that_was_refused_is_free_for_the_next(quota: Delimiter, engine: SqlEngine) -> None:
    """Guard: what names the same twice is decided one after the other; the row would be the refused one's."""
    quota.update_limits("cores", project="globex", max=1)
    answers = engine.apply_each([admit("x", 11), admit("x", 1, "globex"), admit("y", 2, "globex")])
    assert told(answers) == [OverLimit, ["x"], OverLimit]
    assert answers[1] == (quota.get_claim("x"),)
    assert quota.claim({"cores": 1, "ram": 1}, project="globex", user="john", id="x") == quota.get_claim("x")
    sound(quota, acme=0, globex=1)


def test_an_external_id_is_given_once(quota: Delimiter, engine: SqlEngine) -> None:
    answers = engine.apply_each(
        [admit("a", external_id="vm"), admit("b", external_id="vm"), admit("c", external_id="vm-2")]
    )
    assert told(answers) == [["a"], ClaimConflict, ["c"]]
    assert quota.get_claim("vm").id == "a"
    sound(quota, acme=2)


def test_a_way_that_has_changed_is_noticed(store_url: str, quota: Delimiter, engine: SqlEngine) -> None:
    """Guard: the generations in the statement; without them a project is not charged to its new parent."""
    engine.apply_each([admit("warm"), admit("warm-2", project="globex")])
    with Delimiter(store_url) as other:
        other.add_project("parent")
        other.update_limits("cores", project="parent", max=3)
        other.add_project("acme", parent="parent")
    answers = engine.apply_each([admit("a"), admit("b"), admit("c"), admit("d", project="globex")])
    assert told(answers) == [["a"], ["b"], OverLimit, ["d"]]
    assert quota.usage(project="parent")["cores"].used == 3
    sound(quota, acme=3, globex=2)


def test_what_begins_to_be_counted_is_not_claimed(
    store_url: str, quota: Delimiter, engine: SqlEngine
) -> None:
    """Guard: the generations, which are raised when somebody begins to count the resource."""
    engine.apply_each([admit("warm"), admit("warm-2")])
    things = sa.Table("things", sa.MetaData(), sa.Column("project", sa.String(9)))
    with Delimiter(store_url) as other:
        other.count("ram", sa.func.count(), project=things.c.project)
    answers = engine.apply_each([admit("a"), admit("b")])
    assert all(isinstance(answer, InvalidRequest) for answer in answers)
    assert quota.usage(project="acme")["cores"].used == 2


# --- refusals -------------------------------------------------------------------------------------


def test_a_flood_of_refusals_locks_nothing_and_writes_nothing(quota: Delimiter, engine: SqlEngine) -> None:
    """Guard: ``Arrivals._full``: whoever was found full is read before the next attempt."""
    flood = [admit(f"f{n}", project="full") for n in range(20)]
    assert set(told(engine.apply_each(flood))) == {OverLimit}
    with statements() as sent:
        assert set(told(engine.apply_each(flood))) == {OverLimit}
    assert not [text for text in sent if _WRITES.search(text)]
    assert commits(sent) == 0
    with statements() as sent:
        answers = engine.apply_each([*flood, admit("neighbour", project="globex")])
    assert told(answers)[-1] == ["neighbour"]
    assert commits(sent) == 1
    sound(quota, full=10, globex=1)


def test_a_refusal_says_the_same_as_if_it_had_come_alone(quota: Delimiter, engine: SqlEngine) -> None:
    alone = engine.apply([admit("a", 3, "full")])[0]
    together = engine.apply_each([admit("a", 3, "full"), admit("b", 1, "globex")])[0]
    again = engine.apply_each([admit("a", 3, "full")])[0]
    assert isinstance(alone, OverLimit)
    for other in (together, again):
        assert isinstance(other, OverLimit)
        assert (other.violations, str(other)) == (alone.violations, str(alone))


@pytest.mark.parametrize("how", ["released", "raised", "shrunk"])
def test_what_was_full_is_not_refused_once_there_is_room(
    store_url: str, quota: Delimiter, engine: SqlEngine, how: str
) -> None:
    """Guard: a refusal rests on a read, never on what is remembered (``Arrivals._refuse`` for all that may be full)."""
    full = [admit("a", project="full"), admit("b", project="full")]
    assert told(engine.apply_each(full)) == [OverLimit] * 2
    with Delimiter(store_url) as other:
        if how == "released":
            other.release("full:0")
            other.release("full:1")
        elif how == "shrunk":
            other.resize("full-8", {"cores": 6})
        else:
            other.update_limits("cores", project="full", max=12)
    assert told(engine.apply_each(full)) == [["a"], ["b"]]
    assert told(engine.apply_each([admit("c", project="full")])) == [OverLimit]


def test_a_claim_that_is_there_is_not_refused(quota: Delimiter, engine: SqlEngine) -> None:
    """Guard: ``Claims.in_use``; without it whoever repeats the request for the last unit is told that it is not his."""
    assert (
        told(engine.apply_each([admit("a", project="full"), admit("b", project="full")])) == [OverLimit] * 2
    )
    asked = Admit((NewClaim("full-8", {"cores": 8}, "full", "john"),))
    assert told(engine.apply_each([asked, admit("b", project="full")])) == [["full-8"], OverLimit]
    taken = [admit("x", external_id="vm"), admit("c", project="full", external_id="vm")]
    assert told([engine.apply_each([one])[0] for one in taken]) == [["x"], ClaimConflict]


def test_reservations_that_ran_out_refuse_nobody(quota: Delimiter, engine: SqlEngine) -> None:
    """Guard: where something is reserved a read does not refuse (``counter.reserved``)."""
    engine.apply_each([admit("a", 10, expires_in=60 * _SECOND), admit("b", project="globex")])
    assert told(engine.apply_each([admit("c"), admit("d")])) == [OverLimit] * 2
    engine.clock_offset = 61 * _SECOND
    assert told(engine.apply_each([admit("c"), admit("d")])) == [["c"], ["d"]]
    sound(quota, acme=2, globex=1)


# --- other verbs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, expected",
    [
        ([Release("one"), Release("two"), Release("never")], [["released"], ["released"], UnknownClaim]),
        ([Release("one"), Release("one"), Release("vm")], [["released"]] * 3),
        ([Resize("one", {"cores": 4}), Resize("two", {"cores": 4})], [["provisioned"], OverLimit]),
        ([Resize("one", {"cores": 3}), Resize("one", {"cores": 2})], [["provisioned"]] * 2),
        ([Provision("held", "i-1"), Provision("held-2", "i-2")], [["provisioned"]] * 2),
        ([Provision("held", "i-1"), Provision("held-2", "i-1")], [["provisioned"], ClaimConflict]),
        ([Provision("held", "i-1"), Release("one"), admit("a"), Release("held-2")], None),
    ],
    ids=["releases", "again", "resizes", "same", "provisions", "one external id", "of all kinds"],
)
def test_each_verb(
    quota: Delimiter, engine: SqlEngine, changes: list[Change], expected: list[Any] | None
) -> None:
    for id, external_id in (("one", "vm"), ("two", None)):
        quota.claim({"cores": 2}, project="acme", user="john", id=id, external_id=external_id)
    for id in ("held", "held-2"):
        quota.reserve({"cores": 2}, project="acme", user="john", id=id, expires_in=60)
    answers = engine.apply_each(changes)
    shown = [
        type(answer) if isinstance(answer, Exception) else [claim.state for claim in answer]
        for answer in answers
    ]
    if expected is not None:
        assert [one or ["released"] for one in shown] == expected
    else:
        assert not any(isinstance(answer, Exception) for answer in answers)
    assert list(quota.reconcile()) == []


# --- somebody keeps a lock ------------------------------------------------------------------------


@pytest.mark.stores("postgresql", "mariadb")
@pytest.mark.parametrize("verb", ["claim", "release"])
def test_who_waits_for_a_lock_holds_up_nobody_else(
    store_url: str, quota: Delimiter, engine: SqlEngine, verb: str
) -> None:
    """Guard: the patience of a batch, and its halves; without them all wait for the one whose project is held."""
    for project in ("acme", "globex"):
        for number in range(3):
            quota.claim({"cores": 1, "ram": 1}, project=project, user=f"u-{project}", id=f"{project}{number}")
    changes: list[Change] = []
    for number in range(3):
        for project in ("acme", "globex"):
            if verb == "claim":
                claim = NewClaim(f"new-{project}{number}", {"cores": 1, "ram": 1}, project, f"u-{project}")
                changes.append(Admit((claim,)))
            else:
                changes.append(Release(f"{project}{number}"))
    with session(store_url) as caller:
        quota.claim({"cores": 1}, project="acme", connection=caller)
        answers = engine.apply_each(changes)
        assert [type(answer) for answer in answers] == [Conflict, tuple] * 3
        with waiting(store_url, lambda: engine.apply(changes[:1])) as alone:
            caller.commit()
            assert isinstance(alone.result(20)[0], tuple)
    sound(quota, globex=6 if verb == "claim" else 0)


# --- all of it, from the desk ---------------------------------------------------------------------


@pytest.mark.parametrize("largest", [1, 4, 512])
def test_threads_that_meet_take_exactly_what_is_there(
    quota: Delimiter, engine: SqlEngine, largest: int
) -> None:
    """Forty for ten, each repeated. Guard: ``fits`` in the statement, the locks and the unique key."""
    engine.largest_batch = largest

    def claim(number: int) -> Claim | None:
        try:
            first = quota.claim({"cores": 1}, project="acme", user="john", id=f"c{number}")
        except OverLimit:
            return None
        assert quota.claim({"cores": 1}, project="acme", user="john", id=f"c{number}") == first
        return first

    with ThreadPoolExecutor(20) as pool:
        admitted = [claim for claim in pool.map(claim, range(40)) if claim is not None]
        assert len(admitted) == 10
        sound(quota, acme=10)
        list(pool.map(lambda claim: quota.release(claim.id), admitted))
    sound(quota, acme=0)


def test_the_same_ids_from_many_threads_are_one_claim_each(quota: Delimiter) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(
            pool.map(
                lambda number: quota.claim({"cores": 1}, project="acme", user="john", id=f"c{number % 5}"),
                range(80),
            )
        )
    assert {claim.id for claim in made} == {f"c{number}" for number in range(5)}
    sound(quota, acme=5)
