"""Definitions, limits and the tree: what admits, what refuses, and what children were promised."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from delimiter.engines.memory.claims import Key, Sum
from delimiter.engines.memory.tree import Tree
from delimiter.model import CEILING, UNLIMITED, Resource, Scope, Violation
from delimiter.refusals import overbooked, unknown_resource


def listed(key: Key) -> tuple[str, int, str]:
    """Where it stands in a list: by resource, kind and name of the scope."""
    resource, scope = key
    return resource, scope.rank, scope.name


@dataclass(slots=True)
class Rules:
    """All that edits change. An edit is made on a copy, which takes the place of this one if it is kept."""

    definitions: dict[str, Resource] = field(default_factory=dict)
    own: dict[Key, tuple[int | None, int | None]] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)
    overbooking: bool = True
    version: int = 0
    #: When that was fetched which was last adopted for a scope's limits, or (by its name) for a project's place.
    adopted: dict[Scope | str, int] = field(default_factory=dict)

    def copy(self) -> Rules:
        return replace(
            self, definitions=dict(self.definitions), own=dict(self.own), adopted=dict(self.adopted)
        )

    def unlimited(self) -> Rules:
        """The same without any maximum."""
        free = self.copy()
        free.definitions = {
            name: replace(one, max=UNLIMITED, project_max=UNLIMITED, user_max=UNLIMITED)
            for name, one in self.definitions.items()
        }
        free.own = {key: (None, minimum) for key, (_, minimum) in self.own.items()}
        return free

    def known(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            if name not in self.definitions:
                raise unknown_resource(name)

    def own_maximum(self, key: Key) -> int | None:
        return self.own.get(key, (None, None))[0]

    def maximum(self, key: Key) -> int:
        resource, scope = key
        own = self.own_maximum(key)
        return self.definitions[resource].default(scope.kind)[0] if own is None else own

    def minimum(self, key: Key) -> int:
        resource, scope = key
        _, own = self.own.get(key, (None, None))
        return self.definitions[resource].default(scope.kind)[1] if own is None else own

    def is_over(self, key: Key, used: int) -> bool:
        return self.maximum(key) != UNLIMITED and used > self.maximum(key)

    def position(self, key: Key) -> tuple[str, int, int, str]:
        """By resource; the total, then projects from the root down, then users."""
        resource, scope = key
        return resource, scope.rank, self.tree.level(scope), scope.name

    def barrier(self, key: Key, owners: Collection[Scope]) -> int | None:
        """What must not be passed. Where nothing limits it, the claim's owner counts up to the ceiling."""
        maximum = self.maximum(key)
        if maximum != UNLIMITED:
            return maximum
        return CEILING if key[1] in owners else None

    def over(
        self, before: Mapping[Key, Sum], after: Mapping[Key, Sum], owners: Collection[Scope] = ()
    ) -> list[Violation]:
        """The limits that would be passed by what grows."""
        found = []
        for key in sorted(after, key=self.position):
            used, barrier = before.get(key, Sum()).used, self.barrier(key, owners)
            more = after[key].used - used
            if barrier is not None and more > 0 and used + more > barrier:
                found.append(Violation(key[0], str(key[1]), barrier, used, more, max(0, barrier - used)))
        return found

    def below(self, before: Mapping[Key, Sum], after: Mapping[Key, Sum]) -> list[Violation]:
        """The floors that what is given back would fall below."""
        found = []
        for key in sorted(before, key=self.position):
            had, floor = before[key].provisioned, self.minimum(key)
            less = after.get(key, Sum()).provisioned - had
            if less < 0 and had + less < floor:
                found.append(Violation(key[0], str(key[1]), floor, had, less, max(0, had - floor)))
        return found

    # -- overbooking --------------------------------------------------------------------------------------------

    def promised(self, resource: str, project: str) -> int:
        """What a project may count on: its limit, or, where it has none, what its children may count on."""
        maximum = self.maximum((resource, Scope("project", project)))
        if maximum != UNLIMITED:
            return maximum
        return sum(self.promised(resource, child) for child in self.tree.children(project))

    def refuse_overbooked(self, resources: Collection[str]) -> None:
        """Where the policy forbids it, no limit of these may be smaller than what was promised to the children."""
        if self.overbooking:
            return
        for resource in sorted(self.definitions.keys() & resources):
            for project in self.tree.in_order():
                maximum = self.maximum((resource, Scope("project", project)))
                children = {one: self.promised(resource, one) for one in self.tree.children(project)}
                if maximum != UNLIMITED and sum(children.values()) > maximum:
                    raise overbooked(resource, project, maximum, children)
