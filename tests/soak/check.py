"""``python -m soak.check FOLDER``: judges a history that was kept, once more."""

from __future__ import annotations

import sys
from pathlib import Path

from soak.history import read
from soak.judge import judge


def main(folder: str) -> int:
    verdict = judge(read(Path(folder)))
    for violation in verdict.violations:
        print(violation)  # noqa: T201
        print()  # noqa: T201
    counts = (
        f"{sum(verdict.answers.values())} answers, {verdict.families} families, {verdict.undecided} undecided"
    )
    print(f"{len(verdict.violations)} violations; {counts}; {verdict.refused_share:.0%} refused")  # noqa: T201
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
