"""Listings in files, read line by line: CSV with a column for each resource, or JSON Lines."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, Final, TextIO

from delimiter.errors import InvalidRequest
from delimiter.listing.existing import Existing, storable

__all__ = ["parse", "read"]

_ID: Final = "external_id"
#: The columns that are no resource.
_COLUMNS: Final = (_ID, "project", "user", "created_at")
_KEYS: Final = (*_COLUMNS, "resources")
_AMOUNT: Final = re.compile(r"[0-9]{1,19}")
_SHOWN: Final = 60
#: Characters of one line, or of one record of several lines; it is held in memory as a whole.
_LONGEST: Final = 1024 * 1024
_MOST_COLUMNS: Final = 1000


def read(path: str | PathLike[str]) -> Iterator[Existing]:
    """What a file lists: CSV, or JSON Lines if its name ends in ``.jsonl`` or ``.ndjson``. Nothing of it is kept.

    ``InvalidRequest`` with the file's name and the line if something is wrong there, or if it cannot be read.
    """
    name = fsdecode(path)
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as file:
            yield from parse(_lines(file), name=name)
    except OSError as error:
        raise InvalidRequest(f"{storable(name)} cannot be read: {error.strerror or error}") from error


def _lines(file: TextIO) -> Iterator[str]:
    """No more of a line than shows that it is too long: what is no listing may be one line of any length."""
    while line := file.readline(_LONGEST + 1):
        yield line


def parse(lines: Iterable[str], *, name: str = "listing.csv") -> Iterator[Existing]:
    """The same of lines that somebody else has opened.

    >>> for thing in parse(["external_id,project,storage.gb", "vol-1,acme,10"]):
    ...     print(thing.external_id, thing.project, dict(thing.resources))
    vol-1 acme {'storage.gb': 10}
    >>> list(parse(["external_id,project,storage.gb", "vol-1,acme,many"]))
    Traceback (most recent call last):
      ...
    delimiter.errors.InvalidRequest: listing.csv:2: the amount of storage.gb must be a whole number, not 'many'
    """
    is_json = Path(name).suffix.lower() in (".jsonl", ".ndjson")
    return _json_lines(lines, storable(name)) if is_json else _csv(lines, storable(name))


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Whatever is wrong in here is said to be wrong there."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error}") from error


def _csv(lines: Iterable[str], name: str) -> Iterator[Existing]:
    records = _Records(lines, name)
    columns = next(records, None)
    if columns is None:
        raise InvalidRequest(f"{name} is empty: its first line names the columns, {_ID} among them")
    with _at(f"{name}:1"):
        _check(columns[1])
    for line, cells in records:
        place = f"{name}:{line}"
        with _at(place):
            if len(cells) != len(columns[1]):
                raise InvalidRequest(
                    f"{len(cells)} cells, but the first line names {len(columns[1])} columns"
                )
            yield _of_cells(dict(zip(columns[1], cells, strict=True)), place)


class _Records:
    """Each record with the line it begins on; empty lines are none."""

    def __init__(self, lines: Iterable[str], name: str) -> None:
        self._name = name
        self._begin, self._length = 1, 0
        self._records = csv.reader(self._bounded(lines), strict=True)

    def _bounded(self, lines: Iterable[str]) -> Iterator[str]:
        """A quoted line break goes on with the same record, for as many lines as there are."""
        for line in lines:
            self._length += len(line)
            _refuse_long(self._length, f"{self._name}:{self._begin}")
            yield line

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self._begin, self._length = self._records.line_num + 1, 0
            try:
                record = next(self._records)
            except csv.Error as error:
                raise InvalidRequest(f"{self._name}:{self._begin}: no CSV: {error}") from error
            except UnicodeDecodeError as error:
                raise InvalidRequest(f"{self._name}: not UTF-8, after line {self._begin - 1}") from error
            if record:
                return self._begin, record


def _refuse_long(length: int, place: str) -> None:
    if length > _LONGEST:
        raise InvalidRequest(
            f"{place}: longer than {_LONGEST:,} characters; a listing has a line for each thing"
        )


def _refuse_many(columns: Collection[str], what: str) -> None:
    if len(columns) > _MOST_COLUMNS:
        raise InvalidRequest(f"{len(columns):,} {what}; at most {_MOST_COLUMNS:,} are read")


def _check(columns: list[str]) -> None:
    _refuse_many(columns, "columns")
    for column, times in Counter(columns).items():
        if not column:
            raise InvalidRequest("a column without a name")
        if times > 1:
            raise InvalidRequest(f"two columns are called {column[:_SHOWN]!r}")
    if _ID not in columns:
        raise InvalidRequest(f"no column {_ID}; there are {', '.join(columns)[:_SHOWN]}")
    if not {"project", "user"} & set(columns):
        raise InvalidRequest("no column project and none user: whose are they?")
    if not set(columns) - set(_COLUMNS):
        raise InvalidRequest("no column for a resource, such as storage.gb")


def _of_cells(cells: Mapping[str, str], place: str) -> Existing:
    return _existing(
        {column: cells.get(column) or None for column in _COLUMNS},
        {name: _amount(name, text) for name, text in cells.items() if name not in _COLUMNS and text.strip()},
        place,
    )


def _amount(name: str, text: str) -> int:
    if not _AMOUNT.fullmatch(text.strip()):
        raise InvalidRequest(f"the amount of {name} must be a whole number, not {text[:_SHOWN]!r}")
    return int(text)


def _json_lines(lines: Iterable[str], name: str) -> Iterator[Existing]:
    for number, line in _numbered(lines, name):
        place = f"{name}:{number}"
        with _at(place):
            yield _of_object(line, place)


def _numbered(lines: Iterable[str], name: str) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            _refuse_long(len(line), f"{name}:{number}")
            if line.strip():
                yield number, line
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name}: not UTF-8, after line {number}") from error


def _of_object(line: str, place: str) -> Existing:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"a JSON object must stand here, not {line.strip()[:_SHOWN]}")
    for key in found:
        if key not in _KEYS:
            raise InvalidRequest(f"unknown key {key[:_SHOWN]!r}; known are {', '.join(_KEYS)}")
    return _existing(found, found.get("resources"), place)


def _existing(named: Mapping[str, Any], resources: Any, place: str) -> Existing:
    if isinstance(resources, dict):
        _refuse_many(resources, "resources")
        resources = {name: amount for name, amount in resources.items() if amount is False or amount != 0}
        if not resources:
            raise InvalidRequest("it holds nothing: give the amount of a resource, or leave it out")
    return Existing(
        external_id=named.get(_ID),  # type: ignore[arg-type] # looked through there
        resources=resources,
        project=named.get("project"),
        user=named.get("user"),
        created_at=_time(named.get("created_at")),
        place=place,
    )


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"created_at must be a time like 2026-01-31T10:00:00Z, not {str(value)[:_SHOWN]!r}"
        ) from error
