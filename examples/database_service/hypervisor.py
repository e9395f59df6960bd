"""A stand-in for the hypervisor: what really exists, in a store of its own, slow, and now and then deadly.

No transaction spans this store and the service's database, as with any real one. Two things make that bearable, and
whoever adopts Delimiter needs them of their own hypervisor too: the service gives each thing its **name**, so that to
make it again is harmless; and there is a **listing**.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event

#: No host has more.
LARGEST_VM_GB = 8


class BuildFailed(Exception):
    """It cannot be made. To try again does not help."""


@dataclass(frozen=True)
class Thing:
    name: str
    kind: str  # "vm", with gigabytes of memory, or "volume", with gigabytes of storage
    gb: int
    external_id: str


class Hypervisor:
    def __init__(self, path: str, *, build_seconds: float = 0.0, crash: float = 0.0) -> None:
        self._path = path
        self._build_seconds = build_seconds
        self._crash = crash
        with self._store() as store:
            store.execute("PRAGMA journal_mode=WAL")
            store.execute(
                "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY, kind TEXT, gb INT, external_id TEXT)"
            )

    def ensure(self, name: str, kind: str, gb: int) -> str:
        """There is such a thing of that size, whether there was one before or not. Returns the id it has here."""
        if kind == "vm" and gb > LARGEST_VM_GB:
            raise BuildFailed(f"no host has {gb} GB of memory")
        self._perhaps_die()
        Event().wait(self._build_seconds)  # no transaction is open anywhere meanwhile
        with self._store() as store:
            store.execute(
                "INSERT INTO things VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET gb = excluded.gb",
                (name, kind, gb, f"{kind}-{uuid.uuid4().hex[:12]}"),
            )
            (external_id,) = store.execute(
                "SELECT external_id FROM things WHERE name = ?", (name,)
            ).fetchone()
        self._perhaps_die()
        return str(external_id)

    def destroy(self, name: str) -> None:
        """There is no such thing any more, whether there was one before or not."""
        self._perhaps_die()
        with self._store() as store:
            store.execute("DELETE FROM things WHERE name = ?", (name,))
        self._perhaps_die()

    def things(self) -> list[Thing]:
        """All that exists."""
        with self._store() as store:
            return [Thing(*row) for row in store.execute("SELECT name, kind, gb, external_id FROM things")]

    @contextmanager
    def _store(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as store, store:
            yield store

    def _perhaps_die(self) -> None:
        """As if somebody had pulled the plug of the worker that is calling."""
        if random.random() < self._crash:  # noqa: S311
            os.kill(os.getpid(), signal.SIGKILL)
