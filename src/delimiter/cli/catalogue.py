"""``resource`` and ``limit``: what is counted, and how much of it may be used."""

from __future__ import annotations

from typing import Any

import click

from delimiter.cli import options, show, units
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session
from delimiter.model import Overage, Scope

__all__ = ["limit", "resource"]


@click.group(epilog=options.examples("delimiter resource define storage.gb --unit GB --user-max 20TB"))
def resource() -> None:
    """Define what is counted."""


@resource.command(
    epilog=options.examples(
        "delimiter resource define database.instances --max 2000 --user-max 25",
        "delimiter resource define storage.gb --unit GB --user-max 20TB",
    )
)
@click.argument("name")
@click.option(
    "--max", metavar="N", default="-1", help="The most in the whole deployment.  [default: unlimited]"
)
@click.option("--min", metavar="N", default="0", help="The least in the whole deployment.  [default: 0]")
@click.option(
    "--project-max", metavar="N", default="-1", help="The most for each project.  [default: unlimited]"
)
@click.option("--project-min", metavar="N", default="0", help="The least for each project.  [default: 0]")
@click.option("--user-max", metavar="N", default="-1", help="The most for each user.  [default: unlimited]")
@click.option("--user-min", metavar="N", default="0", help="The least for each user.  [default: 0]")
@click.option("--unit", metavar="UNIT", default="", help="What one of it is: GB, MiB, instances …")
@click.option(
    "--service", metavar="NAME", help="Whose it is.  [default: the name's part before the first dot]"
)
@click.option("--description", metavar="TEXT", default="", help="For people.")
@options.of_store
@click.pass_obj
def define(
    session: Session, /, *, name: str, unit: str, service: str | None, description: str, **bounds: str
) -> None:
    """Define a resource, or change its definition; makes the store if there is none.

    Limits that were set with `delimiter limit set` stay as they are.
    """
    numbers = {
        key: (units.limit if key.endswith("max") else units.amount)(text, resource=name, unit=unit)
        for key, text in bounds.items()
    }
    with session.opened(create=True) as quota:
        quota.define_resource(name, service=service, unit=unit, description=description, **numbers)
        defined = next(resource for resource in quota.resources() if resource.name == name)
    if session.as_json:
        session.answer(defined)
        return
    session.out.print(show.done(session.out, f"{name} is defined"))
    session.out.print(show.resource_table([defined]))


@resource.command(epilog=options.examples("delimiter resource undefine database.instances"))
@click.argument("name")
@options.of_store
@click.pass_obj
def undefine(session: Session, /, *, name: str) -> None:
    """Forget a resource and every limit of it. Refused while it is claimed."""
    with session.opened() as quota:
        quota.undefine_resource(name)
    if session.as_json:
        session.answer({"undefined": name})
        return
    session.out.print(show.done(session.out, f"{name} is forgotten, with every limit of it"))


@resource.command("list", epilog=options.examples("delimiter resource list"))
@options.of_store
@click.pass_obj
def list_resources(session: Session) -> None:
    """List what is defined, with the limits that the services defined."""
    with session.opened() as quota:
        found = quota.resources()
    if session.as_json:
        session.answer(found)
    elif found:
        session.out.print(show.resource_table(found))
    else:
        session.out.print(show.nothing_defined(session.out))


@click.group(epilog=options.examples("delimiter limit set storage.gb --project acme --max 20TB"))
def limit() -> None:
    """Set what one project, one user or the whole deployment may use."""


@limit.command(
    "set",
    epilog=options.examples(
        "delimiter limit set database.instances --user amrith --max 2",
        "delimiter limit set storage.gb --project acme --max 20TB",
    ),
)
@click.argument("name")
@options.of_one_scope
@click.option(
    "--max", "most", metavar="N", help="The most: a number, an amount like 20TB, or unlimited (-1)."
)
@click.option("--min", "least", metavar="N", help="The least that releasing must leave.")
@options.tried
@options.of_store
@click.pass_obj
def set_limit(
    session: Session,
    /,
    *,
    name: str,
    project: str | None,
    user: str | None,
    most: str | None,
    least: str | None,
    dry_run: bool,
    if_version: int | None,
) -> None:
    """Set a limit of one project, one user, or (neither named) the whole deployment.

    It holds from the next claim on. Nothing is taken from those who are over it now; they are listed.
    """
    if most is None and least is None:
        raise click.UsageError("Set what? Give --max, --min or both.")
    with session.opened() as quota:
        change: dict[str, Any] = {}
        if most is not None:
            change["max"] = options.read_limit(quota, name, most)
        if least is not None:
            change["min"] = options.read_floor(quota, name, least)
        overages = quota.update_limits(
            name, project=project, user=user, dry_run=dry_run, if_version=if_version, **change
        )
    words = [
        ("at most " if key == "max" else "at least ") + str(show.amount(value))
        for key, value in change.items()
    ]
    words = ["unlimited" if word == "at most unlimited" else word for word in words]
    _say_limit(session, name, Scope.of(project=project, user=user), ", ".join(words), overages, tried=dry_run)


@limit.command(
    epilog=options.examples(
        "delimiter limit unset database.instances --user amrith",
        "delimiter limit unset storage.gb --project acme --max",
    )
)
@click.argument("name")
@options.of_one_scope
@click.option("--max", "most", is_flag=True, help="Only the maximum.")
@click.option("--min", "least", is_flag=True, help="Only the minimum.")
@options.tried
@options.of_store
@click.pass_obj
def unset(
    session: Session,
    /,
    *,
    name: str,
    project: str | None,
    user: str | None,
    most: bool,
    least: bool,
    dry_run: bool,
    if_version: int | None,
) -> None:
    """Remove a limit that was set: the definition's holds again."""
    change: dict[str, Any] = {key: None for key, asked in (("max", most), ("min", least)) if asked}
    change = change or {"max": None, "min": None}
    with session.opened() as quota:
        overages = quota.update_limits(
            name, project=project, user=user, dry_run=dry_run, if_version=if_version, **change
        )
    scope = Scope.of(project=project, user=user)
    _say_limit(session, name, scope, "back to the definition", overages, tried=dry_run)


def _say_limit(
    session: Session, name: str, scope: Scope, words: str, overages: list[Overage], *, tried: bool
) -> None:
    if session.as_json:
        session.answer(overages)
        return
    sentence = f"{name} of {show.spoken(scope)}: {words}"
    if tried:
        sentence += "; this was only tried, nothing is changed"
    session.out.print(show.done(session.out, sentence))
    if overages:
        session.out.print(Text(show.over_it(tried=tried), style="near"))
        session.out.print(show.overage_table(overages))


@limit.command("show", epilog=options.examples("delimiter limit show --user amrith"))
@options.of_one_scope
@options.of_store
@click.pass_obj
def show_limits(session: Session, /, *, project: str | None, user: str | None) -> None:
    """Show the limits in force for one project, one user, or the whole deployment."""
    with session.opened() as quota:
        limits = quota.limits(project=project, user=user)
        if session.as_json:
            session.answer(limits)
            return
        defined = quota.resources()
    if not defined:
        session.out.print(show.nothing_defined(session.out))
        return
    scope = Scope.of(project=project, user=user)
    defaults = {resource.name: resource.default(scope.kind)[0] for resource in defined}
    session.out.print(show.title(f"Limits of {show.spoken(scope)}", session.shown_url()))
    session.out.print()
    session.out.print(
        show.limits_table(limits, defaults, {resource.name: resource.unit for resource in defined})
    )
