"""In which order the tests are begun where several processes share them.

What belongs together (a class, or the module's other tests) runs in one process. A long one that was begun last would
run alone while the others have nothing left to do; so those are begun first, and then those with the most tests.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

__all__ = ["LONGEST", "in_order"]

#: What takes a minute or more, roughly the longest first.
LONGEST: Final = (
    "tests/engines/test_conformance.py",
    "docs/command-line.md",
    "tests/interleavings/test_interleavings.py",
    "tests/soak/test_soak.py",
    "tests/engines/test_guards_races.py",
    "tests/engines/test_tree_moments.py",
    "tests/engines/test_zookeeper_ensemble.py",
    "tests/engines/test_galera_nodes.py",
    "tests/engines/test_galera.py",
    "tests/engines/test_galera_conformance.py",
    "tests/cli/test_demo.py",
    "tests/engines/test_callers_races.py",
    "tests/engines/test_crashes.py",
    "tests/engines/test_snapshots.py",
    "tests/engines/test_events.py",
    "tests/engines/test_tree_load.py",
    "tests/example/test_under_load.py",
    "tests/recipes/test_killed_workers.py",
    "tests/engines/test_reconciling_memory.py",
    "tests/engines/test_handlers.py",
    "tests/engines/test_schema.py",
    "tests/engines/test_rule_corners.py",
    "tests/engines/test_lock_waits.py",
    "tests/cli/test_endings.py",
    "tests/cli/test_projects.py",
)


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """The same tests; those of one group stay in their order."""
    sizes = Counter(_group(item) for item in items)
    ranks = {name: rank for rank, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> tuple[int, int]:
        return ranks.get(item.nodeid.partition("::")[0], len(ranks)), -sizes[_group(item)]

    return sorted(items, key=place)


def _group(item: pytest.Item) -> str:
    return item.nodeid.rpartition("::")[0]
