"""A claim and a counter as they stand on locked rows: what engines load, the ledger decides on, and engines write."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from delimiter.model import LIVE_STATES, Claim, ClaimState, Scope

__all__ = ["Counter", "Entry", "instant"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def instant(microseconds: int) -> datetime:
    """Microseconds since 1970 (how stores keep time) as an aware UTC ``datetime``, without passing through a float."""
    return _EPOCH + timedelta(microseconds=microseconds)


@dataclass(slots=True, eq=False)
class Counter:
    """A scope's record of one resource, as it is on the locked row, and how much the decisions so far change it."""

    key: int
    resource: str
    scope: Scope
    limit: int
    floor: int
    used: int
    reserved: int
    #: How far a project is from the root of its tree: refusals name them from the top down.
    level: int = 0
    #: Of a counted resource: how often guards have written the row, and whether it was over its limit when last seen.
    revision: int = 0
    over_quota: bool = False
    used_change: int = 0
    reserved_change: int = 0
    #: The part of the changes that comes from projects below this one.
    used_below_change: int = 0
    reserved_below_change: int = 0

    @property
    def changed(self) -> bool:
        """A claim that goes from a project to its ancestor changes only which part of that comes from below."""
        return bool(
            self.used_change or self.reserved_change or self.used_below_change or self.reserved_below_change
        )

    def is_from_elsewhere(self, project: str | None) -> bool:
        """Whether what is charged to this project reaches the counter from below."""
        return self.scope.kind == "project" and self.scope.name != project

    @property
    def used_now(self) -> int:
        return self.used + self.used_change

    @property
    def provisioned_now(self) -> int:
        return self.used_now - self.reserved - self.reserved_change


@dataclass(slots=True, eq=False)
class Entry:
    """A claim as it is on the locked row, and as the decisions so far leave it."""

    id: str
    resources: dict[str, int]
    project: str | None
    user: str | None
    parent: str | None
    external_id: str | None
    state: ClaimState
    expires_at: int | None
    ended_at: int | None
    fingerprint: str
    key: int = 0
    #: When it was made or last changed.
    changed_at: int = 0
    #: Claims ever made directly below this one, so that a claim that never had any needs no search for them.
    children: int = 0
    children_added: int = 0
    new: bool = False
    #: Its own row must be written: state, expiry, external id. ``moved``: the owner; ``resized``: what it holds.
    changed: bool = False
    moved: bool = False
    resized: bool = False

    @property
    def ended(self) -> bool:
        return self.state in ("released", "expired")

    def state_at(self, now: int) -> ClaimState:
        """The state it has: a reservation that ran out is expired, swept or not."""
        if self.state == "reserved" and self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return self.state

    def live_at(self, now: int) -> bool:
        return self.state_at(now) in LIVE_STATES

    def touched_after(self, moment: int, now: int) -> bool:
        """Whether it was made, changed or ended after this moment."""
        ended_at = self.expires_at if self.state_at(now) == "expired" and not self.ended else self.ended_at
        return max(self.changed_at, ended_at or 0) > moment

    def last_held(self, now: int) -> tuple[bool, int, int]:
        """In this order claims held an external id, which only one of them had at a time."""
        return self.live_at(now), self.ended_at or self.expires_at or 0, self.key

    def as_claim(self, now: int) -> Claim:
        state = self.state_at(now)
        at = None
        if state in ("reserved", "expired"):
            at = self.ended_at if self.ended else self.expires_at
        return Claim(
            id=self.id,
            resources=dict(self.resources),
            project=self.project,
            user=self.user,
            parent=self.parent,
            state=state,
            external_id=self.external_id,
            expires_at=None if at is None else instant(at),
        )
