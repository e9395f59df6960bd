"""What is to be explored: every pair of operations on every store and level, and threes by chance."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from interleavings.operations import BY_NAME, OPERATIONS, Operation
from interleavings.rig import MEMORIES, Report, Rig, levels_of

__all__ = ["STORES", "Task", "Work", "carry_out", "pairs", "replayed", "threes"]

STORES: Final = ("postgresql", "mariadb")


@dataclass(frozen=True, slots=True)
class Work:
    """How much of each: all schedules up to ``most``, beyond that (and of threes) ``samples`` by chance."""

    most: int = 400
    samples: int = 40
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """Operations that meet on one store, at one level, by processes that remember this or that."""

    store: str
    level: str
    memory: str
    names: tuple[str, ...]

    @property
    def operations(self) -> list[Operation]:
        return [BY_NAME[name] for name in self.names]

    def __str__(self) -> str:
        return "|".join((self.store, self.level, self.memory, ",".join(self.names)))


def pairs(store: str, *, memories: Collection[str] = ("warm",), only: str = "") -> list[Task]:
    """``only``: those in which one of these names, with commas, stands; or both of ``a+b``."""
    found = []
    for one, other in itertools.combinations_with_replacement(OPERATIONS, 2):
        if one is other and one.name == "time":
            continue
        if only and not any(_is_meant(part, (one.name, other.name)) for part in only.split(",")):
            continue
        found += [
            Task(store, level, memory, (one.name, other.name))
            for level in levels_of((one, other))
            for memory in memories
        ]
    return found


def _is_meant(part: str, names: Sequence[str]) -> bool:
    wanted = sorted(name.strip() for name in part.split("+"))
    return sorted(names) == wanted if len(wanted) > 1 else wanted[0] in names


def threes(store: str, seed: int, count: int) -> list[Task]:
    dice = random.Random(f"{seed} {store}")
    found = []
    for _ in range(count):
        operations = dice.choices(OPERATIONS, k=3)
        level = dice.choice(levels_of(operations))
        found.append(Task(store, level, dice.choice(MEMORIES), tuple(one.name for one in operations)))
    return found


def carry_out(rig: Rig, task: Task, work: Work) -> Report:
    most = 0 if len(task.names) > 2 else work.most
    return rig.explore(
        task.operations,
        task.level,
        memory=task.memory,
        most=most,
        samples=work.samples,
        seed=work.seed,
    )


def replayed(text: str) -> tuple[Task, tuple[int, ...]]:
    """What a violation has printed to be seen again."""
    store, level, memory, names, choices = text.split("|")
    task = Task(store, level, memory, tuple(names.split(",")))
    return task, tuple(int(digit) - 1 for digit in choices)
