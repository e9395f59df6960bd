"""Changes of claims: decided on what was read, proven by one multi."""

from __future__ import annotations

from collections.abc import Sequence

from delimiter.changes import Admit, Change, Release, Transfer
from delimiter.engine import Answer
from delimiter.engines.zookeeper.claims import Claims
from delimiter.engines.zookeeper.deciding import Decision, Suspected, Unproven
from delimiter.engines.zookeeper.expiry import Expiry
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.locking import Closing
from delimiter.engines.zookeeper.multi import LARGEST_OF_ONE, Multi
from delimiter.engines.zookeeper.writing import Writer
from delimiter.errors import Conflict, DelimiterError

__all__ = ["Changes"]


class Changes:
    """Decides batches of changes on one store."""

    def __init__(
        self, ground: Ground, claims: Claims, writer: Writer, expiry: Expiry, closing: Closing
    ) -> None:
        self._ground = ground
        self._claims = claims
        self._writer = writer
        self._expiry = expiry
        self._closing = closing

    def apply(self, changes: Sequence[Change]) -> list[Answer]:
        """Once: ``Conflict`` if something changed meanwhile."""
        try:
            return self._apply(changes)
        except Conflict:
            self._writer.forget()
            self._claims.doubt()
            self._ground.rulebook.doubt()
            raise

    def _apply(self, changes: Sequence[Change]) -> list[Answer]:
        settled = swept = False
        edition, now = self._closing.opened(remembered=True), self._ground.reckoned()
        while True:
            decision = Decision(self._ground, self._claims, edition, now, settled=settled)
            try:
                answers = decision.decide(changes, swept=swept)
                multi = self._writer.multi(decision)
                if multi or settled:
                    self._commit(multi, changes)
                    if not multi and any(isinstance(one, DelimiterError) for one in answers):
                        self._confirm(decision)
                    return answers
            except Unproven:
                pass
            except Suspected:
                swept = not self._expiry.sweep()
            # What is answered now rests on reads that begin after this.
            settled = True
            now = self._ground.meet()
            edition = self._closing.opened()

    def _confirm(self, decision: Decision) -> None:
        """What was refused rested on rules and claims that stood while counters were read; else ``Conflict``.

        A limit that was raised, and usage that grew because of it, must not be held against each other.
        """
        versions: dict[str, int | None] = {self._ground.layout.rules: decision.edition.version}
        versions.update({one.path: one.version for one in decision.kept.values()})
        versions.update({one.path: one.version for one in decision.names.values()})
        for path, node in self._ground.session.read_all(versions).items():
            if versions[path] != (None if node is None else node.version):
                raise Conflict("what was just read has changed")

    def _commit(self, multi: Multi, changes: Sequence[Change]) -> None:
        if any(isinstance(change, Release | Transfer) for change in changes):
            multi.refuse_too_large(
                "what hangs on this claim", "release or transfer the claims below it first, in parts"
            )
        elif any(isinstance(change, Admit) and len(change.claims) > 1 for change in changes):
            multi.refuse_too_large("this list of claims", "claim it in parts")
        else:
            multi.refuse_too_large("this claim", "claim fewer resources at once", largest=LARGEST_OF_ONE)
        self._ground.session.commit(multi)
