"""Upkeep: forgetting claims that ended long ago, and comparing counters with the claims charged to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from delimiter.engines.memory.rules import Rules
from delimiter.engines.zookeeper.claims import Claims, Kept
from delimiter.engines.zookeeper.counters import Held
from delimiter.engines.zookeeper.eventlog import EventLog, Happening, crossing
from delimiter.engines.zookeeper.expiry import Expiry
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.holdings import Holdings, Key
from delimiter.engines.zookeeper.layout import CHILDREN_IN_BLOCK, Owned, as_number, digest, short
from delimiter.engines.zookeeper.locking import Closed, Closing
from delimiter.engines.zookeeper.multi import LARGEST, Multi
from delimiter.engines.zookeeper.rulebook import is_limited
from delimiter.model import Drift, Scope

__all__ = ["Upkeep"]

#: Blocks of ended claims looked through at once.
_BLOCKS: Final = 8


class _Old(NamedTuple):
    digest: str
    path: str


class Upkeep:
    """Tidies one store."""

    def __init__(
        self, ground: Ground, claims: Claims, expiry: Expiry, events: EventLog, closing: Closing
    ) -> None:
        self._ground = ground
        self._claims = claims
        self._expiry = expiry
        self._events = events
        self._closing = closing

    # -- forgetting ---------------------------------------------------------------------------------------------

    def prune(self, *, older_than: int, size: int) -> int:
        """Forget up to ``size`` that ended long enough ago and have none below them, block by block."""
        while self._expiry.sweep():
            continue
        until = self._ground.meet() - older_than
        done = 0
        for block, old in self._old(until):
            kept = self._claims.with_digests(one.digest for one in old)
            paths = {one.owned.digest: one for one in kept if not self._has_below(one)}
            going = [(paths[one.digest], one.path) for one in old if one.digest in paths][: size - done]
            self._forget(going)
            done += len(going)
            if done >= size:
                return done
            if not old:
                self._remove_block(block)
        return done

    def _old(self, until: int) -> Iterator[tuple[str, list[_Old]]]:
        """What ended until then, by block, from the names in the lists alone; empty for a block that is empty."""
        layout, session = self._ground.layout, self._ground.session
        numbers = session.children(layout.ended)
        for start in range(0, len(numbers), _BLOCKS):
            blocks = [f"{layout.ended}/{number}" for number in numbers[start : start + _BLOCKS]]
            for block, names in session.children_of(blocks).items():
                old = []
                for name in names:
                    moment, _, owned = name.partition(".")
                    if as_number(moment, block) <= until:
                        old.append(_Old(Owned.read(owned).digest, f"{block}/{name}"))
                if old or not names:
                    yield block, old

    def _has_below(self, kept: Kept) -> bool:
        return any(self._ground.session.children_of(self._blocks_below(kept)).values())

    def _blocks_below(self, kept: Kept) -> list[str]:
        """The nodes in which the claims below it are listed."""
        blocks = -(-kept.entry.children // CHILDREN_IN_BLOCK)
        return [self._ground.layout.children(kept.owned.digest, number) for number in range(blocks)]

    def _forget(self, going: Sequence[tuple[Kept, str]]) -> None:
        """These claims, each with its place in the list of those that ended."""
        layout = self._ground.layout
        external_ids = {kept.external_id for kept, _ in going if kept.external_id is not None}
        names = self._claims.look_up((), external_ids)[1]
        multi = Multi()
        multi.set(layout.ended, b"", -1)
        for kept, listed in going:
            entry, name = kept.entry, kept.owned.digest
            for block in self._blocks_below(kept):
                multi.delete(block)
            multi.delete(kept.path, kept.version)
            multi.delete(listed)
            if entry.parent is not None and kept.below is not None:
                multi.delete(layout.child(digest(entry.parent), kept.below, name))
        gone = {kept.entry.id for kept, _ in going}
        for one in names.values():
            left = [id for id in one.ids if id not in gone]
            if one.version is None or left == one.ids:
                continue
            one.ids = left
            one.write(multi)
        if multi.size > LARGEST and len(going) > 1:
            half = len(going) // 2
            self._forget(going[:half])
            self._forget(going[half:])
        else:
            self._ground.session.commit(multi)

    def _remove_block(self, ended: str) -> None:
        """A block that is empty in both lists goes, but for the newest, which new claims are listed in."""
        layout, session = self._ground.layout, self._ground.session
        number = ended.rpartition("/")[2]
        live = f"{layout.live}/{number}"
        newest = session.children(layout.live)[-1:]
        if newest and newest[0] != number and not session.children(live):
            session.remove_empty([live])
            if session.read(live) is None:
                session.remove_empty([ended])

    # -- comparing ----------------------------------------------------------------------------------------------

    def drifts(self, *, repair: bool) -> list[Drift]:
        """First everything is read beside live claims. What seems to be off is read again with the store closed."""
        self._ground.meet()
        edition = self._closing.opened()
        suspects = _differences(edition.rules, *self._read(edition.rules, None))
        if not suspects:
            return []
        with self._closing.closed() as closed:
            rules = closed.edition.rules
            recorded, actual = self._read(rules, [key for key in suspects if key[0] in rules.definitions])
            found = _differences(rules, recorded, actual)
            if repair and found:
                self._repair(closed, found, recorded, actual)
        return [
            drift for key in found for drift in _told(rules, key, recorded[key], actual[key], repaired=repair)
        ]

    def _repair(
        self, closed: Closed, found: Sequence[Key], recorded: Holdings, actual: dict[Key, Held]
    ) -> None:
        """In several steps if there are many: each counter is right by itself, and nothing else changes meanwhile."""
        multi, happenings = Multi(), list[Happening]()
        for key in found:
            if multi.size > LARGEST // 4:  # what there is to tell comes on top
                self._events.write(multi, happenings, closed.now)
                self._ground.rulebook.check(multi, closed.edition)
                self._ground.session.commit(multi)
                multi, happenings = Multi(), []
            actual[key].write(multi, self._ground.layout.counter(*key), *key)
            limit = closed.edition.rules.maximum(key)
            happenings += crossing(*key, (limit, recorded[key].whole[0]), (limit, actual[key].whole[0]))
        self._events.write(multi, happenings, closed.now)
        self._ground.rulebook.open(multi, closed.edition)
        closed.commit(multi)

    def _read(self, rules: Rules, keys: Sequence[Key] | None) -> tuple[Holdings, dict[Key, Held]]:
        """What these counters (all) hold, and what they should."""
        holdings = Holdings(self._ground)
        if keys is None:
            holdings.fetch_all(list(rules.definitions))
        else:
            holdings.fetch(keys)
        sums: dict[Key, list[int]] = {key: [0, 0, 0, 0] for key in keys or holdings.known}
        for kept in self._live(None if keys is None else _owners(rules, keys)):
            entry = kept.entry
            for resource, amount in entry.resources.items():
                if resource not in rules.definitions:  # the rules are not as they were
                    continue
                reserved = amount if entry.state == "reserved" else 0
                for key, elsewhere in _counters(rules, resource, entry.project, entry.user):
                    if keys is None or key in sums:
                        amounts = sums.setdefault(key, [0, 0, 0, 0])
                        amounts[2 * elsewhere] += amount
                        amounts[2 * elsewhere + 1] += reserved
        return holdings, {
            key: Held((own, own_reserved), (other, other_reserved), holdings[key].version)
            for key, (own, own_reserved, other, other_reserved) in sums.items()
        }

    def _live(self, owners: Owners | None) -> Iterator[Kept]:
        """The live claims (of these owners)."""
        layout, session = self._ground.layout, self._ground.session
        for number in session.children(layout.live):
            owned = [Owned.read(name) for name in session.children(f"{layout.live}/{number}")]
            for kept in self._claims.with_digests(
                one.digest for one in owned if owners is None or owners.has(one)
            ):
                if not kept.entry.ended:
                    yield kept


class Owners(NamedTuple):
    """Whose claims are charged to some counters, as they are told in the lists."""

    projects: frozenset[str]
    users: frozenset[str]
    everybody: bool

    def has(self, owned: Owned) -> bool:
        return self.everybody or owned.project in self.projects or owned.user in self.users


def _owners(rules: Rules, keys: Sequence[Key]) -> Owners:
    scopes = {scope for _, scope in keys}
    projects = [scope.name for scope in scopes if scope.kind == "project"]
    return Owners(
        frozenset(short(one) for name in projects for one in rules.tree.subtree(name)),
        frozenset(short(scope.name) for scope in scopes if scope.kind == "user"),
        Scope.total() in scopes,
    )


def _counters(
    rules: Rules, resource: str, project: str | None, user: str | None
) -> Iterator[tuple[Key, bool]]:
    """The counters that a claim is charged to, and whether it reaches them from elsewhere."""
    owners = Scope.owned(project, user)
    for scope in rules.tree.path(project, user):
        if scope in owners or is_limited(rules, resource, scope):
            below = scope.kind == "project" and scope.name != project
            yield (resource, scope), below or (scope.kind == "user" and project is not None)


def _differences(rules: Rules, holdings: Holdings, actual: dict[Key, Held]) -> list[Key]:
    found = [key for key in actual if _told(rules, key, holdings[key], actual[key], repaired=False)]
    return sorted(found, key=rules.position)


def _told(rules: Rules, key: Key, recorded: Held, actual: Held, *, repaired: bool) -> list[Drift]:
    """What is off in one counter; a part of it is told of only where the whole is right."""
    resource, scope = key
    limited = is_limited(rules, resource, scope)
    if scope.kind == "total" and not limited:
        return []
    whole = limited or scope.kind == "user"
    pairs = list(
        zip(
            ("used", "reserved"),
            recorded.whole if whole else recorded.own,
            actual.whole if whole else actual.own,
            strict=True,
        )
    )
    off = [one for one in pairs if one[1] != one[2]]
    told = [Drift(resource, str(scope), was, should, repaired, name) for name, was, should in off]  # type: ignore[arg-type]
    if whole:
        parts = zip(("used", "reserved"), recorded.elsewhere, actual.elsewhere, strict=True)
        told += [
            Drift(resource, str(scope), was, should, repaired, f"{name}_below")  # type: ignore[arg-type]
            for name, was, should in parts
            if was != should and name not in {one[0] for one in off}
        ]
    return told
