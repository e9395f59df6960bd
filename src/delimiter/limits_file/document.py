"""What a limits file says, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from delimiter.errors import InvalidRequest
from delimiter.model import Overbooking, OwnLimit, Project, Resource, Scope, in_order

__all__ = ["Document"]


@dataclass(frozen=True, slots=True)
class Document:
    """The sections of a limits file. ``None``: the file has no such section and leaves that part of a store alone.

    ``resources`` are by name, ``projects`` with parents before their children, ``own_limits`` by scope and resource.
    Maxima and minima are in the resource's own unit; a maximum of -1 is unlimited, ``None`` leaves the default.
    """

    resources: tuple[Resource, ...] | None = None
    projects: tuple[Project, ...] | None = None
    own_limits: tuple[OwnLimit, ...] | None = None
    overbooking: Overbooking | None = None
    #: Where in the file a limit stands, for messages.
    places: Mapping[tuple[Scope, str], str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        resources: Iterable[Resource] | None = None,
        projects: Iterable[Project] | None = None,
        own_limits: Iterable[OwnLimit] | None = None,
        overbooking: Overbooking | None = None,
        *,
        places: Mapping[tuple[Scope, str], str] | None = None,
    ) -> Document:
        """A document in its one order, from what a store answers: then equal states are equal documents.

        Raises ``InvalidRequest`` if the projects are no tree.

        >>> Document.of(projects=[Project("web", "acme"), Project("acme", None)]).projects
        (Project(id='acme', parent=None), Project(id='web', parent='acme'))
        """
        return cls(
            None if resources is None else tuple(sorted(resources, key=lambda one: one.name)),
            None if projects is None else _tree_in_order(projects),
            None if own_limits is None else _limits_in_order(own_limits),
            overbooking,
            {} if places is None else places,
        )


def _limits_in_order(own_limits: Iterable[OwnLimit]) -> tuple[OwnLimit, ...]:
    said = [own for own in own_limits if own.max is not None or own.min is not None]
    said.sort(key=lambda own: (own.scope.rank, own.scope.name, own.resource))
    return tuple(said)


def _tree_in_order(projects: Iterable[Project]) -> tuple[Project, ...]:
    """Each project followed by all that is below it; refuses what is no tree."""
    every = [Project(*project) for project in projects]
    found = in_order(every)
    if len(found) != len(every) or len({project.id for project in every}) != len(every):
        raise InvalidRequest(
            "the projects are no tree: one is named twice, or has a parent that is not among them"
        )
    return tuple(found)
