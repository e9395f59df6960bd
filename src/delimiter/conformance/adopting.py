"""Limits and places in the tree that come from elsewhere: whichever was fetched later wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from delimiter import Delimiter, OverLimit, OwnLimit, Project, Scope, Usage
from delimiter.conformance.contract import Contract, move_time, plant, used
from delimiter.edits import AdoptAncestors, Adoption, AdoptLimits

if TYPE_CHECKING:
    from delimiter.engine import Engine


class AdoptionContract(Contract):
    def test_a_scope_has_exactly_what_was_adopted(self, handles: list[Delimiter], engine: Engine) -> None:
        quota, other = handles
        for name in ("cores", "discs", "ram"):
            quota.define_resource(name, project_max=9)
        quota.update_limits("cores", project="acme", max=1, min=1)
        quota.update_limits("ram", project="acme", max=2, min=2)
        quota.update_limits("ram", project="zeta", max=2)
        other.claim({"cores": 1}, project="acme")
        acme = Scope("project", "acme")
        engine.adopt(AdoptLimits(acme, {"cores": 5, "discs": -1, "nothing": 3}, as_of=engine.now()))
        assert quota.limits(project="acme") == {"cores": 5, "discs": -1, "ram": 9}
        assert quota.limits(project="zeta") == {"cores": 9, "discs": 9, "ram": 2}
        assert quota.own_limits() == [
            OwnLimit("cores", acme, 5, 1),
            OwnLimit("discs", acme, -1, None),
            OwnLimit("ram", acme, None, 2),
            OwnLimit("ram", Scope("project", "zeta"), 2, None),
        ]
        other.claim({"cores": 4}, project="acme")
        with pytest.raises(OverLimit):
            other.claim({"cores": 1}, project="acme")

    @pytest.mark.parametrize(
        "scope", [Scope.total(), Scope("project", "acme"), Scope("user", "john")], ids=str
    )
    def test_what_was_fetched_later_wins(
        self, handles: list[Delimiter], engine: Engine, scope: Scope
    ) -> None:
        handles[0].define_resource("cores")
        started = engine.now()
        for as_of, maximum, holds in [
            (started, 3, 3),
            (started - 1, 4, 3),
            (started, 5, 3),
            (started + 10, 6, 6),
            (started + 9, 2, 6),
            (started + 11, -1, -1),
            (started + 12, 7, 7),
        ]:
            engine.adopt(AdoptLimits(scope, {"cores": maximum}, as_of=as_of))
            assert engine.limits(scope) == {"cores": holds}
        elsewhere = Scope("user", "mary")
        engine.adopt(AdoptLimits(elsewhere, {"cores": 1}, as_of=started - 5))
        assert engine.limits(elsewhere) == {"cores": 1}
        engine.adopt(AdoptLimits(scope, {}, as_of=started + 13))
        assert engine.limits(scope) == {"cores": -1}

    def test_adopted_limits_refuse_and_are_told(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.claim({"cores": 5}, project="shop")
        engine.adopt(AdoptLimits(Scope("project", "acme"), {"cores": 4}, as_of=engine.now()))
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="dev")
        told = [(one.kind, one.scope, one.limit, one.previous_limit, one.used) for one in quota.events()]
        assert told == [
            ("limit_changed", "project:acme", 4, -1, 5),
            ("over_quota", "project:acme", 4, -1, 5),
        ]

    def test_adopted_ancestors_make_the_tree_agree(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 5}, project="shop")
        as_of = engine.now()
        engine.adopt(AdoptAncestors("shop", ("web", "acme"), as_of=as_of))
        assert quota.projects() == [Project("acme", None), Project("web", "acme"), Project("shop", "web")]
        assert used(quota, "cores", "acme", "web") == [5, 5]
        quota.add_project("zeta")
        quota.update_limits("cores", project="zeta", max=3)
        engine.adopt(AdoptAncestors("shop", ("zeta",), as_of=as_of + 2))  # there is no room, but it is so
        assert engine.ancestors("shop") == ["zeta"]
        assert quota.usage(project="zeta")["cores"] == Usage(3, 5, 0)
        assert used(quota, "cores", "acme", "web") == [0, 0]
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="shop")
        for older in (as_of + 1, as_of + 2):
            engine.adopt(AdoptAncestors("shop", ("web", "acme"), as_of=older))
            assert engine.ancestors("shop") == ["zeta"]
        engine.adopt(AdoptAncestors("shop", (), as_of=as_of + 3))
        assert engine.ancestors("shop") == []
        quota.claim({"cores": 1}, project="shop")
        assert used(quota, "cores", "shop", "zeta") == [6, 0]
        assert list(quota.reconcile()) == []

    def test_adopted_ancestors_move_a_tree_upside_down(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        plant(quota, {"acme": None, "web": "acme", "shop": "web", "dev": "web"})
        for number, project in enumerate(("acme", "web", "shop", "dev")):
            quota.claim({"cores": 2**number}, project=project)
        quota.update_limits("cores", project="web", max=100)
        engine.adopt(AdoptAncestors("acme", ("shop", "web"), as_of=engine.now()))
        assert dict(quota.projects()) == {"web": None, "dev": "web", "shop": "web", "acme": "shop"}
        assert used(quota, "cores", "web", "shop", "acme", "dev") == [15, 5, 1, 8]
        assert list(quota.reconcile()) == []

    def test_what_was_fetched_later_wins_for_every_name_on_the_way(
        self, quota: Delimiter, engine: Engine
    ) -> None:
        """What is told of a project tells the place of each of its ancestors too, and is as old for all of them."""
        quota.define_resource("cores", project_max=100)
        quota.claim({"cores": 1}, project="shop")
        quota.claim({"cores": 2}, project="web")
        now = engine.now()

        def seen() -> tuple[dict[str, str | None], list[int]]:
            assert list(quota.reconcile()) == []
            return dict(quota.projects()), used(quota, "cores", "acme", "zeta", "web")

        engine.adopt(AdoptAncestors("web", ("zeta",), as_of=now + 200))
        engine.adopt(AdoptAncestors("shop", ("web", "acme"), as_of=now + 100))
        below_zeta = ({"acme": None, "zeta": None, "web": "zeta", "shop": "web"}, [0, 3, 3])
        assert seen() == below_zeta
        engine.adopt(AdoptAncestors("web", ("acme",), as_of=now + 199))
        engine.adopt(AdoptAncestors("shop", ("web", "acme"), as_of=now + 200))
        assert seen() == below_zeta
        engine.adopt(AdoptAncestors("shop", ("web", "acme"), as_of=now + 300))
        below_acme = (below_zeta[0] | {"web": "acme"}, [3, 0, 3])
        assert seen() == below_acme
        for older in (now + 250, now + 300):  # as an ancestor it was fetched at that moment
            engine.adopt(AdoptAncestors("web", (), as_of=older))
            assert seen() == below_acme
        engine.adopt(AdoptAncestors("web", (), as_of=now + 301))
        assert seen() == (below_acme[0] | {"web": None}, [0, 0, 3])

    def test_a_place_that_would_make_a_circle_is_not_taken(self, quota: Delimiter, engine: Engine) -> None:
        """A part that stays, because it was fetched later, may by now lie below what the older word puts below it."""
        quota.define_resource("cores")
        quota.add_project("acme")
        now = engine.now()
        engine.adopt(AdoptAncestors("web", (), as_of=now + 200))
        quota.move_project("web", parent="acme")
        quota.claim({"cores": 1}, project="web")
        engine.adopt(AdoptAncestors("acme", ("web",), as_of=now + 100))
        assert quota.projects() == [Project("acme", None), Project("web", "acme")]
        engine.adopt(AdoptAncestors("shop", ("acme", "web"), as_of=now + 150))
        assert dict(quota.projects()) == {"acme": None, "web": "acme", "shop": "acme"}
        quota.claim({"cores": 2}, project="shop")
        assert used(quota, "cores", "acme", "web") == [3, 1]
        assert list(quota.reconcile()) == []

    def test_a_removed_ancestor_is_a_root_until_it_is_told_anew(
        self, quota: Delimiter, engine: Engine
    ) -> None:
        quota.define_resource("cores")
        now = engine.now()
        engine.adopt(AdoptAncestors("web", ("acme",), as_of=now + 200))
        quota.remove_project("web")
        engine.adopt(AdoptAncestors("shop", ("web", "acme"), as_of=now + 100))
        assert dict(quota.projects()) == {"acme": None, "web": None, "shop": "web"}
        engine.adopt(AdoptAncestors("shop", ("web", "acme"), as_of=now + 201))
        assert dict(quota.projects()) == {"acme": None, "web": "acme", "shop": "web"}

    def test_what_was_adopted_is_a_new_version(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        scope, now = Scope("project", "acme"), engine.now()
        cases: list[tuple[bool, Adoption]] = [
            (True, AdoptLimits(scope, {"cores": 3}, as_of=now + 1)),
            (False, AdoptLimits(scope, {"cores": 3}, as_of=now + 2)),
            (False, AdoptLimits(scope, {"cores": 4}, as_of=now)),
            (True, AdoptAncestors("web", ("acme",), as_of=now + 1)),
            (False, AdoptAncestors("web", ("acme",), as_of=now + 2)),
            (False, AdoptAncestors("web", (), as_of=now)),
            (True, AdoptAncestors("web", (), as_of=now + 3)),
        ]
        for changes, adoption in cases:
            before = quota.version()
            engine.adopt(adoption)
            assert (quota.version() > before) is changes, adoption

    def test_the_clock_is_the_stores(self, engine: Engine) -> None:
        before = engine.now()
        move_time(engine, 1000)
        assert 1_000_000_000 <= engine.now() - before < 1_060_000_000
