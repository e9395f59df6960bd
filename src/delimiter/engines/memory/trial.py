"""Deciding one change on a copy of the claims: what a scope uses is added up, before it and after it.

Every verb makes the change first and then compares the two sums: a limit that what grew has passed, or a
floor that what shrank has fallen below, refuses it. No difference has to be worked out by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from delimiter.changes import Admit, Change, Correct, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.engines.memory.claims import Record, Sums, added_up
from delimiter.engines.memory.rules import Rules
from delimiter.errors import BelowMinimum, OverLimit
from delimiter.model import Claim, Scope
from delimiter.refusals import (
    already_known_as,
    ended_expired,
    ended_released,
    external_id_taken,
    id_used_before,
    no_longer_as_seen,
    not_to_renew,
    unknown_claim,
)


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
            case Correct():
                return self._correct(change)

    def sums(self) -> Sums:
        return added_up(self.claims.values(), self.rules.tree, self.now)

    def refuse_over(
        self, before: Sums, owners: set[Scope], told: set[Scope], *, existing: bool = False
    ) -> None:
        """Refuse what has grown past a limit; of those ``told`` the numbers may be given.

        Of what exists already only what no store could count is refused.
        """
        rules = self.rules.unlimited() if existing else self.rules
        if violations := rules.over(before, self.sums(), owners):
            raise OverLimit(violations, own=map(str, told))

    def refuse_below(self, before: Sums, told: set[Scope]) -> None:
        """Refuse what has shrunk below a floor."""
        if violations := self.rules.below(before, self.sums()):
            raise BelowMinimum(violations, own=map(str, told))

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
        if self.claims.get(record.id) != record:
            self.claims[record.id] = replace(record, changed=self.now)
        return (record.claim_at(self.now),)

    def _admit(self, change: Admit) -> tuple[Claim, ...]:
        fresh = [new for new in change.claims if not self._is_replay(new)]
        before = self.sums()
        self.rules.known(name for new in fresh for name in new.resources)
        for new in fresh:
            record = self._record(new)
            self._free(new.external_id)
            self._put(record)
            if record.parent is not None:
                self.claims[record.parent] = replace(self.claims[record.parent], changed=self.now)
        owners = {scope for new in change.claims for scope in Scope.owned(new.project, new.user)}
        self.refuse_over(before, owners, told=owners, existing=change.existing)
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
            changed=self.now,
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
        owners = set(Scope.owned(record.project, record.user))
        self.refuse_over(before, owners, told=owners)
        if not change.force:
            self.refuse_below(before, told=owners)
        return claims

    def _transfer(self, change: Transfer) -> tuple[Claim, ...]:
        root, before = self._live(self.find(change.id)), self.sums()
        for record in self._subtree(root):
            if record.live_at(self.now):
                self._put(replace(record, project=change.project, user=change.user))
        owners = set(Scope.owned(change.project, change.user))
        self.refuse_over(before, owners, told=set(Scope.owned(root.project, root.user)))
        return (self.claims[root.id].claim_at(self.now),)

    def _release(self, change: Release) -> tuple[Claim, ...]:
        root, before = self.find(change.id), self.sums()
        for record in self._subtree(root):
            if record.live_at(self.now):
                self._put(replace(record, state="released", ends_at=self.now))
        if not change.force:
            self.refuse_below(before, told=set(Scope.owned(root.project, root.user)))
        return ()

    def _correct(self, change: Correct) -> tuple[Claim, ...]:
        record, before = self._live(self.find(change.id)), self.sums()
        if record.claim_at(self.now) != change.seen or record.changed > change.unchanged_since:
            raise no_longer_as_seen(change.id)
        if not change.resources:
            self._put(replace(record, state="released", ends_at=self.now))
            return ()
        self.rules.known(change.resources)
        claims = self._put(
            replace(
                record,
                resources=dict(sorted(change.resources.items())),
                project=change.project,
                user=change.user,
            )
        )
        owners = set(Scope.owned(change.project, change.user))
        self.refuse_over(before, owners, told=set(), existing=True)
        return claims
