"""What ``--json`` prints: the names of the Python interface, unchanged; in ASCII, which every pipe can carry."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from delimiter.model import Usage

__all__ = ["dumped", "plain", "streamed"]


def plain(value: Any) -> Any:
    """Dataclasses as objects, times in ISO 8601, everything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Usage):
            fields["available"] = value.available
        return fields
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def dumped(value: Any) -> str:
    return json.dumps(plain(value), indent=2)


def streamed(values: Iterable[Any]) -> Iterator[str]:
    """One JSON array, one element a line, so that the first can be read before the last is known."""
    separator = "[\n"
    for value in values:
        yield separator + json.dumps(plain(value))
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"
