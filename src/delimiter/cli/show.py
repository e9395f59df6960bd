"""Tables and bars: what people see of usage, limits, claims and refusals."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import StyleType
from rich.table import Table

from delimiter.cli.safe_text import Text
from delimiter.model import UNLIMITED, Claim, Drift, Overage, Resource, Scope, Usage, Violation

__all__ = [
    "Bar",
    "amount",
    "bar",
    "claim_lines",
    "counted_elsewhere",
    "drift_table",
    "fitting",
    "in_words",
    "legend",
    "limits_table",
    "over_it",
    "overage_table",
    "resource_table",
    "room",
    "time_left",
    "usage_table",
    "used",
    "violation_table",
]

_NEARLY_FULL: Final = 0.8
#: What is longer than this is folded where there is little room.
_LONG_NAME: Final = 26
_LONG_UNIT: Final = 10
#: Cells of a bar: where there is room, and at least.
_WIDE_BAR: Final = 24
_NARROW_BAR: Final = 8
#: Provisioned, reserved and free, told apart without colours too; the second row is for terminals without Unicode.
_BLOCKS: Final = ("█", "▒", "·")
_PLAIN_BLOCKS: Final = ("#", "=", ".")


class Bar:
    """How full a scope is: provisioned, then reserved, then free."""

    def __init__(self, usage: Usage, *, width: int = _WIDE_BAR) -> None:
        self.usage = usage
        self.width = width

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(_NARROW_BAR, options.max_width), min(self.width, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width, options.max_width)
        full, held = self._cells(width)
        blocks = _BLOCKS if options.encoding.startswith("utf") else _PLAIN_BLOCKS
        yield Segment(blocks[0] * full, console.get_style(colour_of(self.usage)))
        yield Segment(blocks[1] * held, console.get_style("held"))
        yield Segment(blocks[2] * (width - full - held), console.get_style("quiet"))

    def _cells(self, width: int) -> tuple[int, int]:
        """Cells provisioned and reserved. Whatever is there shows as one cell at least, and full means full."""
        usage = self.usage
        if usage.limit == UNLIMITED or usage.used == 0:
            return 0, 0
        whole = max(usage.limit, usage.used)
        taken = width if usage.used >= whole else min(max(1, usage.used * width // whole), width - 1)
        held = round(taken * usage.reserved / usage.used)
        if usage.reserved and taken > 1:
            held = max(1, held)
        if usage.reserved < usage.used:
            held = min(held, taken - 1)
        return taken - held, held


def colour_of(usage: Usage) -> StyleType:
    if usage.limit == UNLIMITED:
        return "good"
    if usage.used >= usage.limit:
        return "bad"
    return "near" if usage.used >= _NEARLY_FULL * usage.limit else "good"


def amount(value: int | None) -> Text:
    """A number with its thousands set apart; ``unlimited`` where there is no limit."""
    if value is None or value == UNLIMITED:
        return Text("unlimited", style="quiet")
    return Text(f"{value:,}")


def legend(console: Console) -> Text:
    blocks = _BLOCKS if console.encoding.startswith("utf") else _PLAIN_BLOCKS
    return Text.assemble(
        (blocks[0], "good"),
        " provisioned  ",
        (blocks[1], "held"),
        " reserved  ",
        (blocks[2], "quiet"),
        " free",
        style="quiet",
    )


def plain_table(*headings: str, right: Iterable[str] = ()) -> Table:
    """A table without frames; the headings in ``right`` stand over numbers."""
    table = Table(box=None, header_style="heading", pad_edge=False, padding=(0, 2, 0, 0))
    numbers = set(right)
    for heading in headings:
        if heading in numbers:
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(heading, overflow="fold")
    return table


def fitting(
    console: Console, *layouts: Callable[[int], Table], lines: Callable[[], Iterable[Text]]
) -> RenderableType:
    """The first layout that there is room for, with narrow bars at least; or else lines, which fold where they must.

    A layout is called with the width of its bars.
    """
    unbound = console.options.update_width(10_000)
    for layout in layouts:
        if Measurement.get(console, unbound, layout(_NARROW_BAR)).maximum <= console.width:
            return layout(_WIDE_BAR)
    return Group(*lines())


def counted_elsewhere(resource: str, table: str) -> str:
    """What this command cannot tell, and who can."""
    where = f" from its table {table}" if table else ""
    return f"{resource} is counted by its service{where}: ask the service how much is used."


def usage_table(usages: Mapping[str, Usage], units: Mapping[str, str], counted: Container[str] = ()) -> Table:
    numbers = ("used", "reserved", "limit", "available")
    table = plain_table("resource", "", *numbers, "unit", right=numbers)
    # Where there is little room the bars give way before the names do.
    table.columns[0].no_wrap = max(map(len, usages), default=0) <= _LONG_NAME
    table.columns[-1].no_wrap = max((len(units.get(name, "")) for name in usages), default=0) <= _LONG_UNIT
    for name, usage in usages.items():
        if name in counted:
            unknown = Text("counted", style="quiet")
            table.add_row(
                Text(name),
                Text(""),
                unknown,
                Text(""),
                amount(usage.limit),
                Text(""),
                Text(units.get(name, "")),
            )
            continue
        table.add_row(
            Text(name),
            bar(usage),
            used(usage),
            Text(f"{usage.reserved:,}", style="held" if usage.reserved else "quiet"),
            amount(usage.limit),
            room(usage),
            Text(units.get(name, ""), style="quiet"),
        )
    return table


def bar(usage: Usage, width: int = _WIDE_BAR) -> Bar | Text:
    return Text("") if usage.limit == UNLIMITED else Bar(usage, width=width)


def used(usage: Usage) -> Text:
    return Text(f"{usage.used:,}", style="bad" if _over(usage) else "")


def room(usage: Usage) -> Text:
    """What is available, or by how much a limit is passed."""
    if _over(usage):
        return Text(f"over by {usage.used - usage.limit:,}", style="bad")
    return amount(usage.available)


def in_words(usage: Usage) -> Text:
    """``60 of 100 used, 40 available``: a row of a table, where there is no room for one."""
    if usage.limit == UNLIMITED:
        return Text.assemble(f"{usage.used:,} used, ", amount(UNLIMITED))
    available = "" if _over(usage) else " available"
    return Text.assemble(used(usage), f" of {usage.limit:,} used, ", room(usage), available)


def _over(usage: Usage) -> bool:
    return usage.limit != UNLIMITED and usage.used > usage.limit


def resource_table(resources: Iterable[Resource]) -> Table:
    numbers = ("in total", "a project", "a user")
    table = plain_table("resource", *numbers, "unit", "description", right=numbers)
    for resource in resources:
        table.add_row(
            Text(resource.name),
            _bounds(resource.min, resource.max),
            _bounds(resource.project_min, resource.project_max),
            _bounds(resource.user_min, resource.user_max),
            Text(resource.unit, style="quiet"),
            Text(resource.description, style="quiet"),
        )
    return table


def _bounds(least: int, most: int) -> Text:
    return Text.assemble(f"{least:,} to ", amount(most)) if least else amount(most)


def limits_table(limits: Mapping[str, int], defaults: Mapping[str, int], units: Mapping[str, str]) -> Table:
    table = plain_table("resource", "limit", "unit", "", right=("limit",))
    for name, most in limits.items():
        default = defaults.get(name, most)
        # Where they differ the limit was set for this scope; where not, nobody can tell from here.
        note = (
            Text.assemble("its own; the default is ", amount(default), style="quiet")
            if default != most
            else Text("")
        )
        table.add_row(Text(name), amount(most), Text(units.get(name, ""), style="quiet"), note)
    return table


def violation_table(violations: Sequence[Violation], *, below: bool = False) -> Table:
    last = "can be given back" if below else "would fit"
    numbers = ("least" if below else "limit", "provisioned" if below else "used", "requested", last)
    table = plain_table("resource", "scope", *numbers, right=numbers)
    for violation in violations:
        table.add_row(
            Text(violation.resource),
            Text(violation.scope),
            f"{violation.limit:,}",
            f"{violation.used:,}",
            Text(f"{violation.requested:+,}", style="bad"),
            Text(f"{violation.available:,}", style="good" if violation.available else "bad"),
        )
    return table


def overage_table(overages: Iterable[Overage]) -> Table:
    table = plain_table("resource", "scope", "limit", "used", "over by", right=("limit", "used", "over by"))
    for over in overages:
        row = (f"{over.limit:,}", f"{over.used:,}", Text(f"{over.used - over.limit:,}", style="bad"))
        table.add_row(Text(over.resource), Text(over.scope), *row)
    return table


def over_it(*, tried: bool) -> str:
    """The sentence above a table of those over their limits."""
    if tried:
        return "Would be over it; nothing would be taken away, and nothing more given:"
    return "Over it now; nothing is taken away, and nothing more is given:"


def drift_table(drifts: Iterable[Drift]) -> Table:
    table = plain_table(
        "resource", "scope", "counter", "recorded", "actual", "", right=("recorded", "actual")
    )
    for drift in drifts:
        state = Text("repaired", style="good") if drift.repaired else Text("not repaired", style="bad")
        numbers = (f"{drift.recorded:,}", f"{drift.actual:,}")
        table.add_row(Text(drift.resource), Text(drift.scope), Text(drift.counter), *numbers, state)
    return table


_STATE_STYLES: Final = {"provisioned": "good", "reserved": "held", "expired": "quiet", "released": "quiet"}


def state_of(claim: Claim) -> Text:
    return Text(claim.state, style=_STATE_STYLES[claim.state])


def owner_of(claim: Claim) -> str:
    owners = (("project", claim.project), ("user", claim.user))
    return ", ".join(f"{kind} {name}" for kind, name in owners if name is not None)


def claim_lines(claim: Claim) -> Table:
    """One claim, each of its fields on a line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("claim", Text(claim.id, style="name"))
    if claim.external_id is not None:
        table.add_row("known as", Text(claim.external_id))
    table.add_row("state", Text.assemble(state_of(claim), runs_out(claim)))
    table.add_row("owner", Text(owner_of(claim)))
    if claim.parent is not None:
        table.add_row("under", Text(claim.parent))
    for name, used in claim.resources.items():
        table.add_row("uses", Text(f"{used:,} {name}"))
    return table


def runs_out(claim: Claim) -> str:
    if claim.expires_at is None:
        return ""
    if claim.state != "reserved":
        return f", ran out {claim.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    return f", runs out in {time_left(claim.expires_at - datetime.now(UTC))}"


def time_left(left: timedelta) -> str:
    """A time in its two largest units.

    >>> time_left(timedelta(seconds=5400))
    '1 h 30 min'
    """
    seconds = max(0, round(left.total_seconds()))
    for size, unit, smaller, below in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{seconds} s"


# --- sentences -------------------------------------------------------------------------------------------


def spoken(scope: Scope) -> str:
    return "the whole deployment" if scope.kind == "total" else f"{scope.kind} {scope.name}"


def number_of(count: int, what: str) -> str:
    """``1 claim``, ``2 claims``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def title(text: str, aside: str = "") -> Text:
    return Text.assemble((text, "heading"), (f"  {aside}" if aside else "", "quiet"))


def done(console: Console, sentence: str) -> Text:
    return Text.assemble(("✓ " if console.encoding.startswith("utf") else "ok: ", "good"), sentence)


def refused(console: Console, sentence: str) -> Text:
    return Text.assemble(("✗ " if console.encoding.startswith("utf") else "error: ", "bad"), sentence)


def advice(console: Console, sentence: str) -> Text:
    """What to do next. What is to be typed stands in `backquotes`, or in a colour of its own where there are any."""
    if console.color_system is None or console.no_color:
        return Text(sentence)
    text = Text()
    for index, piece in enumerate(sentence.split("`")):
        text.append(piece, style="code" if index % 2 else "")
    return text


def nothing_defined(console: Console) -> Text:
    return advice(
        console, "No resources are defined yet. Define one: `delimiter resource define NAME --max N`"
    )
