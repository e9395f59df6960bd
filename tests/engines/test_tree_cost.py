"""A claim at depth 8 takes as many round trips as one at depth 1, and none that reads limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Delimiter

_DEPTHS = (1, 4, 8)


@contextmanager
def recorded(engine: sa.Engine) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(" ".join(statement.split()))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("limited", [True, False])
def test_round_trips_do_not_grow_with_the_depth(store_url: str, *, limited: bool) -> None:
    """Warm. Every ancestor has a limit, or none has: with three resources, a project and a user."""
    engine = sa.create_engine(store_url)
    bundle = {"cores": 1, "ram": 2, "disc": 3}
    with Delimiter(engine) as quota:
        for name in bundle:
            quota.define_resource(name, user_max=1000)
        quota.add_project("d1")
        for level in range(2, max(_DEPTHS) + 1):
            quota.add_project(f"d{level}", parent=f"d{level - 1}")
        for level in range(1, max(_DEPTHS) + 1) if limited else ():
            for name in bundle:
                quota.update_limits(name, project=f"d{level}", max=1000)
        counts = {}
        for depth in _DEPTHS:
            for _ in range(2):  # the first makes the counters, the second finds the way
                quota.claim(bundle, project=f"d{depth}", user="john")
            with recorded(engine) as sent:
                claim = quota.claim(bundle, project=f"d{depth}", user="john")
            assert not [one for one in sent if "delimiter_limits" in one or "delimiter_ancestors" in one]
            with recorded(engine) as released:
                quota.release(claim.id)
            counts[depth] = (len(sent), len(released))
        assert len(set(counts.values())) == 1, counts
    engine.dispose()
