"""``limits``: a file of definitions, projects and limits is exported, planned and applied."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from delimiter import Delimiter
from delimiter.cli import main
from delimiter.cli.session import Session

WANTED = """\
resources:
  storage.gb:
    user_max: 20000
    unit: GB
    description: Volumes
  network.ips:
    project_max: 10
projects:
  acme:
    web:
    db:
  globex:
limits:
  projects:
    acme: {storage.gb: 50}
    web: {storage.gb: 40}
"""
CHANGES: list[dict[str, Any]] = [
    {"section": "resources", "what": "network.ips", "before": None, "after": "project_max 10"},
    {"section": "limits", "what": "max of database.instances for user amrith", "before": 2, "after": None},
    {"section": "limits", "what": "max of storage.gb for project acme", "before": None, "after": 50},
    {"section": "limits", "what": "max of storage.gb for project web", "before": None, "after": 40},
    {"section": "projects", "what": "project db", "before": None, "after": "below acme"},
    {"section": "projects", "what": "project globex", "before": "below acme", "after": "a root"},
]
OVER = [
    {"resource": "storage.gb", "scope": "project:acme", "limit": 50, "used": 60},
    {"resource": "storage.gb", "scope": "project:web", "limit": 40, "used": 60},
]


@pytest.fixture
def wanted(tmp_path: Path, quota) -> str:
    """A file that defines, limits, removes, places and moves; acme and web are over quota with it."""
    quota("project", "add", "acme")
    for name in ("web", "globex"):
        quota("project", "add", name, "--parent", "acme")
    quota("claim", "storage.gb=60", "--project", "web", "--user", "john")
    file = tmp_path / "limits.yaml"
    file.write_text(WANTED)
    return str(file)


def state(url: str) -> Any:
    with Delimiter(url) as library:
        return (library.version(), library.resources(), library.projects(), library.own_limits())


# --- export ---------------------------------------------------------------------------------------


def test_export(quota):
    quota("project", "add", "acme")
    quota("limit", "set", "storage.gb", "--project", "acme", "--max", "1TB", "--min", "5")
    run = quota("limits", "export")
    assert run.status == 0
    assert run.out == (
        "overbooking: allowed\n"
        "\n"
        "resources:\n"
        "  database.instances:\n"
        "    max: 2000\n"
        "    user_max: 25\n"
        "    unit: instances\n"
        "  storage.gb:\n"
        "    user_max: 20000\n"
        "    unit: GB\n"
        "    description: Volumes\n"
        "\n"
        "projects:\n"
        "  acme:\n"
        "\n"
        "limits:\n"
        "  projects:\n"
        "    acme:\n"
        "      storage.gb: {max: 1000, min: 5}\n"
        "  users:\n"
        "    amrith:\n"
        "      database.instances: 2\n"
    )
    assert quota("limits", "export", "-").out == run.out
    assert quota("limits", "export", "--json").json == {
        "overbooking": "allowed",
        "resources": {
            "database.instances": {"max": 2000, "user_max": 25, "unit": "instances"},
            "storage.gb": {"user_max": 20_000, "unit": "GB", "description": "Volumes"},
        },
        "projects": {"acme": None},
        "limits": {
            "projects": {"acme": {"storage.gb": {"max": 1000, "min": 5}}},
            "users": {"amrith": {"database.instances": 2}},
        },
    }


def test_what_was_exported_changes_nothing(quota, url, tmp_path, wanted):
    assert quota("limits", "apply", wanted, "--yes").status == 0
    for names in (("[red]a[/red]", "\u202eb"), ("c: {d}", "no"), ("0x1f", "jürgen")):
        for name in names:
            quota("project", "add", name)
            quota("limit", "set", "storage.gb", "--user", name, "--max", "7")
    file = str(tmp_path / "exported.yaml")
    assert quota("limits", "export", file).out == f"✓ {file} is written\n"
    before = state(url)
    assert "--force" in quota("limits", "export", file).err
    written = quota("limits", "export", file, "--force", "--json").json
    assert written == {"written": file, "version": before[0]}
    assert quota("limits", "plan", file).out == f"✓ nothing to change (version {before[0]})\n"
    run = quota("limits", "apply", file, "--yes", "--json")
    assert (run.status, run.json["applied"], run.json["changes"]) == (0, False, [])
    assert state(url) == before


def test_an_empty_store(command, tmp_path):
    store = f"sqlite:///{tmp_path / 'bare.db'}"
    Delimiter(store).prepare()
    run = command("--store", store, "limits", "export")
    assert run.out == "overbooking: allowed\n\nresources: {}\n\nprojects: {}\n\nlimits: {}\n"


# --- plan and apply -------------------------------------------------------------------------------


def test_a_plan_for_people(quota, url, wanted):
    before = state(url)
    run = quota("limits", "plan", wanted)
    assert run.status == 0
    assert [line.rstrip() for line in run.out.splitlines()] == [
        f"What would change  {url}",
        "",
        "resources",
        "  + network.ips: project_max 10",
        "",
        "limits",
        "  - max of database.instances for user amrith (was 2)",
        "  + max of storage.gb for project acme: 50",
        "  + max of storage.gb for project web: 40",
        "",
        "projects",
        "  + project db: below acme",
        "  ~ project globex: below acme → a root",
        "",
        "Would be over it; nothing would be taken away, and nothing more given:",
        "resource    scope         limit  used  over by",
        "storage.gb  project:acme     50    60       10",
        "storage.gb  project:web      40    60       20",
        "",
        f"4 to add, 1 to change, 1 to remove (version {before[0]})",
    ]
    assert state(url) == before, "nothing is changed"


def test_a_plan_for_programs(quota, url, wanted):
    before = state(url)
    run = quota("limits", "plan", wanted, "--json")
    assert (run.status, run.err) == (0, "")
    assert run.json == {"version": before[0], "changes": CHANGES, "over_quota": OVER}
    tried = quota("limits", "apply", wanted, "--dry-run", "--json")
    assert tried.json == {**run.json, "applied": False}
    assert "only tried" in quota("limits", "apply", wanted, "--dry-run").out
    assert state(url) == before, "nothing is changed"


def test_applied_twice_is_applied_once(quota, url, wanted):
    before = state(url)
    run = quota("limits", "apply", wanted, "--yes", "--json")
    assert run.json == {"version": before[0], "changes": CHANGES, "over_quota": OVER, "applied": True}
    after = state(url)
    assert dict(after[2]) == {"acme": None, "db": "acme", "web": "acme", "globex": None}
    assert quota("limits", "apply", wanted, "--yes").out == f"✓ nothing to change (version {after[0]})\n"
    assert state(url) == after
    with Delimiter(url) as library:
        over = [event.scope for event in library.events() if event.kind == "over_quota"]
    assert over == ["project:acme", "project:web"], "told once"


def test_applied_is_said_at_the_end(quota, url, wanted):
    end = f" to remove (version {state(url)[0]})\n✓ 6 changes applied\n"
    assert quota("limits", "apply", wanted, "--yes").out.endswith(end)


def test_from_standard_input(url, wanted):
    run = CliRunner().invoke(main, ["--store", url, "limits", "plan", "-", "--json"], input=WANTED)
    assert [change["what"] for change in json.loads(run.stdout)["changes"]] == [
        one["what"] for one in CHANGES
    ]
    run = CliRunner().invoke(main, ["--store", url, "limits", "apply", "-", "--yes"], input=WANTED)
    assert run.exit_code == 0
    run = CliRunner().invoke(main, ["--store", url, "limits", "plan", "-", "--json"], input="limits: [")
    assert run.exit_code == 2
    assert json.loads(run.stderr)["error"]["message"].startswith("Standard input:")


def test_a_section_that_is_not_there_is_left_alone(quota, url, tmp_path):
    quota("project", "add", "acme")
    (tmp_path / "some.yaml").write_text("limits: {users: {amrith: {database.instances: 3}}}")
    assert quota("limits", "apply", "some.yaml", "--yes").status == 0
    with Delimiter(url) as library:
        assert len(library.projects()) == 1
        assert len(library.resources()) == 2
        assert [own.max for own in library.own_limits()] == [3]


def test_a_first_store_is_made_only_when_asked_for(command, tmp_path):
    (tmp_path / "limits.yaml").write_text("resources: {storage.gb: {project_max: 5}}")
    store = ("--store", f"sqlite:///{tmp_path / 'new.db'}")
    assert command(*store, "limits", "apply", "limits.yaml", "--yes").status == 3
    assert not (tmp_path / "new.db").exists()
    assert command(*store, "limits", "apply", "limits.yaml", "--yes", "--create").status == 0
    assert list(command(*store, "usage", "--json").json) == ["storage.gb"]


@pytest.mark.parametrize(
    "answer, status, end", [("y\n", 0, "6 changes applied\n"), ("n\n", 1, "Nothing was changed.\n")]
)
def test_it_asks(monkeypatch, url, wanted, answer, status, end):
    monkeypatch.setattr(Session, "can_ask", lambda _: True)
    before = state(url)
    run = CliRunner().invoke(main, ["--store", url, "limits", "apply", wanted], input=answer)
    assert run.exit_code == status
    assert "Apply it? [y/N]" in run.stderr
    assert run.stdout.endswith(end)
    assert (state(url) == before) == (status == 1)


def test_ctrl_c_at_the_question(monkeypatch, url, wanted):
    monkeypatch.setattr(Session, "can_ask", lambda _: True)
    before = state(url)
    run = CliRunner().invoke(main, ["--store", url, "limits", "apply", wanted], input="")
    assert run.exit_code == 130
    assert state(url) == before


# --- what others do meanwhile ---------------------------------------------------------------------


@pytest.fixture
def meddler(monkeypatch, url) -> Callable[[int], None]:
    """`meddler(2)`: right before the second `edit`, somebody else raises amrith's limit."""

    def meddle(at: int) -> None:
        count = 0
        edit = Delimiter.edit

        def edited(self: Delimiter, *given: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                with Delimiter(url) as other:
                    other.update_limits("database.instances", user="amrith", max=9)
            return edit(self, *given, **options)

        monkeypatch.setattr(Delimiter, "edit", edited)

    return meddle


def test_what_was_changed_in_between_is_not_overwritten(quota, url, wanted, meddler):
    meddler(2)  # the first is the trial
    run = quota("limits", "apply", wanted, "--yes", "--json")
    assert run.status == 1
    assert run.error["kind"] == "Conflict"
    assert "delimiter limits plan" in run.error["advice"]
    with Delimiter(url) as library:
        assert library.limits(user="amrith")["database.instances"] == 9
        assert dict(library.projects())["globex"] == "acme"


def test_a_plan_looks_again(quota, wanted, meddler):
    meddler(1)
    run = quota("limits", "plan", wanted, "--json")
    assert run.status == 0
    assert run.json["changes"][1]["before"] == 9


@pytest.mark.parametrize("flags", [("--yes",), ("--dry-run",)])
def test_only_at_one_version(quota, url, wanted, flags):
    version = state(url)[0]
    run = quota("limits", "apply", wanted, *flags, "--if-version", str(version - 1), "--json")
    assert run.status == 1
    assert run.error["kind"] == "Conflict"
    assert state(url)[0] == version
    assert quota("limits", "apply", wanted, *flags, "--if-version", str(version)).status == 0


# --- refusals and bad input -----------------------------------------------------------------------


def test_what_would_be_refused_is_refused_in_the_plan(quota, url, tmp_path, wanted):
    """Text shows what the refusal is about; programs get the error alone."""
    quota("limit", "set", "storage.gb", "--project", "acme", "--max", "10")
    (tmp_path / "moved.yaml").write_text("projects: {acme: {web: , loose: }, globex: }")
    quota("claim", "storage.gb=60", "--project", "loose")
    before = state(url)
    for verb in (("plan", "moved.yaml"), ("apply", "moved.yaml", "--yes")):
        run = quota("limits", *verb, "--json")
        assert run.status == 1
        assert run.error["kind"] == "OverLimit"
        assert run.error["advice"].startswith("Nothing was changed. There must be room first")
        spoken = quota("limits", *verb)
        assert spoken.status == 1
        assert "+ project loose: below acme" in spoken.out
        assert "There must be room first" in spoken.err
    assert state(url) == before


def test_overbooking_is_bad_input(quota, url, tmp_path):
    (tmp_path / "f.yaml").write_text(
        "overbooking: forbidden\n"
        "projects: {acme: {web: , db: }}\n"
        "limits: {projects: {acme: {storage.gb: 5}, web: {storage.gb: 3}, db: {storage.gb: 3}}}"
    )
    before = state(url)
    run = quota("limits", "apply", "f.yaml", "--yes", "--json")
    assert run.status == 2
    assert run.error["kind"] == "InvalidRequest"
    assert "6 together" in run.error["message"]
    assert state(url) == before


@pytest.mark.parametrize(
    "arguments, kind, says",
    [
        (("plan",), "UsageError", "FILE"),
        (("apply",), "UsageError", "FILE"),
        (("apply", "good.yaml"), "UsageError", "--yes"),
        (("apply", "-"), "UsageError", "--yes"),
        (("plan", "missing.yaml"), "InvalidRequest", "missing.yaml: No such file"),
        (("plan", "."), "InvalidRequest", "Is a directory"),
        (("export", "no/such/folder/x.yaml"), "InvalidRequest", "no/such/folder/x.yaml: No such file"),
        (("export", "."), "InvalidRequest", "Is a directory"),
        (("plan", "latin.yaml"), "InvalidRequest", "latin.yaml:2: this is no text in UTF-8"),
        (("plan", "key.yaml"), "InvalidRequest", "key.yaml:1: unknown key limit (did you mean limits?)"),
        (("plan", "unknown.yaml"), "InvalidRequest", "unknown.yaml:1: storage.tb is defined neither"),
        (("plan", "escape.yaml"), "InvalidRequest", "control character"),
        (("plan", "bomb.yaml"), "InvalidRequest", "aliases"),
        (("plan", "object.yaml"), "InvalidRequest", "tags"),
        (("plan", "empty.yaml"), "InvalidRequest", "empty"),
        (("plan", "broken.toml"), "InvalidRequest", "broken.toml:1: this is no TOML"),
        (("apply", "good.yaml", "--yes", "--if-version", "new"), "UsageError", "new"),
        (("apply", "good.yaml", "--yes", "--if-version", "-1"), "UsageError", "-1"),
        (("frobnicate",), "UsageError", "frobnicate"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_wrong_usage_and_bad_input_are_status_2(quota, url, tmp_path, arguments, kind, says):
    for name, text in {
        "good.yaml": b"projects: {acme: }",
        "latin.yaml": b"projects:\n  j\xfcrgen:\n",
        "key.yaml": b"limit: {}",
        "unknown.yaml": b"limits: {total: {storage.tb: 5}}",
        "escape.yaml": b'projects: {"a\\eb": }',
        "bomb.yaml": b"projects: {a: &a {b: }, c: *a}",
        "object.yaml": b"projects: !!python/object/apply:os.system [id]",
        "empty.yaml": b"",
        "broken.toml": b"limits = [",
    }.items():
        (tmp_path / name).write_bytes(text)
    before = state(url)
    run = quota("limits", *arguments, "--json")
    assert run.status == 2
    assert run.error["kind"] == kind
    assert says in run.error["message"]
    spoken = quota("limits", *arguments)
    assert (spoken.status, spoken.out) == (2, "")
    assert "\x1b" not in spoken.err
    assert "Traceback" not in spoken.err
    assert state(url) == before, "nothing changed"


def test_names_in_a_plan_are_shown_safely(quota, tmp_path):
    (tmp_path / "f.yaml").write_text("projects: {'[red]x[/red]': , \"a\\u202eb\": }")
    run = quota("limits", "plan", "f.yaml")
    assert "+ project [red]x[/red]: a root" in run.out
    assert "\u202e" not in run.out
    assert "\\u202e" in run.out


def test_the_schema_needs_no_store(command):
    run = command("limits", "schema")
    assert run.status == 0
    assert run.json["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert command("limits", "schema", "--json").out == run.out
