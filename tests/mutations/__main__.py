"""``make mutations``: take out each guard in turn and show that the tests notice.

Exit status 0: every one was caught. 1: one survived, or could not be shown. 2: the tests fail on the library as it is.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mutations.catalogue import MUTATIONS, ROOMS
from mutations.mutation import Mutation
from mutations.page import PAGE, written
from mutations.running import Outcome, Runner, servers_for


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mutations", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="those whose name holds one of these words")
    parser.add_argument("--store", nargs="+", help="those that are shown on one of these stores")
    parser.add_argument("--apart", action="store_true", help="with no change made together, for all of them")
    parser.add_argument("--attempts", type=int, default=1, help="as a factor, for races that are seldom lost")
    parser.add_argument("--seed", type=int, help="of the order of sets, as an earlier run has printed it")
    parser.add_argument("--json", metavar="FILE", help="write the outcomes there too (- for standard output)")
    parser.add_argument(
        "--unchanged", choices=("run", "skip"), default="run", help="first run all on the library as is"
    )
    parser.add_argument("--page", action="store_true", help="write the page of the documentation and end")
    given = parser.parse_args(arguments)
    if given.page:
        PAGE.write_text(written(ROOMS))
        return 0
    chosen = [
        replace(one, apart=one.apart or given.apart)
        for one in MUTATIONS
        if (not given.only or any(word in one.name for word in given.only))
        and (not given.store or one.store in given.store)
    ]
    if not chosen:
        parser.error("no mutation is called so")
    seed = random.randrange(2**32) if given.seed is None else given.seed
    console = Console(stderr=True)
    console.print(f"{len(chosen)} mutations, seed {seed}")
    with servers_for(one.store for one in chosen) as (environment, missing):
        for store, reason in missing.items():
            console.print(f"[bold red]NOT SHOWN on {store}[/]: {reason}")
        shown = [one for one in chosen if one.store not in missing]
        with Runner(environment, seed=seed) as runner:
            outcomes = _run(console, runner, shown, given.attempts, given.unchanged == "run")
    if outcomes is None:
        return 2
    _tell(console, outcomes)
    if given.json:
        text = json.dumps({"seed": seed, "outcomes": [asdict(one) for one in outcomes]}, indent=2)
        sys.stdout.write(text + "\n") if given.json == "-" else Path(given.json).write_text(text + "\n")
    return int(bool(missing) or any(one.verdict != "caught" for one in outcomes))


def _run(
    console: Console, runner: Runner, mutations: Sequence[Mutation], factor: int, first: bool
) -> list[Outcome] | None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("the library as it is", total=len(mutations))
        if first and (complaints := runner.unchanged(mutations)):
            console.print("[bold red]the tests fail without any mutation[/]", *complaints, sep="\n")
            return None
        outcomes = []
        for mutation in mutations:
            progress.update(task, description=mutation.name)
            outcomes.append(runner.run(mutation, factor=factor))
            if outcomes[-1].verdict != "caught":
                console.print(f"[bold red]{outcomes[-1].verdict}[/]: {mutation.name}", outcomes[-1].reason)
            progress.advance(task)
    return outcomes


def _tell(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = Table("Mutation", "On", "Verdict", "Caught by", "Runs", "Seconds")
    for one in outcomes:
        style = None if one.verdict == "caught" else "bold red"
        on = f"{one.store}, apart" if one.apart else one.store
        table.add_row(
            one.name, on, one.verdict, one.caught_by, str(one.runs), f"{one.seconds:.1f}", style=style
        )
    console.print(table)
    caught = sum(one.verdict == "caught" for one in outcomes)
    console.print(f"{caught} of {len(outcomes)} caught, in {sum(one.seconds for one in outcomes):.0f} s")


if __name__ == "__main__":
    sys.exit(main())
