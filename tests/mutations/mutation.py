"""A mutation: one guard of the library taken out, and the tests that must notice."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["CONFORMANCE", "ROOT", "STORES", "Mutation", "Room"]

ROOT: Final = Path(__file__).parents[2]

#: The tests of the suite that every engine must pass are named by this and their name alone: they run on each store.
CONFORMANCE: Final = "conformance"

#: Where a mutation may be shown, each with the class that runs that suite there. Add a store here; if it is a server,
#: to those of :mod:`.running` too.
STORES: Final = {
    "memory": "TestMemory",
    "sqlite": "TestSQLite",
    "postgresql": "TestPostgreSQL",
    "mariadb": "TestMariaDB",
    "zookeeper": "TestZooKeeper",
    "galera": "TestGalera",
}


@dataclass(frozen=True, slots=True)
class Mutation:
    """A piece of source that stands exactly once in its file, and what it becomes."""

    name: str
    #: What is taken out, and what would go wrong without it: a line of the table in the documentation.
    guard: str
    without: str
    #: Below ``src/delimiter``.
    file: str
    source: str
    becomes: str
    #: As pytest names them, below ``tests``; or ``conformance::test_…``. Any of them that fails has caught it.
    tests: Sequence[str]
    #: On which store they run.
    store: str = "postgresql"
    #: Whether the tests are run with ``--apart``: the short way that claims usually go would hide what is missing.
    apart: bool = False
    #: A race is lost only sometimes: how often the tests are run before it has survived.
    attempts: int = 1

    def applied(self, text: str) -> str:
        """The file's text with the guard taken out; ``ValueError`` unless it is there exactly once."""
        found = text.count(self.source)
        if found != 1:
            raise ValueError(f"{self.name}: its source stands {found} times in {self.file}, not once")
        mutated = text.replace(self.source, self.becomes)
        ast.parse(mutated)
        return mutated

    def node_ids(self) -> list[str]:
        """Its tests, as pytest is told to run them."""
        return [_node_id(test, self.store) for test in self.tests]


def _node_id(test: str, store: str) -> str:
    file, _, name = test.partition("::")
    if file == CONFORMANCE:
        return f"tests/engines/test_conformance.py::{STORES[store]}::{name}"
    return f"tests/{test}"


@dataclass(frozen=True, slots=True)
class Room:
    """Mutations of what belongs together: a heading in the documentation."""

    title: str
    mutations: Sequence[Mutation]
