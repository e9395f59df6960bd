"""``delimiter reconcile --listing`` and ``delimiter adopt``: from files, with a report, again and again."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import COMMAND

HEAD = "external_id,user,storage.gb\n"


@pytest.fixture
def volumes(tmp_path: Path) -> str:
    file = tmp_path / "volumes.csv"
    file.write_text(HEAD + "v1,john,10\nv2,john,20\nv3,mary,30\n")
    return str(file)


@pytest.fixture
def adopted(quota, volumes):
    assert quota("adopt", volumes).status == 0
    return volumes


def test_adopt(quota, volumes):
    assert quota("adopt", volumes, "--json").json == {
        "claimed": 3,
        "known": 0,
        "refused": {},
        "over_quota": [],
    }
    text = quota("adopt", volumes).out
    assert "0 things claimed, 3 known already" in text
    quota("limit", "set", "storage.gb", "--user", "mary", "--max", "5")
    over = {"resource": "storage.gb", "scope": "user:mary", "limit": 5, "used": 30}
    assert quota("adopt", volumes, "--json").json["over_quota"] == [over]
    assert "over by" in quota("adopt", volumes).out


def test_adopt_tells_what_was_refused(quota, volumes):
    Path(volumes).write_text(HEAD + f"v1,john,10\nv2,john,{2**63 - 1}\n")
    run = quota("adopt", volumes, "--json")
    assert run.status == 1
    assert (run.json["claimed"], list(run.json["refused"])) == (1, ["v2"])
    assert "v2: storage.gb" in quota("adopt", volumes).out


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("adopt", "nothing.csv"), "does not exist"),
        (("adopt", "bad.csv"), "bad.csv:2: the amount of storage.gb must be a whole number"),
        (("adopt", "unknown.csv"), "resource 'storage.gbs' is defined"),
        (("adopt", "volumes.csv", "--batch", "0"), "--batch"),
        (("reconcile", "--listing", "bad.csv"), "bad.csv:2"),
        (("reconcile", "--listing", "twice.csv"), "'v1' is listed twice: twice.csv:2 and twice.csv:3"),
        (("reconcile", "--grace", "5m"), "go with --listing"),
        (("reconcile", "--resource", "storage.gb"), "go with --listing"),
        (("reconcile", "--every", "0"), "above 0"),
        (("reconcile", "--report", "nowhere/report"), "nowhere/report: No such file"),
        (("reconcile", "--listing", "volumes.csv", "--resource", "storage"), "resource 'storage'"),
    ],
)
def test_bad_input(quota, volumes, arguments, told):
    Path("bad.csv").write_text(HEAD + "v1,john,ten\n")
    Path("twice.csv").write_text(HEAD + "v1,john,1\nv1,john,1\n")
    Path("unknown.csv").write_text("external_id,user,storage.gbs\nv1,john,1\n")
    run = quota(*arguments)
    assert (run.status, run.out) == (2, "")
    assert told in " ".join(run.err.split())
    assert quota("claims", "--json").json == []


def test_reconcile_with_a_listing(quota, adopted, tmp_path):
    assert "every claim agrees with the listing" in quota("reconcile", "--listing", adopted).out
    Path(adopted).write_text(HEAD + "v1,john,11\nv3,john,30\nv4,john,5\n")
    report = tmp_path / "report.jsonl"
    young = quota("reconcile", "--listing", adopted, "--report", str(report)).out
    assert "not as the listing says: 1 missing" in young, "the claims are younger than the grace"
    run = quota("reconcile", "--listing", adopted, "--grace", "0")
    assert run.status == 1
    for words in ("1 amount, 1 missing, 1 orphaned, 1 owner", "storage.gb 10", "--repair --listing"):
        assert words in run.out
    mended = quota(
        "reconcile", "--listing", adopted, "--grace", "0", "--repair", "--report", str(report), "--json"
    )
    assert mended.status == 0
    assert [(one["kind"], one["external_id"], one["repaired"]) for one in mended.json] == [
        ("orphaned", "v2", True),
        ("amount", "v1", True),
        ("owner", "v3", True),
        ("missing", "v4", True),
    ]
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line.get("kind") for line in lines] == [
        "missing",
        None,
        "orphaned",
        "amount",
        "owner",
        "missing",
        None,
    ]
    assert (lines[-1]["mismatches"], lines[-1]["repaired"]) == (4, 4)
    assert all("at" in line for line in lines)
    again = quota("reconcile", "--listing", adopted, "--grace", "0")
    assert (again.status, again.out.count("✓")) == (0, 2)


def test_many_mismatches_are_counted(quota, volumes):
    Path(volumes).write_text(HEAD + "".join(f"v{n},john,1\n" for n in range(25)))
    run = quota("reconcile", "--listing", volumes)
    assert "and 5 more; --report FILE keeps them all" in run.out


def test_again_and_again_until_it_is_stopped(url, adopted, tmp_path):
    report = tmp_path / "report.jsonl"
    arguments = [
        "reconcile",
        "--store",
        url,
        "--every",
        "10ms",
        "--listing",
        adopted,
        "--report",
        report,
        "--json",
    ]
    process = subprocess.Popen(
        [COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "[]\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, "")
    assert len(report.read_text().splitlines()) >= 2  # the third run may have been stopped before its line
