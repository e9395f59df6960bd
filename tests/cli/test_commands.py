"""Each command does what its verb in the library does; with ``--json`` it prints what the library returns."""

from __future__ import annotations

import json
from datetime import datetime

import click
import pytest

from delimiter import Delimiter
from delimiter.cli import main

COMMANDS = (
    "demo",
    "resource define",
    "resource undefine",
    "resource list",
    "limit set",
    "limit unset",
    "limit show",
    "usage",
    "check",
    "claim",
    "reserve",
    "provision",
    "renew",
    "resize",
    "transfer",
    "release",
    "expire",
    "claims",
    "prune",
    "reconcile",
    "doctor",
)


def all_commands(group: click.Group, prefix: str = "") -> set[str]:
    found = set()
    for name, command in group.commands.items():
        full = f"{prefix}{name}"
        found |= all_commands(command, f"{full} ") if isinstance(command, click.Group) else {full}
    return found


def test_no_command_is_forgotten_here():
    assert all_commands(main) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_the_options_of_every_command(command, name):
    run = command(*name.split(), "--help")
    assert run.status == 0
    assert f"  delimiter {name}" in run.out
    assert all(option in run.out for option in ("--store", "--json", "--timeout"))


@pytest.mark.parametrize("name", ["resource", "limit"])
def test_help_of_groups(command, name):
    run = command(name, "--help")
    assert run.status == 0
    assert f"  delimiter {name} " in run.out


def test_help_names_every_command(command):
    run = command("--help")
    assert run.status == 0
    assert all(name.split()[0] in run.out for name in COMMANDS)


# --- definitions and limits -----------------------------------------------------------------------


def test_the_first_definition_makes_the_store(command, tmp_path):
    store = f"sqlite:///{tmp_path / 'new.db'}"
    run = command(
        "--store", store, "resource", "define", "storage.gb", "--unit", "GB", "--user-max", "20TB", "--json"
    )
    assert run.status == 0
    assert run.json == {
        "name": "storage.gb",
        "service": "storage",
        "max": -1,
        "min": 0,
        "project_max": -1,
        "project_min": 0,
        "user_max": 20_000,
        "user_min": 0,
        "unit": "GB",
        "description": "",
    }
    assert command("--store", store, "resource", "list", "--json").json == [run.json]


def test_every_bound_of_a_definition(quota):
    bounds = {"max": 100, "min": 1, "project-max": 50, "project-min": 2, "user-max": 25, "user-min": 3}
    options = [word for name, value in bounds.items() for word in (f"--{name}", str(value))]
    run = quota("resource", "define", "x", "--service", "s", "--description", "an x", *options, "--json")
    assert run.json["service"] == "s"
    assert run.json["description"] == "an x"
    assert {name: run.json[name.replace("-", "_")] for name in bounds} == bounds


def test_undefine(quota):
    assert quota("resource", "undefine", "storage.gb", "--json").json == {"undefined": "storage.gb"}
    assert [resource["name"] for resource in quota("resource", "list", "--json").json] == [
        "database.instances"
    ]


def test_limits_are_set_shown_and_unset(quota):
    assert quota("limit", "set", "storage.gb", "--project", "acme", "--max", "1TB", "--json").json == []
    assert quota("limit", "show", "--project", "acme", "--json").json == {
        "database.instances": -1,
        "storage.gb": 1000,
    }
    assert "its own; the default is unlimited" in quota("limit", "show", "--project", "acme").out
    assert quota("limit", "unset", "storage.gb", "--project", "acme").status == 0
    assert quota("limit", "show", "--project", "acme", "--json").json["storage.gb"] == -1
    assert quota("limit", "set", "storage.gb", "--max", "-1").status == 0
    assert quota("limit", "show", "--json").json == {"database.instances": 2000, "storage.gb": -1}


def test_unset_takes_away_only_what_is_named(quota, url):
    quota("limit", "set", "database.instances", "--user", "john", "--max", "9", "--min", "2")
    quota("claim", "database.instances=2", "--user", "john", "--id", "c")
    quota("limit", "unset", "database.instances", "--user", "john", "--max")
    assert quota("limit", "show", "--user", "john", "--json").json["database.instances"] == 25
    assert quota("release", "c").status == 1, "the minimum is still there"
    quota("limit", "unset", "database.instances", "--user", "john", "--min")
    assert quota("release", "c").status == 0


def test_a_lowered_limit_tells_who_is_over_it(quota):
    quota("claim", "database.instances=5", "--user", "john")
    run = quota("limit", "set", "database.instances", "--user", "john", "--max", "3", "--json")
    assert run.status == 0
    assert run.json == [{"resource": "database.instances", "scope": "user:john", "limit": 3, "used": 5}]
    run = quota("limit", "set", "database.instances", "--user", "john", "--max", "3")
    assert "user:john" in run.out
    assert "Over it now" in run.out
    assert "over by 2" in quota("usage", "--user", "john").out


# --- usage and check ------------------------------------------------------------------------------


def test_usage_is_that_of_the_library(quota):
    quota("claim", "storage.gb=500", "--user", "john")
    quota("reserve", "storage.gb=1.5TB", "--user", "john", "--expires-in", "1h")
    run = quota("usage", "--user", "john", "--json")
    assert run.json["storage.gb"] == {"limit": 20_000, "used": 2000, "reserved": 1500, "available": 18_000}
    total = quota("usage", "--json").json["storage.gb"]
    assert total == {"limit": -1, "used": 2000, "reserved": 1500, "available": None}


def test_usage_has_bars_that_need_no_colours(quota):
    quota("claim", "database.instances=5", "--user", "john")
    quota("reserve", "database.instances=5", "--user", "john", "--expires-in", "1h")
    line = next(line for line in quota("usage", "--user", "john").out.splitlines() if "instances" in line)
    bar = line.split()[1]
    assert set(bar) == {"█", "▒", "·"}
    assert bar.count("█") + bar.count("▒") == pytest.approx(len(bar) * 10 / 25, abs=1)


def test_check(quota):
    run = quota("check", "database.instances=3", "--user", "amrith", "--json")
    assert run.status == 1
    violation = {
        "resource": "database.instances",
        "scope": "user:amrith",
        "limit": 2,
        "used": 0,
        "requested": 3,
        "available": 2,
    }
    assert run.json == {"allowed": False, "violations": [violation], "available": {"database.instances": 2}}
    assert quota("check", "database.instances=3", "--user", "amrith").status == 1
    assert quota("check", "database.instances=2", "--user", "amrith").status == 0
    assert quota("usage", "--json").json["database.instances"]["used"] == 0


# --- claims ---------------------------------------------------------------------------------------


def test_the_life_of_a_claim(quota):
    reserved = quota(
        *("reserve", "database.instances=1", "storage.gb=1TB", "--user", "john", "--project", "acme"),
        *("--id", "node-1", "--expires-in", "10m", "--json"),
    ).json
    expires_at = datetime.fromisoformat(reserved.pop("expires_at"))
    assert expires_at.utcoffset() is not None
    assert reserved == {
        "id": "node-1",
        "resources": {"database.instances": 1, "storage.gb": 1000},
        "project": "acme",
        "user": "john",
        "parent": None,
        "state": "reserved",
        "external_id": None,
    }
    assert quota("renew", "node-1", "--expires-in", "1h", "--json").json["state"] == "reserved"
    assert quota("provision", "node-1", "--external-id", "i-4711", "--json").json["external_id"] == "i-4711"
    assert quota("resize", "i-4711", "storage.gb=2TB", "--json").json["resources"] == {"storage.gb": 2000}
    moved = quota("transfer", "i-4711", "--user", "ann", "--json").json
    assert (moved["project"], moved["user"]) == (None, "ann")
    quota("claim", "storage.gb=1", "--user", "john", "--parent", "node-1", "--external-id", "vol-1")
    assert quota("release", "node-1", "--json").json == {"released": "node-1"}
    assert quota("claims", "--json").json == []
    assert quota("claims", "--state", "released", "--json").json[0]["id"] == "node-1"
    assert quota("release", "vol-1").status == 0, "releasing again is harmless"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("claim", "storage.gb=1", "--user", "john", "--id", "c"), "claimed"),
        (("reserve", "storage.gb=1", "--user", "john", "--expires-in", "90s"), "runs out in 1 min 30 s"),
        (("resize", "held", "storage.gb=7"), "7 storage.gb"),
        (("transfer", "held", "--project", "acme"), "project acme"),
        (("provision", "held", "--external-id", "i-1"), "i-1"),
        (("renew", "held", "--expires-in", "2d"), "runs out in 2 d"),
        (("release", "held"), "held is released"),
        (("expire",), "0 reservations swept"),
        (("prune", "--older-than", "30d"), "0 ended claims forgotten"),
        (("reconcile",), "every counter agrees"),
        (("claims",), "held"),
        (("resource", "list"), "Volumes"),
        (("resource", "undefine", "database.instances"), "forgotten"),
        (("limit", "set", "storage.gb", "--max", "1PB", "--min", "5"), "at most 1,000,000, at least 5"),
        (("limit", "unset", "storage.gb", "--user", "x"), "back to the definition"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_people_read(quota, arguments, says):
    quota("reserve", "storage.gb=5", "--user", "john", "--id", "held", "--expires-in", "1h")
    run = quota(*arguments)
    assert run.status == 0, run.err
    assert says in run.out
    assert not run.err


def test_the_same_id_claims_once(quota):
    for _ in range(2):
        assert quota("claim", "database.instances=2", "--user", "john", "--id", "once").status == 0
    assert quota("usage", "--user", "john", "--json").json["database.instances"]["used"] == 2


def test_forced_below_the_minimum(quota):
    quota("limit", "set", "storage.gb", "--user", "john", "--min", "5")
    quota("claim", "storage.gb=5", "--user", "john", "--id", "c")
    refused = quota("resize", "c", "storage.gb=4")
    assert refused.status == 1
    assert "--force" in refused.err
    assert quota("resize", "c", "storage.gb=4", "--force").status == 0
    assert quota("release", "c").status == 1
    assert quota("release", "c", "--force").status == 0


def test_claims_are_filtered(quota):
    quota("claim", "storage.gb=1", "--user", "john", "--project", "acme", "--id", "a")
    quota("claim", "database.instances=1", "--user", "john", "--id", "b")

    def ids(*filters: str) -> list[str]:
        return [claim["id"] for claim in quota("claims", *filters, "--json").json]

    assert ids() == ["a", "b"]
    assert ids("--project", "acme") == ["a"]
    assert ids("--user", "john", "--resource", "database.instances") == ["b"]
    assert ids("--state", "reserved") == []


def test_the_list_of_claims_is_one_claim_a_line(quota):
    for name in ("a", "b"):
        quota("claim", "storage.gb=1", "--user", "john", "--id", name)
    lines = quota("claims", "--json").out.splitlines()
    assert [lines[0], lines[-1]] == ["[", "]"]
    assert [json.loads(line.rstrip(","))["id"] for line in lines[1:-1]] == ["a", "b"]


# --- upkeep ---------------------------------------------------------------------------------------


def test_expire_and_prune(quota):
    quota("reserve", "storage.gb=1", "--user", "john", "--expires-in", "1ms")
    assert quota("expire", "--json").json == {"expired": 1}
    assert len(quota("claims", "--state", "expired", "--json").json) == 1
    assert quota("prune", "--older-than", "1d", "--json").json == {"pruned": 0}
    assert quota("prune", "--older-than", "0", "--json").json == {"pruned": 1}
    assert quota("claims", "--state", "expired", "--json").json == []


def test_reconcile_finds_and_repairs(quota, spoilt):
    found = quota("reconcile", "--json")
    assert found.status == 1
    assert [(drift["recorded"], drift["actual"], drift["repaired"]) for drift in found.json] == [
        (8, 1, False)
    ]
    assert "--repair" in quota("reconcile").out
    repaired = quota("reconcile", "--repair", "--json")
    assert repaired.status == 0
    assert [drift["repaired"] for drift in repaired.json] == [True]
    assert quota("reconcile").status == 0


@pytest.fixture
def spoilt(quota, url):
    """A counter of john's says 8 where 1 is true."""
    import sqlalchemy as sa

    quota("claim", "storage.gb=1", "--user", "john")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        changed = connection.execute(sa.text("UPDATE delimiter_counters SET used = 8 WHERE used = 1"))
        assert changed.rowcount == 1


def test_doctor_of_a_healthy_store(quota, url):
    quota("claim", "storage.gb=1", "--user", "john", "--project", "acme")
    quota("reserve", "storage.gb=1", "--user", "john", "--expires-in", "1ms")
    before = quota("claims", "--json").out
    run = quota("doctor", "--json")
    assert run.status == 0
    found = run.json
    assert found["healthy"] is found["readable"] is found["writable"] is True
    assert found["engine"].startswith("SQLite ")
    assert found["store"] == url
    assert found["schema_version"]
    assert (found["resources"], found["projects"], found["users"]) == (2, 1, 1)
    assert found["claims"] == {"provisioned": 1, "reserved": 0, "expired": 1, "released": 0}
    assert any("delimiter expire" in sentence for sentence in found["advice"])
    assert quota("claims", "--json").out == before, "it changes nothing"
    assert "all is well" in quota("doctor").out


def test_doctor_sees_drift_and_who_is_over_quota(quota, spoilt):
    quota("limit", "set", "storage.gb", "--user", "john", "--max", "0")
    run = quota("doctor", "--json")
    assert run.status == 1
    assert run.json["healthy"] is False
    assert [drift["recorded"] for drift in run.json["drift"]] == [8]
    assert run.json["over_quota"]
    text = quota("doctor").out
    assert "delimiter reconcile --repair" in text
    assert "user:john" in text


def test_doctor_sees_that_nothing_can_be_written(quota, url, tmp_path):
    read_only = f"sqlite:///file:{tmp_path / 'quota.db'}?mode=ro&uri=true"
    run = quota("doctor", "--store", read_only, "--json")
    assert run.status == 1
    assert run.json["writable"] is False


@pytest.mark.stores("postgresql", "mariadb")
def test_on_servers(command, store_name, store_url):
    def on_server(*arguments):
        return command("--store", store_url, *arguments)

    assert on_server("usage").status == 3, "only a definition makes the tables"
    assert on_server("resource", "define", "storage.gb", "--unit", "GB", "--user-max", "5").status == 0
    assert on_server("claim", "storage.gb=5", "--user", "john").status == 0
    assert on_server("claim", "storage.gb=1", "--user", "john").status == 1
    run = on_server("doctor", "--json")
    assert run.status == 0
    assert run.json["engine"].lower().startswith(store_name)
    assert run.json["writable"] is True
    assert on_server("limit", "set", "storage.gb", "--user", "ann", "--max", "9").status == 0


def test_a_prefix_of_the_tables(command, tmp_path):
    url = f"sqlite:///{tmp_path / 'quota.db'}"
    with Delimiter(url, table_prefix="mine_") as quota:
        quota.define_resource("storage.gb")
    assert command("--store", url, "usage").status == 3
    run = command("--store", url, "--table-prefix", "mine_", "usage", "--json")
    assert list(run.json) == ["storage.gb"]
    assert command("usage", DELIMITER_STORE=url, DELIMITER_TABLE_PREFIX="mine_").status == 0
