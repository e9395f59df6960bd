"""The limits file as a whole: what is written is read again, and its schema agrees with its parser."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from delimiter import InvalidRequest
from delimiter.limits_file import Document, difference, edits, parse, render, schema
from delimiter.limits_file.reading import LIMIT_KEYS, OVERBOOKING, RESOURCE_KEYS, SCOPE_KEYS, SECTIONS
from delimiter.model import CEILING, OwnLimit, Project, Resource, Scope

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=255)
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs"), include_characters="\n"), max_size=50)
MAXIMA = st.integers(-1, CEILING)


def floors(maximum: int | None) -> st.SearchStrategy[int]:
    """The minima that go with a maximum."""
    return st.integers(0, CEILING if maximum in (None, -1) else maximum)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    resources, limits = [], []
    for name in names:
        total, each = draw(MAXIMA), draw(MAXIMA)
        resources.append(
            Resource(
                name,
                draw(NAMES),
                max=total,
                min=draw(floors(total)),
                user_max=each,
                user_min=draw(floors(each)),
                unit=draw(TEXTS),
                description=draw(TEXTS),
            )
        )
        for scope in (Scope.total(), Scope("project", draw(NAMES)), Scope("user", name)):
            maximum = draw(st.none() | MAXIMA)
            limits.append(OwnLimit(name, scope, maximum, draw(st.none() | floors(maximum))))
    tree = [Project(name, draw(st.sampled_from([None, *names[:above]]))) for above, name in enumerate(names)]
    return Document.of(
        draw(st.sampled_from([None, resources])),
        draw(st.sampled_from([None, tree])),
        draw(st.sampled_from([None, limits])),
        draw(st.sampled_from([None, *OVERBOOKING])),
    )


@given(documents())
@settings(deadline=None)
def test_what_is_written_is_read_again(document):
    text = render(document)
    assert parse(text) == document
    assert not [line for line in text.split("\n") if line.endswith(" ")]
    assert fits(yaml.safe_load(text), schema()), "the schema refuses what the parser takes"


@pytest.mark.parametrize("character", ["\ufffe", "\u2028", "\ufeff", '"', "\\", "💾", "?"])
def test_the_longest_names_come_back(character):
    name = character * 255
    document = Document.of(
        [Resource(name, name)],
        [Project(name, None), Project(f"a{name[:254]}", name)],
        [OwnLimit(name, scope, 5, 1) for scope in (Scope.total(), Scope("user", name))],
    )
    assert parse(render(document)) == document


@given(documents())
@settings(deadline=None)
def test_a_state_does_not_differ_from_itself(document):
    resources = {own.resource: Resource(own.resource, "x") for own in document.own_limits or ()}
    resources.update({resource.name: resource for resource in document.resources or ()})
    present = Document.of(
        resources.values(),
        document.projects or (),
        document.own_limits or (),
        document.overbooking or "allowed",
    )
    assert edits(document, present) == []
    assert difference(document, present) == []


# --- the schema -----------------------------------------------------------------------------------


def fits(value: Any, rule: dict[str, Any]) -> bool:
    """Whether a value keeps to a JSON schema that is made of the few words that ours uses."""
    if "$ref" in rule:
        return fits(value, schema()["$defs"][rule["$ref"].removeprefix("#/$defs/")])
    return (
        _is_of_type(value, rule)
        and value in rule.get("enum", [value])
        and value == rule.get("const", value)
        and ("anyOf" not in rule or any(fits(value, one) for one in rule["anyOf"]))
        and (
            not isinstance(value, str)
            or rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", 10**6)
        )
        and (not isinstance(value, int) or rule.get("minimum", value) <= value <= rule.get("maximum", value))
        and (not isinstance(value, dict) or _entries_fit(value, rule))
    )


def _is_of_type(value: Any, rule: dict[str, Any]) -> bool:
    kinds = {"object": dict, "string": str, "integer": int, "null": type(None)}
    named = rule.get("type", list(kinds))
    wanted = [kinds[kind] for kind in ([named] if isinstance(named, str) else named)]
    return isinstance(value, tuple(wanted)) and not isinstance(value, bool)


def _entries_fit(value: dict[str, Any], rule: dict[str, Any]) -> bool:
    own, other = rule.get("properties", {}), rule.get("additionalProperties", {})
    return len(value) >= rule.get("minProperties", 0) and all(
        fits(key, rule.get("propertyNames", {}))
        and (fits(below, own[key]) if key in own else other is not False and fits(below, other))
        for key, below in value.items()
    )


def test_the_schema_knows_the_keys_that_the_parser_knows():
    found = schema()
    assert set(found["properties"]) == set(SECTIONS)
    assert found["properties"]["overbooking"]["enum"] == list(OVERBOOKING)
    assert set(found["properties"]["limits"]["properties"]) == set(SCOPE_KEYS)
    assert set(found["$defs"]["resource"]["properties"]) == set(RESOURCE_KEYS)
    assert set(found["$defs"]["limit"]["anyOf"][1]["properties"]) == set(LIMIT_KEYS)


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "limit: {}",
        "limits: ",
        "overbooking: maybe",
        "projects: {a: 5}",
        "resources: {a: {mx: 1}}",
        "resources: {a: {max: -2}}",
        "resources: {a: {min: unlimited}}",
        "resources: {a: {unit: 5}}",
        "limits: {total: {a: 9223372036854775808}}",
        "limits: {total: {a: true}}",
        "limits: {total: {a: {}}}",
        "limits: {total: {a: {mx: 1}}}",
        "limits: {users: {'': {a: 1}}}",
        "limits: {users: {john: 5}}",
    ],
)
def test_parser_and_schema_refuse_alike(text):
    with pytest.raises(InvalidRequest):
        parse(text)
    assert not fits(yaml.safe_load(text), schema())


def test_nothing_that_turns_a_line_round_is_written_as_it_is():
    """The file is shown on terminals and in reviews: a name must not make the rest of its line read backwards."""
    turning = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    document = Document.of(projects=[Project(f"a{turning}b", None)])
    assert not set(turning) & set(render(document))
    assert parse(render(document)) == document
