"""``project``: the tree is arranged, drawn, and bound by a policy."""

from __future__ import annotations

import json
import os

import pytest
from rich.console import Console

from delimiter import Delimiter
from delimiter.cli.trees import drawn


@pytest.fixture
def forest(url):
    """acme with web and db below it, globex, and a project that was only ever claimed for."""
    with Delimiter(url) as quota:
        quota.add_project("acme")
        quota.add_project("web", parent="acme")
        quota.add_project("db", parent="acme")
        quota.add_project("globex")
        quota.update_limits("storage.gb", project="acme", max=100)
        quota.update_limits("storage.gb", project="web", max=50)
        quota.claim({"storage.gb": 40}, project="web", id="w")
        quota.reserve({"storage.gb": 20}, project="db", expires_in=3600, id="d")
        quota.claim({"storage.gb": 70}, project="globex", id="g")
        quota.claim({"database.instances": 3}, project="loose", user="john", id="l")
    return url


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


# --- arranging ------------------------------------------------------------------------------------


def test_a_tree_is_made_and_taken_apart(quota, url):
    assert quota("project", "add", "acme", "--json").json == {"id": "acme", "parent": None}
    added = quota("project", "add", "web", "--parent", "acme", "--json")
    assert added.json == {"id": "web", "parent": "acme"}
    assert quota("project", "add", "web", "--parent", "acme").status == 0, "again is harmless"
    moved = quota("project", "move", "web", "--root", "--json")
    assert moved.json == {"id": "web", "parent": None}
    assert quota("project", "move", "web", "--parent", "acme").status == 0
    assert quota("project", "remove", "web", "--json").json == {"removed": "web"}
    with Delimiter(url) as library:
        assert [tuple(one) for one in library.projects()] == [("acme", None)]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("add", "new"), "✓ project new is a root of the tree\n"),
        (("add", "new", "--parent", "web"), "✓ project new is below web\n"),
        (("move", "web", "--parent", "globex"), "✓ project web is below globex\n"),
        (("move", "db", "--root"), "✓ project db is a root of the tree\n"),
        (
            ("overbooking",),
            "overbooking is allowed: the limits of children may add up to more than their parent's\n",
        ),
        (
            ("overbooking", "forbidden"),
            "✓ overbooking is forbidden: the limits of children may not add up to more than their parent's\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_people_read(quota, forest, arguments, says):
    run = quota("project", *arguments)
    assert (run.status, run.out, run.err) == (0, says, "")


def test_a_removed_project_takes_its_limits_along(quota, forest):
    quota("release", "d")
    assert quota("project", "remove", "db").out == "✓ project db is removed, with its own limits\n"


def test_no_room_for_a_move_is_status_1(quota, forest):
    run = quota("project", "move", "globex", "--parent", "acme", "--json")
    assert run.status == 1
    violation = {
        "resource": "storage.gb",
        "scope": "project:acme",
        "limit": 100,
        "used": 60,
        "requested": 70,
        "available": 40,
    }
    assert run.error["kind"] == "OverLimit"
    assert run.error["violations"] == [violation]
    assert run.error["advice"].startswith("Nothing was changed. There must be room first")
    assert "delimiter claims --project acme --subtree" in run.error["advice"]
    with Delimiter(forest) as library:
        assert dict(library.projects())["globex"] is None


def test_no_room_for_a_new_place_is_status_1(quota, forest):
    quota("claim", "storage.gb=90", "--project", "late")
    run = quota("project", "add", "late", "--parent", "acme")
    assert run.status == 1
    assert not run.out
    assert "There must be room first" in run.err


@pytest.mark.parametrize(
    "arguments, kind, says",
    [
        (("add",), "UsageError", "ID"),
        (("add", ""), "InvalidRequest", "empty"),
        (("add", "a\tb"), "InvalidRequest", "control character"),
        (("add", "x" * 256), "InvalidRequest", "255"),
        (("add", "new", "--parent", "nobody"), "UnknownProject", "nobody"),
        (("add", "new", "--parent", ""), "InvalidRequest", "empty"),
        (("add", "web", "--parent", "globex"), "InvalidRequest", "acme"),
        (("move", "web"), "UsageError", "--root"),
        (("move", "web", "--root", "--parent", "globex"), "UsageError", "one of them"),
        (("move", "nobody", "--root"), "UnknownProject", "nobody"),
        (("move", "web", "--parent", "nobody"), "UnknownProject", "nobody"),
        (("move", "acme", "--parent", "web"), "InvalidRequest", "lies below it"),
        (("move", "acme", "--parent", "acme"), "InvalidRequest", "below itself"),
        (("remove", "nobody"), "UnknownProject", "nobody"),
        (("remove", "acme"), "InvalidRequest", "below it"),
        (("remove", "globex"), "InvalidRequest", "claims"),
        (("overbooking", "perhaps"), "UsageError", "perhaps"),
        (("tree", "nobody"), "UnknownProject", "nobody"),
        (("tree", "--resource", "nothing"), "UnknownResource", "nothing"),
        (("tree", "--depth", "-1"), "UsageError", "-1"),
        (("tree", "--depth", "deep"), "UsageError", "deep"),
        (("frobnicate",), "UsageError", "frobnicate"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_wrong_usage_and_bad_input_are_status_2(quota, forest, arguments, kind, says):
    with Delimiter(forest) as library:
        before = (library.projects(), library.version())
    run = quota("project", *arguments, "--json")
    assert run.status == 2
    assert run.error["kind"] == kind
    assert says in run.error["message"]
    spoken = quota("project", *arguments)
    assert (spoken.status, spoken.out) == (2, "")
    assert "Traceback" not in spoken.err
    with Delimiter(forest) as library:
        assert (library.projects(), library.version()) == before, "nothing changed"


# --- overbooking ----------------------------------------------------------------------------------


def test_the_policy_is_shown_and_set(quota):
    assert quota("project", "overbooking", "--json").json == {"overbooking": "allowed"}
    assert quota("project", "overbooking", "forbidden", "--json").json == {"overbooking": "forbidden"}
    assert quota("project", "overbooking", "--json").json == {"overbooking": "forbidden"}


def test_what_would_overbook_is_bad_input(quota, forest):
    assert quota("project", "overbooking", "forbidden").status == 0
    run = quota("limit", "set", "storage.gb", "--project", "db", "--max", "51", "--json")
    assert run.status == 2
    assert run.error["kind"] == "InvalidRequest"
    assert "101 together" in run.error["message"]
    assert "delimiter project overbooking" in run.error["advice"]
    assert quota("limit", "set", "storage.gb", "--project", "db", "--max", "50").status == 0
    assert quota("limit", "set", "storage.gb", "--project", "acme", "--max", "99", "--dry-run").status == 2


# --- the tree -------------------------------------------------------------------------------------


def test_the_whole_tree(quota, forest):
    run = quota("project", "tree")
    assert run.status == 0
    assert lines(run.out) == [
        f"Projects  {forest}",
        "",
        "project  resource                                      used      limit  available",
        "acme     storage.gb          █████████▒▒▒▒▒··········    60        100         40",
        "├─ db    storage.gb                                      20  unlimited  unlimited",
        "└─ web   storage.gb          ███████████████████·····    40         50         10",
        "globex   storage.gb                                      70  unlimited  unlimited",
        "loose    database.instances                               3  unlimited  unlimited",
        "",
        "█ provisioned  ▒ reserved  · free",
        "Overbooking is allowed: the limits of children may add up to more than their parent's.",
    ]


def test_part_of_it(quota, forest):
    run = quota("project", "tree", "acme", "--depth", "0", "--resource", "storage.gb")
    assert lines(run.out)[:5] == [
        f"Project acme, with all below it  {forest}",
        "",
        "project  resource                                  used  limit  available",
        "acme     storage.gb      █████████▒▒▒▒▒··········    60    100         40",
        "         (2 more below)",
    ]
    assert "database.instances" not in run.out


def test_several_resources_and_a_scope_that_is_over_quota(quota, forest):
    quota("limit", "set", "storage.gb", "--project", "acme", "--max", "50")
    quota("limit", "set", "database.instances", "--project", "acme", "--max", "5")
    assert lines(quota("project", "tree", "acme").out)[3:7] == [
        "acme     database.instances  ························     0          5           5",
        "│        storage.gb          ████████████████▒▒▒▒▒▒▒▒    60         50  over by 10",
        "├─ db    storage.gb                                      20  unlimited   unlimited",
        "└─ web   storage.gb          ███████████████████·····    40         50          10",
    ]


def test_the_tree_as_json_is_flat_with_parents_first(quota, forest):
    found = quota("project", "tree", "--json").json
    assert [(one["id"], one["parent"]) for one in found] == [
        ("acme", None),
        ("db", "acme"),
        ("web", "acme"),
        ("globex", None),
        ("loose", None),
    ]
    assert found[0]["usage"]["storage.gb"] == {"limit": 100, "used": 60, "reserved": 20, "available": 40}
    assert found[3]["usage"]["storage.gb"] == {"limit": -1, "used": 70, "reserved": 0, "available": None}
    part = quota("project", "tree", "acme", "--depth", "0", "--resource", "storage.gb", "--json").json
    assert [(one["id"], list(one["usage"])) for one in part] == [("acme", ["storage.gb"])]


def test_no_projects(quota):
    run = quota("project", "tree")
    assert run.status == 0
    assert "delimiter project add" in run.out
    assert quota("project", "tree", "--json").json == []


def test_a_project_without_anything(command, tmp_path):
    store = f"sqlite:///{tmp_path / 'bare.db'}"
    with Delimiter(store) as library:
        library.add_project("acme")
    run = command("--store", store, "project", "tree")
    assert "nothing used, no limits" in run.out


def test_names_that_look_like_markup_or_turn_the_line(quota, forest):
    for name in ("[red]x[/red]", "a\u202eb", "x\u2028y"):
        assert quota("project", "add", name, "--parent", "acme").status == 0
    run = quota("project", "tree")
    assert "[red]x[/red]" in run.out
    assert "a\\u202eb" in run.out
    assert "x\\u2028y" in run.out
    assert not {"\u202e", "\u2028"} & set(run.out)
    assert {"[red]x[/red]", "a\u202eb", "x\u2028y"} < {
        one["id"] for one in quota("project", "tree", "--json").json
    }


def test_what_lies_too_deep_is_counted(quota, forest):
    quota("project", "add", "shop", "--parent", "web")
    quota("project", "add", "cart", "--parent", "shop")
    run = quota("project", "tree", "--depth", "1")
    assert [line.rstrip() for line in run.out.splitlines()][4:8] == [
        "├─ db    storage.gb                                      20  unlimited  unlimited",
        "└─ web   storage.gb          ███████████████████·····    40         50         10",
        "         (1 more below)",
        "globex   storage.gb                                      70  unlimited  unlimited",
    ]
    assert "cart" not in run.out


def test_a_chain_deeper_than_any_recursion():
    deepest = 5000
    branches = list(drawn([0], lambda number: [number + 1] if number < deepest else [], Console()))
    assert [branch.item for branch in branches] == list(range(deepest + 1))
    assert len(branches[-1].guide) == 3 * deepest


@pytest.mark.parametrize(
    "width, drawn",
    [
        ("72", "└─ web   storage.gb          ████████████···    40         50         10\n"),
        ("60", "      storage.gb       ███████··    40         50         10\n"),
        ("40", "└─ web\n      storage.gb: 40 of 50 used, 10 \navailable\n"),
    ],
)
def test_narrow_terminals(command, forest, width, drawn):
    run = command("--store", forest, "project", "tree", COLUMNS=width)
    assert run.status == 0
    assert max(map(len, run.out.splitlines()[2:-3])) <= int(width)
    assert drawn in run.out


def test_a_terminal_without_unicode(installed, forest):
    environment = {**os.environ, "DELIMITER_STORE": forest, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments in (["project", "tree"], ["check", "storage.gb=1", "--project", "web"], ["events"]):
        run = installed(*arguments, env=environment)
        assert run.status == 0, run.err
        assert run.out.isascii()
        assert not run.err
    assert "`- project web" in installed("check", "storage.gb=1", "--project", "web", env=environment).out


# --- what includes the tree -----------------------------------------------------------------------


def test_usage_and_claims_of_a_subtree(quota, forest):
    assert quota("usage", "--project", "acme", "--json").json["storage.gb"]["used"] == 60
    assert quota("usage", "--project", "acme").out.startswith("Usage of project acme, with all below it ")
    assert quota("usage", "--project", "web").out.startswith("Usage of project web  ")

    def ids(*filters: str) -> list[str]:
        return [claim["id"] for claim in json.loads(quota("claims", *filters, "--json").out)]

    assert ids("--project", "acme") == []
    assert ids("--project", "acme", "--subtree") == ["w", "d"]
    assert ids("--project", "acme", "--subtree", "--state", "reserved") == ["d"]
    run = quota("claims", "--subtree", "--json")
    assert run.status == 2
    assert run.error["kind"] == "UsageError"
