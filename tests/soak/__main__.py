"""``python -m soak``: runs the clients and the nemesis on each store for some minutes, and judges what they wrote."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import apart
from server_process import ServerNotAvailable
from soak.clusters import STORES
from soak.run import Outcome, Plan, fresh_seed, run


def main() -> int:
    asked = _asked()
    if asked.apart:
        apart.begin()
    console = Console(stderr=True)
    console.print(f"seed [bold]{asked.seed}[/] (the same again: --seed {asked.seed})")
    outcomes, missing = [], False
    for store in asked.store or STORES:
        try:
            outcomes.append(_watched(console, asked, store))
        except ServerNotAvailable as reason:
            console.print(f"[red]NOT TESTED[/] {store}: {reason}")
            missing = True
    console.print(_table(outcomes))
    for outcome in outcomes:
        console.print(_pauses(outcome))
    for outcome in outcomes:
        for violation in outcome.violations[:10]:
            console.print(str(violation), style="red", markup=False)
        if outcome.folder is not None:
            console.print(f"[red]kept in {outcome.folder}[/] (again: python -m soak.check {outcome.folder})")
    if asked.json:
        Path(asked.json).write_text(json.dumps([_as_json(one) for one in outcomes], indent=1))
    return 1 if missing or any(one.violations for one in outcomes) else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of faults, for each store (%(default)s)")
    parser.add_argument(
        "--store", action="append", choices=STORES, help="this store; may be repeated (all of them)"
    )
    parser.add_argument(
        "--seed", type=int, default=fresh_seed(), help="decides what is asked and what is broken"
    )
    parser.add_argument(
        "--race", action="store_true", help="48 callers claim of one thing while nodes are taken away"
    )
    parser.add_argument("--processes", type=int, default=4, help="clients (%(default)s)")
    parser.add_argument("--callers", type=int, default=3, help="threads of each (%(default)s)")
    parser.add_argument(
        "--keep", type=Path, help="folder for the histories of runs that fail (the temporary one)"
    )
    parser.add_argument("--apart", action="store_true", help="no change is made together with others")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


def _watched(console: Console, asked: argparse.Namespace, store: str) -> Outcome:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:11}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(store, total=asked.minutes * 60, now="starting")
        began = time.monotonic()

        def tell(now: str) -> None:
            bar.update(task, completed=time.monotonic() - began, now=now[:90])

        size = {"processes": 6, "callers": 8, "race": True} if asked.race else {}
        plan = Plan(
            store,
            asked.minutes * 60,
            asked.seed,
            **{"processes": asked.processes, "callers": asked.callers, **size},
            tell=tell,
        )
        outcome = run(plan, keep=asked.keep)
    outcome.tell_briefly(console)
    return outcome


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="What was judged")
    for name in (
        "store",
        "answers",
        "families",
        "refused",
        "faults",
        "clients died",
        "longest pause",
        "violations",
    ):
        table.add_column(name, justify="left" if name == "store" else "right")
    for one in outcomes:
        longest = max((pause.longest for pause in one.pauses), default=0.0)
        verdict = one.verdict
        table.add_row(
            one.plan.store,
            f"{sum(verdict.answers.values()):,}",
            f"{verdict.families:,}",
            f"{verdict.refused_share:.0%}",
            str(one.faults),
            str(one.deaths),
            f"{longest:.1f} s",
            f"[{'red' if one.violations else 'green'}]{len(one.violations)}[/]",
        )
    return table


def _pauses(outcome: Outcome) -> Table:
    table = Table(title=f"{outcome.plan.store}: seconds around each kind of fault, the worst of all")
    for name in ("fault", "times", "lasted", "longest pause", "recovery"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    for name in sorted({pause.fault for pause in outcome.pauses}):
        some = [pause for pause in outcome.pauses if pause.fault == name]
        worst = [max(getattr(pause, what) for pause in some) for what in ("lasted", "longest", "recovery")]
        table.add_row(name, str(len(some)), *(f"{one:.2f}" for one in worst))
    return table


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "store": outcome.plan.store,
        "seed": outcome.plan.seed,
        "seconds": outcome.plan.seconds,
        "answers": {
            f"{verb}: {end}": number for (verb, end), number in sorted(outcome.verdict.answers.items())
        },
        "families": outcome.verdict.families,
        "undecided": outcome.verdict.undecided,
        "refused_share": outcome.verdict.refused_share,
        "faults": outcome.faults,
        "clients_died": outcome.deaths,
        "pauses": [asdict(pause) for pause in outcome.pauses],
        "violations": [str(one) for one in outcome.violations],
        "folder": None if outcome.folder is None else str(outcome.folder),
    }


if __name__ == "__main__":
    sys.exit(main())
