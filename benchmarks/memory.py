"""Whether memory stays flat while many call for long: 800 callers on one hot project, their processes looked at.

The resident size of each process is read from /proc once a second. ``growth`` is how much larger the median of the last
third is than that of the second; the first is for pools, caches and the allocator to settle.

    python benchmarks/memory.py [--minutes 1] [--callers 800] [--way threads] [--store NAME=URL] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import uuid
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from stores import stores

from delimiter.bench.callers import Turn
from delimiter.bench.crew import Crew
from delimiter.bench.measuring import drop_tables
from delimiter.bench.plan import WAYS
from delimiter.bench.results import Figure
from delimiter.bench.scenario import Scenario
from delimiter.bench.way import Place


def resident(pids: list[int]) -> float:
    """Of all these processes together, in megabytes."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watch(crew: Crew, seconds: float, sizes: list[float], console: Console) -> None:
    bar = Progress(
        BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"), console=console, transient=True
    )
    end = time.monotonic() + seconds
    with bar:
        task = bar.add_task("", total=seconds)
        while (left := end - time.monotonic()) > 1:
            sizes.append(resident(crew.pids))
            bar.update(task, completed=seconds - left, description=f"{sizes[-1]:,.0f} MB")
            time.sleep(1)


def growth(sizes: list[float]) -> float:
    """The share by which the last third is larger than the one before it."""
    third = max(1, len(sizes) // 3)
    return statistics.median(sizes[-third:]) / statistics.median(sizes[third : 2 * third] or sizes) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--callers", type=int, default=800)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--way", default="threads", choices=["threads", "asyncio"])
    parser.add_argument("--store", action="append", default=[], metavar="NAME=URL")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    seconds = options.minutes * 60
    scenario = Scenario("memory", options.callers, options.processes)
    sizes: list[float] = []
    with stores(options.store, console, ["postgresql"]) as found:
        if not found:
            sys.exit("no database could be started here")
        (url,) = found.values()
        prefix = f"bench_{uuid.uuid4().hex[:8]}_"
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        way = WAYS[options.way](Place(url, prefix), scenario)
        figure = Figure("memory", scenario, type(way))
        try:
            way.create()
            before = way.count()
            with Crew(options.processes) as crew:
                turns = [
                    Turn(way, callers, flood, connections=10, seed=number)
                    for number, (callers, flood) in enumerate(scenario.shares())
                ]
                outcomes = crew.take(
                    turns,
                    warm_up=2,
                    seconds=seconds,
                    meanwhile=lambda: watch(crew, seconds, sizes, console),
                )
            figure.add(outcomes)
            after = way.count()
            figure.faults += after.faults
            if after.claims - before.claims != figure.all_admitted:
                figure.faults.append(
                    f"{figure.all_admitted:,} claims were admitted, {after.claims:,} are there"
                )
        finally:
            drop_tables(engine, prefix, None)
    grown = growth(sizes)
    console.print(
        f"{options.callers} callers ({options.way}), {options.minutes:g} min: {figure.median:,.0f} claims a second,"
        f" {statistics.median(sizes):,.0f} MB in {options.processes} processes, {grown:+.1%} in the last third"
    )
    if options.json:
        answer = {
            "callers": options.callers,
            "minutes": options.minutes,
            "way": options.way,
            "claims_per_second": figure.median,
            "megabytes": sizes,
            "growth": grown,
            "faults": figure.faults,
        }
        options.json.write_text(json.dumps(answer, indent=1) + "\n")
    sys.exit(f"{figure.faults}" if figure.faults else 0)


if __name__ == "__main__":
    main()
