"""What an operator or a service may change of the rules: definitions, limits, and the tree of projects.

An engine takes edits in lists (:meth:`delimiter.engine.Engine.edit`): one list is one atomic step, decided in order,
or tried out (``dry_run``) and taken back, but for the reservations that ran out: those may be swept all the same.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from delimiter.model import Resource, Scope

__all__ = [
    "AddProject",
    "AdoptAncestors",
    "AdoptLimits",
    "Adoption",
    "Define",
    "Edit",
    "Keep",
    "LimitChange",
    "MoveProject",
    "RemoveProject",
    "SetLimit",
    "SetOverbooking",
    "Undefine",
]


class Keep(enum.Enum):
    """The value of an argument that was left out (``None`` has a meaning of its own)."""

    KEEP = "keep"

    def __repr__(self) -> str:
        return "<as it is>"


@dataclass(frozen=True, slots=True)
class LimitChange:
    """What becomes of the two values of a limit: a number, ``None`` (no limit of its own), or left as it is."""

    max: int | Keep | None = Keep.KEEP
    min: int | Keep | None = Keep.KEEP


@dataclass(frozen=True, slots=True)
class Define:
    """Register or change a definition. An unchanged one writes nothing."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Undefine:
    """Forget a definition, with all limits of it. ``InvalidRequest`` while anything of it is claimed."""

    name: str


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Set one scope's own limit."""

    resource: str
    scope: Scope
    change: LimitChange


@dataclass(frozen=True, slots=True)
class AddProject:
    """A project gets its place in the tree; what it holds already is carried under its new ancestors.

    Again, under the same parent: nothing. Under another: ``InvalidRequest``. An unknown parent: ``UnknownProject``.
    """

    id: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class MoveProject:
    """A project, with all below it, to another parent (``None``: it becomes a root).

    The usage of the whole subtree leaves the old ancestors and is charged to the new ones: ``OverLimit`` where one has
    no room. ``UnknownProject`` for either; ``InvalidRequest`` for a cycle.
    """

    id: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class RemoveProject:
    """A project leaves the tree, and its own limits go. ``InvalidRequest`` while it has live claims or children."""

    id: str


@dataclass(frozen=True, slots=True)
class SetOverbooking:
    """Whether the limits of children may add up to more than their parent's.

    Where they may not, every edit after which they would (this one too) is ``InvalidRequest``, with the sums shown.
    """

    allowed: bool


Edit: TypeAlias = Define | Undefine | SetLimit | AddProject | MoveProject | RemoveProject | SetOverbooking


@dataclass(frozen=True, slots=True)
class AdoptLimits:
    """A scope's own maxima as a source outside the store has them: what it does not name has none.

    ``as_of`` is the store's clock just before they were fetched. What was fetched later wins, whoever is later to
    write: processes with different ages never fight.
    """

    scope: Scope
    maxima: Mapping[str, int] = field(default_factory=dict)
    as_of: int = 0


@dataclass(frozen=True, slots=True)
class AdoptAncestors:
    """Where a source outside the store has a project: its ancestors, the parent first. ``as_of`` as for limits.

    The store's tree is made to agree. It has happened already, elsewhere: no limit refuses it.
    """

    project: str
    ancestors: tuple[str, ...] = ()
    as_of: int = 0


Adoption: TypeAlias = AdoptLimits | AdoptAncestors
