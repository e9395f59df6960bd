"""The rules: definitions, limits, and the tree of projects; everything that is changed by an edit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, get_args

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
from delimiter.model import (
    SCOPE_KINDS,
    UNLIMITED,
    Overage,
    Overbooking,
    OwnLimit,
    Project,
    Resource,
    Scope,
    ScopeKind,
    service_of,
)

__all__ = ["Overbooking", "Rules", "one_scope"]

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
        What an operator set with ``update_limits`` is kept; an unchanged definition writes nothing. Who holds more than
        a lowered default is told by :meth:`events`, not here: nothing is returned. Raises ``InvalidRequest``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.instances", max=2000, user_max=25, unit="instances")
        >>> quota.limits(user="john")
        {'database.instances': 25}
        """
        name = validation.name(name, "the resource's name")
        resource = Resource(
            name=name,
            service=service_of(name) if service is None else service,
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
        begins after this returned, in every process. Lowering it below what is used is allowed, and nothing more is
        admitted there until enough is given back: returns who holds more than the limit that was set, also if it was
        so before. ``dry_run`` and ``if_version`` are those of :meth:`edit`. Raises ``UnknownResource``,
        ``InvalidRequest``, ``Conflict``, and ``Unsupported`` where limits come from elsewhere.

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

        Raises ``InvalidRequest``, and ``StoreUnavailable`` also if a source of limits fails.

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
        """The tree: every project with its parent, parents before their children, siblings by name.

        >>> quota = Delimiter("memory://")
        >>> for name, parent in (("acme", None), ("web", "acme"), ("globex", None)):
        ...     quota.add_project(name, parent=parent)
        >>> [(project.id, project.parent) for project in quota.projects()]
        [('acme', None), ('web', 'acme'), ('globex', None)]
        """
        return self._run(self._engine.projects)

    def set_overbooking(self, policy: Overbooking) -> None:
        """Whether the limits of a project's children may add up to more than its own: ``"allowed"`` (at first) or not.

        Allowed, a parent is a bound on what its children use together. ``"forbidden"``, every edit after which they
        would be promised more than there is, this one too, is ``InvalidRequest`` with the sums. (A child without a
        limit is promised nothing of its own.) The policy is kept in the store and holds for every process. Raises
        ``InvalidRequest``, also for what is no policy, ``Conflict``, ``StoreUnavailable``.

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
        """A number that grows with every edit of definitions, limits or projects: hand it in as ``if_version``.

        >>> quota = Delimiter("memory://")
        >>> seen = quota.version()
        >>> quota.define_resource("storage.gb")
        >>> quota.version() > seen
        True
        """
        return self._run(self._engine.version)

    def edit(
        self, edits: Iterable[Edit], *, dry_run: bool = False, if_version: int | None = None
    ) -> list[Overage]:
        """Make several edits (:mod:`delimiter.edits`) in order, all or none.

        Returns who holds more than a limit that was set here, also if it was so before. ``dry_run`` decides everything
        and keeps nothing (only reservations that ran out may be swept all the same, and what a source says be written
        to the store). ``if_version`` makes them only if nothing was edited since :meth:`version` gave that number, and
        raises ``Conflict`` otherwise: look again, then decide again. Raises what the single calls raise.

        >>> from delimiter.edits import AddProject, LimitChange, SetLimit
        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> seen = quota.version()
        >>> limit = SetLimit("storage.gb", Scope("project", "acme"), LimitChange(max=100))
        >>> quota.edit([AddProject("acme", None), limit], if_version=seen)
        []
        """
        if not isinstance(edits, Iterable):
            raise InvalidRequest(f"edits are a list of those in delimiter.edits, not {_kind(edits)}")
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
        above = [edit.parent for edit in looked_through if isinstance(edit, AddProject | MoveProject)]
        self._freshness.freshen_above(parent for parent in above if parent is not None)
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
            if not isinstance(edit.allowed, bool):
                raise InvalidRequest(f"overbooking is allowed (True) or not (False), not {edit.allowed!r}")
            return edit
    raise InvalidRequest(f"an edit is one of those in delimiter.edits, not {_kind(edit)}")


def _definition(resource: Any) -> Resource:
    if not isinstance(resource, Resource):
        raise InvalidRequest(f"Define takes a delimiter.Resource, not {_kind(resource)}")
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
    for kind in SCOPE_KINDS:
        _refuse_crossed(*checked.default(kind), f"the {kind} limits of {name}")
    return checked


def _limit(edit: SetLimit) -> SetLimit:
    name = validation.name(edit.resource, "the resource's name")
    scope = _scope(edit.scope)
    given: Any = edit.change
    if not isinstance(given, LimitChange):
        raise InvalidRequest(f"SetLimit takes a LimitChange, not {_kind(given)}")
    max, min = given.max, given.min
    change = LimitChange(
        max=max if max is None or max is _Keep.KEEP else validation.maximum(max, "max"),
        min=min if min is None or min is _Keep.KEEP else validation.floor(min, "min"),
    )
    if isinstance(change.max, int) and isinstance(change.min, int):
        _refuse_crossed(change.max, change.min, f"the limits of {name}")
    return SetLimit(name, scope, change)


def _scope(scope: Any) -> Scope:
    if not isinstance(scope, Scope):
        raise InvalidRequest(f"SetLimit takes a Scope such as Scope('project', 'acme'), not {_kind(scope)}")
    if scope.kind not in get_args(ScopeKind):
        raise InvalidRequest(f"a scope is one of {', '.join(get_args(ScopeKind))}, not {scope.kind!r}")
    if scope.kind != "total":
        validation.name(scope.name, scope.kind)
    elif scope.name != "":
        raise InvalidRequest(f"the total is the whole deployment and has no name, such as {scope.name!r}")
    return scope


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"


def _refuse_crossed(max: int, min: int, what: str) -> None:
    if max != UNLIMITED and min > max:
        raise InvalidRequest(f"{what}: the minimum {min} is above the maximum {max}")
