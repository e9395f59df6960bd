"""Deciding changes on what was read, and putting into one multi everything that the decision rests on.

Nothing is locked. What is written carries the version that was read, what is only relied on is checked, and what must
not be there is created: if anything has changed meanwhile, the multi fails as a whole and the change is decided anew.
So an admission is proven by its multi. An answer without a multi (a refusal, a replay of what has ended) proves
nothing, and must rest on reads that began after the call: :class:`Unproven`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from delimiter.changes import Admit, Change, Correct, Provision, Release, Renew, Resize, Transfer
from delimiter.engine import Answer
from delimiter.engines.ledger import Ledger
from delimiter.engines.records import Entry
from delimiter.engines.zookeeper.claims import Claims, Kept, Names
from delimiter.engines.zookeeper.counters import Account, Accounts
from delimiter.engines.zookeeper.eventlog import Happening, crossing
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.multi import LARGEST
from delimiter.engines.zookeeper.rulebook import Edition
from delimiter.errors import DelimiterError, InvalidRequest, OverLimit, UnknownResource

__all__ = ["Decision", "Suspected", "Unproven", "is_written"]

#: A resource, and a project and a user to whom it is charged.
Charge: TypeAlias = tuple[str, str | None, str | None]

#: The fewest bytes that a change of one claim takes in a multi.
_LEAST: Final = 400


class Unproven(Exception):
    """This must be decided again on reads that began after the call, and at a time that the store has told."""


class Suspected(Exception):
    """Reservations that ran out may be in the way of one of these accounts."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        super().__init__()
        self.accounts = accounts


class Decision:
    """One try at deciding changes in order. ``settled``: its reads are as new as the call, and ``now`` is exact."""

    def __init__(self, ground: Ground, claims: Claims, edition: Edition, now: int, *, settled: bool) -> None:
        self._claims = claims
        self._settled = settled
        self.edition = edition
        self.now = now
        #: Before anything is read: whether claims that this rests on are forgotten, and made again, meanwhile.
        self.forgetting = claims.forgetting(remembered=not settled)
        self.accounts = Accounts(ground.session, ground.layout, edition)
        self.ledger = Ledger(path=self.accounts.path, now=now)
        #: What was read: claims by their ids, and who has had an external id.
        self.kept: dict[str, Kept] = {}
        self.names: dict[str, Names] = {}
        self.happenings: list[Happening] = []

    def decide(self, changes: Sequence[Change], *, swept: bool) -> list[Answer]:
        """``swept``: what ran out has been looked for in vain; what is in the way now is really there."""
        if not self._settled and any(_needs_the_time(change) for change in changes):
            raise Unproven
        self._load(changes)
        answers = []
        for change in changes:
            self._fetch(change)
            standing = self._standing()
            answer = self._unknown(change) or self.ledger.decide(change)
            answers.append(answer)
            if not swept:
                self._look_for_expired(change, answer, standing)
            for account, before in standing.items():
                after = (account.limit, account.used_now)
                self.happenings += crossing(account.resource, account.scope, (account.limit, before), after)
        if not self._settled and any(isinstance(answer, DelimiterError) for answer in answers):
            raise Unproven
        return answers

    def expire(self, kept: Iterable[Kept]) -> int:
        """Sweep these, if they ran out; how many."""
        self._know(kept)
        entries = list(self.ledger.entries.values())
        self.accounts.fetch(
            charge for entry in entries for charge in _charges_of(entry.resources, entry.project, entry.user)
        )
        standing = self._standing()
        done = sum(self.ledger.expire(entry) for entry in entries)
        for account, before in standing.items():
            after = (account.limit, account.used_now)
            self.happenings += crossing(account.resource, account.scope, (account.limit, before), after)
        return done

    def names_of(self, external_id: str) -> Names:
        """Who has had an external id."""
        if external_id not in self.names:
            self.names.update(self._claims.look_up((), [external_id])[1])
        return self.names[external_id]

    @property
    def rests_on_claims(self) -> bool:
        """Whether it rests on claims, or on who had an external id, that were there before."""
        return bool(self.kept) or any(one.version is not None for one in self.names.values())

    # -- loading ------------------------------------------------------------------------------------------------

    def _load(self, changes: Sequence[Change]) -> None:
        ids: set[str] = set()
        named: set[str] = set()
        externals: set[str] = set()
        for change in changes:
            if isinstance(change, Admit):
                ids.update(claim.id for claim in change.claims)
                named.update(claim.parent for claim in change.claims if claim.parent is not None)
                externals.update(
                    claim.external_id for claim in change.claims if claim.external_id is not None
                )
            else:
                named.add(change.id)
                if isinstance(change, Provision) and change.external_id is not None:
                    externals.add(change.external_id)
        found, names = self._claims.look_up(ids | named, named | externals)
        self.names = {name: names[name] for name in names if names[name].ids or name in externals}
        holders = {
            one.ids[-1]
            for name, one in names.items()
            if one.ids and (name in externals or name not in found) and one.ids[-1] not in found
        }
        found.update(self._claims.with_ids(holders))
        if not self._settled and any(one.entry.ended for one in found.values()):
            # Whoever has an external id now may not have been heard of, and what ended is not written: no version
            # would tell.
            raise Unproven
        self._know(found.values())
        self._load_below(changes)

    def _load_below(self, changes: Sequence[Change]) -> None:
        roots = []
        named = {change.id for change in changes if isinstance(change, Release | Transfer)}
        # Whoever gets an external id by one of these changes may be released under it by a later one.
        named.update(
            change.id for change in changes if isinstance(change, Provision) and change.external_id in named
        )
        for name in sorted(named):
            try:
                roots.append(self.kept[self.ledger.find(name).id])
            except DelimiterError:
                continue
        alive = 0
        for level in self._claims.below(roots):
            self._know(level)
            alive += sum(not one.entry.ended for one in level)
            if alive * _LEAST > LARGEST:
                most = LARGEST // _LEAST
                raise InvalidRequest(
                    f"more than {most} live claims hang on {roots[0].entry.id!r}, and ZooKeeper takes no more than that"
                    " in one step; release or transfer the claims below it first, in parts"
                )

    def _know(self, kept: Iterable[Kept]) -> None:
        for one in kept:
            if one.entry.id in self.kept:
                continue
            if one.entry.expires_at is not None and not one.entry.ended and not self._settled:
                raise Unproven
            self.kept[one.entry.id] = one
            self.ledger.add([one.entry])

    # -- counters -----------------------------------------------------------------------------------------------

    def _fetch(self, change: Change) -> None:
        self.accounts.fetch(self._charges(change))

    def _charges(self, change: Change) -> Iterator[Charge]:
        """Every resource with every owner that it may be charged to, before and after."""
        if isinstance(change, Admit):
            for claim in change.claims:
                if claim.id not in self.ledger.entries:
                    yield from _charges_of(claim.resources, claim.project, claim.user)
            return
        try:
            root = self.ledger.find(change.id)
        except DelimiterError:
            return
        whole = isinstance(change, Release | Transfer)
        for entry in self.ledger.subtree(root) if whole else (root,):
            yield from _charges_of(entry.resources, entry.project, entry.user)
            if isinstance(change, Transfer):
                yield from _charges_of(entry.resources, change.project, change.user)
        if isinstance(change, Resize):
            yield from _charges_of(change.resources, root.project, root.user)
        if isinstance(change, Correct):
            yield from _charges_of(change.resources, change.project, change.user)

    def _standing(self) -> dict[Account, int]:
        """What everybody uses before a change."""
        return {account: account.used_now for account in self.accounts.all()}

    def _unknown(self, change: Change) -> DelimiterError | None:
        """A resource that is not defined goes before everything but a replay."""
        if not isinstance(change, Admit):
            return None
        fresh = [claim for claim in change.claims if claim.id not in self.ledger.entries]
        try:
            self.accounts.known(name for claim in fresh for name in claim.resources)
        except UnknownResource as error:
            return self.ledger.refused_replay(change) or error
        return None

    def _look_for_expired(self, change: Change, answer: Answer, standing: dict[Account, int]) -> None:
        """Nobody is refused, or over quota, because of reservations that ran out and are still counted."""
        if isinstance(answer, OverLimit):
            full = {(one.resource, one.scope) for one in answer.violations}
            suspects = [one for one in self.accounts.all() if (one.resource, str(one.scope)) in full]
        elif isinstance(change, Correct) or (isinstance(change, Admit) and change.existing):
            suspects = [
                account
                for account, before in standing.items()
                if crossing(
                    account.resource,
                    account.scope,
                    (account.limit, before),
                    (account.limit, account.used_now),
                )
            ]
        else:
            return
        if suspects := [one for one in suspects if one.reserved]:
            if not self._settled:
                raise Unproven
            raise Suspected(suspects)


def _charges_of(resources: Iterable[str], project: str | None, user: str | None) -> Iterator[Charge]:
    for resource in resources:
        yield resource, project, user


def _needs_the_time(change: Change) -> bool:
    """Whether it matters which moment it is."""
    if isinstance(change, Admit):
        return any(claim.expires_in is not None for claim in change.claims)
    return isinstance(change, Renew | Correct)


def is_written(entry: Entry) -> bool:
    return entry.new or entry.changed or entry.moved or bool(entry.children_added)
