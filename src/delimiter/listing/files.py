"""Listings in files, read line by line: CSV with a column for each resource, or JSON Lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from delimiter.errors import InvalidRequest
from delimiter.listing.existing import Existing

__all__ = ["parse", "read"]

_ID: Final = "external_id"
#: The columns that are no resource.
_COLUMNS: Final = (_ID, "project", "user", "created_at")
_KEYS: Final = (*_COLUMNS, "resources")
_AMOUNT: Final = re.compile(r"[0-9]{1,19}")
_SHOWN: Final = 60


def read(path: str | PathLike[str]) -> Iterator[Existing]:
    """What a file lists: CSV, or JSON Lines if its name ends in ``.jsonl`` or ``.ndjson``. Nothing of it is kept.

    ``InvalidRequest`` with the file's name and the line if something is wrong there, or if it cannot be read.
    """
    name = fspath(path)
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as file:
            yield from parse(file, name=name)
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be read: {error.strerror or error}") from error


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
    return _json_lines(lines, name) if is_json else _csv(lines, name)


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Whatever is wrong in here is said to be wrong there."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error}") from error


def _csv(lines: Iterable[str], name: str) -> Iterator[Existing]:
    records = csv.reader(lines, strict=True)
    columns = next(_records(records, name), None)
    if columns is None:
        raise InvalidRequest(f"{name} is empty: its first line names the columns, {_ID} among them")
    with _at(f"{name}:1"):
        _check(columns[1])
    for line, cells in _records(records, name):
        place = f"{name}:{line}"
        with _at(place):
            if len(cells) != len(columns[1]):
                raise InvalidRequest(
                    f"{len(cells)} cells, but the first line names {len(columns[1])} columns"
                )
            yield _of_cells(dict(zip(columns[1], cells, strict=True)), place)


def _records(records: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it begins on; empty lines are none."""
    while True:
        line = records.line_num + 1
        try:
            record = next(records, None)
        except csv.Error as error:
            raise InvalidRequest(f"{name}:{line}: no CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{name}: not UTF-8, after line {line - 1}") from error
        if record is None:
            return
        if record:
            yield line, record


def _check(columns: list[str]) -> None:
    for column in columns:
        if not column:
            raise InvalidRequest("a column without a name")
        if columns.count(column) > 1:
            raise InvalidRequest(f"two columns are called {column!r}")
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
