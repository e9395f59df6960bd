"""Claims as they are kept: finding them, by their own id, by an external one, and below another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from delimiter.engines.records import Entry
from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.layout import (
    CHILDREN_IN_BLOCK,
    Owned,
    damaged,
    decode,
    digest,
    encode,
    is_written_so,
)
from delimiter.engines.zookeeper.multi import Multi
from delimiter.engines.zookeeper.session import Node
from delimiter.model import ClaimState

__all__ = ["Claims", "Kept", "Names"]

#: Ids that the node of an external id remembers: the last ones that had it.
_NAMES_KEPT: Final = 1000
#: Fewer if they are so long that their node would be larger than this: it is part of multis.
_NAMES_LARGEST: Final = 64 * 1024


_STATES: Final = frozenset(get_args(ClaimState))
#: The end of the year 9999 in microseconds since 1970: the last that a ``datetime`` can tell.
_LAST_MOMENT: Final = 253_402_300_799_999_999
_NONE: Final = type(None)
#: What the fields of a claim's node are.
_FIELDS: Final[Mapping[str, tuple[type, ...]]] = {
    "id": (str,),
    "resources": (dict,),
    "project": (str, _NONE),
    "user": (str, _NONE),
    "parent": (str, _NONE),
    "external_id": (str, _NONE),
    "state": (str,),
    "expires_at": (int, _NONE),
    "ended_at": (int, _NONE),
    "fingerprint": (str,),
    "children": (int,),
    "block": (int,),
    "place": (int,),
    "below": (int, _NONE),
}

#: Claims read before those who asked for them may look.
_READ_AT_ONCE: Final = 500


@dataclass(slots=True)
class Kept:
    """A claim with its node, as it was read."""

    entry: Entry
    path: str
    version: int
    #: In which block of the lists it stands, and at which place below its parent.
    block: int
    place: int
    below: int | None
    #: Where its index nodes are.
    owned: Owned
    ending: int | None
    ended_at: int | None
    external_id: str | None

    @property
    def order(self) -> tuple[int, int]:
        """In which order claims were made: first by block, then by this."""
        return self.block, self.entry.key


@dataclass(slots=True)
class Names:
    """Which claims have had an external id, the last one last."""

    path: str
    external_id: str
    ids: list[str]
    version: int | None

    def encoded(self) -> bytes:
        ids = self.ids[-_NAMES_KEPT:]
        data = encode({"external_id": self.external_id, "ids": ids})
        while len(data) > _NAMES_LARGEST and len(ids) > 1:
            ids = ids[len(ids) // 2 :]
            data = encode({"external_id": self.external_id, "ids": ids})
        return data

    def write(self, multi: Multi) -> None:
        """On the condition that it is as it was read; where nobody is remembered to have had it, its node goes."""
        if self.version is None:
            multi.create(self.path, self.encoded())
        elif self.ids:
            multi.set(self.path, self.encoded(), self.version)
        else:
            multi.delete(self.path, self.version)


class Claims:
    """Reads the claims of one store."""

    def __init__(self, ground: Ground) -> None:
        self._session = ground.session
        self._layout = ground.layout
        self._forgetting: int | None = None

    def forgetting(self, *, remembered: bool) -> int:
        """The version of the node that whoever forgets claims writes.

        To be asked for before claims are read, and checked when something rests on them: a node that was deleted and
        made again has the versions that it had before, so that its own version proves nothing.
        """
        if self._forgetting is None or not remembered:
            node = self._session.read(self._layout.ended)
            if node is None:
                raise damaged(self._layout.ended)
            self._forgetting = node.version
        return self._forgetting

    def doubt(self) -> None:
        """Claims may have been forgotten meanwhile."""
        self._forgetting = None

    def with_ids(self, ids: Iterable[str]) -> dict[str, Kept]:
        """Those of these ids that are known."""
        found, _ = self.look_up(ids, ())
        return found

    def look_up(
        self, ids: Iterable[str], external_ids: Iterable[str]
    ) -> tuple[dict[str, Kept], dict[str, Names]]:
        """Claims by their ids, and who has had these external ids."""
        paths = {self._layout.claim(digest(id)): id for id in ids}
        names = {self._layout.name(external_id): external_id for external_id in external_ids}
        nodes = self._session.read_all([*paths, *names])
        claims = {}
        for path, id in paths.items():
            if (node := nodes[path]) is not None:
                claims[id] = _expect(read_claim(node, path), id)
        return claims, {
            external_id: _read_names(nodes[path], path, external_id) for path, external_id in names.items()
        }

    def with_digests(self, digests: Iterable[str]) -> list[Kept]:
        """Claims by the digests of their ids; one that is gone meanwhile is left out."""
        nodes = self._session.read_all(self._layout.claim(name) for name in digests)
        return [read_claim(node, path) for path, node in nodes.items() if node is not None]

    def below(self, roots: Collection[Kept]) -> Iterator[list[Kept]]:
        """All below these, level by level, some at a time: whoever has seen enough need not read on."""
        level = list(roots)
        while level:
            blocks = [
                self._layout.children(digest(one.entry.id), number)
                for one in level
                for number in range(-(-one.entry.children // CHILDREN_IN_BLOCK))
            ]
            names = [name for found in self._session.children_of(blocks).values() for name in found]
            level = []
            for start in range(0, len(names), _READ_AT_ONCE):
                some = self.with_digests(names[start : start + _READ_AT_ONCE])
                level += some
                yield some


def read_claim(node: Node, path: str) -> Kept:
    content = decode(node.data, path)
    if not is_written_so(content, _FIELDS) or not _is_sound(content):
        raise damaged(path)
    return _kept(content, node, path)


def _is_sound(content: dict[str, Any]) -> bool:
    moments = [one for one in (content["expires_at"], content["ended_at"]) if one is not None]
    return (
        content["state"] in _STATES
        and all(type(amount) is int for amount in content["resources"].values())
        and all(0 <= one <= _LAST_MOMENT for one in moments)
        and min(content["children"], content["block"], content["place"]) >= 0
    )


def encode_claim(
    entry: Entry, *, block: int, place: int, below: int | None, children: int, offset: int
) -> bytes:
    """What a claim's node holds. (When it was last changed, the node itself tells, but for tests that move time.)"""
    content: dict[str, Any] = {
        "id": entry.id,
        "resources": entry.resources,
        "project": entry.project,
        "user": entry.user,
        "parent": entry.parent,
        "external_id": entry.external_id,
        "state": entry.state,
        "expires_at": entry.expires_at,
        "ended_at": entry.ended_at,
        "fingerprint": entry.fingerprint,
        "children": children,
        "block": block,
        "place": place,
        "below": below,
    }
    if offset:
        content["offset"] = offset
    return encode(content)


def _kept(content: dict[str, Any], node: Node, path: str) -> Kept:
    entry = Entry(
        id=content["id"],
        resources=content["resources"],
        project=content["project"],
        user=content["user"],
        parent=content["parent"],
        external_id=content["external_id"],
        state=content["state"],
        expires_at=content["expires_at"],
        ended_at=content["ended_at"],
        fingerprint=content["fingerprint"],
        # Those made in one step have one number: their places tell them apart.
        key=(node.made << 24) + content["place"],
        # Some time in that millisecond.
        changed_at=node.written_at * 1000 + 1 + int(content.get("offset", 0)),
        children=content["children"],
    )
    return Kept(
        entry=entry,
        path=path,
        version=node.version,
        block=content["block"],
        place=content["place"],
        below=content["below"],
        owned=Owned.of(digest(entry.id), entry.project, entry.user),
        ending=entry.expires_at,
        ended_at=entry.ended_at,
        external_id=entry.external_id,
    )


def _expect(kept: Kept, id: str) -> Kept:
    if kept.entry.id != id:
        raise damaged(kept.path)
    return kept


def _read_names(node: Node | None, path: str, external_id: str) -> Names:
    if node is None:
        return Names(path, external_id, [], None)
    content = decode(node.data, path)
    ids = content.get("ids")
    if (
        content.get("external_id") != external_id
        or not isinstance(ids, list)
        or not all(isinstance(one, str) for one in ids)
    ):
        raise damaged(path)
    return Names(path, external_id, ids, node.version)
