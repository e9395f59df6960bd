"""Public usages, as a service writes them. Nobody runs this file: only mypy reads it, in `make lint`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import assert_type

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import delimiter.aio
from delimiter import (
    Claim,
    Decision,
    Delimiter,
    Drift,
    Overage,
    OverLimit,
    Request,
    Resource,
    StoreUnavailable,
    Usage,
    Violation,
)
from delimiter.handlers import guarded, transactional
from delimiter.problems import problem


def opening(engine: Engine) -> None:
    Delimiter("sqlite:///quota.db", timeout=5).close()
    Delimiter(engine, create=False, schema="quotas", table_prefix="q_", timeout=timedelta(seconds=5))
    with Delimiter("memory://") as quota:
        assert_type(quota, Delimiter)


def verbs(quota: Delimiter, connection: Connection, session: Session) -> None:
    quota.define_resource(
        "a.b", service="a", max=1, min=0, project_max=-1, user_max=2, unit="GB", description="x"
    )
    assert_type(quota.update_limits("a.b", user="john", max=None, min=3), list[Overage])
    assert_type(quota.resources(), list[Resource])
    assert_type(quota.limits(project="acme"), dict[str, int])
    assert_type(quota.usage(user="john", connection=session), dict[str, Usage])
    assert_type(quota.check({"a.b": 1}, project="acme", connection=connection), Decision)
    claim = quota.claim({"a.b": 1}, project="acme", user="john", id="1", parent="0", external_id="i-1")
    assert_type(claim, Claim)
    assert_type(claim.expires_at, datetime | None)
    assert_type(
        quota.reserve({"a.b": 1}, user="john", expires_in=timedelta(minutes=5), connection=session), Claim
    )
    assert_type(
        quota.claim_all([Request({"a.b": 1}, user="john", expires_in=1.5)], connection=connection),
        list[Claim],
    )
    assert_type(quota.provision("1", external_id="i-1"), Claim)
    assert_type(quota.renew("1", expires_in=60), Claim)
    assert_type(quota.resize("1", {"a.b": 2}, force=True), Claim)
    assert_type(quota.transfer("1", project="other"), Claim)
    quota.release("1", force=True, connection=session)
    assert_type(quota.claims(project="acme", state="expired", subtree=True), Iterator[Claim])
    assert_type(quota.expire_reservations(), int)
    assert_type(quota.prune(older_than=timedelta(days=7)), int)
    assert_type(quota.reconcile(repair=True), Iterator[Drift])


def refused(quota: Delimiter) -> int | None:
    try:
        quota.claim({"a.b": 1}, user="john")
    except OverLimit as refusal:
        assert_type(refusal.violations, tuple[Violation, ...])
        return refusal.violations[0].available
    except StoreUnavailable as unavailable:
        assert_type(unavailable.claim_id, str | None)
        assert_type(unavailable.in_doubt, bool)
    return None


async def awaited(engine: AsyncEngine, connection: AsyncConnection, session: AsyncSession) -> None:
    async with delimiter.aio.Delimiter(engine) as quota:
        await quota.define_resource("a.b", user_max=2)
        assert_type(await quota.claim({"a.b": 1}, user="john", connection=session), Claim)
        assert_type(await quota.usage(connection=connection), dict[str, Usage])
        assert_type(quota.claims(user="john"), AsyncIterator[Claim])
        await quota.release("1")


def handlers(
    quota: Delimiter, async_quota: delimiter.aio.Delimiter, engine: Engine, async_engine: AsyncEngine
) -> None:
    amounts = {"a.b": 1, "a.c": lambda size: size}  # inferred as dict[str, object]

    @transactional(engine, connection="connection", timeout=timedelta(seconds=5))
    @guarded(quota, amounts, project="project", connection="connection", claim="claim", expires_in=60)
    def create(connection: Connection, claim: Claim, project: str, size: int) -> None: ...

    @transactional(lambda self: self.engine)
    @guarded(async_quota, lambda size: {"a.b": size}, user=lambda self: self.user)
    async def create_async(self: object, session: AsyncSession, size: int) -> None: ...

    create("acme", size=3)
    assert_type(problem(OverLimit([])).status, int)
