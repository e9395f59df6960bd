"""Trees drawn beside tables: guides for the first column, so that bars and numbers still stand below each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rich.console import Console

__all__ = ["Branch", "drawn"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Guides:
    """Three cells each: beside a child, beside the last one, past a child to the next, and under the last."""

    tee: str
    corner: str
    bar: str
    gap: str = "   "


_LINES: Final = _Guides("├─ ", "└─ ", "│  ")
_PLAIN_LINES: Final = _Guides("|- ", "`- ", "|  ")


@dataclass(frozen=True, slots=True)
class Branch(Generic[T]):
    """One item of a tree: ``guide`` stands before its name, ``beneath`` before its further lines."""

    item: T
    guide: str
    beneath: str


def drawn(roots: Sequence[T], below: Callable[[T], Sequence[T]], console: Console) -> Iterator[Branch[T]]:
    """The whole tree from the top down; how deep it is does not matter (no recursion)."""
    lines = _LINES if console.encoding.startswith("utf") else _PLAIN_LINES
    waiting = [(root, "", "") for root in reversed(roots)]
    while waiting:
        item, guide, carried = waiting.pop()
        children = below(item)
        yield Branch(item, guide, carried + (lines.bar if children else lines.gap))
        for number, child in enumerate(reversed(children)):
            last = number == 0
            waiting.append(
                (
                    child,
                    carried + (lines.corner if last else lines.tee),
                    carried + (lines.gap if last else lines.bar),
                )
            )
