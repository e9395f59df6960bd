"""Deciding what really disagrees: candidates are looked at again, as they are now, and mended if that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from delimiter.changes import Correct
from delimiter.engine import Answer
from delimiter.errors import (
    ClaimConflict,
    ClaimExpired,
    ClaimReleased,
    DelimiterError,
    InvalidRequest,
    UnknownClaim,
)
from delimiter.listing import Existing, Mismatch, Progress
from delimiter.model import Claim
from delimiter.spool import Spool, parts

__all__ = ["Comparison", "Told", "is_young"]

#: Claims looked at again, and mended, in one transaction: their counters are locked meanwhile.
_MENDED: Final = 100

#: Answers that say: something is happening to it just now. The next comparison will tell.
_JUST_CHANGING: Final = (ClaimConflict, ClaimExpired, ClaimReleased, UnknownClaim)

#: So few may always be ended: in a small store one thing more or less is a large share.
_ENDED_ANYWAY: Final = 10

Told: TypeAlias = Callable[[Progress], object]
#: A correction, and the mismatches that it mends.
_Mend: TypeAlias = tuple[Correct, list[Mismatch]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was made, changed or ended after ``since`` is left alone: the listing may tell of another moment."""

    look: Callable[[list[str]], list[tuple[Claim, bool]]]
    correct: Callable[[Sequence[Correct]], list[Answer]]
    admit: Callable[[Sequence[Existing]], Iterator[tuple[Existing, Answer]]]
    compared: frozenset[str]
    since: int
    repair: bool

    def refuse_many_orphaned(self, spool: Spool, most: float) -> None:
        """A listing that was cut short looks like a world in which much is gone: nobody's claims end by it."""
        if spool.orphans() <= _ENDED_ANYWAY:
            return
        compared = spool.provisioned(self.compared)
        if spool.orphans() <= most * compared:
            return
        # Some may have changed meanwhile, and are left alone.
        orphaned = sum(len(self._gone(claims)) for claims in parts(spool.orphaned(), _MENDED))
        if orphaned > _ENDED_ANYWAY and orphaned / compared > most:
            raise InvalidRequest(
                f"{orphaned:,} of {compared:,} claims ({orphaned / compared:.1%}) are not in the listing, and a repair"
                f" ends at most {100 * most:g}% (most_orphaned). No claim was changed. Is the listing complete? Look at"
                " what is orphaned without a repair; if all of it is really gone, allow a larger share"
            )

    def mismatches(self, spool: Spool, told: Told) -> Iterator[Mismatch]:
        done, total = 0, spool.candidates()
        # What is freed comes first, so that fewer are over quota in between.
        for orphans in parts(spool.orphaned(), _MENDED):
            yield from _telling(self._orphaned(orphans), told, done, total)
            done += len(orphans)
        for pairs in parts(spool.differing(), _MENDED):
            yield from _telling(self._differing(pairs), told, done, total)
            done += len(pairs)
        for entries in parts(spool.missing(), _MENDED):
            yield from _telling(self._missing(entries), told, done, total)
            done += len(entries)
        told(Progress("comparing", done, total))

    def _orphaned(self, claims: Sequence[Claim]) -> Iterator[Mismatch]:
        mends: list[_Mend] = []
        for claim, recorded in self._gone(claims):
            mend = self._correction(claim, {}, claim.project, claim.user)
            mends.append((mend, [_of_claim("orphaned", claim, recorded, {})]))
        return self._mended(mends)

    def _gone(self, claims: Sequence[Claim]) -> list[tuple[Claim, dict[str, int]]]:
        """With what is held of it for nothing."""
        unchanged = self._unchanged(claims)
        held = ((claim, self._of_compared(claim.resources)) for claim in claims if claim.id in unchanged)
        return [(claim, recorded) for claim, recorded in held if recorded]

    def _differing(self, pairs: Sequence[tuple[Existing, Claim]]) -> Iterator[Mismatch]:
        unchanged = self._unchanged([claim for _, claim in pairs])
        mends: list[_Mend] = []
        for entry, claim in pairs:
            found = self._differences(entry, claim) if claim.id in unchanged else []
            if found:
                project, user = entry.project or claim.project, entry.user or claim.user
                mends.append((self._correction(claim, entry.resources, project, user), found))
        return self._mended(mends)

    def _differences(self, entry: Existing, claim: Claim) -> list[Mismatch]:
        found = []
        recorded, actual = self._of_compared(claim.resources), self._of_compared(entry.resources)
        if recorded != actual:
            found.append(_of_claim("amount", claim, recorded, actual))
        owner = {"project": claim.project, "user": claim.user}
        actual_owner = {"project": entry.project or claim.project, "user": entry.user or claim.user}
        if owner != actual_owner:
            found.append(_of_claim("owner", claim, owner, actual_owner))
        return found

    def _missing(self, entries: Sequence[Existing]) -> Iterator[Mismatch]:
        held = {entry.external_id: self._of_compared(entry.resources) for entry in entries}
        in_use = {
            name
            for claim, recent in self.look(list(held))
            for name in (claim.id, claim.external_id)
            if claim.live or recent
        }
        missing = [
            replace(entry, resources=held[entry.external_id])
            for entry in entries
            if held[entry.external_id] and entry.external_id not in in_use and not is_young(entry, self.since)
        ]
        if not self.repair:
            return iter([_of_entry(entry) for entry in missing])
        return self._admitted(missing)

    def _admitted(self, missing: Sequence[Existing]) -> Iterator[Mismatch]:
        for entry, answer in self.admit(missing):
            mismatch = _of_entry(entry)
            if not isinstance(answer, DelimiterError):
                yield replace(mismatch, claim_id=answer[0].id, repaired=True)
            elif not isinstance(answer, _JUST_CHANGING):
                yield replace(mismatch, note=str(answer))

    # -- mending ------------------------------------------------------------------------------------------------

    def _unchanged(self, claims: Sequence[Claim]) -> set[str]:
        """Of these the ones that are still as they were first seen, and were so for long enough."""
        present = {claim.id: (claim, recent) for claim, recent in self.look([one.id for one in claims])}
        return {claim.id for claim in claims if present.get(claim.id) == (claim, False)}

    def _of_compared(self, resources: Mapping[str, int]) -> dict[str, int]:
        return {name: amount for name, amount in resources.items() if name in self.compared}

    def _correction(
        self, claim: Claim, actual: Mapping[str, int], project: str | None, user: str | None
    ) -> Correct:
        """What is not compared stays as it is."""
        others = {name: amount for name, amount in claim.resources.items() if name not in self.compared}
        resources = {**others, **self._of_compared(actual)}
        return Correct(claim, self.since, dict(sorted(resources.items())), project, user)

    def _mended(self, mends: Sequence[_Mend]) -> Iterator[Mismatch]:
        if not self.repair or not mends:
            return iter([mismatch for _, found in mends for mismatch in found])
        answers = self.correct([mend for mend, _ in mends])
        return iter(
            [
                replace(mismatch, note=str(answer))
                if isinstance(answer, DelimiterError)
                else replace(mismatch, repaired=True)
                for (_, found), answer in zip(mends, answers, strict=True)
                if not isinstance(answer, _JUST_CHANGING)
                for mismatch in found
            ]
        )


def is_young(entry: Existing, since: int) -> bool:
    """Just made: its reservation may be about to be provisioned."""
    return entry.created_at is not None and entry.created_at.timestamp() * 1_000_000 > since


def _telling(found: Iterator[Mismatch], told: Told, done: int, total: int) -> Iterator[Mismatch]:
    told(Progress("comparing", done, total))
    for mismatch in found:
        told(Progress("comparing", done, total, mismatch))
        yield mismatch


def _of_claim(
    kind: str, claim: Claim, recorded: Mapping[str, int | str | None], actual: Mapping[str, int | str | None]
) -> Mismatch:
    return Mismatch(kind, claim.id, claim.external_id, claim.project, claim.user, recorded, actual)  # type: ignore[arg-type]


def _of_entry(entry: Existing) -> Mismatch:
    return Mismatch("missing", None, entry.external_id, entry.project, entry.user, {}, entry.resources)
