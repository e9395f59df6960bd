"""How much each scope used at each moment: the least that must have been, and the most that can have been.

Each family of claims gives what it held in any state that may have been the present one; the smallest of these counts
for the least, the largest for the most. So whatever is said to be wrong is wrong in every order of events.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from delimiter.engines.memory.claims import Record
from delimiter.engines.memory.rules import Rules
from delimiter.model import UNLIMITED, Scope
from soak.model import State
from soak.orders import Node

Key: TypeAlias = tuple[str, Scope]
#: When what is held changes, by how much the least and the most do.
Change: TypeAlias = tuple[float, Key, int, int]


@dataclass
class Piece:
    """A stretch of time in which nothing changes: least and most used, and the limits that may be in force."""

    start: float
    least: int
    most: int
    limits: frozenset[float]
    #: The most that a service which keeps its promise can hold: the limit, or what was there when it was lowered.
    cap: float = math.inf


@dataclass
class Series:
    """The pieces of one scope and resource, in order."""

    starts: list[float] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        if self.starts and self.starts[-1] == piece.start:
            self.pieces[-1] = piece
        else:
            self.starts.append(piece.start)
            self.pieces.append(piece)

    def between(self, start: float, end: float) -> Iterator[Piece]:
        number = max(0, bisect_right(self.starts, start) - 1)
        while number < len(self.pieces) and self.starts[number] <= end:
            yield self.pieces[number]
            number += 1


def changes_of(nodes: Sequence[Node[State]], tolerance: float) -> Iterator[Change]:
    """What one family does to the scopes of its owners: their own part, without that of projects below."""
    moments: set[float] = set()
    for node in nodes:
        moments.update((node.enter, node.leave + 1))
        for record in node.state.values():
            if record.state == "reserved" and record.ends_at is not None:
                moments.update((record.ends_at - tolerance, record.ends_at + tolerance))
    before: dict[Key, tuple[int, int]] = {}
    for moment in sorted(one for one in moments if one < math.inf):
        held = _held([node for node in nodes if node.enter <= moment <= node.leave], moment, tolerance)
        for key in before.keys() | held.keys():
            old, new = before.get(key, (0, 0)), held.get(key, (0, 0))
            if old != new:
                yield moment, key, new[0] - old[0], new[1] - old[1]
        before = held


def changes_of_undecided(nodes: Iterable[Node[State]]) -> Iterator[Change]:
    """A family with too many orders: nothing, or as much as it ever may have held."""
    most: dict[Key, int] = {}
    for node in nodes:
        for key, (_, amount) in _held([node], -math.inf, 0.0).items():
            most[key] = max(most.get(key, 0), amount)
    for key, amount in most.items():
        yield -math.inf, key, 0, amount


def _held(nodes: Sequence[Node[State]], moment: float, tolerance: float) -> dict[Key, tuple[int, int]]:
    sums = [(_sums(node, moment + tolerance), _sums(node, moment - tolerance)) for node in nodes]
    keys = {key for pair in sums for one in pair for key in one}
    return {
        key: (min(least.get(key, 0) for least, _ in sums), max(most.get(key, 0) for _, most in sums))
        for key in keys
    }


def _sums(node: Node[State], moment: float) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for record in node.state.values():
        if not _counts(record, moment):
            continue
        for scope in (Scope.total(), *Scope.owned(record.project, record.user)):
            for name, amount in record.resources.items():
                found[name, scope] = found.get((name, scope), 0) + amount
    return found


def _counts(record: Record, moment: float) -> bool:
    if record.state == "reserved":
        return record.ends_at is None or moment < record.ends_at
    return record.state == "provisioned"


class Bounds:
    """The series of every scope, and whose usage counts for whom at each moment."""

    def __init__(self, rules: Sequence[Node[Rules]], changes: Iterable[Change], keys: Iterable[Key]) -> None:
        self._rules = rules
        self.series: dict[Key, Series] = {key: Series() for key in keys}
        self._own: dict[Key, tuple[int, int]] = {}
        self._sweep(sorted(changes, key=lambda change: change[0]))

    def rules_between(self, start: float, end: float) -> list[Rules]:
        """The limits and trees that may have been in force at some moment of this time."""
        return [node.state for node in self._rules if node.enter <= end and node.leave >= start]

    def _sweep(self, changes: Sequence[Change]) -> None:
        turns = {moment for node in self._rules for moment in (node.enter, node.leave + 1)}
        moments = sorted({change[0] for change in changes} | {one for one in turns if one < math.inf})
        number = 0
        active: list[Rules] = []
        for moment in moments:
            touched: set[str] = set()
            while number < len(changes) and changes[number][0] <= moment:
                _, key, least, most = changes[number]
                old = self._own.get(key, (0, 0))
                self._own[key] = old[0] + least, old[1] + most
                touched.add(key[0])
                number += 1
            if moment in turns or not active:
                active = self.rules_between(moment, moment)
                touched = {name for name, _ in self.series}
            self._note(moment, touched, active)

    def _note(self, moment: float, touched: set[str], active: Sequence[Rules]) -> None:
        for key, series in self.series.items():
            if key[0] not in touched:
                continue
            limits = frozenset(_limit(rules, key) for rules in active)
            least, most = self._used(key, active)
            before = series.pieces[-1] if series.pieces else None
            if before is not None and (before.least, before.most, before.limits) == (least, most, limits):
                continue
            series.add(Piece(moment, least, most, limits, _cap(before, most, limits)))

    def _used(self, key: Key, active: Sequence[Rules]) -> tuple[int, int]:
        name, scope = key
        if scope.kind != "project":
            return self._own.get(key, (0, 0))
        least = most = 0
        for (resource, owner), (low, high) in self._own.items():
            if resource == name and owner.kind == "project":
                below = [rules.tree.holds(scope.name, owner.name) for rules in active]
                least += low if all(below) else 0
                most += high if any(below) else 0
        return least, most


def _limit(rules: Rules, key: Key) -> float:
    maximum = rules.maximum(key)
    return math.inf if maximum == UNLIMITED else maximum


def _cap(before: Piece | None, most: int, limits: frozenset[float]) -> float:
    """Nothing grows while it is above its limit, so it stays below the most that it can have been since."""
    highest = max(limits)
    if before is None:
        return max(highest, most)
    return max(highest, min(before.cap, most))


def over(bounds: Bounds) -> Iterator[tuple[Key, Piece]]:
    """The first moment at which each scope must have held more than it may."""
    for key, series in bounds.series.items():
        for piece in series.pieces:
            if piece.least > piece.cap:
                yield key, piece
                break


def paths(rules: Rules, project: str | None, user: str | None) -> list[Scope]:
    return rules.tree.path(project, user)


def amounts(claims: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of what several claims ask for."""
    found: dict[str, int] = {}
    for one in claims:
        for name, amount in one.items():
            found[name] = found.get(name, 0) + amount
    return found
