"""The record against what really exists: comparing claims with a listing, and beginning with one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain, islice
from typing import Any, Final

from delimiter import validation
from delimiter.changes import Admit, Correct, NewClaim
from delimiter.comparing import Comparison, Told, is_young
from delimiter.counting import Counting
from delimiter.engine import Answer, ClaimQuery
from delimiter.errors import ClaimReleased, DelimiterError, InvalidRequest
from delimiter.ids import new_id
from delimiter.listing import Adopted, Existing, Listing, Mismatch, Progress
from delimiter.model import UNLIMITED, Overage, Scope, Usage
from delimiter.refusals import counted_not_claimed, unknown_resource
from delimiter.spool import Spool, parts

__all__ = ["Reconciling"]

#: Claims read or listed between two steps of progress.
_READ: Final = 500
_MOST_IN_A_BATCH: Final = 5000
#: Of so many it is told why they were refused; the others are counted.
_REASONS: Final = 1000
#: An entry's claim always has the same id, so that an old listing cannot bring back what was released since, as long as
#: the record remembers that: what was pruned it brings back.
_ADOPTED: Final = uuid.UUID("6f1c0f6e-6a53-4a55-9d3b-2b9c4f0f7a11")


class Reconciling(Counting):
    """Everything of :class:`delimiter.Delimiter` that compares the record with the world."""

    def reconcile_with(
        self,
        listing: Listing,
        *,
        resources: Collection[str] | None = None,
        repair: bool = False,
        grace: float | timedelta = timedelta(minutes=10),
        most_orphaned: float = 0.2,
        progress: Told | None = None,
    ) -> Iterator[Mismatch]:
        """Compare the claims with what really exists; yield what disagrees.

        ``listing`` is an iterable of :class:`~delimiter.Existing`, or (better: it is called when the claims have been
        read) something that returns one. An entry stands for the claim that has its external id, or has it as its own
        id. Only ``resources`` are compared, by default those that the listing names; what else a claim holds is left
        alone, and so is what an entry leaves out of its owner. Entries and claims wait in a temporary file: memory
        does not grow with them.

        With ``repair`` each is set right before this returns, in small transactions, safely beside live claims: nothing
        is touched that was made, changed or ended within ``grace`` (seconds or ``timedelta``) or since the first look,
        and each claim is decided on as it then stands. What exists, exists: no limit refuses a repair, and an event
        tells who is over quota by it. ``progress`` is called with each step.

        The listing must be complete. A repair that would end more than the share ``most_orphaned`` (0 to 1) of the
        provisioned claims that are compared, and more than ten of them, is refused: so looks a listing cut short.

        Raises ``InvalidRequest``, ``UnknownResource`` (before anything is changed), ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> claim = quota.claim({"storage.gb": 10}, project="acme", external_id="vol-1")
        >>> exists = [Existing(f"vol-{number}", {"storage.gb": 20}, project="acme") for number in (1, 2)]
        >>> [(one.kind, one.external_id) for one in quota.reconcile_with(exists, grace=0)]
        [('amount', 'vol-1'), ('missing', 'vol-2')]
        """
        spare = validation.microseconds(grace, "grace", zero=True)
        most = _share(most_orphaned)
        wanted = None if resources is None else _names(resources)
        told = progress or _nobody
        spool = Spool()
        since = self._run(self._engine.now) - spare
        self._read_claims(spool, told)
        self._read_listing(spool, listing, told)
        if wanted is None and not len(spool):
            raise InvalidRequest(
                "the listing is empty: name the resources of which really nothing exists any more"
            )
        compared = frozenset(spool.resources if wanted is None else wanted)
        self._refuse_unclaimable(compared)
        comparison = Comparison(
            look=lambda names: self._run(lambda: self._engine.claims_named(names, since=since)),
            correct=self._correct,
            admit=lambda entries: self._admit_existing(entries, lambda _: new_id()),
            compared=compared,
            since=since,
            repair=bool(repair),
        )
        if repair:
            comparison.refuse_many_orphaned(spool, most)
        found = comparison.mismatches(spool, told)
        if repair:  # now, not when somebody looks at the answer
            for mismatch in found:
                spool.keep(mismatch)
            found = spool.kept()
        return _closing(spool, found)

    def adopt(
        self,
        listing: Listing,
        *,
        batch: int = 500,
        grace: float | timedelta = timedelta(minutes=10),
        progress: Told | None = None,
    ) -> Adopted:
        """Bring in what exists already, from a listing: one provisioned claim for each entry that is not known yet.

        What is claimed already, or was and is released (and not pruned), is left alone: begin again after an
        interruption, and it goes on where it stopped. So is what was made within ``grace`` (seconds or ``timedelta``)
        by its ``created_at``: its reservation may be about to be provisioned. No limit refuses what exists; the answer
        tells who is over quota. ``batch`` entries are claimed in one transaction; where one of them is refused, each is
        decided by itself. The whole listing is read first (into a temporary file), so that whatever is wrong with it is
        said before anything is changed.

        Raises ``InvalidRequest``, ``UnknownResource``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=15)
        >>> exists = [Existing(f"vol-{number}", {"storage.gb": 10}, project="acme") for number in (1, 2)]
        >>> adopted = quota.adopt(exists)
        >>> adopted.claimed, adopted.known, [(over.scope, over.used) for over in adopted.over_quota]
        (2, 0, [('project:acme', 20)])
        >>> quota.adopt(exists).known
        2
        """
        if not 1 <= validation.maximum(batch, "batch") <= _MOST_IN_A_BATCH:
            raise InvalidRequest(f"batch must be from 1 to {_MOST_IN_A_BATCH}, not {batch}")
        spare = validation.microseconds(grace, "grace", zero=True)
        told = progress or _nobody
        since = self._run(self._engine.now) - spare
        claimed = young = refusals = done = 0
        refused: dict[str, str] = {}
        with Spool() as spool:
            self._read_listing(spool, listing, told)
            self._refuse_unclaimable(spool.resources)
            for part in parts(spool.entries(), batch):
                unknown = self._unknown(part)
                old = [entry for entry in unknown if not is_young(entry, since)]
                young += len(unknown) - len(old)
                charged: list[Existing] = []
                for entry, answer in self._admit_existing(old, _adopted_id):
                    if not isinstance(answer, DelimiterError):
                        charged.append(entry)
                    elif not isinstance(answer, ClaimReleased):
                        refusals += 1
                        if len(refused) < _REASONS:
                            refused[entry.external_id] = str(answer)
                spool.charge(entry.user for entry in charged if entry.user is not None)
                claimed += len(charged)
                done += len(part)
                told(Progress("adopting", done, len(spool)))
            over = tuple(self._over_quota(spool))
        return Adopted(claimed, done - claimed - young - refusals, refused, over, young, refusals)

    # -- reading ------------------------------------------------------------------------------------------------

    def _read_claims(self, spool: Spool, told: Told) -> None:
        done = 0
        for part in parts(self._pages(ClaimQuery()), _READ):
            spool.add_claims(part)
            done += len(part)
            told(Progress("claims", done))

    def _read_listing(self, spool: Spool, listing: Listing, told: Told) -> None:
        """Whoever lists may ask a database or a network, and must not hold up an event loop meanwhile."""
        entries = iter(self._engine.beside(listing) if callable(listing) else _iterable(listing))
        while part := self._engine.beside(lambda: list(islice(entries, _READ))):
            spool.add_entries(part)
            told(Progress("listing", len(spool)))
        spool.arrange()

    def _refuse_unclaimable(self, names: Iterable[str]) -> None:
        known = {resource.name for resource in self._run(self._engine.resources)}
        counted = self.counted().keys() | self._engine.counted_here()
        for name in sorted(names):
            if name not in known:
                raise unknown_resource(name)
            if name in counted:
                raise counted_not_claimed(name)

    # -- writing ------------------------------------------------------------------------------------------------

    def _correct(self, corrections: Sequence[Correct]) -> list[Answer]:
        charged = dict.fromkeys(scope for one in corrections for scope in Scope.owned(one.project, one.user))
        self._freshness.freshen(list(charged))
        return self._run(lambda: self._engine.apply(corrections))

    def _unknown(self, entries: Sequence[Existing]) -> list[Existing]:
        names = [entry.external_id for entry in entries]
        found = self._run(lambda: self._engine.claims_named(names, since=0))
        known = {
            name for claim, _ in found if claim.state != "expired" for name in (claim.id, claim.external_id)
        }
        return [entry for entry in entries if entry.external_id not in known]

    def _admit_existing(
        self, entries: Sequence[Existing], id_of: Callable[[Existing], str]
    ) -> Iterator[tuple[Existing, Answer]]:
        """All of them at once; each by itself where one is in the way of the others."""
        if not entries:
            return
        charged = dict.fromkeys(scope for one in entries for scope in Scope.owned(one.project, one.user))
        self._freshness.freshen(list(charged))
        claims = [
            NewClaim(id_of(one), one.resources, one.project, one.user, external_id=one.external_id)
            for one in entries
        ]
        answer = self._admit_all(claims)
        if not isinstance(answer, DelimiterError):
            yield from ((entry, (claim,)) for entry, claim in zip(entries, answer, strict=True))
        elif len(entries) == 1:
            yield entries[0], answer
        else:
            for entry, claim in zip(entries, claims, strict=True):
                yield entry, self._admit_all([claim])

    def _admit_all(self, claims: Sequence[NewClaim]) -> Answer:
        return self._run(lambda: self._engine.apply([Admit(tuple(claims), existing=True)])[0])

    def _over_quota(self, spool: Spool) -> Iterator[Overage]:
        """Who holds more than a limit of what the listing names: the deployment, a project, or a user charged now."""
        total: tuple[Scope, Any] = (Scope.total(), self._run(lambda: self._engine.usage(Scope.total())))
        projects = ((Scope("project", one.id), one.usage) for one in self._run(self._engine.tree))
        users = ((Scope("user", name), self._usage_of_user(name)) for name in spool.charged())
        for scope, usages in chain([total], projects, users):
            for name in sorted(spool.resources & usages.keys()):
                usage = usages[name]
                if usage.limit != UNLIMITED and usage.used > usage.limit:
                    yield Overage(name, str(scope), usage.limit, usage.used)

    def _usage_of_user(self, name: str) -> dict[str, Usage]:
        return self._run(lambda: self._engine.usage(Scope("user", name)))


def _names(resources: Collection[str]) -> list[str]:
    if isinstance(resources, str) or not resources:
        raise InvalidRequest(
            "resources must be a list of names, such as ['storage.gb']; leave it out for all"
        )
    return [validation.name(name, "a resource's name") for name in resources]


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidRequest(f"most_orphaned must be a share from 0 to 1, such as 0.2, not {value!r}")
    return value


def _iterable(listing: Iterable[Existing]) -> Iterable[Existing]:
    if not isinstance(listing, Iterable):
        raise InvalidRequest(
            f"a listing is an iterable of delimiter.Existing, or returns one, not {type(listing).__name__}"
        )
    return listing


def _adopted_id(entry: Existing) -> str:
    return str(uuid.uuid5(_ADOPTED, entry.external_id))


def _closing(spool: Spool, found: Iterator[Mismatch]) -> Iterator[Mismatch]:
    with spool:
        yield from found


def _nobody(_: Progress) -> None:
    """There is nobody to tell."""
