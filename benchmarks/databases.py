"""Every way to claim on each database, in one run each: the figures of the documentation, as JSON and as charts.

The servers are started for it. It takes about an hour; ``--quick`` some minutes, with the same scenarios and less time
for each. ``benchmarks/goals.py`` then says which goals were reached.

    python benchmarks/databases.py [--quick] [--seconds 2] [--rounds 3] [--only postgresql] [--store NAME=URL …]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from placement_way import Placement
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stores import STORES, stores

from delimiter.bench import charts
from delimiter.bench.measuring import measure
from delimiter.bench.plan import BASELINE, WAYS, Plan
from delimiter.bench.results import Report
from delimiter.bench.tables import tables

HERE = Path(__file__).parent
RESULTS = HERE / "results"
IMAGES = HERE.parent / "docs" / "images"

#: What is measured of each; a database that another process cannot reach (SQLite) has fewer callers.
PLANS: Final[Mapping[str, Mapping[str, Any]]] = {
    "postgresql": {
        "callers": (1, 16, 64, 256, 800),
        "depth": (1, 4, 8),
        "claims": (100, 10_000, 1_000_000),
        "flood": True,
    },
    "mariadb": {
        "callers": (1, 16, 64, 256, 800),
        "depth": (1, 4, 8),
        "claims": (100, 10_000, 1_000_000),
        "flood": True,
    },
    "sqlite": {"callers": (1, 16, 64), "depth": (1, 8), "claims": (100, 100_000)},
}


def run(name: str, url: str, options: argparse.Namespace, console: Console) -> Report:
    ways = [*WAYS.values(), *([Placement] if name == "mariadb" else [])]
    lengths = (
        {"seconds": 0.4, "warm_up": 0.3, "rounds": 1}
        if options.quick
        else {"seconds": options.seconds, "rounds": options.rounds}
    )
    settings = {**PLANS.get(name, PLANS["postgresql"]), **lengths, "seed": options.seed, "ways": ways}
    most = 10_000 if options.quick else options.most_claims
    settings["claims"] = [claims for claims in settings["claims"] if claims <= most]
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("")

        def told(*, total: int, done: int, now: str) -> None:
            bar.update(task, total=total, completed=done, description=f"{name}: {now}")

        return measure(Plan(url, **settings), told=told)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less time for everything: to see that it works")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured of each way in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most-claims", type=int, default=10**6, help="that are there before")
    parser.add_argument("--only", action="append", default=[], choices=STORES)
    parser.add_argument("--store", action="append", default=[], metavar="NAME=URL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the JSON")
    parser.add_argument("--images", type=Path, default=IMAGES, help="the folder for the charts")
    options = parser.parse_args()
    console = Console()
    console.print(f"seed {options.seed}")
    wrong = []
    with stores(options.store, console, options.only or STORES) as found:
        for name, url in found.items():
            report = run(name, url, options, console)
            console.rule(f"{name}: {report.machine['server']}")
            for table in tables(report, BASELINE):
                console.print(table)
                console.print()
            for sentence in report.left_out:
                console.print(f"[red]{sentence}")
            wrong += report.faults
            answer = report.as_json(BASELINE)
            options.results.mkdir(exist_ok=True)
            (options.results / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n")
            charts.draw(answer, options.images / f"claims-{name}.svg")
    for fault in wrong:
        console.print(f"[red]{fault}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
