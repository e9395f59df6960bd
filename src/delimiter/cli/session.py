"""One run of the command line: which store, which form of output, and where it goes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.theme import Theme

from delimiter import Delimiter
from delimiter.cli import as_json

if TYPE_CHECKING:
    from delimiter.cli.reach import Facts  # loads SQLAlchemy, which `--help` need not wait for

__all__ = ["Session"]

#: A library waits for a busy store; somebody at a prompt would rather be told.
DEFAULT_TIMEOUT: Final = 5.0

#: Width of what goes to a file or a pipe: wide enough that a table's cells are not broken over lines.
_PIPE_WIDTH: Final = 200

_THEME: Final = Theme(
    {
        "good": "green",
        "near": "yellow",
        "bad": "red",
        "held": "cyan",
        "quiet": "dim",
        "heading": "bold",
        "name": "bold",
        "code": "cyan",
    }
)

_NO_STORE: Final = (
    "Which store? Name it with --store URL, or set DELIMITER_STORE.\n"
    "For example: --store sqlite:///quota.db, or --store postgresql+psycopg://user@host/name"
)


class Session:
    """What the options say, and the two consoles. ``out`` carries results, ``err`` errors and progress."""

    def __init__(self) -> None:
        #: What ``--store`` says; the environment's counts where it says nothing.
        self.named_store: str | None = None
        self.as_json = False
        self.timeout = DEFAULT_TIMEOUT
        self.schema: str | None = None
        self.table_prefix = "delimiter_"
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)

    # -- the store ----------------------------------------------------------------------------------------------

    @property
    def store(self) -> str | None:
        return self.named_store or os.environ.get("DELIMITER_STORE") or None

    def url(self) -> str:
        if not self.store:
            raise click.UsageError(_NO_STORE)
        return self.store

    def shown_url(self) -> str:
        from delimiter.cli import reach

        return reach.shown(self.url())

    def secrets(self) -> list[str]:
        from delimiter.cli import reach

        return reach.secrets_of(self.store) if self.store else []

    def facts(self, *, may_be_empty: bool = False) -> Facts:
        """A first look, which fails soon and says why."""
        from delimiter.cli import reach

        url = self.url()
        if not reach.outlives(url):
            return reach.Facts(url.partition(":")[0], None)
        return reach.reach(
            url,
            timeout=self.timeout,
            table_prefix=self.table_prefix,
            schema=self.schema,
            may_be_empty=may_be_empty,
        )

    @contextmanager
    def opened(self, *, create: bool = False) -> Iterator[Delimiter]:
        """The store. Only ``create`` makes or upgrades tables: a misspelt URL must not become a new, empty store."""
        with self.busy("Connecting …"):
            self.facts(may_be_empty=create)
        with self.handle(create=create) as quota:
            yield quota

    def handle(self, *, create: bool = False) -> Delimiter:
        """The library on this store, without the first look."""
        from delimiter.cli import reach

        return Delimiter(
            self.url(),
            create=create or not reach.outlives(self.url()),
            schema=self.schema,
            table_prefix=self.table_prefix,
            timeout=self.timeout,
        )

    def can_ask(self) -> bool:
        """Whether somebody sits at the other end."""
        return sys.stdin.isatty()

    # -- output -------------------------------------------------------------------------------------------------

    def answer(self, value: Any) -> None:
        """The result, as JSON."""
        click.echo(as_json.dumped(value))

    def complain(self, value: Any) -> None:
        """The error, as JSON, on the error stream: what is on the other one is always a result."""
        click.echo(json.dumps(as_json.plain(value)), err=True)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Shows that something is going on, to people only."""
        if self.as_json or not self.err.is_terminal:
            yield
            return
        with self.err.status(text, spinner="dots"):
            yield


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the program here; how it ends is decided where all its endings are."""
        raise BrokenPipeError


def _console(stream: Any) -> Console:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(
            errors="backslashreplace"
        )  # a name that the terminal cannot show is no reason to fail
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    width = None if terminal or "COLUMNS" in os.environ else _PIPE_WIDTH
    return _Console(file=stream, theme=_THEME, highlight=False, emoji=False, width=width, soft_wrap=False)
