"""What can be asked and followed: usage, checks, explanations, the tree, and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from delimiter import validation
from delimiter.errors import InvalidRequest
from delimiter.model import (
    CEILING,
    UNLIMITED,
    Consumer,
    Decision,
    Event,
    Explanation,
    Level,
    ProjectUsage,
    Scope,
    Usage,
    Violation,
)
from delimiter.rules import Rules, one_scope
from delimiter.subscription import Subscription

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = ["Watching", "owner", "sequence"]

#: Events fetched at a time: the iterator holds one page.
_PAGE: Final = 500

#: Consumers named in an explanation, and reservations looked at for the time at which there will be room.
_CONSUMERS: Final = 5
_RUNNING: Final = 1000


class Watching(Rules):
    """Everything of :class:`delimiter.Delimiter` that changes neither claims nor rules.

    It writes all the same: with sources outside the store, what they say now (``usage``, ``check``, ``explain``), and
    the numbers of events that nobody has read before (``events``, ``last_event``, ``subscribe``).
    """

    def usage(
        self,
        *,
        project: str | None = None,
        user: str | None = None,
        connection: CallersConnection | None = None,
    ) -> dict[str, Usage]:
        """What one project, one user or (neither named) the deployment uses of every defined resource.

        A project's usage includes all projects below it. One consistent read. Reservations that ran out do not
        count, swept or not. Raises ``InvalidRequest``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20_000)
        >>> claim = quota.claim({"storage.gb": 500}, project="acme")
        >>> quota.usage(project="acme")["storage.gb"].available
        19500
        """
        scope = one_scope(project, user)
        self._freshness.freshen([scope], connection)
        return self._run(lambda: self._engine.usage(scope, connection=connection), connection=connection)

    def tree(self) -> list[ProjectUsage]:
        """What every project uses, with all below it, in one consistent read: parents first, siblings by name.

        The projects of the tree, and every other that holds something. As the store has it: with sources outside the
        store (``limits=``, ``projects=``) nobody is asked, and what they changed shows after a call that names the
        project, such as a claim or ``usage``. Raises ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=100)
        >>> quota.add_project("acme")
        >>> quota.add_project("web", parent="acme")
        >>> claim = quota.claim({"storage.gb": 30}, project="web")
        >>> [(one.id, one.parent, one.usage["storage.gb"].used) for one in quota.tree()]
        [('acme', None, 30), ('web', 'acme', 30)]
        """
        return self._run(self._engine.tree)

    def check(
        self,
        resources: Mapping[str, int],
        *,
        project: str | None = None,
        user: str | None = None,
        connection: CallersConnection | None = None,
    ) -> Decision:
        """Would this be admitted now? Takes no lock and claims nothing.

        The ``Decision`` lists every limit in the way and, by resource, the most that would fit of it alone. Raises
        ``UnknownResource``, ``InvalidRequest``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=100)
        >>> decision = quota.check({"storage.gb": 150}, project="acme")
        >>> decision.allowed, decision.available
        (False, {'storage.gb': 100})
        """
        asked = validation.amounts(resources)
        scopes = owner(project, user)
        self._freshness.freshen(scopes, connection)
        return self._run(
            lambda: self._engine.check(asked, scopes, connection=connection), connection=connection
        )

    def explain(
        self, resources: Mapping[str, int], *, project: str | None = None, user: str | None = None
    ) -> Explanation:
        """Why this would be admitted or refused, level by level, and who could make room. For operators.

        It tells everybody's numbers: show it to those who may know them, and to end users the ``str()`` of an
        ``OverLimit``. Raises ``UnknownResource``, ``InvalidRequest``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=100, max=5_000)
        >>> claim = quota.claim({"storage.gb": 80}, project="acme", user="john")
        >>> why = quota.explain({"storage.gb": 50}, project="acme")
        >>> why.decision.allowed, str(why.binding["storage.gb"]), why.consumers["storage.gb"][0].user
        (False, 'project:acme', 'john')
        """
        asked = validation.amounts(resources)
        scopes = owner(project, user)
        self._freshness.freshen(scopes)
        levels = self._run(lambda: self._engine.levels(list(asked), scopes))
        binding = {name: _tightest(levels, name) for name in asked}
        return Explanation(
            decision=_decision(levels, asked, scopes),
            requested=asked,
            levels=tuple(levels),
            binding={name: None if level is None else level.scope for name, level in binding.items()},
            room_at={name: self._room_at(levels, name, amount) for name, amount in asked.items()},
            consumers={name: self._consumers(level) for name, level in binding.items()},
        )

    def _consumers(self, level: Level | None) -> tuple[Consumer, ...]:
        if level is None:
            return ()
        return tuple(self._run(lambda: self._engine.consumers(level.resource, level.scope, size=_CONSUMERS)))

    def _room_at(self, levels: Sequence[Level], name: str, amount: int) -> datetime | None:
        """When enough of the reservations that are in the way will have run out, if nobody renews them."""
        latest: datetime | None = None
        for level in levels:
            if level.resource != name or level.limit == UNLIMITED:
                continue
            missing = level.used + amount - level.limit
            if missing <= 0:
                continue
            at = None
            for running in self._run(
                lambda: self._engine.running(name, level.scope, size=_RUNNING)  # noqa: B023
            ):
                missing -= running.amount
                if missing <= 0:
                    at = running.expires_at
                    break
            if at is None:
                return None
            latest = at if latest is None else max(latest, at)
        return latest

    # -- events -------------------------------------------------------------------------------------------------

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """What has happened to limits and to those who hold more than theirs, after the event of this number.

        Each crossing of a limit is one event, committed with the change that made it. Events are numbered when they
        are first read, which is after their commit: ``seq`` grows without gaps, and none ever appears below one already
        seen, so a reader that keeps its last ``seq`` misses none. Those of one resource and scope are in the order in
        which they happened; between scopes there is no particular order. An iterator that holds one page at a time.
        Raises ``InvalidRequest``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=100)
        >>> claim = quota.claim({"storage.gb": 80}, project="acme")
        >>> overages = quota.update_limits("storage.gb", project="acme", max=50)
        >>> [(event.seq, event.kind, event.scope, event.limit) for event in quota.events()]
        [(1, 'limit_changed', 'project:acme', 50), (2, 'over_quota', 'project:acme', 50)]
        """
        return self._events(sequence(after))

    def _events(self, after: int) -> Iterator[Event]:
        while True:
            start = after
            page = self._run(lambda: self._engine.events(after=start, size=_PAGE))  # noqa: B023
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].seq

    def last_event(self) -> int:
        """The number of the newest event; 0 if there was none.

        >>> Delimiter("memory://").last_event()
        0
        """
        return self._run(self._engine.last_event)

    def subscribe(self, callback: Callable[[Event], object], *, after: int | None = None) -> Subscription:
        """Call back for every event as it comes, by ``seq``, in a thread of its own; returns something to close.

        ``after`` is the ``seq`` of the last event already handled; ``None``: begin with what comes from now on. On
        PostgreSQL new events wake the subscription (LISTEN/NOTIFY), elsewhere it looks every second. A callback that
        raises is called again with the same event. Raises ``InvalidRequest``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> with quota.subscribe(print) as subscription:
        ...     subscription.seq
        0
        """
        if not callable(callback):
            raise InvalidRequest("subscribe takes something to call with each event")
        start = self.last_event() if after is None else sequence(after)
        return Subscription(self._events, callback, self._engine.bell(), after=start)


def owner(project: Any, user: Any) -> tuple[Scope, ...]:
    """The scopes of an owner; at least one of project and user is named."""
    scopes = Scope.owned(validation.optional_name(project, "project"), validation.optional_name(user, "user"))
    validation.refuse_nobody(project, user)
    return tuple(scopes)


def sequence(after: Any) -> int:
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise InvalidRequest(f"after must be the number of an event, 0 for all, not {after!r}")
    return after


def _tightest(levels: Sequence[Level], name: str) -> Level | None:
    limited = [level for level in levels if level.resource == name and level.limit != UNLIMITED]
    return min(limited, key=lambda level: level.limit - level.used, default=None)


def _decision(levels: Sequence[Level], asked: Mapping[str, int], owners: Sequence[Scope]) -> Decision:
    """What ``check`` says, worked out from the levels: they are of one moment."""
    violations = []
    available: dict[str, int | None] = dict.fromkeys(asked)
    for level in levels:
        name, limit = level.resource, level.limit
        if limit != UNLIMITED:
            room = max(0, limit - level.used)
            least = available[name]
            available[name] = room if least is None else min(least, room)
        elif level.scope in owners:
            limit = CEILING  # an unlimited owner counts up to what a store can hold
        else:
            continue
        if level.used + asked[name] > limit:
            room = max(0, limit - level.used)
            violations.append(Violation(name, str(level.scope), limit, level.used, asked[name], room))
    return Decision(not violations, tuple(violations), available)
