"""``check``: would it be admitted now, and if not, where is it stuck and who could make room?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table

from delimiter import Delimiter, OverLimit
from delimiter.cli import failures, options, show
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session
from delimiter.cli.trees import Branch, drawn
from delimiter.model import UNLIMITED, Consumer, Explanation, Level, Scope, Usage

__all__ = ["check"]

_ADMITTED: Final = "it would be admitted now"


@click.command(epilog=options.examples("delimiter check database.instances=2 storage.gb=1TB --user john"))
@options.amounts
@options.owner
@click.option("--brief", is_flag=True, help="Only what the owner may be told: nobody else's numbers.")
@options.of_store
@click.pass_obj
def check(
    session: Session, /, *, amounts: tuple[str, ...], project: str | None, user: str | None, brief: bool
) -> int:
    """Ask whether a claim would be admitted now, and why. Changes nothing.

    For operators: every level it is charged to, where there is least room, who holds most there, and when
    reservations that run out make room. Exit status 1 if it would be refused.
    """
    with session.opened() as quota:
        asked = options.read_amounts(quota, amounts)
        if brief:
            return _told(session, quota, asked, project=project, user=user)
        why = quota.explain(asked, project=project, user=user)
    if session.as_json:
        session.answer(_fields(why))
    else:
        _say(session.out, why)
    return failures.DONE if why.decision.allowed else failures.REFUSED


def _told(
    session: Session, quota: Delimiter, asked: dict[str, int], *, project: str | None, user: str | None
) -> int:
    """What an end user may read; a decision as such tells how much the neighbours use."""
    decision = quota.check(asked, project=project, user=user)
    own = [str(scope) for scope in Scope.owned(project, user)]
    message = str(OverLimit(decision.violations, own=own)) if decision.violations else ""
    if session.as_json:
        session.answer({"allowed": decision.allowed, "message": message})
    elif decision.allowed:
        session.out.print(show.done(session.out, _ADMITTED))
    else:
        session.out.print(show.refused(session.out, message))
    return failures.DONE if decision.allowed else failures.REFUSED


def _fields(why: Explanation) -> dict[str, Any]:
    """The decision as the library gives it, and beside it what explains it."""
    decision = why.decision
    return {
        "allowed": decision.allowed,
        "violations": decision.violations,
        "available": decision.available,
        "levels": why.levels,
        "binding": why.binding,
        "room_at": why.room_at,
        "consumers": why.consumers,
    }


# --- for people -------------------------------------------------------------------------------------------


def _say(out: Console, why: Explanation) -> None:
    decision = why.decision
    out.print(
        show.done(out, _ADMITTED)
        if decision.allowed
        else show.refused(out, "It would be refused now: it does not fit.")
    )
    for name, amount in why.requested.items():
        out.print()
        out.print(_heading(name, amount, decision.available.get(name)))
        out.print(_levels(out, why, name, amount))
        if notes := _notes(why, name, amount):
            out.print(Group(*notes))
    if decision.violations:
        out.print()
        out.print(show.advice(out, failures.advice_over_limit(decision.violations)))


def _heading(name: str, amount: int, most: int | None) -> Text:
    fits = most is None or amount <= most
    fitting = ("unlimited" if most is None else f"{most:,} would fit", "good" if fits else "bad")
    return Text.assemble((name, "heading"), f": {amount:,} requested, ", fitting)


def _levels(out: Console, why: Explanation, name: str, amount: int) -> RenderableType:
    branches = _branches([level for level in why.levels if level.resource == name], out)
    remarks = [
        _remark(branch.item, amount, binding=why.binding.get(name) == branch.item.scope)
        for branch in branches
    ]
    rows = list(zip(branches, remarks, strict=True))
    return show.fitting(
        out,
        lambda bar: _level_table(rows, bar, reserved=True),
        lambda bar: _level_table(rows, bar, reserved=False),
        lambda _: _level_table(rows, None, reserved=False),
        lines=lambda: _level_lines(rows),
    )


def _level_lines(rows: Sequence[tuple[Branch[Level], Text]]) -> Iterator[Text]:
    for branch, remark in rows:
        level = branch.item
        name = show.spoken(level.scope)
        words = show.in_words(Usage(level.limit, level.used, level.reserved))
        yield Text.assemble((branch.guide, "quiet"), (name, "name"), ": ", words)
        if remark.plain:
            yield Text.assemble((branch.beneath, "quiet"), remark)


def _level_table(rows: Sequence[tuple[Branch[Level], Text]], bar: int | None, *, reserved: bool) -> Table:
    """Where there is little room the reserved part goes first, then the bars; names and remarks stay."""
    numbers = ("used", *(("reserved",) if reserved else ()), "limit", "available")
    bars = () if bar is None else ("",)
    table = show.plain_table("charged to", *bars, *numbers, " ", right=numbers)
    table.columns[0].no_wrap = True
    table.columns[-1].no_wrap = True
    for branch, remark in rows:
        level = branch.item
        usage = Usage(level.limit, level.used, level.reserved)
        cells: list[RenderableType] = [
            Text.assemble((branch.guide, "quiet"), (show.spoken(level.scope), "name"))
        ]
        if bar is not None:
            cells.append(show.bar(usage, bar))
        cells.append(show.used(usage))
        if reserved:
            cells.append(Text(f"{level.reserved:,}", style="held" if level.reserved else "quiet"))
        table.add_row(*cells, show.amount(usage.limit), show.room(usage), remark)
    return table


def _branches(levels: Sequence[Level], out: Console) -> list[Branch[Level]]:
    """The deployment at the top; below it the projects, each under its parent, and the user beside them."""
    below: dict[Scope, list[Level]] = {}
    above: Scope | None = None
    top = Scope.total()
    roots = [level for level in levels if level.scope == top]
    for level in levels:
        if level.scope == top:
            continue
        parent = top if level.scope.kind == "user" or above is None else above
        if level.scope.kind == "project":
            above = level.scope
        below.setdefault(parent, []).append(level)
    return list(drawn(roots or levels, lambda level: below.get(level.scope, []), out))


def _remark(level: Level, amount: int, *, binding: bool) -> Text:
    room = level.available
    if room is not None and amount > room:
        return Text(f"short by {amount - room:,}", style="bad")
    return Text("least room", style="quiet") if binding and level.limit != UNLIMITED else Text("")


def _notes(why: Explanation, name: str, amount: int) -> list[RenderableType]:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(overflow="fold")
    binding = why.binding.get(name)
    holders = why.consumers.get(name, ())
    if binding is not None and holders:
        table.add_row("held there", Text(" · ".join(f"{one.used:,} by {_owner(one)}" for one in holders)))
    if any(one.resource == name for one in why.decision.violations):
        table.add_row("room", Text(_when(why.room_at.get(name))))
    return [table] if table.row_count else []


def _when(at: datetime | None) -> str:
    if at is None:
        return "none by itself: what is reserved and runs out does not make enough"
    left = show.time_left(at - datetime.now(UTC))
    return f"in {left}, when reservations run out that nobody provisions or renews"


def _owner(consumer: Consumer) -> str:
    owners = (("project", consumer.project), ("user", consumer.user))
    return ", ".join(f"{kind} {name}" for kind, name in owners if name is not None) or "nobody"
