"""``usage``, ``claims``, and keeping the store in order: ``expire`` and ``prune``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

import click

from delimiter.cli import as_json, options, show
from delimiter.cli.claim_rows import ClaimRows
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session
from delimiter.model import ClaimState, Scope, Usage

__all__ = ["claims", "expire", "prune", "usage"]


@click.command(epilog=options.examples("delimiter usage", "delimiter usage --user john"))
@options.of_one_scope
@options.of_store
@click.pass_obj
def usage(session: Session, /, *, project: str | None, user: str | None) -> None:
    """Show what one project, one user, or the whole deployment uses.

    A project's usage includes all projects below it.
    """
    with session.opened() as quota:
        used = quota.usage(project=project, user=user)
        counted = quota.counted()
        if session.as_json:
            session.answer({name: _fields(usage, counted.get(name)) for name, usage in used.items()})
            return
        units = {resource.name: resource.unit for resource in quota.resources()}
        parent = project is not None and any(one.parent == project for one in quota.projects())
    if not used:
        session.out.print(show.nothing_defined(session.out))
        return
    scope = Scope.of(project=project, user=user)
    below = ", with all below it" if parent else ""
    session.out.print(show.title(f"Usage of {show.spoken(scope)}{below}", session.shown_url()))
    session.out.print()
    session.out.print(show.usage_table(used, units, counted))
    session.out.print()
    session.out.print(show.legend(session.out))
    for sentence in (show.counted_elsewhere(name, counted[name]) for name in used if name in counted):
        session.out.print(show.advice(session.out, sentence))


def _fields(usage: Usage, counted_from: str | None) -> Usage | dict[str, Any]:
    """Of a counted resource nobody but its service knows what is used; zeros would be a lie."""
    if counted_from is None:
        return usage
    unknown = dict.fromkeys(("used", "reserved", "available"))
    return {"limit": usage.limit, **unknown, "counted_from": counted_from}


@click.command(
    epilog=options.examples(
        "delimiter claims --user john",
        "delimiter claims --project acme --subtree --resource storage.gb --state expired",
    )
)
@click.option("--project", metavar="NAME", help="Only this project's.")
@click.option("--subtree", is_flag=True, help="And those of all projects below it.")
@click.option("--user", metavar="NAME", help="Only this user's.")
@click.option("--resource", metavar="NAME", help="Only those that use this resource.")
@click.option("--state", type=click.Choice(get_args(ClaimState)), help="Only those.  [default: what is live]")
@options.of_store
@click.pass_obj
def claims(
    session: Session, /, *, state: ClaimState | None, project: str | None, subtree: bool, **filters: Any
) -> None:
    """List claims in the order they were made, however many there are."""
    if subtree and project is None:
        raise click.UsageError("Below which project? --subtree goes with --project NAME.")
    with session.opened() as quota:
        found = quota.claims(state=state, project=project, subtree=subtree, **filters)
        if session.as_json:
            for piece in as_json.streamed(found):
                click.echo(piece, nl=False)
            return
        rows = ClaimRows(session.out)
        for claim in found:
            rows.print(claim)
    if not rows.printed:
        session.out.print(Text(f"No {state or 'live'} claims.", style="quiet"))


@click.command(epilog=options.examples("delimiter expire"))
@options.of_store
@click.pass_obj
def expire(session: Session) -> None:
    """Sweep away the reservations that ran out.

    They stopped counting when they ran out; this tidies up. Safe to run from cron, on several machines too.
    """
    with session.opened() as quota, session.busy("Sweeping …"):
        count = quota.expire_reservations()
    if session.as_json:
        session.answer({"expired": count})
        return
    session.out.print(show.done(session.out, f"{show.number_of(count, 'reservation')} swept"))


@click.command(
    epilog=options.examples("delimiter prune --older-than 30d", "delimiter prune --older-than 90d --events")
)
@click.option(
    "--older-than",
    metavar="TIME",
    required=True,
    type=options.DURATION,
    help="Ended, or happened, longer ago than this: 12h, 30d.",
)
@click.option("--events", is_flag=True, help="Forget events instead of claims.")
@options.of_store
@click.pass_obj
def prune(session: Session, /, *, older_than: timedelta, events: bool) -> None:
    """Forget claims that ended long ago, or events.

    Until then a repeated command with the same id is recognised, and a follower that was away finds the events.
    """
    with session.opened() as quota, session.busy("Pruning …"):
        count = (quota.prune_events if events else quota.prune)(older_than=older_than)
    if session.as_json:
        session.answer({"pruned": count})
        return
    what = show.number_of(count, "event" if events else "ended claim")
    session.out.print(show.done(session.out, f"{what} forgotten"))
