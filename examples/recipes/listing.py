"""What is left to a listing: things that nobody pays for, and claims for what is not there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from delimiter import Delimiter

from .elsewhere import Thing


@dataclass(frozen=True)
class Difference:
    """The thing's id (or the claim's), what is claimed for it, and what there is."""

    id: str
    claimed: int
    there: int


def differences(quota: Delimiter, resource: str, things: Iterable[Thing]) -> list[Difference]:
    """Compare the listing with the claims that do not run out by themselves."""
    claims = quota.claims(resource=resource, state="provisioned")
    claimed = {claim.external_id or claim.id: claim.resources[resource] for claim in claims}
    there = {thing.id: thing.size for thing in things}
    found = (Difference(id, claimed.get(id, 0), there.get(id, 0)) for id in sorted({*claimed, *there}))
    return [one for one in found if one.claimed != one.there]
