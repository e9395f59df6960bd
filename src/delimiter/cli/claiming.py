"""``claim``, ``reserve`` and what becomes of a claim afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import click

from delimiter import Claim
from delimiter.cli import options, show
from delimiter.cli.session import Session
from delimiter.model import ClaimState

__all__ = ["claim", "provision", "release", "renew", "reserve", "resize", "transfer"]


def _say(session: Session, claim: Claim, sentence: str) -> None:
    if session.as_json:
        session.answer(claim)
        return
    session.out.print(show.done(session.out, sentence))
    session.out.print(show.claim_lines(claim))


@click.command(
    epilog=options.examples(
        "delimiter claim database.instances=1 storage.gb=1TB --user john",
        "delimiter claim database.instances=1 --project acme --parent cluster-1",
    )
)
@options.amounts
@options.owner
@options.identity
@options.of_store
@click.pass_obj
def claim(session: Session, /, *, amounts: tuple[str, ...], **given: Any) -> None:
    """Claim all of it for an owner, or nothing."""
    with session.opened() as quota:
        made = quota.claim(options.read_amounts(quota, amounts), **given)
    _say(session, made, "claimed")


@click.command(epilog=options.examples("delimiter reserve database.instances=1 --user john --expires-in 10m"))
@options.amounts
@click.option(
    "--expires-in",
    metavar="TIME",
    required=True,
    type=options.DURATION,
    help="How long it holds: 90s, 10m, 2h.",
)
@options.owner
@options.identity
@options.of_store
@click.pass_obj
def reserve(session: Session, /, *, amounts: tuple[str, ...], expires_in: timedelta, **given: Any) -> None:
    """Claim it for something that is still being made: gone by itself unless provisioned in time."""
    with session.opened() as quota:
        made = quota.reserve(options.read_amounts(quota, amounts), expires_in=expires_in, **given)
    _say(session, made, "reserved")


@click.command(epilog=options.examples("delimiter provision node-1 --external-id i-4711"))
@click.argument("id")
@click.option("--external-id", metavar="ID", help="The real thing's own id; it names the claim as well.")
@options.of_store
@click.pass_obj
def provision(session: Session, /, *, id: str, external_id: str | None) -> None:
    """Turn a reservation into an allocation: the thing exists now."""
    with session.opened() as quota:
        _say(session, quota.provision(id, external_id=external_id), "provisioned")


@click.command(epilog=options.examples("delimiter renew node-1 --expires-in 10m"))
@click.argument("id")
@click.option(
    "--expires-in",
    metavar="TIME",
    required=True,
    type=options.DURATION,
    help="How long from now: 90s, 10m, 2h.",
)
@options.of_store
@click.pass_obj
def renew(session: Session, /, *, id: str, expires_in: timedelta) -> None:
    """Give a reservation more time."""
    with session.opened() as quota:
        _say(session, quota.renew(id, expires_in=expires_in), "renewed")


@click.command(epilog=options.examples("delimiter resize volume-3 storage.gb=2TB"))
@click.argument("id")
@options.amounts
@options.force
@options.of_store
@click.pass_obj
def resize(session: Session, /, *, id: str, amounts: tuple[str, ...], force: bool) -> None:
    """Give a claim its whole new content: a resource that is left out is freed."""
    with session.opened() as quota:
        _say(session, quota.resize(id, options.read_amounts(quota, amounts), force=force), "resized")


@click.command(epilog=options.examples("delimiter transfer cluster-1 --project acme --user ann"))
@click.argument("id")
@options.owner
@options.of_store
@click.pass_obj
def transfer(session: Session, /, *, id: str, project: str | None, user: str | None) -> None:
    """Give a claim, with everything below it, to another owner: exactly the one named."""
    with session.opened() as quota:
        _say(session, quota.transfer(id, project=project, user=user), "transferred")


@click.command(epilog=options.examples("delimiter release cluster-1"))
@click.argument("id")
@options.force
@options.of_store
@click.pass_obj
def release(session: Session, /, *, id: str, force: bool) -> None:
    """Give back a claim with everything below it.

    By its own id, or by the real thing's. Releasing what was released before is harmless.
    """
    with session.opened() as quota:
        # Only for the sentence: what is released is decided by the release itself.
        before = quota.get_claim(id)
        quota.release(id, force=force)
    if session.as_json:
        session.answer({"released": id})
        return
    session.out.print(show.done(session.out, f"{id} {_RELEASED[before.state]}"))


_RELEASED: Final[dict[ClaimState, str]] = {
    "reserved": "is released, with everything below it",
    "provisioned": "is released, with everything below it",
    "expired": "had run out already; whatever was left below it is released",
    "released": "was released already; nothing has changed",
}
