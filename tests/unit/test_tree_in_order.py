"""The words that several rooms share: the order of a tree, and the service of a resource."""

from __future__ import annotations

import doctest
from itertools import permutations
from typing import get_args

import pytest

import delimiter
from delimiter import InvalidRequest, limits_file, model, rules, source
from delimiter.limits_file import Document
from delimiter.model import Project, in_order, service_of

TREE = [Project("a", None), Project("b", "a"), Project("c", "b"), Project("d", "a"), Project("e", None)]


def test_a_tree_has_one_order():
    for shuffled in permutations(TREE):
        assert in_order(shuffled) == TREE


@pytest.mark.parametrize(
    "projects",
    [
        [Project("a", None), Project("a", None)],
        [Project("a", None), Project("a", "a")],
        [Project("a", "b"), Project("b", "a")],
        [Project("a", "nowhere")],
    ],
    ids=["twice", "its own parent", "a circle", "below nothing"],
)
def test_what_is_no_tree_ends_all_the_same(projects):
    """Guard: `pop` in `in_order`. A project named twice, once below itself, would be gone round for ever."""
    assert len(in_order(projects)) <= len(projects)
    with pytest.raises(InvalidRequest, match="no tree"):
        Document.of(projects=projects)


@pytest.mark.parametrize("name", ["storage.gb", "storage", ".gb", "a.b.c", "."])
def test_a_file_and_a_program_mean_the_same_service(name):
    quota = delimiter.Delimiter("memory://")
    quota.define_resource(name)
    document = limits_file.parse(f"resources: {{'{name}': }}")
    assert list(document.resources or ()) == quota.resources()
    assert quota.resources()[0].service == service_of(name)


def test_there_is_one_word_for_overbooking():
    assert delimiter.Overbooking is rules.Overbooking is limits_file.Overbooking
    assert get_args(delimiter.Overbooking) == ("allowed", "forbidden")


@pytest.mark.parametrize("module", [model, source], ids=["model", "source"])
def test_the_examples_in_the_docstrings(module):
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed
