"""The engine itself: every verb of the contract, each bounded by the timeout of one call."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, ParamSpec, TypeVar, cast

from delimiter.engine import Answer, Capability, ClaimQuery, Engine, OpenOptions
from delimiter.engines.zookeeper.address import Address
from delimiter.engines.zookeeper.changing import Changes
from delimiter.engines.zookeeper.claims import Claims
from delimiter.engines.zookeeper.editing import Edits
from delimiter.engines.zookeeper.eventlog import EventLog
from delimiter.engines.zookeeper.expiry import Expiry
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.layout import Layout
from delimiter.engines.zookeeper.listing import Listing
from delimiter.engines.zookeeper.locking import Closing
from delimiter.engines.zookeeper.opening import make_store
from delimiter.engines.zookeeper.readings import Readings
from delimiter.engines.zookeeper.rulebook import Rulebook
from delimiter.engines.zookeeper.session import Session
from delimiter.engines.zookeeper.upkeep import Upkeep
from delimiter.engines.zookeeper.writing import Blocks, Writer
from delimiter.errors import Conflict, Unsupported
from delimiter.model import Claim, OwnLimit, Project, Scope
from delimiter.waiting import Bell

if TYPE_CHECKING:
    from delimiter.changes import Change
    from delimiter.edits import Adoption, Edit
    from delimiter.engines.memory.rules import Rules
    from delimiter.model import (
        CallersConnection,
        Consumer,
        Decision,
        Drift,
        Event,
        Level,
        Overage,
        ProjectUsage,
        Resource,
        Running,
        Usage,
    )

__all__ = ["ZooKeeperEngine"]

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds at most before drifts are looked for again.
_LONGEST_PAUSE: Final = 0.2

#: What reads every claim: with many of them that takes its time.
_OF_ANY_LENGTH: Final = frozenset({"consumers", "running", "_drifts", "prune"})


def _call(
    method: Callable[Concatenate[ZooKeeperEngine, P], R],
) -> Callable[Concatenate[ZooKeeperEngine, P], R]:
    """One call: bounded in time, without a caller's connection, on a store that is there."""

    @functools.wraps(method)
    def bounded(self: ZooKeeperEngine, *args: Any, **kwargs: Any) -> R:
        if kwargs.get("connection") is not None:
            raise Unsupported("ZooKeeper has no transactions to share; connection= needs a SQL store")
        with self.ground.session.call(of_any_length=method.__name__ in _OF_ANY_LENGTH):
            self.make_sure()
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[ZooKeeperEngine, P], R]", bounded)


class ZooKeeperEngine(Engine):
    """Claims, counters and rules as nodes of a ZooKeeper ensemble."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.SHARED})

    #: Far from what one multi can carry, if they are of ordinary size.
    largest_batch = 64

    #: Two decisions of one process on the same counter would only overtake each other.
    held_up_after = 1.0

    def __init__(self, address: Address, options: OpenOptions) -> None:
        session, layout = Session(address, options.timeout), Layout(address.path)
        self.ground = ground = Ground(session, layout, Rulebook(session, layout))
        self._create, self._timeout = options.create, options.timeout
        self._making = threading.Lock()
        self._is_made = False
        closing, claims, self._log = Closing(ground), Claims(ground), EventLog(ground)
        writer = Writer(ground, Blocks(ground), self._log)
        self._expiry = Expiry(ground, claims, writer, closing)
        self._edits = Edits(ground, self._log, self._expiry, closing)
        self._readings = Readings(ground, claims, self._expiry, closing)
        self._listing = Listing(ground, claims, self._expiry)
        self._upkeep = Upkeep(ground, claims, self._expiry, self._log, closing)
        self._changes = Changes(ground, claims, writer, self._expiry, closing)
        session.on_fork.append(self._begin_anew)

    @property
    def clock_offset(self) -> int:
        return self.ground.offset.microseconds

    @clock_offset.setter
    def clock_offset(self, microseconds: int) -> None:
        self.ground.offset.microseconds = microseconds

    def make_sure(self) -> None:
        """The store is there, and ours."""
        if not self._is_made:
            with self._making:
                if not self._is_made:
                    make_store(self.ground, create=self._create)
                    self._is_made = True

    def _begin_anew(self) -> None:
        self._making = threading.Lock()

    # -- changes ------------------------------------------------------------------------------------------------

    @_call
    def apply(
        self, changes: Sequence[Change], *, connection: CallersConnection | None = None
    ) -> list[Answer]:
        return self._changes.apply(changes)

    @_call
    def check(
        self,
        resources: Mapping[str, int],
        scopes: Sequence[Scope],
        *,
        connection: CallersConnection | None = None,
    ) -> Decision:
        return self._readings.check(resources, scopes)

    # -- the rules ----------------------------------------------------------------------------------------------

    @_call
    def edit(
        self, edits: Sequence[Edit], *, dry_run: bool = False, if_version: int | None = None
    ) -> list[Overage]:
        return self._edits.edit(edits, dry_run=dry_run, if_version=if_version)

    @_call
    def adopt(self, adoption: Adoption, *, connection: CallersConnection | None = None) -> bool:
        self._edits.adopt(adoption)
        return True

    def _rules(self) -> Rules:
        self.ground.meet()
        return self.ground.rulebook.current().rules

    @_call
    def version(self) -> int:
        return self._rules().version

    @_call
    def now(self) -> int:
        """The beginning of a millisecond in which nothing had been written when this was called."""
        first = moment = self.ground.meet()
        while moment == first:
            moment = self.ground.meet()
        return moment

    @_call
    def resources(self) -> list[Resource]:
        rules = self._rules()
        return [rules.definitions[name] for name in sorted(rules.definitions)]

    @_call
    def own_limits(self) -> list[OwnLimit]:
        rules = self._rules()
        ordered = sorted(rules.own, key=lambda key: (key[0], key[1].rank, key[1].name))
        return [OwnLimit(*key, *rules.own[key]) for key in ordered]

    @_call
    def projects(self) -> list[Project]:
        tree = self._rules().tree
        return [Project(one, tree.parents[one]) for one in tree.in_order()]

    @_call
    def ancestors(self, project: str) -> list[str]:
        return self._rules().tree.ancestors(project)

    @_call
    def overbooking(self) -> bool:
        return self._rules().overbooking

    @_call
    def limits(self, scope: Scope) -> dict[str, int]:
        rules = self._rules()
        return {name: rules.maximum((name, scope)) for name in sorted(rules.definitions)}

    # -- looking ------------------------------------------------------------------------------------------------

    @_call
    def usage(self, scope: Scope, *, connection: CallersConnection | None = None) -> dict[str, Usage]:
        return self._readings.usage(scope)

    @_call
    def tree(self) -> list[ProjectUsage]:
        return self._readings.tree()

    @_call
    def levels(
        self, names: Sequence[str], scopes: Sequence[Scope], *, connection: CallersConnection | None = None
    ) -> list[Level]:
        return self._readings.levels(names, scopes)

    @_call
    def consumers(self, resource: str, scope: Scope, *, size: int) -> list[Consumer]:
        return self._listing.consumers(resource, scope, size=size)

    @_call
    def running(self, resource: str, scope: Scope, *, size: int) -> list[Running]:
        return self._listing.running(resource, scope, size=size)

    @_call
    def get_claim(self, id: str) -> Claim:
        return self._listing.get(id)

    @_call
    def claims_named(self, names: Sequence[str], *, since: int) -> list[tuple[Claim, bool]]:
        return self._listing.named(names, since=since)

    @_call
    def page_of_claims(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        return self._listing.page(query, after=after, size=size)

    # -- events -------------------------------------------------------------------------------------------------

    @_call
    def events(self, *, after: int, size: int) -> list[Event]:
        self.ground.meet()
        return self._log.page(after=after, size=size)

    @_call
    def prune_events(self, *, older_than: int, size: int) -> int:
        return self._log.prune(older_than=older_than, size=size)

    @_call
    def last_event(self) -> int:
        self.ground.meet()
        return self._log.last()

    @_call
    def bell(self) -> Bell:
        return self._log.bell()

    # -- upkeep -------------------------------------------------------------------------------------------------

    @_call
    def sweep(self, *, size: int) -> int:
        return self._expiry.sweep(size=size)

    @_call
    def prune(self, *, older_than: int, size: int) -> int:
        return self._upkeep.prune(older_than=older_than, size=size)

    def drifts(self, *, repair: bool) -> Iterator[Drift]:
        yield from self._drifts(repair=repair)

    @_call
    def _drifts(self, *, repair: bool) -> list[Drift]:
        until = time.monotonic() + self._timeout
        while True:
            try:
                return self._upkeep.drifts(repair=repair)
            except Conflict:  # an edit is under way; nobody else tries this again
                if time.monotonic() > until:
                    raise
                self.pause(random.uniform(0, _LONGEST_PAUSE))  # noqa: S311 - jitter

    @_call
    def prepare(self) -> None:
        """The first nodes are made by every first call."""

    def close(self) -> None:
        self.ground.session.close()
