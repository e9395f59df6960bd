"""What ``--json`` prints: the names of the Python interface, unchanged; in ASCII, which every pipe can carry."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from delimiter.model import Level, Scope, Usage

__all__ = ["dumped", "line", "plain", "streamed"]


def plain(value: Any) -> Any:
    """Dataclasses as objects, scopes as they are written, times in ISO 8601, everything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Usage | Level):
            fields["available"] = value.available
        return fields
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Scope):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def dumped(value: Any) -> str:
    return json.dumps(plain(value), indent=2)


def line(value: Any) -> str:
    """One value on one line."""
    return json.dumps(plain(value))


def streamed(values: Iterable[Any]) -> Iterator[str]:
    """One JSON array, one element a line, so that the first can be read before the last is known."""
    separator = "[\n"
    for value in values:
        yield separator + line(value)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"
