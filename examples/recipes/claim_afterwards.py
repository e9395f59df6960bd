"""Claim what is there already, and take it down if there is no room: for what others create."""

from __future__ import annotations

from delimiter import Claim, ClaimReleased, Delimiter, OverLimit

from .elsewhere import Elsewhere, Thing
from .reserve_first import VCPU


class Gone(Exception):
    """The thing is not there any more."""


def create(quota: Delimiter, cloud: Elsewhere, name: str, *, project: str, size: int) -> Claim:
    """Run it again, with the same arguments, until it returns or says no."""
    return settle(quota, cloud, cloud.create(name, project=project, size=size))


def settle(quota: Delimiter, cloud: Elsewhere, thing: Thing) -> Claim:
    """For each thing that appears: told by an event, or found unpaid in a listing. As often as one likes."""
    try:
        # Its own id is the key: a thing is claimed once, however often it is reported.
        claim = quota.claim({VCPU: thing.size}, project=thing.project, id=thing.id)
    except (OverLimit, ClaimReleased):
        cloud.delete(thing.id)
        raise
    there = cloud.find(thing.name)
    if there is None or there.id != thing.id:  # the report was late
        quota.release(thing.id)
        raise Gone(f"{thing.name} has been deleted")
    return claim
