"""Edits of the rules: made while the store is closed, with everything they mean for counters, in one multi."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from delimiter.edits import (
    AddProject,
    AdoptAncestors,
    Adoption,
    AdoptLimits,
    Define,
    Edit,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
)
from delimiter.engines.memory.claims import Sum, Sums
from delimiter.engines.memory.editing import Editor, differ
from delimiter.engines.memory.journal import limit_changes
from delimiter.engines.memory.rules import Rules
from delimiter.engines.zookeeper.counters import Held
from delimiter.engines.zookeeper.eventlog import EventLog, Happening, crossing
from delimiter.engines.zookeeper.expiry import Expiry
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.holdings import Holdings, Key
from delimiter.engines.zookeeper.locking import Closed, Closing
from delimiter.engines.zookeeper.multi import Multi
from delimiter.engines.zookeeper.rulebook import is_limited
from delimiter.errors import Conflict
from delimiter.model import Overage, Resource, Scope
from delimiter.refusals import edited_since

__all__ = ["Edits"]

#: How often an edit sweeps what ran out and begins again.
_ATTEMPTS: Final = 5


class _Editor(Editor):
    """Makes edits on rules, and says of each what there is to tell. What scopes use is handed in, as far as needed."""

    def __init__(self, rules: Rules, work: _Work) -> None:
        super().__init__(rules, (), 0)
        self._work = work
        self._mine = False  # whether these rules may be altered: nobody else has them
        self.happenings: list[Happening] = []

    def sums(self) -> Sums:
        return self._work.sums(self.rules)

    def _make(self, edit: Edit) -> bool:
        if not isinstance(edit, SetLimit):
            self._mine = False
            return super()._make(edit)
        # There may be thousands of these in one list: not each of them on a copy.
        if not self._mine:
            self.rules, self._mine = self.rules.copy(), True
        self.rules.known([edit.resource])
        key = (edit.resource, edit.scope)
        before, was = self.rules.own.get(key), self.rules.maximum(key)
        self._set_limit(edit)
        now, used = self.rules.maximum(key), self._work.used(self.rules, key)
        if was != now:
            self.happenings.append(Happening("limit_changed", edit.resource, str(edit.scope), now, was, used))
        self.happenings += crossing(*key, (was, used), (now, used))
        changed = self.rules.own.get(key) != before
        self.rules.version += changed
        return changed

    def _made(self, before: Rules) -> bool:
        changed = differ(before, self.rules)
        self.rules.version += changed
        if changed:
            self.happenings += _happenings(before, self.rules, self._work.sums)
        return changed

    def _define(self, resource: Resource, before: Rules) -> None:
        if before.definitions.get(resource.name) != resource:
            super()._define(resource, before)


class Edits:
    """Edits the rules of one store."""

    def __init__(self, ground: Ground, events: EventLog, expiry: Expiry, closing: Closing) -> None:
        self._ground = ground
        self._events = events
        self._expiry = expiry
        self._closing = closing

    def edit(self, edits: Sequence[Edit], *, dry_run: bool, if_version: int | None) -> list[Overage]:
        self._ground.meet()
        rules = self._closing.opened().rules
        if if_version is not None and if_version != rules.version:
            raise edited_since(if_version, rules.version)
        if all(isinstance(edit, Define) and _is_defined(rules, edit.resource) for edit in edits):
            return []  # as at every start of every process
        with self._swept() as closed:
            return self._edit(closed, edits, dry_run=dry_run, if_version=if_version)

    def adopt(self, adoption: Adoption) -> None:
        self._ground.meet()
        if not _is_news(self._closing.opened().rules, adoption):
            return
        with self._swept() as closed:
            rules = closed.edition.rules
            work = _Work(self._ground, rules, _limits_adopted(rules, adoption), _moved_by(rules, adoption))
            editor = _Editor(rules, work)
            editor.adopt(adoption)
            self._commit(closed, editor, work)

    def _edit(
        self, closed: Closed, edits: Sequence[Edit], *, dry_run: bool, if_version: int | None
    ) -> list[Overage]:
        rules = closed.edition.rules
        if if_version is not None and if_version != rules.version:
            raise edited_since(if_version, rules.version)
        limits = {
            (edit.resource, edit.scope)
            for edit in edits
            if isinstance(edit, SetLimit) and edit.resource in rules.definitions
        }
        moved = [edit.id for edit in edits if isinstance(edit, AddProject | MoveProject | RemoveProject)]
        redefined = {
            edit.resource.name if isinstance(edit, Define) else edit.name
            for edit in edits
            if not isinstance(edit, SetLimit | AddProject | MoveProject | RemoveProject | SetOverbooking)
        }
        work = _Work(self._ground, rules, limits, moved, redefined)
        editor = _Editor(rules, work)
        editor.make(edits)
        if not dry_run:
            self._commit(closed, editor, work)
        return editor.overages()

    @contextmanager
    def _swept(self) -> Iterator[Closed]:
        """A store that is closed, and in which nothing has run out that is not swept."""
        for _ in range(_ATTEMPTS):
            with self._closing.closed() as closed:
                if not self._expiry.due(closed.now):
                    yield closed
                    return
            while self._expiry.sweep():
                continue
        raise Conflict("reservations run out all the time")

    def _commit(self, closed: Closed, editor: _Editor, work: _Work) -> None:
        before, after = closed.edition.rules, editor.rules
        if (before.adopted, before.version) == (after.adopted, after.version):
            return
        multi = Multi()
        self._make_room(multi, [name for name in after.definitions if name not in before.definitions])
        self._ground.rulebook.write(multi, closed.edition, after)
        work.write(multi, before, after)
        self._events.write(multi, editor.happenings, closed.now)
        multi.refuse_too_large("this edit", "make it in several edits, or set limits one by one")
        closed.commit(multi)

    def _make_room(self, multi: Multi, resources: Iterable[str]) -> None:
        """Nodes for the counters of new resources, if they are not there from an earlier definition."""
        layout = self._ground.layout
        places = {layout.resource(name)[0]: layout.resource(name) for name in resources}
        for place, node in self._ground.session.read_all(places).items():
            if node is None:
                for path in places[place]:
                    multi.create(path)


class _Work:
    """What an edit needs to know of counters, and what it changes in them.

    As little as possible is read: for limits the scopes that they are of; for projects that are moved what they
    hold, and only if that is anything, or if definitions change, every counter of the resources concerned.
    """

    def __init__(
        self,
        ground: Ground,
        rules: Rules,
        limits: set[Key],
        moved: Sequence[str],
        redefined: Iterable[str] = (),
    ) -> None:
        self._ground = ground
        self._rules = rules
        self._limits = limits
        self._holdings = Holdings(ground)
        self._whole = set(
            redefined
        )  # also those that are defined anew: their counters may hold what is long past
        subtrees = {Scope("project", one) for id in moved for one in rules.tree.subtree(id)}
        self._holdings.fetch((name, scope) for name in rules.definitions for scope in subtrees)
        for name in rules.definitions:
            if any(any(self._holdings[name, scope].own) for scope in subtrees):
                self._whole.add(name)
        self._holdings.fetch_all(self._whole)
        self._holdings.fetch_needed(rules, limits)
        # What is read while the store is closed stays so.
        self._fixed = {
            key: Sum(used, used - reserved)
            for key in limits
            if key[0] not in self._whole
            for used, reserved in [self._holdings.of(rules, key)]
            if used
        }

    def sums(self, rules: Rules) -> Sums:
        """What is used under rules on the way from those before the edit to those after it."""
        return {**self._holdings.of_all(self._whole, rules.tree), **self._fixed}

    def used(self, rules: Rules, key: Key) -> int:
        """What one scope uses whose limit is set."""
        if key[0] not in self._whole:
            return self._fixed.get(key, Sum()).used
        return self.sums(rules).get(key, Sum()).used

    def write(self, multi: Multi, before: Rules, after: Rules) -> None:
        """The counters that hold what is below them, where that has changed or must be known from now on."""
        for name in self._whole:
            if name in after.definitions:
                self._write_whole(multi, after, name)
        for key in self._limits:
            resource, scope = key
            if resource in self._whole or resource not in after.definitions or scope.kind == "user":
                continue
            if is_limited(after, *key) and not is_limited(before, *key):
                used, reserved = self._holdings.of(before, key)
                self._write(multi, key, self._with_whole(key, (used, reserved)))

    def _write_whole(self, multi: Multi, after: Rules, resource: str) -> None:
        sums = self._holdings.of_all([resource], after.tree)
        total = (resource, Scope.total())
        projects = {(resource, Scope("project", one)) for one in after.tree.parents}
        stale = {key for key in self._holdings.known if key[0] == resource and key[1].kind == "project"}
        for key in sorted({total} | projects | stale):
            if is_limited(after, *key):
                sum_ = sums.get(key, Sum())
                self._write(multi, key, self._with_whole(key, (sum_.used, sum_.used - sum_.provisioned)))

    def _with_whole(self, key: Key, whole: tuple[int, int]) -> Held:
        """The counter that holds this, with its own part as it is."""
        known = self._holdings[key]
        if key[1].kind == "total":
            return Held(whole, (0, 0), known.version)
        below = (whole[0] - known.own[0], whole[1] - known.own[1])
        return Held(known.own, below, known.version)

    def _write(self, multi: Multi, key: Key, amounts: Held) -> None:
        if amounts != self._holdings[key]:
            amounts.write(multi, self._ground.layout.counter(*key), *key)


def _happenings(before: Rules, after: Rules, sums: Callable[[Rules], Sums]) -> Iterable[Happening]:
    """What one step of an edit has to tell: limits first, then who has come over theirs, or is back within it."""
    used_before, used_after = sums(before), sums(after)
    if (before.definitions, before.own) != (after.definitions, after.own):
        for changed in limit_changes(before, after, used_after):
            yield Happening("limit_changed", *changed)
    for key in sorted(used_before.keys() | used_after.keys(), key=after.position):
        was = before.maximum(key) if key[0] in before.definitions else -1
        now = after.maximum(key) if key[0] in after.definitions else -1
        standings = (was, used_before.get(key, Sum()).used), (now, used_after.get(key, Sum()).used)
        yield from crossing(*key, *standings)


def _is_defined(rules: Rules, resource: Resource) -> bool:
    return rules.definitions.get(resource.name) == resource


def _limits_adopted(rules: Rules, adoption: Adoption) -> set[Key]:
    return (
        {(name, adoption.scope) for name in rules.definitions} if isinstance(adoption, AdoptLimits) else set()
    )


def _moved_by(rules: Rules, adoption: Adoption) -> list[str]:
    """The projects that may get another place."""
    if not isinstance(adoption, AdoptAncestors):
        return []
    path = (*reversed(adoption.ancestors), adoption.project)
    places = zip(path, (None, *path), strict=False)
    return [one for one, parent in places if one not in rules.tree or rules.tree.parents[one] != parent]


def _is_news(rules: Rules, adoption: Adoption) -> bool:
    """Whether nothing that was fetched later has been written before."""
    subjects = (
        [adoption.scope] if isinstance(adoption, AdoptLimits) else [*adoption.ancestors, adoption.project]
    )
    return any((known := rules.adopted.get(one)) is None or known < adoption.as_of for one in subjects)
