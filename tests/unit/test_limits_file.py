"""The limits file: what it may say, what is said about a bad one, and that it comes back as it was written."""

from __future__ import annotations

import doctest
import importlib

import pytest
import yaml

from delimiter import InvalidRequest
from delimiter.limits_file import Document, parse, render
from delimiter.model import OwnLimit, Project, Resource, Scope

A_FILE = """\
# who may use what
overbooking: allowed
resources:
  storage.gb: {service: storage, unit: GB, description: "Volumes: all", max: -1, project_max: 20_000, user_max: 1000}
  database.instances:
projects:
  acme:
    web:
    lab: {}
limits:
  total: {storage.gb: 50000}
  projects: {acme: {storage.gb: {max: 500, min: 10}}}
  users:
    john: {database.instances: unlimited}
    007: {database.instances: 2}
"""
THE_SAME_AS_TOML = """\
overbooking = "allowed"
[resources."storage.gb"]
service = "storage"
unit = "GB"
description = "Volumes: all"
project_max = 20_000
user_max = 1000
[resources."database.instances"]
[projects.acme]
web = {}
lab = {}
[limits.total]
"storage.gb" = 50000
[limits.projects.acme]
"storage.gb" = {max = 500, min = 10}
[limits.users]
john = {"database.instances" = "unlimited"}
007 = {"database.instances" = 2}
"""
RENDERED = """\
overbooking: allowed

resources:
  database.instances:
  storage.gb:
    project_max: 20000
    user_max: 1000
    unit: GB
    description: "Volumes: all"

projects:
  acme:
    lab:
    web:

limits:
  total:
    storage.gb: 50000
  projects:
    acme:
      storage.gb: {max: 500, min: 10}
  users:
    "007":
      database.instances: 2
    john:
      database.instances: unlimited
"""


def refusal(text: str, name: str = "limits.yaml") -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        parse(text, name=name)
    return str(caught.value).splitlines()


# --- what a file says -----------------------------------------------------------------------------


def test_a_file_says():
    document = parse(A_FILE)
    assert document.overbooking == "allowed"
    assert document.resources == (
        Resource("database.instances", "database"),
        Resource(
            "storage.gb", "storage", project_max=20_000, user_max=1000, unit="GB", description="Volumes: all"
        ),
    )
    assert document.projects == (Project("acme", None), Project("lab", "acme"), Project("web", "acme"))
    assert document.own_limits == (
        OwnLimit("storage.gb", Scope.total(), 50_000, None),
        OwnLimit("storage.gb", Scope("project", "acme"), 500, 10),
        OwnLimit("database.instances", Scope("user", "007"), 2, None),
        OwnLimit("database.instances", Scope("user", "john"), -1, None),
    )


def test_toml_says_the_same():
    assert parse(THE_SAME_AS_TOML, name="limits.TOML") == parse(A_FILE)


def test_a_file_is_written_sorted_and_without_what_goes_without_saying():
    assert render(parse(A_FILE)) == RENDERED
    assert render(parse(RENDERED)) == RENDERED


@pytest.mark.parametrize("section", ["resources", "projects", "limits"])
def test_a_section_left_out_is_none_and_an_empty_one_is_empty(section):
    field = "own_limits" if section == "limits" else section
    assert getattr(parse("{}"), field) is None
    assert getattr(parse(f"{section}: {{}}"), field) == ()
    assert render(parse(f"{section}: {{}}")) == f"{section}: {{}}\n"
    assert refusal(f"\n{section}:\n") == [
        f"limits.yaml:2: {section} is empty: leave it out, or write {{}} if there are to be none"
    ]


@pytest.mark.parametrize(
    "name", ["no", "null", "~x", "1e3", "0x10", "2026-01-01", "=", "a: b", "#", "é☃ ", "💾", "'", '"']
)
def test_a_name_is_taken_as_it_is_written(name):
    document = Document.of(projects=[Project(name, None)])
    assert parse(render(document)) == document
    assert list(yaml.safe_load(render(document))["projects"]) == [name]  # other readers see a text too


def test_a_key_is_a_name_even_without_quotes():
    assert parse("projects: {007: , no: , null: , 1.5: }").projects == tuple(
        Project(name, None) for name in ("007", "1.5", "no", "null")
    )


def test_documents_of_equal_states_are_equal():
    forth, back = (
        Document.of(
            resources=[Resource(name, "storage") for name in names],
            projects=[Project(name, parent) for name, parent in tree],
            own_limits=[OwnLimit("a", Scope("user", name), 1, None) for name in names],
            overbooking="allowed",
        )
        for names, tree in (
            (("a", "b"), (("acme", None), ("web", "acme"), ("zoo", None))),
            (("b", "a"), (("zoo", None), ("web", "acme"), ("acme", None))),
        )
    )
    assert forth == back
    assert render(forth) == render(back)


@pytest.mark.parametrize("tree", [[("a", "b")], [("a", "b"), ("b", "a")], [("a", None), ("a", None)]])
def test_a_document_of_no_tree_is_refused(tree):
    with pytest.raises(InvalidRequest, match="no tree"):
        Document.of(projects=[Project(*one) for one in tree])


# --- what is said about a bad one -----------------------------------------------------------------


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "limits.yaml:1: the file is empty; a file that manages nothing says {}"),
        ("# nothing\n", "limits.yaml:1: the file is empty; a file that manages nothing says {}"),
        ("- a", "limits.yaml:1: the file must be a mapping, not a list"),
        ("a: [", "limits.yaml:2: this is no YAML: "),
        ("a: b: c", "limits.yaml:1: this is no YAML: mapping values are not allowed"),
        ("{}\n---\n{}", "limits.yaml:2: a second document begins (---); a file holds one"),
        ("limits: {}\nlimit: {}", "limits.yaml:2: unknown key limit (did you mean limits?)"),
        (
            "quotas: {}",
            "limits.yaml:1: unknown key quotas; known are overbooking, resources, projects, limits",
        ),
        ("overbooking: true", "limits.yaml:1: overbooking is allowed or forbidden, not true"),
        ("resources: {a: {mx: 1}}", "limits.yaml:1: unknown key mx (did you mean max?)"),
        ("resources: {a: {max: 1.5}}", "limits.yaml:1: max must be a whole number or unlimited, not 1.5"),
        ("resources: {a: {max: '5'}}", "limits.yaml:1: max must be a whole number or unlimited, not '5'"),
        ("resources: {a: {max: true}}", "limits.yaml:1: max must be a whole number or unlimited, not true"),
        ("resources: {a: {max: }}", "limits.yaml:1: max must be a whole number or unlimited, not nothing"),
        ("resources: {a: {max: -2}}", "limits.yaml:1: max must be from -1 (-1: unlimited) to"),
        ("resources: {a: {min: unlimited}}", "limits.yaml:1: min must be a whole number, not 'unlimited'"),
        ("resources: {a: {unit: 5}}", "limits.yaml:1: unit must be text, not 5 (write it in quotes)"),
        ("resources: {a: {service: ''}}", "limits.yaml:1: service must not be empty"),
        ("resources: {a: {user_max: 1, user_min: 2}}", "limits.yaml:1: user_min 2 is above user_max 1"),
        ("resources: {'': }", "limits.yaml:1: a resource's name must not be empty"),
        ("projects: {a: 5}", "limits.yaml:1: a must be a mapping, not 5"),
        (
            "projects:\n  a:\n    b:\n  b:\n",
            "limits.yaml:3: project 'b' is in the tree twice, also in limits.yaml:4",
        ),
        ("projects:\n  a:\n  a:\n", "limits.yaml:3: 'a' is here twice, first in limits.yaml:2"),
        ("limits: {total: {a: 010}}", "limits.yaml:1: a must be a whole number or unlimited, not 010"),
        ("limits: {total: {a: 1:30}}", "limits.yaml:1: a must be a whole number or unlimited, not 1:30"),
        ("limits: {total: {a: 0x10}}", "limits.yaml:1: a must be a whole number or unlimited, not 0x10"),
        ("limits: {total: {a: 9223372036854775808}}", "limits.yaml:1: a must be from -1"),
        (
            f"limits: {{total: {{a: {'9' * 9000}}}}}",
            "limits.yaml:1: a must be a whole number or unlimited, not 999",
        ),
        ("limits: {total: {a: {}}}", "limits.yaml:1: a has neither max nor min"),
        ("limits: {total: {a: {max: 1, min: 2}}}", "limits.yaml:1: min 2 is above max 1"),
        (
            "limits: {total: {a: {gb: 1}}}",
            "limits.yaml:1: unknown key gb; known are max, min; a name with a dot is",
        ),
        ("limits: {users: {john: 5}}", "limits.yaml:1: the limits of user:john must be a mapping, not 5"),
        ("projects: &a {b: }", "limits.yaml:1: anchors and aliases"),
        ("projects: {<<: {b: }}", "limits.yaml:1: merge keys (<<) are not read"),
        ("projects: !!python/object:os.system {b: }", "limits.yaml:1: tags (!name) are not read"),
        ("projects: {{b: }: }", "limits.yaml:1: a key is a name"),
        ("{}\n\x00", "limits.yaml:2: the character '\\x00' cannot stand in YAML"),
        ("[" * 5000, "limits.yaml:1: the file is nested deeper than 200"),
    ],
)
def test_a_complaint_begins_with_the_line(text, complaint):
    assert refusal(text)[0].startswith(complaint)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "limits.toml: the file is empty"),
        ("limits = ", "limits.toml:1: this is no TOML: Invalid value"),
        ("[limits]\n[limits]\n", "limits.toml:2: this is no TOML: Cannot declare"),
        ("a = " + "[" * 9999, "limits.toml: this is no TOML that can be read"),
        ("a = " + "9" * 9999, "limits.toml: this is no TOML that can be read"),
        (
            "[limits.total]\na = 0x" + "f" * 9999,
            "limits.toml: limits.total.a: a must be a whole number or unlimited",
        ),
        (
            "[limits.projects.acme]\n'a.b' = 1.5",
            'limits.toml: limits.projects.acme."a.b": a.b must be a whole number',
        ),
        (
            "[limits.total]\nstorage.gb = 1",
            "limits.toml: limits.total.storage.gb: unknown key gb; known are max, min;",
        ),
        (
            "[limits.total]\na = true",
            "limits.toml: limits.total.a: a must be a whole number or unlimited, not true",
        ),
        ("[limits]\ntotals = 1", "limits.toml: limits.totals: unknown key totals (did you mean total?)"),
        (".".join("a" * 300) + " = 1", "limits.toml: the file is nested deeper than 200"),
    ],
)
def test_a_complaint_about_toml_begins_with_the_path(text, complaint):
    assert refusal(text, "limits.toml")[0].startswith(complaint)


def test_everything_that_is_wrong_is_told_in_the_order_of_the_file():
    told = refusal("limits:\n  total:\n    a: x\n    b: [1]\nprojects: 5\nlimits: {}\n")
    assert [line.split(":")[1] for line in told] == ["3", "4", "5", "6"]


def test_of_many_mistakes_the_first_are_told_and_the_others_counted():
    told = refusal("limits:\n  total:\n" + "".join(f"    r{number}: x\n" for number in range(5000)))
    assert len(told) == 51
    assert told[-1] == "and 4950 more like these"


def test_aliases_that_would_explode_are_not_followed():
    bomb = "\n".join(
        ["projects: &a0 {x: }", *(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
    )
    assert "anchors" in refusal(bomb)[0]


def test_a_file_beyond_all_bounds_is_not_read():
    assert "at most" in refusal("#" * 16_000_001)[0]


@pytest.mark.parametrize("module", ["", ".document", ".reading", ".writing", ".comparing"])
def test_the_examples_in_the_docstrings(module):
    results = doctest.testmod(importlib.import_module(f"delimiter.limits_file{module}"))
    assert results.attempted
    assert not results.failed
