"""What callers hand in is looked through here, once, before anything reaches a store.

Every function of a value returns it as engines expect it, or raises :class:`~delimiter.errors.InvalidRequest` with a
sentence that says what is wrong and what would be right.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from delimiter.errors import InvalidRequest
from delimiter.model import CEILING, UNLIMITED

__all__ = ["amounts", "floor", "maximum", "microseconds", "name", "optional_name", "refuse_nobody", "text"]

_LONGEST_NAME: Final = 255
_LONGEST_TEXT: Final = 1000
#: Far beyond any reservation, and near enough that expiry stays a date every store and Python can write down.
_LONGEST_TIME: Final = timedelta(days=36_500)


def name(value: Any, what: str) -> str:
    """A name or id: 1-255 characters, no control characters, compared exactly.

    >>> name("John ", "user")
    'John '
    """
    if type(value) is str and 0 < len(value) <= _LONGEST_NAME and value.isprintable():
        return value  # as most are
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} must be a string, not {type(value).__name__}")
    if not value:
        raise InvalidRequest(f"{what} must not be empty")
    if len(value) > _LONGEST_NAME:
        raise InvalidRequest(f"{what} has {len(value)} characters; at most {_LONGEST_NAME} are allowed")
    _only_text(value, what)
    return value


def optional_name(value: Any, what: str) -> str | None:
    return None if value is None else name(value, what)


def refuse_nobody(project: object, user: object) -> None:
    """Somebody pays: at least one of the two is named."""
    if project is None and user is None:
        raise InvalidRequest("name a project, a user or both: somebody must be charged")


def text(value: Any, what: str) -> str:
    """A unit or a description: free text, at most 1000 characters, may be empty."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} must be a string, not {type(value).__name__}")
    if len(value) > _LONGEST_TEXT:
        raise InvalidRequest(f"{what} has {len(value)} characters; at most {_LONGEST_TEXT} are allowed")
    _only_text(value.replace("\n", " "), what)
    return value


def _only_text(value: str, what: str) -> None:
    for character in value:
        if unicodedata.category(character) in (
            "Cc",
            "Cs",
        ):  # control characters, and halves of surrogate pairs
            raise InvalidRequest(f"{what} contains the control character {character!r}; names are plain text")


def amounts(resources: Any) -> dict[str, int]:
    """A mapping of resource names to whole numbers from 1 to 2**63-1, in order of name.

    >>> amounts({"ram": 2048, "cores": 2})
    {'cores': 2, 'ram': 2048}
    """
    if not isinstance(resources, Mapping):
        raise InvalidRequest(
            f"resources must be a mapping like {{'database.instances': 1}}, not {type(resources).__name__}"
        )
    if not resources:
        raise InvalidRequest("resources must not be empty: name at least one resource and its amount")
    for resource, amount in resources.items():
        name(resource, "a resource's name")
        if isinstance(amount, bool) or not isinstance(amount, int):
            raise InvalidRequest(f"the amount of {resource} must be a whole number, not {amount!r}")
        if not 1 <= amount <= CEILING:
            raise InvalidRequest(f"the amount of {resource} must be from 1 to {CEILING}, not {amount}")
    return {resource: int(resources[resource]) for resource in sorted(resources)}


def maximum(value: Any, what: str) -> int:
    """An upper limit: -1 (unlimited) to 2**63-1."""
    return _whole(value, what, lowest=UNLIMITED)


def floor(value: Any, what: str) -> int:
    """A lower limit: 0 to 2**63-1."""
    return _whole(value, what, lowest=0)


def _whole(value: Any, what: str, *, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{what} must be a whole number, not {value!r}")
    if not lowest <= value <= CEILING:
        unlimited = " (-1: unlimited)" if lowest == UNLIMITED else ""
        raise InvalidRequest(f"{what} must be from {lowest}{unlimited} to {CEILING}, not {value}")
    return int(value)


def microseconds(value: Any, what: str, *, zero: bool = False) -> int:
    """Seconds, or a ``timedelta``, as whole microseconds; above 0 unless ``zero`` is allowed.

    >>> microseconds(1.5, "expires_in")
    1500000
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{what} must be seconds or a timedelta, not {value!r}")
    else:
        seconds = value
    if seconds < 0 or (seconds == 0 and not zero):
        raise InvalidRequest(f"{what} must be above 0, not {value!r}")
    if not seconds <= _LONGEST_TIME.total_seconds():  # so that "not a number" is refused too
        raise InvalidRequest(f"{what} must be at most {_LONGEST_TIME.days} days")
    return math.ceil(seconds * 1_000_000)
