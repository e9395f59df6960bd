"""The words all of Delimiter talks in: scopes, resources, claims and what is said about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, get_args

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    #: A caller's own transaction: of SQLAlchemy, sync for :class:`delimiter.Delimiter`, async for the other.
    CallersConnection: TypeAlias = Connection | Session | AsyncConnection | AsyncSession

__all__ = [
    "CEILING",
    "LIVE_STATES",
    "SCOPE_KINDS",
    "UNLIMITED",
    "Claim",
    "ClaimState",
    "Consumer",
    "Decision",
    "Drift",
    "Event",
    "EventKind",
    "Explanation",
    "Level",
    "Overage",
    "Overbooking",
    "OwnLimit",
    "Project",
    "ProjectUsage",
    "Request",
    "Resource",
    "Running",
    "Scope",
    "ScopeKind",
    "Usage",
    "Violation",
    "in_order",
    "service_of",
]

#: The limit that is none.
UNLIMITED: Final = -1

#: The largest amount any store can count (a signed 64-bit column). An unlimited scope counts up to here.
CEILING: Final = 2**63 - 1

ClaimState: TypeAlias = Literal["reserved", "provisioned", "released", "expired"]

#: Of claims that count.
LIVE_STATES: Final[tuple[ClaimState, ...]] = ("reserved", "provisioned")

ScopeKind: TypeAlias = Literal["total", "project", "user"]

#: In the order in which scopes are told, everywhere.
SCOPE_KINDS: Final[tuple[ScopeKind, ...]] = get_args(ScopeKind)

EventKind: TypeAlias = Literal["limit_changed", "over_quota", "back_within_quota"]

#: Whether the limits of a project's children may add up to more than its own.
Overbooking: TypeAlias = Literal["allowed", "forbidden"]


class Scope(NamedTuple):
    """Whom something is charged to: the whole deployment, one project or one user.

    >>> str(Scope("project", "acme"))
    'project:acme'
    >>> str(Scope.total())
    'total'
    """

    kind: ScopeKind
    name: str = ""

    @classmethod
    def total(cls) -> Scope:
        return cls("total")

    @classmethod
    def of(cls, *, project: str | None = None, user: str | None = None) -> Scope:
        """The scope of one project, one user, or (neither named) of the deployment."""
        if project is not None:
            return cls("project", project)
        if user is not None:
            return cls("user", user)
        return cls.total()

    @classmethod
    def owned(cls, project: str | None, user: str | None) -> list[Scope]:
        """The scopes of whoever owns a claim: the project, the user, or both."""
        project_scope = [] if project is None else [cls("project", project)]
        return project_scope + ([] if user is None else [cls("user", user)])

    @property
    def rank(self) -> int:
        """The place of its kind where scopes are told in order: the total, projects, users."""
        return SCOPE_KINDS.index(self.kind)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.kind != "total" else "total"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource class as its service defined it: what is counted, in which unit, and the default limits.

    ``max`` and ``min`` are of the whole deployment, ``project_*`` of each project, ``user_*`` of each user; a maximum
    of -1 is unlimited.
    """

    name: str
    service: str
    max: int = UNLIMITED
    min: int = 0
    project_max: int = UNLIMITED
    project_min: int = 0
    user_max: int = UNLIMITED
    user_min: int = 0
    unit: str = ""
    description: str = ""

    def default(self, kind: ScopeKind) -> tuple[int, int]:
        """The maximum and minimum of a scope that has no limit of its own."""
        if kind == "project":
            return self.project_max, self.project_min
        if kind == "user":
            return self.user_max, self.user_min
        return self.max, self.min


def service_of(resource: str) -> str:
    """The service of a resource that names none: the part of its name before the first dot.

    >>> service_of("storage.gb"), service_of("cores")
    ('storage', 'cores')
    """
    return resource.partition(".")[0] or resource


@dataclass(frozen=True, slots=True)
class Request:
    """One claim (or, with ``expires_in``, one reservation) of a list handed to ``claim_all``.

    >>> Request({"database.instances": 1}, project="acme", id="node-1", parent="cluster-1").parent
    'cluster-1'
    """

    resources: Mapping[str, int]
    project: str | None = field(default=None, kw_only=True)
    user: str | None = field(default=None, kw_only=True)
    id: str | None = field(default=None, kw_only=True)
    parent: str | None = field(default=None, kw_only=True)
    external_id: str | None = field(default=None, kw_only=True)
    expires_in: float | timedelta | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Claim:
    """Resources consumed by an owner, as they stood when the call returned."""

    id: str
    resources: Mapping[str, int]
    project: str | None
    user: str | None
    parent: str | None
    state: ClaimState
    external_id: str | None = None
    #: When a reservation runs out or ran out (aware, UTC); ``None`` for everything else.
    expires_at: datetime | None = None

    @property
    def live(self) -> bool:
        """Whether it counts: reserved or provisioned, neither released nor expired."""
        return self.state in LIVE_STATES


@dataclass(frozen=True, slots=True)
class Violation:
    """One limit in the way: ``used`` before, ``requested`` in addition, ``available`` what would have fitted."""

    resource: str
    scope: str
    limit: int
    used: int
    requested: int
    available: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a claim would be told now. ``available`` is, by resource, the most that would fit of it alone."""

    allowed: bool
    violations: tuple[Violation, ...]
    available: Mapping[str, int | None]

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a resource one scope uses. ``reserved`` is the part of ``used`` that is not provisioned yet."""

    limit: int
    used: int
    reserved: int

    @property
    def available(self) -> int | None:
        """The scope's own room, never negative; ``None`` if it is unlimited."""
        return None if self.limit == UNLIMITED else max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class Overage:
    """A scope that holds more than its limit since the limit was changed."""

    resource: str
    scope: str
    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that disagrees with the claims charged to it.

    ``counter`` names the number that is off: ``"used"``, ``"reserved"`` (the part of it not provisioned), or, where
    those two are right, the part of them that comes from the projects below: ``"used_below"``, ``"reserved_below"``.
    """

    resource: str
    scope: str
    recorded: int
    actual: int
    repaired: bool = False
    counter: Literal["used", "reserved", "used_below", "reserved_below"] = "used"


class Project(NamedTuple):
    """A project in the tree; ``parent`` is ``None`` for a root.

    >>> dict([Project("acme", None), Project("web", "acme")])
    {'acme': None, 'web': 'acme'}
    """

    id: str
    parent: str | None


def in_order(projects: Iterable[Project]) -> list[Project]:
    """Parents before their children, siblings by name: each project is followed by all that is below it.

    What does not hang on a root (in a circle, or below what is not among them) is left out.

    >>> [project.id for project in in_order([Project("web", "acme"), Project("z", None), Project("acme", None)])]
    ['acme', 'web', 'z']
    """
    children: dict[str | None, list[Project]] = {}
    for project in projects:
        children.setdefault(project.parent, []).append(project)
    ordered: list[Project] = []
    waiting = sorted(children.pop(None, ()), reverse=True)
    while waiting:
        project = waiting.pop()
        ordered.append(project)
        waiting.extend(sorted(children.pop(project.id, ()), reverse=True))
    return ordered


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """A project's place in the tree and what it uses of every resource, with all projects below it."""

    id: str
    parent: str | None
    usage: Mapping[str, Usage]


@dataclass(frozen=True, slots=True)
class OwnLimit:
    """What a scope was given of its own with ``update_limits``; ``None``: the default holds."""

    resource: str
    scope: Scope
    max: int | None
    min: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something an operator may want to be told. ``seq`` grows without gaps for whoever reads.

    ``limit_changed``: the effective maximum of a scope, or the default of all (``"project:*"``, ``"user:*"``; then
    ``used`` is ``None``, as it is for a resource that only other processes can count). ``over_quota`` and
    ``back_within_quota``: a scope has come to hold more than its limit, or no longer does. ``previous_limit`` is the
    limit before what happened, and equals ``limit`` if only usage changed.
    """

    seq: int
    kind: EventKind
    resource: str
    scope: str
    limit: int
    previous_limit: int
    used: int | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Level:
    """One scope on a claim's way, and how much of a resource it has."""

    resource: str
    scope: Scope
    limit: int
    used: int
    reserved: int

    @property
    def available(self) -> int | None:
        """The room there, never negative; ``None`` if it is unlimited."""
        return None if self.limit == UNLIMITED else max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class Consumer:
    """An owner of claims, and how much of a resource they hold."""

    project: str | None
    user: str | None
    used: int


@dataclass(frozen=True, slots=True)
class Running:
    """A reservation that holds some of a resource until it runs out."""

    claim_id: str
    amount: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a claim would be admitted or refused, for operators: it tells everybody's numbers.

    ``levels`` are all scopes on its way. For each resource: ``binding`` is the scope with the least room (``None``:
    nothing limits it), ``decision.available`` the most that would fit, ``room_at`` when enough reservations will have
    run out (``None``: it fits now, or they will not make room), ``consumers`` who holds most in the binding scope.
    """

    decision: Decision
    requested: Mapping[str, int]
    levels: tuple[Level, ...]
    binding: Mapping[str, Scope | None]
    room_at: Mapping[str, datetime | None]
    consumers: Mapping[str, tuple[Consumer, ...]]
