"""The engine itself: one lock, and every call on what is there now."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from delimiter.engine import Answer, Change, ClaimQuery, Engine, Keep, LimitChange, OpenOptions
from delimiter.engines.memory.trial import Record, Rules, Sum, Trial
from delimiter.errors import DelimiterError, InvalidRequest, Unsupported
from delimiter.model import UNLIMITED, Claim, Decision, Drift, Overage, Resource, Scope, Usage
from delimiter.refusals import still_claimed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
        self._order = itertools.count(1)

    def apply(
        self, changes: Sequence[Change], *, connection: CallersConnection | None = None
    ) -> list[Answer]:
        _without(connection)
        with self._lock:
            return [self._decide(change) for change in changes]

    def _decide(self, change: Change) -> Answer:
        trial = self._trial()
        try:
            claims = trial.make(change)
        except DelimiterError as refusal:
            return refusal
        self._claims = trial.claims
        return claims

    def _trial(self) -> Trial:
        return Trial(self._rules, self._claims, self._now(), self._order)

    def _now(self) -> int:
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
            before = self._trial().sums()
            path = list(dict.fromkeys([Scope.total(), *scopes]))
            wanted = {(name, scope): amount for name, amount in resources.items() for scope in path}
            after = {key: Sum(before.get(key, Sum()).used + amount) for key, amount in wanted.items()}
            room: dict[str, int | None] = {}
            for name in sorted(resources):
                limited = [(name, scope) for scope in path if self._rules.maximum((name, scope)) != UNLIMITED]
                rooms = [max(0, self._rules.maximum(key) - before.get(key, Sum()).used) for key in limited]
                room[name] = min(rooms, default=None)
            violations = tuple(self._rules.over(before, after))
        return Decision(not violations, violations, room)

    def define(self, resource: Resource) -> None:
        with self._lock:
            self._rules.definitions[resource.name] = resource

    def undefine(self, name: str) -> None:
        with self._lock:
            self._rules.known([name])
            if (name, Scope.total()) in self._trial().sums():
                raise still_claimed(name)
            del self._rules.definitions[name]
            self._rules.own = {key: own for key, own in self._rules.own.items() if key[0] != name}

    def set_limit(self, resource: str, scope: Scope, change: LimitChange) -> list[Overage]:
        with self._lock:
            self._rules.known([resource])
            key = (resource, scope)
            maximum, minimum = self._rules.own.get(key, (None, None))
            self._rules.own[key] = (
                maximum if change.max is Keep.KEEP else change.max,
                minimum if change.min is Keep.KEEP else change.min,
            )
            limit, used = self._rules.maximum(key), self._trial().sums().get(key, Sum()).used
        return [Overage(resource, str(scope), limit, used)] if limit != UNLIMITED and used > limit else []

    def resources(self) -> list[Resource]:
        with self._lock:
            return [self._rules.definitions[name] for name in sorted(self._rules.definitions)]

    def limits(self, scope: Scope) -> dict[str, int]:
        with self._lock:
            return {name: self._rules.maximum((name, scope)) for name in sorted(self._rules.definitions)}

    def usage(self, scope: Scope, *, connection: CallersConnection | None = None) -> dict[str, Usage]:
        _without(connection)
        with self._lock:
            sums, found = self._trial().sums(), {}
            for name in sorted(self._rules.definitions):
                sum_ = sums.get((name, scope), Sum())
                limit = self._rules.maximum((name, scope))
                found[name] = Usage(limit, sum_.used, sum_.used - sum_.provisioned)
        return found

    def get_claim(self, id: str) -> Claim:
        with self._lock:
            trial = self._trial()
            return trial.find(id).claim_at(trial.now)

    def page_of_claims(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        with self._lock:
            now = self._now()
            found = [one for one in self._claims.values() if one.made > after and _matches(one, query, now)]
        page = sorted(found, key=lambda one: one.made)[:size]
        return [one.claim_at(now) for one in page], page[-1].made if len(found) > len(page) else None

    def sweep(self, *, size: int) -> int:
        with self._lock:
            now = self._now()
            ran_out = [
                one for one in self._claims.values() if one.state == "reserved" and not one.live_at(now)
            ]
            due = ran_out[:size]
            for record in due:
                self._claims[record.id] = replace(record, state="expired")
        return len(due)

    def prune(self, *, older_than: int, size: int) -> int:
        with self._lock:
            now = self._now()
            parents = {one.parent for one in self._claims.values()}
            due = [
                one.id
                for one in self._claims.values()
                if one.id not in parents and not one.live_at(now) and (one.ends_at or 0) <= now - older_than
            ][:size]
            for gone in due:
                del self._claims[gone]
        return len(due)

    def drifts(self, *, repair: bool) -> Iterator[Drift]:
        """Nothing: without counters nothing can drift."""
        return iter(())


def _matches(record: Record, query: ClaimQuery, now: int) -> bool:
    return (
        (record.live_at(now) if query.state is None else record.state_at(now) == query.state)
        and query.project in (None, record.project)
        and query.user in (None, record.user)
        and (query.resource is None or query.resource in record.resources)
    )


def _without(connection: CallersConnection | None) -> None:
    if connection is not None:
        raise Unsupported("the memory engine has no transactions to share; connection= needs a SQL store")
