"""One entry of a listing: a thing that exists, whose it is, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from delimiter import validation
from delimiter.errors import InvalidRequest

__all__ = ["Existing", "Listing", "storable", "utc"]


@dataclass(frozen=True, slots=True)
class Existing:
    """A thing that exists: its own id, what it holds, and whose it is (a project, a user or both).

    ``created_at`` (without an offset: UTC) lets a comparison leave alone what is just being made. ``place`` is where it
    was read, for messages. Raises ``InvalidRequest``.

    >>> Existing("vol-1", {"storage.gb": 10}, project="acme").resources
    {'storage.gb': 10}
    """

    external_id: str
    resources: Mapping[str, int]
    project: str | None = None
    user: str | None = None
    created_at: datetime | None = None
    place: str = field(default="", compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        validation.name(self.external_id, "external_id")
        object.__setattr__(self, "resources", validation.amounts(self.resources))
        validation.optional_name(self.project, "project")
        validation.optional_name(self.user, "user")
        if self.project is None and self.user is None:
            raise InvalidRequest(
                f"{self.external_id!r} belongs to nobody: name its project, its user or both"
            )
        object.__setattr__(self, "created_at", utc(self.created_at))
        object.__setattr__(self, "place", storable(self.place))


#: What exists: entries, or something to call for them. It is called when the claims have been read.
Listing: TypeAlias = Iterable[Existing] | Callable[[], Iterable[Existing]]


def storable(place: str) -> str:
    r"""A place as UTF-8 can write it down: the name of a file may be any bytes.

    >>> print(storable("vol\udce4.csv:2"))
    vol\udce4.csv:2
    """
    return place.encode("utf-8", "backslashreplace").decode("utf-8")


def utc(value: Any) -> datetime | None:
    """A time with its offset; one without is in UTC."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidRequest(f"created_at must be a datetime, not {type(value).__name__}")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value
