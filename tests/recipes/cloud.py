"""A system in which things really are. What it has lies in a file of its own and survives whoever asked for it."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

from examples.recipes.elsewhere import Refused, Thing


class Cloud:
    """What a call did is there when it returns, even if the process is killed then."""

    def __init__(self, path: Path) -> None:
        self._rows = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA synchronous = OFF")  # processes die here, not machines
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS things"
            " (id TEXT PRIMARY KEY, name TEXT UNIQUE, project TEXT, size INTEGER, pending INTEGER)"
        )
        self.refuses = False
        #: Called in the middle of a creation.
        self.meanwhile: Callable[[], object] = int

    def create(self, name: str, *, project: str, size: int) -> Thing:
        if self.refuses:
            raise Refused(name)
        self._rows.execute(
            "INSERT INTO things VALUES (?, ?, ?, ?, NULL) ON CONFLICT (name) DO NOTHING",
            (str(uuid.uuid4()), name, project, size),
        )
        self.meanwhile()
        found = self.find(name)
        assert found is not None
        return found

    def find(self, name: str) -> Thing | None:
        return next((thing for thing in self.things() if thing.name == name), None)

    def delete(self, id: str) -> None:
        self._rows.execute("DELETE FROM things WHERE id = ?", (id,))

    def things(self) -> list[Thing]:
        rows = self._rows.execute("SELECT id, name, project, max(size, coalesce(pending, 0)) FROM things")
        return [Thing(*row) for row in rows.fetchall()]

    def begin_resize(self, name: str, size: int) -> None:
        self._rows.execute("UPDATE things SET pending = nullif(?, size) WHERE name = ?", (size, name))

    def confirm_resize(self, name: str) -> int:
        self._rows.execute(
            "UPDATE things SET size = coalesce(pending, size), pending = NULL WHERE name = ?", (name,)
        )
        return self._size(name)

    def revert_resize(self, name: str) -> int:
        self._rows.execute("UPDATE things SET pending = NULL WHERE name = ?", (name,))
        return self._size(name)

    def _size(self, name: str) -> int:
        found = self.find(name)
        assert found is not None
        return found.size

    def close(self) -> None:
        self._rows.close()
