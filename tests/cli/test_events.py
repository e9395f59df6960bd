"""``events``: a list of what has happened, and a follower that misses nothing and says nothing twice."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import pytest

from delimiter import Delimiter

from .conftest import COMMAND


@pytest.fixture
def eventful(url):
    """amrith's limit (event 1) is there already; acme is set over quota, and comes back."""
    with Delimiter(url) as quota:
        quota.claim({"storage.gb": 80}, project="acme", id="volume")
        quota.update_limits("storage.gb", project="acme", max=50)
        quota.release("volume")
        quota.update_limits("storage.gb", max=9000)
        quota.define_resource("storage.gb", user_max=10_000, unit="GB", description="Volumes")
    return url


def without_times(text: str) -> list[str]:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", text).splitlines()


def test_for_people(quota, eventful):
    run = quota("events")
    assert (run.status, run.err) == (0, "")
    assert without_times(run.out) == [
        "     1  TIME  limit changed      database.instances of user amrith: 2, was 25 (0 used)",
        "     2  TIME  limit changed      storage.gb of project acme: 50, was unlimited (80 used)",
        "     3  TIME  over quota         storage.gb of project acme: 80 used, the limit is 50",
        "     4  TIME  back within quota  storage.gb of project acme: 0 used, the limit is 50",
        "     5  TIME  limit changed      storage.gb of the whole deployment: 9,000, was unlimited (0 used)",
        "     6  TIME  limit changed      storage.gb of each user: 10,000, was 20,000",
    ]
    assert without_times(quota("events", "--after", "5").out) == without_times(run.out)[5:]
    assert quota("events", "--after", "6").out == "Nothing after 6.\n"


def test_for_programs(quota, eventful):
    run = quota("events", "--json")
    assert run.status == 0
    found = run.json
    assert [(one["seq"], one["kind"], one["scope"]) for one in found] == [
        (1, "limit_changed", "user:amrith"),
        (2, "limit_changed", "project:acme"),
        (3, "over_quota", "project:acme"),
        (4, "back_within_quota", "project:acme"),
        (5, "limit_changed", "total"),
        (6, "limit_changed", "user:*"),
    ]
    assert datetime.fromisoformat(found[0].pop("at")).utcoffset() is not None
    assert found[0] == {
        "seq": 1,
        "kind": "limit_changed",
        "resource": "database.instances",
        "scope": "user:amrith",
        "limit": 2,
        "previous_limit": 25,
        "used": 0,
    }
    assert found[5]["used"] is None
    assert quota("events", "--after", "6", "--json").json == []
    lines = run.out.splitlines()
    assert [json.loads(line.rstrip(","))["seq"] for line in lines[1:-1]] == [1, 2, 3, 4, 5, 6]


def test_nothing_yet(command, tmp_path):
    store = f"sqlite:///{tmp_path / 'bare.db'}"
    Delimiter(store).prepare()
    assert command("--store", store, "events").out == "Nothing yet.\n"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--after", "-1"), "-1"),
        (("--after", "yesterday"), "yesterday"),
        (("--follow", "--after"), "--after"),
        (("everything",), "everything"),
    ],
    ids=" ".join,
)
def test_bad_input(quota, arguments, says):
    run = quota("events", *arguments, "--json")
    assert run.status == 2
    assert run.error["kind"] == "UsageError"
    assert says in run.error["message"]


def test_names_are_shown_safely(quota):
    quota("limit", "set", "storage.gb", "--user", "[red]x\u202e[/red]", "--max", "1")
    run = quota("events")
    assert "user [red]x\\u202e[/red]" in run.out
    assert "\u202e" not in run.out


# --- following ------------------------------------------------------------------------------------


@contextmanager
def following(url: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [COMMAND, "--store", url, "events", "--follow", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.endswith("\n"), process.stderr.read() if process.stderr else ""
    return line


def test_it_goes_on_and_ends_with_ctrl_c(eventful):
    with following(eventful, "--after", "4") as process, Delimiter(eventful) as quota:
        assert "9,000, was unlimited" in next_line(process)
        assert "each user" in next_line(process)
        quota.update_limits("storage.gb", user="john", max=7)
        assert "storage.gb of user john: 7, was 10,000 (0 used)" in next_line(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert not out
    assert "Traceback" not in err


def test_without_a_number_it_begins_with_what_comes(eventful):
    with following(eventful, "--json") as process, Delimiter(eventful) as quota:
        out = process.stdout
        assert out is not None
        # When it has begun cannot be seen from outside, so something happens until it says so.
        for limit in range(100, 400):
            quota.update_limits("storage.gb", user="john", max=limit)
            if select.select([out], [], [], 0.1)[0]:
                break
        assert json.loads(next_line(process))["seq"] > 6


def test_a_killed_follower_goes_on_where_it_was(eventful):
    """Each event is seen by one of the two, and none by both: the second is told the last that was seen."""
    made = 60
    with following(eventful, "--after", "0", "--json") as process, Delimiter(eventful) as quota:
        for limit in range(made // 2):
            quota.update_limits("storage.gb", user="john", max=limit)
        seen = [json.loads(next_line(process))["seq"] for _ in range(10)]
        process.kill()
        # What it wrote before it died is read to the end, as whoever restarts it would.
        rest = process.stdout.read() if process.stdout else ""
        seen += [json.loads(line)["seq"] for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        for limit in range(made // 2, made):
            quota.update_limits("storage.gb", user="john", max=limit)
    with following(eventful, "--after", str(seen[-1]), "--json") as process:
        while seen[-1] < 6 + made:
            seen.append(json.loads(next_line(process))["seq"])
    assert seen == list(range(1, 6 + made + 1))


def test_a_reader_that_has_gone_ends_it(eventful):
    with following(eventful, "--after", "5", "--json") as process, Delimiter(eventful) as quota:
        next_line(process)
        assert process.stdout is not None
        process.stdout.close()
        for limit in range(300):
            quota.update_limits("storage.gb", user="john", max=limit)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
                break
        assert process.returncode in {141, -signal.SIGPIPE}
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_line_is_whole_on_a_narrow_terminal(eventful):
    environment = {**os.environ, "COLUMNS": "30"}
    with following(eventful, "--after", "2", env=environment) as process:
        assert "storage.gb of project acme: 80 used, the limit is 50" in next_line(process)


def test_a_store_that_does_not_answer_for_a_while_is_told(url, monkeypatch, capsys):
    """The follower stays; people are told on the error stream, without passwords."""
    import logging

    from delimiter.cli.events import _Warnings
    from delimiter.cli.session import Session

    for as_json in (False, True):
        session = Session()
        session.as_json = as_json
        session.named_store = "postgresql+psycopg://bob:sEcr3t@host/x"
        record = logging.LogRecord("delimiter", logging.WARNING, "", 0, "no answer: %s", ("sEcr3t",), None)
        _Warnings(session).emit(record)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "no answer: ***"
    assert json.loads(second) == {"warning": "no answer: ***"}
