"""Claims a second on each database, beside hand-written SQL that does the same, in one run.

Each round lets every way work for the same short time on the same server, in turn, so that a machine whose speed
drifts slows all of them alike; the medians over the rounds are printed with their ratios, and whoever oversubscribes
is shown. The hand-written way is what services write today: a conditional UPDATE for each resource and scope, and the
INSERTs, in one transaction, in a fixed order. Nothing here is a test: no number can fail.

    python benchmarks/claims.py [--seconds 2] [--rounds 3] [--json FILE] [--store NAME=URL …]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from delimiter import Delimiter, OverLimit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from server_process import ServerNotAvailable
from servers import Servers

RESOURCES = ("bench.instances", "bench.cores", "bench.ram")
LIMIT = 10**9
CALLERS = (1, 16)


@dataclass(frozen=True)
class Figure:
    """Claims admitted in a second by one way with some callers: the median of the rounds, and each of them."""

    store: str
    callers: int
    way: str
    median: float
    rounds: tuple[float, ...]


class HandWritten:
    """A service's own quota code: one conditional UPDATE a resource and scope, then the INSERTs."""

    name = "conditional UPDATE + INSERT"

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._engine = sa.create_engine(url, pool_size=32, isolation_level=_isolation(url))
        metadata = sa.MetaData()
        self._counters = sa.Table(
            "hand_counters",
            metadata,
            sa.Column("resource", sa.String(64), primary_key=True),
            sa.Column("scope", sa.String(64), primary_key=True),
            sa.Column("used", sa.BigInteger, nullable=False),
            sa.Column("maximum", sa.BigInteger, nullable=False),
        )
        self._claims = sa.Table(
            "hand_claims",
            metadata,
            sa.Column("id", sa.String(36), primary_key=True),
            sa.Column("project", sa.String(64), index=True),
            sa.Column("user", sa.String(64), index=True),
        )
        self._amounts = sa.Table(
            "hand_amounts",
            metadata,
            sa.Column("claim", sa.String(36), primary_key=True),
            sa.Column("resource", sa.String(64), primary_key=True),
            sa.Column("amount", sa.BigInteger),
        )
        if create:
            self._create(metadata)
        c = self._counters.c
        self._take = (
            sa.update(self._counters)
            .where(c.resource == sa.bindparam("r"), c.scope == sa.bindparam("s"))
            .where(c.used + sa.bindparam("n") <= c.maximum)
            .values(used=c.used + sa.bindparam("n"))
        )

    def _create(self, metadata: sa.MetaData) -> None:
        metadata.drop_all(self._engine)
        metadata.create_all(self._engine)
        rows = [
            {"resource": resource, "scope": scope, "used": 0, "maximum": LIMIT}
            for resource in RESOURCES
            for scope in ("project:hot", "user:hot")
        ]
        with self._engine.begin() as connection:
            connection.execute(sa.insert(self._counters), rows)

    def claim(self) -> bool:
        id = str(uuid.uuid4())
        with self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            for resource in RESOURCES:
                for scope in ("project:hot", "user:hot"):
                    taken = connection.execute(self._take, {"r": resource, "s": scope, "n": 1})
                    if taken.rowcount != 1:
                        return False
            connection.execute(sa.insert(self._claims), {"id": id, "project": "hot", "user": "hot"})
            rows = [{"claim": id, "resource": resource, "amount": 1} for resource in RESOURCES]
            connection.execute(sa.insert(self._amounts), rows)
            connection.commit()
        return True

    def close(self) -> None:
        self._engine.dispose()


class WithDelimiter:
    """The same through the library: with idempotent ids, expiry, parents and every limit in the way named."""

    name = "Delimiter"

    def __init__(self, url: str) -> None:
        self.quota = Delimiter(url, table_prefix=f"bench{uuid.uuid4().hex[:6]}_", timeout=60)
        for resource in RESOURCES:
            self.quota.define_resource(resource, project_max=LIMIT, user_max=LIMIT)

    def claim(self) -> bool:
        try:
            self.quota.claim(dict.fromkeys(RESOURCES, 1), project="hot", user="hot")
        except OverLimit:
            return False
        return True

    def close(self) -> None:
        drifts = list(self.quota.reconcile())
        assert not drifts, drifts
        self.quota.close()


def _isolation(url: str) -> str:
    return "SERIALIZABLE" if url.startswith("sqlite") else "READ COMMITTED"


def measure(claim: Callable[[], bool], *, callers: int, seconds: float) -> float:
    """Claims a second, all callers together."""
    done = [0] * callers
    start = threading.Barrier(callers + 1)
    end = threading.Event()

    def call(number: int) -> None:
        start.wait()
        while not end.is_set():
            done[number] += claim()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    end.wait(seconds)
    end.set()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


@contextmanager
def stores(given: list[str], console: Console) -> Iterator[dict[str, str]]:
    """The stores to measure: those given, or SQLite and whichever servers can be started here."""
    if given:
        yield dict(pair.split("=", 1) for pair in given)
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        servers = Servers()
        stack.callback(servers.close)
        found = {"sqlite": f"sqlite:///{folder}/bench.db"}
        for name in ("postgresql", "mariadb"):
            try:
                found[name] = servers.get(name).create_database().render_as_string(hide_password=False)
            except ServerNotAvailable as reason:
                console.print(f"[red]{name} is left out: {reason}")
        yield found


def run(found: dict[str, str], *, seconds: float, rounds: int, console: Console) -> list[Figure]:
    figures = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )
    with bar:
        task = bar.add_task("", total=len(found) * len(CALLERS) * rounds * 2)
        for store, url in found.items():
            ways = [WithDelimiter(url), HandWritten(url)]
            for callers in CALLERS:
                rates: dict[str, list[float]] = {way.name: [] for way in ways}
                for way in ways:
                    measure(
                        way.claim, callers=callers, seconds=0.3
                    )  # connections, caches, prepared statements
                for _ in range(rounds):
                    for way in ways:
                        bar.update(task, description=f"{store}, {callers} callers, {way.name}")
                        rates[way.name].append(measure(way.claim, callers=callers, seconds=seconds))
                        bar.advance(task)
                figures += [
                    Figure(store, callers, name, statistics.median(values), tuple(values))
                    for name, values in rates.items()
                ]
            for way in ways:
                way.close()
    return figures


def show(figures: list[Figure], console: Console) -> None:
    table = Table(
        title=f"Claims a second: {len(RESOURCES)} resources, one hot project and user, two limits each"
    )
    for column in ("store", "callers", HandWritten.name, WithDelimiter.name, "ratio"):
        table.add_column(column, justify="left" if column == "store" else "right")
    for store, callers in dict.fromkeys((figure.store, figure.callers) for figure in figures):
        rate = {f.way: f.median for f in figures if (f.store, f.callers) == (store, callers)}
        hand, ours = rate[HandWritten.name], rate[WithDelimiter.name]
        table.add_row(store, str(callers), f"{hand:,.0f}", f"{ours:,.0f}", f"{ours / hand:.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each way works in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--store", action="append", default=[], metavar="NAME=URL")
    options = parser.parse_args()
    console = Console()
    with stores(options.store, console) as found:
        figures = run(found, seconds=options.seconds, rounds=options.rounds, console=console)
    show(figures, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))


if __name__ == "__main__":
    main()
