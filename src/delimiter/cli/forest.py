"""The projects by their places, drawn with their usage; in another layout where there is little room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from rich.console import Console, RenderableType
from rich.table import Table

from delimiter.cli import show
from delimiter.cli.safe_text import Text
from delimiter.cli.trees import drawn
from delimiter.errors import UnknownProject
from delimiter.model import UNLIMITED, ProjectUsage, Usage

__all__ = ["Forest", "forest_table"]

_NUMBERS = ("used", "limit", "available")


class Forest:
    """The projects, each under its parent; of their usage only some resources if ``names`` are given."""

    def __init__(self, found: Sequence[ProjectUsage], names: Sequence[str]) -> None:
        self._by_id = {one.id: _only(one, names) for one in found}
        self._below: dict[str, list[ProjectUsage]] = {}
        self.roots: list[ProjectUsage] = []
        for one in self._by_id.values():
            if one.parent in self._by_id:
                self._below.setdefault(str(one.parent), []).append(one)
            else:
                self.roots.append(one)

    def find(self, id: str) -> ProjectUsage:
        if id not in self._by_id:
            raise UnknownProject(f"the tree has no project {id!r}, and nothing is claimed for one")
        return self._by_id[id]

    def below(self, one: ProjectUsage) -> list[ProjectUsage]:
        return self._below.get(one.id, [])

    def cut(self, tops: Sequence[ProjectUsage], depth: int | None) -> list[ProjectUsage]:
        """The tops and what lies at most ``depth`` levels below them, parents before their children."""
        kept: list[ProjectUsage] = []
        waiting = [(one, 0) for one in reversed(tops)]
        while waiting:
            one, level = waiting.pop()
            kept.append(one)
            if depth is None or level < depth:
                waiting += [(child, level + 1) for child in reversed(self.below(one))]
        return kept


def _only(one: ProjectUsage, names: Sequence[str]) -> ProjectUsage:
    if not names:
        return one
    return replace(one, usage={name: usage for name, usage in one.usage.items() if name in names})


@dataclass(frozen=True, slots=True)
class _Project:
    """What is said of one project: a line for each resource, or a remark."""

    name: Text
    beneath: str
    usages: dict[str, Usage]
    remarks: tuple[str, ...]


_Projects: TypeAlias = Sequence[_Project]


def forest_table(
    console: Console, forest: Forest, shown: Sequence[ProjectUsage], *, every: bool
) -> RenderableType:
    """The projects that are shown. Resources neither limited nor used are left out unless ``every`` is asked for."""
    said = _said(console, forest, shown, every=every)
    return show.fitting(
        console,
        lambda bar: _side_by_side(said, bar),
        lambda bar: _stacked(said, bar),
        lines=lambda: _lines(said),
    )


def _said(console: Console, forest: Forest, shown: Sequence[ProjectUsage], *, every: bool) -> list[_Project]:
    ids = {one.id for one in shown}
    tops = [one for one in shown if one.parent not in ids]
    said = []
    for branch in drawn(tops, lambda one: [child for child in forest.below(one) if child.id in ids], console):
        one = branch.item
        usages = {
            name: usage
            for name, usage in one.usage.items()
            if every or usage.used or usage.limit != UNLIMITED
        }
        hidden = len([child for child in forest.below(one) if child.id not in ids])
        remarks: tuple[str, ...] = () if usages else ("nothing used, no limits",)
        if hidden:
            remarks += (f"({hidden:,} more below)",)
        name = Text.assemble((branch.guide, "quiet"), (one.id, "name"))
        said.append(_Project(name, branch.beneath, usages, remarks))
    return said


def _side_by_side(said: _Projects, bar: int) -> Table:
    table = show.plain_table("project", "resource", "", *_NUMBERS, right=_NUMBERS)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for one in said:
        first = one.name
        for label, usage in one.usages.items():
            table.add_row(first, Text(label), *_cells(usage, bar))
            first = Text(one.beneath, style="quiet")
        for remark in one.remarks:
            table.add_row(first, Text(remark, style="quiet"))
            first = Text(one.beneath, style="quiet")
    return table


def _stacked(said: _Projects, bar: int) -> Table:
    """A project's resources below its name."""
    table = show.plain_table("project", "", *_NUMBERS, right=_NUMBERS)
    table.columns[0].no_wrap = True
    for one in said:
        table.add_row(one.name)
        for label, usage in one.usages.items():
            table.add_row(Text.assemble((one.beneath, "quiet"), label), *_cells(usage, bar))
        for remark in one.remarks:
            table.add_row(Text(one.beneath + remark, style="quiet"))
    return table


def _lines(said: _Projects) -> Iterator[Text]:
    for one in said:
        yield one.name
        for label, usage in one.usages.items():
            yield Text.assemble((one.beneath, "quiet"), f"{label}: ", show.in_words(usage))
        for remark in one.remarks:
            yield Text(one.beneath + remark, style="quiet")


def _cells(usage: Usage, bar: int) -> tuple[show.Bar | Text, Text, Text, Text]:
    return show.bar(usage, bar), show.used(usage), show.amount(usage.limit), show.room(usage)
