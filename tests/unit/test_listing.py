"""Listings: what may be said in one, and what is told of each mistake."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Delimiter, Existing, InvalidRequest, UnknownResource
from delimiter.listing import parse, read, rows, tables

HEAD = "external_id,project,user,created_at,storage.gb,cores\n"


def test_a_file_is_read_line_by_line(tmp_path):
    at = datetime(2026, 1, 31, 10, tzinfo=UTC)
    expected = [
        Existing("vol 1", {"storage.gb": 10}, project="acme", created_at=at),
        Existing("vol,2", {"cores": 2, "storage.gb": 1}, project="acme", user="john"),
        Existing("vol\u20133", {"cores": 9}, user="mary", created_at=at),
    ]
    plain = tmp_path / "list.csv"
    lines = [
        "vol 1,acme,,2026-01-31T10:00:00Z,10,",
        '"vol,2",acme,john,,1, 2',
        "",
        "vol–3,,mary,2026-01-31 11:00+01:00,0,9",
    ]
    plain.write_text("\ufeff" + HEAD + "\r\n".join(lines), encoding="utf-8")
    assert list(read(plain)) == expected
    objects = tmp_path / "list.jsonl"
    objects.write_text(
        "\n\n".join(
            json.dumps(
                {
                    "external_id": one.external_id,
                    "project": one.project,
                    "user": one.user,
                    "created_at": one.created_at.isoformat() if one.created_at else None,
                    "resources": {**one.resources, "ram": 0},
                }
            )
            for one in expected
        )
    )
    assert list(read(objects)) == expected
    assert [one.place for one in read(plain)] == [f"{plain}:{line}" for line in (2, 3, 5)]


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "is empty: its first line names the columns"),
        ("id,project,cores\n", ":1: no column external_id"),
        ("external_id,cores\n", ":1: no column project and none user"),
        ("external_id,project\n", ":1: no column for a resource"),
        ("external_id,project,cores,cores\n", ":1: two columns are called 'cores'"),
        ("external_id,project,,cores\n", ":1: a column without a name"),
        (HEAD + "v,acme,john\n", ":2: 3 cells, but the first line names 6"),
        (HEAD + "v,acme,,,1,1\n,acme,,,1,1\n", ":3: external_id must be a string"),
        (HEAD + "v,,,,1,1\n", ":2: 'v' belongs to nobody"),
        (HEAD + "v,acme,,,1.5,1\n", ":2: the amount of storage.gb must be a whole number, not '1.5'"),
        (HEAD + "v,acme,,,-1,1\n", ":2: the amount of storage.gb must be a whole number, not '-1'"),
        (HEAD + "v,acme,,,9223372036854775808,1\n", ":2: the amount of storage.gb must be from 1"),
        (HEAD + "v,acme,,,,0\n", ":2: it holds nothing"),
        (HEAD + "v,acme,,yesterday,1,1\n", ":2: created_at must be a time like"),
        (HEAD + '"v\nw",acme,,,1,1\n', ":2: external_id contains the control character"),
        (HEAD + f"{'v' * 256},acme,,,1,1\n", ":2: external_id has 256 characters"),
        (HEAD + 'v,acme,,,1,1\n"v,acme', ":3: no CSV"),
        (HEAD + '"v"w,acme,,,1,1\n', ":2: no CSV"),
    ],
)
def test_mistakes_in_a_csv_file_are_told_with_their_line(text, told):
    with pytest.raises(InvalidRequest) as refused:
        list(parse(text.splitlines(keepends=True), name="list.csv"))
    assert str(refused.value).startswith("list.csv")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "line, told",
    [
        ("{", "no JSON"),
        ("[1]", "a JSON object must stand here"),
        (
            '{"external_id": "v", "project": "p", "resources": {"a": 1}, "size": 1}',
            "unknown key 'size'; known are",
        ),
        ('{"project": "p", "resources": {"a": 1}}', "external_id must be a string"),
        ('{"external_id": 7, "project": "p", "resources": {"a": 1}}', "external_id must be a string"),
        ('{"external_id": "v", "project": "p"}', "resources must be a mapping"),
        ('{"external_id": "v", "project": "p", "resources": {}}', "it holds nothing"),
        ('{"external_id": "v", "project": "p", "resources": {"a": 1.0}}', "must be a whole number"),
        ('{"external_id": "v", "project": "p", "resources": {"a": false}}', "must be a whole number"),
        ('{"external_id": "v", "project": 3, "resources": {"a": 1}}', "project must be a string"),
        (
            '{"external_id": "v", "project": "p", "created_at": 5, "resources": {"a": 1}}',
            "created_at must be a time",
        ),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_mistakes_in_json_lines_are_told_with_their_line(line, told):
    right = '{"external_id": "u", "user": "u", "resources": {"a": 1}}\n'
    with pytest.raises(InvalidRequest) as refused:
        list(parse([right, line], name="list.jsonl"))
    assert str(refused.value).startswith("list.jsonl:2: ")
    assert told in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        list(read(tmp_path / "nothing.csv"))
    for name in ("latin.csv", "latin.jsonl"):
        latin = tmp_path / name
        latin.write_bytes(b"external_id,project,cores\nv\xe4,acme,1\n")
        with pytest.raises(InvalidRequest, match="not UTF-8"):
            list(read(latin))


_RIGHT = '{"external_id": "u", "user": "u", "resources": {"a": 1}}\n'


@pytest.mark.parametrize(
    "name, begin, piece, line",
    [
        ("head.csv", "", "x" * 1_000_000, 1),
        ("cells.csv", HEAD + "v,acme,,,1,1\n", ",y" * 500_000, 3),
        ("record.csv", HEAD, '"' + "x\n" * 50_000 + '",', 2),
        ("line.jsonl", _RIGHT, "[" * 1_000_000, 2),
        ("blank.jsonl", _RIGHT, " " * 1_000_000, 2),
    ],
)
def test_a_line_of_any_length_is_refused_in_little_memory(tmp_path, name, begin, piece, line):
    """150 MB in one line, or in one record of many lines; read as a whole it took that at least."""
    file = tmp_path / name
    with file.open("w") as writing:
        writing.write(begin)
        writing.writelines(piece for _ in range(150_000_000 // len(piece)))
    told = f"{file}:{line}: longer than 1,048,576 characters; a listing has a line for each thing"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match=f"^{re.escape(told)}$"):
            list(read(file))
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
        file.unlink()


def test_a_listing_names_so_many_resources_at_most():
    names = [f"r{number}" for number in range(1001)]
    with pytest.raises(InvalidRequest, match=r"list.csv:1: 1,001 columns; at most 1,000 are read"):
        list(parse([",".join(["external_id", "user", *names[:-2]])], name="list.csv"))
    thing = {"external_id": "v", "user": "u", "resources": dict.fromkeys(names, 1)}
    with pytest.raises(InvalidRequest, match=r"list.jsonl:1: 1,001 resources; at most 1,000 are read"):
        list(parse([json.dumps(thing)], name="list.jsonl"))
    assert len(list(parse([",".join(["external_id", "user", *names[:998]])]))) == 0


def test_a_file_name_may_be_any_bytes(tmp_path):
    file = tmp_path / os.fsdecode(b"v\xe4.csv")
    file.write_text("external_id,user,cores\nv1,u,1\nv1,u,1\n")
    with Delimiter("memory://") as quota:
        quota.define_resource("cores")
        with pytest.raises(InvalidRequest, match=r"is listed twice: .*v.udce4.csv:2 and .*v.udce4.csv:3"):
            quota.adopt(lambda: read(file))
        file.write_text("external_id,user,cores\nv1,u,1\n")
        assert quota.adopt(lambda: read(os.fsencode(file))).claimed == 1  # type: ignore[arg-type]
    file.unlink()
    with pytest.raises(InvalidRequest, match=r"v.udce4.csv cannot be read") as refused:
        list(read(file))
    str(refused.value).encode()


def test_a_time_without_an_offset_is_in_utc():
    naive = datetime(2026, 1, 31, 10)  # noqa: DTZ001
    assert Existing("v", {"a": 1}, user="u", created_at=naive).created_at == naive.replace(tzinfo=UTC)
    there = datetime(2026, 1, 31, 10, tzinfo=timezone(timedelta(hours=5)))
    assert Existing("v", {"a": 1}, user="u", created_at=there).created_at is there


@pytest.fixture
def service():
    engine = sa.create_engine("sqlite://")
    metadata = sa.MetaData()
    volumes = sa.Table(
        "volumes",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String(20)),
        sa.Column("size", sa.Numeric(10, 0)),
        sa.Column("made", sa.DateTime),
        sa.Column("gone", sa.Boolean),
    )
    metadata.create_all(engine)
    at = datetime(2026, 1, 31, 10)  # noqa: DTZ001
    with engine.begin() as connection:
        connection.execute(
            sa.insert(volumes),
            [
                {"id": n, "owner": f"u{n}", "size": size, "made": at, "gone": gone}
                for n, size, gone in (
                    (1, 10, False),
                    (2, 0, False),
                    (3, None, False),
                    (4, 5, True),
                    (5, 7, False),
                )
            ],
        )
    yield engine, volumes
    engine.dispose()


@pytest.mark.filterwarnings("ignore:Dialect sqlite")
def test_rows_of_a_table(service):
    engine, volumes = service
    c = volumes.c
    expected = [("1", 10), ("5", 7)]
    columns = {"id": c.id, "user": c.owner, "created_at": c.made, "where": c.gone.is_(False)}
    listing = rows(engine, resources={"storage.gb": c.size}, **columns)
    found = list(listing())
    for one in (found, list(listing())):  # each call asks anew
        assert [(thing.external_id, thing.resources["storage.gb"]) for thing in one] == expected
    assert (found[0].user, found[0].created_at) == ("u1", datetime(2026, 1, 31, 10, tzinfo=UTC))
    with engine.connect() as connection:
        counted = rows(connection, resources={"storage.volumes": sa.literal(1)}, id=c.id, project=c.owner)
        assert len(list(counted())) == 5
    with pytest.raises(InvalidRequest, match="row 1: '1' belongs to nobody"):
        list(rows(engine, id=c.id, user=sa.null(), resources={"storage.gb": c.size})())
    wrong: Any
    for wrong in (
        sa.literal("10 GB"),
        sa.literal(1.5),
        sa.literal("NaN").cast(sa.Text),
        sa.literal_column("9e999"),
    ):
        with pytest.raises(
            InvalidRequest, match=r"row 1: the amount of storage\.gb must be a whole number, not"
        ):
            list(rows(engine, id=c.id, user=c.owner, resources={"storage.gb": wrong})())
    with pytest.raises(InvalidRequest, match="whose are they"):
        rows(engine, id=c.id, resources={"storage.gb": c.size})
    with pytest.raises(InvalidRequest, match="at least one resource"):
        rows(engine, id=c.id, user=c.owner, resources={})
    with pytest.raises(InvalidRequest, match="Engine, Connection or Session"):
        list(rows("sqlite://", id=c.id, user=c.owner, resources={"storage.gb": c.size})())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "amount", [float("nan"), Decimal("NaN"), Decimal("Infinity"), Decimal("1.5"), "10", b"1"]
)
def test_an_amount_that_is_no_whole_number(amount):
    with pytest.raises(InvalidRequest, match="row v1: the amount of cores must be a whole number, not"):
        tables._existing(SimpleNamespace(external_id="v1", user="u", amount0=amount), ("cores",))


ONE = Existing("v1", {"cores": 1}, user="u")
TWICE = list(parse(["external_id,user,cores", "v1,u,1", "v2,u,1", "v1,u,2"]))


@pytest.mark.parametrize(
    "listing, error, told",
    [
        ([ONE, ONE], InvalidRequest, "'v1' is listed twice: entry 1 and entry 2"),
        (TWICE, InvalidRequest, "listing.csv:2 and listing.csv:4"),
        ([ONE, {"external_id": "v2"}], InvalidRequest, "entry 2 is a dict"),
        (7, InvalidRequest, "a listing is an iterable of delimiter.Existing"),
        ([Existing("v1", {"coers": 1}, user="u")], UnknownResource, "'coers'"),
    ],
)
@pytest.mark.parametrize("verb", ["reconcile_with", "adopt"])
def test_a_bad_listing_changes_nothing(listing, error, told, verb):
    with Delimiter("memory://") as quota:
        quota.define_resource("cores")
        claim = quota.claim({"cores": 1}, user="u", id="gone")
        options = {"repair": True, "grace": 0} if verb == "reconcile_with" else {}
        with pytest.raises(error, match=told):
            getattr(quota, verb)(listing, **options)
        assert list(quota.claims()) == [claim]


@pytest.mark.parametrize(
    "options, error, told",
    [
        ({"resources": ["coers"]}, UnknownResource, "'coers'"),
        ({"resources": "cores"}, InvalidRequest, "must be a list of names"),
        ({"resources": []}, InvalidRequest, "must be a list of names"),
        ({"grace": -1}, InvalidRequest, "grace must be above 0"),
        ({"most_orphaned": 1.1}, InvalidRequest, "most_orphaned must be a share from 0 to 1"),
        ({"most_orphaned": float("nan")}, InvalidRequest, "most_orphaned must be a share"),
        ({"most_orphaned": True}, InvalidRequest, "most_orphaned must be a share"),
        ({"most_orphaned": "20%"}, InvalidRequest, "most_orphaned must be a share"),
        ({"listing": []}, InvalidRequest, "the listing is empty: name the resources"),
        ({"listing": list}, InvalidRequest, "the listing is empty: name the resources"),
    ],
)
def test_bad_requests_change_nothing(options, error, told):
    with Delimiter("memory://") as quota:
        quota.define_resource("cores")
        claim = quota.claim({"cores": 1}, user="u")
        with pytest.raises(error, match=told):
            quota.reconcile_with(**{"listing": [ONE], "repair": True, "grace": 0, **options})
        assert list(quota.claims()) == [claim]
        batches: list[Any] = [0, 5001, True, "1"]
        for batch in batches:
            with pytest.raises(InvalidRequest, match="batch"):
                quota.adopt([ONE], batch=batch)


def test_of_an_empty_listing_with_named_resources_everything_is_orphaned():
    with Delimiter("memory://") as quota:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="u")
        found = list(quota.reconcile_with([], resources=["cores"], repair=True, grace=0))
        assert [one.kind for one in found] == ["orphaned"]
        assert list(quota.claims()) == []
