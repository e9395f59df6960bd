"""``events``: what has happened to limits, and to those who hold more than theirs."""

from __future__ import annotations

import logging
import threading
from typing import Final

import click
from rich.console import Console

from delimiter import Delimiter
from delimiter.cli import as_json, failures, options, show
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session
from delimiter.model import Event, EventKind

__all__ = ["events"]

_WORDS: Final[dict[EventKind, tuple[str, str]]] = {
    "limit_changed": ("limit changed", "held"),
    "over_quota": ("over quota", "bad"),
    "back_within_quota": ("back within quota", "good"),
}
_WIDEST_WORD: Final = max(len(words) for words, _ in _WORDS.values())
_SEQ: Final = 6


@click.command(epilog=options.examples("delimiter events", "delimiter events --after 120 --follow --json"))
@click.option(
    "--after",
    metavar="N",
    type=click.IntRange(min=0),
    help="Only what came after the event of this number.  [default: 0, all; with --follow, from now on]",
)
@click.option("--follow", is_flag=True, help="Go on: print each as it comes, until Ctrl-C.")
@options.of_store
@click.pass_obj
def events(session: Session, /, *, after: int | None, follow: bool) -> None:
    """List changes of limits, and who came to be over quota or back within it.

    Their numbers grow without gaps: whoever keeps the last one seen and asks for what comes after it misses
    nothing and sees nothing twice. With --json --follow each event is an object on a line of its own.
    """
    with session.opened() as quota:
        if follow:
            _follow(session, quota, after)
            return
        found = quota.events(after=after or 0)
        if session.as_json:
            for piece in as_json.streamed(found):
                click.echo(piece, nl=False)
            return
        empty = True
        for event in found:
            _print(session.out, event)
            empty = False
    if empty:
        session.out.print(Text("Nothing yet." if not after else f"Nothing after {after}.", style="quiet"))


def _print(out: Console, event: Event) -> None:
    words, style = _WORDS[event.kind]
    line = Text.assemble(
        f"{event.seq:>{_SEQ}}",
        (f"  {event.at:%Y-%m-%d %H:%M:%S}Z  ", "quiet"),
        (words.ljust(_WIDEST_WORD), style),
        f"  {event.resource} of {_whose(event)}: {_what(event)}",
    )
    # One line for one event, however wide the terminal: a program may read this too.
    out.print(line, soft_wrap=True)


def _whose(event: Event) -> str:
    if event.used is None and event.scope in ("project:*", "user:*"):
        return f"each {event.scope.partition(':')[0]}"
    kind, _, name = event.scope.partition(":")
    return f"{kind} {name}" if name else "the whole deployment"


def _what(event: Event) -> str:
    limit = show.amount(event.limit).plain
    used = "" if event.used is None else f"{event.used:,} used"
    if event.kind == "limit_changed":
        before = f"{limit}, was {show.amount(event.previous_limit)}"
        return f"{before} ({used})" if used else before
    return f"{used}, the limit is {limit}"


# --- following --------------------------------------------------------------------------------------------


class _Follower:
    """Prints each event in the subscription's thread, so that what was not printed was not handed over either.

    A reader that has gone, or a full disk, ends the command: printing again would be no use.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ended = threading.Event()
        self._error: Exception | None = None

    def __call__(self, event: Event) -> None:
        if self._ended.is_set():
            return
        try:
            if self._session.as_json:
                click.echo(as_json.line(event))
            else:
                _print(self._session.out, event)
        except Exception as error:
            self._error = error
            self._ended.set()

    def wait(self) -> None:
        self._ended.wait()
        if self._error is not None:
            raise self._error


class _Warnings(logging.Handler):
    """Tells people that the store does not answer for the time being; the subscription goes on trying."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.WARNING)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        message = failures.masked(record.getMessage(), secrets=self._session.secrets())
        if self._session.as_json:
            self._session.complain({"warning": message})
        else:
            self._session.err.print(Text(message, style="near"))


def _follow(session: Session, quota: Delimiter, after: int | None) -> None:
    follower = _Follower(session)
    warnings = _Warnings(session)
    log = logging.getLogger("delimiter")
    log.addHandler(warnings)
    try:
        with quota.subscribe(follower, after=after):
            follower.wait()
    finally:
        log.removeHandler(warnings)
