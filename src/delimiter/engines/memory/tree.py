"""The tree of projects: who lies below whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from delimiter.model import Scope


class Tree:
    """Each project with its parent (``None``: a root). A project that it does not know is a root too.

    It is never altered once it is in use: an edit makes another one.
    """

    def __init__(self, parents: Mapping[str, str | None] | None = None) -> None:
        self.parents: dict[str, str | None] = dict(parents or {})
        self._children: dict[str | None, list[str]] | None = None

    def __contains__(self, project: str) -> bool:
        return project in self.parents

    def placed(self, project: str, parent: str | None) -> Tree:
        """The tree in which this project lies there."""
        return Tree({**self.parents, project: parent})

    def without(self, project: str) -> Tree:
        return Tree({one: parent for one, parent in self.parents.items() if one != project})

    def ancestors(self, project: str) -> list[str]:
        """The parent first, the root last."""
        found: list[str] = []
        above = self.parents.get(project)
        while above is not None:
            found.append(above)
            above = self.parents.get(above)
        return found

    def level(self, scope: Scope) -> int:
        """How many projects a project has above it."""
        return len(self.ancestors(scope.name)) if scope.kind == "project" else 0

    def path(self, project: str | None, user: str | None) -> list[Scope]:
        """Everything that a claim of this owner is charged to: the total, projects from the root down, the user."""
        names = [] if project is None else [*reversed(self.ancestors(project)), project]
        users = [] if user is None else [Scope("user", user)]
        return [Scope.total(), *(Scope("project", name) for name in names), *users]

    def charged(self, scopes: Iterable[Scope]) -> list[Scope]:
        """The same for the scopes of an owner."""
        named = {scope.kind: scope.name for scope in scopes}
        return self.path(named.get("project"), named.get("user"))

    def holds(self, project: str, owner: str | None) -> bool:
        """Whether what this owner has is charged to the project: it is that project, or lies below it."""
        return owner is not None and (owner == project or project in self.ancestors(owner))

    def children(self, project: str | None) -> list[str]:
        """By name; of ``None``: the roots."""
        if self._children is None:
            found: dict[str | None, list[str]] = {}
            for one in sorted(self.parents):
                found.setdefault(self.parents[one], []).append(one)
            self._children = found
        return list(self._children.get(project, ()))

    def subtree(self, project: str) -> list[str]:
        """The project itself and all below it."""
        found = [project]
        for one in found:  # grows while we walk
            found += self.children(one)
        return found

    def in_order(self) -> list[str]:
        """Each project right before what lies below it, siblings by name."""
        found: list[str] = []
        waiting = self.children(None)[::-1]
        while waiting:
            project = waiting.pop()
            found.append(project)
            waiting += self.children(project)[::-1]
        return found
