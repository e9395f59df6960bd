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
    "limits export",
    "limits plan",
    "limits apply",
    "limits schema",
    "project add",
    "project move",
    "project remove",
    "project tree",
    "project overbooking",
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
    "events",
    "prune",
    "reconcile",
    "adopt",
    "doctor",
    "bench",
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


@pytest.mark.parametrize("name", ["resource", "limit", "limits", "project"])
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


def test_a_limit_is_tried_first(quota):
    quota("claim", "database.instances=5", "--user", "john")
    version = quota("doctor", "--json").json["version"]
    tried = ("--user", "john", "--max", "3", "--dry-run", "--if-version", str(version))
    run = quota("limit", "set", "database.instances", *tried, "--json")
    assert run.status == 0
    assert run.json == [{"resource": "database.instances", "scope": "user:john", "limit": 3, "used": 5}]
    spoken = quota("limit", "set", "database.instances", *tried)
    assert spoken.out.startswith(
        "✓ database.instances of user john: at most 3; this was only tried, nothing is changed\n"
        "Would be over it; nothing would be taken away, and nothing more given:\n"
    )
    unset = quota("limit", "unset", "database.instances", "--user", "amrith", "--dry-run")
    assert "only tried" in unset.out
    limits = [quota("limit", "show", "--user", user, "--json").json for user in ("john", "amrith")]
    assert [one["database.instances"] for one in limits] == [25, 2]
    assert quota("doctor", "--json").json["version"] == version


@pytest.mark.parametrize("verb", [("set", "--max", "9"), ("unset",)], ids=["set", "unset"])
def test_a_limit_that_was_edited_meanwhile_is_left_alone(quota, verb):
    version = quota("doctor", "--json").json["version"]
    quota("limit", "set", "storage.gb", "--max", "100")
    name, *rest = verb
    change = (name, "database.instances", "--user", "amrith", *rest, "--if-version", str(version))
    run = quota("limit", *change, "--json")
    assert run.status == 1
    assert run.error["kind"] == "Conflict"
    assert run.error["advice"] == "Nothing was changed. Look again at what is there now, then decide again."
    assert quota("limit", "show", "--user", "amrith", "--json").json["database.instances"] == 2


# --- usage ------------------------------------------------------------------------------


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


def test_release_says_what_it_did(quota):
    for state in ("live", "held", "gone"):
        quota("reserve", "storage.gb=1", "--user", "john", "--id", state, "--expires-in", "1h")
    quota("provision", "live")
    quota("reserve", "storage.gb=1", "--user", "john", "--id", "late", "--expires-in", "1ms")
    quota("release", "gone")
    sentences = {name: quota("release", name).out for name in ("live", "held", "late", "gone", "live")}
    assert sentences == {
        "live": "✓ live was released already; nothing has changed\n",
        "held": "✓ held is released, with everything below it\n",
        "late": "✓ late had run out already; whatever was left below it is released\n",
        "gone": "✓ gone was released already; nothing has changed\n",
    }
    assert quota("release", "live", "--json").json == {"released": "live"}


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
        (("prune", "--older-than", "30d", "--events"), "0 events forgotten"),
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


# --- elsewhere --------------------------------------------------------------------------------------


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
    assert on_server("project", "add", "acme").status == 0
    assert on_server("project", "add", "web", "--parent", "acme").status == 0
    assert on_server("claim", "storage.gb=3", "--project", "web").status == 0
    assert on_server("limits", "export", "limits.yaml").status == 0
    assert on_server("limit", "set", "storage.gb", "--project", "acme", "--max", "2").status == 0
    assert [
        one["used"] for one in on_server("limits", "plan", "limits.yaml", "--json").json["over_quota"]
    ] == []
    assert on_server("check", "storage.gb=1", "--project", "web", "--json").json["binding"] == {
        "storage.gb": "project:acme"
    }
    assert on_server("limits", "apply", "limits.yaml", "--yes").status == 0
    assert on_server("check", "storage.gb=1", "--project", "web").status == 0
    assert [one["kind"] for one in on_server("events", "--after", "1", "--json").json] == [
        *("limit_changed", "over_quota", "limit_changed", "back_within_quota"),
    ]
    tree = on_server("project", "tree", "--json").json
    assert [(one["id"], one["usage"]["storage.gb"]["used"]) for one in tree] == [("acme", 3), ("web", 3)]


def test_a_prefix_of_the_tables(command, tmp_path):
    url = f"sqlite:///{tmp_path / 'quota.db'}"
    with Delimiter(url, table_prefix="mine_") as quota:
        quota.define_resource("storage.gb")
    assert command("--store", url, "usage").status == 3
    run = command("--store", url, "--table-prefix", "mine_", "usage", "--json")
    assert list(run.json) == ["storage.gb"]
    assert command("usage", DELIMITER_STORE=url, DELIMITER_TABLE_PREFIX="mine_").status == 0
