"""The contract of an engine: where usage is kept and decided.

The desk (:mod:`delimiter.quota`) talks to every store through :class:`Engine` alone, in batches of *changes*. What an
engine promises is written at its methods, as law: who calls, in which order, what must hold afterwards. The suite in
:mod:`delimiter.conformance` holds an engine to it.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast

from delimiter import validation
from delimiter.changes import Change
from delimiter.condition import Condition
from delimiter.counted import Counted, Guard, GuardRequest, MissingIndex
from delimiter.edits import Adoption, Edit
from delimiter.errors import DelimiterError, InvalidRequest, Unsupported
from delimiter.model import (
    Claim,
    ClaimState,
    Consumer,
    Decision,
    Drift,
    Event,
    Level,
    Overage,
    OwnLimit,
    Project,
    ProjectUsage,
    Resource,
    Running,
    Scope,
    Usage,
)
from delimiter.waiting import Bell, Waits

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = [
    "Answer",
    "Capability",
    "ClaimQuery",
    "Engine",
    "OpenOptions",
    "open_engine",
]


_COUNTING: Final = "only a SQL store can count the service's own tables; open one for count() and guard()"


class Capability(enum.Enum):
    """What an engine can do beyond the verbs. Declared means tested; undeclared means ``Unsupported`` is raised."""

    #: ``connection=``: a change commits or rolls back with the caller's own rows.
    CALLERS_TRANSACTION = "callers_transaction"
    #: ``count`` and ``guard``: resources counted from the service's own tables, which lie in the same database.
    COUNTING = "counting"
    #: Several processes may open the same store at once.
    SHARED = "shared"


#: The claims a change leaves (in the order asked for; none for a release), or why it was refused.
Answer: TypeAlias = tuple[Claim, ...] | DelimiterError


@dataclass(frozen=True, slots=True)
class ClaimQuery:
    """Which claims to list: an owner, a resource, a state (``None``: what is live)."""

    project: str | None = None
    user: str | None = None
    resource: str | None = None
    state: ClaimState | None = None
    #: Whether the projects below ``project`` count too.
    subtree: bool = False


class Engine(Waits, ABC):
    """Where usage is kept.

    An engine may be called from many threads at once. It opens a transaction of its own for each call without
    ``connection`` and never retries there what failed: it raises :class:`~delimiter.errors.Conflict`, and the desk
    calls again. Nothing is remembered from an attempt that failed. A store that cannot be reached, or an answer to
    COMMIT that never came, is :class:`~delimiter.errors.StoreUnavailable` (then ``in_doubt``). Time is the store's.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    #: Whether calls must be made in a greenlet on the event loop (:mod:`delimiter.aio` does).
    asynchronous: bool = False

    #: How many changes of different callers the desk may hand over at once; 1: it keeps them apart.
    largest_batch: int = 1

    #: Seconds that a batch may take before the next is handed over beside it.
    held_up_after: float = 0.1

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
        what was used, and then nothing made it grow but what only records what exists already (``Admit.existing``,
        ``Correct``); ``used`` is the sum of the claims charged; an admitted change is there whole and exactly once,
        however often its id is replayed; what fits is not refused, and reservations that ran out do not count, swept
        or not. In the caller's transaction nothing is committed, rolled back or retried; what cannot be decided on its
        snapshot raises ``Conflict``.
        """

    def apply_each(self, changes: Sequence[Change]) -> list[Answer]:
        """Decide changes of different callers, each for itself, in transactions of the store's own and in any order.

        ``Conflict`` as an answer: to wait for what this change needs would have held up the others; :meth:`apply` it
        alone. ``StoreUnavailable`` as an answer: what would have been raised, but that others were made before. So
        what is raised says that none was made (or, in doubt, may have been).
        """
        return self.apply(changes)

    @abstractmethod
    def check(
        self,
        resources: Mapping[str, int],
        scopes: Sequence[Scope],
        *,
        connection: CallersConnection | None = None,
    ) -> Decision:
        """What a claim charged to ``scopes`` and the total would be told now; takes no lock and changes nothing."""

    # -- the rules ----------------------------------------------------------------------------------------------

    @abstractmethod
    def edit(
        self, edits: Sequence[Edit], *, dry_run: bool = False, if_version: int | None = None
    ) -> list[Overage]:
        """Make the edits in order, all or none, in one transaction; who holds more than a limit that they set.

        They hold for every claim that begins after this returned, in every process, whatever a process remembers. One
        that cannot be made raises its error and nothing has changed. With ``dry_run`` everything is decided, nothing
        kept. With ``if_version`` other than :meth:`version` it raises ``Conflict`` that is not ``retryable``. Every
        event that the edits cause is written with them.
        """

    @abstractmethod
    def version(self) -> int:
        """Grows with every edit that changed something (definitions, limits, projects)."""

    @abstractmethod
    def adopt(self, adoption: Adoption, *, connection: CallersConnection | None = None) -> bool:
        """Write what a source outside the store says, unless something fetched later was written before.

        With ``connection`` the caller is in a transaction of their own; an engine that cannot write beside it does
        so in it. Returns whether it is committed already, and so may be remembered.
        """

    @abstractmethod
    def now(self) -> int:
        """The store's clock, in microseconds since 1970."""

    @abstractmethod
    def resources(self) -> list[Resource]:
        """All definitions, by name; of the deployment with the limits its service defined."""

    @abstractmethod
    def own_limits(self) -> list[OwnLimit]:
        """Every limit that a scope has of its own, by resource, kind and name of the scope."""

    @abstractmethod
    def projects(self) -> list[Project]:
        """The tree: parents before their children, siblings by name."""

    @abstractmethod
    def ancestors(self, project: str) -> list[str]:
        """The ancestors of a project, its parent first; none of a root, or of one that the tree does not know."""

    @abstractmethod
    def overbooking(self) -> bool:
        """Whether the limits of children may add up to more than their parent's. At first: yes."""

    @abstractmethod
    def limits(self, scope: Scope) -> dict[str, int]:
        """The effective maximum of each resource in this scope."""

    @abstractmethod
    def usage(self, scope: Scope, *, connection: CallersConnection | None = None) -> dict[str, Usage]:
        """What this scope uses of each resource, in one consistent read; what ran out does not count."""

    @abstractmethod
    def tree(self) -> list[ProjectUsage]:
        """What every project of the tree, and every other with claims, uses, in one consistent read; parents first."""

    @abstractmethod
    def levels(
        self, names: Sequence[str], scopes: Sequence[Scope], *, connection: CallersConnection | None = None
    ) -> list[Level]:
        """Every scope that a claim on ``scopes`` is charged to, limited or not, with what it uses at one moment.

        By resource (in the order of ``names``), then the total, ancestors from the root down, the project, the user.
        """

    @abstractmethod
    def consumers(self, resource: str, scope: Scope, *, size: int) -> list[Consumer]:
        """Who holds most of a resource in a scope: owners, the largest first, then by name; at most ``size``."""

    @abstractmethod
    def running(self, resource: str, scope: Scope, *, size: int) -> list[Running]:
        """The reservations in a scope that run out first, with what each holds; at most ``size``."""

    @abstractmethod
    def get_claim(self, id: str) -> Claim:
        """One claim by id or external id, ended ones too."""

    @abstractmethod
    def claims_named(self, names: Sequence[str], *, since: int) -> list[tuple[Claim, bool]]:
        """Every claim that has one of these as its id or external id, live or ended, in the order they were made.

        With each: whether it was made, changed or ended after ``since`` (microseconds since 1970).
        """

    @abstractmethod
    def page_of_claims(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        """At most ``size`` claims in the order they were made, and where the next page begins (``None``: no more)."""

    # -- counted resources --------------------------------------------------------------------------------------

    def count(self, resource: str, counted: Counted) -> None:
        """From now on the usage of this resource is what the service's own table adds up to, everywhere above.

        No number of it is stored. Claims of it are ``InvalidRequest``. Expressions that cannot be counted by are
        ``InvalidRequest`` too, and nothing has changed.
        """
        raise Unsupported(f"{_COUNTING} (asked for {resource})")

    def counted_here(self) -> frozenset[str]:
        """The resources that this process counts."""
        return frozenset()

    def counted(self) -> dict[str, str]:
        """The resources that any process counts, with the table each is counted from (empty if it is not just one)."""
        return {}

    def counted_drifts(self, resource: str, counted: Counted) -> Iterator[Drift]:
        """Where what is claimed disagrees with what rows of the service add up to; for a resource that is tracked."""
        raise Unsupported(f"{_COUNTING} (asked for {resource})")

    def enter_guard(self, request: GuardRequest, *, connection: CallersConnection) -> Guard:
        """Take the guards of what is counted, and admit it with the claim on what is tracked, or refuse all of it.

        In the caller's transaction, which the rows the caller writes next belong to. As long as everybody writes them
        inside guards, at every isolation level from READ COMMITTED up: what is counted in a scope that has a limit
        never adds up to more, unless the limit was lowered below it. Rows may be deleted without asking.
        """
        raise Unsupported(_COUNTING)

    def missing_indexes(self) -> list[MissingIndex]:
        """By which columns guards look rows up without an index."""
        return []

    def condition(self) -> Condition:
        """How the store is set up, and what is unsafe about that. Looks, and changes nothing."""
        return Condition()

    # -- events -------------------------------------------------------------------------------------------------

    @abstractmethod
    def events(self, *, after: int, size: int) -> list[Event]:
        """Up to ``size`` events after this number, in order; first those that were committed since are numbered.

        None is ever numbered below one that anybody has seen. Each crossing of a limit is one event, written with
        the change that made it.
        """

    @abstractmethod
    def prune_events(self, *, older_than: int, size: int) -> int:
        """Forget up to ``size`` numbered events that are at least this many microseconds old, the oldest first.

        Numbers go on as if they were there.
        """

    @abstractmethod
    def last_event(self) -> int:
        """The number of the newest event; 0: there was none."""

    def bell(self) -> Bell:
        """Something that rings when there may be new events; this one never does, so that its owner looks by itself."""
        return Bell()

    # -- upkeep -------------------------------------------------------------------------------------------------

    @abstractmethod
    def sweep(self, *, size: int) -> int:
        """End up to ``size`` reservations that ran out, in one transaction; how many. 0: none is left that is free."""

    @abstractmethod
    def prune(self, *, older_than: int, size: int) -> int:
        """Forget up to ``size`` claims that ended at least this many microseconds ago and have none below them."""

    @abstractmethod
    def drifts(self, *, repair: bool) -> Iterator[Drift]:
        """Counters that disagree with their claims; with ``repair`` each is set right under its lock, one by one."""

    def prepare(self) -> None:
        """Do what the first call would do by itself, such as making tables. Again: nothing."""

    def close(self) -> None:
        """Give back what the engine opened itself; a connection pool that was handed in stays open."""


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
        for name, value in (("schema", self.schema), ("table_prefix", self.table_prefix)):
            if value is not None and "%" in value:
                raise InvalidRequest(
                    f"{name} contains a %, which drivers of databases take for the place of a value;"
                    f" leave it out of {value!r}"
                )


#: Where the engine for a URL's scheme lives; a module is imported when its first URL is opened. Engines of others
#: register the same ``module:function`` as an entry point in the group ``delimiter.engines``.
ENGINES: Final[Mapping[str, str]] = {
    "memory": "delimiter.engines.memory:open_memory",
    "sqlite": "delimiter.engines.sql:open_sql",
    "postgresql": "delimiter.engines.sql:open_sql",
    "mysql": "delimiter.engines.sql:open_sql",
    "mariadb": "delimiter.engines.sql:open_sql",
    "zookeeper": "delimiter.engines.zookeeper:open_zookeeper",
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
        f"no engine for {scheme!r} stores: a claim needs a store that changes several numbers in one step, on a"
        " condition and durably. On one that cannot, usage can only be audited afterwards, when a limit has been passed"
        f" already. Known are {', '.join(sorted(ENGINES))}"
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
