"""The rules: definitions, limits, and the tree of projects; everything that is changed by an edit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, get_args

from delimiter import validation
from delimiter.desk import Desk
from delimiter.edits import (
    AddProject,
    Define,
    Edit,
    LimitChange,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
    Undefine,
)
from delimiter.edits import Keep as _Keep
from delimiter.errors import InvalidRequest
from delimiter.model import UNLIMITED, Overage, OwnLimit, Project, Resource, Scope

__all__ = ["Overbooking", "Rules", "one_scope"]

Overbooking: TypeAlias = Literal["allowed", "forbidden"]

_LIMIT_EDITS: Final = (SetLimit,)
_PROJECT_EDITS: Final = (AddProject, MoveProject, RemoveProject)


class Rules(Desk):
    """Definitions, limits and projects of an open store."""

    def define_resource(
        self,
        name: str,
        *,
        service: str | None = None,
        max: int = UNLIMITED,
        min: int = 0,
        project_max: int = UNLIMITED,
        project_min: int = 0,
        user_max: int = UNLIMITED,
        user_min: int = 0,
        unit: str = "",
        description: str = "",
    ) -> None:
        """Register a resource with its service's own default limits; call it at every start.

        ``max`` and ``min`` bind the whole deployment, ``project_*`` each project and ``user_*`` each user; amounts
        are in the resource's own ``unit``, -1 is unlimited. ``service`` defaults to the part before the first dot.
        What an operator set with ``update_limits`` is kept; an unchanged definition writes nothing. Raises
        ``InvalidRequest``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.instances", max=2000, user_max=25, unit="instances")
        >>> quota.limits(user="john")
        {'database.instances': 25}
        """
        name = validation.name(name, "the resource's name")
        service = (name.partition(".")[0] or name) if service is None else service
        resource = Resource(
            name=name,
            service=service,
            max=max,
            min=min,
            project_max=project_max,
            project_min=project_min,
            user_max=user_max,
            user_min=user_min,
            unit=unit,
            description=description,
        )
        self.edit([Define(resource)])

    def undefine_resource(self, name: str) -> None:
        """Forget a resource and every limit of it. ``InvalidRequest`` while claimed, ``UnknownResource``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("old.things")
        >>> quota.undefine_resource("old.things")
        >>> quota.resources()
        []
        """
        self.edit([Undefine(name)])

    def resources(self) -> list[Resource]:
        """All definitions, by name, as their services gave them.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20_000, unit="GB")
        >>> [(r.name, r.service, r.project_max) for r in quota.resources()]
        [('storage.gb', 'storage', 20000)]
        """
        return self._run(self._engine.resources)

    # -- limits -------------------------------------------------------------------------------------------------

    def update_limits(
        self,
        name: str,
        *,
        project: str | None = None,
        user: str | None = None,
        max: int | _Keep | None = _Keep.KEEP,
        min: int | _Keep | None = _Keep.KEEP,
        dry_run: bool = False,
        if_version: int | None = None,
    ) -> list[Overage]:
        """Set the own limit of one project, one user, or (neither named) the whole deployment.

        What is left out stays as it is; ``None`` removes the override. The new limit holds for every claim that
        begins after this returned, in every process. Returns who is over quota because of it: lowering a limit below
        what is used is allowed, and nothing more is admitted there until enough is given back. With ``dry_run`` it
        only says who would be; with ``if_version`` (see :meth:`version`) it raises ``Conflict`` if anything has been
        edited since. Raises ``UnknownResource``, ``InvalidRequest``, and ``Unsupported`` where limits come from
        elsewhere.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.instances", user_max=25)
        >>> quota.update_limits("database.instances", user="amrith", max=2)
        []
        >>> quota.limits(user="amrith")
        {'database.instances': 2}
        """
        edit = SetLimit(name, one_scope(project, user), LimitChange(max, min))
        return self.edit([edit], dry_run=dry_run, if_version=if_version)

    def limits(self, *, project: str | None = None, user: str | None = None) -> dict[str, int]:
        """The effective maximum of each resource for one project, one user, or the deployment; -1 is unlimited.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", max=500, project_max=20)
        >>> quota.limits(project="acme"), quota.limits()
        ({'storage.gb': 20}, {'storage.gb': 500})
        """
        scope = one_scope(project, user)
        self._freshness.freshen([scope])
        return self._run(lambda: self._engine.limits(scope))

    def own_limits(self) -> list[OwnLimit]:
        """Every limit that was set with ``update_limits``, by resource and scope: what differs from the definitions.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20)
        >>> overages = quota.update_limits("storage.gb", project="acme", max=500)
        >>> [(str(own.scope), own.max) for own in quota.own_limits()]
        [('project:acme', 500)]
        """
        return self._run(self._engine.own_limits)

    # -- projects -----------------------------------------------------------------------------------------------

    def add_project(self, id: str, *, parent: str | None = None) -> None:
        """Give a project its place in the tree: below ``parent``, or as a root.

        A claim is charged to its project and to every ancestor, and each that has a limit must have room. A project
        that was never added is a root. Adding it again under the same parent is harmless, under another
        ``InvalidRequest``; an unknown parent is ``UnknownProject``. What the project holds already counts for its
        ancestors from now on: ``OverLimit`` if one of them has no room.

        >>> quota = Delimiter("memory://")
        >>> quota.add_project("acme")
        >>> quota.add_project("web", parent="acme")
        >>> quota.projects()
        [Project(id='acme', parent=None), Project(id='web', parent='acme')]
        """
        self.edit([AddProject(id, parent)])

    def move_project(self, id: str, *, parent: str | None) -> None:
        """Put a project, with everything below it, under another parent (``None``: make it a root).

        In one transaction, under load: its usage leaves the old ancestors and is charged to the new ones, and every
        claim from then on goes the new way. ``OverLimit`` with every limit in the way if there is no room (then
        nothing has changed); ``InvalidRequest`` if it would come to lie below itself; ``UnknownProject``.

        >>> quota = Delimiter("memory://")
        >>> for name in ("acme", "globex"):
        ...     quota.add_project(name)
        >>> quota.add_project("web", parent="acme")
        >>> quota.move_project("web", parent="globex")
        >>> dict(quota.projects())["web"]
        'globex'
        """
        self.edit([MoveProject(id, parent)])

    def remove_project(self, id: str) -> None:
        """Take a project out of the tree, and its own limits with it.

        ``InvalidRequest`` while it holds claims or has children, ``UnknownProject`` if it is not there.

        >>> quota = Delimiter("memory://")
        >>> quota.add_project("acme")
        >>> quota.remove_project("acme")
        >>> quota.projects()
        []
        """
        self.edit([RemoveProject(id)])

    def projects(self) -> list[Project]:
        """The tree: every project with its parent, parents before their children, siblings by name."""
        return self._run(self._engine.projects)

    def set_overbooking(self, policy: Overbooking) -> None:
        """Whether the limits of a project's children may add up to more than its own: ``"allowed"`` (at first) or not.

        Allowed, a parent is a bound on what its children use together. ``"forbidden"``, every edit after which they
        would be promised more than there is, this one too, is ``InvalidRequest`` with the sums. (A child without a
        limit is promised nothing of its own.) The policy is kept in the store and holds for every process.

        >>> quota = Delimiter("memory://")
        >>> quota.set_overbooking("forbidden")
        >>> quota.overbooking()
        'forbidden'
        """
        if policy not in get_args(Overbooking):
            raise InvalidRequest(f"overbooking is 'allowed' or 'forbidden', not {policy!r}")
        self.edit([SetOverbooking(policy == "allowed")])

    def overbooking(self) -> Overbooking:
        """The policy that is in force, ``"allowed"`` or ``"forbidden"``."""
        return "allowed" if self._run(self._engine.overbooking) else "forbidden"

    # -- edits --------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """A number that grows with every edit of definitions, limits or projects: hand it in as ``if_version``."""
        return self._run(self._engine.version)

    def edit(
        self, edits: Iterable[Edit], *, dry_run: bool = False, if_version: int | None = None
    ) -> list[Overage]:
        """Make several edits (:mod:`delimiter.edits`) in order, all or none; who is over quota because of them.

        ``dry_run`` decides everything and keeps nothing. ``if_version`` makes them only if nothing was edited since
        :meth:`version` gave that number, and raises ``Conflict`` otherwise: look again, then decide again.

        >>> from delimiter.edits import AddProject, LimitChange, SetLimit
        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> seen = quota.version()
        >>> limit = SetLimit("storage.gb", Scope("project", "acme"), LimitChange(max=100))
        >>> quota.edit([AddProject("acme", None), limit], if_version=seen)
        []
        """
        looked_through = [_looked_through(edit) for edit in edits]
        if if_version is not None and (isinstance(if_version, bool) or not isinstance(if_version, int)):
            raise InvalidRequest(f"if_version is a number that version() gave, not {if_version!r}")
        for edit in looked_through:
            if isinstance(edit, _LIMIT_EDITS):
                self._freshness.refuse_limit_edits()
            elif isinstance(edit, _PROJECT_EDITS):
                self._freshness.refuse_project_edits()
        if not looked_through:
            return []
        overages = self._run(
            lambda: self._engine.edit(looked_through, dry_run=bool(dry_run), if_version=if_version)
        )
        self._freshness.look_again()
        return overages


def one_scope(project: str | None, user: str | None) -> Scope:
    if project is not None and user is not None:
        raise InvalidRequest("name a project or a user, not both: limits and usage are kept for each of them")
    return Scope.of(
        project=validation.optional_name(project, "project"), user=validation.optional_name(user, "user")
    )


def _looked_through(edit: Edit) -> Edit:
    match edit:
        case Define():
            return Define(_definition(edit.resource))
        case Undefine():
            return Undefine(validation.name(edit.name, "the resource's name"))
        case SetLimit():
            return _limit(edit)
        case AddProject():
            return AddProject(
                validation.name(edit.id, "the project's id"), validation.optional_name(edit.parent, "parent")
            )
        case MoveProject():
            return MoveProject(
                validation.name(edit.id, "the project's id"), validation.optional_name(edit.parent, "parent")
            )
        case RemoveProject():
            return RemoveProject(validation.name(edit.id, "the project's id"))
        case SetOverbooking():
            return SetOverbooking(bool(edit.allowed))
    raise InvalidRequest(f"an edit is one of those in delimiter.edits, not {type(edit).__name__}")


def _definition(resource: Resource) -> Resource:
    name = validation.name(resource.name, "the resource's name")
    checked = Resource(
        name=name,
        service=validation.name(resource.service, "service"),
        max=validation.maximum(resource.max, "max"),
        min=validation.floor(resource.min, "min"),
        project_max=validation.maximum(resource.project_max, "project_max"),
        project_min=validation.floor(resource.project_min, "project_min"),
        user_max=validation.maximum(resource.user_max, "user_max"),
        user_min=validation.floor(resource.user_min, "user_min"),
        unit=validation.text(resource.unit, "unit"),
        description=validation.text(resource.description, "description"),
    )
    for kind in ("total", "project", "user"):
        _refuse_crossed(*checked.default(kind), f"the {kind} limits of {name}")
    return checked


def _limit(edit: SetLimit) -> SetLimit:
    name = validation.name(edit.resource, "the resource's name")
    if edit.scope.kind != "total":
        validation.name(edit.scope.name, edit.scope.kind)
    max, min = edit.change.max, edit.change.min
    change = LimitChange(
        max=max if max is None or max is _Keep.KEEP else validation.maximum(max, "max"),
        min=min if min is None or min is _Keep.KEEP else validation.floor(min, "min"),
    )
    if isinstance(change.max, int) and isinstance(change.min, int):
        _refuse_crossed(change.max, change.min, f"the limits of {name}")
    return SetLimit(name, edit.scope, change)


def _refuse_crossed(max: int, min: int, what: str) -> None:
    if max != UNLIMITED and min > max:
        raise InvalidRequest(f"{what}: the minimum {min} is above the maximum {max}")
