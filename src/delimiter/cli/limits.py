"""``limits``: definitions, projects and limits as a file that is reviewed, versioned and applied."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from delimiter import Conflict, Delimiter, InvalidRequest, Overage
from delimiter.cli import failures, options, show
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session

if TYPE_CHECKING:  # the reader of files is loaded by those commands that read or write one
    from delimiter.edits import Edit
    from delimiter.limits_file import Difference, Document

__all__ = ["limits"]

#: The name of a file that is no file: what comes in at the one end or goes out at the other.
_PIPE: Final = "-"
#: Bytes that are read at most; the reader of the file refuses long before.
_LARGEST: Final = 64_000_000
#: Looks at a store that others edit meanwhile.
_LOOKS: Final = 5

_SIGNS: Final = (("+", "good", "to add"), ("~", "near", "to change"), ("-", "bad", "to remove"))


@click.group(
    epilog=options.examples("delimiter limits export limits.yaml", "delimiter limits plan limits.yaml")
)
def limits() -> None:
    """Keep definitions, projects and limits in a file."""


@limits.command(epilog=options.examples("delimiter limits export > limits.yaml"))
@click.argument("file", required=False, default=_PIPE)
@click.option("--force", is_flag=True, help="Write over a file that is there; its comments are lost.")
@options.of_store
@click.pass_obj
def export(session: Session, /, *, file: str, force: bool) -> None:
    """Write what is set now as a file (YAML), to the output if no FILE is named.

    It names everything: applied again at once it changes nothing.
    """
    import yaml

    from delimiter.limits_file import render

    if file != _PIPE and not force and Path(file).is_file():
        raise click.UsageError(f"{file} is there already; --force writes over it, and its comments are lost")
    with session.opened() as quota:
        version, present = _present(quota)
    text = render(present)
    if file != _PIPE:
        with _of_file(file):
            Path(file).write_text(text, encoding="utf-8")
        if session.as_json:
            session.answer({"written": file, "version": version})
        else:
            session.out.print(show.done(session.out, f"{file} is written"))
    elif session.as_json:
        session.answer(yaml.safe_load(text))
    else:
        click.echo(text, nl=False)


@limits.command(epilog=options.examples("delimiter limits plan limits.yaml"))
@click.argument("file")
@options.of_store
@click.pass_obj
def plan(session: Session, /, *, file: str) -> None:
    """Show what applying FILE would change, and who would be over quota. Changes nothing.

    What would be refused is refused here too, with the same exit status.
    """
    document = _read(file)
    with session.opened() as quota:
        planned = _planned(quota, document, _shower(session))
    if session.as_json:
        session.answer(planned.fields())
    else:
        _say(session, planned, tried=True)


@limits.command(
    epilog=options.examples(
        "delimiter limits apply limits.yaml", "delimiter limits apply limits.yaml --yes --if-version 17"
    )
)
@click.argument("file")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--create", is_flag=True, help="Make the store, or upgrade its tables, where necessary.")
@options.tried
@options.of_store
@click.pass_obj
def apply(
    session: Session,
    /,
    *,
    file: str,
    yes: bool,
    create: bool,
    dry_run: bool,
    if_version: int | None,
) -> int:
    """Make the store what FILE says: all of it, or nothing. Again: nothing.

    It shows what `limits plan` shows, and asks. What somebody else changed in between is never overwritten.
    A section that FILE does not have is left alone; what a section it has does not name is removed (but
    resources never are).
    """
    if not (yes or dry_run):
        _must_be_able_to_ask(session, file)
    document = _read(file)
    with session.opened(create=create) as quota:
        planned = _planned(quota, document, _shower(session), if_version)
        applied = False
        if not session.as_json:
            _say(session, planned, tried=True)
        if planned.edits and not dry_run:
            if not (yes or click.confirm("Apply it?", err=True)):
                session.out.print(Text("Nothing was changed."))
                return failures.REFUSED
            planned.over_quota = _edited(quota, planned, file)
            applied = True
    if session.as_json:
        session.answer({**planned.fields(), "applied": applied})
    elif applied:
        count = show.number_of(len(planned.changes), "change")
        session.out.print(show.done(session.out, f"{count} applied"))
    elif planned.edits:
        session.out.print(Text("This was only tried, nothing is changed."))
    return failures.DONE


@limits.command(epilog=options.examples("delimiter limits schema > limits.schema.json"))
@options.of_store
@click.pass_obj
def schema(session: Session) -> None:
    """Print the JSON schema of such a file, for editors. Needs no store."""
    from delimiter.limits_file import schema as of_file

    session.answer(of_file())


def _must_be_able_to_ask(session: Session, file: str) -> None:
    if session.as_json or file == _PIPE or not session.can_ask():
        raise click.UsageError("Nobody can be asked here: give --yes to apply it, or --dry-run to try it.")


# --- what is planned --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """What separates a file from the store as it was at ``version``."""

    version: int
    changes: list[Difference]
    edits: list[Edit]
    over_quota: list[Overage]

    def fields(self) -> dict[str, Any]:
        return {"version": self.version, "changes": self.changes, "over_quota": self.over_quota}


def _planned(
    quota: Delimiter,
    document: Document,
    shown: Callable[[Sequence[Difference]], None],
    if_version: int | None = None,
) -> _Plan:
    """Compare and try it out, on one state of the store. What is refused is refused after it was ``shown``."""
    from delimiter import limits_file

    for look in range(_LOOKS):
        version, present = _present(quota)
        changes = limits_file.difference(document, present)
        edits = limits_file.edits(document, present)
        wanted = version if if_version is None else if_version
        try:
            with failures.of_place():
                over_quota = quota.edit(edits, dry_run=True, if_version=wanted)
        except Conflict as error:
            # Somebody was quicker between the two. The one who said which version it must be is told.
            if error.retryable or if_version is not None or look == _LOOKS - 1:
                raise
            continue
        except Exception:
            shown(changes)
            raise
        return _Plan(version, changes, edits, over_quota)
    raise AssertionError("the last look answers or raises")  # pragma: no cover


def _edited(quota: Delimiter, planned: _Plan, file: str) -> list[Overage]:
    try:
        with failures.of_place():
            return quota.edit(planned.edits, if_version=planned.version)
    except Conflict as error:
        if not error.retryable:
            again = f"delimiter limits plan {failures.quoted(file)}"
            error.add_note(f"Nothing was changed. `{again}` shows what has come of it now.")
        raise


def _present(quota: Delimiter) -> tuple[int, Document]:
    """Everything as it is at one version."""
    from delimiter.limits_file import Document

    for _ in range(_LOOKS):
        version = quota.version()
        document = Document.of(
            resources=quota.resources(),
            projects=quota.projects(),
            own_limits=quota.own_limits(),
            overbooking=quota.overbooking(),
        )
        if quota.version() == version:
            return version, document
    raise Conflict("others edit the limits all the time")


# --- files ------------------------------------------------------------------------------------------------


@contextmanager
def _of_file(file: str) -> Iterator[None]:
    """A file that cannot be read or written is bad input: the message names it and says why."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror or error}") from error


def _read(file: str) -> Document:
    from delimiter.limits_file import parse

    name = "standard input" if file == _PIPE else file
    with _of_file(name):
        if file == _PIPE:
            data = _bounded(sys.stdin.buffer)
        else:
            with Path(file).open("rb") as stream:
                data = _bounded(stream)
    if len(data) > _LARGEST:
        raise InvalidRequest(f"{name} is larger than {_LARGEST:,} bytes; a file of limits is not")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"{name}:{line}: this is no text in UTF-8") from error
    return parse(text, name=name)


def _bounded(stream: IO[bytes]) -> bytes:
    return stream.read(_LARGEST + 1)


# --- for people -------------------------------------------------------------------------------------------


def _shower(session: Session) -> Callable[[Sequence[Difference]], None]:
    """Shows the changes above the error that they end in; programs get the error alone."""

    def shown(changes: Sequence[Difference]) -> None:
        if not session.as_json and changes:
            _say_changes(session, changes)
            sys.stdout.flush()

    return shown


def _say(session: Session, planned: _Plan, *, tried: bool) -> None:
    out = session.out
    if not planned.changes:
        out.print(show.done(out, f"nothing to change (version {planned.version})"))
        return
    _say_changes(session, planned.changes)
    if planned.over_quota:
        out.print(Text(show.over_it(tried=tried), style="near"))
        out.print(show.overage_table(planned.over_quota))
        out.print()
    out.print(Text(f"{_summary(planned.changes)} (version {planned.version})"))


def _say_changes(session: Session, changes: Sequence[Difference]) -> None:
    out = session.out
    out.print(show.title("What would change", session.shown_url()))
    out.print()
    styles = {sign: style for sign, style, _ in _SIGNS}
    for section, of_section in groupby(changes, key=lambda one: one.section):
        out.print(Text(section, style="heading"))
        for one in of_section:
            # One change is one line, however wide the terminal: it is read like a diff.
            out.print(Text(f"  {one}", style=styles[_sign(one)]), soft_wrap=True)
        out.print()


def _summary(changes: Sequence[Difference]) -> str:
    counts = ((len([one for one in changes if _sign(one) == sign]), words) for sign, _, words in _SIGNS)
    return ", ".join(f"{count:,} {words}" for count, words in counts if count)


def _sign(change: Difference) -> str:
    if change.before is None:
        return "+"
    return "-" if change.after is None else "~"
