"""Bad input as tables: a clear InvalidRequest, before anything reaches a store."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import delimiter.aio
from delimiter import Delimiter, InvalidRequest, validation


@pytest.mark.parametrize("value", ["a", "x" * 255, "é☃ with spaces ", "💾" * 255])
def test_good_names(value: str) -> None:
    assert validation.name(value, "user") == value


@pytest.mark.parametrize(
    "value, complaint",
    [
        ("", "empty"),
        ("x" * 256, "256 characters"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("\x7f", "control character"),
        ("\ud800", "control character"),
        (None, "string"),
        (7, "string"),
        (b"acme", "string"),
    ],
)
def test_bad_names(value: Any, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        validation.name(value, "user")


@pytest.mark.parametrize(
    "value, complaint",
    [
        ({}, "empty"),
        ([("a", 1)], "mapping"),
        (None, "mapping"),
        ({"a": 0}, "from 1"),
        ({"a": -1}, "from 1"),
        ({"a": 2**63}, "from 1"),
        ({"a": True}, "whole number"),
        ({"a": 1.0}, "whole number"),
        ({"a": "1"}, "whole number"),
        ({"a": None}, "whole number"),
        ({"": 1}, "empty"),
        ({1: 1}, "string"),
    ],
)
def test_bad_amounts(value: Any, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        validation.amounts(value)


@pytest.mark.parametrize(
    "value, expected", [(1, 10**6), (0.5, 500_000), (1e-9, 1), (timedelta(minutes=1), 6 * 10**7)]
)
def test_good_times(value: Any, expected: int) -> None:
    assert validation.microseconds(value, "expires_in") == expected


@pytest.mark.parametrize(
    "value",
    [0, -1, 0.0, -0.5, math.inf, math.nan, True, None, "60", timedelta(0), timedelta(days=99_999), 10**400],
)
def test_bad_times(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        validation.microseconds(value, "expires_in")


@pytest.mark.parametrize("value", [-2, 2**63, True, 1.5, "5", None])
def test_bad_limits(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        validation.maximum(value, "max")


def test_a_floor_is_never_unlimited() -> None:
    with pytest.raises(InvalidRequest):
        validation.floor(-1, "min")


@pytest.mark.parametrize(
    "option, value, complaint",
    [
        ("schema", "", "empty"),
        ("schema", "a\nb", "control character"),
        ("schema", 7, "string"),
        ("schema", "50%", "schema contains a %"),
        ("table_prefix", None, "string"),
        ("table_prefix", "a\x00", "control character"),
        ("table_prefix", "x" * 1001, "1001 characters"),
        ("table_prefix", "50%_", "table_prefix contains a %"),
        ("table_prefix", "a%(b)s", "table_prefix contains a %"),
        ("timeout", 0, "above 0"),
        ("timeout", "10", "seconds"),
    ],
)
@pytest.mark.parametrize("door", [Delimiter, delimiter.aio.Delimiter], ids=["sync", "asyncio"])
@pytest.mark.parametrize("scheme", ["sqlite", "postgresql+psycopg", "mysql+pymysql", "zookeeper", "memory"])
def test_bad_options(
    tmp_path: Path, scheme: str, door: Callable[..., Any], option: str, value: Any, complaint: str
) -> None:
    """Before anything is opened. Drivers of servers take a % in a name for the place of a value."""
    url = f"sqlite:///{tmp_path}/quota.db" if scheme == "sqlite" else f"{scheme}://h1:1/quota"
    with pytest.raises(InvalidRequest, match=complaint):
        door(url, **{option: value})
    assert list(tmp_path.iterdir()) == []


def test_the_examples_in_the_docstrings_are_true() -> None:
    import delimiter.desk
    import delimiter.hosting
    import delimiter.model
    import delimiter.quota

    names = {"Delimiter": delimiter.Delimiter, "Request": delimiter.Request}
    for module in (
        validation,
        delimiter,
        delimiter.model,
        delimiter.desk,
        delimiter.quota,
        delimiter.aio,
        delimiter.hosting,
    ):
        result = doctest.testmod(module, extraglobs=names if module is not delimiter.aio else {})
        assert result.failed == 0, module.__name__
