"""Projects: the tree, who is charged for what happens in it, and limits on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest

from delimiter import (
    BelowMinimum,
    Delimiter,
    DelimiterError,
    InvalidRequest,
    OverLimit,
    Project,
    Request,
    UnknownProject,
    Usage,
    Violation,
)
from delimiter.conformance.contract import FOREST, Contract, move_time, plant, sight, used, violation

if TYPE_CHECKING:
    from delimiter.engine import Engine

#: What is refused, on the trees of FOREST with a claim in ``shop`` and a reservation in ``lab``.
_REFUSALS: Final[dict[str, tuple[Callable[[Delimiter], object], type[DelimiterError], str]]] = {
    "add below another": (lambda q: q.add_project("shop", parent="dev"), InvalidRequest, "shop.*web"),
    "add a child as a root": (lambda q: q.add_project("shop"), InvalidRequest, "shop.*web"),
    "add a root below another": (
        lambda q: q.add_project("zeta", parent="acme"),
        InvalidRequest,
        "zeta.*root",
    ),
    "add below the unknown": (lambda q: q.add_project("new", parent="nowhere"), UnknownProject, "nowhere"),
    "add below another case": (lambda q: q.add_project("new", parent="Acme"), UnknownProject, "Acme"),
    "move the unknown": (lambda q: q.move_project("new", parent="acme"), UnknownProject, "new"),
    "move to the unknown": (lambda q: q.move_project("web", parent="nowhere"), UnknownProject, "nowhere"),
    "move below itself": (lambda q: q.move_project("web", parent="web"), InvalidRequest, "below itself"),
    "move below a child": (lambda q: q.move_project("web", parent="shop"), InvalidRequest, "web.*shop"),
    "move far below": (lambda q: q.move_project("acme", parent="shop"), InvalidRequest, "acme.*shop"),
    "remove the unknown": (lambda q: q.remove_project("new"), UnknownProject, "new"),
    "remove a parent": (lambda q: q.remove_project("web"), InvalidRequest, "web.*shop"),
    "remove what is claimed": (lambda q: q.remove_project("shop"), InvalidRequest, "shop.*claims"),
    "remove what is reserved": (lambda q: q.remove_project("lab"), InvalidRequest, "lab.*claims"),
}


class ProjectContract(Contract):
    # -- the tree -----------------------------------------------------------------------------------------------

    def test_the_tree_is_listed_parents_first(self, quota: Delimiter, engine: Engine) -> None:
        assert quota.projects() == []
        plant(quota)
        quota.add_project("Über", parent="acme")
        names = ["acme", "dev", "web", "shop", "Über", "zeta", "lab"]
        assert quota.projects() == [Project(one, (FOREST | {"Über": "acme"})[one]) for one in names]
        assert engine.ancestors("shop") == ["web", "acme"]
        assert engine.ancestors("acme") == []
        assert engine.ancestors("nobody") == []

    def test_adding_again_and_moving_to_where_it_is_are_harmless(self, quota: Delimiter) -> None:
        plant(quota)
        before, version = quota.projects(), quota.version()
        plant(quota)
        for project, parent in FOREST.items():
            quota.move_project(project, parent=parent)
        assert quota.projects() == before
        assert quota.version() == version

    @pytest.mark.parametrize("refused", _REFUSALS)
    def test_a_refused_edit_changes_nothing(self, quota: Delimiter, refused: str) -> None:
        quota.define_resource("cores", project_max=9)
        plant(quota)
        quota.claim({"cores": 1}, project="shop")
        quota.reserve({"cores": 1}, project="lab", expires_in=600)
        before, version = sight(quota), quota.version()
        call, error, says = _REFUSALS[refused]
        with pytest.raises(error, match=says):
            call(quota)
        assert sight(quota) == before
        assert quota.version() == version
        assert list(quota.events()) == []

    def test_names_of_projects_are_compared_exactly(self, quota: Delimiter) -> None:
        names = ["acme", "Acme", "acme ", " acme", "äcme", "a\u0308cme", "%", "_", "x" * 255, "𝄞" * 255]
        quota.define_resource("cores", project_max=1)
        quota.add_project("root")
        quota.update_limits("cores", project="root", max=100)
        for name in names:
            quota.add_project(name, parent="root")
            quota.claim({"cores": 1}, project=name)
            with pytest.raises(OverLimit):
                quota.claim({"cores": 1}, project=name)
        assert [one.id for one in quota.projects()] == ["root", *sorted(names)]
        assert used(quota, "cores", "root", *names) == [len(names)] + [1] * len(names)

    def test_a_removed_project_takes_its_limits_along(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", project_max=9)
        plant(quota)
        quota.update_limits("cores", project="shop", max=3, min=1)
        quota.update_limits("cores", user="shop", max=4)
        quota.release(quota.claim({"cores": 2}, project="shop", id="c").id, force=True)
        quota.reserve({"cores": 1}, project="shop", expires_in=60)
        move_time(engine, 60)
        quota.remove_project("shop")
        assert "shop" not in dict(quota.projects())
        assert quota.limits(project="shop") == {"cores": 9}
        assert [str(own.scope) for own in quota.own_limits()] == ["user:shop"]
        assert quota.get_claim("c").project == "shop"
        quota.remove_project("web")
        quota.add_project("shop", parent="zeta")
        quota.claim({"cores": 9}, project="shop")
        assert used(quota, "cores", "shop", "zeta", "acme") == [9, 9, 0]

    # -- charging -----------------------------------------------------------------------------------------------

    def test_a_claim_is_charged_to_all_ancestors(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.update_limits(
            "cores", project="web", max=50
        )  # the others have no limit: they are charged all the same
        plant(quota)
        quota.claim({"cores": 1}, project="shop", user="john")
        quota.claim({"cores": 2}, project="web")
        quota.reserve({"cores": 4}, project="shop", expires_in=60)
        quota.claim({"cores": 8}, project="dev")
        quota.claim({"cores": 16}, project="stranger")
        assert used(quota, "cores", "shop", "web", "dev", "acme", "zeta") == [5, 7, 8, 15, 0]
        assert quota.usage()["cores"].used == 31
        assert quota.usage(project="web")["cores"] == Usage(50, 7, 4)
        assert quota.usage(project="acme")["cores"] == Usage(-1, 15, 4)
        move_time(engine, 60)
        assert quota.usage(project="web")["cores"] == Usage(50, 3, 0)
        quota.expire_reservations()
        assert used(quota, "cores", "shop", "web", "dev", "acme") == [1, 3, 8, 11]
        assert list(quota.reconcile()) == []

    def test_every_limit_on_the_way_is_named(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=8642, user_max=10)
        plant(quota)
        for project, limit in {"acme": 7531, "web": 30, "shop": 20}.items():
            quota.update_limits("cores", project=project, max=limit)
        quota.claim({"cores": 5}, project="shop", user="john")
        quota.claim({"cores": 7}, project="web")
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 9000}, project="shop", user="john")
        violations = (
            violation("cores", "total", limit=8642, used=12, requested=9000),
            violation("cores", "project:acme", limit=7531, used=12, requested=9000),
            violation("cores", "project:web", limit=30, used=12, requested=9000),
            violation("cores", "project:shop", limit=20, used=5, requested=9000),
            violation("cores", "user:john", limit=10, used=5, requested=9000),
        )
        assert refused.value.violations == violations
        assert "20" in str(refused.value)
        for number in ("8642", "7531", "30"):  # not the caller's own
            assert number not in str(refused.value)
        assert sight(quota) == before
        decision = quota.check({"cores": 9000}, project="shop", user="john")
        assert (decision.violations, dict(decision.available)) == (violations, {"cores": 5})

    @pytest.mark.parametrize("limited", ["acme", "web", "shop"])
    def test_one_full_level_is_enough(self, quota: Delimiter, limited: str) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.update_limits("cores", project=limited, max=3)
        quota.claim({"cores": 3}, project="shop", id="c")
        for asked in (1, 2):
            with pytest.raises(OverLimit) as refused:
                quota.claim({"cores": asked}, project="shop")
            only = violation("cores", f"project:{limited}", limit=3, used=3, requested=asked)
            assert refused.value.violations == (only,)
            assert quota.check({"cores": asked}, project="shop").violations == (only,)
        assert quota.check({"cores": 1}, project="shop").available == {"cores": 0}
        quota.claim({"cores": 99}, project="lab")
        quota.resize("c", {"cores": 1})
        with pytest.raises(OverLimit):
            quota.resize("c", {"cores": 4})
        quota.claim({"cores": 2}, project="shop")
        quota.release("c")
        quota.claim({"cores": 1}, project="shop")

    def test_the_default_holds_for_every_project_nested_or_not(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=5)
        plant(quota)
        quota.claim({"cores": 3}, project="shop")
        quota.claim({"cores": 1}, project="web")
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 2}, project="dev")
        assert refused.value.violations == (violation("cores", "project:acme", limit=5, used=4, requested=2),)
        quota.update_limits("cores", project="acme", max=-1)
        quota.claim({"cores": 5}, project="dev")
        quota.update_limits("cores", project="acme", max=None)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 1}, project="shop")
        assert refused.value.violations == (violation("cores", "project:acme", limit=5, used=9, requested=1),)
        quota.define_resource("cores", project_max=10)
        quota.claim({"cores": 1}, project="shop")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="shop")

    def test_the_sums_of_a_list_are_refused_at_the_common_ancestor(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.update_limits("cores", project="acme", max=8)
        quota.update_limits("cores", project="web", max=7)
        quota.claim({"cores": 1}, project="acme")
        listed = [Request({"cores": 3}, project=project) for project in ("shop", "dev", "web", "lab")]
        before = sight(quota)
        with pytest.raises(OverLimit) as refused:
            quota.claim_all(listed)
        assert refused.value.violations == (violation("cores", "project:acme", limit=8, used=1, requested=9),)
        assert sight(quota) == before
        quota.claim_all([listed[0], listed[1], listed[3]])
        assert used(quota, "cores", "acme", "web", "zeta") == [7, 3, 3]

    def test_claims_of_a_subtree(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.define_resource("ram")
        plant(quota)
        for project in FOREST:
            quota.claim({"cores": 1}, project=project, user="john", id=project)
        quota.claim({"ram": 1}, project="shop", id="ram")
        quota.reserve({"cores": 1}, project="shop", id="held", expires_in=60)
        quota.release("dev")

        def listed(project: str, **query: Any) -> list[str]:
            return sorted(one.id for one in quota.claims(project=project, subtree=True, **query))

        assert listed("acme") == ["acme", "held", "ram", "shop", "web"]
        assert listed("acme", user="john", resource="cores") == ["acme", "shop", "web"]
        assert listed("web", state="reserved") == ["held"]
        assert listed("acme", state="released") == ["dev"]
        assert listed("lab") == ["lab"]
        assert listed("nobody") == []
        assert [one.id for one in quota.claims(project="acme")] == ["acme"]
        move_time(engine, 60)
        assert listed("acme", state="expired") == ["held"]
        quota.move_project("web", parent="zeta")
        assert listed("acme") == ["acme"]
        assert listed("zeta") == ["lab", "ram", "shop", "web", "zeta"]

    def test_a_deep_tree_of_projects(self, quota: Delimiter) -> None:
        names = [f"p{number:02}" for number in range(30)]
        plant(quota, dict(zip(names, [None, *names], strict=False)))
        quota.define_resource("cores")
        quota.claim({"cores": 2}, project=names[-1])
        quota.update_limits("cores", project=names[0], max=5)
        quota.claim({"cores": 3}, project=names[15])
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project=names[-1])
        assert used(quota, "cores", names[0], names[15], names[16]) == [5, 5, 2]
        assert [one.id for one in quota.projects()] == names

    # -- floors -------------------------------------------------------------------------------------------------

    def test_floors_of_ancestors_bind_what_is_given_back(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        plant(quota)
        quota.update_limits("cores", project="acme", min=6)
        quota.update_limits("cores", project="web", min=4)
        quota.claim({"cores": 3}, project="shop", id="a")
        quota.claim({"cores": 2}, project="web", id="b")
        quota.claim({"cores": 2}, project="dev", id="c")
        quota.reserve({"cores": 9}, project="shop", id="r", expires_in=600)
        before = sight(quota)
        with pytest.raises(BelowMinimum) as refused:
            quota.release("b")
        assert refused.value.violations == (
            Violation("cores", "project:acme", limit=6, used=7, requested=-2, available=1),
            Violation("cores", "project:web", limit=4, used=5, requested=-2, available=1),
        )
        with pytest.raises(BelowMinimum) as refused:
            quota.resize("a", {"cores": 1})
        assert [(one.scope, one.requested) for one in refused.value.violations] == [
            ("project:acme", -2),
            ("project:web", -2),
        ]
        assert sight(quota) == before
        quota.release("r")
        quota.resize("a", {"cores": 2})
        quota.move_project("web", parent="zeta")  # floors are of those who give back, not of the tree
        for id in ("b", "c"):
            quota.release(id, force=True)
        assert used(quota, "cores", "acme", "web", "zeta") == [0, 2, 2]
        with pytest.raises(BelowMinimum):
            quota.release("a")
