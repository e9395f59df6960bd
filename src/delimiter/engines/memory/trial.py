"""Deciding one change on a copy of the claims: what a scope uses is added up, before it and after it.

Every verb makes the change first and then compares the two sums: a limit that what grew has passed, or a
floor that what shrank has fallen below, refuses it. No difference has to be worked out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from delimiter.engine import Admit, Change, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.errors import BelowMinimum, OverLimit
from delimiter.model import CEILING, UNLIMITED, Claim, ClaimState, Resource, Scope, Violation
from delimiter.refusals import (
    already_known_as,
    ended_expired,
    ended_released,
    external_id_taken,
    id_used_before,
    not_to_renew,
    unknown_claim,
    unknown_resource,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDER_OF_KINDS = ("total", "project", "user")


@dataclass(frozen=True, slots=True)
class Record:
    """A claim as it is kept. Never altered: a change puts another one in its place."""

    made: int  # position in the order of creation
    id: str
    fingerprint: str
    resources: Mapping[str, int]
    project: str | None
    user: str | None
    parent: str | None
    external_id: str | None
    named: int  # when it took its external id, in the order of all that happened
    state: ClaimState
    ends_at: int | None  # of a reservation: when it runs out; of an ended claim: when it ended

    def state_at(self, now: int) -> ClaimState:
        if self.state == "reserved" and self.ends_at is not None and self.ends_at <= now:
            return "expired"
        return self.state

    def live_at(self, now: int) -> bool:
        return self.state_at(now) in ("reserved", "provisioned")

    def scopes(self) -> list[Scope]:
        return [Scope.total(), *_own_scopes(self)]

    def claim_at(self, now: int) -> Claim:
        state = self.state_at(now)
        shown = self.ends_at if state in ("reserved", "expired") else None
        return Claim(
            id=self.id,
            resources=dict(self.resources),
            project=self.project,
            user=self.user,
            parent=self.parent,
            state=state,
            external_id=self.external_id,
            expires_at=None if shown is None else _EPOCH + timedelta(microseconds=shown),
        )


@dataclass(slots=True)
class Sum:
    """What one scope uses of one resource."""

    used: int = 0
    provisioned: int = 0


Key: TypeAlias = tuple[str, Scope]


class Rules:
    """Definitions and limits."""

    def __init__(self) -> None:
        self.definitions: dict[str, Resource] = {}
        self.own: dict[Key, tuple[int | None, int | None]] = {}

    def known(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            if name not in self.definitions:
                raise unknown_resource(name)

    def maximum(self, key: Key) -> int:
        resource, scope = key
        own, _ = self.own.get(key, (None, None))
        return self.definitions[resource].default(scope.kind)[0] if own is None else own

    def minimum(self, key: Key) -> int:
        resource, scope = key
        _, own = self.own.get(key, (None, None))
        return self.definitions[resource].default(scope.kind)[1] if own is None else own

    def barrier(self, key: Key) -> int | None:
        """What must not be passed. An unlimited project or user counts up to the ceiling."""
        maximum = self.maximum(key)
        if maximum != UNLIMITED:
            return maximum
        return None if key[1].kind == "total" else CEILING

    def over(self, before: Mapping[Key, Sum], after: Mapping[Key, Sum]) -> list[Violation]:
        """The limits that would be passed by what grows."""
        found = []
        for key in sorted(after, key=_position):
            used, barrier = before.get(key, Sum()).used, self.barrier(key)
            more = after[key].used - used
            if barrier is not None and more > 0 and used + more > barrier:
                found.append(Violation(key[0], str(key[1]), barrier, used, more, max(0, barrier - used)))
        return found

    def below(self, before: Mapping[Key, Sum], after: Mapping[Key, Sum]) -> list[Violation]:
        """The floors that what is given back would fall below."""
        found = []
        for key in sorted(before, key=_position):
            had, floor = before[key].provisioned, self.minimum(key)
            less = after.get(key, Sum()).provisioned - had
            if less < 0 and had + less < floor:
                found.append(Violation(key[0], str(key[1]), floor, had, less, max(0, had - floor)))
        return found


class Trial:
    """A copy of the claims at one moment, on which one change is tried."""

    def __init__(self, rules: Rules, claims: Mapping[str, Record], now: int, order: Iterator[int]) -> None:
        self.rules = rules
        self.claims = dict(claims)
        self.now = now
        self.order = order

    def make(self, change: Change) -> tuple[Claim, ...]:
        match change:
            case Admit():
                return self._admit(change)
            case Provision():
                return self._provision(change)
            case Renew():
                return self._renew(change)
            case Resize():
                return self._resize(change)
            case Transfer():
                return self._transfer(change)
            case Release():
                return self._release(change)

    def sums(self) -> dict[Key, Sum]:
        found: dict[Key, Sum] = {}
        for record in self.claims.values():
            if not record.live_at(self.now):
                continue
            for name, amount in record.resources.items():
                for scope in record.scopes():
                    sum_ = found.setdefault((name, scope), Sum())
                    sum_.used += amount
                    sum_.provisioned += amount if record.state == "provisioned" else 0
        return found

    def find(self, name: str) -> Record:
        """By its own id, else by external id: the live claim, else the last one that took it."""
        record = self.claims.get(name) or self._holder(name)
        if record is None:
            named = [one for one in self.claims.values() if one.external_id == name]
            record = max(named, key=lambda one: one.named, default=None)
        if record is None:
            raise unknown_claim(name)
        return record

    def _holder(self, external_id: str) -> Record | None:
        for record in self.claims.values():
            if record.external_id == external_id and record.live_at(self.now):
                return record
        return None

    def _live(self, record: Record) -> Record:
        state = record.state_at(self.now)
        if state == "expired":
            raise ended_expired(record.id)
        if state == "released":
            raise ended_released(record.id)
        return record

    def _free(self, external_id: str | None) -> None:
        if external_id is not None and (holder := self._holder(external_id)) is not None:
            raise external_id_taken(external_id, holder.id)

    def _subtree(self, root: Record) -> list[Record]:
        found = [root]
        for record in found:  # grows while we walk: every level adds the one below it
            found += [one for one in self.claims.values() if one.parent == record.id]
        return found

    def _put(self, record: Record) -> tuple[Claim, ...]:
        self.claims[record.id] = record
        return (record.claim_at(self.now),)

    def _admit(self, change: Admit) -> tuple[Claim, ...]:
        fresh = [new for new in change.claims if not self._is_replay(new)]
        before = self.sums()
        self.rules.known(name for new in fresh for name in new.resources)
        for new in fresh:
            record = self._record(new)
            self._free(new.external_id)
            self._put(record)
        if violations := self.rules.over(before, self.sums()):
            raise OverLimit(
                violations, own={str(scope) for new in change.claims for scope in _own_scopes(new)}
            )
        return tuple(self.claims[new.id].claim_at(self.now) for new in change.claims)

    def _is_replay(self, new: NewClaim) -> bool:
        record = self.claims.get(new.id)
        if record is None:
            return False
        if record.fingerprint != new.fingerprint:
            raise id_used_before(new.id)
        self._live(record)
        return True

    def _record(self, new: NewClaim) -> Record:
        parent = None if new.parent is None else self._live(self.find(new.parent)).id
        return Record(
            made=next(self.order),
            id=new.id,
            fingerprint=new.fingerprint,
            resources=dict(sorted(new.resources.items())),
            project=new.project,
            user=new.user,
            parent=parent,
            external_id=new.external_id,
            named=next(self.order),
            state="provisioned" if new.expires_in is None else "reserved",
            ends_at=None if new.expires_in is None else self.now + new.expires_in,
        )

    def _provision(self, change: Provision) -> tuple[Claim, ...]:
        record = self._live(self.find(change.id))
        named, given = record.external_id, change.external_id
        if given is not None and given != named:
            if record.state == "provisioned" and named is not None:
                raise already_known_as(record.id, named)
            self._free(given)
            record = replace(record, external_id=given, named=next(self.order))
        return self._put(replace(record, state="provisioned", ends_at=None))

    def _renew(self, change: Renew) -> tuple[Claim, ...]:
        record = self._live(self.find(change.id))
        if record.state == "provisioned":
            raise not_to_renew(record.id)
        return self._put(replace(record, ends_at=self.now + change.expires_in))

    def _resize(self, change: Resize) -> tuple[Claim, ...]:
        record, before = self._live(self.find(change.id)), self.sums()
        self.rules.known(change.resources)
        claims = self._put(replace(record, resources=dict(sorted(change.resources.items()))))
        own = {str(scope) for scope in _own_scopes(record)}
        if violations := self.rules.over(before, self.sums()):
            raise OverLimit(violations, own=own)
        if not change.force and (violations := self.rules.below(before, self.sums())):
            raise BelowMinimum(violations, own=own)
        return claims

    def _transfer(self, change: Transfer) -> tuple[Claim, ...]:
        root, before = self._live(self.find(change.id)), self.sums()
        for record in self._subtree(root):
            if record.live_at(self.now):
                self._put(replace(record, project=change.project, user=change.user))
        if violations := self.rules.over(before, self.sums()):
            raise OverLimit(violations, own={str(scope) for scope in _own_scopes(root)})
        return (self.claims[root.id].claim_at(self.now),)

    def _release(self, change: Release) -> tuple[Claim, ...]:
        root, before = self.find(change.id), self.sums()
        for record in self._subtree(root):
            if record.live_at(self.now):
                self._put(replace(record, state="released", ends_at=self.now))
        if not change.force and (violations := self.rules.below(before, self.sums())):
            raise BelowMinimum(violations, own={str(scope) for scope in _own_scopes(root)})
        return ()


def _own_scopes(owned: Record | NewClaim) -> list[Scope]:
    named = ("project", owned.project), ("user", owned.user)
    return [Scope(kind, name) for kind, name in named if name is not None]  # type: ignore[arg-type]


def _position(key: Key) -> tuple[str, int, str]:
    resource, scope = key
    return resource, _ORDER_OF_KINDS.index(scope.kind), scope.name
