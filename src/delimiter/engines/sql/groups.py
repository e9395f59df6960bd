"""Which changes can be decided at once, by locks that are taken once; and which only one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from delimiter.changes import Admit, Change, Provision, Transfer

__all__ = ["independent", "names_in", "without_common_names"]


def independent(changes: Sequence[Change]) -> list[Sequence[Change]]:
    """The changes as one group, or one by one where one of them names what another makes or changes."""
    if len(changes) == 1:
        return [changes]
    # The ways of what moves are known only afterwards; an external id may be one that another change sets free.
    if any(isinstance(change, Transfer) or _names_outside(change) for change in changes):
        return [[change] for change in changes]

    made: set[str] = set()
    for change in changes:
        touched = set(_touched(change))
        if made & (touched | set(_named(change))):
            return [[change] for change in changes]
        made |= touched
    return [changes]


def without_common_names(changes: Sequence[Change], numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """Those of one kind none of which names what another makes, to be decided at once; and the others.

    (An external id can be set free by others than new claims only, which are not of their kind.)
    """
    group: list[int] = []
    others: list[int] = []
    made: set[str] = set()
    named: set[str] = set()
    for number in numbers:
        change = changes[number]
        makes, names = set(names_in(change)), set(_named(change))
        if type(change) is type(changes[numbers[0]]) and not (made & (makes | names) or named & makes):
            made |= makes
            named |= names
            group.append(number)
        else:
            others.append(number)
    return group, others


def names_in(change: Change) -> Iterator[str]:
    """The ids and external ids that a change makes or speaks of; parents left out."""
    yield from _touched(change)
    if isinstance(change, Admit):
        yield from (claim.external_id for claim in change.claims if claim.external_id is not None)
    elif isinstance(change, Provision) and change.external_id is not None:
        yield change.external_id


def _names_outside(change: Change) -> bool:
    if isinstance(change, Admit):
        return any(claim.external_id is not None for claim in change.claims)
    return isinstance(change, Provision) and change.external_id is not None


def _touched(change: Change) -> Iterator[str]:
    if isinstance(change, Admit):
        yield from (claim.id for claim in change.claims)
    else:
        yield change.id


def _named(change: Change) -> Iterator[str]:
    if isinstance(change, Admit):
        yield from (claim.parent for claim in change.claims if claim.parent is not None)
