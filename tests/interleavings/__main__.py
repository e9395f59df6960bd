"""Explores every pair of operations, and threes by chance, on PostgreSQL and MariaDB; a table at the end.

    python -m interleavings [--store NAME] [--only "claim+release,sweep"] [--level LEVEL] [--memory warm|cold|shared]
                            [--most 400] [--samples 40] [--threes 60] [--seed N] [--json FILE] [--replay TEXT]

Exit status 1: something was wrong after a schedule. It is printed, with what to give to --replay.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import apart
from interleavings.plans import STORES, Task, Work, pairs, replayed, threes
from interleavings.processes import explored
from interleavings.rig import LEVELS, MEMORIES, Report, Rig
from servers import Servers

_CONSOLE = Console()
if not _CONSOLE.is_terminal:
    _CONSOLE = Console(width=140)


def _print_violations(report: Report) -> None:
    for violation in report.violations[:1]:
        _CONSOLE.print(f"[red]{' × '.join(report.operations)} on {report.store} at {report.level}[/red]")
        for line in violation.steps:
            _CONSOLE.print(line, markup=False, highlight=False, no_wrap=True, overflow="ellipsis")
        _CONSOLE.print(violation.what, markup=False, highlight=False)
        task = Task(report.store, report.level, report.memory, report.operations)
        digits = "".join(str(number + 1) for number in violation.choices)
        _CONSOLE.print(f'again: --replay "{task}|{digits}"', markup=False, highlight=False)


def _table(reports: Sequence[Report]) -> Table:
    table = Table("operations", "store", "level", "memory", title="Schedules explored")
    for name in ("schedules", "of", "went elsewhere", "deadlocks", "begun anew", "violations"):
        table.add_column(name, justify="right")
    for one in sorted(reports, key=lambda one: (len(one.operations), one.operations, one.store, one.level)):
        figures = (one.diverged, one.deadlocks, one.retries, len(one.violations))
        of = "all" if one.every else "sample"
        names = " × ".join(one.operations)
        table.add_row(
            names, one.store, one.level, one.memory, str(one.schedules), of, *(str(n or "") for n in figures)
        )
    return table


def _sums(reports: Sequence[Report]) -> Table:
    table = Table("store", "level", "operations", title="Together")
    for name in ("cases", "in every order", "schedules", "deadlocks", "violations"):
        table.add_column(name, justify="right")
    groups: defaultdict[tuple[str, str, str], list[Report]] = defaultdict(list)
    for one in reports:
        kind = "pairs" if len(one.operations) == 2 else "threes"
        groups[one.store, one.level, kind].append(one)
    groups["", "", "all"] = list(reports)
    for (store, level, kind), group in sorted(groups.items(), key=lambda item: (item[0][0] or "~", item[0])):
        figures = (
            len(group),
            sum(one.every for one in group),
            sum(one.schedules for one in group),
            sum(one.deadlocks for one in group),
            sum(len(one.violations) for one in group),
        )
        table.add_row(store, level, kind, *(f"{figure:,}" for figure in figures))
    return table


def _replay(text: str) -> int:
    task, choices = replayed(text)
    servers = Servers()
    try:
        url = servers.get(task.store).create_database()
        with Rig(task.store, url, hands=max(2, len(task.names))) as rig:
            report = rig.replay(task.operations, task.level, task.memory, choices)
    finally:
        servers.close()
    _print_violations(report)
    return int(any(violation.what for violation in report.violations))


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="interleavings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", choices=STORES, help="on this one only")
    parser.add_argument(
        "--only", default="", help='pairs with one of these operations ("sweep"), or these pairs ("a+b")'
    )
    parser.add_argument("--level", choices=["own", *(level.lower() for level in LEVELS)])
    parser.add_argument("--memory", choices=[*MEMORIES, "all"], default="all")
    parser.add_argument("--most", type=int, default=400, help="schedules of a pair; beyond that by chance")
    parser.add_argument(
        "--samples", type=int, default=40, help="schedules by chance, of larger pairs and of threes"
    )
    parser.add_argument("--threes", type=int, default=100, help="how many threes, on each store")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--apart", action="store_true", help="no claim is made by one statement")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--replay", help="one schedule, as a violation has printed it")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    chosen = _arguments(given)
    if chosen.apart:
        apart.begin()
    if chosen.replay:
        return _replay(chosen.replay)
    seed = random.randrange(10**6) if chosen.seed is None else chosen.seed
    _CONSOLE.print(f"seed {seed}")
    work = Work(chosen.most, chosen.samples, seed)
    memories = MEMORIES if chosen.memory == "all" else (chosen.memory,)
    stores = [chosen.store] if chosen.store else STORES
    tasks = [task for store in stores for task in pairs(store, memories=memories, only=chosen.only)]
    if not chosen.only:
        tasks += [task for store in stores for task in threes(store, seed, chosen.threes)]
    tasks = [task for task in tasks if chosen.level in (None, task.level.lower())]
    random.Random(seed).shuffle(tasks)  # whoever stops it early has seen something of everything
    reports: list[Report] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=_CONSOLE) as progress:
            bar = progress.add_task("exploring", total=len(tasks))
            for report in explored(tasks, work):
                reports.append(report)
                _print_violations(report)
                schedules = sum(one.schedules for one in reports)
                if not _CONSOLE.is_terminal and len(reports) % 25 == 0:
                    _CONSOLE.print(f"{len(reports)} of {len(tasks)} cases, {schedules:,} schedules")
                progress.update(bar, advance=1, description=f"{schedules:,} schedules")
    except KeyboardInterrupt:
        _CONSOLE.print("stopped; this is what was explored")
    if chosen.json:
        figures = [{**asdict(one), "ends": len(one.ends)} for one in reports]
        found = {"seed": seed, "work": asdict(work), "reports": figures}
        chosen.json.write_text(json.dumps(found, indent=1, default=str))
    _CONSOLE.print(_table(reports))
    _CONSOLE.print(_sums(reports))
    return int(any(one.violations for one in reports))


if __name__ == "__main__":
    sys.exit(main())
