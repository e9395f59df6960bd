"""Claims a second on clusters, through one node and through all three, beside the naive way on the same, in one run.

Three nodes of Galera and three servers of ZooKeeper are started on this machine, so the figures say how the ways
compare, not what a real cluster reaches. The naive way is what a service would write first: on Galera a conditional
UPDATE for each counter and the INSERTs, begun anew when the cluster refuses the COMMIT; on ZooKeeper one multi for each
claim, with the versions of its counters, begun anew when one of them has changed. The callers are in three processes,
each at one node. Every way claims the same three resources for one hot project and user. Afterwards each is checked:
what is counted is what was admitted, and of a project's last quota no more is given than there is.

    python benchmarks/clusters.py [--seconds 3] [--rounds 3] [--callers 48] [--json FILE] [--chart FILE.svg]
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from delimiter.bench.callers import Turn
from delimiter.bench.crew import Crew
from delimiter.bench.ledgers import ConditionalUpdate
from delimiter.bench.ours import Threads
from delimiter.bench.results import Figure
from delimiter.bench.scenario import CONTESTED, Scenario, project_of, scopes_of
from delimiter.bench.way import Counted, Place, Stopped, ThreadedWay, Way
from galera import Galera
from server_process import ServerNotAvailable
from zookeeper_servers import ZooKeeperEnsemble

NODES = 3


class OneMulti(ThreadedWay):
    """A service's own code on ZooKeeper: read the counters, write them with their versions, and begin anew."""

    name = "one-multi"
    title = "one multi a claim"
    summary = "read every counter, then one multi with their versions; begun anew when one has changed"

    def _client(self) -> KazooClient:
        client = KazooClient(self.place.url, timeout=30)
        client.start(timeout=30)
        return client

    @property
    def _root(self) -> str:
        return f"/{self.place.prefix}"

    def _counters(self, number: int) -> list[str]:
        return [
            f"{self._root}/{name}@{scope}" for name in self.scenario.names for scope in scopes_of(number, 1)
        ]

    def create(self) -> None:
        client = self._client()
        client.ensure_path(f"{self._root}/claims")
        for counter in [*self._counters(0), *self._counters(CONTESTED)]:
            client.create(counter, b"0")
        client.stop()
        client.close()

    def count(self) -> Counted:
        client = self._client()
        client.sync(self._root)
        used = {
            number: {int(client.get(counter)[0]) for counter in self._counters(number)}
            for number in (0, CONTESTED)
        }
        client.stop()
        client.close()
        uneven = any(len(found) > 1 for found in used.values())
        faults = (f"the counters disagree: {used}",) if uneven else ()
        return Counted(max(used[0]), max(used[CONTESTED]), faults)

    def open(self, connections: int) -> None:
        self._zookeeper = self._client()

    def claim(self, number: int) -> bool:
        most = self.scenario.contested_limit if number == CONTESTED else 10**9
        while True:
            with suppress(KazooException):
                counters = self._counters(number)
                found = [self._zookeeper.get(counter) for counter in counters]
                if any(int(data) + 1 > most for data, _ in found):
                    return False
                multi = self._zookeeper.transaction()
                for counter, (data, stat) in zip(counters, found, strict=True):
                    multi.set_data(counter, str(int(data) + 1).encode(), version=stat.version)
                row = {"project": project_of(number), "held": dict.fromkeys(self.scenario.names, 1)}
                multi.create(f"{self._root}/claims/{uuid.uuid4()}", json.dumps(row).encode())
                if not any(isinstance(result, Exception) for result in multi.commit()):
                    return True
            if self.stopping():
                raise Stopped

    def close(self) -> None:
        self._zookeeper.stop()
        self._zookeeper.close()


@dataclass
class Entry:
    """One way through some nodes: an object for each process, and what they did together."""

    nodes: int
    ways: list[Way]
    figure: Figure
    before: Counted


def _entry(cluster: str, kind: type[Way], places: Sequence[Place], scenario: Scenario) -> Entry:
    ways = [kind(places[number % len(places)], scenario) for number in range(NODES)]
    ways[0].create()
    return Entry(len(places), ways, Figure(cluster, scenario, kind), ways[0].count())


def on_galera(cluster: Galera, scenario: Scenario) -> Iterator[Entry]:
    """The ways through one node and through all three, each with a database of its own: they must not meet."""
    for nodes in (1, NODES):
        for kind in (Threads, ConditionalUpdate):
            urls = cluster.urls(cluster.create_database())[:nodes]
            places = [Place(url.render_as_string(hide_password=False), "bench_") for url in urls]
            yield _entry("Galera", kind, places, scenario)


def on_zookeeper(ensemble: ZooKeeperEnsemble, scenario: Scenario) -> Iterator[Entry]:
    """The same, through one server and through all three."""
    for nodes in (1, NODES):
        servers = ensemble.servers[:nodes]
        urls = [ensemble.url(f"bench-{nodes}", servers=[one]) for one in servers]
        # There are no tables whose names could begin otherwise: the path says where it lies.
        yield _entry("ZooKeeper", Threads, [Place(url, "delimiter_") for url in urls], scenario)
        hosts = [f"{one.address}:{one.port}" for one in servers]
        yield _entry("ZooKeeper", OneMulti, [Place(host, f"naive-{nodes}") for host in hosts], scenario)


def take(
    crew: Crew, entry: Entry, options: argparse.Namespace, *, seed: int, race: bool = False
) -> list[Any]:
    claims = entry.figure.scenario.contested_limit // options.callers + 2 if race else None
    turns = [
        Turn(
            way,
            callers,
            flood,
            connections=16,
            seed=seed * 10 + number,
            claims=None if claims is None else (claims,) * callers,
            contested=race,
        )
        for number, (way, (callers, flood)) in enumerate(
            zip(entry.ways, entry.figure.scenario.shares(), strict=True)
        )
    ]
    return crew.take(turns, warm_up=0.5, seconds=options.seconds)


def run(cluster: str, entries: list[Entry], options: argparse.Namespace, console: Console) -> list[Entry]:
    """Each way in turn, round by round, so that a machine whose speed drifts slows all alike."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )
    with Crew(NODES) as crew, bar:
        task = bar.add_task("", total=len(entries) * (options.rounds + 1))
        for number in range(options.rounds):
            for entry in entries:
                bar.update(task, description=f"{cluster}, {entry.nodes} of {NODES}, {entry.figure.way.title}")
                entry.figure.add(take(crew, entry, options, seed=number))
                bar.advance(task)
        for entry in entries:
            bar.update(task, description=f"{cluster}: the last of a quota, and a look at what is counted")
            outcomes = take(crew, entry, options, seed=-1, race=True)
            entry.figure.all_admitted += sum(outcome.callers.all_admitted for outcome in outcomes)
            entry.figure.check(entry.before, entry.ways[0].count())
            bar.advance(task)
    return entries


def pairs(entries: Sequence[Entry]) -> list[tuple[str, int, Figure, Figure]]:
    """For each cluster and number of nodes the naive way and Delimiter."""
    found: dict[tuple[str, int], list[Figure]] = {}
    for entry in entries:
        found.setdefault((entry.figure.group, entry.nodes), []).append(entry.figure)
    return [(cluster, nodes, naive, ours) for (cluster, nodes), (ours, naive) in found.items()]


def show(entries: Sequence[Entry], console: Console) -> None:
    callers = entries[0].figure.scenario.callers
    table = Table(
        title=f"Claims a second: 3 resources, one hot project and user, {callers} callers in {NODES} processes"
    )
    for column in ("cluster", "through", "the naive way", "Delimiter", "ratio"):
        table.add_column(column, justify="left" if column == "cluster" else "right")
    for cluster, nodes, naive, ours in pairs(entries):
        rate = f"{ours.median / naive.median:.1f}" if naive.median else ""
        table.add_row(cluster, f"{nodes} of {NODES}", f"{naive.median:,.0f}", f"{ours.median:,.0f}", rate)
    console.print(table)


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Bars for each cluster and number of nodes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    found = pairs(entries)
    picture, axes = plt.subplots(figsize=(8, 3.5))
    for shift, name, pick in ((-0.2, "the naive way", 2), (0.2, "Delimiter", 3)):
        values = [row[pick].median for row in found]  # type: ignore[union-attr]
        axes.bar_label(axes.bar([n + shift for n in range(len(found))], values, 0.4, label=name), fmt="%.0f")
    axes.set_xticks(range(len(found)), [f"{cluster}\n{nodes} of 3" for cluster, nodes, *_ in found])
    axes.set_ylabel("claims a second")
    axes.legend()
    picture.tight_layout()
    picture.savefig(path)


def as_json(entries: Sequence[Entry]) -> dict[str, Any]:
    figures = [
        {"cluster": entry.figure.group, "nodes": entry.nodes, **entry.figure.as_json(None)}
        for entry in entries
    ]
    return {"format": 1, "figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each way works in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=48)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--chart", type=Path, help="draw them (SVG; needs matplotlib)")
    options = parser.parse_args()
    console = Console()
    scenario = Scenario("hot", options.callers, NODES)
    entries: list[Entry] = []
    try:
        galera = Galera()
        entries += run("Galera", list(on_galera(galera, scenario)), options, console)
        galera.close()
    except ServerNotAvailable as reason:
        console.print(f"[red]Galera is left out: {reason}")
    try:
        with ZooKeeperEnsemble(3) as ensemble:
            entries += run("ZooKeeper", list(on_zookeeper(ensemble, scenario)), options, console)
    except ServerNotAvailable as reason:
        console.print(f"[red]ZooKeeper is left out: {reason}")
    if not entries:
        sys.exit("no cluster could be started here")
    show(entries, console)
    if options.json:
        options.json.write_text(json.dumps(as_json(entries), indent=1) + "\n")
    if options.chart:
        draw(entries, options.chart)
    faults = [f"{entry.figure.way.title}: {fault}" for entry in entries for fault in entry.figure.faults]
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
