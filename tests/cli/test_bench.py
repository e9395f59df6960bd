"""`delimiter bench`: every way is exact where it must be, nothing is left behind, and what is wrong is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Delimiter
from delimiter.bench.crew import MeasurementFailed
from delimiter.bench.ledgers import ConditionalUpdate
from delimiter.bench.measuring import measure
from delimiter.bench.plan import WAYS, Plan

from .conftest import COMMAND

FIGURE = {
    "group", "scenario", "callers", "processes", "resources", "projects", "depth", "claims", "flood", "way",
    "claims_per_second", "rounds", "ratio", "p50_ms", "p99_ms", "admitted", "refused", "undecided",
    "flood_refused_per_second", "client_cores", "contested", "contested_limit", "oversubscribed", "faults",
}  # fmt: skip
MACHINE = {
    "cpu", "cores", "system", "python", "delimiter", "sqlalchemy", "driver", "server", "durability", "kept",
    "weaknesses",
}  # fmt: skip


@pytest.fixture
def url(url: str) -> str:
    """With a journal that makes commits cheap."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL").close()
    return url


def tables_of(url: str) -> dict[str, int]:
    """Every table, with how many rows it has."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        return {
            name: connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
            for name in names
        }


def test_every_way_admits_up_to_the_limit_and_leaves_nothing(command, store_url):
    """The race for the last of a quota is part of each run.

    Without the condition of the conditional UPDATE more than the limit is admitted; on PostgreSQL and MariaDB also
    without the lock of SELECT FOR UPDATE, or the comparison of the generation. (SQLite has one writer, and whoever
    read before the last write fails.) The tests of ways that go wrong show what is said then.
    """
    with Delimiter(store_url) as quota:  # the tenant's own tables
        quota.define_resource("database.instances", user_max=25)
        quota.claim({"database.instances": 3}, user="john")
    before = tables_of(store_url)
    run = command(
        "bench", store_url, "--json", "--callers", "6", "--claims-per-round", "12", "--rounds", "1", "--spread", "0"
    )  # fmt: skip
    assert run.status == 0, run.err
    answer = run.json
    assert set(answer) == {"format", "machine", "plan", "figures", "left_out", "faults"}
    assert set(answer["machine"]) == MACHINE
    assert len(answer["machine"]["durability"]) > 1
    found = {figure["way"]: figure for figure in answer["figures"]}
    on_sqlite = store_url.startswith("sqlite")
    assert list(found) == [name for name in WAYS if not (on_sqlite and name == "select-for-update")]
    for name, figure in found.items():
        assert set(figure) == FIGURE
        assert (figure["admitted"], figure["refused"], figure["faults"]) == (12, 0, [])
        assert figure["claims_per_second"] == figure["rounds"][0] > 0
        assert figure["p50_ms"] <= figure["p99_ms"]
        if name == "single-row-commits":
            assert figure["contested"] is None
        elif name == "check-then-insert":
            assert figure["contested"] >= figure["contested_limit"] == 26
        else:
            assert figure["contested"] == figure["contested_limit"] == 26
            assert figure["oversubscribed"] == 0
    assert found["conditional-update"]["ratio"] == 1
    assert answer["faults"] == []
    assert answer["left_out"] == (["SELECT FOR UPDATE is left out: not on sqlite"] if on_sqlite else [])
    assert tables_of(store_url) == before


def test_every_kind_of_scenario_with_files(quota, url, tmp_path):
    chart, output = tmp_path / "bench.svg", tmp_path / "bench.json"
    run = quota(
        "bench", "--callers", "2", "--ways", "conditional-update,threads,compare-and-swap", "--depth", "3",
        "--claims", "20", "--flood", "--spread", "3", "--resources", "1", "--claims-per-round", "4", "--rounds", "2",
        "--processes", "1", "--seed", "7", "--chart", str(chart), "--output", str(output),
    )  # fmt: skip
    assert run.status == 0, run.err
    for words in (
        "2 callers",
        "3 projects",
        "3 levels",
        "20 claims",
        "beside a flood",
        "conditional UPDATE",
        "Seed 7",
    ):
        assert words in run.out
    assert "every counter agrees with what was admitted" in run.out
    assert "compare-and-swap over SUM is left out where projects are nested" in run.out
    answer = json.loads(output.read_text())
    found = [(figure["group"], figure["scenario"], figure["way"]) for figure in answer["figures"]]
    both = ("conditional-update", "threads")
    three = (*both, "compare-and-swap")
    assert found == [
        *(("hot", "2 callers", way) for way in three),
        *(("spread", "3 projects", way) for way in three),
        *(("depth", "3 levels", way) for way in both),
        *(("claims", "20 claims", way) for way in three),
        *(("flood", name, way) for name in ("neighbours alone", "beside a flood") for way in three),
    ]
    assert {figure["admitted"] for figure in answer["figures"]} == {8}, "four in each of two rounds"
    floods = [figure["flood_refused_per_second"] for figure in answer["figures"] if figure["flood"]]
    assert len(floods) == 3
    assert all(rate > 0 for rate in floods)
    assert ET.parse(chart).getroot().tag.endswith("svg")  # noqa: S314 - drawn here
    assert all(
        words in chart.read_text() for words in ("compare-and-swap over SUM", "levels of projects", "SQLite")
    )
    assert all(not name.startswith("bench_") for name in tables_of(url))


@pytest.mark.parametrize(
    "options, status, said",
    [
        (("--callers", "0"), 2, "callers must be between 1 and 10,000, not 0"),
        (("--callers", "many"), 2, "write for example 1,16,64"),
        (("--callers", ","), 2, "name at least one number of callers"),
        (("--processes", "0"), 2, "processes must be between 1 and 64"),
        (("--ways", "hope"), 2, "there is no way 'hope'; there are threads, asyncio"),
        (("--resources", "4"), 2, "resources must be between 1 and 3"),
        (("--rounds", "0"), 2, "rounds must be between 1 and 1,000"),
        (("--seconds", "0"), 2, "seconds must be above 0"),
        (("--depth", "0"), 2, "depth must be between 1 and 64"),
        (("--claims", "0"), 2, "claims must be between 1 and"),
        (("--spread", "-1"), 2, "spread must be between 0 and"),
        (("--connections", "0"), 2, "--connections"),
        (("--connections", "1"), 3, "1 connection to spare for 2 processes"),
        (("--chart", "nowhere/bench.svg"), 2, "there is no folder"),
        (("--output", "nowhere/bench.json"), 2, "there is no folder"),
        (("memory://",), 2, "a memory store has none of: name a database"),
        (("zookeeper://h1:2181/quota",), 2, "a zookeeper store has none of"),
        (("sqlite+aiosqlite:///quota.db",), 2, "asynchronous driver"),
        (("postgresql+psycopg://nobody@127.0.0.1:9/quota",), 3, "cannot be reached"),
        (("sqlite:///nowhere/quota.db",), 3, "there is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_measured_is_said(quota, url, options, status, said):
    before = tables_of(url)
    run = quota("bench", "--claims-per-round", "1", *options)
    assert run.status == status
    assert said.casefold() in run.err.casefold()
    assert tables_of(url) == before


def test_the_help_names_every_way(command):
    said = " ".join(command("bench", "--help").out.split())
    assert f"Only these ways: {', '.join(WAYS)}." in said


def test_without_a_store(command):
    run = command("bench")
    assert run.status == 2
    assert "Which store?" in run.err


def test_without_matplotlib_nothing_is_measured(quota, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    run = quota("bench", "--chart", "bench.svg")
    assert run.status == 2
    assert "pip install 'delimiter[bench]'" in run.err
    assert not Path("bench.svg").exists()


def test_ctrl_c_leaves_nothing_behind(url):
    before = tables_of(url)
    process = subprocess.Popen(
        [COMMAND, "bench", url, "--ways", "conditional-update", "--seconds", "600", "--callers", "2"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and not _has_claimed(tables_of(url)):
            Event().wait(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to everybody
        _, complaints = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, complaints.strip()) == (130, "")
    assert tables_of(url) == before


def _has_claimed(tables: dict[str, int]) -> bool:
    return any(
        rows for name, rows in tables.items() if name.startswith("bench_") and name.endswith("amounts")
    )


class Careless(ConditionalUpdate):
    """It takes what it wants, whatever the limit says."""

    name = title = "careless"

    def prepare(self) -> None:
        super().prepare()
        c = self.counters.c
        self._take = (
            sa.update(self.counters)
            .where(c.resource == sa.bindparam("r"), c.scope == sa.bindparam("s"))
            .values(used=c.used + sa.bindparam("n"))
        )


class Forgetful(ConditionalUpdate):
    """It says yes, and does nothing."""

    name = title = "forgetful"

    def attempt(self, number: int, scopes: list[str]) -> bool:
        return True


class CountingTwice(ConditionalUpdate):
    """What it counts is twice what it holds."""

    name = title = "counting twice"

    def prepare(self) -> None:
        super().prepare()
        self._take = self._take.values(used=self.counters.c.used + 2 * sa.bindparam("n"))


class EmptyHanded(ConditionalUpdate):
    """Its claims hold nothing."""

    name = title = "empty-handed"

    def insert(self, connection: sa.Connection, number: int) -> None:
        super().insert(connection, number)
        connection.execute(sa.delete(self.amounts))


class Broken(ConditionalUpdate):
    name = title = "broken"

    def attempt(self, number: int, scopes: list[str]) -> bool:
        raise RuntimeError("the disk is on fire")


class Dying(ConditionalUpdate):
    name = title = "dying"

    def attempt(self, number: int, scopes: list[str]) -> bool:
        os._exit(3)


def _measured(url: str, *ways: Any, resources: int = 3) -> Any:
    plan = Plan(
        url, callers=[2], processes=1, rounds=1, spread=0, claims_per_round=2, ways=ways, resources=resources
    )
    return measure(plan, told=lambda **_: None)


def test_a_way_that_passes_a_limit_or_counts_wrong_is_shown(url):
    """Guards: ``Figure.check``, which holds the tables against what the callers were told, and ``_Ledger.faults``."""
    faults = _measured(url, Careless, Forgetful).faults
    assert faults == [
        "careless, 2 callers: 3 counters are over their limits",
        "careless, 2 callers: 33 of 22 were admitted of a project that more was asked of",
        "forgetful, 2 callers: 35 claims were admitted, 0 are there",
        "forgetful, 2 callers: 0 of 22 were admitted of a project that more was asked of",
    ]


def test_a_way_that_counts_or_holds_something_else_is_shown(url):
    """Guards: ``_Ledger.faults`` for what is counted, ``HandWritten.count`` for what is held."""
    faults = _measured(url, CountingTwice, EmptyHanded, resources=1).faults
    assert sorted(faults) == [
        "counting twice, 2 callers: 11 of 22 were admitted of a project that more was asked of",
        "counting twice, 2 callers: 26 bench.cores counted of all proj…, 13 claimed",
        "counting twice, 2 callers: 26 bench.cores counted of all user…, 13 claimed",
        "empty-handed, 2 callers: 0 held by 24 claims",
    ]


def test_a_way_that_does_not_work_ends_the_run(url):
    before = tables_of(url)
    with pytest.raises(MeasurementFailed, match="broken failed: RuntimeError: the disk is on fire"):
        _measured(url, Broken)
    with pytest.raises(MeasurementFailed, match=r"ended by itself \(exit status 3\)"):
        _measured(url, Dying)
    assert tables_of(url) == before
