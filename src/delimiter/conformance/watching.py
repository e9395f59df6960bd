"""Events: each way in which a scope comes to hold more than its limit, or no longer does, is told once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from delimiter import Delimiter, Event, OverLimit, Resource, Scope
from delimiter.conformance.contract import OWNERS, Contract, Whom, move_time, plant
from delimiter.edits import AdoptAncestors, AdoptLimits, Define, LimitChange, SetLimit

if TYPE_CHECKING:
    from delimiter.engine import Engine

#: What a test says of an event: the kind, the scope, the limit, the one before, and what is used.
Told: TypeAlias = tuple[str, str, int, int, int | None]

_CHANGED: Final = "limit_changed"
_OVER: Final = "over_quota"
_BACK: Final = "back_within_quota"


class _Reader:
    """Reads on from where it stopped."""

    def __init__(self, quota: Delimiter) -> None:
        self._quota = quota
        self.seq = 0

    def news(self) -> list[Told]:
        events = list(self._quota.events(after=self.seq))
        assert [one.seq for one in events] == [self.seq + 1 + n for n in range(len(events))]
        assert all(one.resource == "cores" for one in events)
        self.seq += len(events)
        return [(one.kind, one.scope, one.limit, one.previous_limit, one.used) for one in events]

    def set_of_news(self) -> list[Told]:
        """Of one change, in no order but that limits come before crossings."""
        news = self.news()
        assert [one[0] == _CHANGED for one in news] == sorted(
            (one[0] == _CHANGED for one in news), reverse=True
        )
        return sorted(news, key=repr)


class EventContract(Contract):
    @pytest.fixture
    def reader(self, handles: list[Delimiter]) -> _Reader:
        """Reads through the other handle."""
        return _Reader(handles[1])

    @pytest.mark.parametrize("scope", OWNERS, ids=str)
    def test_a_limit_is_lowered_and_raised(self, quota: Delimiter, reader: _Reader, scope: Whom) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 5}, project="acme", user="john")
        assert reader.news() == []
        name = str(Scope.of(**scope))
        for limit, expected in [
            (5, [(_CHANGED, name, 5, -1, 5)]),
            (3, [(_CHANGED, name, 3, 5, 5), (_OVER, name, 3, 5, 5)]),
            (1, [(_CHANGED, name, 1, 3, 5)]),
            (4, [(_CHANGED, name, 4, 1, 5)]),
            (4, []),
            (9, [(_CHANGED, name, 9, 4, 5), (_BACK, name, 9, 4, 5)]),
            (0, [(_CHANGED, name, 0, 9, 5), (_OVER, name, 0, 9, 5)]),
            (None, [(_CHANGED, name, -1, 0, 5), (_BACK, name, -1, 0, 5)]),
        ]:
            quota.update_limits("cores", **scope, max=limit)
            assert reader.news() == expected, limit

    def test_events_are_numbered_and_dated(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 2}, project="acme")
        begun = datetime.now(UTC)
        quota.update_limits("cores", project="acme", max=1)
        quota.define_resource("cores", project_max=7)
        changed, over, default = quota.events()
        assert (changed.seq, over.seq, default.seq) == (1, 2, 3)
        assert changed == Event(1, _CHANGED, "cores", "project:acme", 1, -1, 2, changed.at)
        assert over == Event(2, _OVER, "cores", "project:acme", 1, -1, 2, over.at)
        assert default == Event(3, _CHANGED, "cores", "project:*", 7, -1, None, default.at)
        for event in (changed, over, default):
            assert event.at.tzinfo is not None
            assert abs(event.at - begun) < timedelta(minutes=5)
        assert list(quota.events(after=2)) == [default]
        assert list(quota.events(after=3)) == list(quota.events(after=99)) == []

    def test_claims_within_the_limits_are_no_news(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores", max=9, project_max=5, user_max=5)
        plant(quota)
        quota.update_limits("cores", project="shop", max=5)  # as the default is
        quota.update_limits("cores", project="web", min=1)
        quota.claim({"cores": 5}, project="shop", user="john", id="c")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="shop", user="john")
        quota.move_project("web", parent="zeta")
        quota.transfer("c", project="dev")
        quota.release("c")
        quota.update_limits("cores", project="shop", max=None)
        quota.define_resource("cores", max=9, project_max=5, user_max=5, project_min=1, description="more")
        quota.define_resource("cores", max=9, project_max=5, user_max=5)
        quota.undefine_resource("cores")
        quota.define_resource("cores", max=1)
        assert reader.news() == []

    def test_every_scope_that_comes_back_is_told(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores", max=9, project_max=9, user_max=9)
        plant(quota)
        quota.claim({"cores": 6}, project="shop", user="john", id="c")
        quota.define_resource("cores", max=4, project_max=3, user_max=5)
        assert reader.set_of_news() == sorted(
            [
                (_CHANGED, "total", 4, 9, 6),
                (_CHANGED, "project:*", 3, 9, None),
                (_CHANGED, "user:*", 5, 9, None),
                (_OVER, "total", 4, 9, 6),
                *((_OVER, f"project:{one}", 3, 9, 6) for one in ("acme", "web", "shop")),
                (_OVER, "user:john", 5, 9, 6),
            ],
            key=repr,
        )
        quota.resize("c", {"cores": 5})
        assert reader.news() == [(_BACK, "user:john", 5, 5, 5)]
        quota.resize("c", {"cores": 3})
        assert reader.set_of_news() == sorted(
            [
                (_BACK, "total", 4, 4, 3),
                *((_BACK, f"project:{one}", 3, 3, 3) for one in ("acme", "web", "shop")),
            ],
            key=repr,
        )
        quota.release("c")
        assert reader.news() == []

    def test_a_changed_default_does_not_concern_own_limits(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores", max=20, user_max=9)
        quota.claim({"cores": 6}, user="john")
        quota.claim({"cores": 6}, user="mary")
        quota.update_limits("cores", user="john", max=6)
        quota.update_limits("cores", user="mary", min=1)  # its maximum is still the default
        quota.update_limits("cores", max=12)
        reader.news()
        quota.define_resource("cores", max=1, user_max=5)
        assert reader.news() == [(_CHANGED, "user:*", 5, 9, None), (_OVER, "user:mary", 5, 9, 6)]
        quota.update_limits("cores", user="john", max=None)
        assert reader.news() == [(_CHANGED, "user:john", 5, 6, 6), (_OVER, "user:john", 5, 6, 6)]
        quota.define_resource("cores", max=1, user_max=-1)
        assert reader.set_of_news() == sorted(
            [
                (_CHANGED, "user:*", -1, 5, None),
                (_BACK, "user:john", -1, 5, 6),
                (_BACK, "user:mary", -1, 5, 6),
            ],
            key=repr,
        )

    def test_a_default_comes_and_goes_along_the_tree(self, quota: Delimiter, reader: _Reader) -> None:
        """What an ancestor uses is told truly, also where its last limit goes and nothing counts it any more."""
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 2}, project="shop")
        quota.claim({"cores": 1}, project="dev")
        for limit, before, kind in ((1, -1, _OVER), (-1, 1, _BACK)):
            quota.define_resource("cores", project_max=limit)
            held = {"acme": 3, "web": 2, "shop": 2}
            crossings = [(kind, f"project:{one}", limit, before, held[one]) for one in held]
            assert reader.set_of_news() == sorted(
                [(_CHANGED, "project:*", limit, before, None), *crossings], key=repr
            )

    def test_a_release_brings_back(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 3}, project="shop", id="root")
        quota.reserve({"cores": 2}, project="dev", id="child", parent="root", expires_in=600)
        quota.claim({"cores": 2}, project="dev", id="other")
        quota.update_limits("cores", project="acme", max=3)
        reader.news()
        quota.provision("child")
        quota.release("other")
        assert reader.news() == []
        quota.release("root")
        quota.release("root")
        assert reader.news() == [(_BACK, "project:acme", 3, 3, 0)]

    def test_transfers_bring_back(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 5}, project="shop", user="john", id="c")
        quota.update_limits("cores", project="acme", max=4)
        quota.update_limits("cores", project="web", max=3)
        quota.update_limits("cores", user="john", max=2)
        reader.news()
        quota.transfer("c", project="dev", user="john")
        assert reader.news() == [(_BACK, "project:web", 3, 3, 0)]
        quota.transfer("c", project="lab", user="john")
        assert reader.news() == [(_BACK, "project:acme", 4, 4, 0)]
        quota.transfer("c", project="lab", user="mary")
        assert reader.news() == [(_BACK, "user:john", 2, 2, 0)]

    def test_moves_bring_back(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 5}, project="shop")
        quota.claim({"cores": 3}, project="dev")
        for project, limit in {"acme": 7, "web": 4, "shop": 4}.items():
            quota.update_limits("cores", project=project, max=limit)
        reader.news()
        quota.move_project("shop", parent="acme")
        assert reader.news() == [(_BACK, "project:web", 4, 4, 0)]
        quota.move_project("shop", parent=None)
        assert reader.news() == [(_BACK, "project:acme", 7, 7, 3)]

    def test_a_removed_projects_limit_is_told(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores", project_max=9)
        plant(quota)
        quota.update_limits("cores", project="shop", max=4)
        quota.update_limits("cores", project="lab", max=9)
        reader.news()
        quota.remove_project("shop")
        quota.remove_project("lab")
        assert reader.news() == [(_CHANGED, "project:shop", 9, 4, 0)]

    def test_what_runs_out_brings_back(
        self, quota: Delimiter, handles: list[Delimiter], engine: Engine, reader: _Reader
    ) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 2}, project="shop")
        for seconds in (60, 120):
            quota.reserve({"cores": 2}, project="shop", expires_in=seconds)
        quota.update_limits("cores", project="acme", max=2)
        quota.update_limits("cores", project="shop", max=4)
        reader.news()
        for expected in (
            [(_BACK, "project:shop", 4, 4, 4)],
            [(_BACK, "project:acme", 2, 2, 2)],
        ):
            for one in {id(q._engine): q._engine for q in handles}.values():  # noqa: SLF001 - no verb moves time
                move_time(one, 60)
            quota.expire_reservations()
            assert reader.news() == expected

    def test_what_comes_from_elsewhere_is_told(
        self, quota: Delimiter, engine: Engine, reader: _Reader
    ) -> None:
        quota.define_resource("cores", project_max=6)
        plant(quota)
        quota.claim({"cores": 5}, project="shop")
        quota.claim({"cores": 3}, project="lab")
        zeta, now = Scope("project", "zeta"), engine.now()
        engine.adopt(AdoptLimits(zeta, {"cores": 7}, as_of=now))
        engine.adopt(AdoptLimits(zeta, {"cores": 2}, as_of=now))  # not later: nothing
        assert reader.news() == [(_CHANGED, "project:zeta", 7, 6, 3)]
        engine.adopt(AdoptAncestors("web", ("zeta",), as_of=now))
        assert reader.news() == [(_OVER, "project:zeta", 7, 7, 8)]
        engine.adopt(AdoptLimits(zeta, {"cores": 8}, as_of=now + 1))
        assert reader.news() == [(_CHANGED, "project:zeta", 8, 7, 8), (_BACK, "project:zeta", 8, 7, 8)]
        engine.adopt(AdoptLimits(zeta, {}, as_of=now + 2))
        assert reader.news() == [(_CHANGED, "project:zeta", 6, 8, 8), (_OVER, "project:zeta", 6, 8, 8)]
        engine.adopt(AdoptAncestors("web", ("acme",), as_of=now + 1))
        assert reader.news() == [(_BACK, "project:zeta", 6, 6, 3)]

    def test_a_list_of_edits_tells_all_of_them(self, quota: Delimiter, reader: _Reader) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 5}, project="acme", user="john")
        quota.edit(
            [
                SetLimit("cores", Scope("project", "acme"), LimitChange(max=4)),
                SetLimit("cores", Scope("project", "zeta"), LimitChange(max=4)),
                SetLimit("cores", Scope("user", "john"), LimitChange(max=3)),
                Define(Resource("cores", "cores", max=9)),
            ]
        )
        assert sorted(reader.news(), key=repr) == sorted(
            [
                (_CHANGED, "project:acme", 4, -1, 5),
                (_CHANGED, "project:zeta", 4, -1, 0),
                (_CHANGED, "user:john", 3, -1, 5),
                (_CHANGED, "total", 9, -1, 5),
                (_OVER, "project:acme", 4, -1, 5),
                (_OVER, "user:john", 3, -1, 5),
            ],
            key=repr,
        )
