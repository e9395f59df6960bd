"""Operations that name the same claims, put together: what can be judged on its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from soak.history import Operation
from soak.model import names, new_claims


def families(operations: Iterable[Operation]) -> Iterator[tuple[set[str], list[Operation]]]:
    """The ids of each family with the operations on them. Who was refused as a whole belongs to one, too."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    kept = []
    for operation in operations:
        if operation.outcome == "void":
            continue
        named = [name for step in operation.steps for name in names(step)]
        if not named:
            continue
        kept.append((operation, named[0]))
        for name in named[1:]:
            above[top(name)] = top(named[0])
    ids: dict[str, set[str]] = {}
    found: dict[str, list[Operation]] = {}
    for operation, name in kept:
        found.setdefault(top(name), []).append(operation)
        for step in operation.steps:
            ids.setdefault(top(name), set()).update(names(step), (one.id for one in new_claims(step)))
    for root, some in found.items():
        yield ids[root], some
