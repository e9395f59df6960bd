"""The figures for people: a table for each scenario, the ways below each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from delimiter.bench.results import Figure, Report
from delimiter.bench.scenario import Scenario

__all__ = ["tables"]

_TITLES = {
    "hot": "One hot project and user",
    "spread": "Spread over many projects",
    "depth": "Projects within projects, a limit on each level",
    "claims": "Alone, beside claims that are there",
    "flood": "Beside a flood on a full project",
}


def tables(report: Report, baseline: str) -> Iterator[RenderableType]:
    """A table for each scenario."""
    for (group, _), found in groupby(report.figures, lambda figure: (figure.group, figure.scenario.name)):
        figures = list(found)
        title = Text(f"{_TITLES.get(group, group)}: {_spoken(figures[0].scenario)}", style="bold")
        yield Group(title, _table(report, figures, baseline))


def _spoken(scenario: Scenario) -> str:
    said = [scenario.name]
    if not scenario.name.endswith(("caller", "callers")):
        said.append(f"{scenario.callers:,} caller{'' if scenario.callers == 1 else 's'}")
    if scenario.flood:
        said.append(f"{scenario.flood:,} of the flood")
    processes = len(scenario.shares())
    said.append(f"in {processes} process{'' if processes == 1 else 'es'}")
    return ", ".join(said)


def _table(report: Report, figures: list[Figure], baseline: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("a second", "ratio", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for figure in figures:
        base = report.baseline(figure, baseline)
        table.add_row(
            figure.way.title,
            f"{figure.median:,.0f}",
            f"{figure.median / base:.2f}" if base else "",
            *(_time(figure.milliseconds(share)) for share in (0.5, 0.99)),
            _note(figure),
        )
    return table


def _time(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:,.2f}"


def _note(figure: Figure) -> Text:
    if figure.faults:
        return Text(figure.faults[0], style="red")
    if not figure.way.exact and figure.oversubscribed is not None:
        return Text(f"oversubscribed by {figure.oversubscribed:.0%}", style="yellow")
    if figure.flood_rates:
        refused = sum(figure.flood_rates) / len(figure.flood_rates)
        return Text(f"{refused:,.0f} a second refused", style="dim")
    return Text("")
