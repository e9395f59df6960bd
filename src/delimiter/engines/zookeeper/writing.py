"""Writing what a decision has changed into one multi: claims, their places in the lists, names, counters, events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from delimiter.engines.records import Entry
from delimiter.engines.zookeeper.claims import Kept, Names, encode_claim
from delimiter.engines.zookeeper.deciding import Decision, is_written
from delimiter.engines.zookeeper.eventlog import EventLog
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.layout import CHILDREN_IN_BLOCK, Owned, damaged, decode, digest, encode
from delimiter.engines.zookeeper.multi import Multi

__all__ = ["Blocks", "Writer"]

#: Live claims after which the next block is begun, so that a block can be read at once.
_IN_BLOCK = 256
#: How many claims this process makes before it looks again how full the block is.
_LOOK_EVERY = 16


class Blocks:
    """The block in which new claims are listed: all of one block are made before any of the next."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._known: tuple[int, int] | None = None
        self._made = 0

    def forget(self) -> None:
        self._known = None

    def current(self, multi: Multi, making: int) -> int:
        """The block for so many new claims; it is still the newest when they are made."""
        self._made += making
        if self._known is None or self._made >= _LOOK_EVERY:
            self._made = 0
            self._known = self._look()
        number, version = self._known
        multi.check(self._ground.layout.live, version)
        return number

    def _look(self) -> tuple[int, int]:
        layout, session = self._ground.layout, self._ground.session
        head = session.read(layout.live)
        if head is None:
            raise damaged(layout.live)
        try:
            number = int(decode(head.data, layout.live)["block"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(layout.live) from error
        block = session.read(f"{layout.live}/{layout.block(number)}")
        if block is None or block.children < _IN_BLOCK:
            return number, head.version
        following = Multi()
        following.set(layout.live, encode({"block": number + 1}), head.version)
        following.create(f"{layout.live}/{layout.block(number + 1)}")
        following.create(f"{layout.ended}/{layout.block(number + 1)}")
        session.commit(following)
        return number + 1, head.version + 1


class Writer:
    """Writes the changes of one store's claims."""

    def __init__(self, ground: Ground, blocks: Blocks, events: EventLog) -> None:
        self._ground = ground
        self._layout = ground.layout
        self._blocks = blocks
        self._events = events
        self._hours: set[str] = set()

    def forget(self) -> None:
        """Something that was believed to be there was not."""
        self._hours.clear()
        self._blocks.forget()

    def forget_hours(self, paths: Iterable[str]) -> None:
        self._hours.difference_update(paths)

    def multi(self, decision: Decision) -> Multi:
        """Everything the decision changes, on the condition of everything it rests on; empty if nothing changes."""
        multi = Multi()
        written = [entry for entry in decision.ledger.entries.values() if is_written(entry)]
        if not written:
            return multi
        self._ground.rulebook.check(multi, decision.edition)
        if decision.rests_on_claims:
            multi.check(self._layout.ended, decision.forgetting)
        for kept in decision.kept.values():
            if not is_written(kept.entry) and not kept.entry.ended:
                multi.check(kept.path, kept.version)
        new = [entry for entry in written if entry.new]
        block = self._blocks.current(multi, len(new)) if new else 0
        places: defaultdict[str, int] = defaultdict(int)
        for place, entry in enumerate(new):
            below = None
            if entry.parent is not None:
                parent = decision.ledger.entries[entry.parent]
                below = parent.children + places[entry.parent]
                places[entry.parent] += 1
            self._create(multi, entry, block, place, below)
        for entry in written:
            if not entry.new:
                self._set(multi, entry, decision.kept[entry.id])
        self._write_names(multi, decision, written)
        decision.accounts.write(multi)
        self._events.write(multi, decision.happenings, decision.now)
        return multi

    # -- claims -------------------------------------------------------------------------------------------------

    def _create(self, multi: Multi, entry: Entry, block: int, place: int, below: int | None) -> None:
        name = digest(entry.id)
        multi.create(self._layout.claim(name), self._encoded(entry, block, place, below))
        self._list(multi, entry, block, Owned.of(name, entry.project, entry.user))
        if entry.parent is not None and below is not None:
            if below % CHILDREN_IN_BLOCK == 0:
                multi.create(self._layout.children(digest(entry.parent), below // CHILDREN_IN_BLOCK))
            multi.create(self._layout.child(digest(entry.parent), below, name))
        if entry.expires_at is not None:
            self._put_ending(multi, entry.expires_at, name)

    def _set(self, multi: Multi, entry: Entry, kept: Kept) -> None:
        multi.set(kept.path, self._encoded(entry, kept.block, kept.place, kept.below), kept.version)
        name = kept.owned.digest
        owned = Owned.of(name, entry.project, entry.user)
        if entry.ended != (kept.ended_at is not None) or owned != kept.owned:
            if kept.ended_at is None:
                multi.delete(self._layout.live_entry(kept.block, kept.owned))
            else:
                multi.delete(self._layout.ended_entry(kept.block, kept.ended_at, kept.owned))
            self._list(multi, entry, kept.block, owned)
        if entry.expires_at != kept.ending:
            if kept.ending is not None:
                multi.delete(self._layout.ending_entry(kept.ending, name))
            if entry.expires_at is not None:
                self._put_ending(multi, entry.expires_at, name)

    def _list(self, multi: Multi, entry: Entry, block: int, owned: Owned) -> None:
        if entry.ended:
            multi.create(self._layout.ended_entry(block, entry.ended_at or 0, owned))
        else:
            multi.create(self._layout.live_entry(block, owned))

    def _put_ending(self, multi: Multi, expires_at: int, name: str) -> None:
        hour = self._layout.hour(expires_at)
        if hour not in self._hours:
            self._ground.session.make([hour])
            self._hours.add(hour)
        multi.create(self._layout.ending_entry(expires_at, name))

    def _encoded(self, entry: Entry, block: int, place: int, below: int | None) -> bytes:
        return encode_claim(
            entry,
            block=block,
            place=place,
            below=below,
            children=entry.children + entry.children_added,
            offset=self._ground.offset.microseconds,
        )

    # -- names --------------------------------------------------------------------------------------------------

    def _write_names(self, multi: Multi, decision: Decision, written: list[Entry]) -> None:
        """Who has an external id now, and who gave one up for another."""
        changed: dict[str, Names] = {}
        for entry in written:
            before = None if entry.new else decision.kept[entry.id].external_id
            if entry.external_id == before:
                continue
            if before is not None:
                names = decision.names_of(before)
                names.ids = [id for id in names.ids if id != entry.id]
                changed[before] = names
            if entry.external_id is not None:
                names = decision.names_of(entry.external_id)
                names.ids = [*(id for id in names.ids if id != entry.id), entry.id]
                changed[entry.external_id] = names
        for names in changed.values():
            names.write(multi)
