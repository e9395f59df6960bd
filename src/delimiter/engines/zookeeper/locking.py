"""Closing the store for an edit: for a moment nobody changes a claim, and what is read stays as it is.

The editor takes ``/lock`` (an ephemeral node: it goes when the editor's session goes) and marks the rules as closed,
which changes their version: no change that was decided before can commit any more, since each checks it. What the
editor then reads is stable, and one multi writes the outcome and opens the store again. If the editor dies in between
nothing has been changed: whoever finds the store closed and the lock gone opens it under the old rules.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.multi import Multi
from delimiter.engines.zookeeper.rulebook import Edition
from delimiter.errors import Conflict, DelimiterError

__all__ = ["Closed", "Closing"]

#: Seconds to open again what was closed, even if the call has used up its time: better than to end the session.
_TO_OPEN: Final = 1.0


class Closed:
    """A store that is closed for us."""

    def __init__(self, ground: Ground, edition: Edition, now: int) -> None:
        self._ground = ground
        self.edition = edition
        #: When it was closed; everything that is read is at least as new.
        self.now = now
        self.opened = False

    def commit(self, multi: Multi) -> None:
        """Write the outcome, which must open the store, and give back the lock."""
        multi.delete(self._ground.layout.lock, 0)
        try:
            self._ground.session.commit(multi)
        except Conflict:
            self.opened = True  # the lock was lost, and others have opened the store
            raise
        self.opened = True

    def give_up(self) -> None:
        """Open the store as it was."""
        multi = Multi()
        self._ground.rulebook.open(multi, self.edition)
        with suppress(Conflict):
            self.commit(multi)


class Closing:
    """Closes one store, and opens what others have left closed."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def opened(self, *, remembered: bool = False) -> Edition:
        """The rules in force; ``Conflict`` while an edit is under way. ``remembered``: they may have been edited."""
        rulebook = self._ground.rulebook
        edition = rulebook.remembered() if remembered else rulebook.current()
        if edition.closed is not None:
            edition = rulebook.current()
        if edition.closed is not None:
            self._relieve(edition)
            raise Conflict("the rules are just being edited")
        return edition

    @contextmanager
    def closed(self) -> Iterator[Closed]:
        """Close the store; ``Conflict`` while somebody else has it closed."""
        ground, layout = self._ground, self._ground.layout
        edition = self.opened()
        token = uuid.uuid4().hex
        multi = Multi()
        multi.create(layout.lock, token.encode(), ephemeral=True)
        ground.rulebook.close(multi, edition, token)
        try:
            ground.session.commit(multi)
            ground.rulebook.doubt()
            closed = Closed(ground, ground.rulebook.current(), ground.meet())
            if closed.edition.closed != token:
                raise Conflict("the lock on the rules was lost")  # noqa: TRY301 - as any failure in here
        except BaseException:
            self._abandon(token)
            raise
        try:
            yield closed
        finally:
            if not closed.opened:
                self._abandon(token)
            ground.rulebook.doubt()

    def _abandon(self, token: str) -> None:
        """Open what we have closed, if we have; if not even that works, the end of our session lets others do it."""
        ground = self._ground
        ground.rulebook.doubt()
        try:
            with ground.session.at_least(_TO_OPEN):
                ground.meet()  # what was sent before this has happened by now, or never will
                edition = ground.rulebook.current()
                if edition.closed == token:
                    Closed(ground, edition, 0).give_up()
        except DelimiterError:
            ground.session.abandon()

    def _relieve(self, edition: Edition) -> None:
        """Open a store whose editor is gone."""
        lock = self._ground.session.read(self._ground.layout.lock)
        if lock is not None and lock.data.decode("ascii", "replace") == edition.closed:
            return
        multi = Multi()
        self._ground.rulebook.open(multi, edition)
        with suppress(Conflict):  # somebody else has
            self._ground.session.commit(multi)
        self._ground.rulebook.doubt()
