"""Amounts and times as people write them. What must never happen: an amount that is not exactly what was written."""

from __future__ import annotations

from datetime import timedelta

import pytest

from delimiter import InvalidRequest
from delimiter.cli import units


@pytest.mark.parametrize(
    "text, unit, expected",
    [
        ("25", "", 25),
        ("20_000", "GB", 20_000),
        (" 25 ", "instances", 25),
        ("4instances", "instances", 4),
        ("4 Instances", "instances", 4),
        ("2.0", "", 2),
        ("20TB", "GB", 20_000),
        ("20 TB", "GB", 20_000),
        ("1.5TB", "GB", 1500),
        ("1.5tb", "gb", 1500),
        ("0.5TB", "GB", 500),
        ("1PB", "TB", 1000),
        ("1EB", "B", 10**18),
        ("1GB", "kB", 1_000_000),
        ("1GB", "KB", 1_000_000),
        ("1GiB", "MiB", 1024),
        ("512MiB", "MiB", 512),
        ("0.5GiB", "MiB", 512),
        ("1TiB", "KiB", 2**30),
        ("1GiB", "B", 2**30),
        ("1GiB", "bytes", 2**30),
        ("1000 bytes", "kB", 1),
        ("125MiB", "MB", None),
        ("15625KiB", "kB", 16_000),
        ("1000MB", "GB", 1),
        ("9223372036854775807", "", 2**63 - 1),
        ("0", "GB", 0),
    ],
)
def test_amounts(text, unit, expected):
    if expected is None:
        with pytest.raises(InvalidRequest, match="not a whole number"):
            units.amount(text, resource="storage", unit=unit)
    else:
        assert units.amount(text, resource="storage", unit=unit) == expected


@pytest.mark.parametrize(
    "text, unit, says",
    [
        ("", "GB", "no amount"),
        ("GB", "GB", "no amount"),
        ("-1", "GB", "no amount"),
        ("1e3", "GB", "no unit for storage"),
        ("1,000", "GB", "no amount|no unit"),
        ("0x10", "GB", "no unit"),
        ("٣", "GB", "no amount"),
        ("1.5", "GB", "the nearest are 1 and 2"),
        ("512MB", "GB", "the nearest is 1"),
        ("512MiB", "GB", "the nearest is 1"),
        ("1.5instances", "instances", "the nearest are 1 and 2"),
        ("20TB", "", "has no unit"),
        ("20TB", "instances", "counted in instances"),
        ("3apples", "GB", "'apples' is no unit for storage, which is counted in GB"),
        ("3apples", "", "a plain number"),
        ("20T", "GB", "'T' is no unit"),
        ("20Tb", "GB", "bits; write TB"),
        ("20Gib", "GiB", None),
        ("1iB", "GB", "no unit"),
        ("9" * 5000, "", "no amount"),
    ],
)
def test_amounts_that_are_refused(text, unit, says):
    if says is None:  # a unit that is the resource's own, but for its case, is that unit
        assert units.amount(text, resource="storage", unit=unit) == 20
        return
    with pytest.raises(InvalidRequest, match=says):
        units.amount(text, resource="storage", unit=unit)


@pytest.mark.parametrize(
    "text, expected",
    [("unlimited", -1), ("Unlimited", -1), ("-1", -1), ("0", 0), ("20TB", 20_000)],
)
def test_limits(text, expected):
    assert units.limit(text, resource="storage", unit="GB") == expected


@pytest.mark.parametrize("text", ["-2", "none", "", "-1TB", "-"])
def test_limits_that_are_refused(text):
    with pytest.raises(InvalidRequest):
        units.limit(text, resource="storage", unit="GB")


@pytest.mark.parametrize(
    "text, unit", [("5", False), ("5GB", True), ("nonsense", False), ("9" * 5000, False)]
)
def test_whether_an_amount_has_a_unit(text, unit):
    assert units.has_unit(text) is unit


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("0", 0),
        ("0.5", 0.5),
        (" 10m ", 600),
    ],
)
def test_durations(text, seconds):
    assert units.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "10x", "m", "1h 30m", "1e9", "inf", "nan", "9" * 60, "1d" * 40, "10M"]
)
def test_durations_that_are_refused(text):
    with pytest.raises(InvalidRequest):
        units.duration(text)
