"""What the clients fight over: a small tree, a few resources, limits that are nearly reached all the time."""

from __future__ import annotations

from typing import Any, Final

from delimiter import Delimiter
from delimiter.engines.memory.rules import Rules
from delimiter.engines.memory.tree import Tree
from delimiter.model import Resource, Scope, service_of

#: Each project with its parent, parents first.
TREE: Final = {
    "acme": None,
    "globex": None,
    "acme/web": "acme",
    "acme/db": "acme",
    "acme/web/shop": "acme/web",
    "globex/lab": "globex",
}
#: Where a project may be moved to; never below itself, so that now and then a move is refused for its own sake only.
PARENTS: Final = ("acme", "globex", "acme/web", "acme/db", None)
MOVING: Final = ("acme/web/shop", "globex/lab", "acme/db")
PROJECTS: Final = tuple(TREE)
USERS: Final = ("john", "mary", "amrith", "vipul")
#: Who claims how often: most of them in the same place.
SKEW: Final = (1, 1, 2, 2, 6, 2)

TRACKED: Final = ("compute.cores", "compute.ram", "storage.gb")
#: Of this the callers of a race claim; only the deployment has a limit on it where no project is named.
RACED: Final = "storage.gb"

#: Counted from the service's own rows, where the store is an SQL database.
ROWS: Final = "compute.instances"

DEFINITIONS: Final[dict[str, dict[str, int]]] = {
    "compute.cores": {"max": 60, "project_max": 30, "user_max": 34},
    "compute.ram": {"project_max": 40, "user_max": 32},
    "storage.gb": {"max": 70},
    ROWS: {"max": 16, "project_max": 8},
}
#: Limits that are set before anybody claims.
OWN: Final[dict[tuple[str, str], int]] = {
    ("compute.cores", "project:acme/web"): 20,
    ("compute.cores", "project:acme"): 36,
    ("compute.ram", "user:john"): 20,
    ("storage.gb", "project:globex"): 25,
}
#: What an operator sets, up and down; ``None`` takes the limit away again.
LIMITS: Final[dict[tuple[str, str], tuple[int | None, ...]]] = {
    ("compute.cores", "project:acme/web"): (10, 15, 20, 25, None),
    ("compute.cores", "project:acme/web/shop"): (8, 14, 20, None),
    ("compute.cores", "user:mary"): (6, 12, 20, None),
    ("compute.ram", "project:acme"): (20, 30, 40, None),
    ("compute.cores", "total"): (40, 50, 60, None),
    ("storage.gb", "project:acme"): (25, 35, 45, None),
    (ROWS, "project:acme/web/shop"): (3, 6, 9, None),
}


def scope_of(text: str) -> Scope:
    """``project:acme`` as a scope."""
    kind, _, name = text.partition(":")
    return Scope(kind, name)  # type: ignore[arg-type]


def named(text: str) -> dict[str, str]:
    """``project:acme`` as the argument ``project="acme"``; the total has none."""
    kind, _, name = text.partition(":")
    return {kind: name} if name else {}


def set_up(quota: Delimiter, *, counting: bool) -> None:
    """Before the first client: definitions, limits and the tree."""
    for name in resources(counting=counting):
        quota.define_resource(name, **DEFINITIONS[name])  # type: ignore[arg-type]
    for project, parent in TREE.items():
        quota.add_project(project, parent=parent)
    for (name, scope), maximum in OWN.items():
        quota.update_limits(name, **named(scope), max=maximum)  # type: ignore[arg-type]


def resources(*, counting: bool) -> list[str]:
    return [name for name in DEFINITIONS if counting or name != ROWS]


def rules(*, counting: bool = True) -> Rules:
    """The same for the reference model."""
    return Rules(
        definitions=_definitions(counting=counting),
        own={(name, scope_of(scope)): (maximum, None) for (name, scope), maximum in OWN.items()},
        tree=Tree(TREE),
    )


def _definitions(*, counting: bool) -> dict[str, Resource]:
    def one(name: str, **limits: Any) -> Resource:
        return Resource(name=name, service=service_of(name), **limits)

    return {name: one(name, **DEFINITIONS[name]) for name in resources(counting=counting)}
