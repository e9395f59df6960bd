"""What the state machine draws its calls from: few names and small numbers, so that they meet."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from delimiter.edits import (
    AddProject,
    Define,
    Edit,
    LimitChange,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
    Undefine,
)
from delimiter.model import Resource, Scope

__all__ = [
    "EXTERNAL",
    "KNOWN",
    "PROJECTS",
    "RESOURCES",
    "SCOPES",
    "adopted_maxima",
    "adopted_paths",
    "ages",
    "contents",
    "edits",
    "ids",
    "maxima",
    "maybe",
    "owners",
    "parents",
    "projects",
    "rarely",
    "requests",
    "resources",
    "scopes",
    "spans",
    "tree_verbs",
]

EXTERNAL: Final = tuple(f"e{n}" for n in range(3))
RESOURCES: Final = ("cores", "ram", "disc")
PROJECTS: Final = ("acme", "web", "shop", "zeta")
_USERS: Final = ("john", "mary")

#: Times are whole hundreds of seconds, so that the moments between two calls decide nothing.
spans = st.sampled_from([100, 200, 300])
#: Which claim a verb is about: one of the last that were asked for, rarely an external id or one that nobody knows.
KNOWN: Final = 10
ids = st.integers(0, KNOWN + len(EXTERNAL))
rarely = st.integers(0, 9).map(lambda number: number == 9)
resources = st.sampled_from(RESOURCES)
contents = st.dictionaries(resources, st.integers(1, 4), min_size=1, max_size=3)
owners = st.sampled_from(
    [
        {"project": project, "user": user}
        for project in (None, *PROJECTS)
        for user in (None, *_USERS)
        if project or user
    ]
)
SCOPES: Final[list[dict[str, Any]]] = [
    {},
    *({"project": one} for one in PROJECTS),
    *({"user": one} for one in _USERS),
]
scopes = st.sampled_from(SCOPES)
projects = st.sampled_from(PROJECTS)
#: Where a project is put; rarely below one that nobody knows.
parents = st.sampled_from([None, *PROJECTS, *PROJECTS] * 2 + ["nobody"])
tree_verbs = st.sampled_from(["add"] * 5 + ["remove", "remove", "forbid", "allow"])
maxima = st.integers(-1, 9)
maybe = st.one_of(st.none(), st.integers(0, 9))
requests = st.fixed_dictionaries(
    {
        "resources": contents,
        "owner": owners,
        "again": rarely,
        "id": ids,
        "below": st.integers(0, 3).map(lambda number: number == 3),
        "parent": ids,
        "external_id": st.sampled_from([None] * 4 + [*EXTERNAL]),
        "expires_in": st.one_of(st.none(), spans),
    }
)

_definitions = st.builds(
    Resource,
    name=resources,
    service=st.just("machine"),
    max=st.integers(-1, 20),
    project_max=maxima,
    user_max=maxima,
)
_limits = st.builds(
    SetLimit,
    resource=resources,
    scope=st.sampled_from([Scope.of(**whom) for whom in SCOPES]),
    change=st.builds(LimitChange, max=maybe),
)
_single_edits: st.SearchStrategy[Edit] = st.one_of(
    _limits,
    st.builds(Define, _definitions),
    _limits,
    st.builds(AddProject, projects, parents),
    st.builds(MoveProject, projects, parents),
    _limits,
    st.builds(RemoveProject, projects),
    st.builds(SetOverbooking, allowed=st.sampled_from([True, True, True, False])),
    st.builds(Undefine, resources),
)
edits = st.lists(_single_edits, min_size=2, max_size=4)

#: How long ago it was fetched what is adopted, in adoptions since: mostly just now.
ages = st.sampled_from([0, 0, 0, 1, 2, 4])
adopted_maxima = st.dictionaries(resources, maxima, max_size=3)
#: A project, then its ancestors, the parent first.
adopted_paths = st.lists(projects, min_size=1, max_size=4, unique=True)
