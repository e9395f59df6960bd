"""Claims as they are kept, and what scopes use: the sum over the claims that are live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from delimiter.engines.memory.tree import Tree
from delimiter.model import LIVE_STATES, Claim, ClaimState, Scope

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


@dataclass(frozen=True, slots=True)
class Record:
    """A claim as it is kept. Never altered: a change puts another one in its place."""

    made: int  # position in the order of creation
    id: str
    fingerprint: str
    resources: Mapping[str, int]
    project: str | None
    user: str | None
    parent: str | None
    external_id: str | None
    named: int  # when it took its external id, in the order of all that happened
    state: ClaimState
    changed: int  # when it was made or last changed
    ends_at: int | None  # of a reservation: when it runs out; of an ended claim: when it ended

    def state_at(self, now: int) -> ClaimState:
        if self.state == "reserved" and self.ends_at is not None and self.ends_at <= now:
            return "expired"
        return self.state

    def live_at(self, now: int) -> bool:
        return self.state_at(now) in LIVE_STATES

    def touched_after(self, moment: int, now: int) -> bool:
        """Whether it was made, changed or ended after this moment."""
        return max(self.changed, 0 if self.live_at(now) else self.ends_at or 0) > moment

    def claim_at(self, now: int) -> Claim:
        state = self.state_at(now)
        shown = self.ends_at if state in ("reserved", "expired") else None
        return Claim(
            id=self.id,
            resources=dict(self.resources),
            project=self.project,
            user=self.user,
            parent=self.parent,
            state=state,
            external_id=self.external_id,
            expires_at=None if shown is None else instant(shown),
        )


@dataclass(slots=True)
class Sum:
    """What one scope uses of one resource."""

    used: int = 0
    provisioned: int = 0


Key: TypeAlias = tuple[str, Scope]
Sums: TypeAlias = dict[Key, Sum]


def added_up(claims: Iterable[Record], tree: Tree, now: int) -> Sums:
    """What every scope uses of every resource at this moment."""
    found: Sums = {}
    for record in claims:
        if not record.live_at(now):
            continue
        for scope in tree.path(record.project, record.user):
            for name, amount in record.resources.items():
                sum_ = found.setdefault((name, scope), Sum())
                sum_.used += amount
                sum_.provisioned += amount if record.state == "provisioned" else 0
    return found
