"""Why a claim would be refused, who uses what, and where: for operators."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from delimiter import Delimiter, InvalidRequest, Level, Scope, UnknownResource, Usage
from delimiter.conformance.contract import Contract, move_time, plant
from delimiter.model import Consumer, ProjectUsage

if TYPE_CHECKING:
    from delimiter.engine import Engine

_ACME, _WEB, _SHOP = (Scope("project", name) for name in ("acme", "web", "shop"))
_JOHN = Scope("user", "john")


class ExplanationContract(Contract):
    @pytest.fixture
    def used(self, quota: Delimiter) -> Delimiter:
        """Cores limited at acme, ram at the total and per user."""
        quota.define_resource("cores", user_max=50)
        quota.define_resource("ram", max=40)
        plant(quota)
        quota.update_limits("cores", project="acme", max=20)
        quota.claim({"cores": 3, "ram": 8}, project="shop", user="john", id="a")
        quota.claim({"cores": 2}, project="shop", user="john", id="b")
        quota.claim({"cores": 5}, project="web", id="c")
        quota.reserve({"cores": 4}, project="dev", user="mary", id="r1", expires_in=600)
        quota.reserve({"cores": 1}, project="shop", user="john", id="r2", expires_in=60)
        quota.claim({"cores": 7, "ram": 30}, project="lab", user="mary", id="d")
        quota.claim({"ram": 1}, user="zoe", id="e")
        return quota

    # -- levels ---------------------------------------------------------------------------------------------------

    def test_every_level_is_shown_limited_or_not(self, used: Delimiter, engine: Engine) -> None:
        cores = [
            Level("cores", Scope.total(), -1, 22, 5),
            Level("cores", _ACME, 20, 15, 5),
            Level("cores", _WEB, -1, 11, 1),
            Level("cores", _SHOP, -1, 6, 1),
            Level("cores", _JOHN, 50, 6, 1),
        ]
        ram = [
            Level("ram", Scope.total(), 40, 39, 0),
            *(Level("ram", scope, -1, 8, 0) for scope in (_ACME, _WEB, _SHOP, _JOHN)),
        ]
        assert engine.levels(["ram", "cores"], [_SHOP, _JOHN]) == ram + cores
        assert engine.levels(["cores"], [_SHOP]) == cores[:-1]
        assert engine.levels(["cores"], [_JOHN]) == [cores[0], cores[-1]]
        assert engine.levels(["cores"], [Scope("project", "nobody")]) == [
            cores[0],
            Level("cores", Scope("project", "nobody"), -1, 0, 0),
        ]
        with pytest.raises(UnknownResource):
            engine.levels(["cores", "discs"], [_JOHN])

    def test_an_explanation_says_what_a_check_says(self, used: Delimiter) -> None:
        for amount in (1, 5, 6, 100):
            asked = {"cores": amount, "ram": amount}
            why = used.explain(asked, project="shop", user="john")
            assert why.decision == used.check(asked, project="shop", user="john")
            assert (why.requested, bool(why.decision)) == (asked, amount == 1)

    def test_an_explanation_names_the_tightest_level(self, used: Delimiter, engine: Engine) -> None:
        why = used.explain({"cores": 6, "ram": 1}, project="shop", user="john")
        assert why.binding == {"cores": _ACME, "ram": Scope.total()}
        assert [level.scope for level in why.levels] == [
            *(Scope.total(), _ACME, _WEB, _SHOP, _JOHN),
            *(Scope.total(), _ACME, _WEB, _SHOP, _JOHN),
        ]
        assert why.consumers["cores"] == (
            Consumer("shop", "john", 6),
            Consumer("web", None, 5),
            Consumer("dev", "mary", 4),
        )
        assert why.consumers["ram"] == (
            Consumer("lab", "mary", 30),
            Consumer("shop", "john", 8),
            Consumer(None, "zoe", 1),
        )
        assert why.room_at == {"cores": used.get_claim("r2").expires_at, "ram": None}
        later = used.explain({"cores": 7}, project="shop").room_at["cores"]
        assert later == used.get_claim("r1").expires_at
        assert used.explain({"cores": 11}, project="shop").room_at == {"cores": None}
        move_time(engine, 60)
        assert used.explain({"cores": 6}, project="shop").decision.allowed
        unlimited = used.explain({"ram": 1}, project="lab")
        assert unlimited.binding == {"ram": Scope.total()}

    def test_an_explanation_where_nothing_is_limited(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        why = quota.explain({"cores": 5}, project="acme", user="john")
        assert why.decision.allowed
        assert (why.binding, why.room_at, why.consumers) == ({"cores": None}, {"cores": None}, {"cores": ()})
        assert why.decision.available == {"cores": None}

    def test_what_cannot_be_explained(self, used: Delimiter) -> None:
        with pytest.raises(UnknownResource):
            used.explain({"discs": 1}, project="shop")
        with pytest.raises(InvalidRequest):
            used.explain({"cores": 1})
        with pytest.raises(InvalidRequest):
            used.explain({}, project="shop")

    # -- who holds what -------------------------------------------------------------------------------------------

    def test_consumers_come_largest_first(self, used: Delimiter, engine: Engine) -> None:
        used.claim({"cores": 5}, project="acme", user="amy")
        used.claim({"cores": 5}, user="amy")
        everybody = [
            Consumer("lab", "mary", 7),
            Consumer("shop", "john", 6),
            Consumer(None, "amy", 5),
            Consumer("acme", "amy", 5),
            Consumer("web", None, 5),
            Consumer("dev", "mary", 4),
        ]
        assert engine.consumers("cores", Scope.total(), size=9) == everybody
        assert engine.consumers("cores", Scope.total(), size=3) == everybody[:3]
        assert engine.consumers("cores", _ACME, size=9) == [everybody[n] for n in (1, 3, 4, 5)]
        assert engine.consumers("cores", _WEB, size=9) == [everybody[1], everybody[4]]
        assert engine.consumers("cores", Scope("user", "mary"), size=9) == [everybody[0], everybody[5]]
        assert engine.consumers("ram", _WEB, size=9) == [Consumer("shop", "john", 8)]
        assert engine.consumers("ram", Scope("user", "amy"), size=9) == []
        used.release("d")
        move_time(engine, 60)
        assert engine.consumers("cores", Scope.total(), size=1) == [Consumer(None, "amy", 5)]
        assert engine.consumers("cores", _SHOP, size=1) == [Consumer("shop", "john", 5)]

    def test_running_reservations_come_by_their_end(self, used: Delimiter, engine: Engine) -> None:
        used.reserve({"cores": 2, "ram": 1}, project="web", id="r3", expires_in=300)

        def running(resource: str, scope: Scope, size: int = 9) -> list[tuple[str, int]]:
            return [(one.claim_id, one.amount) for one in engine.running(resource, scope, size=size)]

        assert running("cores", Scope.total()) == [("r2", 1), ("r3", 2), ("r1", 4)]
        assert running("cores", Scope.total(), size=2) == [("r2", 1), ("r3", 2)]
        assert running("cores", _WEB) == [("r2", 1), ("r3", 2)]
        assert running("cores", Scope("user", "mary")) == [("r1", 4)]
        assert running("ram", _ACME) == [("r3", 1)]
        assert running("cores", Scope("project", "lab")) == []
        assert engine.running("cores", _SHOP, size=1)[0].expires_at == used.get_claim("r2").expires_at
        move_time(engine, 60)
        used.provision("r3")
        assert running("cores", Scope.total()) == [("r1", 4)]
        used.renew("r1", expires_in=timedelta(days=1))
        assert running("cores", _ACME) == [("r1", 4)]

    # -- the tree -------------------------------------------------------------------------------------------------

    def test_the_tree_shows_what_every_project_uses(self, used: Delimiter, engine: Engine) -> None:
        used.claim({"cores": 1}, project="middle")
        used.claim({"cores": 1}, project="gone", id="gone")
        used.release("gone")
        used.update_limits("cores", project="limited only", max=1)
        used.update_limits("ram", project="middle", max=6)
        tree = used.tree()
        assert [(one.id, one.parent) for one in tree] == [
            ("acme", None),
            ("dev", "acme"),
            ("web", "acme"),
            ("shop", "web"),
            ("middle", None),
            ("zeta", None),
            ("lab", "zeta"),
        ]
        assert tree[0] == ProjectUsage("acme", None, {"cores": Usage(20, 15, 5), "ram": Usage(-1, 8, 0)})
        assert [one.usage["cores"].used for one in tree] == [15, 4, 11, 6, 1, 7, 7]
        for one in tree:
            assert one.usage == used.usage(project=one.id)
        move_time(engine, 60)
        assert [one.usage["cores"].used for one in used.tree()] == [14, 4, 10, 5, 1, 7, 7]
        assert [set(one.usage) for one in used.tree()] == [{"cores", "ram"}] * 7

    def test_an_empty_tree(self, quota: Delimiter) -> None:
        assert quota.tree() == []
        quota.add_project("acme")
        assert quota.tree() == [ProjectUsage("acme", None, {})]
        quota.define_resource("cores", project_max=3)
        assert quota.tree() == [ProjectUsage("acme", None, {"cores": Usage(3, 0, 0)})]
