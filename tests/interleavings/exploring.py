"""Every order in which operations can take their steps, one schedule after the other.

Depth first, and stateless: a schedule is run from the beginning each time, its first choices repeated and the last one
changed. Orders that differ only in the places of steps which do not depend on each other come to the same; of those
one is run (sleep sets, as Godefroid describes them: they leave out no outcome and no deadlock).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from interleavings.stage import Stage, Step, independent

__all__ = ["Alike", "Diverged", "Run", "every_order", "replay", "sample"]

#: How often a schedule that went another way than before is tried again: which of two a server chooses to end a
#: deadlock is its own affair, and so is when it forgets a deleted row.
_TRIES: Final = 4


#: Whether two steps, one after the other, come to the same in both orders.
Alike: TypeAlias = Callable[[Step, Step], bool]


class Diverged(Exception):
    """The same choices led elsewhere this time."""


@dataclass
class Run:
    """One schedule, to its end."""

    choices: tuple[int, ...]
    steps: list[tuple[int, Step]]
    #: It came to the same as one before, and was left.
    pruned: bool = False
    diverged: bool = False


@dataclass
class _Fork:
    """A moment of a schedule: who could go on, what was tried, and what need not be."""

    steps: dict[int, Step]
    asleep: dict[int, Step]
    chosen: int = -1

    def next_choice(self, preferred: int) -> bool:
        """Choose whom to let through; ``False``: nobody is left."""
        left = [number for number in self.steps if number not in self.asleep]
        if not left:
            return False
        self.chosen = preferred if preferred in left else left[0]
        return True

    def asleep_after(self, alike: Alike) -> dict[int, Step]:
        taken = self.steps[self.chosen]
        return {number: step for number, step in self.asleep.items() if alike(step, taken)}


@dataclass
class _Search:
    stage: Stage
    begin: Callable[[], None]
    alike: Alike
    forks: list[_Fork] = field(default_factory=list)

    def run(self) -> Run:
        """Repeat the choices, then go on to the end, always with the same operation where possible."""
        stage, taken = self.stage, []
        self.begin()
        for fork in self.forks:
            enabled = stage.enabled()
            if enabled.get(fork.chosen) != fork.steps[fork.chosen]:
                raise Diverged
            taken.append((fork.chosen, enabled[fork.chosen]))
            stage.take(fork.chosen)
        while enabled := stage.enabled():
            asleep = self.forks[-1].asleep_after(self.alike) if self.forks else {}
            fork = _Fork(enabled, asleep)
            if not fork.next_choice(self.forks[-1].chosen if self.forks else 0):
                return Run((), taken, pruned=True)
            self.forks.append(fork)
            taken.append((fork.chosen, enabled[fork.chosen]))
            stage.take(fork.chosen)
        return Run(tuple(number for number, _ in taken), taken)

    def turn_back(self) -> bool:
        """To the last moment at which something else can be tried."""
        while self.forks:
            fork = self.forks[-1]
            fork.asleep[fork.chosen] = fork.steps[fork.chosen]
            if fork.next_choice(fork.chosen):
                return True
            self.forks.pop()
        return False


def every_order(stage: Stage, begin: Callable[[], None], alike: Alike = independent) -> Iterator[Run]:
    """Every schedule, up to orders that come to the same. Whoever iterates judges each before asking for the next.

    ``alike`` says whether two steps come to the same in both orders.
    """
    search = _Search(stage, begin, alike)
    tries = 0
    while True:
        length = len(search.forks)
        try:
            run = search.run()
        except Diverged:
            stage.finish()
            tries += 1
            if tries < _TRIES:
                continue
            run = Run((), [], diverged=True)
            del search.forks[length:]
        tries = 0
        if run.pruned:
            stage.finish()
        yield run
        if not search.turn_back():
            return


def sample(stage: Stage, begin: Callable[[], None], dice: random.Random) -> Run:
    """One schedule by chance."""
    begin()
    taken: list[tuple[int, Step]] = []
    while enabled := stage.enabled():
        # Runs of steps of one operation, longer or shorter, meet more than a coin for each.
        stay = taken and taken[-1][0] in enabled and dice.random() < 0.5
        number = taken[-1][0] if stay else dice.choice(list(enabled))
        taken.append((number, enabled[number]))
        stage.take(number)
    return Run(tuple(number for number, _ in taken), taken)


def replay(stage: Stage, begin: Callable[[], None], choices: Sequence[int]) -> Run:
    """The schedule with these choices, then to the end in order."""
    begin()
    taken: list[tuple[int, Step]] = []
    left = list(choices)
    while enabled := stage.enabled():
        number = left.pop(0) if left else min(enabled)
        if number not in enabled:
            stage.finish()
            return Run(tuple(choices), taken, diverged=True)
        taken.append((number, enabled[number]))
        stage.take(number)
    return Run(tuple(number for number, _ in taken), taken)
