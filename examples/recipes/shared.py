"""Two services, one quota: a database service reserves the server, the compute service provisions it."""

from __future__ import annotations

from contextlib import suppress

from delimiter import Claim, ClaimConflict, ClaimExpired, ClaimReleased, Delimiter, OverLimit, UnknownClaim

from . import reserve_first
from .elsewhere import Elsewhere, Thing
from .reserve_first import VCPU, hold, let_go, take_down

DATABASES = "database.instances"


class Compute:
    """The second service, with a Delimiter of its own on the same store."""

    def __init__(self, quota: Delimiter, cloud: Elsewhere) -> None:
        self._quota = quota
        self._cloud = cloud

    def create_server(self, name: str, *, project: str, size: int, reservation: str | None = None) -> Claim:
        """With the id of a reservation the caller has paid already."""
        quota, cloud = self._quota, self._cloud
        if reservation is None:
            return reserve_first.create(quota, cloud, name, project=project, size=size)
        held = quota.get_claim(reservation)
        if held.project != project or dict(held.resources) != {VCPU: size}:
            raise PermissionError(f"{reservation} was not reserved for this")
        thing = cloud.create(name, project=project, size=size)
        try:
            return quota.provision(reservation, external_id=thing.id)
        except (ClaimExpired, ClaimReleased, ClaimConflict):  # or it has paid for another server
            if not is_paid(quota, thing):
                cloud.delete(thing.id)
            raise

    def delete_server(self, name: str) -> None:
        take_down(self._cloud, name)


def create_database(
    quota: Delimiter, compute: Compute, databases: Elsewhere, name: str, *, project: str, size: int
) -> Claim:
    """The first service. Run it again, with the same arguments, until it returns or says no."""
    server = f"{name}.server"
    while True:
        try:
            own = hold(quota, name, {DATABASES: 1}, project=project)
            held = hold(quota, server, {VCPU: size}, project=project)
        except (OverLimit, ClaimReleased):
            take_down(databases, name)
            compute.delete_server(server)
            let_go(quota, server)
            let_go(quota, name)
            raise
        if own.state == "provisioned":
            return own  # an earlier run came through
        with suppress(ClaimExpired):  # hold anew what ran out
            compute.create_server(server, project=project, size=size, reservation=held.id)
            database = databases.create(name, project=project, size=1)
            return quota.provision(own.id, external_id=database.id)


def is_paid(quota: Delimiter, thing: Thing) -> bool:
    with suppress(UnknownClaim):
        return quota.get_claim(thing.id).live
    return False
