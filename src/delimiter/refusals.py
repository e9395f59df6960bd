"""What refusals say: one sentence each, the same from every engine, and what to do next."""

from __future__ import annotations

from delimiter.errors import (
    ClaimConflict,
    ClaimExpired,
    ClaimReleased,
    InvalidRequest,
    UnknownClaim,
    UnknownResource,
)

__all__ = [
    "already_known_as",
    "ended_expired",
    "ended_released",
    "external_id_taken",
    "id_used_before",
    "not_to_renew",
    "still_claimed",
    "unknown_claim",
    "unknown_resource",
]


def unknown_resource(name: str) -> UnknownResource:
    return UnknownResource(
        f"no resource {name!r} is defined; its service defines it with define_resource({name!r}, …)"
    )


def still_claimed(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is still claimed; claims(resource={name!r}) lists what must be released first"
    )


def unknown_claim(id: str) -> UnknownClaim:
    return UnknownClaim(f"no claim is known by the id or external id {id!r}")


def ended_expired(id: str) -> ClaimExpired:
    return ClaimExpired(f"reservation {id!r} has run out; nothing is consumed, claim anew under a new id")


def ended_released(id: str) -> ClaimReleased:
    return ClaimReleased(f"claim {id!r} was released; nothing is consumed, claim anew under a new id")


def id_used_before(id: str) -> ClaimConflict:
    return ClaimConflict(f"the id {id!r} was used for another request; take a new id for a new claim")


def external_id_taken(external_id: str, holder: str) -> ClaimConflict:
    return ClaimConflict(f"the external id {external_id!r} belongs to the live claim {holder!r}")


def already_known_as(id: str, external_id: str | None) -> ClaimConflict:
    return ClaimConflict(f"claim {id!r} is provisioned already, as {external_id!r}")


def not_to_renew(id: str) -> InvalidRequest:
    return InvalidRequest(f"claim {id!r} is provisioned and does not run out: nothing to renew")
