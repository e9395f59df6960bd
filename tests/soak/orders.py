"""All orders in which the operations of one family may have taken effect, and the states that follow.

As in a linearisability checker: an operation takes effect at one moment between its call and its answer; one that was
never answered at any later moment, or never. States that are alike after the same operations are one node, so that
what grows is the number of different histories, not of orders. A family that can be explained gives, for each state,
the longest time in which it can have been the present one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from soak.history import Operation

S = TypeVar("S")

#: Beyond this many nodes a family is left undecided, and said to be.
MOST_NODES = 20_000


@dataclass(eq=False)
class Node(Generic[S]):
    """A state after some of the operations, and when it may have been the present one."""

    done: int
    state: S
    enter: float
    leave: float = -math.inf
    alive: bool = False  # a last state can be reached from here
    edges: list[tuple[float, Node[S]]] = field(default_factory=list)


@dataclass
class Explained(Generic[S]):
    """The states that lie on a way from the first to a last one that makes sense of every answer."""

    nodes: list[Node[S]]
    complete: bool = True  # False: too many to look at


@dataclass
class Unexplained(Generic[S]):
    """No order makes sense of the answers: ``blocked`` could not follow ``state``, the furthest that was reached."""

    state: S
    blocked: list[Operation]
    at_the_end: bool  # everything but what was found at the end of the run could be explained


class Orders(Generic[S]):
    """Looks for the orders of one family's operations."""

    def __init__(
        self,
        after: Callable[[S, Operation], Iterable[S]],
        key: Callable[[S], Any],
        fits_the_end: Callable[[S], bool] = lambda _: True,
    ) -> None:
        self._after = after
        self._key = key
        self._fits_the_end = fits_the_end

    def explain(self, first: S, operations: Sequence[Operation]) -> Explained[S] | Unexplained[S]:
        ordered = sorted((one for one in operations if one.outcome != "void"), key=lambda one: one.start)
        self._ordered = ordered
        self._certain = sum(1 << n for n, one in enumerate(ordered) if one.outcome == "done")
        root = Node(0, first, -math.inf)
        levels: list[dict[tuple[int, Any], Node[S]]] = [{(0, self._key(first)): root}]
        count = 1
        while levels[-1]:
            below: dict[tuple[int, Any], Node[S]] = {}
            for node in levels[-1].values():
                self._expand(node, below)
            count += len(below)
            if count > MOST_NODES:
                return self._too_many([node for level in levels for node in level.values()])
            levels.append(below)
        for level in reversed(levels):
            for node in level.values():
                self._look_back(node)
        if root.alive:
            return Explained([node for level in levels for node in level.values() if node.alive])
        return self._why([node for level in levels for node in level.values()])

    def _too_many(self, nodes: list[Node[S]]) -> Explained[S]:
        for node in nodes:
            node.leave = math.inf
        return Explained(nodes, complete=False)

    def _possible(self, done: int) -> list[tuple[int, Operation]]:
        """What may come next: everything that was called before the first of the others was answered."""
        bound = math.inf
        found = []
        for number, one in enumerate(self._ordered):
            if one.start > bound:
                break
            if not done >> number & 1:
                found.append((number, one))
                if one.outcome == "done":
                    bound = min(bound, one.end)
        return [(number, one) for number, one in found if one.start <= bound]

    def _expand(self, node: Node[S], below: dict[tuple[int, Any], Node[S]]) -> None:
        own = self._key(node.state)
        for number, one in self._possible(node.done):
            if one.end < node.enter:
                continue  # what was never answered, and settled before now: it has not happened
            for state in self._after(node.state, one):
                key = self._key(state)
                if one.outcome == "unknown" and key == own:
                    continue  # as if it had not happened
                done = node.done | 1 << number
                enter = max(node.enter, one.start)
                known = below.get((done, key))
                if known is None:
                    known = below[done, key] = Node(done, state, enter)
                known.enter = min(known.enter, enter)
                node.edges.append((one.end, known))

    def _is_last(self, node: Node[S]) -> bool:
        return node.done & self._certain == self._certain

    def _look_back(self, node: Node[S]) -> None:
        if self._is_last(node) and self._fits_the_end(node.state):
            node.leave = math.inf
        else:
            reached = [min(end, child.leave) for end, child in node.edges if child.alive]
            node.leave = max(reached, default=-math.inf)
        node.alive = node.leave > -math.inf and node.leave >= node.enter

    def _why(self, nodes: list[Node[S]]) -> Unexplained[S]:
        furthest = max(nodes, key=lambda node: ((node.done & self._certain).bit_count(), node.done))
        blocked = [one for _, one in self._possible(furthest.done) if one.outcome == "done"]
        return Unexplained(furthest.state, blocked, at_the_end=any(map(self._is_last, nodes)))
