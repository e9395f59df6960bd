"""Events: what has happened to limits, and who has come to hold more than theirs."""

from __future__ import annotations

from collections.abc import Iterator

from delimiter.engines.memory.claims import Key, Sum, Sums, instant
from delimiter.engines.memory.rules import Rules
from delimiter.model import Event, EventKind, Scope, ScopeKind

_KINDS_WITH_DEFAULTS: tuple[ScopeKind, ...] = ("project", "user")


class Journal:
    """All events so far, and who holds more than a limit since the last look."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.last = 0
        self._over: set[Key] = set()

    def look(self, before: Rules, after: Rules, sums: Sums, now: int) -> None:
        """Write down how the limits changed from ``before``, then every crossing since the last look."""
        for resource, scope, limit, previous, used in limit_changes(before, after, sums):
            self._write("limit_changed", resource, scope, limit, previous, used, now)
        over = {key for key, sum_ in sums.items() if after.is_over(key, sum_.used)}
        for key in sorted(over ^ self._over, key=after.position):
            kind: EventKind = "over_quota" if key in over else "back_within_quota"
            used = sums.get(key, Sum()).used
            self._write(kind, key[0], str(key[1]), after.maximum(key), before.maximum(key), used, now)
        self._over = over

    def _write(
        self,
        kind: EventKind,
        resource: str,
        scope: str,
        limit: int,
        previous: int,
        used: int | None,
        now: int,
    ) -> None:
        self.last += 1
        self.events.append(Event(self.last, kind, resource, scope, limit, previous, used, instant(now)))


def limit_changes(before: Rules, after: Rules, sums: Sums) -> Iterator[tuple[str, str, int, int, int | None]]:
    """Limits that are not what they were, of resources that were defined before and still are."""
    for resource in sorted(before.definitions.keys() & after.definitions.keys()):
        for kind in _KINDS_WITH_DEFAULTS:
            was = before.definitions[resource].default(kind)[0]
            limit = after.definitions[resource].default(kind)[0]
            if limit != was:
                yield resource, f"{kind}:*", limit, was, None
    for key in sorted(before.own.keys() | after.own.keys() | _totals(after), key=after.position):
        resource, scope = key
        if resource not in before.definitions or resource not in after.definitions:
            continue
        # A default that changed is told once, not for everybody whom it concerns.
        own = scope.kind == "total" or before.own_maximum(key) != after.own_maximum(key)
        if own and before.maximum(key) != after.maximum(key):
            yield resource, str(scope), after.maximum(key), before.maximum(key), sums.get(key, Sum()).used


def _totals(rules: Rules) -> set[Key]:
    return {(name, Scope.total()) for name in rules.definitions}
