"""Which goals the last run reached: from benchmarks/results/*.json, for people and for the documentation.

python benchmarks/goals.py [--page docs/benchmark-figures.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from delimiter.bench.plan import WAYS

HERE = Path(__file__).parent

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """What is compared, and how much it must be: at least, or (``below``) at most."""

    what: str
    goal: float
    figure: Callable[[Results], float | None]
    below: bool = False

    def reached(self, figure: float) -> bool:
        return figure <= self.goal if self.below else figure >= self.goal

    @property
    def spoken(self) -> str:
        return f"{'≤' if self.below else '≥'} {self.goal:g}"


def of(
    results: Results, store: str, group: str, scenario: str, way: str, key: str = "claims_per_second"
) -> float | None:
    """One figure of one run, if it is there."""
    for figure in results.get(store, {}).get("figures", ()):
        if (figure["group"], figure["scenario"], figure["way"]) == (group, scenario, way):
            value = figure[key]
            return None if value is None else float(value)
    return None


def ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def hot(store: str, way: str, other: str, callers: str = "64 callers") -> Callable[[Results], float | None]:
    return lambda results: ratio(
        of(results, store, "hot", callers, way), of(results, store, "hot", callers, other)
    )


def _most_callers(results: Results) -> float | None:
    found = [of(results, "postgresql", "hot", f"{n} callers", "threads") for n in (64, 256)]
    best = [rate for rate in found if rate is not None]
    return ratio(of(results, "postgresql", "hot", "800 callers", "threads"), max(best, default=None))


def _levels(results: Results) -> float | None:
    deep, flat = (of(results, "postgresql", "depth", name, "threads") for name in ("8 levels", "1 level"))
    return ratio(deep, flat)


def _alone(results: Results) -> float | None:
    ours, theirs = (
        of(results, "postgresql", "hot", "1 caller", way, "p50_ms")
        for way in ("threads", "conditional-update")
    )
    return ratio(ours, theirs)


def _beside_many(results: Results) -> float | None:
    many, few = (
        of(results, "postgresql", "claims", name, "threads", "p50_ms")
        for name in ("1,000,000 claims", "100 claims")
    )
    return ratio(many, few)


def _beside_a_flood(results: Results) -> float | None:
    beside, alone = (
        of(results, "postgresql", "flood", name, "threads") for name in ("beside a flood", "neighbours alone")
    )
    return ratio(beside, alone)


def _spread(results: Results) -> float | None:
    name = "1,000 projects"
    return ratio(
        of(results, "postgresql", "spread", name, "threads"),
        of(results, "postgresql", "spread", name, "conditional-update"),
    )


def _on_galera(results: Results) -> float | None:
    found = {
        figure["way"]: figure["claims_per_second"]
        for figure in results.get("clusters", {}).get("figures", ())
        if (figure["cluster"], figure["nodes"]) == ("Galera", 3)
    }
    return ratio(found.get("threads"), found.get("conditional-update"))


def _growth(results: Results) -> float | None:
    growth = results.get("memory", {}).get("growth")
    return None if growth is None else 1 + float(growth)


_UPDATE: Final = "conditional-update"
GOALS: Final = (
    Goal("threads / conditional UPDATE", 50, hot("postgresql", "threads", _UPDATE)),
    Goal("asyncio / conditional UPDATE", 80, hot("postgresql", "asyncio", _UPDATE)),
    Goal("threads / compare-and-swap over SUM", 400, hot("postgresql", "threads", "compare-and-swap")),
    Goal(
        "asyncio / the database's single-row commits", 12, hot("postgresql", "asyncio", "single-row-commits")
    ),
    Goal("spread over 1,000 projects, threads / conditional UPDATE", 10, _spread),
    Goal("MariaDB hot, threads / conditional UPDATE", 20, hot("mariadb", "threads", _UPDATE)),
    Goal("SQLite hot, threads / conditional UPDATE", 5, hot("sqlite", "threads", _UPDATE)),
    Goal("Galera, three nodes, hot, threads / conditional UPDATE", 10, _on_galera),
    Goal("800 callers / the best of 64 and 256", 0.9, _most_callers),
    Goal("alone: p50 / p50 of a conditional UPDATE", 0.6, _alone, below=True),
    Goal("p50 beside 10⁶ claims / beside 10²", 1.2, _beside_many, below=True),
    Goal("8 levels / 1 level", 0.85, _levels),
    Goal("neighbours beside a flood / without it", 0.8, _beside_a_flood),
    Goal("memory at 800 callers, at the end / after the beginning", 1.05, _growth, below=True),
)


def read(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def rows(results: Results) -> list[tuple[str, str, str, str]]:
    found = []
    for goal in GOALS:
        figure = goal.figure(results)
        if figure is None:
            found.append((goal.what, goal.spoken, "", "not measured"))
        else:
            digits = 0 if figure >= 100 else 1 if figure >= 10 else 2
            reached = "reached" if goal.reached(figure) else "missed"
            found.append((goal.what, goal.spoken, f"{figure:,.{digits}f}", reached))
    return found


def show(found: list[tuple[str, str, str, str]], console: Console) -> None:
    table = Table(
        title="Goals: PostgreSQL, 64 callers, one hot project, 3 resources, where nothing else is said"
    )
    for column in ("", "goal", "figure", ""):
        table.add_column(column, justify="left" if not column else "right")
    colours = {"reached": "green", "missed": "red", "not measured": "yellow"}
    for what, goal, figure, state in found:
        table.add_row(what, goal, figure, f"[{colours[state]}]{state}")
    console.print(table)


def page(results: Results, found: list[tuple[str, str, str, str]], images: Path) -> str:
    """What the documentation includes: the goals, and the rates of each database."""
    lines = ["| goal | | reached |", "|---|---|---|"]
    lines += [f"| {what} | {goal} | {figure or '–'} ({state}) |" for what, goal, figure, state in found]
    for store in ("postgresql", "mariadb", "sqlite"):
        run = results.get(store)
        if run is None:
            continue
        machine = run["machine"]
        kept = ", ".join(f"{name} {value}" for name, value in machine["durability"].items())
        lines += [
            "",
            (
                f"**{machine['server']}** ({kept}), {machine['cpu']} with {machine['cores']} cores,"
                f" Python {machine['python']}, SQLAlchemy {machine['sqlalchemy']}, {machine['driver']};"
                f" claims a second, medians of {run['plan']['rounds']} rounds of {run['plan']['seconds']:g} s:"
            ),
            "",
        ]
        lines += _rates(run["figures"])
        if (images / f"claims-{store}.svg").exists():
            lines += ["", f"![{machine['server']}: claims a second of each way](images/claims-{store}.svg)"]
    return "\n".join(lines) + "\n"


def _rates(figures: list[dict[str, Any]]) -> list[str]:
    shown = [figure for figure in figures if figure["group"] in ("hot", "spread")]
    scenarios = list(dict.fromkeys(figure["scenario"] for figure in shown))
    ways = list(dict.fromkeys(figure["way"] for figure in shown))
    rate = {(figure["scenario"], figure["way"]): figure for figure in shown}
    lines = [
        "| | " + " | ".join(scenarios) + " | oversubscribed |",
        "|---|" + "---:|" * (len(scenarios) + 1),
    ]
    for way in ways:
        found = [rate.get((scenario, way)) for scenario in scenarios]
        over = max((figure["oversubscribed"] or 0 for figure in found if figure), default=0)
        cells = [f"{figure['claims_per_second']:,.0f}" if figure else "–" for figure in found]
        title = WAYS[way].title if way in WAYS else way
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {f'{over:.0%}' if over else ''} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, help="write what the documentation includes")
    options = parser.parse_args()
    results = read(options.results)
    found = rows(results)
    show(found, Console())
    if options.page:
        options.page.write_text(page(results, found, options.page.parent / "images"))


if __name__ == "__main__":
    main()
