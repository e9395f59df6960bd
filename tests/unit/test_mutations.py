"""The list of mutations stays true: each still applies, its tests are there, and the documentation shows it."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from mutations.catalogue import MUTATIONS, ROOMS
from mutations.mutation import CONFORMANCE, ROOT, STORES, Mutation
from mutations.page import PAGE, written
from mutations.running import Runner


@cache
def text_of(file: str) -> str:
    return (ROOT / "src" / "delimiter" / file).read_text()


@cache
def functions_in(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    if file == CONFORMANCE:
        return any(name in functions_in(path) for path in (ROOT / "src/delimiter/conformance").glob("*.py"))
    path = ROOT / "tests" / file
    return path.exists() and (not name or name.partition("[")[0] in functions_in(path))


def test_each_applies_exactly_once() -> None:
    wrong = [said for one in MUTATIONS if (said := what_is_wrong_with(one))]
    assert not wrong, "\n".join(wrong)


def what_is_wrong_with(mutation: Mutation) -> str | None:
    text = text_of(mutation.file)
    try:
        return f"{mutation.name}: it changes nothing" if mutation.applied(text) == text else None
    except ValueError as error:  # it names the mutation
        return str(error)
    except SyntaxError as error:
        return f"{mutation.name}: {error}"


def test_the_tests_of_each_are_there() -> None:
    assert [one.name for one in MUTATIONS if one.store not in STORES or not one.tests] == []
    missing = [f"{one.name}: {test}" for one in MUTATIONS for test in one.tests if not is_there(test)]
    assert not missing, "\n".join(missing)


def test_each_has_a_name_of_its_own() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == written(ROOMS), "run `make mutations ARGS=--page`"


@pytest.mark.parametrize("text", ["", "in_doubt in_doubt"])
def test_a_source_that_is_not_there_once_is_told(text: str) -> None:
    mutation = replace(_TRIED, source="in_doubt", becomes="")
    with pytest.raises(ValueError, match="not once"):
        mutation.applied(text)


_TRIED = Mutation(
    name="doubt",
    guard="what was in doubt is said to be",
    without="it is not",
    file="desk.py",
    source="if in_doubt:  # what stands in its way may be its own doing",
    becomes="if in_doubt and not error:",
    tests=("unit/test_in_doubt.py::test_a_removal_in_doubt_is_not_taken_for_unknown",),
    store="memory",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "verdict, mutation", [("caught", _TRIED), ("survived", replace(_TRIED, becomes="if in_doubt:"))]
)
def test_a_verdict(verdict: str, mutation: Mutation) -> None:
    """The tests run on the copy, and on nothing else: without the change in it they pass."""
    with Runner({}, seed=1) as runner:
        outcome = runner.run(mutation)
    assert (outcome.verdict, outcome.runs) == (verdict, 1)
    assert ("in_doubt" in outcome.caught_by) == (verdict == "caught")
