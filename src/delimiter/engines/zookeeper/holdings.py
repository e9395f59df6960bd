"""What scopes use, added up from counters: for edits, which need it while the store is closed, and for readings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from delimiter.engines.memory.claims import Sum, Sums
from delimiter.engines.memory.rules import Rules
from delimiter.engines.memory.tree import Tree
from delimiter.engines.zookeeper.counters import Held, held, read_counter
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.rulebook import is_limited
from delimiter.model import Scope

__all__ = ["Holdings", "Key", "added_up"]

#: A resource and a scope.
Key = tuple[str, Scope]


@dataclass(slots=True)
class Holdings:
    """Counters of one store, as far as they have been read; one that is not there holds nothing."""

    ground: Ground
    known: dict[Key, Held] = field(default_factory=dict)
    #: The resources of which all counters are known.
    whole: set[str] = field(default_factory=set)

    def __getitem__(self, key: Key) -> Held:
        return self.known.get(key) or Held()

    def fetch(self, keys: Iterable[Key]) -> None:
        layout = self.ground.layout
        paths = {
            layout.counter(*key): key for key in keys if key not in self.known and key[0] not in self.whole
        }
        for path, node in self.ground.session.read_all(paths).items():
            self.known[paths[path]] = held(node, path)

    def fetch_all(self, resources: Collection[str]) -> None:
        """Every counter of these resources."""
        layout, session = self.ground.layout, self.ground.session
        shards = [one for name in resources if name not in self.whole for one in layout.resource(name)[1:]]
        found = session.children_of(shards)
        paths = [f"{shard}/{name}" for shard, names in found.items() for name in names]
        for path, node in session.read_all(paths).items():
            if node is not None:
                resource, scope, amounts = read_counter(node, path)
                if path == layout.counter(resource, scope):
                    self.known[resource, scope] = amounts
        self.whole.update(resources)

    def of_all(self, resources: Collection[str], tree: Tree) -> Sums:
        """What every scope uses of these, whose counters are all known."""
        return added_up({key: amounts for key, amounts in self.known.items() if key[0] in resources}, tree)

    def needed(self, rules: Rules, key: Key) -> list[Key] | None:
        """The counters that tell what a scope uses; ``None``: all of the resource."""
        resource, scope = key
        if scope.kind == "user" or is_limited(rules, resource, scope):
            return [key]
        if scope.kind == "total":
            return None
        return [(resource, Scope("project", one)) for one in rules.tree.subtree(scope.name)]

    def fetch_needed(self, rules: Rules, keys: Iterable[Key]) -> None:
        wanted: list[Key] = []
        for key in keys:
            needed = self.needed(rules, key)
            if needed is None:
                self.fetch_all([key[0]])
            else:
                wanted += needed
        self.fetch(wanted)

    def of(self, rules: Rules, key: Key) -> tuple[int, int]:
        """What a scope uses, and how much of it is reserved; what is needed for it has been fetched."""
        resource, scope = key
        if scope.kind == "user" or is_limited(rules, resource, scope):
            return self[key].whole
        if scope.kind == "total":
            total = self.of_all([resource], Tree()).get(key, Sum())
            return total.used, total.used - total.provisioned
        parts = [self[resource, Scope("project", one)].own for one in rules.tree.subtree(scope.name)]
        return sum(used for used, _ in parts), sum(reserved for _, reserved in parts)


def added_up(counters: Mapping[Key, Held], tree: Tree) -> Sums:
    """What every scope uses that uses anything, from what projects and users hold themselves."""
    found: Sums = {}

    def add(key: Key, amounts: tuple[int, int]) -> None:
        used, reserved = amounts
        sum_ = found.setdefault(key, Sum())
        sum_.used += used
        sum_.provisioned += used - reserved

    for (resource, scope), amounts in counters.items():
        if scope.kind == "project":
            if any(amounts.own):
                for charged in tree.path(scope.name, None):
                    add((resource, charged), amounts.own)
        elif scope.kind == "user":
            if any(amounts.whole):
                add((resource, scope), amounts.whole)
            if any(amounts.own):  # claimed outside of projects
                add((resource, Scope.total()), amounts.own)
    return found
