"""The ids that claims are given: UUIDs that lie beside each other in an index."""

from __future__ import annotations

import time
import uuid

import pytest

from delimiter import Delimiter
from delimiter.ids import new_id


def test_those_made_later_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the time comes first. (Random ids cost a page each once the index is larger than the memory.)"""
    now = 1_800_000_000_000 * 10**6
    ids = []
    for milliseconds in range(1000):
        monkeypatch.setattr(time, "time_ns", lambda passed=milliseconds: now + passed * 10**6)
        ids.append(new_id())
    assert ids == sorted(ids)
    first = uuid.UUID(ids[0])
    assert first.int >> 80 == now // 10**6


def test_of_one_moment_they_differ_in_all_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000_000 * 10**6)
    ids = [uuid.UUID(new_id()) for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert {(id.version, id.variant) for id in ids} == {(7, uuid.RFC_4122)}
    ever = never = ids[0].int
    for id in ids:
        ever, never = ever | id.int, never & id.int
    assert (ever ^ never).bit_count() == 74


def test_claims_have_them() -> None:
    with Delimiter("memory://") as quota:
        quota.define_resource("cores", project_max=4)
        made = [
            quota.claim({"cores": 1}, project="acme").id,
            quota.reserve({"cores": 1}, project="acme", expires_in=9).id,
        ]
        assert [uuid.UUID(id).version for id in made] == [7, 7]
