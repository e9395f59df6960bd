"""Lists of claims: page by page, in the order they were made; and who holds what.

The lists of names are read block by block, and of the claims only those whose owner fits. A page is not of one
moment: each claim in it is as it was when it was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from delimiter.engine import ClaimQuery
from delimiter.engines.memory.rules import Rules
from delimiter.engines.records import instant
from delimiter.engines.zookeeper.claims import Claims, Kept
from delimiter.engines.zookeeper.expiry import Expiry
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.layout import Owned, as_number, short
from delimiter.model import LIVE_STATES, Claim, Consumer, Running, Scope
from delimiter.refusals import unknown_claim

__all__ = ["Listing"]

#: Blocks whose names are read at once.
_BLOCKS: Final = 4
#: Claims read at once.
_CLAIMS: Final = 500

#: A position in the order of all claims: the block above, the claim's number below.
_KEY_BITS: Final = 96


class Listing:
    """Lists the claims of one store."""

    def __init__(self, ground: Ground, claims: Claims, expiry: Expiry) -> None:
        self._ground = ground
        self._claims = claims
        self._expiry = expiry

    # -- one ----------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Claim:
        now = self._ground.meet()
        found, names = self._claims.look_up([id], [id])
        kept = found.get(id)
        if kept is None and names[id].ids:
            kept = self._claims.with_ids(names[id].ids[-1:]).get(names[id].ids[-1])
        if kept is None:
            raise unknown_claim(id)
        return kept.entry.as_claim(now)

    def named(self, names: Sequence[str], *, since: int) -> list[tuple[Claim, bool]]:
        now = self._ground.meet()
        found, holders = self._claims.look_up(names, names)
        ids = {id for one in holders.values() for id in one.ids} - found.keys()
        found.update(self._claims.with_ids(ids))
        return [
            (kept.entry.as_claim(now), kept.entry.touched_after(since, now))
            for kept in sorted(found.values(), key=lambda one: one.order)
        ]

    # -- pages --------------------------------------------------------------------------------------------------

    def page(self, query: ClaimQuery, *, after: int, size: int) -> tuple[list[Claim], int | None]:
        now = self._ground.meet()
        rules = self._ground.rulebook.current().rules
        page: list[Kept] = []
        for block in self._blocks(query, rules, after >> _KEY_BITS):
            for kept in block:
                if _position(kept) > after and _is_asked(kept, query, rules, now):
                    page.append(kept)
                    if len(page) > size:
                        last = _position(page[size - 1])
                        return [one.entry.as_claim(now) for one in page[:size]], last
        return [one.entry.as_claim(now) for one in page], None

    def _blocks(self, query: ClaimQuery, rules: Rules, start: int) -> Iterator[list[Kept]]:
        """The claims that may be asked for, in order, from this block on."""
        layout, session = self._ground.layout, self._ground.session
        above = [layout.live, layout.ended]  # in this order: what ends meanwhile is in one of them
        if query.state is None or query.state in LIVE_STATES:
            above = [layout.live]
        elif query.state == "released":
            above = [layout.ended]
        wanted = _shorts(query, rules)
        numbers = sorted(
            {
                one
                for path, names in session.children_of(above).items()
                for one in names
                if as_number(one, path, 10) >= start
            }
        )
        for first in range(0, len(numbers), _BLOCKS):
            some = numbers[first : first + _BLOCKS]
            entries = session.children_of(f"{one}/{block}" for block in some for one in above)
            for block in some:
                names = [name for one in above for name in entries[f"{one}/{block}"]]
                yield self._claims_of(names, wanted, query.user)

    def _claims_of(self, names: Iterable[str], projects: set[str] | None, user: str | None) -> list[Kept]:
        owned = [Owned.read(name) for name in names]
        digests = {
            one.digest
            for one in owned
            if (projects is None or one.project in projects) and (user is None or one.user == short(user))
        }
        return sorted(self._claims.with_digests(sorted(digests)), key=lambda one: one.order)

    # -- who holds what -----------------------------------------------------------------------------------------

    def consumers(self, resource: str, scope: Scope, *, size: int) -> list[Consumer]:
        now = self._ground.meet()
        rules = self._ground.rulebook.current().rules
        held: dict[tuple[str | None, str | None], int] = {}
        for block in self._blocks(_query(scope), rules, 0):
            for kept in block:
                entry = kept.entry
                if _is_charged(kept, resource, scope, rules, now):
                    owner = (entry.project, entry.user)
                    held[owner] = held.get(owner, 0) + entry.resources[resource]
        found = [Consumer(*owner, used) for owner, used in held.items()]
        return sorted(found, key=lambda one: (-one.used, one.project or "", one.user or ""))[:size]

    def running(self, resource: str, scope: Scope, *, size: int) -> list[Running]:
        now = self._ground.meet()
        rules = self._ground.rulebook.current().rules
        found: list[Running] = []
        waiting = [one for one in self._expiry.all() if one.expires_at > now]
        for start in range(0, len(waiting), _CLAIMS):
            part = self._claims.with_digests(one.digest for one in waiting[start : start + _CLAIMS])
            found += [
                Running(kept.entry.id, kept.entry.resources[resource], instant(kept.ending))
                for kept in part
                if kept.ending is not None and _is_charged(kept, resource, scope, rules, now)
            ]
            if len(found) >= size:
                break
        return sorted(found, key=lambda one: (one.expires_at, one.claim_id))[:size]


def _query(scope: Scope) -> ClaimQuery:
    return ClaimQuery(
        project=scope.name if scope.kind == "project" else None,
        user=scope.name if scope.kind == "user" else None,
        subtree=True,
    )


def _shorts(query: ClaimQuery, rules: Rules) -> set[str] | None:
    """How the projects that are asked for are told in the lists; ``None``: any."""
    if query.project is None:
        return None
    projects = rules.tree.subtree(query.project) if query.subtree else [query.project]
    return {short(one) for one in projects}


def _position(kept: Kept) -> int:
    block, key = kept.order
    return (block << _KEY_BITS) + key


def _is_asked(kept: Kept, query: ClaimQuery, rules: Rules, now: int) -> bool:
    entry = kept.entry
    state = entry.state_at(now)
    if state != query.state if query.state is not None else state not in LIVE_STATES:
        return False
    if query.project is not None and not (
        query.project == entry.project or (query.subtree and rules.tree.holds(query.project, entry.project))
    ):
        return False
    return query.user in (None, entry.user) and (query.resource is None or query.resource in entry.resources)


def _is_charged(kept: Kept, resource: str, scope: Scope, rules: Rules, now: int) -> bool:
    """Whether this claim counts there now."""
    entry = kept.entry
    return (
        entry.live_at(now)
        and resource in entry.resources
        and scope in rules.tree.path(entry.project, entry.user)
    )
