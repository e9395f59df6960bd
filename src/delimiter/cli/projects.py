"""``project``: the tree of projects, and what is used in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, get_args

import click

from delimiter import Delimiter
from delimiter.cli import failures, options, show
from delimiter.cli.forest import Forest, forest_table
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session
from delimiter.errors import UnknownResource
from delimiter.model import Project
from delimiter.rules import Overbooking

__all__ = ["project"]

_POLICIES: Final[tuple[Overbooking, ...]] = get_args(Overbooking)
_MEANINGS: Final[Mapping[Overbooking, str]] = {
    "allowed": "the limits of children may add up to more than their parent's",
    "forbidden": "the limits of children may not add up to more than their parent's",
}


@click.group(epilog=options.examples("delimiter project add web --parent acme"))
def project() -> None:
    """Arrange projects in a tree."""


@project.command(
    epilog=options.examples("delimiter project add acme", "delimiter project add web --parent acme")
)
@click.argument("id")
@click.option("--parent", metavar="ID", help="The project it lies below.  [default: none, it is a root]")
@options.of_store
@click.pass_obj
def add(session: Session, /, *, id: str, parent: str | None) -> None:
    """Give a project its place in the tree. Again: harmless.

    What it holds already counts for its ancestors from now on. Exit status 1 if one of them has no room.
    """
    with session.opened() as quota, failures.of_place():
        quota.add_project(id, parent=parent)
    _say_place(session, Project(id, parent))


@project.command(
    epilog=options.examples("delimiter project move web --parent globex", "delimiter project move web --root")
)
@click.argument("id")
@click.option("--parent", metavar="ID", help="The project it is to lie below.")
@click.option("--root", is_flag=True, help="Below none.")
@options.of_store
@click.pass_obj
def move(session: Session, /, *, id: str, parent: str | None, root: bool) -> None:
    """Put a project, with all below it, under another parent.

    Its usage is charged to the new ancestors. Exit status 1 if one of them has no room; then nothing is changed.
    """
    if root == (parent is not None):
        raise click.UsageError("Where to? Give --parent ID or --root, one of them.")
    with session.opened() as quota, failures.of_place():
        quota.move_project(id, parent=parent)
    _say_place(session, Project(id, parent))


def _say_place(session: Session, placed: Project) -> None:
    if session.as_json:
        session.answer(placed)
        return
    where = "a root of the tree" if placed.parent is None else f"below {placed.parent}"
    session.out.print(show.done(session.out, f"project {placed.id} is {where}"))


@project.command(epilog=options.examples("delimiter project remove web"))
@click.argument("id")
@options.of_store
@click.pass_obj
def remove(session: Session, /, *, id: str) -> None:
    """Take a project out of the tree, and its own limits with it.

    Refused while it holds claims or has projects below it.
    """
    with session.opened() as quota:
        quota.remove_project(id)
    if session.as_json:
        session.answer({"removed": id})
        return
    session.out.print(show.done(session.out, f"project {id} is removed, with its own limits"))


@project.command(
    epilog=options.examples("delimiter project overbooking", "delimiter project overbooking forbidden")
)
@click.argument("policy", metavar="[allowed|forbidden]", type=click.Choice(_POLICIES), required=False)
@options.of_store
@click.pass_obj
def overbooking(session: Session, /, *, policy: Overbooking | None) -> None:
    """Say, or show, whether children may be promised more than their parent has.

    Forbidden, every change of limits or of the tree after which they would is refused, this one too.
    """
    with session.opened() as quota:
        if policy is not None:
            quota.set_overbooking(policy)
        in_force = quota.overbooking()
    if session.as_json:
        session.answer({"overbooking": in_force})
        return
    sentence = f"overbooking is {in_force}: {_MEANINGS[in_force]}"
    session.out.print(Text(sentence) if policy is None else show.done(session.out, sentence))


# --- the tree ---------------------------------------------------------------------------------------------


@project.command(
    epilog=options.examples(
        "delimiter project tree", "delimiter project tree acme --resource storage.gb --depth 1"
    )
)
@click.argument("top", metavar="[PROJECT]", required=False)
@click.option("--resource", "names", metavar="NAME", multiple=True, help="Only this resource; repeatable.")
@click.option("--depth", metavar="N", type=click.IntRange(min=0), help="Only so many levels below the top.")
@options.of_store
@click.pass_obj
def tree(session: Session, /, *, top: str | None, names: tuple[str, ...], depth: int | None) -> None:
    """Show every project's usage against its limits; each includes all below it."""
    with session.opened() as quota:
        found = quota.tree()
        _known(quota, names)
        policy = quota.overbooking()
        counted = quota.counted()
    forest = Forest(found, names)
    shown = forest.cut(forest.roots if top is None else [forest.find(top)], depth)
    if session.as_json:
        session.answer(shown)
        return
    if not shown:
        advice = (
            "There are no projects yet. Add one: `delimiter project add ID`; a claim of one makes it a root."
        )
        session.out.print(show.advice(session.out, advice))
        return
    title = "Projects" if top is None else f"Project {top}, with all below it"
    session.out.print(show.title(title, session.shown_url()))
    session.out.print()
    session.out.print(forest_table(session.out, forest, shown, every=bool(names)))
    session.out.print()
    session.out.print(show.legend(session.out))
    session.out.print(Text(f"Overbooking is {policy}: {_MEANINGS[policy]}.", style="quiet"))
    for name, table in counted.items():
        session.out.print(show.advice(session.out, show.counted_elsewhere(name, table)))


def _known(quota: Delimiter, names: Sequence[str]) -> None:
    known = {resource.name for resource in quota.resources()} if names else set()
    for name in names:
        if name not in known:
            raise UnknownResource(f"no resource {name!r} is defined")
