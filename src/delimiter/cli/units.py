"""Amounts and times as people write them: ``20TB``, ``512MiB``, ``10m``. Converted exactly, or refused."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from typing import Final

from delimiter.errors import InvalidRequest
from delimiter.model import UNLIMITED

__all__ = ["amount", "duration", "limit"]

#: Nothing that a 64-bit counter can hold is longer; it also keeps absurd numbers away from the arithmetic.
_LONGEST: Final = 64

_QUANTITY: Final = re.compile(r"(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?)\s*(?P<unit>\S.*)?")
_SIZE: Final = re.compile(r"(?P<prefix>[kmgtpe]?)(?P<binary>i?)(?P<byte>b)", re.IGNORECASE)
_PREFIXES: Final = " kmgtpe"

_TIME: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
_SECONDS: Final[dict[str, Fraction | int]] = {
    "ms": Fraction(1, 1000),
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
}
_LONGEST_TIME: Final = 10**11


def amount(text: str, *, resource: str, unit: str) -> int:
    """A whole amount in the resource's own unit.

    >>> amount("20TB", resource="storage.gb", unit="GB")
    20000
    >>> amount("25", resource="database.instances", unit="instances")
    25
    """
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        raise InvalidRequest(
            f"{text[:_LONGEST]!r} is no amount of {resource}; write a whole number, or one like 20TB"
        )
    number = Fraction(match["number"].replace("_", ""))
    given = match["unit"]
    if given is None or given.casefold() == unit.casefold():
        return _whole(number, text, resource=resource, unit=unit)
    return _whole(
        number * _factor(given, text, resource=resource, unit=unit), text, resource=resource, unit=unit
    )


def limit(text: str, *, resource: str, unit: str) -> int:
    """An amount, or ``unlimited``.

    >>> limit("unlimited", resource="storage.gb", unit="GB")
    -1
    """
    if text.strip().casefold() in ("unlimited", str(UNLIMITED)):
        return UNLIMITED
    if text.strip().startswith("-"):
        raise InvalidRequest(f"a limit of {resource} is 0 or more, or unlimited (-1), not {text}")
    return amount(text, resource=resource, unit=unit)


def has_unit(text: str) -> bool:
    """Whether the resource's own unit must be known to read this."""
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    return match is not None and match["unit"] is not None


def _factor(given: str, text: str, *, resource: str, unit: str) -> Fraction:
    size = _bytes(given, text)
    if size is None:
        counted = f"counted in {unit}" if unit else "a plain number, without a unit"
        raise InvalidRequest(f"{text}: {given!r} is no unit for {resource}, which is {counted}")
    own = _bytes(unit, unit) if unit else None
    if own is None:
        counted = f"is counted in {unit}" if unit else "has no unit"
        raise InvalidRequest(
            f"{text} cannot be converted: {resource} {counted}. Give a plain number, or define the resource with a"
            " unit like GB or MiB"
        )
    return Fraction(size, own)


def _bytes(name: str, text: str) -> int | None:
    if name.casefold() in ("byte", "bytes"):
        return 1
    match = _SIZE.fullmatch(name)
    if match is None or (match["binary"] and not match["prefix"]):
        return None
    if match["byte"] == "b" and not name.islower():
        raise InvalidRequest(f"{text}: {name} would be bits; write {name[:-1]}B")
    power = _PREFIXES.index(match["prefix"].lower() or " ")
    return int((1024 if match["binary"] else 1000) ** power)


def _whole(number: Fraction, text: str, *, resource: str, unit: str) -> int:
    if number.denominator == 1:
        return int(number)
    below = number.numerator // number.denominator
    nearest = f"the nearest are {below} and {below + 1}" if below else "the nearest is 1"
    of = f" of {unit}" if unit else ""
    raise InvalidRequest(f"{text} is not a whole number{of}, in which {resource} is counted; {nearest}")


def duration(text: str) -> timedelta:
    """Seconds, or a time with units: ``90s``, ``10m``, ``1h30m``, ``2d``, ``1w``.

    >>> duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    stripped = text.strip()
    if not stripped or len(stripped) > _LONGEST:
        raise _no_time(text)
    seconds = Fraction(0)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", stripped):
        seconds = Fraction(stripped)
    elif re.fullmatch(rf"(?:{_TIME.pattern})+", stripped):
        seconds = sum(
            (Fraction(number) * _SECONDS[unit] for number, unit in _TIME.findall(stripped)), Fraction(0)
        )
    else:
        raise _no_time(text)
    if seconds > _LONGEST_TIME:
        raise InvalidRequest(f"{text} is too long a time")
    return timedelta(microseconds=round(seconds * 1_000_000))


def _no_time(text: str) -> InvalidRequest:
    return InvalidRequest(f"{text[:_LONGEST]!r} is no time; write for example 90s, 10m, 2h or 1d")
