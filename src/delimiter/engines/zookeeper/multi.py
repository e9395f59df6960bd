"""A multi: changes and conditions that the servers take together or not at all."""

from __future__ import annotations

from typing import Any, Final

from delimiter.errors import InvalidRequest

__all__ = ["LARGEST", "LARGEST_OF_ONE", "Multi"]

#: Bytes of one multi. Servers take packets of up to 1 MiB (``jute.maxbuffer``) from clients and from each other, and
#: add to what they were sent.
LARGEST: Final = 800 * 1024

#: Bytes of the multi that makes one claim, so that there is room for what its end takes.
LARGEST_OF_ONE: Final = 600 * 1024

#: What each operation adds to its path and data: its head, lengths, a version, and for a new node its ACL.
_HEAD: Final = 80


class Multi:
    """Operations in order. Nothing is sent before :meth:`delimiter.engines.zookeeper.session.Session.commit`."""

    def __init__(self) -> None:
        self._operations: list[tuple[str, tuple[Any, ...]]] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._operations)

    def check(self, path: str, version: int) -> None:
        self._add("check", path, version)

    def set(self, path: str, data: bytes, version: int) -> None:
        self._add("set_data", path, data, version)

    def create(self, path: str, data: bytes = b"", *, ephemeral: bool = False) -> None:
        self._add("create", path, data, None, ephemeral)

    def delete(self, path: str, version: int = -1) -> None:
        self._add("delete", path, version)

    def extend(self, other: Multi) -> None:
        self._operations += other._operations
        self.size += other.size

    def refuse_too_large(self, what: str, advice: str, *, largest: int = LARGEST) -> None:
        """``InvalidRequest`` before anything is sent: a server would only drop the connection."""
        if self.size > largest:
            raise InvalidRequest(
                f"{what} does not fit into one step: ZooKeeper takes {largest // 1024} KiB at once, and this would be"
                f" {self.size // 1024 + 1} KiB in {len(self)} changes; {advice}"
            )

    def fill(self, transaction: Any) -> None:
        for name, arguments in self._operations:
            getattr(transaction, name)(*arguments)

    def _add(self, name: str, path: str, *arguments: Any) -> None:
        self._operations.append((name, (path, *arguments)))
        self.size += _HEAD + len(path.encode()) + sum(len(one) for one in arguments if isinstance(one, bytes))
