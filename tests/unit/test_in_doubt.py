"""Edits whose COMMIT was never answered: what a retry finds may be its own doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from delimiter import Conflict, Delimiter, Overage, StoreUnavailable
from delimiter.edits import Edit
from delimiter.engines.memory import MemoryEngine


class Unanswered(MemoryEngine):
    """Makes the first edit and loses the answer."""

    loses = lost = False

    def edit(self, edits: Sequence[Edit], **options: Any) -> list[Overage]:
        overages = super().edit(edits, **options)
        if self.loses and not self.lost:
            self.lost = True
            raise StoreUnavailable("no answer to COMMIT", in_doubt=True)
        return overages


def test_an_edit_in_doubt_is_not_taken_for_another_s():
    engine = Unanswered()
    quota = Delimiter(engine, timeout=1)
    quota.define_resource("cores")
    engine.loses = True
    with pytest.raises(StoreUnavailable, match="it may have happened: look") as caught:
        quota.update_limits("cores", project="acme", max=5, if_version=quota.version())
    assert caught.value.in_doubt
    assert quota.limits(project="acme") == {"cores": 5}


def test_an_edit_of_an_older_version_is_refused_at_once():
    quota = Delimiter("memory://", timeout=60)
    seen = quota.version()
    quota.define_resource("cores")
    with pytest.raises(Conflict, match="edited since") as caught:
        quota.update_limits("cores", project="acme", max=5, if_version=seen)
    assert not caught.value.retryable


def test_a_removal_in_doubt_is_not_taken_for_unknown():
    engine = Unanswered()
    quota = Delimiter(engine, timeout=1)
    quota.add_project("acme")
    engine.loses = True
    with pytest.raises(StoreUnavailable, match="it may have happened: look"):
        quota.remove_project("acme")
    assert quota.projects() == []
