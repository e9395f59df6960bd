"""From a store's state to what a limits file says: the fewest words about it, and edits that work in their order."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delimiter import Delimiter, InvalidRequest
from delimiter.edits import AddProject, Define, Edit, MoveProject, RemoveProject, SetLimit, SetOverbooking
from delimiter.limits_file import Document, difference, edits, parse
from delimiter.model import OwnLimit, Project, Resource, Scope

STATE = """\
overbooking: allowed
resources: {storage.gb: {project_max: 20}, ram: }
projects: {acme: {web: {front: }, lab: }, globex: }
limits:
  total: {ram: 90}
  projects: {acme: {storage.gb: 500}, web: {storage.gb: {max: 5, min: 1}}}
  users: {john: {ram: 7}}
"""


def made(edits: Iterable[Edit], state: Document) -> Document:
    """The state after the edits, each of which must be possible on what the ones before it left."""
    resources = {one.name: one for one in state.resources or ()}
    parents = dict(state.projects or ())
    limits = {(own.scope, own.resource): own for own in state.own_limits or ()}
    overbooking = state.overbooking
    for edit in edits:
        match edit:
            case Define(resource):
                assert resources.get(resource.name) != resource
                resources[resource.name] = resource
            case SetLimit(resource, scope, change):
                assert resource in resources
                assert isinstance(change.max, int | None)
                assert isinstance(change.min, int | None)
                limits[scope, resource] = OwnLimit(resource, scope, change.max, change.min)
            case AddProject(name, parent):
                assert name not in parents
                assert parent is None or parent in parents
                parents[name] = parent
            case MoveProject(name, parent):
                assert parents[name] != parent
                assert parent is None or parent in parents
                assert parent is None or name not in [parent, *above(parent, parents)]
                parents[name] = parent
            case RemoveProject(name):
                assert name not in parents.values()
                del parents[name]
                limits = {key: own for key, own in limits.items() if key[0] != Scope("project", name)}
            case SetOverbooking(allowed):
                assert overbooking != ("allowed" if allowed else "forbidden")
                overbooking = "allowed" if allowed else "forbidden"
            case _:
                raise AssertionError(edit)
    return Document.of(
        resources.values(), [Project(*one) for one in parents.items()], limits.values(), overbooking
    )


def above(name: str, parents: dict[str, str | None]) -> list[str]:
    parent = parents[name]
    return [] if parent is None else [parent, *above(parent, parents)]


def lines(text: str, state: str = STATE) -> list[str]:
    return [str(one) for one in difference(parse(text), parse(state))]


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, told",
    [
        ("{}", []),
        ("overbooking: allowed", []),
        ("overbooking: forbidden", ["~ overbooking: allowed → forbidden"]),
        ("resources: {}", []),
        ("resources: {ram: {unit: MB}}", ['~ unit of ram: "" → MB']),
        ("resources: {storage.gb: }", ["~ project_max of storage.gb: 20 → unlimited"]),
        ("resources: {cpu: }", ["+ cpu: without default limits"]),
        ("resources: {cpu: {max: 5, user_max: 0}}", ["+ cpu: max 5, user_max 0"]),
        (
            "projects: {acme: {web: , lab: {front: }}, initech: }",
            [
                "~ project front: below web → below lab",
                "+ project initech: a root",
                "- project globex (was a root)",
            ],
        ),
        (
            "projects: {acme: {lab: }, globex: }",  # what a project has of its own goes with it
            [
                "- project front (was below web)",
                "- project web (was below acme)",
                "- max of storage.gb for project web (was 5)",
                "- min of storage.gb for project web (was 1)",
            ],
        ),
        (
            "limits: {total: {ram: unlimited}, projects: {acme: {storage.gb: 500}, web: {storage.gb: 5}}}",
            [
                "~ max of ram in total: 90 → unlimited",
                "- min of storage.gb for project web (was 1)",
                "- max of ram for user john (was 7)",
            ],
        ),
    ],
)
def test_a_difference_is_told_in_a_line(text, told):
    assert lines(text) == told
    assert bool(told) == bool(edits(parse(text), parse(STATE)))


def test_a_limit_of_nothing_is_refused_with_its_place():
    with pytest.raises(InvalidRequest) as caught:
        edits(parse("limits:\n  total:\n    storage.bg: 5\n    disk: 1\n"), parse(STATE))
    assert str(caught.value).splitlines() == [
        "limits.yaml:3: storage.bg is defined neither in the file nor in the store (did you mean storage.gb?)",
        "limits.yaml:4: disk is defined neither in the file nor in the store",
    ]


def test_a_limit_of_what_the_same_file_defines_is_taken():
    document = parse("resources: {disk: }\nlimits: {total: {disk: 5}}")
    assert [type(one) for one in edits(document, parse("{}"))] == [Define, SetLimit]


# --- what is done ---------------------------------------------------------------------------------


def test_a_resource_that_the_file_does_not_name_stays():
    assert edits(parse("resources: {}"), parse(STATE)) == []


def test_limits_are_set_before_projects_move():
    state = parse("resources: {ram: }\nprojects: {acme: , web: }\nlimits: {projects: {acme: {ram: 1}}}")
    document = parse("projects: {acme: {web: }}\nlimits: {projects: {acme: {ram: 9}}}")
    assert [type(one) for one in edits(document, state)] == [SetLimit, MoveProject]


def test_a_limit_of_a_project_that_leaves_the_tree_is_set_again():
    state = parse("resources: {ram: }\nprojects: {acme: }\nlimits: {projects: {acme: {ram: 1}}}")
    document = parse("projects: {}\nlimits: {projects: {acme: {ram: 1}}}")
    assert [type(one) for one in edits(document, state)] == [RemoveProject, SetLimit]
    assert lines("projects: {}", "projects: {acme: }") == ["- project acme (was a root)"]


def test_one_move_is_one_edit():
    document = parse("projects: {acme: {web: , lab: {front: }}, globex: }")
    assert edits(document, parse(STATE)) == [MoveProject("front", "lab")]


def test_projects_that_change_places_leave_first_and_no_further_than_they_must():
    state = parse("projects: {acme: {east: {a: }, west: {b: }}}")
    document = parse("projects: {acme: {east: {b: }, west: {a: }}}")
    assert edits(document, state) == [
        MoveProject("a", "acme"),  # not to the root: acme may be full, and holds it all the time
        MoveProject("b", "acme"),
        MoveProject("b", "east"),
        MoveProject("a", "west"),
    ]


@pytest.mark.parametrize("policy", ["", "overbooking: forbidden\n"])
def test_limits_are_set_in_any_order_where_overbooking_is_forbidden(policy):
    """It is looked at once, at the end: children may come before their parent, and the policy is not lifted."""
    tree = "overbooking: forbidden\nresources: {ram: }\nprojects: {a: {b: , c: }}\n"
    low = "limits: {projects: {a: {ram: 10}, b: {ram: 5}, c: {ram: 5}}}"
    high = "limits: {projects: {a: {ram: 20}, b: {ram: 15}, c: {ram: 5}}}"
    with Delimiter("memory://") as quota:
        quota.edit(edits(parse(tree), present(quota)))
        for wanted in (low, high, low):
            todo = edits(parse(policy + wanted), present(quota))
            assert {type(one) for one in todo} == {SetLimit}
            quota.edit(todo)
            assert present(quota) == parse(tree + wanted)
        overbooked = parse(policy + low.replace("10", "9"))
        with pytest.raises(InvalidRequest, match="overbooking is forbidden"):
            quota.edit(edits(overbooked, present(quota)))


@pytest.mark.parametrize("policy", ["allowed", "forbidden"])
def test_the_policy_comes_last(policy):
    before = parse("overbooking: " + {"allowed": "forbidden", "forbidden": "allowed"}[policy])
    todo = edits(parse(f"overbooking: {policy}\nresources: {{ram: }}\nlimits: {{total: {{ram: 1}}}}"), before)
    assert [type(one) for one in todo] == [Define, SetLimit, SetOverbooking]


NAMES = st.sampled_from("abcdefgh")


@st.composite
def trees(draw: st.DrawFn) -> list[Project]:
    names = draw(st.lists(NAMES, unique=True))
    return [Project(name, draw(st.sampled_from([None, *names[:count]]))) for count, name in enumerate(names)]


@st.composite
def states(draw: st.DrawFn) -> Document:
    limits = draw(
        st.dictionaries(
            st.builds(Scope, st.sampled_from(["project", "user"]), NAMES),
            st.tuples(st.none() | st.integers(-1, 9), st.none() | st.just(0)),
        )
    )
    return Document.of(
        [Resource("ram", "ram", max=draw(st.integers(-1, 3)))],
        draw(trees()),
        [OwnLimit("ram", scope, *values) for scope, values in limits.items()],
        draw(st.sampled_from(["allowed", "forbidden"])),
    )


@given(states(), states(), st.sets(st.sampled_from(["projects", "own_limits", "overbooking"])))
@settings(max_examples=400, deadline=None)
def test_the_edits_lead_from_any_state_to_any_other(present, wanted, left_out):
    sections = {
        name: None if name in left_out else getattr(wanted, name)
        for name in ("resources", "projects", "own_limits", "overbooking")
    }
    document = Document.of(**sections)
    after = made(edits(document, present), present)
    for name, section in sections.items():
        if section is not None:
            assert getattr(after, name) == section
    assert edits(document, after) == []
    assert difference(document, after) == []
    assert bool(difference(document, present)) == bool(edits(document, present))


# --- on a store -----------------------------------------------------------------------------------


def present(quota: Delimiter) -> Document:
    return Document.of(quota.resources(), quota.projects(), quota.own_limits(), quota.overbooking())


@given(states(), states())
@settings(max_examples=100, deadline=None)
def test_a_store_takes_the_edits_and_is_then_as_the_file_says(first, second):
    with Delimiter("memory://") as quota:
        for document in (first, second, first):
            todo = edits(document, present(quota))
            try:
                quota.edit(todo)
            except InvalidRequest:
                assert document.overbooking == "forbidden", "nothing else may be in the way"
                return
            assert present(quota) == document


def test_projects_change_places_where_there_is_no_room_for_both():
    with Delimiter("memory://") as quota:
        before = parse(
            "resources: {ram: }\nprojects: {all: {east: {a: }, west: {b: }}}\n"
            "limits: {projects: {all: {ram: 1}, east: {ram: 9}, west: {ram: 9}}}"
        )
        quota.edit(
            edits(parse("resources: {ram: }\nprojects: {all: {east: {a: }, west: {b: }}}"), present(quota))
        )
        for name in ("a", "b"):
            quota.claim({"ram": 8}, project=name)
        quota.edit(edits(before, present(quota)))  # over quota at the top, which a change below must not mind
        after = parse("projects: {all: {east: {b: }, west: {a: }}}")
        quota.edit(edits(after, present(quota)))
        assert present(quota).projects == after.projects
        assert quota.usage(project="all")["ram"].used == 16
        assert list(quota.reconcile()) == []
