"""What refusals say: one sentence each, the same from every engine, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from delimiter.errors import (
    ClaimConflict,
    ClaimExpired,
    ClaimReleased,
    Conflict,
    InvalidRequest,
    UnknownClaim,
    UnknownProject,
    UnknownResource,
)

__all__ = [
    "already_known_as",
    "counted_elsewhere",
    "counted_not_claimed",
    "edited_since",
    "ended_expired",
    "ended_released",
    "external_id_taken",
    "has_children",
    "has_claims",
    "has_counted",
    "id_used_before",
    "no_longer_as_seen",
    "not_to_renew",
    "overbooked",
    "placed_elsewhere",
    "still_claimed",
    "still_counted",
    "unknown_claim",
    "unknown_project",
    "unknown_resource",
    "would_circle",
]

#: Children whose numbers are spelled out in a sentence; of the others it says how many there are.
_CHILDREN_NAMED: Final = 10


def unknown_resource(name: str) -> UnknownResource:
    return UnknownResource(
        f"no resource {name!r} is defined; its service defines it with define_resource({name!r}, …)"
    )


def still_claimed(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is still claimed; claims(resource={name!r}) lists what must be released first"
    )


def counted_not_claimed(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is counted from the service's own table and cannot be claimed; write its rows inside"
        f" guard({{{name!r}: …}}, …, connection=…), where count({name!r}, …) has been called"
    )


def counted_elsewhere(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is counted by its service, and this process does not know how; call count({name!r}, …) here too, or"
        " ask the service"
    )


def still_counted(name: str, used: int) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is still in use: {used} are counted in the service's own table; delete those first"
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


def no_longer_as_seen(id: str) -> ClaimConflict:
    return ClaimConflict(f"claim {id!r} is no longer as it was seen; look again before it is corrected")


def not_to_renew(id: str) -> InvalidRequest:
    return InvalidRequest(f"claim {id!r} is provisioned and does not run out: nothing to renew")


def unknown_project(id: str) -> UnknownProject:
    return UnknownProject(f"the tree has no project {id!r}; add it first with add_project({id!r}, parent=…)")


def placed_elsewhere(id: str, parent: str | None, wanted: str | None) -> InvalidRequest:
    return InvalidRequest(
        f"project {id!r} is {_place(parent)} already; to put it elsewhere call move_project({id!r}, parent={wanted!r})"
    )


def would_circle(id: str, parent: str) -> InvalidRequest:
    below = "itself" if id == parent else f"{parent!r}, which lies below it"
    return InvalidRequest(
        f"project {id!r} cannot be put below {below}; choose a parent outside of it, or None to make it a root"
    )


def has_children(id: str, child: str) -> InvalidRequest:
    return InvalidRequest(
        f"project {id!r} has projects below it, such as {child!r}; move or remove those first"
    )


def has_claims(id: str) -> InvalidRequest:
    return InvalidRequest(
        f"project {id!r} still holds claims; claims(project={id!r}) lists what must be released or transferred first"
    )


def has_counted(id: str, resources: Sequence[str]) -> InvalidRequest:
    return InvalidRequest(
        f"project {id!r} still has rows that are counted ({', '.join(resources)}); delete or move those first"
    )


def overbooked(resource: str, project: str, limit: int, children: Mapping[str, int]) -> InvalidRequest:
    """``children`` are the promises made to each child; those that were promised nothing may be left out."""
    largest = sorted(children, key=lambda child: (-children[child], child))
    told = [f"{child} {children[child]}" for child in largest[:_CHILDREN_NAMED]]
    if len(largest) > _CHILDREN_NAMED:
        told.append(f"and {len(largest) - _CHILDREN_NAMED} more")
    return InvalidRequest(
        f"{resource}: project {project!r} has a limit of {limit}, but its children were promised"
        f" {sum(children.values())} together ({', '.join(told)}); overbooking is forbidden: lower their limits, raise"
        f" that of {project!r}, or allow it with set_overbooking('allowed')"
    )


def edited_since(if_version: int, version: int) -> Conflict:
    """Not to be tried again as it is: whoever decided on what they saw must look at what there is now."""
    conflict = Conflict(
        f"the rules were edited since version {if_version}, they are at {version} now; look again, decide again, and"
        f" hand in the new version"
    )
    conflict.retryable = False
    return conflict


def _place(parent: str | None) -> str:
    return "a root" if parent is None else f"below {parent!r}"
