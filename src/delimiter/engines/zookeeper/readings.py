"""Reading what scopes use at one moment, without stopping anybody.

ZooKeeper reads one node at a time. So everything is read twice: if nothing has changed in between, it all stood like
that at one moment, between the two. Where somebody changes something all the time, the store is closed for as long as
it takes to read once, as for an edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from delimiter.engines.differences import over_limit
from delimiter.engines.memory.claims import Sum, Sums
from delimiter.engines.memory.rules import Rules
from delimiter.engines.zookeeper.claims import Claims, Kept
from delimiter.engines.zookeeper.expiry import Expiry
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.holdings import Holdings, Key
from delimiter.engines.zookeeper.locking import Closing
from delimiter.model import UNLIMITED, Decision, Level, ProjectUsage, Scope, Usage, Violation

__all__ = ["Readings"]

T = TypeVar("T")

#: How often two readings may differ before the store is closed for a third.
_ATTEMPTS: Final = 4


class Readings:
    """Reads one store."""

    def __init__(self, ground: Ground, claims: Claims, expiry: Expiry, closing: Closing) -> None:
        self._ground = ground
        self._claims = claims
        self._expiry = expiry
        self._closing = closing

    def usage(self, scope: Scope) -> dict[str, Usage]:
        def keys(rules: Rules) -> list[Key]:
            return [(name, scope) for name in sorted(rules.definitions)]

        rules, numbers = self._numbers(keys)
        return {key[0]: Usage(rules.maximum(key), *numbers[key]) for key in keys(rules)}

    def levels(self, names: Sequence[str], scopes: Sequence[Scope]) -> list[Level]:
        def keys(rules: Rules) -> list[Key]:
            rules.known(names)
            return [(name, one) for name in names for one in rules.tree.charged(scopes)]

        rules, numbers = self._numbers(keys)
        return [Level(*key, rules.maximum(key), *numbers[key]) for key in keys(rules)]

    def check(self, resources: Mapping[str, int], scopes: Sequence[Scope]) -> Decision:
        def keys(rules: Rules) -> list[Key]:
            rules.known(resources)
            path = rules.tree.charged(scopes)
            return [
                (name, one)
                for name in sorted(resources)
                for one in path
                if one in scopes or rules.maximum((name, one)) != UNLIMITED
            ]

        rules, numbers = self._numbers(keys)
        violations: list[Violation] = []
        room: dict[str, int | None] = dict.fromkeys(sorted(resources))
        for key in keys(rules):
            (name, one), limit, (used, _) = key, rules.maximum(key), numbers[key]
            if (violation := over_limit(name, one, limit, used, resources[name])) is not None:
                violations.append(violation)
            if limit != UNLIMITED:
                free, known = max(0, limit - used), room[name]
                room[name] = free if known is None else min(free, known)
        return Decision(not violations, tuple(violations), room)

    def tree(self) -> list[ProjectUsage]:
        def read(rules: Rules) -> tuple[Holdings, Sums]:
            holdings = Holdings(self._ground)
            holdings.fetch_all(list(rules.definitions))
            return holdings, holdings.of_all(rules.definitions, rules.tree)

        rules, (_, sums), gone = self._steady(read)
        for key, (used, reserved) in self._gone(rules, gone).items():
            sum_ = sums.setdefault(key, Sum())
            sum_.used -= used
            sum_.provisioned -= used - reserved
        tree = rules.tree
        for (_, scope), sum_ in sums.items():
            if scope.kind == "project" and scope.name not in tree and sum_.used:
                tree = tree.placed(scope.name, None)
        return [
            ProjectUsage(one, tree.parents[one], self._shown(rules, Scope("project", one), sums))
            for one in tree.in_order()
        ]

    def _shown(self, rules: Rules, scope: Scope, sums: Sums) -> dict[str, Usage]:
        found = {}
        for name in sorted(rules.definitions):
            sum_ = sums.get((name, scope), Sum())
            found[name] = Usage(rules.maximum((name, scope)), sum_.used, sum_.used - sum_.provisioned)
        return found

    # -- one moment ---------------------------------------------------------------------------------------------

    def _numbers(self, keys: Callable[[Rules], Iterable[Key]]) -> tuple[Rules, dict[Key, tuple[int, int]]]:
        """What each of these scopes uses and has reserved at one moment, without what ran out."""

        def read(rules: Rules) -> tuple[Holdings, dict[Key, tuple[int, int]]]:
            holdings, wanted = Holdings(self._ground), list(keys(rules))
            holdings.fetch_needed(rules, wanted)
            return holdings, {key: holdings.of(rules, key) for key in wanted}

        rules, (_, numbers), gone = self._steady(read)
        for key, (used, reserved) in self._gone(rules, gone).items():
            if key in numbers:
                numbers[key] = (numbers[key][0] - used, numbers[key][1] - reserved)
        return rules, numbers

    def _steady(
        self, read: Callable[[Rules], tuple[Holdings, T]]
    ) -> tuple[Rules, tuple[Holdings, T], list[Kept]]:
        """Rules, counters and what ran out, as they stood at one moment after the call."""
        now = self._ground.meet()
        previous: object = None
        for _ in range(_ATTEMPTS):
            edition = self._ground.rulebook.current()
            found, gone = read(edition.rules), self._ran_out(now)
            versions = edition.head["revision"], found[0].known, [(one.path, one.version) for one in gone]
            if versions == previous:
                return edition.rules, found, gone
            previous = versions
        with self._closing.closed() as closed:
            rules = closed.edition.rules
            return rules, read(rules), self._ran_out(closed.now)

    def _ran_out(self, now: int) -> list[Kept]:
        """The reservations that ran out and are still on counters."""
        due = {one.digest for one in self._expiry.due(now)}
        found = self._claims.with_digests(sorted(due))
        return [one for one in found if one.ending is not None and one.ending <= now]

    def _gone(self, rules: Rules, gone: Iterable[Kept]) -> dict[Key, tuple[int, int]]:
        """What they hold, by resource and scope."""
        found: dict[Key, tuple[int, int]] = {}
        for kept in gone:
            entry = kept.entry
            for resource, amount in entry.resources.items():
                for scope in rules.tree.path(entry.project, entry.user):
                    used, reserved = found.get((resource, scope), (0, 0))
                    found[resource, scope] = (used + amount, reserved + amount)
        return found
