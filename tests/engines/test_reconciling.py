"""The record against what really exists: each kind of mismatch, what is left alone, and beginning with a listing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delimiter import Delimiter, Existing, InvalidRequest, Mismatch, Overage, Progress, aio, listing
from delimiter.conformance.contract import move_time
from delimiter.engine import OpenOptions, open_engine
from delimiter.model import CEILING

ALL = ("memory", "sqlite", "postgresql", "mariadb")


@pytest.fixture
def engine(store_name, database_url, emptied_url) -> Iterator[Any]:
    engine = open_engine(
        "memory://" if store_name == "memory" else emptied_url(store_name), OpenOptions(timeout=60)
    )
    yield engine
    engine.close()


@pytest.fixture
def quota(engine) -> Delimiter:
    quota = Delimiter(engine, timeout=60)
    quota.define_resource("storage.gb", max=1000, project_max=100, user_max=50)
    quota.define_resource("cores")
    quota.claim({"storage.gb": 10, "cores": 2}, project="acme", user="john", external_id="v1")
    quota.claim({"storage.gb": 20}, project="acme", id="v2")
    quota.claim({"storage.gb": 30}, user="john", id="c3", external_id="v3")
    quota.claim({"cores": 4}, project="acme", external_id="vm")
    return quota


def exists(**changed: Existing | None) -> list[Existing]:
    """What agrees with the claims above, but for what was changed."""
    things: dict[str, Existing | None] = {
        "v1": Existing("v1", {"storage.gb": 10}, project="acme", user="john"),
        "v2": Existing("v2", {"storage.gb": 20}, project="acme"),
        "v3": Existing("v3", {"storage.gb": 30}, user="john"),
    }
    return [one for one in {**things, **changed}.values() if one is not None]


def told(found: Iterator[Mismatch]) -> list[tuple[Any, ...]]:
    return [(one.kind, one.external_id, one.recorded, one.actual, one.repaired, one.note) for one in found]


CASES: dict[str, tuple[list[Existing], list[tuple[Any, ...]], dict[str, Any]]] = {
    "nothing": (exists(), [], {}),
    "missing": (
        exists(v4=Existing("v4", {"storage.gb": 500}, project="acme", user="mary")),
        [("missing", "v4", {}, {"storage.gb": 500})],
        {"v4": ({"storage.gb": 500}, "acme", "mary")},
    ),
    "orphaned": (
        exists(v3=None),
        [("orphaned", "v3", {"storage.gb": 30}, {})],
        {"v3": None},
    ),
    "orphaned, and holds something else": (
        exists(v1=None),
        [("orphaned", "v1", {"storage.gb": 10}, {})],
        {"v1": ({"cores": 2}, "acme", "john")},
    ),
    "larger": (
        exists(v1=Existing("v1", {"storage.gb": 400}, project="acme")),
        [("amount", "v1", {"storage.gb": 10}, {"storage.gb": 400})],
        {"v1": ({"cores": 2, "storage.gb": 400}, "acme", "john")},
    ),
    "smaller": (
        exists(v2=Existing("v2", {"storage.gb": 1}, project="acme")),
        [("amount", None, {"storage.gb": 20}, {"storage.gb": 1})],
        {"v2": ({"storage.gb": 1}, "acme", None)},
    ),
    "owner": (
        exists(v3=Existing("v3", {"storage.gb": 30}, project="zeta", user="mary")),
        [("owner", "v3", {"project": None, "user": "john"}, {"project": "zeta", "user": "mary"})],
        {"v3": ({"storage.gb": 30}, "zeta", "mary")},
    ),
    "amount and owner": (
        exists(v3=Existing("v3", {"storage.gb": 31}, user="mary")),
        [
            ("amount", "v3", {"storage.gb": 30}, {"storage.gb": 31}),
            ("owner", "v3", {"project": None, "user": "john"}, {"project": None, "user": "mary"}),
        ],
        {"v3": ({"storage.gb": 31}, None, "mary")},
    ),
    "a second resource": (
        [*exists(), Existing("vm", {"cores": 4}, project="acme")],
        [("amount", "v1", {"cores": 2, "storage.gb": 10}, {"storage.gb": 10})],
        {"v1": ({"storage.gb": 10}, "acme", "john")},
    ),
}


@pytest.mark.stores(*ALL)
@pytest.mark.parametrize("case", CASES)
def test_each_kind_is_found_exactly_and_mended(quota, case):
    things, expected, after = CASES[case]
    before = list(quota.claims())
    assert told(quota.reconcile_with(lambda: things, grace=0)) == [(*one, False, "") for one in expected]
    assert list(quota.claims()) == before, "a dry run changes nothing"
    mended = list(quota.reconcile_with(things, repair=True, grace=0))
    assert told(iter(mended)) == [(*one, True, "") for one in expected]
    for name, content in after.items():
        claim = quota.get_claim(name)
        if content is None:
            assert claim.state == "released"
        else:
            assert (claim.resources, claim.project, claim.user, claim.state) == (*content, "provisioned")
            assert {one.claim_id for one in mended} == {claim.id}
    ids = {one.id for one in before if one.external_id not in after and one.id not in after}
    assert ids <= {one.id for one in quota.claims()}
    assert told(quota.reconcile_with(things, grace=0)) == []
    assert_sums(quota)


def assert_sums(quota: Delimiter, *names: str) -> None:
    assert list(quota.reconcile()) == []
    usage = quota.usage()
    for name in names or ("storage.gb", "cores"):
        assert usage[name].used == sum(one.resources.get(name, 0) for one in quota.claims())


@pytest.mark.stores(*ALL)
def test_only_what_is_asked_for_is_compared(quota):
    things = [
        Existing("v1", {"storage.gb": 999, "cores": 2}, project="acme"),
        Existing("vm", {"cores": 5}, project="acme"),
        Existing("v9", {"storage.gb": 1}, project="acme"),
    ]
    found = told(quota.reconcile_with(things, resources=["cores"], grace=0))
    assert found == [("amount", "vm", {"cores": 4}, {"cores": 5}, False, "")]


@pytest.mark.stores(*ALL)
def test_what_is_just_changing_is_left_alone(quota, engine):
    """Everything that was touched within the grace, however wrong it looks; a moment later it is found."""
    move_time(engine, 1000)
    quota.resize("c3", {"storage.gb": 31})  # the volume is about to grow
    quota.transfer("v2", user="mary")
    quota.claim({"storage.gb": 1}, user="mary", external_id="new")  # its volume is still being made
    quota.reserve(
        {"storage.gb": 2}, user="mary", id="r", expires_in=3600
    )  # the same; it exists, but is not provisioned
    quota.release("v1")  # its volume is about to be deleted
    now = datetime.fromtimestamp(engine.now() / 1_000_000, UTC)
    things = exists(v4=Existing("v4", {"storage.gb": 2}, user="mary", created_at=now - timedelta(minutes=9)))
    for repair in (False, True):
        assert told(quota.reconcile_with(things, repair=repair)) == []
    move_time(engine, 599)
    assert told(quota.reconcile_with(things)) == [("missing", "v4", {}, {"storage.gb": 2}, False, "")]
    move_time(engine, 1)
    found = sorted(
        (one.kind, one.external_id or one.claim_id) for one in quota.reconcile_with(things, repair=True)
    )
    assert found == [
        ("amount", "v3"),
        ("missing", "v1"),
        ("missing", "v4"),
        ("orphaned", "new"),
        ("owner", "v2"),
    ]
    assert quota.get_claim("r").state == "reserved", "of what is not provisioned nothing is known"
    assert told(quota.reconcile_with(things, grace=0)) == []
    assert_sums(quota)


@pytest.mark.stores(*ALL)
def test_what_changes_while_the_listing_is_taken_is_left_alone(quota):
    """The listing is taken after the claims were read: what happened in between belongs to neither."""
    quota.claim({"storage.gb": 1}, project="acme", external_id="gone")

    def taken():
        listed = exists(v4=Existing("v4", {"storage.gb": 1}, user="mary"), v2=None)
        quota.release("gone")
        quota.claim({"storage.gb": 1}, user="mary", external_id="v4")
        quota.claim({"storage.gb": 1}, user="mary", external_id="v5")
        quota.release("v5")
        quota.resize("v3", {"storage.gb": 29})
        quota.resize("v3", {"storage.gb": 30})
        return [*listed, Existing("v5", {"storage.gb": 1}, user="mary")]

    found = told(quota.reconcile_with(taken, repair=True, grace=0))
    assert found == [("orphaned", None, {"storage.gb": 20}, {}, True, "")]
    assert_sums(quota)


@pytest.mark.stores("sqlite")
def test_which_claim_an_entry_stands_for(quota):
    """By external id first; by its own id where nothing else has that as external id."""
    quota.claim({"storage.gb": 1}, project="acme", id="x", external_id="y")
    quota.claim({"storage.gb": 2}, project="acme", id="y")
    quota.claim({"storage.gb": 3}, project="acme", id="z", external_id="backend-z")
    things = [
        *exists(),
        Existing("y", {"storage.gb": 1}, project="acme"),
        Existing("z", {"storage.gb": 3}, project="acme"),
    ]
    found = list(quota.reconcile_with(things, grace=0))
    assert [(one.kind, one.claim_id) for one in found] == [("orphaned", "y")]


@pytest.mark.stores(*ALL)
def test_of_what_cannot_be_mended_it_is_told_why(quota):
    quota.claim({"storage.gb": 1}, user="mary", external_id="v5")
    things = exists(
        v4=Existing("v4", {"storage.gb": CEILING}, user="mary"),
        v5=Existing("v5", {"storage.gb": 2}, user="mary"),
        v6=Existing("v6", {"storage.gb": 1}, user="mary"),
    )
    found = list(quota.reconcile_with(things, repair=True, grace=0))
    assert [(one.external_id, one.repaired) for one in found] == [("v5", True), ("v4", False), ("v6", True)]
    assert "storage.gb" in found[1].note
    assert_sums(quota)


@pytest.mark.stores(*ALL)
def test_a_listing_cut_short_ends_nothing(quota, engine):
    """Twelve of fifteen claims would end. Whoever only looks is not refused, nor who says that they are gone."""
    for number in range(12):
        quota.claim({"storage.gb": 1}, user="mary", external_id=f"w{number}")
    before = list(quota.claims())
    assert len(list(quota.reconcile_with(exists(), grace=0))) == 12
    for share in (0.2, 0, 0.79):
        with pytest.raises(InvalidRequest, match=r"12 of 15 claims .80\.0%. are not in the listing"):
            quota.reconcile_with(exists(), repair=True, grace=0, most_orphaned=share)
    assert told(quota.reconcile_with(exists(), repair=True)) == [], "younger than the grace: none would end"
    assert list(quota.claims()) == before
    move_time(engine, 3600)
    quota.resize("w0", {"storage.gb": 2})
    quota.resize("w1", {"storage.gb": 2})  # ten are left that nobody touched: so few may always end
    assert len(list(quota.reconcile_with(exists(), repair=True, most_orphaned=0))) == 10
    assert len(list(quota.reconcile_with(exists(), repair=True, grace=0, most_orphaned=0.8))) == 2
    assert_sums(quota)


@pytest.mark.stores("memory", "sqlite")
def test_an_id_that_comes_twice_while_the_claims_are_read(quota, engine):
    """Released, pruned and claimed anew between two pages: the claim that there is now counts."""
    for number in range(600):
        quota.claim({"cores": 1}, user="mary", id=f"w{number}")

    def step(progress: Progress) -> None:
        if progress == Progress("claims", 500):
            quota.release("w0")
            move_time(engine, 1)
            quota.prune(older_than=0.5)
            quota.claim({"cores": 2}, user="mary", id="w0")

    things = [Existing("vm", {"cores": 4}, project="acme"), Existing("v1", {"cores": 2}, project="acme")]
    things += [Existing(f"w{number}", {"cores": 1}, user="mary") for number in range(600)]
    assert told(quota.reconcile_with(things, resources=["cores"], grace=0, progress=step)) == []
    found = told(quota.reconcile_with(things, resources=["cores"], grace=0))
    assert found == [("amount", None, {"cores": 2}, {"cores": 1}, False, "")]


# -- adopting -----------------------------------------------------------------------------------------------------


@pytest.mark.stores(*ALL)
def test_adopting_claims_what_is_not_known(quota, engine):
    quota.release(quota.claim({"cores": 1}, user="mary", external_id="released").id)
    quota.reserve({"cores": 1}, user="mary", external_id="expired", expires_in=60)
    move_time(engine, 60)
    new = [
        Existing(f"n{number}", {"storage.gb": 15, "cores": 1}, project="zeta", user="mary")
        for number in range(7)
    ]
    others = [Existing(name, {"cores": 1}, user="mary") for name in ("released", "expired")]
    steps: list[Progress] = []
    adopted = quota.adopt(lambda: [*exists(), *new, *others], batch=3, progress=steps.append)
    assert (adopted.claimed, adopted.known, adopted.refused) == (8, 4, {})
    assert adopted.over_quota == (
        Overage("storage.gb", "project:zeta", 100, 105),
        Overage("storage.gb", "user:mary", 50, 105),
    )
    assert [(one.done, one.total) for one in steps if one.stage == "adopting"] == [
        (3, 12),
        (6, 12),
        (9, 12),
        (12, 12),
    ]
    claim = quota.get_claim("n3")
    assert (claim.state, claim.resources, claim.project) == ("provisioned", new[3].resources, "zeta")
    assert sorted(one.scope for one in quota.events()) == ["project:zeta", "user:mary"]
    quota.release("n3")
    again = quota.adopt([*exists(), *new, *others])
    assert (again.claimed, again.known) == (0, 12), "what was released since does not come back"
    assert_sums(quota)


@pytest.mark.stores(*ALL)
def test_one_bad_entry_harms_no_other(quota):
    things = [Existing(f"n{number}", {"storage.gb": 1}, user="mary") for number in range(5)]
    things[2] = Existing("n2", {"storage.gb": CEILING}, user="mary")
    adopted = quota.adopt(things)
    assert (adopted.claimed, adopted.known, list(adopted.refused)) == (4, 0, ["n2"])
    assert quota.usage(user="mary")["storage.gb"].used == 4


@pytest.mark.stores(*ALL)
def test_what_is_just_being_made_is_not_adopted(quota, engine):
    """A volume whose reservation does not know it yet would be counted twice."""
    now = datetime.fromtimestamp(engine.now() / 1_000_000, UTC)
    things = [
        Existing(f"n{minutes}", {"storage.gb": 1}, user="mary", created_at=now - timedelta(minutes=minutes))
        for minutes in (1, 9, 11)
    ]
    adopted = quota.adopt([*exists(), *things])
    assert (adopted.claimed, adopted.known, adopted.young) == (1, 3, 2)
    again = quota.adopt([*exists(), *things], grace=timedelta(minutes=5))
    assert (again.claimed, again.known, again.young) == (1, 4, 1)
    assert quota.adopt(things, grace=0).claimed == 1
    with pytest.raises(InvalidRequest, match="grace must be above 0"):
        quota.adopt(things, grace=-1)


@pytest.mark.stores("sqlite")
def test_an_answer_stays_small(quota, monkeypatch):
    """Reasons of the first few; and nobody is asked about whom nothing was charged to."""
    monkeypatch.setattr("delimiter.reconciling._REASONS", 2)
    things = [Existing(f"n{number}", {"storage.gb": CEILING}, user="mary") for number in range(5)]
    quota.update_limits("storage.gb", user="john", max=1)
    new = Existing("n5", {"storage.gb": 60}, user="zoe")
    adopted = quota.adopt([*exists(), *things, new])
    assert (adopted.claimed, adopted.known, adopted.refusals, list(adopted.refused)) == (
        1,
        3,
        5,
        ["n0", "n1"],
    )
    assert [over.scope for over in adopted.over_quota] == ["user:zoe"]


_ADOPTING = """
import sys
from delimiter import Delimiter, listing
with Delimiter(sys.argv[1]) as quota:
    told = lambda step: step.stage == "adopting" and print(step.done, flush=True)
    quota.adopt(lambda: listing.read(sys.argv[2]), batch=20, progress=told)
"""


@pytest.mark.leaves_connections
def test_adoption_goes_on_after_a_kill(store_url, tmp_path):
    """Killed in the middle of it: what was claimed is claimed once, and the rest comes with the next run."""
    file = tmp_path / "list.csv"
    file.write_text("external_id,user,cores\n" + "".join(f"v{n},u{n % 7},{n % 5 + 1}\n" for n in range(600)))
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
        process = subprocess.Popen(
            [sys.executable, "-c", _ADOPTING, store_url, str(file)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        done = len(list(quota.claims()))
        assert 100 <= done < 600
        adopted = quota.adopt(lambda: listing.read(file))
        assert (adopted.claimed, adopted.known) == (600 - done, done)
        assert told(quota.reconcile_with(lambda: listing.read(file), grace=0)) == []
        assert_sums(quota, "cores")


@pytest.mark.stores("sqlite")
def test_from_a_table_of_the_service_asynchronously(database_url):
    async def main() -> list[Any]:
        async with aio.Delimiter(database_url("sqlite").replace("sqlite:", "sqlite+aiosqlite:")) as quota:
            await quota.define_resource("cores")
            adopted = await quota.adopt([Existing(f"v{n}", {"cores": 1}, user="john") for n in range(3)])
            found = [
                one async for one in quota.reconcile_with(list, resources=["cores"], grace=0, repair=True)
            ]
            return [adopted.claimed, len(found), (await quota.usage(user="john"))["cores"].used]

    assert asyncio.run(main()) == [3, 3, 0]
