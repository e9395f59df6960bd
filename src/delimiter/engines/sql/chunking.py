"""Long lists in parts, so that no statement names more rows than every database takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["chunks"]

T = TypeVar("T")

#: Rows named in one statement, unless something needs fewer.
_ROWS: Final = 400


def chunks(items: Sequence[T], size: int = _ROWS) -> Iterator[Sequence[T]]:
    """The items in parts of at most ``size``."""
    return (items[at : at + size] for at in range(0, len(items), size))
