"""What tests of services stand on: the clock, failures to order, what is held and what must not be left."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import delimiter.aio
from delimiter import (
    Conflict,
    Delimiter,
    InvalidRequest,
    OverLimit,
    Request,
    StoreUnavailable,
    UnknownResource,
)
from delimiter.testing import Clock, Sandbox, assert_claims_unchanged, assert_no_claims, fill

CPU = "compute.vcpu"


@pytest.fixture(params=["memory", "sqlite"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sandbox]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'quota.db'}"
    with Sandbox(store) as sandbox:
        sandbox.quota.define_resource(CPU, max=100, project_max=8)
        yield sandbox


def used(quota: Delimiter) -> int:
    return quota.usage(project="acme")[CPU].used


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [1800, 1800.0, timedelta(minutes=30)])
def test_a_reservation_runs_out_when_time_is_moved(sandbox: Sandbox, minutes: Any) -> None:
    held = sandbox.quota.reserve({CPU: 8}, project="acme", expires_in=1860)
    sandbox.clock.advance(minutes)
    assert used(sandbox.quota) == 8
    sandbox.clock.advance(60)
    assert (used(sandbox.quota), sandbox.quota.get_claim(held.id).state) == (0, "expired")
    assert held.expires_at is not None
    assert timedelta(0) <= sandbox.clock.now() - held.expires_at < timedelta(minutes=1)


@pytest.mark.parametrize("time", [0, -1, timedelta(0), True, "60", None, float("nan"), float("inf")])
def test_time_goes_forward_only(sandbox: Sandbox, time: Any) -> None:
    before = sandbox.quota._engine.clock_offset
    with pytest.raises(InvalidRequest, match="time must be"):
        sandbox.clock.advance(time)
    assert sandbox.quota._engine.clock_offset == before


def test_a_clock_moves_for_every_delimiter_that_is_named_and_no_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'quota.db'}"
    with Delimiter(url) as first, Delimiter(url) as second, Delimiter(url) as other:
        first.define_resource(CPU, project_max=8)
        first.reserve({CPU: 8}, project="acme", expires_in=60)
        Clock(first, second, first).advance(61)
        assert [used(quota) for quota in (first, second, other)] == [0, 0, 8]


def test_a_clock_moves_for_an_asynchronous_delimiter(tmp_path: Path) -> None:
    async def left() -> int:
        async with delimiter.aio.Delimiter(f"sqlite+aiosqlite:///{tmp_path / 'quota.db'}") as quota:
            await quota.define_resource(CPU, project_max=8)
            await quota.reserve({CPU: 8}, project="acme", expires_in=60)
            clock = Clock(quota)
            clock.advance(61)
            with pytest.raises(InvalidRequest, match="event loop"):
                clock.now()
            return (await quota.usage(project="acme"))[CPU].used

    assert asyncio.run(left()) == 0


@pytest.mark.parametrize("quotas", [(), ("memory://",), (None,)])
def test_a_clock_wants_a_delimiter(quotas: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"Clock\(quota\)"):
        Clock(*quotas)


# --- failures -------------------------------------------------------------------------------------


def calls(quota: Delimiter) -> dict[str, Callable[[], Any]]:
    """One call of each kind, all of which would succeed."""
    return {
        "claim": lambda: quota.claim({CPU: 1}, project="acme", id="new"),
        "claim_all": lambda: quota.claim_all([Request({CPU: 1}, project="acme", id="one")]),
        "provision": lambda: quota.provision("held"),
        "renew": lambda: quota.renew("held", expires_in=600),
        "resize": lambda: quota.resize("held", {CPU: 2}),
        "release": lambda: quota.release("held"),
        "usage": lambda: quota.usage(project="acme"),
        "check": lambda: quota.check({CPU: 1}, project="acme"),
        "claims": lambda: list(quota.claims()),
        "limits": lambda: quota.limits(project="acme"),
        "update_limits": lambda: quota.update_limits(CPU, project="acme", max=3),
        "expire_reservations": quota.expire_reservations,
    }


CHANGES = ["claim", "claim_all", "provision", "renew", "resize", "release"]
ALL_CALLS = list(calls(Delimiter("memory://")))


@pytest.mark.parametrize("name", ALL_CALLS)
def test_the_store_is_down(sandbox: Sandbox, name: str) -> None:
    """At once, without the tries that a real one would have cost; and nothing happens."""
    quota = sandbox.quota
    quota.reserve({CPU: 1}, project="acme", id="held", expires_in=60)
    call = calls(quota)[name]
    limits = quota.limits(project="acme")
    with assert_claims_unchanged(quota), sandbox.faults.store_down():
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as failure:
                call()
            assert (failure.value.retryable, failure.value.in_doubt) == (True, False)
    assert quota.limits(project="acme") == limits
    call()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_meets_a_conflict_and_then_none(sandbox: Sandbox, name: str) -> None:
    quota = sandbox.quota
    quota.reserve({CPU: 1}, project="acme", id="held", expires_in=60)
    call = calls(quota)[name]
    with sandbox.faults.conflict(times=2):
        with assert_claims_unchanged(quota):  # which reads, and reading meets no conflict
            for _ in range(2):
                with pytest.raises(Conflict) as failure:
                    call()
                assert failure.value.retryable
        call()


@pytest.mark.parametrize("name", CHANGES)
def test_an_answer_is_lost(sandbox: Sandbox, name: str) -> None:
    """It happened, the caller does not know it, and the same call again settles it."""
    quota = sandbox.quota
    quota.reserve({CPU: 1}, project="acme", id="held", expires_in=60)
    before = {claim.id: claim for claim in quota.claims()}
    call = calls(quota)[name]
    with sandbox.faults.lost_answer(), pytest.raises(StoreUnavailable) as failure:
        call()
    assert (failure.value.in_doubt, failure.value.claim_id) == (
        True,
        {"claim": "new", "claim_all": "one"}.get(name, "held"),
    )
    after = {claim.id: claim for claim in quota.claims()}
    assert after != before
    call()
    if name != "renew":
        assert {claim.id: claim for claim in quota.claims()} == after


def test_a_refusal_is_no_lost_answer(sandbox: Sandbox) -> None:
    quota = sandbox.quota
    with sandbox.faults.lost_answer():
        with pytest.raises(OverLimit):
            quota.claim({CPU: 9}, project="acme")
        with pytest.raises(StoreUnavailable):
            quota.claim({CPU: 8}, project="acme")
    assert used(quota) == 8


def test_failures_in_the_callers_transaction(tmp_path: Path) -> None:
    """A conflict is met there; an answer is not lost there, since the COMMIT is the caller's own."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'service.db'}")
    with Sandbox(engine) as sandbox:
        quota, faults = sandbox.quota, sandbox.faults
        quota.define_resource(CPU, project_max=8)
        with faults.conflict():
            with pytest.raises(Conflict), engine.begin() as connection:
                quota.claim({CPU: 1}, project="acme", connection=connection)
            with engine.begin() as connection:
                quota.claim({CPU: 2}, project="acme", connection=connection)
        unmet = pytest.raises(AssertionError, match="the lost answer was met by 0 calls")
        with unmet, faults.lost_answer(), engine.begin() as connection:
            quota.claim({CPU: 1}, project="acme", connection=connection)
        with faults.store_down(), pytest.raises(StoreUnavailable), engine.begin() as connection:
            quota.claim({CPU: 1}, project="acme", connection=connection)
        assert used(quota) == 3
    engine.dispose()


def test_guards_meet_failures_too(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'service.db'}")
    rows = sa.Table("rows", sa.MetaData(), sa.Column("project", sa.String(50)))
    rows.metadata.create_all(engine)
    with Sandbox(engine) as sandbox:
        quota, faults = sandbox.quota, sandbox.faults
        quota.define_resource(CPU, project_max=1)
        quota.count(CPU, sa.func.count(), project=rows.c.project)
        for failure, error in ((faults.conflict(), Conflict), (faults.store_down(), StoreUnavailable)):
            with (
                failure,
                pytest.raises(error),
                engine.begin() as connection,
                quota.guard({CPU: 1}, project="acme", connection=connection),
            ):
                pytest.fail("nobody comes in")
        assert used(quota) == 0
    engine.dispose()


def test_a_failure_that_nothing_met_is_told(sandbox: Sandbox) -> None:
    faults = sandbox.faults
    unmet = pytest.raises(
        AssertionError, match="the store that is down was met by 0 calls, not by at least one"
    )
    with unmet, faults.store_down():
        pass
    unmet = pytest.raises(AssertionError, match="the conflict was met by 1 calls, not by 2 of them")
    with unmet, faults.conflict(times=2), pytest.raises(Conflict):
        sandbox.quota.claim({CPU: 1}, project="acme")
    with pytest.raises(ZeroDivisionError), faults.conflict():
        _ = 1 / 0  # what went wrong first is what is told
    sandbox.quota.claim({CPU: 1}, project="acme")  # and afterwards nothing is left of it


@pytest.mark.parametrize("times", [0, -1, True, 1.5, "1", None])
def test_how_often_is_a_number(sandbox: Sandbox, times: Any) -> None:
    with pytest.raises(InvalidRequest, match="times must be"), sandbox.faults.lost_answer(times=times):
        pytest.fail("it was accepted")


# --- what is held ---------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [0, 1, 7, 8])
def test_a_scope_is_filled(sandbox: Sandbox, leave: int) -> None:
    quota = sandbox.quota
    claim = fill(quota, CPU, project="acme", leave=leave)
    assert (None if claim is None else dict(claim.resources)) == ({CPU: 8 - leave} if leave < 8 else None)
    assert quota.check({CPU: 1}, project="acme").available == {CPU: leave}
    assert fill(quota, CPU, project="acme", leave=leave) is None


def test_the_tightest_limit_is_filled(sandbox: Sandbox) -> None:
    quota = sandbox.quota
    quota.update_limits(CPU, user="john", max=3)
    fill(quota, CPU, project="acme", user="john")
    assert used(quota) == 3
    with pytest.raises(OverLimit) as refusal:
        quota.claim({CPU: 1}, project="zeta", user="john")
    assert [violation.scope for violation in refusal.value.violations] == ["user:john"]


@pytest.mark.parametrize(
    "resource, owner, leave, error, message",
    [
        ("storage.gb", {"project": "acme"}, 0, InvalidRequest, "has no limit here"),
        (CPU, {"project": "acme"}, 9, InvalidRequest, "only 8 of compute.vcpu are left"),
        (CPU, {"project": "acme"}, -1, InvalidRequest, "leave must be"),
        (CPU, {"project": "acme"}, True, InvalidRequest, "leave must be"),
        (CPU, {}, 0, InvalidRequest, "name a project"),
        ("no.such", {"project": "acme"}, 0, UnknownResource, "no.such"),
    ],
)
def test_what_cannot_be_filled(
    sandbox: Sandbox, resource: str, owner: dict[str, Any], leave: Any, error: Any, message: str
) -> None:
    sandbox.quota.define_resource("storage.gb")
    with assert_claims_unchanged(sandbox.quota), pytest.raises(error, match=message):
        fill(sandbox.quota, resource, leave=leave, **owner)


def test_claims_that_are_left_are_named(sandbox: Sandbox) -> None:
    quota = sandbox.quota
    assert_no_claims(quota)
    quota.claim({CPU: 2}, project="acme", user="john", id="vm-1", external_id="i-1")
    quota.release(quota.claim({CPU: 1}, project="acme").id)
    assert_no_claims(quota, project="zeta")
    for owner in ({}, {"project": "acme"}, {"user": "john"}):
        with pytest.raises(AssertionError) as failure:
            assert_no_claims(quota, **owner)
        told = "vm-1 = i-1 (provisioned) of project acme, user john: {'compute.vcpu': 2}"
        assert str(failure.value) == f"1 claims are still held:\n  {told}"
    for number in range(6):
        quota.claim({CPU: 1}, project=f"p{number}")
        quota.claim({CPU: 1}, user=f"u{number}")
    with pytest.raises(AssertionError, match=r"^13 claims are still held:(.|\n)*\n  and 3 more$"):
        assert_no_claims(quota)


def test_every_difference_of_claims_is_named(sandbox: Sandbox) -> None:
    quota = sandbox.quota
    for name in ("kept", "gone", "changed"):
        quota.claim({CPU: 1}, project="acme", id=name)

    def change() -> None:
        with assert_claims_unchanged(quota):
            quota.release("gone")
            quota.resize("changed", {CPU: 2})
            quota.reserve({CPU: 1}, project="acme", id="new", expires_in=60)

    with pytest.raises(AssertionError) as failure:
        change()
    assert str(failure.value).splitlines() == [
        "the claims are not what they were:",
        "  new: new (reserved) of project acme: {'compute.vcpu': 1}",
        "  gone: gone (provisioned) of project acme: {'compute.vcpu': 1}",
        "  changed: changed (provisioned) of project acme: {'compute.vcpu': 2}",
    ]


def test_what_went_wrong_first_is_what_is_told(sandbox: Sandbox) -> None:
    def fail() -> None:
        sandbox.quota.claim({CPU: 1}, project="acme")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), assert_claims_unchanged(sandbox.quota):
        fail()


# --- opening --------------------------------------------------------------------------------------


def test_both_quotas_are_one_store(sandbox: Sandbox) -> None:
    async def claim() -> int:
        with sandbox.faults.store_down(), pytest.raises(StoreUnavailable):
            await sandbox.aio_quota.claim({CPU: 1}, project="acme")
        await sandbox.aio_quota.reserve({CPU: 5}, project="acme", expires_in=60)
        return used(sandbox.quota)

    assert asyncio.run(claim()) == 5
    sandbox.clock.advance(61)
    assert used(sandbox.quota) == 0
    sandbox.close()
    sandbox.close()


@pytest.mark.parametrize("store", ["sqlite+aiosqlite:///quota.db", "engine"])
def test_a_driver_for_asyncio_is_refused(store: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    with pytest.raises(InvalidRequest, match="the URL of the same database"):
        Sandbox(create_async_engine("sqlite+aiosqlite:///quota.db") if store == "engine" else store)


@pytest.mark.parametrize(
    "call",
    [
        lambda quota: fill(quota, CPU, project="acme"),
        assert_no_claims,
        lambda quota: assert_claims_unchanged(quota).__enter__(),
    ],
)
def test_an_asynchronous_quota_is_pointed_to_the_other_one(call: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"sandbox\.quota"):
        call(delimiter.aio.Delimiter("memory://"))


@pytest.mark.parametrize("module", ["", ".clock", ".faults", ".claims", ".sandbox"])
def test_the_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"delimiter.testing{module}"))
    assert results.attempted
    assert not results.failed


def test_it_needs_neither_pytest_nor_a_database_library(tmp_path: Path) -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(["pytest", "greenlet", "aiosqlite", "sqlalchemy"]))
from delimiter.testing import Sandbox, fill
with Sandbox() as sandbox:
    sandbox.quota.define_resource("a.thing", user_max=3)
    print(fill(sandbox.quota, "a.thing", user="john").resources["a.thing"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
