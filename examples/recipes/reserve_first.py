"""Reserve, create there, provision. Nothing is created for which there is no room."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from itertools import count

from delimiter import Claim, ClaimExpired, Delimiter, OverLimit, UnknownClaim

from .elsewhere import Elsewhere, Refused

VCPU = "compute.vcpu"
WITHIN = timedelta(minutes=30)  # well above the slowest creation


def create(quota: Delimiter, cloud: Elsewhere, name: str, *, project: str, size: int) -> Claim:
    """Run it again, with the same arguments, until it returns or says no."""
    while True:
        try:
            held = hold(quota, name, {VCPU: size}, project=project)
        except OverLimit:
            take_down(cloud, name)  # what an earlier run made, whose reservation ran out
            raise
        if held.state == "provisioned":
            return held  # an earlier run came through
        try:
            thing = cloud.create(name, project=project, size=size)
        except Refused:  # and nothing else: after a time-out it may be there
            quota.release(held.id)
            raise
        with suppress(ClaimExpired):  # that took longer than the reservation lives: hold it anew
            return quota.provision(held.id, external_id=thing.id)


def delete(quota: Delimiter, cloud: Elsewhere, id: str) -> None:
    """There first: what exists is paid for. The id is the thing's own, which the claim is known by as well."""
    cloud.delete(id)
    quota.release(id)


def take_down(cloud: Elsewhere, name: str) -> None:
    if (thing := cloud.find(name)) is not None:
        cloud.delete(thing.id)


def hold(quota: Delimiter, name: str, resources: Mapping[str, int], *, project: str) -> Claim:
    """The claim that this name has; if the reservations that it had ran out, a new one."""
    for attempt in count(1):
        with suppress(ClaimExpired):
            id = f"{name}.{attempt}"
            return quota.reserve(resources, project=project, id=id, expires_in=WITHIN)
    raise AssertionError("there is always another attempt")


def let_go(quota: Delimiter, name: str) -> None:
    """Release the claim that this name has, whichever attempt it was."""
    with suppress(UnknownClaim):
        for attempt in count(1):
            quota.release(f"{name}.{attempt}")
