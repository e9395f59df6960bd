"""What a batch of new claims is charged to, added up for each counter, from ways that are remembered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from delimiter.changes import Admit, Change, NewClaim
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.ways import Start, Way
from delimiter.model import CEILING, Scope

__all__ = ["Batch", "Charge", "Gathering"]

#: Owners whose charges are remembered; beyond that all are forgotten and worked out again.
_MOST_REMEMBERED: Final = 100_000


@dataclass(slots=True)
class Charge:
    """What one counter is charged with by all claims of a batch."""

    used: int = 0
    reserved: int = 0
    used_below: int = 0
    reserved_below: int = 0
    #: That of a counter at which a way begins: the way is still the way if the row shows the same.
    generation: int | None = None


@dataclass(slots=True)
class Batch:
    """The values that are written. Claims in order of their ids, as everybody places them; counters by number."""

    claims: list[NewClaim] = field(default_factory=list)
    #: The claim, the number of the resource, and how much.
    amounts: list[tuple[str, int, int]] = field(default_factory=list)
    charges: dict[int, Charge] = field(default_factory=dict)
    #: Which of the changes are in it, and the claims of each as they were asked for.
    lists: dict[int, Sequence[NewClaim]] = field(default_factory=dict)
    #: Not if another thread has found meanwhile that a way has changed: the row's generation vouches for one way from
    #: there, and not for what was added up by another.
    of_one_moment: bool = True

    def times(self, now: int) -> dict[str, int]:
        """When each reservation runs out, in microseconds since 1970."""
        return {claim.id: now + claim.expires_in for claim in self.claims if claim.expires_in is not None}


@dataclass(frozen=True, slots=True, eq=False)
class _Paths:
    """What an owner's claims of some resources are charged to. Found in a dictionary by what it is, not by contents."""

    #: The resources, with their numbers.
    resources: tuple[tuple[str, int], ...]
    #: Every counter once: of which resource, whether it is charged from below, and where a way begins its generation.
    counters: tuple[tuple[int, str, bool, int | None], ...]
    ways: dict[Start, Way]


class Gathering:
    """Adds up batches for one store."""

    def __init__(self, definitions: Definitions, counters: Counters) -> None:
        self._definitions = definitions
        self._counters = counters
        self._paths: dict[tuple[str | None, str | None, tuple[str, ...]], _Paths] = {}
        self._epoch = -1

    def gather(self, changes: Sequence[Change], numbers: Iterable[int] | None = None) -> Batch:
        """The values for those changes that are of new claims which hang on nothing and whose ways are remembered."""
        batch = Batch()
        sums: dict[_Paths, _Sums] = {}
        for number in range(len(changes)) if numbers is None else numbers:
            change = changes[number]
            if not isinstance(change, Admit) or change.existing:
                continue
            paths = self._paths_of(change)
            if paths is None:
                continue
            for claim, its in zip(change.claims, paths, strict=True):
                _add(batch, sums, claim, its)
            batch.lists[number] = change.claims
        for its, of_all in sums.items():
            _charge(batch, its, of_all)
        if not batch.of_one_moment or any(charge.used > CEILING for charge in batch.charges.values()):
            return Batch()
        batch.claims.sort(key=_by_id)
        batch.charges = dict(sorted(batch.charges.items()))
        return batch

    def unknown(self, changes: Iterable[Change]) -> set[Start]:
        """Where ways begin that are not remembered, of new claims that hang on nothing."""
        return {
            (resource, scope)
            for change in changes
            if isinstance(change, Admit) and not change.existing
            for claim in change.claims
            if claim.parent is None
            for resource in claim.resources
            for scope in Scope.owned(claim.project, claim.user)
            if self._counters.remembered((resource, scope)) is None
        }

    def charged(self, claims: Iterable[NewClaim]) -> tuple[dict[Start, Way], dict[int, int]] | None:
        """The ways of one change's claims, and how much more is used of each counter, if they are remembered."""
        ways: dict[Start, Way] = {}
        used: dict[int, int] = {}
        for claim in claims:
            paths = self._remembered(claim)
            if paths is None:
                return None
            ways.update(paths.ways)
            for number, resource, _, _ in paths.counters:
                used[number] = used.get(number, 0) + claim.resources[resource]
        return ways, used

    def _paths_of(self, change: Admit) -> list[_Paths] | None:
        found = []
        for claim in change.claims:
            paths = None if claim.parent is not None else self._remembered(claim)
            if paths is None:
                return None
            found.append(paths)
        return found

    def _remembered(self, claim: NewClaim) -> _Paths | None:
        epoch = self._counters.epoch
        if self._epoch != epoch:
            # A way that another thread forgets meanwhile is found out by its generation.
            self._epoch = epoch
            self._paths.clear()
        key = (claim.project, claim.user, tuple(claim.resources))
        paths = self._paths.get(key)
        if paths is None:
            paths = self._find(claim)
            if paths is None:
                return None
            if len(self._paths) > _MOST_REMEMBERED:
                self._paths.clear()
            if self._counters.epoch == epoch:  # else they may be of a moment that is over
                self._paths[key] = paths
        return paths

    def _find(self, claim: NewClaim) -> _Paths | None:
        """From what is remembered; what is counted elsewhere is not claimed, which the other way says."""
        resources: list[tuple[str, int]] = []
        counters: dict[int, tuple[int, str, bool, int | None]] = {}
        ways: dict[Start, Way] = {}
        for resource in claim.resources:
            id = self._definitions.id_to_claim(resource)
            if id is None:
                return None
            resources.append((resource, id))
            for scope in Scope.owned(claim.project, claim.user):
                way = self._counters.remembered((resource, scope))
                if way is None:
                    return None
                ways[resource, scope] = way
                for number, _ in way.counters():
                    below = scope.kind == "project" and number not in (way.own, way.total)
                    counters[number] = number, resource, below, way.generation if number == way.own else None
        return _Paths(tuple(resources), tuple(counters.values()), ways)


@dataclass(slots=True)
class _Sums:
    """What all claims of a batch take that are charged alike, by resource; and how much of it is reserved."""

    used: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)

    def add(self, claim: NewClaim) -> None:
        for of in (self.used,) if claim.expires_in is None else (self.used, self.reserved):
            for name, amount in claim.resources.items():
                of[name] = of.get(name, 0) + amount


def _add(batch: Batch, sums: dict[_Paths, _Sums], claim: NewClaim, paths: _Paths) -> None:
    id, amounts = claim.id, claim.resources
    batch.claims.append(claim)
    batch.amounts += [(id, number, amounts[name]) for name, number in paths.resources]
    of_all = sums.get(paths)
    if of_all is None:
        of_all = sums[paths] = _Sums()
    of_all.add(claim)


def _charge(batch: Batch, paths: _Paths, of_all: _Sums) -> None:
    charges = batch.charges
    for number, resource, below, generation in paths.counters:
        used, reserved = of_all.used[resource], of_all.reserved.get(resource, 0)
        charge = charges.get(number)
        if charge is None:
            charge = charges[number] = Charge(used, reserved, generation=generation)
        else:
            charge.used += used
            charge.reserved += reserved
            if charge.generation is None:
                charge.generation = generation
            elif generation is not None and charge.generation != generation:
                batch.of_one_moment = False
        if below:
            charge.used_below += used
            charge.reserved_below += reserved


def _by_id(claim: NewClaim) -> str:
    return claim.id
