"""What is no edit is refused before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from delimiter import Delimiter, InvalidRequest, UnknownProject
from delimiter.edits import AddProject, Define, LimitChange, MoveProject, SetLimit, SetOverbooking
from delimiter.model import Scope

_ACME = Scope("project", "acme")
_CHANGE = LimitChange(max=1)
# What a program without types could hand in.
_ANY: Any = None
_PAIR: Any = ("project", "acme")

NO_EDITS: dict[str, Any] = {
    "nothing": _ANY,
    "a number": 5,
    "one edit": AddProject("web", None),
    "a list of nothing": [_ANY],
    "a text": "edit",
    "no definition": [Define(_ANY)],
    "a definition that is a name": [Define("cores")],  # type: ignore[arg-type]
    "a scope that is a text": [SetLimit("cores", "project:acme", _CHANGE)],  # type: ignore[arg-type]
    "a scope that is nothing": [SetLimit("cores", _ANY, _CHANGE)],
    "a scope that is a pair": [SetLimit("cores", _PAIR, _CHANGE)],
    "no change": [SetLimit("cores", _ACME, _ANY)],
    "a change that is a number": [SetLimit("cores", _ACME, 5)],  # type: ignore[arg-type]
    "a change to a text": [SetLimit("cores", _ACME, LimitChange(max="5"))],  # type: ignore[arg-type]
    "an unknown kind": [SetLimit("cores", Scope("group", "x"), _CHANGE)],  # type: ignore[arg-type]
    "a kind that is a list": [SetLimit("cores", Scope(["project"], "x"), _CHANGE)],  # type: ignore[arg-type]
    "a named total": [SetLimit("cores", Scope("total", "x"), _CHANGE)],
    "a total named nothing": [SetLimit("cores", Scope("total", _ANY), _CHANGE)],
    "a project that is a number": [SetLimit("cores", Scope("project", 5), _CHANGE)],  # type: ignore[arg-type]
    "a project without a name": [SetLimit("cores", Scope("project"), _CHANGE)],
    "overbooking that is a text": [SetOverbooking("no")],  # type: ignore[arg-type]
    "overbooking that is a number": [SetOverbooking(0)],  # type: ignore[arg-type]
    "an id that is a number": [AddProject(5, None)],  # type: ignore[arg-type]
    "a parent that is a number": [MoveProject("acme", 5)],  # type: ignore[arg-type]
}


@pytest.fixture
def quota() -> Delimiter:
    made = Delimiter("memory://")
    made.define_resource("cores", project_max=5)
    made.add_project("acme")
    return made


def everything(quota: Delimiter) -> Any:
    return quota.version(), quota.resources(), quota.own_limits(), quota.projects(), quota.overbooking()


@pytest.mark.parametrize("edits", NO_EDITS.values(), ids=NO_EDITS.keys())
def test_what_is_no_edit_is_refused_and_changes_nothing(quota, edits):
    """Guard: `rules._looked_through`, `_definition`, `_limit`, `_scope`."""
    before = everything(quota)
    with pytest.raises(InvalidRequest):
        quota.edit(edits)
    if isinstance(edits, list):
        with pytest.raises(InvalidRequest):
            quota.edit([AddProject("new", None), *edits])
    assert everything(quota) == before


@pytest.mark.parametrize("number", [True, False, "1", 1.0])
def test_a_version_is_a_number(quota, number):
    before = everything(quota)
    with pytest.raises(InvalidRequest, match="if_version"):
        quota.edit([AddProject("new", None)], if_version=number)
    assert everything(quota) == before


@pytest.mark.parametrize("project, error", [("acme", InvalidRequest), ("new", UnknownProject)])
def test_a_project_is_not_its_own_parent(quota, project, error):
    before = everything(quota)
    with pytest.raises(error):
        quota.add_project(project, parent=project)
    assert everything(quota) == before


def test_a_generator_of_edits_is_a_list_of_them(quota):
    quota.edit(AddProject(name, "acme") for name in ("web", "shop"))
    assert len(quota.projects()) == 3
