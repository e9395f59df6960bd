"""The command itself: its sub-commands, and how every run of it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from delimiter import DelimiterError, __version__
from delimiter.cli import (
    benching,
    catalogue,
    claiming,
    events,
    explaining,
    failures,
    limits,
    options,
    projects,
    reconciling,
    show,
    upkeep,
)
from delimiter.cli.demo import demo
from delimiter.cli.doctor import doctor
from delimiter.cli.failures import CheckFailed, Failure
from delimiter.cli.session import Session

__all__ = ["main"]

_SECTIONS: Final = (
    ("See it work", ("demo",)),
    ("What may be used", ("resource", "limit", "limits", "project")),
    ("Ask", ("usage", "check", "claims", "events")),
    ("Claim and give back", ("claim", "reserve", "provision", "renew", "resize", "transfer", "release")),
    ("Upkeep", ("expire", "prune", "reconcile", "adopt", "doctor", "bench")),
)

#: As a shell reports a program that was stopped by Ctrl-C or by the end of its reader.
_INTERRUPTED: Final = 130
_READER_GONE: Final = 141
#: Nothing that this program knows of (EX_SOFTWARE of sysexits.h).
_OWN_FAULT: Final = 70


class Door(click.Group):
    """A group that ends every run with a documented exit status and never with a traceback."""

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        session = extra.setdefault("obj", Session())
        # An error in parsing comes before the option is seen.
        session.as_json = "--json" in given
        try:
            status = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except Exception as error:
            status = _ended(error, session)
        except KeyboardInterrupt:
            status = _INTERRUPTED
        if not standalone_mode:
            return status
        sys.exit(status or 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # One without a number: click ends the program itself, with status 1, where it finds EPIPE.
            raise BrokenPipeError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = [(title, [(name, self.commands[name]) for name in names]) for title, names in _SECTIONS]
        width = max(len(name) for _, commands in shown for name, _ in commands)
        for title, commands in shown:
            with formatter.section(title):
                rows = [(name.ljust(width), command.get_short_help_str(100)) for name, command in commands]
                formatter.write_dl(rows)


def _ended(error: Exception, session: Session) -> int:
    """Says what went wrong; returns the exit status."""
    match error:
        case BrokenPipeError():
            # `delimiter claims | head` is no error. Python would complain when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return _READER_GONE
        case click.exceptions.Abort():
            return _INTERRUPTED
        case click.exceptions.NoArgsIsHelpError() if not session.as_json:
            error.show()
            return failures.WRONG
        case click.ClickException():
            failure = _wrong_usage(error, session)
        case DelimiterError() | CheckFailed():
            failure = failures.failure_of(error, secrets=session.secrets())
        case _:
            failure = _own_fault(error, session)
    (_say_as_json if session.as_json else _say)(session, failure)
    return failure.status


def _wrong_usage(error: click.ClickException, session: Session) -> Failure:
    context = getattr(error, "ctx", None)
    advice = f"`{context.command_path} --help` explains it." if context is not None else ""
    message = failures.masked(error.format_message(), secrets=session.secrets())
    return Failure("UsageError", message, failures.WRONG, advice)


def _own_fault(error: Exception, session: Session) -> Failure:
    if os.environ.get("DELIMITER_TRACEBACK"):
        raise error
    message = failures.masked(f"{type(error).__name__}: {error}", secrets=session.secrets())
    advice = "This is a fault of Delimiter. `DELIMITER_TRACEBACK=1` shows where; please report it."
    return Failure("InternalError", message, _OWN_FAULT, advice)


def _say_as_json(session: Session, failure: Failure) -> None:
    session.complain(failure.as_json())


def _say(session: Session, failure: Failure) -> None:
    session.err.print(show.refused(session.err, failure.message))
    if failure.violations:
        below = failure.kind == "BelowMinimum"
        session.err.print(show.violation_table(failure.violations, below=below))
    if failure.advice:
        session.err.print(show.advice(session.err, failure.advice))


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@options.of_group
@click.version_option(__version__, prog_name="delimiter", message="%(prog)s %(version)s")
def main() -> None:
    """Quotas that cannot be oversubscribed.

    Name the store with --store or in DELIMITER_STORE, for example sqlite:///quota.db. New here?
    Run `delimiter demo`.

    Exit status: 0 done, 1 refused, 2 wrong usage or bad input, 3 store not reachable.
    """


_COMMANDS: Final[tuple[click.Command, ...]] = (
    demo,
    doctor,
    benching.bench,
    catalogue.resource,
    catalogue.limit,
    limits.limits,
    projects.project,
    upkeep.usage,
    explaining.check,
    upkeep.claims,
    events.events,
    upkeep.expire,
    upkeep.prune,
    reconciling.reconcile,
    reconciling.adopt,
    claiming.claim,
    claiming.reserve,
    claiming.provision,
    claiming.renew,
    claiming.resize,
    claiming.transfer,
    claiming.release,
)
for _command in _COMMANDS:
    main.add_command(_command)
