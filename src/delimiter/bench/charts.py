"""The figures as pictures (SVG), from the JSON of a run. Needs Matplotlib, which nothing else does."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from delimiter.bench.plan import WAYS
from delimiter.errors import Unsupported

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "need_matplotlib"]

#: Of each way its colour and line: what is Delimiter stands out, what is only a bound is dotted.
_STYLES: Final[Mapping[str, tuple[str, str]]] = {
    "threads": ("#1a73e8", "-"),
    "asyncio": ("#0b3d91", "-"),
    "in-transaction": ("#7baaf7", "-"),
    "conditional-update": ("#d93025", "-"),
    "select-for-update": ("#f29900", "-"),
    "compare-and-swap": ("#9334e6", "-"),
    "serializable": ("#b06000", "--"),
    "check-then-insert": ("#5f6368", "--"),
    "single-row-commits": ("#9aa0a6", ":"),
}
_OTHER: Final = ("#188038", "--")

#: For each group: what varies in it, and what is shown of it.
_PANELS: Final[Mapping[str, tuple[str, str]]] = {
    "hot": ("callers", "claims_per_second"),
    "spread": ("projects", "claims_per_second"),
    "depth": ("depth", "claims_per_second"),
    "claims": ("claims", "p50_ms"),
    "flood": ("flood", "claims_per_second"),
}
_LABELS: Final = {
    "callers": "callers on one hot project",
    "projects": "projects",
    "depth": "levels of projects",
    "claims": "claims that are there (one caller)",
    "flood": "callers on a full project beside",
    "claims_per_second": "claims a second",
    "p50_ms": "median, milliseconds",
}


#: Panels beside each other: a page is not wider.
_COLUMNS: Final = 3


def need_matplotlib() -> None:
    """Say at once what is missing, not after minutes of measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        raise Unsupported("a chart needs Matplotlib: pip install 'delimiter[bench]'")


def draw(run: Mapping[str, Any], path: Path, *, groups: Sequence[str] = tuple(_PANELS)) -> None:
    """A panel for each group of scenarios in the run (what ``--json`` prints), with machine and versions below."""
    need_matplotlib()
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "delimiter", "font.family": "sans-serif"}):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        present = {figure["group"] for figure in run["figures"]}
        shown = [name for name in groups if name in present]
        columns = min(len(shown), _COLUMNS)
        rows = -(-len(shown) // columns)
        picture = Figure(figsize=(4.2 * columns, 3.4 * rows + 1))
        FigureCanvasSVG(picture)
        panels = list(picture.subplots(rows, columns, squeeze=False).flat)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for panel, name in zip(panels, shown, strict=False):
            _panel(panel, [figure for figure in run["figures"] if figure["group"] == name], *_PANELS[name])
        lines, labels = panels[0].get_legend_handles_labels()
        picture.legend(lines, labels, loc="lower center", ncols=3, fontsize="small", frameon=False)
        machine = run["machine"]
        picture.suptitle(
            f"{machine['server']} · {machine['cpu']}, {machine['cores']} cores · Python {machine['python']},"
            f" SQLAlchemy {machine['sqlalchemy']}, {machine['driver']}",
            fontsize="small",
            color="#5f6368",
        )
        picture.tight_layout(rect=(0, 0.7 / (3.4 * rows + 1), 1, 1))
        picture.savefig(path, format="svg", metadata={"Date": None})


def _panel(panel: Axes, figures: Sequence[Mapping[str, Any]], over: str, shown: str) -> None:
    """Lines where something varies, bars where there is only one scenario."""
    ways = list(dict.fromkeys(figure["way"] for figure in figures))
    values = sorted({figure[over] for figure in figures})
    bars = len(values) == 1
    for number, way in enumerate(ways):
        # Where nothing was answered there is no point; a logarithmic scale has no nought.
        points = sorted((one[over], one[shown]) for one in figures if one["way"] == way and one[shown])
        if not points:
            continue
        colour, line = _STYLES.get(way, _OTHER)
        title = WAYS[way].title if way in WAYS else way
        if bars:
            panel.bar([number], [points[0][1]], color=colour, label=title)
        else:
            panel.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=3, label=title)
    if bars:
        panel.set(xticks=[], xlabel=f"{values[0]:,} {_LABELS[over]}", yscale="log")
    else:
        panel.set(xscale="symlog" if 0 in values else "log", yscale="log", xlabel=_LABELS[over])
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
    panel.set_ylabel(_LABELS[shown])
    panel.grid(visible=True, which="major", axis="y", color="#e8eaed")
