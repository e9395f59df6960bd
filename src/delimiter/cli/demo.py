"""``demo``: the command that plays :mod:`delimiter.demo`."""

from __future__ import annotations

import click

from delimiter.cli import options
from delimiter.cli.session import Session

__all__ = ["demo"]

_STORE = "sqlite:///delimiter-demo.db"


@click.command(epilog=options.examples("delimiter demo"))
@click.option("--fast", is_flag=True, help="Do not pause between the scenes.")
@options.of_store
@click.pass_context
def demo(context: click.Context, /, *, fast: bool) -> None:
    """See it work: a cluster is reserved, raced for, refused, provisioned, resized and released.

    Every number on the way is checked; if one is wrong, the exit status is 1. The store is
    ./delimiter-demo.db unless --store names another; DELIMITER_STORE is not used. An earlier demo in it is
    cleared away, anything else is left alone and the demo refused.
    """
    from delimiter.demo import play  # the story is not needed by any other command

    session = context.ensure_object(Session)
    session.named_store = session.named_store or _STORE
    play(session, pauses=not fast)
