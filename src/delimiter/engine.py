"""The contract of an engine: where usage is kept and decided.

The desk (:mod:`delimiter.quota`) talks to every store through :class:`Engine` alone, in batches of *changes*. What an
engine promises is written at its methods, as law: who calls, in which order, what must hold afterwards. The suite in
:mod:`delimiter.conformance` holds an engine to it.
"""

from __future__ import annotations

import enum
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast

from delimiter import validation
from delimiter.errors import DelimiterError, InvalidRequest, Unsupported
from delimiter.model import Claim, ClaimState, Decision, Drift, Overage, Resource, Scope, Usage

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = [
    "Admit",
    "Answer",
    "Capability",
    "Change",
    "ClaimQuery",
    "Engine",
    "LimitChange",
    "NewClaim",
    "OpenOptions",
    "Provision",
    "Release",
    "Renew",
    "Resize",
    "Transfer",
    "open_engine",
]


class Capability(enum.Enum):
    """What an engine can do beyond the verbs. Declared means tested; undeclared means ``Unsupported`` is raised."""

    #: ``connection=``: a change commits or rolls back with the caller's own rows.
    CALLERS_TRANSACTION = "callers_transaction"
    #: Several processes may open the same store at once.
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class NewClaim:
    """A request that has been looked through by the desk: names and amounts are valid, the id is there."""

    id: str
    resources: Mapping[str, int]
    project: str | None = None
    user: str | None = None
    parent: str | None = None
    external_id: str | None = None
    #: Microseconds a reservation lives; ``None`` for a plain claim.
    expires_in: int | None = None

    @property
    def fingerprint(self) -> str:
        """Tells a repeated request from another one under the same id. The time left is not part of it."""
        contents = [
            sorted(self.resources.items()),
            self.project,
            self.user,
            self.parent,
            self.external_id,
            self.expires_in is not None,
        ]
        return hashlib.sha256(json.dumps(contents, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Admit:
    """Several new claims, all or none. A parent may be an earlier one of them."""

    claims: tuple[NewClaim, ...]


@dataclass(frozen=True, slots=True)
class Provision:
    """A reservation becomes an allocation, known by the real thing's own id if one is given."""

    id: str
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """A live reservation lives this many microseconds from now."""

    id: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class Resize:
    """The whole new content of a claim."""

    id: str
    resources: Mapping[str, int]
    force: bool = False


@dataclass(frozen=True, slots=True)
class Transfer:
    """A claim and all below it to exactly this owner."""

    id: str
    project: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class Release:
    """A claim and all below it are given back."""

    id: str
    force: bool = False


Change: TypeAlias = Admit | Provision | Renew | Resize | Transfer | Release

#: The claims a change leaves (in the order asked for; none for a release), or why it was refused.
Answer: TypeAlias = tuple[Claim, ...] | DelimiterError


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
class ClaimQuery:
    """Which claims to list: an owner, a resource, a state (``None``: what is live)."""

    project: str | None = None
    user: str | None = None
    resource: str | None = None
    state: ClaimState | None = None
    #: Whether the projects below ``project`` count too.
    subtree: bool = False


class Engine(ABC):
    """Where usage is kept.

    An engine may be called from many threads at once. It opens a transaction of its own for each call without
    ``connection`` and never retries there what failed: it raises :class:`~delimiter.errors.Conflict`, and the desk
    calls again. Nothing is remembered from an attempt that failed. A store that cannot be reached, or an answer to
    COMMIT that never came, is :class:`~delimiter.errors.StoreUnavailable` (then ``in_doubt``). Time is the store's.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    #: Whether calls must be made in a greenlet on the event loop (:mod:`delimiter.aio` does).
    asynchronous: bool = False

    #: Microseconds added to the store's clock. Always 0 but in tests, which move time instead of sleeping.
    clock_offset: int = 0

    @abstractmethod
    def apply(
        self, changes: Sequence[Change], *, connection: CallersConnection | None = None
    ) -> list[Answer]:
        """Decide the changes in order, each on what the ones before it left, and make those that are admitted.

        All of it commits together: an answer is an answer only after COMMIT (or, in the caller's transaction, after
        the caller's). A refused change leaves no trace and does not disturb its neighbours. A change whose answer
        must be one of these errors is answered by the error as a value: everything that the interface says of that
        verb. Must hold after every call: for each limited scope ``used <= limit``, unless the limit was lowered below
        what was used, and then nothing made it grow; ``used`` is the sum of the claims charged; an admitted change is
        there whole and exactly once, however often its id is replayed; what fits is not refused, and reservations
        that ran out do not count, swept or not. In the caller's transaction nothing is committed, rolled back or
        retried; what cannot be decided on its snapshot raises ``Conflict``.
        """

    @abstractmethod
    def check(
        self,
        resources: Mapping[str, int],
        scopes: Sequence[Scope],
        *,
        connection: CallersConnection | None = None,
    ) -> Decision:
        """What a claim charged to ``scopes`` and the total would be told now; takes no lock and changes nothing."""

    @abstractmethod
    def define(self, resource: Resource) -> None:
        """Register or change a definition. An unchanged one writes nothing. Holds for every later claim."""

    @abstractmethod
    def undefine(self, name: str) -> None:
        """Forget a definition, with all limits of it. ``InvalidRequest`` while anything of it is claimed."""

    @abstractmethod
    def set_limit(self, resource: str, scope: Scope, change: LimitChange) -> list[Overage]:
        """Set a scope's own limit. It holds for every claim that begins after this returned, in every process."""

    @abstractmethod
    def resources(self) -> list[Resource]:
        """All definitions, by name; of the deployment with the limits its service defined."""

    @abstractmethod
    def limits(self, scope: Scope) -> dict[str, int]:
        """The effective maximum of each resource in this scope."""

    @abstractmethod
    def usage(self, scope: Scope, *, connection: CallersConnection | None = None) -> dict[str, Usage]:
        """What this scope uses of each resource, in one consistent read; what ran out does not count."""

    @abstractmethod
    def get_claim(self, id: str) -> Claim:
        """One claim by id or external id, ended ones too."""

    @abstractmethod
    def page_of_claims(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        """At most ``size`` claims in the order they were made, and where the next page begins (``None``: no more)."""

    @abstractmethod
    def sweep(self, *, size: int) -> int:
        """End up to ``size`` reservations that ran out, in one transaction; how many. 0: none is left that is free."""

    @abstractmethod
    def prune(self, *, older_than: int, size: int) -> int:
        """Forget up to ``size`` claims that ended at least this many microseconds ago and have none below them."""

    @abstractmethod
    def drifts(self, *, repair: bool) -> Iterator[Drift]:
        """Counters that disagree with their claims; with ``repair`` each is set right under its lock, one by one."""

    def prepare(self) -> None:  # noqa: B027 - an engine may need nothing
        """Do what the first call would do by itself, such as making tables. Again: nothing."""

    def close(self) -> None:  # noqa: B027 - an engine that opened nothing has nothing to give back
        """Give back what the engine opened itself; a connection pool that was handed in stays open."""

    def pause(self, seconds: float) -> None:
        """Wait before the desk tries again; an engine that runs on an event loop lets the loop go on meanwhile."""
        import time

        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to open a store; each engine takes what concerns it."""

    create: bool = True
    schema: str | None = None
    table_prefix: str = "delimiter_"
    timeout: float = 10.0
    #: Whether the caller runs the engine on an event loop, in SQLAlchemy's greenlets, if the store's driver can.
    asynchronous: bool = False

    def __post_init__(self) -> None:
        validation.optional_name(self.schema, "schema")
        validation.text(self.table_prefix, "table_prefix")


#: Where the engine for a URL's scheme lives; a module is imported when its first URL is opened. Engines of others
#: register the same ``module:function`` as an entry point in the group ``delimiter.engines``.
ENGINES: Final[Mapping[str, str]] = {
    "memory": "delimiter.engines.memory:open_memory",
    "sqlite": "delimiter.engines.sql:open_sql",
    "postgresql": "delimiter.engines.sql:open_sql",
    "mysql": "delimiter.engines.sql:open_sql",
    "mariadb": "delimiter.engines.sql:open_sql",
}


def open_engine(store: Any, options: OpenOptions) -> Engine:
    """The engine for a URL (or for an SQLAlchemy engine that the service already has)."""
    if isinstance(store, Engine):
        return store
    if not isinstance(store, str):
        scheme = _scheme_of_object(store)
    else:
        scheme, separator, _ = store.partition(":")
        if not separator:
            raise InvalidRequest(
                f"{store!r} is no store URL; write for example sqlite:///quota.db or memory://"
            )
        scheme = scheme.partition("+")[0]
        if scheme == "postgres":  # a name that SQLAlchemy has given up
            raise InvalidRequest("write postgresql+psycopg://… instead of postgres://…")
    opener = ENGINES.get(scheme)
    if opener is not None:
        module, _, function = opener.partition(":")
        return cast("Engine", getattr(import_module(module), function)(store, options))
    for entry in entry_points(group="delimiter.engines", name=scheme):
        return cast("Engine", entry.load()(store, options))
    raise Unsupported(
        f"no engine for {scheme!r} stores: claims need a store with transactions."
        f" Known are {', '.join(sorted(ENGINES))}"
    )


def _scheme_of_object(store: Any) -> str:
    """``postgresql`` for an SQLAlchemy engine or URL of PostgreSQL, without importing SQLAlchemy for it."""
    dialect = getattr(store, "dialect", None)
    name = getattr(dialect, "name", None)
    if name is None and hasattr(store, "get_backend_name"):
        name = store.get_backend_name()
    if not isinstance(name, str):
        raise InvalidRequest(f"a store is a URL or an SQLAlchemy engine, not {type(store).__name__}")
    return name
