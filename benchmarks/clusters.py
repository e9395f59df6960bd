"""Claims a second on clusters, through one node and through all three, beside the naive way on the same, in one run.

Three nodes of Galera and three servers of ZooKeeper are started on this machine, so the figures say how the ways
compare, not what a real cluster reaches. The naive way is what a service would write first: on Galera a conditional
UPDATE for each counter and the INSERTs, begun anew when the cluster refuses the COMMIT; on ZooKeeper one multi for each
claim, with the versions of its counters, begun anew when one of them has changed. Every way claims the same three
resources for one hot project and user. Afterwards each is checked: what is counted is what was admitted.

    python benchmarks/clusters.py [--seconds 3] [--rounds 3] [--callers 48] [--json FILE] [--chart FILE.svg]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from delimiter import Conflict, Delimiter, OverLimit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from claims import LIMIT, RESOURCES, HandWritten, measure

from galera import Galera
from server_process import ServerNotAvailable
from zookeeper_servers import ZooKeeperEnsemble

COUNTERS = [f"{resource}@{scope}" for resource in RESOURCES for scope in ("project:hot", "user:hot")]


@dataclass(frozen=True)
class Figure:
    """Claims admitted in a second by one way: the median of the rounds, and each of them."""

    cluster: str
    nodes: int
    way: str
    callers: int
    median: float
    rounds: tuple[float, ...]


class Way(ABC):
    """One way to claim, through some nodes: each thread stays with the node it first came to."""

    name: str

    def __init__(self, places: int) -> None:
        self._turns = itertools.count()
        self._mine = threading.local()
        self._places = places

    def claim(self) -> bool:
        if not hasattr(self._mine, "place"):
            self._mine.place = next(self._turns) % self._places
        return self._claim(self._mine.place)

    @abstractmethod
    def _claim(self, place: int) -> bool:
        """Claim through that node, until it is decided; whether it was admitted."""

    @abstractmethod
    def close(self) -> None:
        """Check what is counted, and give the connections back."""


class WithDelimiter(Way):
    """The library, as it is."""

    name = "Delimiter"

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__(len(urls))
        self._quotas = [Delimiter(url, timeout=60) for url in urls]
        for resource in RESOURCES:
            self._quotas[0].define_resource(resource, project_max=LIMIT, user_max=LIMIT)
        for quota in self._quotas:
            quota.prepare()

    def _claim(self, place: int) -> bool:
        try:
            self._quotas[place].claim(dict.fromkeys(RESOURCES, 1), project="hot", user="hot")
        except (OverLimit, Conflict):
            return False
        return True

    def close(self) -> None:
        drifts = list(self._quotas[0].reconcile())
        assert not drifts, drifts
        for quota in self._quotas:
            quota.close()


class ConditionalUpdates(Way):
    """A service's own code on Galera: what meets another node's claim fails at COMMIT, and is begun anew."""

    name = "conditional UPDATE + INSERT"

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__(len(urls))
        self._nodes = [HandWritten(url, create=not number) for number, url in enumerate(urls)]

    def _claim(self, place: int) -> bool:
        try:
            return self._nodes[place].claim()
        except sa.exc.OperationalError:
            return False

    def close(self) -> None:
        for node in self._nodes:
            node.close()


class OneMulti(Way):
    """A service's own code on ZooKeeper: read the counters, write them with their versions, and begin anew."""

    name = "one multi a claim"

    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__(len(hosts))
        self._root = f"/naive-{uuid.uuid4().hex}"
        self._clients = [KazooClient(host, timeout=30) for host in hosts]
        for client in self._clients:
            client.start(timeout=30)
        self._clients[0].ensure_path(f"{self._root}/claims")
        for counter in COUNTERS:
            self._clients[0].create(f"{self._root}/{counter}", b"0")
        self._admitted = itertools.count()

    def _claim(self, place: int) -> bool:
        client = self._clients[place]
        with suppress(KazooException):
            found = [client.get(f"{self._root}/{counter}") for counter in COUNTERS]
            if any(int(data) + 1 > LIMIT for data, _ in found):
                return False
            multi = client.transaction()
            for counter, (data, stat) in zip(COUNTERS, found, strict=True):
                multi.set_data(f"{self._root}/{counter}", str(int(data) + 1).encode(), version=stat.version)
            multi.create(f"{self._root}/claims/{uuid.uuid4()}", json.dumps(RESOURCES).encode())
            if not any(isinstance(result, Exception) for result in multi.commit()):
                next(self._admitted)
                return True
        return False

    def close(self) -> None:
        client = self._clients[0]
        client.sync(self._root)
        counted = {int(client.get(f"{self._root}/{counter}")[0]) for counter in COUNTERS}
        assert counted == {next(self._admitted)}, counted
        for one in self._clients:
            one.stop()
            one.close()


def on_galera(cluster: Galera) -> list[tuple[int, Way]]:
    """The ways through one node and through all three, each with a database of its own: they must not meet."""
    ways: list[tuple[int, Way]] = []
    for nodes in (1, 3):
        for way in (WithDelimiter, ConditionalUpdates):
            urls = cluster.urls(cluster.create_database())[:nodes]
            ways.append((nodes, way([url.render_as_string(hide_password=False) for url in urls])))
    return ways


def on_zookeeper(ensemble: ZooKeeperEnsemble) -> list[tuple[int, Way]]:
    """The same, through one server and through all three."""
    ways: list[tuple[int, Way]] = []
    for nodes in (1, 3):
        servers = ensemble.servers[:nodes]
        urls = [ensemble.url(f"bench-{nodes}", servers=[one]) for one in servers]
        ways.append((nodes, WithDelimiter(urls)))
        ways.append((nodes, OneMulti([f"{one.address}:{one.port}" for one in servers])))
    return ways


def run(
    cluster: str, ways: list[tuple[int, Way]], options: argparse.Namespace, console: Console
) -> list[Figure]:
    """Each way in turn, round by round, so that a machine whose speed drifts slows all alike."""
    rates: dict[tuple[int, str], list[float]] = {(nodes, way.name): [] for nodes, way in ways}
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )
    with bar:
        task = bar.add_task("", total=len(ways) * (options.rounds + 1))
        for number in range(options.rounds + 1):  # the first is for connections and caches
            for nodes, way in ways:
                bar.update(task, description=f"{cluster}, {nodes} of 3, {way.name}")
                seconds = options.seconds if number else 0.5
                rate = measure(way.claim, callers=options.callers, seconds=seconds)
                if number:
                    rates[nodes, way.name].append(rate)
                bar.advance(task)
    for _, way in ways:
        way.close()
    return [
        Figure(cluster, nodes, name, options.callers, statistics.median(values), tuple(values))
        for (nodes, name), values in rates.items()
    ]


def rows(figures: Sequence[Figure]) -> list[tuple[str, int, Figure, Figure]]:
    """By cluster and nodes: the naive way and ours."""
    found = []
    for cluster, nodes in dict.fromkeys((figure.cluster, figure.nodes) for figure in figures):
        ours, naive = (one for one in figures if (one.cluster, one.nodes) == (cluster, nodes))
        found.append((cluster, nodes, naive, ours))
    return found


def show(figures: Sequence[Figure], console: Console) -> None:
    table = Table(
        title=f"Claims a second, {figures[0].callers} callers, {len(RESOURCES)} resources, one hot project"
    )
    for column in ("cluster", "through", "the naive way", "claims/s", Delimiter.__name__, "ratio"):
        table.add_column(
            column, justify="left" if column in ("cluster", "through", "the naive way") else "right"
        )
    for cluster, nodes, naive, ours in rows(figures):
        ratio = f"{ours.median / naive.median:.2f}" if naive.median else "–"
        table.add_row(
            cluster, f"{nodes} of 3", naive.way, f"{naive.median:,.0f}", f"{ours.median:,.0f}", ratio
        )
    console.print(table)


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Two bars for each cluster and number of nodes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    found = rows(figures)
    picture, axes = plt.subplots(figsize=(8, 3.5))
    for shift, name, pick in ((-0.2, "the naive way", 2), (0.2, "Delimiter", 3)):
        values = [row[pick].median for row in found]  # type: ignore[union-attr]
        axes.bar_label(axes.bar([n + shift for n in range(len(found))], values, 0.4, label=name), fmt="%.0f")
    axes.set_xticks(range(len(found)), [f"{cluster}\n{nodes} of 3" for cluster, nodes, *_ in found])
    axes.set_ylabel("claims a second")
    axes.legend()
    picture.tight_layout()
    picture.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each way works in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=48)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--chart", type=Path, help="draw them (SVG; needs matplotlib)")
    options = parser.parse_args()
    console = Console()
    figures: list[Figure] = []
    try:
        galera = Galera()
        figures += run("Galera", on_galera(galera), options, console)
        galera.close()
    except ServerNotAvailable as reason:
        console.print(f"[red]Galera is left out: {reason}")
    try:
        with ZooKeeperEnsemble(3) as ensemble:
            figures += run("ZooKeeper", on_zookeeper(ensemble), options, console)
    except ServerNotAvailable as reason:
        console.print(f"[red]ZooKeeper is left out: {reason}")
    if not figures:
        sys.exit("no cluster could be started here")
    show(figures, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))
    if options.chart:
        draw(figures, options.chart)


if __name__ == "__main__":
    main()
