"""``bench``: how many claims a second does this database take, beside what could be written by hand?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from delimiter.cli import failures, options, show
from delimiter.cli.failures import CheckFailed
from delimiter.cli.safe_text import Text, harmless
from delimiter.cli.session import Session
from delimiter.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from delimiter.bench.plan import Plan
    from delimiter.bench.results import Report

__all__ = ["bench"]


class _Numbers(click.ParamType[tuple[int, ...]]):
    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(word.replace("_", "")) for word in value.split(",") if word.strip())
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers; write for example 1,16,64", param, ctx)


_NUMBERS: Final = _Numbers()

_WAYS: Final = (
    *("threads", "asyncio", "in-transaction", "conditional-update", "select-for-update"),
    *("compare-and-swap", "serializable", "check-then-insert", "single-row-commits"),
)


@click.command(
    epilog=options.examples(
        "delimiter bench postgresql+psycopg://quota@db.example.org/quota",
        "delimiter bench --callers 64 --ways threads,asyncio,conditional-update --seconds 5",
        "delimiter bench --depth 1,4,8 --claims 100,100000 --flood --chart bench.svg",
    )
)
@click.argument("url", required=False)
@click.option(
    "--callers",
    metavar="N,…",
    type=_NUMBERS,
    default="1,16,64",
    show_default=True,
    help="How many call at once.",
)
@click.option(
    "--processes", metavar="N", type=int, default=2, show_default=True, help="In how many processes."
)
@click.option(
    "--seconds",
    metavar="S",
    type=float,
    default=1.0,
    show_default=True,
    help="Measured of each way, a round.",
)
@click.option(
    "--rounds", metavar="N", type=int, default=3, show_default=True, help="The ways take turns so often."
)
@click.option(
    "--resources", metavar="N", type=int, default=3, show_default=True, help="How many a claim takes: 1 to 3."
)
@click.option(
    "--spread",
    metavar="N",
    type=int,
    default=1000,
    show_default=True,
    help="Also spread over so many projects; 0: not.",
)
@click.option(
    "--depth", metavar="N,…", type=_NUMBERS, default="", help="Also in trees of so many levels: 1,4,8"
)
@click.option(
    "--claims", metavar="N,…", type=_NUMBERS, default="", help="Also alone beside so many: 100,10000,1000000"
)
@click.option("--flood", is_flag=True, help="Also beside callers that ask a full project for more.")
@click.option("--ways", metavar="NAME,…", default="", help=f"Only these ways: {', '.join(_WAYS)}.")
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(min=1),
    help="Of all processes of a way written by hand.  [default: up to 48]",
)
@click.option(
    "--claims-per-round", metavar="N", type=click.IntRange(min=1), help="So many claims instead of seconds."
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=1,
    show_default=True,
    help="Which projects are claimed from, in which order.",
)
@click.option("--chart", metavar="FILE.svg", type=click.Path(path_type=Path), help="Draw it, too.")
@click.option(
    "--output",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Write the JSON there, beside the tables.",
)
@options.of_store
@click.pass_obj
def bench(
    session: Session,
    /,
    *,
    url: str | None,
    ways: str,
    chart: Path | None,
    output: Path | None,
    **numbers: Any,
) -> int:
    """Measure claims a second on a database, beside ways that are written by hand.

    Each works for a short time in turn, in tables of this run's own, which are dropped at the end. It puts
    as much load on the database as it can. What is counted is checked afterwards; exit status 1 if it is wrong.
    """
    session.named_store = url or session.named_store
    _need_folders(chart, output)
    with session.busy("Connecting …"):
        _need_database(session)
    plan = _plan(session, ways, numbers)
    from delimiter.bench import charts
    from delimiter.bench.plan import BASELINE

    if chart is not None:
        charts.need_matplotlib()
    report = _measured(session, plan)

    answer = report.as_json(BASELINE)
    if output is not None:
        output.write_text(json.dumps(answer, indent=2) + "\n")
    if chart is not None:
        charts.draw(answer, chart)
    if session.as_json:
        session.answer(answer)
    else:
        _say(session, report)
    return failures.REFUSED if report.faults else failures.DONE


def _need_folders(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise InvalidRequest(f"there is no folder {path.absolute().parent} for {path.name}")


def _need_database(session: Session) -> None:
    from delimiter.cli import reach

    url = session.url()
    if not reach.is_sql(url):
        scheme = url.partition(":")[0]
        raise Unsupported(
            f"bench compares ways of writing SQL, which a {harmless(scheme)} store has none of: name a database"
        )
    session.facts(may_be_empty=True)


def _plan(session: Session, ways: str, numbers: dict[str, Any]) -> Plan:
    from delimiter.bench.plan import WAYS, Plan

    names = [name.strip() for name in ways.split(",") if name.strip()]
    for name in names:
        if name not in WAYS:
            raise InvalidRequest(f"there is no way {name!r}; there are {', '.join(WAYS)}")
    chosen = [WAYS[name] for name in dict.fromkeys(names)] or list(WAYS.values())
    return Plan(session.url(), ways=chosen, schema=session.schema, **numbers)


def _measured(session: Session, plan: Plan) -> Report:
    from delimiter.bench.crew import MeasurementFailed
    from delimiter.bench.measuring import measure

    with _progress(session) as told:
        try:
            return measure(plan, told=told)
        except MeasurementFailed as error:
            raise CheckFailed(str(error)) from error


@contextmanager
def _progress(session: Session) -> Iterator[Callable[..., None]]:
    """A bar for people; nothing for programs."""
    shown = session.err.is_terminal and not session.as_json
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=session.err,
        transient=True,
        disable=not shown,
    )
    with bar:
        task = bar.add_task("")

        def told(*, total: int, done: int, now: str) -> None:
            bar.update(task, total=total, completed=done, description=now)

        yield told


def _say(session: Session, report: Report) -> None:
    from delimiter.bench.plan import BASELINE, WAYS
    from delimiter.bench.tables import tables

    out = session.out
    machine = report.machine
    out.print(show.title("Claims a second", session.shown_url()))
    kept = ", ".join(f"{name} {value}" for name, value in machine["durability"].items())
    out.print(Text(f"{machine['kept'] or machine['server']}; {kept}", style="quiet"))
    out.print(
        Text(
            f"{machine['cpu']}, {machine['cores']} cores; Python {machine['python']},"
            f" SQLAlchemy {machine['sqlalchemy']}, {machine['driver']}",
            style="quiet",
        )
    )
    for table in tables(report, BASELINE):
        out.print()
        out.print(table)
    out.print()
    out.print(
        Text(
            f"Medians of {show.number_of(report.plan['rounds'], 'round')}, in which the ways took turns; the ratio is"
            f" to {WAYS[BASELINE].title}. Seed {report.plan['seed']}.",
            style="quiet",
        )
    )
    for sentence in report.left_out:
        out.print(show.advice(out, sentence))
    if report.faults:
        out.print(show.refused(out, "what is counted is not what was admitted"))
        for fault in report.faults:
            out.print(Text(fault, style="bad"))
    else:
        out.print(show.done(out, "every counter agrees with what was admitted, and no limit was passed"))
