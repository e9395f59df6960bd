"""What a guarded insert costs as the rows grow that it adds up, beside a tracked claim and an insert without a quota.

One caller, one project, whose rows are 10², 10⁴ and 10⁶; the column of the project has an index. Every transaction
inserts one row and commits. The ways take turns, so that a machine whose speed drifts slows all of them alike, and
the median of each is printed and drawn. Nothing here is a test: no number can fail.

    python benchmarks/guards.py [--seconds 3] [--rows 100 10000 …] [--chart FILE.svg] [--json FILE] [--store NAME=URL …]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from stores import stores

from delimiter import Delimiter

ROWS = (100, 10_000, 1_000_000)
LIMIT = 10**9
WAYS = ("insert alone", "tracked claim", "guard", "optimistic guard")
#: Attempts of each way in turn; a slow one is not tried more often than it takes to know.
FEWEST = 15


@dataclass(frozen=True)
class Figure:
    """The median time of one transaction, in milliseconds."""

    store: str
    rows: int
    way: str
    milliseconds: float
    transactions: int


class Service:
    """A service with a table of instances, and each way to insert one."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        name = f"bench_instances_{uuid.uuid4().hex[:6]}"
        self._instances = sa.Table(
            name,
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("project", sa.String(64), index=True),
            sa.Column("memory_mb", sa.Integer),
        )
        self._instances.metadata.create_all(self._engine)
        self.quota = Delimiter(self._engine, table_prefix=f"bench{uuid.uuid4().hex[:6]}_", timeout=60)
        self.quota.define_resource("bench.instances", project_max=LIMIT)
        self.quota.define_resource("bench.tracked", project_max=LIMIT)
        self.quota.count("bench.instances", sa.func.count(), project=self._instances.c.project)
        self._row = {"project": "hot", "memory_mb": 512}
        self.ways: dict[str, Callable[[], None]] = dict(
            zip(WAYS, (self._alone, self._tracked, self._guarded, self._optimistic), strict=True)
        )

    def fill(self, rows: int) -> None:
        """Copy rows until there are so many; then let the database look at them, as it does by itself in time."""
        with self._engine.begin() as connection:
            present = self._present(connection)
            if not present:
                connection.execute(sa.insert(self._instances), [self._row] * min(rows, 100))
            while (present := self._present(connection)) < rows:
                some = sa.select(self._instances.c.project, self._instances.c.memory_mb).limit(rows - present)
                connection.execute(sa.insert(self._instances).from_select(["project", "memory_mb"], some))
        look = {"postgresql": "VACUUM ANALYZE {}", "sqlite": "ANALYZE {}"}.get(
            self._engine.dialect.name, "ANALYZE TABLE {}"
        )
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(look.format(self._instances.name)).close()

    def _present(self, connection: sa.Connection) -> int:
        return connection.execute(sa.select(sa.func.count()).select_from(self._instances)).scalar_one()

    def _insert(self, connection: sa.Connection) -> None:
        connection.execute(sa.insert(self._instances), self._row)

    def _alone(self) -> None:
        with self._engine.begin() as connection:
            self._insert(connection)

    def _tracked(self) -> None:
        with self._engine.begin() as connection:
            self.quota.claim({"bench.tracked": 1}, project="hot", connection=connection)
            self._insert(connection)

    def _guarded(self) -> None:
        self._in_guard(optimistic=False)

    def _optimistic(self) -> None:
        self._in_guard(optimistic=True)

    def _in_guard(self, *, optimistic: bool) -> None:
        with (
            self._engine.begin() as connection,
            self.quota.guard(
                {"bench.instances": 1}, project="hot", connection=connection, optimistic=optimistic
            ),
        ):
            self._insert(connection)

    def close(self) -> None:
        drifts = list(self.quota.reconcile())
        assert not drifts, drifts
        self.quota.close()
        self._instances.metadata.drop_all(self._engine)
        self._engine.dispose()


def measure(service: Service, *, seconds: float) -> dict[str, list[float]]:
    """The times of each way's transactions, in milliseconds; the ways take turns until the time is over."""
    times: dict[str, list[float]] = {way: [] for way in service.ways}
    for way in service.ways.values():
        way()  # connections, caches, prepared statements
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[WAYS[0]]) < FEWEST:
        for name, way in service.ways.items():
            began = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - began) * 1000)
    return times


def run(found: dict[str, str], rows: Sequence[int], *, seconds: float, console: Console) -> list[Figure]:
    figures = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )
    with bar:
        task = bar.add_task("", total=len(found) * len(rows) * 2)
        for store, url in found.items():
            service = Service(url)
            for count in sorted(rows):
                bar.update(task, description=f"{store}: making {count:,} rows")
                service.fill(count)
                bar.advance(task)
                bar.update(task, description=f"{store}: inserting beside {count:,} rows")
                figures += [
                    Figure(store, count, way, statistics.median(times), len(times))
                    for way, times in measure(service, seconds=seconds).items()
                ]
                bar.advance(task)
            service.close()
    return figures


def show(figures: Sequence[Figure], console: Console) -> None:
    table = Table(title="One transaction with one insert, in milliseconds (medians)")
    for column in ("store", "rows of the project", *WAYS, "guard / tracked"):
        table.add_column(column, justify="left" if column == "store" else "right")
    for store, rows in dict.fromkeys((figure.store, figure.rows) for figure in figures):
        of = {f.way: f.milliseconds for f in figures if (f.store, f.rows) == (store, rows)}
        ratio = of["guard"] / of["tracked claim"]
        table.add_row(store, f"{rows:,}", *(f"{of[way]:.2f}" for way in WAYS), f"{ratio:.1f}")
    console.print(table)


def draw(figures: Sequence[Figure], path: Path) -> None:
    """A panel for each store: time over rows, both on logarithmic scales."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "delimiter", "font.family": "sans-serif"})
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(figure.store for figure in figures))
    chart, panels = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.4), sharey=True, squeeze=False)
    styles = dict(
        zip(WAYS, (("#9aa0a6", ":"), ("#1a73e8", "-"), ("#d93025", "-"), ("#f29900", "--")), strict=True)
    )
    for panel, store in zip(panels[0], names, strict=True):
        for way, (colour, line) in styles.items():
            points = [(f.rows, f.milliseconds) for f in figures if (f.store, f.way) == (store, way)]
            panel.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=3, label=way)
        panel.set(xscale="log", yscale="log", title=store, xlabel="rows of the project")
        panel.grid(visible=True, which="major", color="#e8eaed")
    panels[0][0].set_ylabel("milliseconds a transaction")
    panels[0][0].legend(fontsize="small", frameon=False)
    chart.tight_layout()
    chart.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="how long all ways work beside so many rows"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--chart", type=Path, help="draw the figures here, as SVG")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--store", action="append", default=[], metavar="NAME=URL")
    options = parser.parse_args()
    console = Console()
    with stores(options.store, console) as found:
        figures = run(found, options.rows, seconds=options.seconds, console=console)
    show(figures, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))
    if options.chart:
        draw(figures, options.chart)


if __name__ == "__main__":
    main()
