"""``reconcile`` and ``adopt``: the record against its own sums, and against what really exists."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from delimiter import Conflict, Delimiter, InvalidRequest, StoreUnavailable, UnknownResource, listing
from delimiter.cli import as_json, failures, options, show
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session
from delimiter.listing import Adopted, Mismatch, Progress
from delimiter.model import Drift

__all__ = ["adopt", "reconcile"]

#: Mismatches that are shown; of the others it says how many there are.
_SHOWN: Final = 20

_STAGES: Final = {
    "claims": "Reading claims",
    "listing": "Reading the listing",
    "comparing": "Looking again at what differs",
    "adopting": "Claiming",
}

#: A listing that is older is said to be.
_OLD: Final = timedelta(hours=1)

#: What a run that is repeated outlives: always, and once one went through (then the command line is right).
_PASSING: Final = (StoreUnavailable, Conflict)
_BORNE_LATER: Final = (*_PASSING, InvalidRequest, UnknownResource)

_Errors: TypeAlias = tuple[type[Exception], ...]
_FILE: Final = click.Path(exists=True, dir_okay=False)


@click.command(
    epilog=options.examples(
        "delimiter reconcile --repair",
        "delimiter reconcile --listing volumes.csv --report found.jsonl",
        "delimiter reconcile --listing volumes.csv --repair --every 1h",
    )
)
@click.option("--listing", "file", metavar="FILE", type=_FILE, help="What really exists: CSV or JSON Lines.")
@click.option(
    "--resource",
    "resources",
    metavar="NAME",
    multiple=True,
    help="Compare only this; may be repeated.  [default: what the listing names]",
)
@click.option("--repair", is_flag=True, help="Set right what disagrees.")
@click.option(
    "--grace",
    metavar="TIME",
    type=options.DURATION,
    help="Leave alone what was made, changed or ended within this time before FILE was written.  [default: 10m]",
)
@click.option(
    "--most-orphaned",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Repair nothing if FILE lacks more of the claims than this, and more than ten.  [default: 20]",
)
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write down what was found, one JSON object a line, behind what is there.",
)
@click.option(
    "--every", metavar="TIME", type=options.DURATION, help="Again and again, this far apart, until Ctrl-C."
)
@options.of_store
@click.pass_obj
def reconcile(
    session: Session,
    /,
    *,
    file: str | None,
    resources: Sequence[str],
    repair: bool,
    grace: timedelta | None,
    most_orphaned: float | None,
    report: str | None,
    every: timedelta | None,
) -> int:
    """Compare every counter with the claims charged to it, and the claims with what really exists.

    The second needs a listing: a file with the columns external_id, project, user, created_at, and one for each
    resource; or JSON Lines with these keys. Exit status 1 if something disagrees and was not repaired.
    """
    if file is None and (resources or grace is not None or most_orphaned is not None):
        raise click.UsageError("--resource, --grace and --most-orphaned go with --listing FILE.")
    if every is not None and not every:
        raise click.UsageError("--every needs a time above 0, such as 1h.")
    with ExitStack() as stack:
        kept = None if report is None else stack.enter_context(_appended(report))
        run = _Run(session, file, resources, grace, kept, repair=repair, most_orphaned=most_orphaned)
        quota = stack.enter_context(session.opened())
        borne: _Errors = _PASSING
        while every is not None:
            if _tried(session, lambda: run.once(quota), borne=borne):
                borne = _BORNE_LATER
            threading.Event().wait(every.total_seconds())  # Ctrl-C ends it
        return run.once(quota)


@contextmanager
def _appended(name: str) -> Iterator[IO[str]]:
    try:
        with open(name, "a", encoding="utf-8", buffering=1) as file:  # noqa: PTH123 - a line is there when written
            yield file
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror or error}") from error


def _tried(session: Session, run: Callable[[], int], *, borne: _Errors) -> bool:
    """A store that does not answer for a while is there again next time, and so is a file that is as it should be."""
    try:
        run()
    except borne as error:
        message = failures.failure_of(error, secrets=session.secrets()).message
        if session.as_json:
            session.complain({"warning": message})
        else:
            session.err.print(Text(message, style="near"))
        return False
    return True


class _Run:
    """What is compared, and where it is told."""

    def __init__(
        self,
        session: Session,
        file: str | None,
        resources: Sequence[str],
        grace: timedelta | None,
        report: IO[str] | None,
        *,
        repair: bool,
        most_orphaned: float | None,
    ) -> None:
        self._session = session
        self._file = file
        self._resources = resources or None
        self._grace = timedelta(minutes=10) if grace is None else grace
        self._report = report
        self._repair = repair
        self._most_orphaned = (20 if most_orphaned is None else most_orphaned) / 100
        self._age = timedelta()

    def once(self, quota: Delimiter) -> int:
        """Counters first: a claim is mended on counters that are right."""
        found = _Found()
        drifts = self._reported(quota.reconcile(repair=self._repair))
        if self._session.as_json:
            for piece in as_json.streamed(found.seen(chain(drifts, self._mismatches(quota)))):
                click.echo(piece, nl=False)
        else:
            with self._session.busy("Comparing counters with claims …"):
                for _ in found.seen(drifts):
                    pass
            for _ in found.seen(self._mismatches(quota)):
                pass
            self._say(found)
        self._write({"drifts": len(found.drifts), "mismatches": found.count, "repaired": found.repaired})
        return failures.DONE if found.repaired == found.count + len(found.drifts) else failures.REFUSED

    def _mismatches(self, quota: Delimiter) -> Iterator[Mismatch]:
        file = self._file
        if file is None:
            return
        with _bars(self._session) as told:

            def step(progress: Progress) -> None:
                if progress.mismatch is not None:
                    self._write(progress.mismatch)
                told(progress)

            self._age = _age(file)  # what was made or changed since it was written is not in it
            try:
                yield from quota.reconcile_with(
                    lambda: listing.read(file),
                    resources=self._resources,
                    repair=self._repair,
                    grace=self._grace + self._age,
                    most_orphaned=self._most_orphaned,
                    progress=step,
                )
            except InvalidRequest as error:
                if "most_orphaned" in str(error):
                    error.add_note(
                        "`--most-orphaned PERCENT` allows more; the same without `--repair` shows them."
                    )
                raise

    def _reported(self, drifts: Iterator[Drift]) -> Iterator[Drift]:
        for drift in drifts:
            self._write(drift)
            yield drift

    def _write(self, finding: Any) -> None:
        if self._report is not None:
            fields = {"at": datetime.now(UTC), **as_json.plain(finding)}
            self._report.write(json.dumps(as_json.plain(fields)) + "\n")

    # -- for people ---------------------------------------------------------------------------------------------

    def _say(self, found: _Found) -> None:
        self._say_drift(found.drifts)
        if self._file is not None:
            self._say_mismatches(found)
        if not self._repair and (found.drifts or found.count):
            again = "delimiter reconcile --repair" + (
                f" --listing {failures.quoted(self._file)}" if self._file else ""
            )
            advice = f"`{again}` sets them right, beside live claims."
            self._session.out.print(show.advice(self._session.out, advice))

    def _say_drift(self, drifts: Sequence[Drift]) -> None:
        out = self._session.out
        if not drifts:
            out.print(show.done(out, "every counter agrees with its claims"))
            return
        count = show.number_of(len(drifts), "counter")
        if self._repair:
            out.print(show.done(out, f"{count} disagreed with the claims and were set right"))
        else:
            out.print(show.refused(out, f"{count} disagree with the claims."))
        out.print(show.drift_table(drifts))

    def _say_mismatches(self, found: _Found) -> None:
        out = self._session.out
        if self._age > _OLD:
            age = show.time_left(self._age)
            out.print(Text(f"The listing is {age} old; what was made or changed since is left alone."))
        if not found.count:
            out.print(show.done(out, "every claim agrees with the listing"))
            return
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.kinds.items()))
        if found.repaired_mismatches < found.count:
            out.print(show.refused(out, f"not as the listing says: {counts}"))
        else:
            out.print(show.done(out, f"set right after the listing: {counts}"))
        out.print(_mismatch_table(found.first))
        if found.count > len(found.first):
            more = f"and {found.count - len(found.first):,} more; --report FILE keeps them all"
            out.print(Text(more, style="quiet"))


def _age(file: str) -> timedelta:
    """How long ago it was written, by the clock of this machine."""
    try:
        written = Path(file).stat().st_mtime
    except OSError:  # whoever reads it will tell
        return timedelta()
    return timedelta(seconds=max(0, time.time() - written))


class _Found:
    """What was seen: every drift, and of the mismatches their number and the first few."""

    def __init__(self) -> None:
        self.drifts: list[Drift] = []
        self.first: list[Mismatch] = []
        self.kinds: Counter[str] = Counter()
        self.repaired_mismatches = 0

    @property
    def count(self) -> int:
        return self.kinds.total()

    @property
    def repaired(self) -> int:
        return self.repaired_mismatches + sum(drift.repaired for drift in self.drifts)

    def seen(self, found: Iterator[Any]) -> Iterator[Any]:
        for one in found:
            if isinstance(one, Mismatch):
                self.kinds[one.kind] += 1
                self.repaired_mismatches += one.repaired
                if len(self.first) < _SHOWN:
                    self.first.append(one)
            else:
                self.drifts.append(one)
            yield one


@contextmanager
def _bars(session: Session) -> Iterator[Callable[[Progress], None]]:
    """A bar for each stage, to people only."""
    if session.as_json or not session.err.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=session.err, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def told(step: Progress) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bar.add_task(_STAGES[step.stage], total=step.total)
            bar.update(tasks[step.stage], completed=step.done, total=step.total)

        yield told


def _mismatch_table(mismatches: Sequence[Mismatch]) -> Table:
    table = show.plain_table("", "thing", "of", "recorded", "actual", "")
    for one in mismatches:
        state = (
            Text("repaired", style="good") if one.repaired else Text(one.note or "not repaired", style="bad")
        )
        owners = (("project", one.project), ("user", one.user))
        owner = ", ".join(f"{kind} {name}" for kind, name in owners if name is not None)
        thing = Text(one.external_id or one.claim_id or "")
        table.add_row(
            Text(one.kind), thing, Text(owner), _contents(one.recorded), _contents(one.actual), state
        )
    return table


def _contents(fields: Any) -> Text:
    said = (
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in fields.items()
        if value is not None
    )
    return Text(", ".join(said) or "nothing")


@click.command(
    epilog=options.examples("delimiter adopt volumes.csv", "delimiter adopt servers.jsonl --batch 1000")
)
@click.argument("file", metavar="FILE", type=_FILE)
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1, 5000),
    default=500,
    help="How many are claimed in one transaction.  [default: 500]",
)
@click.option(
    "--grace",
    metavar="TIME",
    type=options.DURATION,
    default="10m",
    help="Leave alone what was made within this time, by its created_at.  [default: 10m]",
)
@options.of_store
@click.pass_obj
def adopt(session: Session, /, *, file: str, batch: int, grace: timedelta) -> int:
    """Claim what exists already, from a listing.

    A file with the columns external_id, project, user, created_at, and one for each resource; or JSON Lines with these
    keys. What is known already is left alone: begin again after an interruption, and it goes on where it stopped.
    No limit refuses what exists. Exit status 1 if something could not be claimed.
    """
    with session.opened() as quota, _bars(session) as told:
        adopted = quota.adopt(lambda: listing.read(file), batch=batch, grace=grace, progress=told)
    if session.as_json:
        session.answer(adopted)
    else:
        _say_adopted(session, adopted)
    return failures.REFUSED if adopted.refusals else failures.DONE


def _say_adopted(session: Session, adopted: Adopted) -> None:
    out = session.out
    young = f", {adopted.young:,} too young yet" if adopted.young else ""
    out.print(
        show.done(
            out, f"{show.number_of(adopted.claimed, 'thing')} claimed, {adopted.known:,} known already{young}"
        )
    )
    if adopted.refusals:
        out.print(show.refused(out, f"{show.number_of(adopted.refusals, 'thing')} could not be claimed:"))
        for external_id, reason in list(adopted.refused.items())[:_SHOWN]:
            out.print(Text(f"  {external_id}: {reason}"))
    if adopted.over_quota:
        out.print(Text(show.over_it(tried=False)))
        out.print(show.overage_table(adopted.over_quota))
