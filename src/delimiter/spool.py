"""Claims and a listing side by side in a temporary database, so that memory does not grow with their number.

It is SQLite's own kind of temporary file: private, and gone with the process, however that ends.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Any, Final, Self, TypeVar

from delimiter.errors import InvalidRequest, StoreUnavailable
from delimiter.listing import Existing, Mismatch
from delimiter.model import Claim

__all__ = ["Spool", "parts"]

T = TypeVar("T")

_TABLES: Final = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -16000;
CREATE TABLE claims (id TEXT PRIMARY KEY, external TEXT, project TEXT, user TEXT, parent TEXT, state TEXT,
  resources TEXT) WITHOUT ROWID;
CREATE TABLE entries (position INTEGER PRIMARY KEY, external TEXT, project TEXT, user TEXT, created_at TEXT,
  resources TEXT, place TEXT);
CREATE TABLE charged (user TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE kept (position INTEGER PRIMARY KEY, fields TEXT);
"""

_INDEXES: Final = """
CREATE INDEX claims_external ON claims (external) WHERE external IS NOT NULL;
CREATE INDEX entries_external ON entries (external);
"""

_TWICE: Final = """
SELECT external, min(position), max(position) FROM entries GROUP BY external HAVING count(*) > 1 LIMIT 1
"""

_CLAIM: Final = "c.id, c.external, c.project, c.user, c.parent, c.state, c.resources"
_ENTRY: Final = "e.external, e.project, e.user, e.created_at, e.resources, e.place"

#: Where nothing is different at first sight, no row comes out.
_DIFFERENT: Final = """
c.state = 'provisioned' AND (c.resources <> e.resources OR (e.project IS NOT NULL AND e.project IS NOT c.project)
OR (e.user IS NOT NULL AND e.user IS NOT c.user))
"""

#: By external id, or, where no other entry and no other claim goes by that, by the claim's own id.
_DIFFERING: Final = f"""
FROM entries e JOIN claims c ON c.external = e.external WHERE {_DIFFERENT}
UNION ALL
SELECT {_ENTRY}, {_CLAIM}
FROM entries e JOIN claims c ON c.id = e.external WHERE c.external IS NOT e.external AND {_DIFFERENT}
AND NOT EXISTS (SELECT 1 FROM entries o WHERE o.external = c.external)
AND NOT EXISTS (SELECT 1 FROM claims o WHERE o.external = e.external)
"""  # noqa: S608 - our own text

_ORPHANED: Final = """
FROM claims c WHERE c.state = 'provisioned'
AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.external = c.external)
AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.external = c.id
  AND NOT EXISTS (SELECT 1 FROM claims o WHERE o.external = e.external))
"""

_MISSING: Final = """
FROM entries e WHERE NOT EXISTS (SELECT 1 FROM claims c WHERE c.external = e.external)
AND NOT EXISTS (SELECT 1 FROM claims c WHERE c.id = e.external)
"""


class Spool:
    """First the claims, then the entries of a listing; then what differs between them."""

    def __init__(self) -> None:
        with _on_disk():
            # The calls of one comparison come one after the other, though perhaps from several threads.
            self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._db.executescript(_TABLES)
        #: Every resource that the listing names.
        self.resources: set[str] = set()
        self._entries = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __del__(self) -> None:
        self._db.close()

    def add_claims(self, claims: Iterable[Claim]) -> None:
        rows = (
            (c.id, c.external_id, c.project, c.user, c.parent, c.state, _text(c.resources)) for c in claims
        )
        # An id that is pruned and used again between two pages comes twice: the later claim is the one there is.
        self._write("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def add_entries(self, entries: Iterable[Existing]) -> None:
        self._write("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", map(self._row, entries))

    def _row(self, entry: Any) -> tuple[Any, ...]:
        self._entries += 1
        if not isinstance(entry, Existing):
            raise InvalidRequest(
                f"a listing is of delimiter.Existing; entry {self._entries} is a {type(entry).__name__}"
            )
        self.resources.update(entry.resources)
        made = None if entry.created_at is None else entry.created_at.isoformat()
        text = _text(entry.resources)
        return (self._entries, entry.external_id, entry.project, entry.user, made, text, entry.place)

    def _write(self, statement: str, rows: Iterable[Any]) -> None:
        with _on_disk():
            self._db.execute("BEGIN")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")

    def arrange(self) -> None:
        """After the last entry. One thing listed twice is ``InvalidRequest``: which of the two would be true?"""
        with _on_disk():
            self._db.executescript(_INDEXES)
            twice = self._db.execute(_TWICE).fetchone()
        if twice is not None:
            external_id, first, last = twice
            places = " and ".join(self._place(position) for position in (first, last))
            raise InvalidRequest(f"{external_id!r} is listed twice: {places}; each thing is listed once")

    def _place(self, position: int) -> str:
        (place,) = self._db.execute("SELECT place FROM entries WHERE position = ?", [position]).fetchone()
        return place or f"entry {position}"

    # -- what came of it ----------------------------------------------------------------------------------------

    def candidates(self) -> int:
        """How many will come out of the three below."""
        with _on_disk():
            pairs = f"SELECT {_ENTRY}, {_CLAIM} {_DIFFERING}"
            counts = (f"({pairs})", f"(SELECT 1 {_MISSING})")
            others = [self._db.execute(f"SELECT count(*) FROM {one}").fetchone() for one in counts]  # noqa: S608
        return self.orphans() + sum(int(count) for (count,) in others)

    def orphans(self) -> int:
        """How many are orphaned at first sight, whatever they hold."""
        with _on_disk():
            (count,) = self._db.execute(f"SELECT count(*) {_ORPHANED}").fetchone()
        return int(count)

    def provisioned(self, resources: Collection[str]) -> int:
        """How many provisioned claims hold any of these."""
        held = self._read("SELECT resources FROM claims WHERE state = 'provisioned'")
        return sum(not json.loads(text).keys().isdisjoint(resources) for (text,) in held)

    def differing(self) -> Iterator[tuple[Existing, Claim]]:
        """What is listed and claimed, where something is not the same."""
        for row in self._read(f"SELECT {_ENTRY}, {_CLAIM} {_DIFFERING}"):
            yield _existing(row[:6]), _claim(row[6:])

    def orphaned(self) -> Iterator[Claim]:
        """Provisioned claims that the listing does not know."""
        return map(_claim, self._read(f"SELECT {_CLAIM} {_ORPHANED}"))

    def missing(self) -> Iterator[Existing]:
        """Entries for which there was no claim."""
        return map(_existing, self._read(f"SELECT {_ENTRY} {_MISSING}"))

    def entries(self) -> Iterator[Existing]:
        """All of them, in the order of the listing."""
        return map(_existing, self._read(f"SELECT {_ENTRY} FROM entries e ORDER BY position"))  # noqa: S608

    def __len__(self) -> int:
        """How many entries there are."""
        return self._entries

    def charge(self, users: Iterable[str]) -> None:
        """To be remembered: something was claimed for these."""
        self._write("INSERT OR IGNORE INTO charged VALUES (?)", ([user] for user in users))

    def charged(self) -> Iterator[str]:
        """Every user that something was claimed for, once."""
        found = self._read("SELECT user FROM charged ORDER BY user")
        return (user for (user,) in found)

    def keep(self, mismatch: Mismatch) -> None:
        with _on_disk():
            self._db.execute("INSERT INTO kept (fields) VALUES (?)", [json.dumps(asdict(mismatch))])

    def kept(self) -> Iterator[Mismatch]:
        """Those that were kept, in that order."""
        rows = self._read("SELECT fields FROM kept ORDER BY position")
        return (Mismatch(**json.loads(fields)) for (fields,) in rows)

    def _read(self, statement: str) -> Iterator[Any]:
        with _on_disk():
            yield from self._db.execute(statement)


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"the temporary file of the comparison failed: {error}; it needs room in $TMPDIR", retryable=False
        ) from error


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most ``size``."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _text(resources: Mapping[str, int]) -> str:
    return json.dumps(dict(sorted(resources.items())), separators=(",", ":"))


def _existing(row: Any) -> Existing:
    external_id, project, user, made, resources, place = row
    created_at = None if made is None else datetime.fromisoformat(made)
    return Existing(external_id, json.loads(resources), project, user, created_at, place=place)


def _claim(row: Any) -> Claim:
    id, external_id, project, user, parent, state, resources = row
    return Claim(id, json.loads(resources), project, user, parent, state, external_id)
