"""What is left to the listing: what the other system tells of, as Delimiter compares it with its claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from delimiter import Existing

from .elsewhere import Thing


def existing(things: Iterable[Thing], resource: str) -> Iterator[Existing]:
    """A thing's own id is the claim's external id, or its id."""
    return (Existing(thing.id, {resource: thing.size}, project=thing.project) for thing in things)
