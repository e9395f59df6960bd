"""The engine itself: one lock, and every call on what is there now."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from delimiter.engine import Answer, ClaimQuery, Engine, OpenOptions
from delimiter.engines.memory.claims import Key, Record, Sum, Sums, instant
from delimiter.engines.memory.editing import Editor
from delimiter.engines.memory.journal import Journal
from delimiter.engines.memory.rules import Rules, listed
from delimiter.engines.memory.trial import Trial
from delimiter.errors import DelimiterError, InvalidRequest, Unsupported
from delimiter.model import (
    UNLIMITED,
    Claim,
    Consumer,
    Decision,
    Drift,
    Event,
    Level,
    Overage,
    OwnLimit,
    Project,
    ProjectUsage,
    Resource,
    Running,
    Scope,
    Usage,
)
from delimiter.refusals import edited_since

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from delimiter.changes import Change
    from delimiter.edits import Adoption, Edit
    from delimiter.model import CallersConnection


def open_memory(store: object, options: OpenOptions) -> Engine:
    """A new, empty store of this process alone; ``memory://`` twice makes two."""
    if store != "memory://":
        raise InvalidRequest(f"{store!r}: the memory engine has nothing to name; write memory://")
    return MemoryEngine()


class MemoryEngine(Engine):
    """Claims in a dictionary of this process, behind one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules = Rules()
        self._claims: dict[str, Record] = {}
        self._journal = Journal()
        self._order = itertools.count(1)

    def apply(
        self, changes: Sequence[Change], *, connection: CallersConnection | None = None
    ) -> list[Answer]:
        _without(connection)
        with self._lock:
            return [self._decide(change) for change in changes]

    def _decide(self, change: Change) -> Answer:
        trial = self._trial()
        self._journal.look(self._rules, self._rules, trial.sums(), trial.now)
        try:
            claims = trial.make(change)
        except DelimiterError as refusal:
            return refusal
        self._claims = trial.claims
        self._journal.look(self._rules, self._rules, trial.sums(), trial.now)
        return claims

    def _trial(self) -> Trial:
        return Trial(self._rules, self._claims, self.now(), self._order)

    def _sums(self) -> Sums:
        return self._trial().sums()

    def now(self) -> int:
        return time.time_ns() // 1000 + self.clock_offset

    def check(
        self,
        resources: Mapping[str, int],
        scopes: Sequence[Scope],
        *,
        connection: CallersConnection | None = None,
    ) -> Decision:
        _without(connection)
        with self._lock:
            self._rules.known(resources)
            before, path = self._sums(), self._rules.tree.charged(scopes)
            wanted = {(name, scope): amount for name, amount in resources.items() for scope in path}
            after = {key: Sum(before.get(key, Sum()).used + amount) for key, amount in wanted.items()}
            room: dict[str, int | None] = {}
            for name in sorted(resources):
                limited = [(name, scope) for scope in path if self._rules.maximum((name, scope)) != UNLIMITED]
                rooms = [max(0, self._rules.maximum(key) - before.get(key, Sum()).used) for key in limited]
                room[name] = min(rooms, default=None)
            violations = tuple(self._rules.over(before, after, scopes))
        return Decision(not violations, violations, room)

    # -- the rules ----------------------------------------------------------------------------------------------

    def edit(
        self, edits: Sequence[Edit], *, dry_run: bool = False, if_version: int | None = None
    ) -> list[Overage]:
        with self._lock:
            if if_version is not None and if_version != self._rules.version:
                raise edited_since(if_version, self._rules.version)
            now = self.now()
            editor = Editor(self._rules, self._claims.values(), now)
            editor.make(edits)
            if not dry_run:
                self._keep(editor.steps, now)
            return editor.overages()

    def adopt(self, adoption: Adoption, *, connection: CallersConnection | None = None) -> bool:
        _without(connection)
        with self._lock:
            now = self.now()
            editor = Editor(self._rules, self._claims.values(), now)
            editor.adopt(adoption)
            self._keep(editor.steps, now)
        return True

    def _keep(self, steps: Sequence[Rules], now: int) -> None:
        """The last of these rules are in force; each step has its events."""
        for before, after in itertools.pairwise([steps[0], *steps]):  # first what time alone has changed
            trial = Trial(after, self._claims, now, self._order)
            self._journal.look(before, after, trial.sums(), now)
        self._rules = steps[-1]

    def version(self) -> int:
        with self._lock:
            return self._rules.version

    def resources(self) -> list[Resource]:
        with self._lock:
            return [self._rules.definitions[name] for name in sorted(self._rules.definitions)]

    def own_limits(self) -> list[OwnLimit]:
        with self._lock:
            return [OwnLimit(*key, *self._rules.own[key]) for key in sorted(self._rules.own, key=listed)]

    def projects(self) -> list[Project]:
        with self._lock:
            tree = self._rules.tree
            return [Project(one, tree.parents[one]) for one in tree.in_order()]

    def ancestors(self, project: str) -> list[str]:
        with self._lock:
            return self._rules.tree.ancestors(project)

    def overbooking(self) -> bool:
        with self._lock:
            return self._rules.overbooking

    # -- looking ------------------------------------------------------------------------------------------------

    def limits(self, scope: Scope) -> dict[str, int]:
        with self._lock:
            return {name: self._rules.maximum((name, scope)) for name in sorted(self._rules.definitions)}

    def usage(self, scope: Scope, *, connection: CallersConnection | None = None) -> dict[str, Usage]:
        _without(connection)
        with self._lock:
            return self._usage(scope, self._sums())

    def _usage(self, scope: Scope, sums: Sums) -> dict[str, Usage]:
        return {name: Usage(*self._numbers((name, scope), sums)) for name in sorted(self._rules.definitions)}

    def _numbers(self, key: Key, sums: Sums) -> tuple[int, int, int]:
        """The limit, what is used, and the part of it that is reserved."""
        sum_ = sums.get(key, Sum())
        return self._rules.maximum(key), sum_.used, sum_.used - sum_.provisioned

    def tree(self) -> list[ProjectUsage]:
        with self._lock:
            tree, sums = self._rules.tree, self._sums()
            for _, scope in sums:
                if scope.kind == "project" and scope.name not in tree:
                    tree = tree.placed(scope.name, None)
            return [
                ProjectUsage(one, tree.parents[one], self._usage(Scope("project", one), sums))
                for one in tree.in_order()
            ]

    def levels(
        self, names: Sequence[str], scopes: Sequence[Scope], *, connection: CallersConnection | None = None
    ) -> list[Level]:
        _without(connection)
        with self._lock:
            self._rules.known(names)
            sums, path = self._sums(), self._rules.tree.charged(scopes)
            return [
                Level(name, scope, *self._numbers((name, scope), sums)) for name in names for scope in path
            ]

    def consumers(self, resource: str, scope: Scope, *, size: int) -> list[Consumer]:
        with self._lock:
            held: dict[tuple[str | None, str | None], int] = {}
            for record in self._holding(resource, scope):
                owner = (record.project, record.user)
                held[owner] = held.get(owner, 0) + record.resources[resource]
        found = [Consumer(*owner, used) for owner, used in held.items()]
        return sorted(found, key=lambda one: (-one.used, one.project or "", one.user or ""))[:size]

    def running(self, resource: str, scope: Scope, *, size: int) -> list[Running]:
        with self._lock:
            found = [
                Running(one.id, one.resources[resource], instant(one.ends_at))
                for one in self._holding(resource, scope)
                if one.state == "reserved" and one.ends_at is not None
            ]
        return sorted(found, key=lambda one: (one.expires_at, one.claim_id))[:size]

    def _holding(self, resource: str, scope: Scope) -> list[Record]:
        """The live claims of a resource that are charged to this scope."""
        now, tree = self.now(), self._rules.tree
        return [
            one
            for one in self._claims.values()
            if one.live_at(now) and resource in one.resources and scope in tree.path(one.project, one.user)
        ]

    def get_claim(self, id: str) -> Claim:
        with self._lock:
            trial = self._trial()
            return trial.find(id).claim_at(trial.now)

    def claims_named(self, names: Sequence[str], *, since: int) -> list[tuple[Claim, bool]]:
        with self._lock:
            now, wanted = self.now(), set(names)
            found = [one for one in self._claims.values() if not wanted.isdisjoint((one.id, one.external_id))]
            return [
                (one.claim_at(now), one.touched_after(since, now))
                for one in sorted(found, key=lambda one: one.made)
            ]

    def page_of_claims(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        with self._lock:
            now = self.now()
            found = [
                one for one in self._claims.values() if one.made > after and self._asked(one, query, now)
            ]
        page = sorted(found, key=lambda one: one.made)[:size]
        return [one.claim_at(now) for one in page], page[-1].made if len(found) > len(page) else None

    def _asked(self, record: Record, query: ClaimQuery, now: int) -> bool:
        return (
            (record.live_at(now) if query.state is None else record.state_at(now) == query.state)
            and self._in_project(record, query)
            and query.user in (None, record.user)
            and (query.resource is None or query.resource in record.resources)
        )

    def _in_project(self, record: Record, query: ClaimQuery) -> bool:
        if query.project is None or query.project == record.project:
            return True
        return query.subtree and self._rules.tree.holds(query.project, record.project)

    # -- events -------------------------------------------------------------------------------------------------

    def events(self, *, after: int, size: int) -> list[Event]:
        with self._lock:
            self._notice()
            return [event for event in self._journal.events if event.seq > after][:size]

    def last_event(self) -> int:
        with self._lock:
            self._notice()
            return self._journal.last

    def _notice(self) -> None:
        """Time alone brings a scope back within its quota, when reservations run out."""
        self._keep([self._rules], self.now())

    # -- upkeep -------------------------------------------------------------------------------------------------

    def sweep(self, *, size: int) -> int:
        with self._lock:
            self._notice()
            now = self.now()
            ran_out = [
                one for one in self._claims.values() if one.state == "reserved" and not one.live_at(now)
            ]
            due = ran_out[:size]
            for record in due:
                self._claims[record.id] = replace(record, state="expired")
        return len(due)

    def prune(self, *, older_than: int, size: int) -> int:
        with self._lock:
            now = self.now()
            parents = {one.parent for one in self._claims.values()}
            due = [
                one.id
                for one in self._claims.values()
                if one.id not in parents and not one.live_at(now) and (one.ends_at or 0) <= now - older_than
            ][:size]
            for gone in due:
                del self._claims[gone]
        return len(due)

    def prune_events(self, *, older_than: int, size: int) -> int:
        with self._lock:
            self._notice()
            oldest = instant(self.now() - older_than)
            due = [event for event in self._journal.events if event.at <= oldest][:size]
            self._journal.events = [event for event in self._journal.events if event not in due]
        return len(due)

    def drifts(self, *, repair: bool) -> Iterator[Drift]:
        """Nothing: without counters nothing can drift."""
        return iter(())


def _without(connection: CallersConnection | None) -> None:
    if connection is not None:
        raise Unsupported("the memory engine has no transactions to share; connection= needs a SQL store")
