"""Where things lie below the store's path, and how they are written.

Names of projects, users, claims and resources are any text, so a node is named by a digest, and holds the real name.
No list of children grows past what one answer can carry (``jute.maxbuffer``, 1 MiB):

    /                          {"delimiter": "store", "layout": 1}
    /clock                     written to be told the time, and to be sure that later reads are up to date
    /rules                     the version of the rules, and of each part; whether an edit is under way
    /rules/SSS                 a part of the rules, in 512 of them: definitions, limits, projects
    /lock                      (ephemeral) who makes an edit
    /counters/R/S/D            what one scope uses of one resource; R: the resource; in 16 shards
    /claims/SS/D               a claim; below it, in numbered blocks, the digests of the claims that hang on it
    /names/SS/D                which claims have had an external id
    /live                      the number of the newest block
    /live/BLOCK/D.P.U          live claims, in blocks as they were made; P, U: short digests of the owner
    /ended                     written whenever claims are forgotten
    /ended/BLOCK/TIME.D.P.U    ended claims, in the block in which they were made
    /ending/HOUR/TIME.D        reservations, by when they run out
    /events                    the number of the newest event
    /events/BLOCK/NUMBER       events, a thousand in a block
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from delimiter.errors import StoreUnavailable
from delimiter.model import Scope

__all__ = [
    "LAYOUT",
    "Layout",
    "Owned",
    "as_number",
    "damaged",
    "decode",
    "digest",
    "encode",
    "is_written_so",
    "part_of",
    "shard",
    "short",
]

#: The version of this layout; a store of another one is not touched.
LAYOUT: Final = 1

SHARDS: Final = 64
COUNTER_SHARDS: Final = 16
EVENTS_IN_BLOCK: Final = 1000
#: Children of one claim in one block of the list below it.
CHILDREN_IN_BLOCK: Final = 4096

#: Parts of the rules. An edit writes each part that it touches anew, and reading all rules reads every part.
PARTS: Final = 512

_DIGEST: Final = re.compile("[0-9a-f]{32}")
_PLAIN: Final = 1024
#: Bytes of a node's content before it is compressed, at most.
_LONGEST: Final = 64 * 1024 * 1024


def digest(*words: str) -> str:
    """The name of a node: 128 bits of SHA-256 in hex."""
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def shard(name: str) -> str:
    """In which of 64 shards a node lies."""
    return f"{int(name[:2], 16) % SHARDS:02x}"


def part_of(name: str) -> str:
    """In which part of the rules something is kept."""
    return f"{int(name[:4], 16) % PARTS:03x}"


def short(name: str | None) -> str:
    """A part of an index node's name: enough to leave most of the others out, without reading them."""
    return "-" if name is None else digest(name)[:8]


def encode(value: Any) -> bytes:
    """JSON, compressed if it is long."""
    text = json.dumps(value, separators=(",", ":")).encode()
    return text if len(text) < _PLAIN else zlib.compress(text)


def decode(data: bytes, path: str) -> dict[str, Any]:
    """What :func:`encode` has written; anything else was written by somebody else."""
    try:
        value = json.loads(data if data[:1] == b"{" else _decompressed(data))
    except (ValueError, RecursionError, zlib.error):
        value = None
    if not isinstance(value, dict):
        raise damaged(path)
    return value


def _decompressed(data: bytes) -> bytes:
    """Not more than anything of ours could be: a few bytes may stand for gigabytes."""
    stream = zlib.decompressobj()
    text = stream.decompress(data, _LONGEST)
    if not stream.eof:
        raise ValueError("too long, or not whole")
    return text


def damaged(path: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the node {path} is not as Delimiter writes it; nothing is guessed: somebody else has written to the"
        " store's path, or it was damaged",
        retryable=False,
    )


def is_written_so(content: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]]) -> bool:
    """Whether these fields are there, and of these types."""
    return fields.keys() <= content.keys() and all(
        type(content[name]) in types for name, types in fields.items()
    )


def as_number(name: str, path: str, base: int = 16) -> int:
    """A number in the name of a node."""
    try:
        return int(name, base)
    except ValueError as error:
        raise damaged(path) from error


class Owned(NamedTuple):
    """The name of an index node: a digest, and short digests of the claim's owner."""

    digest: str
    project: str
    user: str

    @classmethod
    def of(cls, digest: str, project: str | None, user: str | None) -> Owned:
        return cls(digest, short(project), short(user))

    @classmethod
    def read(cls, name: str) -> Owned:
        parts = name.split(".")[-3:]
        if len(parts) < 3 or not _DIGEST.fullmatch(parts[0]):
            raise damaged(name)
        return cls(*parts)

    def __str__(self) -> str:
        return ".".join(self)


class Layout:
    """The paths of one store."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.clock = f"{root}/clock"
        self.rules = f"{root}/rules"
        self.lock = f"{root}/lock"
        self.counters = f"{root}/counters"
        self.claims = f"{root}/claims"
        self.names = f"{root}/names"
        self.live = f"{root}/live"
        self.ended = f"{root}/ended"
        self.ending = f"{root}/ending"
        self.events = f"{root}/events"

    def first_nodes(self) -> dict[str, bytes]:
        """What an empty store consists of."""
        shards = [f"{number:02x}" for number in range(SHARDS)]
        first_block = self.block(0)
        empty = (self.counters, self.claims, self.names, self.ended, self.ending, self.clock)
        return {
            self.root: encode({"delimiter": "store", "layout": LAYOUT}),
            **dict.fromkeys(empty, b""),
            **{f"{self.claims}/{one}": b"" for one in shards},
            **{f"{self.names}/{one}": b"" for one in shards},
            self.rules: encode(
                {"version": 0, "revision": 0, "overbooking": True, "closed": None, "parts": {}}
            ),
            self.live: encode({"block": 0}),
            f"{self.live}/{first_block}": b"",
            f"{self.ended}/{first_block}": b"",
            self.events: encode({"last": 0, "first": 1}),
        }

    def part(self, name: str) -> str:
        return f"{self.rules}/{name}"

    def resource(self, resource: str) -> list[str]:
        """The nodes under which the counters of a resource lie."""
        above = f"{self.counters}/{digest(resource)}"
        return [above, *(f"{above}/{number:x}" for number in range(COUNTER_SHARDS))]

    def counter(self, resource: str, scope: Scope) -> str:
        name = digest(scope.kind, scope.name)
        return f"{self.counters}/{digest(resource)}/{name[0]}/{name}"

    def claim(self, name: str) -> str:
        """``name`` is the digest of the claim's id."""
        return f"{self.claims}/{shard(name)}/{name}"

    def child(self, parent: str, place: int, child: str) -> str:
        return f"{self.children(parent, place // CHILDREN_IN_BLOCK)}/{child}"

    def children(self, parent: str, block: int) -> str:
        return f"{self.claim(parent)}/{block:06d}"

    def name(self, external_id: str) -> str:
        name = digest(external_id)
        return f"{self.names}/{shard(name)}/{name}"

    def block(self, number: int) -> str:
        return f"{number:08d}"

    def live_entry(self, block: int, owned: Owned) -> str:
        return f"{self.live}/{self.block(block)}/{owned}"

    def ended_entry(self, block: int, ended_at: int, owned: Owned) -> str:
        return f"{self.ended}/{self.block(block)}/{ended_at:016x}.{owned}"

    def hour(self, moment: int) -> str:
        """A little more than an hour: 2³² microseconds."""
        return f"{self.ending}/{moment >> 32:08x}"

    def ending_entry(self, expires_at: int, name: str) -> str:
        return f"{self.hour(expires_at)}/{expires_at:016x}.{name}"

    def event_block(self, number: int) -> str:
        return f"{self.events}/{number // EVENTS_IN_BLOCK:08d}"

    def event(self, number: int) -> str:
        return f"{self.event_block(number)}/{number:012d}"
