"""The page of the documentation that lists all mutations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from mutations.mutation import ROOT, Mutation, Room

__all__ = ["PAGE", "written"]

PAGE: Final = ROOT / "docs" / "mutations.md"

_BEGINNING: Final = """# Guards that are tested

A test of concurrency that never fails proves little: perhaps nothing can make it fail. So every guard of the library is
taken out in turn, in a copy, and the tests that should notice are run against it. `make mutations` does that for the
{count} guards below, one after the other, and fails if the tests pass without one of them. It needs half an hour, and
PostgreSQL, MariaDB, Galera and ZooKeeper: what cannot be shown because a server is missing is said, and fails too.

```sh
make mutations
make mutations ARGS="--only counters-unlocked guard --json outcomes.json"
```

A copy of the library stands before the installed one, with one piece of one file replaced; nothing else differs. First
all the tests run against a copy without a change, and must pass. `make test` checks that every piece is still there,
exactly once, that the tests that are named exist, and that this page lists what is there.

A mutation is shown on the store that is named: one database is enough to show that a test notices, and some guards are
needed on one database only. Claims usually go a short way, where one statement decides on all of them. Where it stands
*apart*, the tests were run with `--apart`, which keeps to the long way: the short one hides what is missing.
Tests without a file belong to the suite that [every engine must pass](conformance.md).
"""


def written(rooms: Iterable[Room]) -> str:
    rooms = list(rooms)
    parts = [_BEGINNING.format(count=sum(len(room.mutations) for room in rooms))]
    for room in rooms:
        parts += [
            f"\n## {room.title}\n\n| Mutation | Guard taken out | Without it | On | Noticed by |\n",
            "|---|---|---|---|---|\n",
        ]
        parts += [_line(one) for one in room.mutations]
    return "".join(parts)


def _line(one: Mutation) -> str:
    cells: Sequence[str] = (
        f"`{one.name}`",
        one.guard,
        one.without,
        f"{one.store}, apart" if one.apart else one.store,
        "<br>".join(map(_test, one.tests)),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _test(test: str) -> str:
    file, _, name = test.partition("::")
    place = f"{file.removesuffix('.py').rpartition('/')[2]}: " if file != "conformance" else ""
    return f"{place}`{name or file}`"
