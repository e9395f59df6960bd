"""The databases to measure: those that are named, or SQLite and whichever servers can be started here."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from server_process import ServerNotAvailable
from servers import Servers

__all__ = ["STORES", "stores"]

STORES = ("sqlite", "postgresql", "mariadb")


@contextmanager
def stores(given: Sequence[str], console: Console, names: Sequence[str] = STORES) -> Iterator[dict[str, str]]:
    """The URLs by name. ``given``: pairs ``NAME=URL``; what cannot be started here is left out, and said."""
    if given:
        yield dict(pair.split("=", 1) for pair in given)
        return
    if lies_in_memory(Path(tempfile.gettempdir())):
        console.print(
            f"[red]{tempfile.gettempdir()} lies in memory, where a commit costs nothing: set TMPDIR to a disk"
        )
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        servers = Servers()
        stack.callback(servers.close)
        found = {}
        for name in names:
            if name == "sqlite":
                found[name] = f"sqlite:///{_in_wal_mode(Path(folder) / 'bench.db')}"
                continue
            try:
                found[name] = servers.get(name).create_database().render_as_string(hide_password=False)
            except ServerNotAvailable as reason:
                console.print(f"[red]{name} is left out: {reason}")
        yield found


def lies_in_memory(folder: Path) -> bool:
    """Whether what is written there never comes to a disk."""
    try:
        mounted = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    above = [(len(place), kind) for place, kind in mounted if folder.resolve().is_relative_to(place)]
    return max(above, default=(0, ""))[1] in {"tmpfs", "ramfs"}


def _in_wal_mode(path: Path) -> Path:
    """As a service would have it: readers and the writer do not wait for each other, and every commit is durable."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return path
