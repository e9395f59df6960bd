"""How long nobody was served: the longest time without an acknowledged change, around each fault."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise

from soak.history import History

#: Verbs that only look.
LOOKING = ("check", "usage", "get")


@dataclass
class Pause:
    """Around one fault, in seconds."""

    fault: str
    #: How long the fault lasted.
    lasted: float
    #: The longest time between two acknowledged changes, from its beginning until the next one begins.
    longest: float
    #: From its end until a change that was asked for after it was acknowledged.
    recovery: float


def pauses(history: History) -> list[Pause]:
    offset = history.settings["real_minus_monotonic_us"]
    changes = [one for one in history.operations if one.verb not in LOOKING and _succeeded(one)]
    ends = sorted(one.end for one in changes)
    found = []
    faults = sorted(history.faults, key=lambda fault: fault["began"])
    for number, fault in enumerate(faults):
        began, healed = fault["began"] / 1000 + offset, fault["healed"] / 1000 + offset
        until = faults[number + 1]["began"] / 1000 + offset if number + 1 < len(faults) else healed + 5e6
        after = min((one.end for one in changes if one.start >= healed), default=healed)
        inside = ends[max(0, bisect_left(ends, began) - 1) : bisect_right(ends, until) + 1]
        # What lies behind the beginning of the next fault is told of that one.
        longest = max((min(later, until) - one for one, later in pairwise(inside)), default=0.0)
        recovery = max(0.0, min(after, until) - healed)
        found.append(Pause(fault["fault"], (healed - began) / 1e6, longest / 1e6, recovery / 1e6))
    return found


def _succeeded(one: object) -> bool:
    answer = getattr(one, "answer", None) or {}
    return "ok" in answer or answer.get("end") == "committed"
