"""What the second service accepts of the first: a reservation pays for one thing, of its owner and of its size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from examples.recipes.reserve_first import VCPU, WITHIN
from examples.recipes.shared import Compute

from delimiter import ClaimConflict, ClaimExpired, ClaimReleased, Delimiter, UnknownClaim
from delimiter.testing import Sandbox, assert_claims_unchanged
from recipes.cloud import Cloud


@pytest.fixture
def quota(delimiter_sandbox: Sandbox) -> Delimiter:
    delimiter_sandbox.quota.define_resource(VCPU, project_max=8)
    return delimiter_sandbox.quota


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with closing(Cloud(tmp_path / "cloud.db")) as cloud:
        yield cloud


@pytest.fixture
def compute(quota: Delimiter, cloud: Cloud) -> Compute:
    return Compute(quota, cloud)


def reserve(quota: Delimiter, id: str = "r") -> str:
    return quota.reserve({VCPU: 4}, project="acme", id=id, expires_in=WITHIN).id


def names(cloud: Cloud) -> list[str]:
    return sorted(thing.name for thing in cloud.things())


@pytest.mark.parametrize(
    "asked, error",
    [
        ({"project": "zeta"}, PermissionError),
        ({"size": 3}, PermissionError),
        ({"size": 5}, PermissionError),
        ({"reservation": "unknown"}, UnknownClaim),
    ],
)
def test_a_reservation_for_something_else(
    quota: Delimiter, cloud: Cloud, compute: Compute, asked: dict[str, Any], error: type[Exception]
) -> None:
    reservation = reserve(quota)
    with assert_claims_unchanged(quota), pytest.raises(error):
        compute.create_server("vm", **{"project": "acme", "size": 4, "reservation": reservation, **asked})
    assert names(cloud) == []


def test_a_reservation_pays_for_one_server(quota: Delimiter, cloud: Cloud, compute: Compute) -> None:
    """Guard: the server's id is the claim's external id, and what nobody pays for is taken down."""
    reservation = reserve(quota)
    for _ in range(2):
        compute.create_server("vm-1", project="acme", size=4, reservation=reservation)
    with pytest.raises(ClaimConflict):
        compute.create_server("vm-2", project="acme", size=4, reservation=reservation)
    assert names(cloud) == ["vm-1"]
    assert quota.usage(project="acme")[VCPU].used == 4


def test_what_another_claim_pays_for_stays(quota: Delimiter, cloud: Cloud, compute: Compute) -> None:
    compute.create_server("vm", project="acme", size=4)
    second = reserve(quota)
    with assert_claims_unchanged(quota), pytest.raises(ClaimConflict):
        compute.create_server("vm", project="acme", size=4, reservation=second)
    assert names(cloud) == ["vm"]


@pytest.mark.parametrize("end, error", [("expires", ClaimExpired), ("is released", ClaimReleased)])
def test_a_reservation_that_ended(
    delimiter_sandbox: Sandbox,
    quota: Delimiter,
    cloud: Cloud,
    compute: Compute,
    end: str,
    error: type[Exception],
) -> None:
    reservation = reserve(quota)
    if end == "expires":
        delimiter_sandbox.clock.advance(WITHIN)
    else:
        quota.release(reservation)
    with pytest.raises(error):
        compute.create_server("vm", project="acme", size=4, reservation=reservation)
    assert names(cloud) == []
