"""``delimiter reconcile --listing`` and ``delimiter adopt``: from files, with a report, again and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
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
        "young": 0,
        "refusals": 0,
    }
    text = quota("adopt", volumes).out
    assert "0 things claimed, 3 known already" in text
    quota("limit", "set", "storage.gb", "--user", "mary", "--max", "5")
    assert quota("adopt", volumes, "--json").json["over_quota"] == [], "nothing was charged to her now"
    Path(volumes).write_text(HEAD + "v4,mary,1\n")
    over = {"resource": "storage.gb", "scope": "user:mary", "limit": 5, "used": 31}
    assert quota("adopt", volumes, "--json").json["over_quota"] == [over]
    Path(volumes).write_text(HEAD + "v5,mary,1\n")
    assert "over by" in quota("adopt", volumes).out


def test_adopt_leaves_alone_what_is_young(quota):
    now = datetime.now(UTC).isoformat()
    Path("young.csv").write_text(f"external_id,user,created_at,storage.gb\nv1,john,{now},10\nv2,john,,5\n")
    assert "1 thing claimed, 0 known already, 1 too young yet" in quota("adopt", "young.csv").out
    assert quota("adopt", "young.csv", "--grace", "0", "--json").json["claimed"] == 1


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
        (("adopt", "volumes.csv", "--grace", "soon"), "'soon'"),
        (("reconcile", "--most-orphaned", "5"), "go with --listing"),
        (("reconcile", "--listing", "volumes.csv", "--most-orphaned", "101"), "--most-orphaned"),
        (("reconcile", "--listing", os.fsdecode(b"v\xe4.csv")), "is listed twice: v\\udce4.csv:2"),
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
    for name in ("twice.csv", os.fsdecode(b"v\xe4.csv")):
        Path(name).write_text(HEAD + "v1,john,1\nv1,john,1\n")
    Path("unknown.csv").write_text("external_id,user,storage.gbs\nv1,john,1\n")
    run = quota(*arguments)
    assert (run.status, run.out) == (2, "")
    assert told in " ".join(run.err.split())
    assert quota("claims", "--json").json == []


def test_reconcile_with_a_listing(quota, adopted, tmp_path):
    assert "every claim agrees with the listing" in quota("reconcile", "--listing", adopted).out
    Path(adopted).write_text(HEAD + "v1,john,11\nv3,john,30\nv4,john,5\n")
    written(adopted, timedelta(minutes=-5))  # from the future: as old as nothing
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


def written(file: str, ago: timedelta) -> None:
    then = time.time() - ago.total_seconds()
    os.utime(file, (then, then))


def test_a_stale_listing_ends_nothing_that_is_newer(quota, adopted):
    """Written two hours ago; the claims were made since, and it cannot know them."""
    Path(adopted).write_text(HEAD + "v1,john,11\n")
    written(adopted, timedelta(hours=2, seconds=5))
    run = quota("reconcile", "--listing", adopted, "--grace", "0", "--repair")
    assert run.status == 0
    assert "The listing is 2 h old; what was made or changed since is left alone" in run.out
    assert "every claim agrees with the listing" in run.out
    assert len(quota("claims", "--json").json) == 3
    written(adopted, timedelta(minutes=-5))
    run = quota("reconcile", "--listing", adopted, "--grace", "0", "--repair")
    assert "1 amount, 2 orphaned" in run.out
    assert "old" not in run.out


def test_a_listing_cut_short_ends_nothing(quota, volumes):
    lines = [f"v{number},john,1\n" for number in range(40)]
    Path(volumes).write_text(HEAD + "".join(lines))
    assert quota("adopt", volumes).status == 0
    Path(volumes).write_text(HEAD + "".join(lines[:20]))
    written(volumes, timedelta(minutes=-5))
    arguments = ("reconcile", "--listing", volumes, "--grace", "0")
    assert "20 orphaned" in quota(*arguments).out
    run = quota(*arguments, "--repair", "--json")
    assert (run.status, run.error["kind"]) == (2, "InvalidRequest")
    assert "20 of 40 claims (50.0%) are not in the listing" in run.error["message"]
    assert "at most 20%" in run.error["message"]
    assert "--most-orphaned" in run.error["advice"]
    assert quota(*arguments, "--repair", "--most-orphaned", "49.9").status == 2
    assert len(quota("claims", "--json").json) == 40
    assert quota(*arguments, "--repair", "--most-orphaned", "50").status == 0
    assert len(quota("claims", "--json").json) == 20


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
    assert len(report.read_text().splitlines()) >= 2, "the third may be stopped before it is written down"


def test_a_bad_line_does_not_end_what_is_repeated(url, adopted):
    """But what is wrong at the first run does: it may be the command line."""
    arguments = ["reconcile", "--store", url, "--every", "10ms", "--listing", adopted, "--json"]
    good = Path(adopted).read_text()

    def replaced(text: str) -> None:
        Path("beside.csv").write_text(text)
        Path("beside.csv").replace(adopted)

    with subprocess.Popen(
        [COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "[]\n"
        replaced(HEAD + "v1,john,ten\n")
        assert "volumes.csv:2: the amount of storage.gb" in json.loads(process.stderr.readline())["warning"]
        replaced(good + "v9,john,1\n")
        assert any('"v9"' in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
    replaced(HEAD + "v1,john,ten\n")
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
