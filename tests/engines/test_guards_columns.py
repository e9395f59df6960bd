"""What `count` takes: mapped classes, joined tables, columns of any type and collation; and bad input to both."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from delimiter import (
    ClaimConflict,
    Delimiter,
    DelimiterError,
    InvalidRequest,
    OverLimit,
    UnknownClaim,
    UnknownResource,
)
from engines.instances import ROWS, Instances, Snapshot, Volume, VolumeType
from engines.service import PLACES, READ_COMMITTED, Place

_PLACES = [one for one in PLACES if one.values[0].level in ("legacy", "begin", READ_COMMITTED)]
_ONE_EACH = [one for one in PLACES if one.values[0].level in ("begin", READ_COMMITTED)]
_LOCKED_OR_NOT = pytest.mark.parametrize("optimistic", [False, True], ids=["locked", "optimistic"])


@pytest.fixture
def quota(rows: Instances) -> Iterator[Delimiter]:
    with Delimiter(rows.url) as quota:
        quota.define_resource(ROWS, project_max=2)
        quota.define_resource("storage.gb", project_max=100)
        quota.count(ROWS, sa.func.count(), project=rows.table.c.project_id, user=rows.table.c.user_id)
        yield quota


# --- what is counted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", _ONE_EACH)
def test_kinds_types_and_rows_of_nobody(place: Place, quota: Delimiter, mapped: sa.Engine) -> None:
    """A mapped class that shares its table counts its own rows; a joined table leaves out; NULL counts in the total."""
    for name in ("snapshots", "fast", "all"):
        quota.define_resource(name, max=9)
    quota.count("snapshots", sa.func.count(), project=Snapshot.project_id)
    fast = sa.and_(Volume.type_id == VolumeType.id, VolumeType.name == "fast")
    quota.count("fast", sa.func.count(), project=Volume.project_id, where=fast)
    quota.count("all", sa.func.count(Volume.id), project=Volume.project_id)
    with Session(mapped) as session, session.begin():
        session.add_all([VolumeType(id=1, name="slow"), VolumeType(id=2, name="fast")])
        with quota.guard({"snapshots": 1, "fast": 1, "all": 3}, project="acme", connection=session):
            session.add_all(
                [
                    Snapshot(name="a", project_id="acme"),
                    Volume(name="b", project_id="acme", type_id=2),
                    Volume(name="c", project_id="acme"),
                ]
            )
        session.add(Volume(name="d", project_id=None, type_id=2))
    mine, whole = quota.usage(project="acme"), quota.usage()
    assert {name: mine[name].used for name in ("snapshots", "fast", "all")} == {
        "snapshots": 1,
        "fast": 1,
        "all": 3,
    }
    assert {name: whole[name].used for name in ("snapshots", "fast", "all")} == {
        "snapshots": 1,
        "fast": 2,
        "all": 4,
    }
    (acme,) = [one for one in quota.tree() if one.id == "acme"]
    assert acme.usage["all"].used == 3


@pytest.mark.parametrize("collation", [None, "utf8mb4_general_ci", "latin1_swedish_ci", "NOCASE", "C"])
@pytest.mark.parametrize("place", _ONE_EACH)
def test_names_are_bytes_in_any_collation(
    place: Place, quota: Delimiter, rows: Instances, collation: str | None
) -> None:
    """Guard: `Database.exactly`. Without it, ``acme`` and ``ACME`` each count the other's rows where the service's
    column takes them for one, and, holding guards of their own, come in together past both limits.
    """
    known = {
        "sqlite": ("NOCASE",),
        "postgresql": ("C",),
        "mariadb": ("utf8mb4_general_ci", "latin1_swedish_ci"),
    }
    if collation is not None and collation not in known[place.store]:
        pytest.skip("a collation of another database")
    metadata = sa.MetaData()
    owner = sa.Column("owner", sa.String(100, collation=collation), index=True)
    things = sa.Table("things", metadata, sa.Column("id", sa.Integer, primary_key=True), owner)
    if collation == "latin1_swedish_ci":
        things.kwargs["mysql_default_charset"] = "latin1"
    metadata.drop_all(rows.engine)
    metadata.create_all(rows.engine)
    quota.define_resource("things", project_max=1, user_max=1)
    quota.count("things", sa.func.count(), project=things.c.owner, user=things.c.owner)
    names = ["acme", "ACME", "acme ", "äcme"]
    try:
        for name in names:
            with rows.engine.begin() as c, quota.guard({"things": 1}, project=name, user=name, connection=c):
                c.execute(sa.insert(things).values(owner=name))
            with (
                rows.engine.begin() as c,
                pytest.raises(OverLimit),
                quota.guard({"things": 1}, project=name, connection=c),
            ):
                pytest.fail("entered")
        assert {one.id: one.usage["things"].used for one in quota.tree()} == dict.fromkeys(names, 1)
        if collation != "latin1_swedish_ci":
            assert quota.usage(project="日本")["things"].used == 0
        why = quota.explain({"things": 1}, project="acme")
        assert {one.project for one in why.consumers["things"]} == {"acme"}
    finally:
        metadata.drop_all(rows.engine)


_UUID = "0b8b3e7c-3b6f-4c5e-9a52-6d1e0e9f7a11"


@pytest.mark.parametrize(
    "type_, name, bad",
    [
        (sa.Integer(), "7", ["acme", "007", " 7", "+7", "7.0", "9" * 30, "٧"]),
        (sa.BigInteger(), str(2**40), ["acme", str(2**63)]),
        (sa.Uuid(), _UUID, ["acme", _UUID.upper(), _UUID.replace("-", "")]),
        (sa.Uuid(as_uuid=False), _UUID, ["acme", _UUID.upper(), _UUID.replace("-", "")]),
    ],
    ids=["integer", "bigint", "uuid", "uuid-text"],
)
@pytest.mark.parametrize("place", _ONE_EACH)
def test_columns_that_are_no_text(
    place: Place, quota: Delimiter, rows: Instances, type_: Any, name: str, bad: list[str]
) -> None:
    """Guard: `Guards.refuse_strangers`. A name in another spelling finds no rows: it would never be limited."""
    metadata = sa.MetaData()
    things = sa.Table(
        "things",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("owner", type_, index=True),
    )
    metadata.drop_all(rows.engine)
    metadata.create_all(rows.engine)
    value: Any = int(name) if isinstance(type_, sa.Integer) else uuid.UUID(name) if type_.as_uuid else name
    quota.define_resource("things", project_max=1)
    quota.count("things", sa.func.count(), project=things.c.owner)
    quota.add_project("a name for several")
    quota.add_project(name, parent="a name for several")
    try:
        with rows.engine.begin() as c:
            with quota.guard({"things": 1}, project=name, connection=c):
                c.execute(sa.insert(things).values(owner=value))
            with pytest.raises(OverLimit), quota.guard({"things": 1}, project=name, connection=c):
                pytest.fail("entered")
            for stranger in [*bad, "a name for several"]:
                with (
                    pytest.raises(InvalidRequest, match="cannot be in the column"),
                    quota.guard({"things": 1}, project=stranger, connection=c),
                ):
                    pytest.fail("entered")
        assert all(quota.usage(project=stranger)["things"].used == 0 for stranger in bad)
        assert quota.usage(project="a name for several")["things"].used == 1
    finally:
        metadata.drop_all(rows.engine)


# --- bad input -----------------------------------------------------------------------------------------------------

_BAD_COUNTS: dict[str, dict[str, Any]] = {
    "amount is a number": {"amount": 1, "project": Volume.project_id},
    "amount is text": {"amount": "count(*)", "project": Volume.project_id},
    "amount adds nothing up": {"amount": Volume.id, "project": Volume.project_id},
    "amount is a class": {"amount": Volume, "project": Volume.project_id},
    "project is text": {"amount": sa.func.count(), "project": "project_id"},
    "project is a table": {"amount": sa.func.count(), "project": Volume.__table__},
    "user is a number": {"amount": sa.func.count(), "project": Volume.project_id, "user": 5},
    "where is a bool": {"amount": sa.func.count(), "project": Volume.project_id, "where": True},
    "no table": {"amount": sa.func.count()},
}


@pytest.mark.parametrize("bad", _BAD_COUNTS)
@pytest.mark.parametrize("place", _ONE_EACH)
def test_bad_input_to_count(place: Place, quota: Delimiter, bad: str) -> None:
    quota.define_resource("volumes")
    given = dict(_BAD_COUNTS[bad])
    with pytest.raises(InvalidRequest):
        quota.count("volumes", given.pop("amount"), **given)
    quota.claim({"volumes": 1}, project="acme")  # it is not counted


_BAD_GUARDS: dict[str, tuple[dict[str, Any], type[DelimiterError]]] = {
    "nothing": ({"resources": {}}, InvalidRequest),
    "no mapping": ({"resources": [ROWS]}, InvalidRequest),
    "zero": ({"resources": {ROWS: 0}}, InvalidRequest),
    "bool": ({"resources": {ROWS: True}}, InvalidRequest),
    "float": ({"resources": {ROWS: 1.0}}, InvalidRequest),
    "too much": ({"resources": {ROWS: 2**63}}, InvalidRequest),
    "unknown": ({"resources": {ROWS: 1, "x": 1}}, UnknownResource),
    "nobody": ({"project": None}, InvalidRequest),
    "empty name": ({"project": ""}, InvalidRequest),
    "control character": ({"user": "a\n"}, InvalidRequest),
    "no connection": ({"connection": None}, InvalidRequest),
    "no real connection": ({"connection": object()}, InvalidRequest),
    "optimistic": ({"optimistic": 1}, InvalidRequest),
    "id of nothing": ({"id": "x"}, InvalidRequest),
    "parent of nothing": ({"parent": "x"}, InvalidRequest),
    "external id of nothing": ({"external_id": "x"}, InvalidRequest),
    "expires in of nothing": ({"expires_in": 5}, InvalidRequest),
    "parent": ({"resources": {"storage.gb": 1}, "parent": "x"}, UnknownClaim),
    "expires in": ({"resources": {"storage.gb": 1}, "expires_in": 0}, InvalidRequest),
    "in use": ({"resources": {ROWS: 1, "storage.gb": 1}, "id": "held"}, ClaimConflict),
    "no column": ({"resources": {"volumes": 1}, "user": "john"}, InvalidRequest),
}


@pytest.mark.parametrize("bad", _BAD_GUARDS)
@pytest.mark.parametrize("place", _ONE_EACH)
def test_bad_input_to_guard(
    place: Place, quota: Delimiter, volumes: sa.Engine, rows: Instances, bad: str
) -> None:
    quota.claim({"storage.gb": 5}, project="acme", id="held")
    quota.update_limits("volumes", user="john", max=5)
    given, error = _BAD_GUARDS[bad]
    before = [quota.usage(project="acme"), [claim.id for claim in quota.claims()]]
    with rows.engine.begin() as c:
        rows.add(c, "zeta")
        arguments = {"resources": {ROWS: 1}, "project": "acme", "connection": c, **given}
        with pytest.raises(error) as raised, quota.guard(arguments.pop("resources"), **arguments):
            pytest.fail("entered")
        assert len(str(raised.value)) > 10
        with quota.guard({ROWS: 1}, project="zeta", connection=c):  # the transaction goes on
            rows.add(c, "zeta")
    assert [quota.usage(project="acme"), [claim.id for claim in quota.claims()]] == before
    assert rows.sum_of() == 2
