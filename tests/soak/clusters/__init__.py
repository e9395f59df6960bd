"""Clusters under test: how each kind of store is started and reached, and what a nemesis can do to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

#: In this order they are run.
STORES = ("sqlite", "postgresql", "mariadb", "galera", "zookeeper")


@dataclass
class Fault:
    """Something the nemesis does to a store: ``begin`` says what in a few words, ``heal`` puts it right again."""

    name: str
    begin: Callable[[], str]
    heal: Callable[[], None]
    #: For how long, in seconds.
    least: float = 0.5
    most: float = 2.0
    #: A whole node is gone meanwhile.
    takes_a_node: bool = False


class Cluster(Protocol):
    """A store with everything it runs on. Made empty; ``close`` ends it."""

    store: str
    #: Callers may have transactions of their own, and count their own rows.
    transactions: bool
    #: Where it is, round every proxy.
    url: str
    #: The service's own engine goes there, with these options.
    service_url: str
    engine: dict[str, Any]
    #: By how many microseconds its clock and a client's may be read differently.
    tolerance_us: float

    def urls(self, count: int) -> Sequence[tuple[str, str]]:
        """For each of the client processes: the URL for Delimiter, and for the service's own engine."""

    def faults(self) -> list[Fault]:
        """What can be done to the servers and the wires. (What is done to clients is the same everywhere.)"""

    def left(self) -> list[str]:
        """Locks and open transactions that are still there, one line each."""

    def logs(self) -> Iterator[Path]:
        """What the servers wrote."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Cluster)


def start(store: str, folder: Path, servers: Any = None) -> AbstractContextManager[Cluster]:
    """A running cluster. ``servers``: servers of the test session that may be used instead of new ones."""
    module = import_module(f"soak.clusters.{store}")
    return module.start(folder, servers)  # type: ignore[no-any-return]


@contextmanager
def on_server(name: str, servers: Any, make: Callable[[Any], C]) -> Iterator[C]:
    """A cluster on a server of the test session, or, where there is none, on one of its own."""
    from servers import Servers

    own = None if servers is not None else Servers()
    try:
        cluster = make((own if own is not None else servers).get(name))
        try:
            yield cluster
        finally:
            cluster.close()
    finally:
        if own is not None:
            own.close()
