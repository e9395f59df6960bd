"""Edits and adoptions, each made on the rules as the ones before it left them."""

from __future__ import annotations

from collections.abc import Iterable

from delimiter.edits import (
    AddProject,
    AdoptAncestors,
    Adoption,
    AdoptLimits,
    Define,
    Edit,
    Keep,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
    Undefine,
)
from delimiter.engines.memory.claims import Key, Record, Sum, Sums, added_up
from delimiter.engines.memory.rules import Rules, listed
from delimiter.engines.memory.tree import Tree
from delimiter.errors import OverLimit
from delimiter.model import Overage, Resource, Scope
from delimiter.refusals import (
    has_children,
    has_claims,
    placed_elsewhere,
    still_claimed,
    unknown_project,
    would_circle,
)


class Editor:
    """Makes edits one after the other; ``rules`` are those that they leave. Claims stay as they are."""

    def __init__(self, rules: Rules, claims: Iterable[Record], now: int) -> None:
        self.rules = rules
        self._claims = list(claims)
        self._now = now
        self._concerned: set[Key] = set()

    def sums(self) -> Sums:
        return added_up(self._claims, self.rules.tree, self._now)

    def overages(self) -> list[Overage]:
        """Who holds more than a limit that these edits set or changed."""
        sums = self.sums()
        found = []
        for key in sorted(self._concerned, key=listed):
            used = sums.get(key, Sum()).used
            if key[0] in self.rules.definitions and self.rules.is_over(key, used):
                found.append(Overage(key[0], str(key[1]), self.rules.maximum(key), used))
        return found

    def make(self, edit: Edit) -> None:
        """Make one edit, or raise why not. What has changed counts as a new version."""
        before, self.rules = self.rules, self.rules.copy()
        match edit:
            case Define():
                self._define(edit.resource, before)
            case Undefine():
                self._undefine(edit.name)
            case SetLimit():
                self._set_limit(edit)
            case AddProject():
                self._add(edit.id, edit.parent)
            case MoveProject():
                self._move(edit.id, edit.parent)
            case RemoveProject():
                self._remove(edit.id)
            case SetOverbooking():
                self.rules.overbooking = edit.allowed
        if _differ(before, self.rules):
            self.rules.version += 1
            if not isinstance(edit, Undefine | RemoveProject):
                self.rules.refuse_overbooked()

    def _define(self, resource: Resource, before: Rules) -> None:
        self.rules.definitions[resource.name] = resource
        if resource.name in before.definitions:
            for key in self.sums():
                if key[0] == resource.name and before.maximum(key) != self.rules.maximum(key):
                    self._concerned.add(key)

    def _undefine(self, name: str) -> None:
        self.rules.known([name])
        if (name, Scope.total()) in self.sums():
            raise still_claimed(name)
        del self.rules.definitions[name]
        self.rules.own = {key: own for key, own in self.rules.own.items() if key[0] != name}

    def _set_limit(self, edit: SetLimit) -> None:
        self.rules.known([edit.resource])
        key = (edit.resource, edit.scope)
        maximum, minimum = self.rules.own.get(key, (None, None))
        self._set_own(
            key,
            maximum if edit.change.max is Keep.KEEP else edit.change.max,
            minimum if edit.change.min is Keep.KEEP else edit.change.min,
        )
        self._concerned.add(key)

    def _set_own(self, key: Key, maximum: int | None, minimum: int | None) -> None:
        self.rules.own.pop(key, None)
        if maximum is not None or minimum is not None:
            self.rules.own[key] = (maximum, minimum)

    # -- projects -----------------------------------------------------------------------------------------------

    def _add(self, id: str, parent: str | None) -> None:
        tree = self.rules.tree
        if id in tree:
            if tree.parents[id] != parent:
                raise placed_elsewhere(id, tree.parents[id], parent)
            return
        self._known_parent(parent)
        self._carry_to(tree.placed(id, parent))

    def _move(self, id: str, parent: str | None) -> None:
        tree = self.rules.tree
        if id not in tree:
            raise unknown_project(id)
        self._known_parent(parent)
        if parent is not None and tree.holds(id, parent):
            raise would_circle(id, parent)
        self._carry_to(tree.placed(id, parent))

    def _known_parent(self, parent: str | None) -> None:
        if parent is not None and parent not in self.rules.tree:
            raise unknown_project(parent)

    def _carry_to(self, tree: Tree) -> None:
        """Change the tree; whoever is charged with more by it must have room."""
        before = self.sums()
        self.rules.tree = tree
        if violations := self.rules.over(before, self.sums()):
            raise OverLimit(violations)

    def _remove(self, id: str) -> None:
        if id not in self.rules.tree:
            raise unknown_project(id)
        if children := self.rules.tree.children(id):
            raise has_children(id, children[0])
        scope = Scope("project", id)
        if any(key[1] == scope for key in self.sums()):
            raise has_claims(id)
        self.rules.tree = self.rules.tree.without(id)
        self.rules.own = {key: own for key, own in self.rules.own.items() if key[1] != scope}

    # -- what has happened elsewhere ----------------------------------------------------------------------------

    def adopt(self, adoption: Adoption) -> None:
        """Take it over unless something fetched later, or at the same moment, was taken over before."""
        subject = adoption.scope if isinstance(adoption, AdoptLimits) else adoption.project
        known = self.rules.adopted.get(subject)
        if known is not None and known >= adoption.as_of:
            return
        self.rules = self.rules.copy()
        self.rules.adopted[subject] = adoption.as_of
        match adoption:
            case AdoptLimits():
                self._adopt_limits(adoption)
            case AdoptAncestors():
                self._adopt_ancestors(adoption)

    def _adopt_limits(self, adoption: AdoptLimits) -> None:
        for name in self.rules.definitions:
            key = (name, adoption.scope)
            _, minimum = self.rules.own.get(key, (None, None))
            self._set_own(key, adoption.maxima.get(name), minimum)

    def _adopt_ancestors(self, adoption: AdoptAncestors) -> None:
        path = (adoption.project, *adoption.ancestors)
        for project, parent in zip(path, (*adoption.ancestors, None), strict=True):
            self.rules.tree = self.rules.tree.placed(project, parent)


def _differ(one: Rules, other: Rules) -> bool:
    return (one.definitions, one.own, one.tree.parents, one.overbooking) != (
        other.definitions,
        other.own,
        other.tree.parents,
        other.overbooking,
    )
