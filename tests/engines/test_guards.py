"""`count` and `guard` as they are documented, in the transactions and sessions of a service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from delimiter import (
    Delimiter,
    InvalidRequest,
    OverLimit,
    Usage,
)
from engines.instances import ROWS, SIZE, Instances, Volume
from engines.service import PLACES, READ_COMMITTED, Place

_PLACES = [one for one in PLACES if one.values[0].level in ("legacy", "begin", READ_COMMITTED)]
_ONE_EACH = [one for one in PLACES if one.values[0].level in ("begin", READ_COMMITTED)]
_LOCKED_OR_NOT = pytest.mark.parametrize("optimistic", [False, True], ids=["locked", "optimistic"])


@pytest.fixture
def quota(rows: Instances) -> Iterator[Delimiter]:
    with Delimiter(rows.url) as quota:
        quota.define_resource(ROWS, project_max=2)
        quota.define_resource(SIZE)
        quota.define_resource("storage.gb", project_max=100)
        rows.counted_by(quota)
        yield quota


# --- in transactions -----------------------------------------------------------------------------------------------


@_LOCKED_OR_NOT
@pytest.mark.parametrize("place", PLACES)
def test_a_connection_that_is_fresh(
    place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool
) -> None:
    """It has not begun a transaction yet; and it is used again afterwards, and after a refusal."""
    guarded: dict[str, Any] = {"project": "acme", "optimistic": optimistic}
    with rows.engine.connect() as c:
        for _ in range(2):
            with quota.guard({ROWS: 1}, connection=c, **guarded) as claim:
                assert claim is None
                rows.add(c, "acme")
            c.commit()
        for _ in range(2):
            with pytest.raises(OverLimit), quota.guard({ROWS: 1}, connection=c, **guarded):
                pytest.fail("entered")
        rows.add(c, "zeta")
        c.commit()
    assert quota.usage(project="acme")[ROWS] == Usage(2, 2, 0)
    assert quota.usage()[ROWS].used == 3


@_LOCKED_OR_NOT
@pytest.mark.parametrize("place", _PLACES)
def test_more_than_was_asked_for_is_taken_back(
    place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool
) -> None:
    """Guard: the second count (`_SqlGuard._count_again`). Without it the rows stay, past the limit."""
    quota.update_limits(ROWS, project="free", max=-1)
    with rows.engine.begin() as c:
        rows.add(c, "acme")
        for scope in ("acme", "free"):
            with (  # noqa: PT012 - the guard around it is what raises
                pytest.raises(OverLimit) as refused,
                quota.guard({ROWS: 1, "storage.gb": 1}, project=scope, connection=c, optimistic=optimistic),
            ):
                rows.add(c, scope)
                rows.add(c, scope)
            assert [(one.scope, one.requested, one.available) for one in refused.value.violations] == [
                (f"project:{scope}", 2, 1)
            ]
            assert "-1" not in str(refused.value)
        rows.add(c, "zeta")
    assert [row[0] for row in rows.rows()] == ["acme", "zeta"]
    assert list(quota.claims()) == []


@_LOCKED_OR_NOT
@pytest.mark.parametrize("place", _PLACES)
def test_what_is_raised_inside_takes_everything_back(
    place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool
) -> None:
    asked = {ROWS: 1, "storage.gb": 10}
    with rows.engine.begin() as c:
        rows.add(c, "before")
        with (  # noqa: PT012 - the guard around it is what raises
            pytest.raises(KeyError),
            quota.guard(asked, project="acme", connection=c, optimistic=optimistic, id="x") as claim,
        ):
            assert claim is not None
            assert claim.resources == {"storage.gb": 10}
            rows.add(c, "acme")
            raise KeyError("the caller's own")
        rows.add(c, "after")
        with quota.guard(asked, project="acme", connection=c, optimistic=optimistic, id="x"):
            rows.add(c, "acme")
    assert [row[0] for row in rows.rows()] == ["before", "after", "acme"]
    assert quota.get_claim("x").live
    assert quota.usage(project="acme")["storage.gb"].used == 10


@pytest.mark.parametrize("place", _PLACES)
def test_guards_do_not_nest_and_leave_no_mark(place: Place, quota: Delimiter, rows: Instances) -> None:
    """One connection of the pool for all: what a guard has left on it would be met by the next transaction."""
    engine = place.engine(rows.url, pool_size=1, max_overflow=0)
    with Delimiter(engine) as other:
        rows.counted_by(other)
        _do_not_nest(quota, other, rows, engine)
    engine.dispose()
    assert rows.sum_of(project="acme") == 2


def _do_not_nest(quota: Delimiter, other: Delimiter, rows: Instances, engine: sa.Engine) -> None:
    with engine.begin() as c:
        with quota.guard({ROWS: 1}, project="acme", connection=c):
            for one in (quota, other):
                with (
                    pytest.raises(InvalidRequest, match="do not nest"),
                    one.guard({SIZE: 1}, project="zeta", connection=c),
                ):
                    pytest.fail("entered")
            rows.add(c, "acme")
        with quota.guard({ROWS: 1}, project="acme", connection=c):  # one after the other is well
            pass
    for _ in range(2):
        with engine.connect() as c:
            manager = quota.guard({ROWS: 1}, project="acme", connection=c)
            manager.__enter__()
            rows.add(c, "acme")
            c.rollback()  # whoever does this has left without leaving
    with engine.begin() as c, quota.guard({ROWS: 1}, project="acme", connection=c):
        rows.add(c, "acme")


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("place", _PLACES)
def test_the_transaction_is_ended_inside(place: Place, quota: Delimiter, rows: Instances, end: str) -> None:
    with rows.engine.connect() as c:
        with (  # noqa: PT012 - the guard around it is what raises
            pytest.raises(InvalidRequest, match="inside the guard"),
            quota.guard({ROWS: 1}, project="acme", connection=c),
        ):
            rows.add(c, "acme")
            getattr(c, end)()
        c.rollback()
        with quota.guard({ROWS: 1}, project="acme", connection=c):
            rows.add(c, "acme")
        c.commit()
    assert rows.sum_of() == (2 if end == "commit" else 1)


@_LOCKED_OR_NOT
@pytest.mark.parametrize("place", _PLACES)
def test_in_a_savepoint_of_the_caller(
    place: Place, quota: Delimiter, rows: Instances, *, optimistic: bool
) -> None:
    with rows.engine.begin() as c:
        savepoint = c.begin_nested()
        with quota.guard({ROWS: 2}, project="acme", connection=c, optimistic=optimistic):
            rows.add(c, "acme")
            with c.begin_nested():
                rows.add(c, "acme")
        savepoint.rollback()
        with quota.guard({ROWS: 1}, project="acme", connection=c, optimistic=optimistic):
            rows.add(c, "acme")
    assert rows.sum_of() == 1


# --- in sessions ---------------------------------------------------------------------------------------------------


@_LOCKED_OR_NOT
@pytest.mark.parametrize("autoflush", [False, True])
@pytest.mark.parametrize("place", _PLACES)
def test_a_session(
    place: Place, quota: Delimiter, volumes: sa.Engine, *, optimistic: bool, autoflush: bool
) -> None:
    """Pending rows are flushed where they have to be counted, on entering and on leaving."""
    guarded: dict[str, Any] = {"project": "acme", "optimistic": optimistic}
    with Session(volumes, autoflush=autoflush) as session, session.begin():
        session.add(Volume(name="before", project_id="acme"))
        assert quota.usage(project="acme", connection=session)["volumes"].used == 1
        with quota.guard({"volumes": 1}, connection=session, **guarded):
            session.add(Volume(name="inside", project_id="acme"))
        with pytest.raises(OverLimit), quota.guard({"volumes": 1}, connection=session, **guarded):
            pytest.fail("entered")
        session.get_one(Volume, 1).deleted = True
        with pytest.raises(OverLimit), quota.guard({"volumes": 1}, connection=session, **guarded):
            session.add_all(Volume(name=name, project_id="acme") for name in ("two", "many"))
        session.add(Volume(name="after", project_id="zeta"))
    with Session(volumes) as session:
        assert list(session.scalars(sa.select(Volume.name).order_by(Volume.id))) == [
            "before",
            "inside",
            "after",
        ]


@_LOCKED_OR_NOT
@pytest.mark.parametrize("place", _PLACES)
def test_a_flush_that_fails_is_the_callers(
    place: Place, quota: Delimiter, volumes: sa.Engine, *, optimistic: bool
) -> None:
    """Its own ``IntegrityError``, from leaving or from inside; then the session goes on."""
    guarded: dict[str, Any] = {"project": "acme", "optimistic": optimistic}
    with Session(volumes) as session, session.begin():
        session.add(Volume(name="same", project_id="zeta"))
        session.flush()
        for flush_inside in (False, True):
            with pytest.raises(IntegrityError), quota.guard({"volumes": 1}, connection=session, **guarded):  # noqa: PT012 - the guard around it is what raises
                session.add(Volume(name="same", project_id="acme"))
                if flush_inside:
                    session.flush()
        with quota.guard({"volumes": 1}, connection=session, **guarded):
            session.add(Volume(name="other", project_id="acme"))
        savepoint = session.begin_nested()
        session.add(Volume(name="other", project_id="acme"))
        with pytest.raises(IntegrityError), quota.guard({"volumes": 1}, connection=session, **guarded):
            pytest.fail("entered")
        savepoint.rollback()
    with Session(volumes) as session:
        assert list(session.scalars(sa.select(Volume.name).order_by(Volume.id))) == ["same", "other"]
    assert quota.usage(project="acme")["volumes"].used == 1
