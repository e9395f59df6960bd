"""The desk's lower drawer: opening and closing, trying again, definitions, limits, and upkeep.

:class:`delimiter.Delimiter` adds the verbs on claims.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from delimiter import validation
from delimiter.engine import Engine, LimitChange, OpenOptions, open_engine
from delimiter.engine import Keep as _Keep
from delimiter.errors import Conflict, InvalidRequest, StoreUnavailable
from delimiter.model import UNLIMITED, Drift, Overage, Resource, Scope, Usage

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = ["Desk"]

T = TypeVar("T")

#: Claims swept or pruned in one transaction: long enough to be worth a commit, short enough not to be in the way.
_BATCH: Final = 200

#: Waits between attempts start near the time of one transaction and stay far below any timeout.
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.25


class Desk:
    """Everything of :class:`delimiter.Delimiter` that is not a verb on a claim."""

    def __init__(
        self,
        url_or_engine: Any,
        *,
        create: bool = True,
        schema: str | None = None,
        table_prefix: str = "delimiter_",
        timeout: float | timedelta = 10.0,
    ) -> None:
        self._timeout = validation.microseconds(timeout, "timeout") / 1_000_000
        options = OpenOptions(create=create, schema=schema, table_prefix=table_prefix, timeout=self._timeout)
        self._engine: Engine = open_engine(url_or_engine, options)

    def prepare(self) -> None:
        """Make the tables now rather than at the first call (with ``create=True``). Harmless if they are there."""
        self._run(self._engine.prepare)

    def close(self) -> None:
        """Give back the store's connections. An SQLAlchemy engine that was handed in stays open."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- definitions and limits ---------------------------------------------------------------------------------

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
            service=validation.name(service, "service"),
            max=validation.maximum(max, "max"),
            min=validation.floor(min, "min"),
            project_max=validation.maximum(project_max, "project_max"),
            project_min=validation.floor(project_min, "project_min"),
            user_max=validation.maximum(user_max, "user_max"),
            user_min=validation.floor(user_min, "user_min"),
            unit=validation.text(unit, "unit"),
            description=validation.text(description, "description"),
        )
        for kind in ("total", "project", "user"):
            _refuse_crossed(*resource.default(kind), f"the {kind} limits of {name}")
        self._run(lambda: self._engine.define(resource))

    def undefine_resource(self, name: str) -> None:
        """Forget a resource and every limit of it. ``InvalidRequest`` while claimed, ``UnknownResource``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("old.things")
        >>> quota.undefine_resource("old.things")
        >>> quota.resources()
        []
        """
        name = validation.name(name, "the resource's name")
        self._run(lambda: self._engine.undefine(name))

    def update_limits(
        self,
        name: str,
        *,
        project: str | None = None,
        user: str | None = None,
        max: int | _Keep | None = _Keep.KEEP,
        min: int | _Keep | None = _Keep.KEEP,
    ) -> list[Overage]:
        """Set the own limit of one project, one user, or (neither named) the whole deployment.

        What is left out stays as it is; ``None`` removes the override. The new limit holds for every claim that
        begins after this returned, in every process. Returns who is over quota because of it: lowering a limit below
        what is used is allowed, and nothing more is admitted there until enough is given back. Raises
        ``UnknownResource`` and ``InvalidRequest``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.instances", user_max=25)
        >>> quota.update_limits("database.instances", user="amrith", max=2)
        []
        >>> quota.limits(user="amrith")
        {'database.instances': 2}
        """
        name = validation.name(name, "the resource's name")
        scope = _one_scope(project, user)
        change = LimitChange(
            max=max if max is None or max is _Keep.KEEP else validation.maximum(max, "max"),
            min=min if min is None or min is _Keep.KEEP else validation.floor(min, "min"),
        )
        if isinstance(change.max, int) and isinstance(change.min, int):
            _refuse_crossed(change.max, change.min, f"the limits of {name}")
        return self._run(lambda: self._engine.set_limit(name, scope, change))

    def resources(self) -> list[Resource]:
        """All definitions, by name, as their services gave them.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20_000, unit="GB")
        >>> [(r.name, r.service, r.project_max) for r in quota.resources()]
        [('storage.gb', 'storage', 20000)]
        """
        return self._run(self._engine.resources)

    def limits(self, *, project: str | None = None, user: str | None = None) -> dict[str, int]:
        """The effective maximum of each resource for one project, one user, or the deployment; -1 is unlimited.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", max=500, project_max=20)
        >>> quota.limits(project="acme"), quota.limits()
        ({'storage.gb': 20}, {'storage.gb': 500})
        """
        scope = _one_scope(project, user)
        return self._run(lambda: self._engine.limits(scope))

    def usage(
        self,
        *,
        project: str | None = None,
        user: str | None = None,
        connection: CallersConnection | None = None,
    ) -> dict[str, Usage]:
        """What one project, one user or (neither named) the deployment uses of every defined resource.

        One consistent read. Reservations that ran out do not count, swept or not.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20_000)
        >>> claim = quota.claim({"storage.gb": 500}, project="acme")
        >>> quota.usage(project="acme")["storage.gb"].available
        19500
        """
        scope = _one_scope(project, user)
        return self._run(lambda: self._engine.usage(scope, connection=connection), connection=connection)

    # -- upkeep -------------------------------------------------------------------------------------------------

    def expire_reservations(self) -> int:
        """Sweep the reservations that ran out; how many this call swept.

        Expired reservations stop counting even if nobody calls it: the sweep tidies up. It works in small
        transactions and may run in several processes at once; each reservation is swept by one of them.

        >>> Delimiter("memory://").expire_reservations()
        0
        """
        return self._until_none(lambda: self._engine.sweep(size=_BATCH))

    def prune(self, *, older_than: float | timedelta) -> int:
        """Forget claims that ended longer ago than this (seconds or ``timedelta``); how many were forgotten.

        It is the window in which a replayed id is still known. An ended claim stays while there are claims below it.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> quota.release(quota.claim({"storage.gb": 1}, project="acme").id)
        >>> quota.prune(older_than=timedelta(days=7)), quota.prune(older_than=0)
        (0, 1)
        """
        age = validation.microseconds(older_than, "older_than", zero=True)
        return self._until_none(lambda: self._engine.prune(older_than=age, size=_BATCH))

    def reconcile(self, *, repair: bool = False) -> Iterator[Drift]:
        """Compare every counter with the claims charged to it; yield what disagrees.

        With ``repair`` each is set right before this returns, in a small transaction of its own, safely beside live
        claims. A healthy
        store yields nothing.

        >>> list(Delimiter("memory://").reconcile())
        []
        """
        drifts = self._engine.drifts(repair=repair)
        # Repairs are made now, not when somebody looks at the answer.
        return iter(list(drifts)) if repair else drifts

    # -- trying again -------------------------------------------------------------------------------------------

    def _run(
        self,
        call: Callable[[], T],
        *,
        connection: CallersConnection | None = None,
        claim_id: str | None = None,
    ) -> T:
        """Call the engine; where the transaction is its own, in new transactions until decided or ``timeout``.

        In a caller's transaction nothing is tried again: a retry inside the outer transaction sees its own left-over
        writes, which is how a well-known peer oversubscribes.
        """
        if connection is not None:
            try:
                return call()
            except StoreUnavailable as error:
                error.claim_id = claim_id
                raise
        deadline = time.monotonic() + self._timeout
        longest = _FIRST_PAUSE
        in_doubt = False
        while True:
            try:
                return call()
            except (Conflict, StoreUnavailable) as error:
                in_doubt = in_doubt or getattr(error, "in_doubt", False)
                if not (error.retryable or in_doubt):
                    raise self._gave_up(error, claim_id, in_doubt=False) from error
                pause = random.uniform(0, longest)  # noqa: S311 - jitter, so that those who met do not meet again
                if time.monotonic() + pause > deadline:
                    raise self._gave_up(error, claim_id, in_doubt=in_doubt) from error
                self._engine.pause(pause)
                longest = min(longest * 2, _LONGEST_PAUSE)

    def _gave_up(
        self, error: Conflict | StoreUnavailable, claim_id: str | None, *, in_doubt: bool
    ) -> Exception:
        if isinstance(error, Conflict) and not in_doubt:
            return Conflict(
                f"not decided within {self._timeout:g} s: {error}. If this thread holds a transaction that claimed"
                " something, hand that over as connection="
            )
        advice = "; it may have happened: call again with the same id to settle it" if in_doubt else ""
        return StoreUnavailable(
            f"{error}{advice}", claim_id=claim_id, in_doubt=in_doubt, retryable=error.retryable
        )

    def _until_none(self, step: Callable[[], int]) -> int:
        done = 0
        while count := self._run(step):
            done += count
        return done


def _one_scope(project: str | None, user: str | None) -> Scope:
    if project is not None and user is not None:
        raise InvalidRequest("name a project or a user, not both: limits and usage are kept for each of them")
    return Scope.of(
        project=validation.optional_name(project, "project"), user=validation.optional_name(user, "user")
    )


def _refuse_crossed(max: int, min: int, what: str) -> None:
    if max != UNLIMITED and min > max:
        raise InvalidRequest(f"{what}: the minimum {min} is above the maximum {max}")
