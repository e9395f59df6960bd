"""Decides changes on claims and counters that an engine has locked and loaded. Pure: no store, no clock, no waiting.

An engine fills a :class:`Ledger` with every claim and counter the changes may touch, lets it :meth:`~Ledger.decide`
them in order, and then writes what the ledger says has changed. A refused change leaves the ledger as it was, so the
changes of a batch never disturb each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from delimiter.changes import Admit, Change, Correct, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.engine import Answer
from delimiter.engines.differences import Differences, over_limit
from delimiter.engines.records import Counter, Entry
from delimiter.errors import DelimiterError
from delimiter.model import Scope
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

__all__ = ["Ledger", "over_limit"]


#: The counters charged for one resource of one owner.
Path: TypeAlias = Callable[[str, str | None, str | None], Sequence[Counter]]


@dataclass(slots=True)
class Ledger:
    """The claims and counters at hand. ``now`` is the store's clock, read after the claims were locked."""

    path: Path
    now: int
    entries: dict[str, Entry] = field(default_factory=dict)
    below: defaultdict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.id not in self.entries:
                self.entries[entry.id] = entry
                if entry.parent is not None:
                    self.below[entry.parent].append(entry)

    def find(self, id: str) -> Entry:
        """A claim by its own id, by the external id of a live one, or of the last that had it."""
        entry = self.entries.get(id)
        if entry is not None:
            return entry
        known = [entry for entry in self.entries.values() if entry.external_id == id]
        if not known:
            raise unknown_claim(id)
        return max(known, key=lambda entry: entry.last_held(self.now))

    def decide(self, change: Change) -> Answer:
        """Make the change if it is admitted; otherwise say why, as a value, and leave everything as it was."""
        try:
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
        except DelimiterError as refusal:
            return refusal

    # -- the verbs ----------------------------------------------------------------------------------------------

    def _admit(self, change: Admit) -> Answer:
        replayed = {claim.id: self._replay(claim) for claim in change.claims if claim.id in self.entries}
        made: dict[str, Entry] = {}
        holders = self._holders() if any(claim.external_id for claim in change.claims) else {}
        for number, claim in enumerate(change.claims):
            if claim.id not in replayed:
                entry = made[claim.id] = self._new_entry(claim, change.claims[:number], made, holders)
                if entry.external_id is not None:
                    holders[entry.external_id] = entry
        differences = Differences()
        for entry in made.values():
            self._charge(differences, entry, entry.resources, +1)
        own = {str(scope) for claim in change.claims for scope in Scope.owned(claim.project, claim.user)}
        differences.refuse_growth(own, existing=change.existing)
        differences.apply()
        for entry in made.values():
            if entry.parent is not None:
                (made.get(entry.parent) or self.entries[entry.parent]).children_added += 1
        self.add(made.values())
        return tuple((replayed.get(claim.id) or made[claim.id]).as_claim(self.now) for claim in change.claims)

    def refused_replay(self, change: Change) -> DelimiterError | None:
        """Why an id of a list is refused, whatever else the list asks for."""
        try:
            for claim in change.claims if isinstance(change, Admit) else ():
                if claim.id in self.entries:
                    self._replay(claim)
        except DelimiterError as refusal:
            return refusal
        return None

    def _replay(self, claim: NewClaim) -> Entry:
        entry = self.entries[claim.id]
        if entry.fingerprint != claim.fingerprint:
            raise id_used_before(claim.id)
        return self._live(entry)

    def _new_entry(
        self,
        claim: NewClaim,
        earlier: Sequence[NewClaim],
        made: Mapping[str, Entry],
        holders: Mapping[str, Entry],
    ) -> Entry:
        parent = None
        if claim.parent is not None:
            parent = self.parent_id(claim, earlier)
            self._live(made.get(parent) or self.entries[parent])
        if claim.external_id is not None and (holder := holders.get(claim.external_id)) is not None:
            raise external_id_taken(claim.external_id, holder.id)
        return Entry(
            id=claim.id,
            resources=dict(claim.resources),
            project=claim.project,
            user=claim.user,
            parent=parent,
            external_id=claim.external_id,
            state="provisioned" if claim.expires_in is None else "reserved",
            expires_at=None if claim.expires_in is None else self.now + claim.expires_in,
            ended_at=None,
            fingerprint=claim.fingerprint,
            new=True,
        )

    def parent_id(self, claim: NewClaim, earlier: Iterable[NewClaim]) -> str:
        """Whom ``claim.parent`` names: an earlier one of the same list, or a claim that was there before."""
        assert claim.parent is not None
        for other in earlier:
            if other.id == claim.parent:
                return claim.parent
        known = self.entries.get(claim.parent)
        if known is None:
            for other in earlier:
                if other.external_id == claim.parent:  # it is live, or the list will be refused because of it
                    return other.id
        return (known or self.find(claim.parent)).id

    def _provision(self, change: Provision) -> Answer:
        entry = self._live(self.find(change.id))
        if change.external_id is not None and change.external_id != entry.external_id:
            if entry.state == "provisioned" and entry.external_id is not None:
                raise already_known_as(entry.id, entry.external_id)
            if (holder := self._holders().get(change.external_id)) is not None:
                raise external_id_taken(change.external_id, holder.id)
            entry.external_id = change.external_id
            entry.changed = True
        if entry.state == "reserved":
            differences = Differences()
            for counter, amount in self._charges(entry.project, entry.user, entry.resources):
                differences.add(counter, entry.project, used=0, reserved=-amount)
            differences.apply()
            entry.state, entry.expires_at, entry.changed = "provisioned", None, True
        return (entry.as_claim(self.now),)

    def _renew(self, change: Renew) -> Answer:
        entry = self._live(self.find(change.id))
        if entry.state != "reserved":
            raise not_to_renew(entry.id)
        entry.expires_at, entry.changed = self.now + change.expires_in, True
        return (entry.as_claim(self.now),)

    def _resize(self, change: Resize) -> Answer:
        entry = self._live(self.find(change.id))
        differences = Differences()
        self._charge(differences, entry, entry.resources, -1)
        self._charge(differences, entry, change.resources, +1)
        own = {str(scope) for scope in Scope.owned(entry.project, entry.user)}
        differences.refuse_growth(own)
        if not change.force:
            differences.refuse_shrinking(own)
        differences.apply()
        if entry.resources != dict(change.resources):
            entry.resources, entry.changed, entry.resized = dict(change.resources), True, True
        return (entry.as_claim(self.now),)

    def _transfer(self, change: Transfer) -> Answer:
        root = self._live(self.find(change.id))
        moving = [entry for entry in self.subtree(root) if entry.live_at(self.now)]
        differences = Differences()
        for entry in moving:
            self._charge(differences, entry, entry.resources, -1)
            self._charge(differences, entry, entry.resources, +1, owner=(change.project, change.user))
        # Who transfers is the present owner; the new owner's numbers are not for their eyes.
        differences.refuse_growth({str(scope) for scope in Scope.owned(root.project, root.user)})
        differences.apply()
        for entry in moving:
            if (entry.project, entry.user) != (change.project, change.user):
                entry.project, entry.user, entry.moved = change.project, change.user, True
        return (root.as_claim(self.now),)

    def _release(self, change: Release) -> Answer:
        root = self.find(change.id)
        ending = [entry for entry in self.subtree(root) if not entry.ended]
        differences = Differences()
        for entry in ending:
            self._charge(differences, entry, entry.resources, -1)
        if not change.force:
            differences.refuse_shrinking({str(scope) for scope in Scope.owned(root.project, root.user)})
        differences.apply()
        for entry in ending:
            self.end(entry)
        return ()

    def _correct(self, change: Correct) -> Answer:
        entry = self._live(self.find(change.id))
        if entry.as_claim(self.now) != change.seen or entry.changed_at > change.unchanged_since:
            raise no_longer_as_seen(change.id)
        differences = Differences()
        self._charge(differences, entry, entry.resources, -1)
        owner = (change.project, change.user)
        self._charge(differences, entry, change.resources, +1, owner=owner)
        differences.refuse_growth((), existing=True)
        differences.apply()
        if not change.resources:
            self.end(entry)
            return ()
        if owner != (entry.project, entry.user):
            entry.project, entry.user, entry.moved = *owner, True
        if entry.resources != dict(change.resources):
            entry.resources, entry.changed, entry.resized = dict(change.resources), True, True
        return (entry.as_claim(self.now),)

    def end(self, entry: Entry) -> None:
        """A claim ends: a reservation that ran out has expired, at that moment; anything else is released now."""
        entry.changed = True
        if entry.state_at(self.now) == "expired":
            entry.state, entry.ended_at = "expired", entry.expires_at
        else:
            entry.state, entry.ended_at = "released", self.now
        entry.expires_at = None

    def expire(self, entry: Entry) -> bool:
        """Sweep one reservation if it ran out; whether it did."""
        if entry.ended or entry.state_at(self.now) != "expired":
            return False
        differences = Differences()
        self._charge(differences, entry, entry.resources, -1)
        differences.apply()
        self.end(entry)
        return True

    # -- what they rest on --------------------------------------------------------------------------------------

    def _live(self, entry: Entry) -> Entry:
        state = entry.state_at(self.now)
        if state == "expired":
            raise ended_expired(entry.id)
        if state == "released":
            raise ended_released(entry.id)
        return entry

    def _holders(self) -> dict[str, Entry]:
        """The live claims that have an external id, by that."""
        return {
            entry.external_id: entry
            for entry in self.entries.values()
            if entry.external_id is not None and entry.live_at(self.now)
        }

    def subtree(self, root: Entry) -> Iterator[Entry]:
        waiting = [root]
        while waiting:
            entry = waiting.pop()
            yield entry
            waiting.extend(self.below.get(entry.id, ()))

    def _charges(
        self, project: str | None, user: str | None, resources: Mapping[str, int]
    ) -> Iterator[tuple[Counter, int]]:
        for resource, amount in resources.items():
            for counter in self.path(resource, project, user):
                yield counter, amount

    def _charge(
        self,
        differences: Differences,
        entry: Entry,
        resources: Mapping[str, int],
        sign: int,
        *,
        owner: tuple[str | None, str | None] | None = None,
    ) -> None:
        project, user = owner if owner is not None else (entry.project, entry.user)
        for counter, amount in self._charges(project, user, resources):
            change = sign * amount
            held = change if entry.state == "reserved" else 0
            differences.add(counter, project, used=change, reserved=held)
