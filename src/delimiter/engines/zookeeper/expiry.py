"""Reservations that ran out: finding them, and sweeping them.

They stop counting at their time, not when they are swept: readers leave them out, and nobody is refused because of
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from delimiter.engines.zookeeper.claims import Claims, Kept
from delimiter.engines.zookeeper.deciding import Decision
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.layout import as_number
from delimiter.engines.zookeeper.locking import Closing
from delimiter.engines.zookeeper.multi import LARGEST, Multi
from delimiter.engines.zookeeper.rulebook import Edition
from delimiter.engines.zookeeper.writing import Writer

__all__ = ["Due", "Expiry"]

#: Reservations swept on the way of one decision; if there are more, it looks again.
_AT_ONCE: Final = 200


class Due(NamedTuple):
    """A reservation's place in the list of what runs out, and when it does."""

    expires_at: int
    digest: str
    path: str


class Expiry:
    """Finds and sweeps what ran out on one store."""

    def __init__(self, ground: Ground, claims: Claims, writer: Writer, closing: Closing) -> None:
        self._ground = ground
        self._claims = claims
        self._writer = writer
        self._closing = closing

    def due(self, now: int) -> list[Due]:
        """Everything that has run out and is not swept, the oldest first."""
        return [one for one in self.all(until=now) if one.expires_at <= now]

    def all(self, *, until: int | None = None) -> Iterator[Due]:
        """All reservations by when they run out; up to the end of an hour."""
        above = self._ground.layout.ending
        hours = [
            f"{above}/{hour}"
            for hour in self._ground.session.children(above)
            if until is None or as_number(hour, above) <= until >> 32
        ]
        for hour, names in self._ground.session.children_of(hours).items():
            for name in names:
                moment, _, digest = name.partition(".")
                yield Due(as_number(moment, hour), digest, f"{hour}/{name}")

    def sweep(self, *, size: int = _AT_ONCE) -> int:
        """Sweep up to ``size`` of what ran out, in one step; how many were swept.

        ``Conflict`` if another process was faster.
        """
        edition = self._closing.opened()
        now = self._ground.meet()
        due = self.due(now)[:size]
        if not due:
            return 0
        done, multi = self._swept(due, edition, now)
        while multi.size > LARGEST and len(due) > 1:
            due = due[: len(due) // 2]
            done, multi = self._swept(due, edition, now)
        multi.refuse_too_large("a reservation that ran out", "remove limits that it is charged to")
        self._ground.session.commit(multi)
        past = {one.path.rpartition("/")[0] for one in due} - {self._ground.layout.hour(now)}
        self._ground.session.remove_empty(past)
        self._writer.forget_hours(past)
        return done

    def _swept(self, due: Sequence[Due], edition: Edition, now: int) -> tuple[int, Multi]:
        """How many of these are reservations that ran out, and what sweeps them."""
        decision = Decision(self._ground, self._claims, edition, now, settled=True)
        kept = {one.owned.digest: one for one in self._claims.with_digests(one.digest for one in due)}
        done = decision.expire(kept[one.digest] for one in due if _stands(one, kept.get(one.digest)))
        multi = self._writer.multi(decision)
        for one in due:
            if not _stands(one, kept.get(one.digest)):  # nothing was there to run out
                multi.delete(one.path)
        return done, multi


def _stands(due: Due, kept: Kept | None) -> bool:
    return kept is not None and kept.ending == due.expires_at
