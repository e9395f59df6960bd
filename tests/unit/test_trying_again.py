"""When a call is tried again after a conflict: in a transaction of its own, and never in a caller's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from delimiter import Conflict, Delimiter
from delimiter.changes import Change
from delimiter.engine import Answer
from delimiter.engines.memory import MemoryEngine


class Meeting(MemoryEngine):
    """Meets another transaction at the first change."""

    calls = 0

    def apply(self, changes: Sequence[Change], *, connection: Any = None) -> list[Answer]:
        self.calls += 1
        if self.calls == 1:
            raise Conflict("another transaction was in the way")
        return super().apply(changes)


@pytest.fixture
def engine() -> Meeting:
    return Meeting()


@pytest.fixture
def quota(engine: Meeting) -> Delimiter:
    quota = Delimiter(engine, timeout=60)
    quota.define_resource("cores", project_max=1)
    return quota


def test_a_call_of_its_own_is_tried_again(engine: Meeting, quota: Delimiter) -> None:
    """Guard: the loop in ``Desk._run``."""
    quota.claim({"cores": 1}, project="acme")
    assert engine.calls == 2


def test_nothing_is_tried_again_in_a_callers_transaction(engine: Meeting, quota: Delimiter) -> None:
    """Guard: ``Desk._run`` asks for the caller's connection; a retry in it could see left-overs of its own."""
    transaction: Any = object()
    with pytest.raises(Conflict, match="in the way"):
        quota.claim({"cores": 1}, project="acme", connection=transaction)
    assert engine.calls == 1
