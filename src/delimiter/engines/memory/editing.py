"""Edits and adoptions, each made on the rules as the ones before it left them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    """Makes edits one after the other; ``steps`` are the rules that each left. Claims stay as they are."""

    def __init__(self, rules: Rules, claims: Iterable[Record], now: int) -> None:
        self.rules = rules
        self.steps = [rules]
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

    def make(self, edits: Sequence[Edit]) -> None:
        """Make all of them in order, or raise why not."""
        changed = [edit for edit in edits if self._make(edit)]
        if any(isinstance(edit, AddProject | MoveProject | SetOverbooking) for edit in changed):
            promised = set(self.rules.definitions)
        else:
            promised = {edit.resource for edit in changed if isinstance(edit, SetLimit)}
            promised |= {edit.resource.name for edit in changed if isinstance(edit, Define)}
        # Once, at the end: of a parent and its children one is always changed first.
        self.rules.refuse_overbooked(promised)

    def _make(self, edit: Edit) -> bool:
        """Whether it has changed anything."""
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
        return self._made(before)

    def _made(self, before: Rules) -> bool:
        """One step is made. What has changed counts as a new version."""
        changed = differ(before, self.rules)
        self.rules.version += changed
        self.steps.append(self.rules)
        return changed

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
        """Take over what was not fetched later, or at the same moment, by somebody who has written it already."""
        match adoption:
            case AdoptLimits():
                if self._is_newer(adoption.scope, adoption.as_of):
                    self._adopt_limits(adoption)
            case AdoptAncestors():
                path = (*reversed(adoption.ancestors), adoption.project)
                for project, parent in zip(path, (None, *path), strict=False):
                    self._adopt_place(project, parent, adoption.as_of)

    def _is_newer(self, subject: Scope | str, as_of: int) -> bool:
        known = self.rules.adopted.get(subject)
        return known is None or known < as_of

    def _adopt_limits(self, adoption: AdoptLimits) -> None:
        before, self.rules = self.rules, self.rules.copy()
        self.rules.adopted[adoption.scope] = adoption.as_of
        for name in self.rules.definitions:
            key = (name, adoption.scope)
            _, minimum = self.rules.own.get(key, (None, None))
            self._set_own(key, adoption.maxima.get(name), minimum)
        self._made(before)

    def _adopt_place(self, project: str, parent: str | None, as_of: int) -> None:
        """Of one name on the path; whose place is known from later stays there, with all that is below it."""
        if not self._is_newer(project, as_of):
            return
        before, self.rules = self.rules, self.rules.copy()
        self.rules.adopted[project] = as_of
        tree = self.rules.tree
        if parent is not None and parent not in tree:
            tree = tree.placed(parent, None)  # it stays where it is, which is nowhere: it was removed since
        # A part that stays may have its own parent below it: to put that here would make a circle, so it stays too.
        if parent is None or not tree.holds(project, parent):
            tree = tree.placed(project, parent)
        self.rules.tree = tree
        self._made(before)


def differ(one: Rules, other: Rules) -> bool:
    """Whether two rules are not the same, but for their versions and what was adopted when."""
    return (one.definitions, one.own, one.tree.parents, one.overbooking) != (
        other.definitions,
        other.own,
        other.tree.parents,
        other.overbooking,
    )
