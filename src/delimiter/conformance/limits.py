"""Definitions, limits and usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from delimiter import Delimiter, InvalidRequest, Overage, OverLimit, Resource, UnknownResource, Usage
from delimiter.conformance.contract import OWNERS, Contract, Whom, move_time, violation
from delimiter.model import CEILING

if TYPE_CHECKING:
    from delimiter.engine import Engine


class LimitContract(Contract):
    def test_definitions_are_listed_by_name(self, quota: Delimiter) -> None:
        quota.define_resource("storage.gb", project_max=20, unit="GB", description="Ünïcode, “quoted” 𝄞")
        quota.define_resource("cores", service="compute", max=9, min=1, project_min=2, user_max=3, user_min=3)
        assert quota.resources() == [
            Resource("cores", "compute", max=9, min=1, project_min=2, user_max=3, user_min=3),
            Resource("storage.gb", "storage", project_max=20, unit="GB", description="Ünïcode, “quoted” 𝄞"),
        ]

    def test_a_definition_may_be_repeated_and_changed(self, quota: Delimiter) -> None:
        for _ in range(2):
            quota.define_resource("cores", project_max=4)
        quota.claim({"cores": 4}, project="acme")
        quota.define_resource("cores", project_max=5, description="more")
        quota.claim({"cores": 1}, project="acme")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="acme")
        assert [one.project_max for one in quota.resources()] == [5]

    def test_a_changed_definition_holds_for_scopes_that_hold_claims(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 4}, project="acme", user="john")
        quota.define_resource("cores", user_max=4)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 1}, project="acme", user="john")
        assert refused.value.violations == (violation("cores", "user:john", limit=4, used=4, requested=1),)
        quota.define_resource("cores", max=4)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 1}, user="mary")
        assert refused.value.violations == (violation("cores", "total", limit=4, used=4, requested=1),)
        quota.define_resource("cores")
        quota.claim({"cores": 100}, project="acme", user="john")

    def test_what_an_operator_set_survives_a_new_definition(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=10, project_max=4, user_max=4)
        quota.update_limits("cores", max=11)
        quota.update_limits("cores", project="acme", max=7)
        quota.update_limits("cores", user="john", max=0)
        quota.define_resource("cores", max=20, project_max=5, user_max=5)
        assert quota.limits() == {"cores": 11}
        assert quota.limits(project="acme") == {"cores": 7}
        assert quota.limits(project="zeta") == {"cores": 5}
        assert quota.limits(user="john") == {"cores": 0}
        assert quota.limits(user="mary") == {"cores": 5}
        assert quota.resources()[0].max == 20

    def test_none_removes_an_override(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=10, project_max=4)
        for scope in OWNERS:
            before = quota.limits(**scope)
            assert quota.update_limits("cores", **scope, max=2) == []
            assert quota.limits(**scope) == {"cores": 2}
            assert quota.update_limits("cores", **scope, max=None) == []
            assert quota.limits(**scope) == before

    def test_an_argument_left_out_leaves_that_value(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 3}, project="acme", id="c")
        quota.update_limits("cores", project="acme", max=5, min=2)
        quota.update_limits("cores", project="acme", min=3)
        assert quota.limits(project="acme") == {"cores": 5}
        quota.update_limits("cores", project="acme", max=6)
        quota.update_limits("cores", project="acme")
        assert quota.limits(project="acme") == {"cores": 6}
        with pytest.raises(Exception, match="must not fall below 3"):
            quota.release("c")
        quota.update_limits("cores", project="acme", min=None)
        assert quota.limits(project="acme") == {"cores": 6}
        quota.release("c")

    @pytest.mark.parametrize("scope", OWNERS, ids=str)
    def test_a_lowered_limit_is_told_and_lets_nothing_more_in(self, quota: Delimiter, scope: Whom) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 5}, project="acme", user="john", id="five")
        name = ":".join(next(iter(scope.items()))) if scope else "total"
        assert quota.update_limits("cores", **scope, max=5) == []
        assert quota.update_limits("cores", **scope, max=3) == [Overage("cores", name, limit=3, used=5)]
        assert quota.usage(**scope)["cores"] == Usage(limit=3, used=5, reserved=0)
        assert quota.usage(**scope)["cores"].available == 0
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 1}, project="acme", user="john")
        assert refused.value.violations == (violation("cores", name, limit=3, used=5, requested=1),)
        quota.resize("five", {"cores": 4})
        quota.resize("five", {"cores": 3})
        assert quota.update_limits("cores", **scope, max=4) == []
        quota.claim({"cores": 1}, project="acme", user="john")

    def test_zero_lets_nothing_in_and_minus_one_everything(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=2)
        quota.update_limits("cores", project="acme", max=0)
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="acme")
        quota.update_limits("cores", project="acme", max=-1)
        quota.claim({"cores": 1000}, project="acme")
        assert quota.limits(project="acme") == {"cores": -1}
        assert quota.usage(project="acme")["cores"].available is None

    def test_a_limit_set_later_counts_what_is_there_already(self, quota: Delimiter) -> None:
        """While nothing limits it, a scope need not be counted: setting the limit must find it all."""
        quota.define_resource("cores")
        for project in ("acme", "zeta"):
            quota.claim({"cores": 3}, project=project, user="john")
        quota.reserve({"cores": 2}, project="acme", expires_in=60)
        quota.update_limits("cores", max=9)
        assert quota.usage()["cores"] == Usage(limit=9, used=8, reserved=2)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 2}, project="new")
        assert refused.value.violations == (violation("cores", "total", limit=9, used=8, requested=2),)
        quota.claim({"cores": 1}, project="new")
        quota.update_limits("cores", max=None)
        quota.claim({"cores": 5}, project="new")
        assert quota.update_limits("cores", max=13) == [Overage("cores", "total", limit=13, used=14)]

    def test_a_removed_definition_takes_its_limits_along(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=3)
        quota.update_limits("cores", max=2)
        quota.update_limits("cores", project="acme", max=1)
        claim = quota.claim({"cores": 1}, project="acme")
        with pytest.raises(InvalidRequest):
            quota.undefine_resource("cores")
        quota.release(claim.id)
        quota.undefine_resource("cores")
        assert quota.resources() == []
        assert quota.limits() == {}
        assert quota.usage() == {}
        assert quota.get_claim(claim.id).resources == {"cores": 1}
        with pytest.raises(UnknownResource):
            quota.claim({"cores": 1}, project="acme")
        quota.define_resource("cores", max=7)
        assert quota.limits() == {"cores": 7}
        assert quota.limits(project="acme") == {"cores": -1}
        assert quota.usage(project="acme") == {"cores": Usage(limit=-1, used=0, reserved=0)}

    def test_what_ran_out_holds_no_definition(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, project="acme", expires_in=60)
        with pytest.raises(InvalidRequest):
            quota.undefine_resource("cores")
        move_time(engine, 60)
        quota.undefine_resource("cores")
        assert quota.resources() == []

    def test_unknown_names_are_named(self, quota: Delimiter) -> None:
        for call in (
            lambda: quota.undefine_resource("discs"),
            lambda: quota.update_limits("discs", max=1),
            lambda: quota.check({"discs": 1}, user="john"),
            lambda: quota.claim({"discs": 1}, user="john"),
        ):
            with pytest.raises(UnknownResource, match=r"discs.*defin"):
                call()

    def test_usage_covers_every_defined_resource(self, quota: Delimiter) -> None:
        quota.define_resource("cores", max=9, project_max=5, user_max=4)
        quota.define_resource("ram")
        quota.claim({"cores": 2, "ram": 7}, project="acme", user="john")
        quota.reserve({"cores": 1}, project="acme", user="mary", expires_in=60)
        assert quota.usage() == {"cores": Usage(9, 3, 1), "ram": Usage(-1, 7, 0)}
        assert quota.usage(project="acme") == {"cores": Usage(5, 3, 1), "ram": Usage(-1, 7, 0)}
        assert quota.usage(user="john") == {"cores": Usage(4, 2, 0), "ram": Usage(-1, 7, 0)}
        assert quota.usage(user="mary") == {"cores": Usage(4, 1, 1), "ram": Usage(-1, 0, 0)}
        assert quota.usage(user="nobody") == {"cores": Usage(4, 0, 0), "ram": Usage(-1, 0, 0)}
        assert quota.usage(user="john")["cores"].available == 2
        assert list(quota.usage()) == ["cores", "ram"]

    def test_names_are_compared_exactly(self, quota: Delimiter) -> None:
        """John, john and `john ` are three: no collation, no padding, no normal form."""
        names = [
            "john",
            "John",
            "john ",
            " john",
            "JOHN",
            "jöhn",
            "jo\u0308hn",
            "ｊohn",
            "john\u200b",
            "%",
            "_",
            "'",
        ]
        names += ["𝄞", "ss", "ß", "\\", "a/b:c", "x" * 255, "ö" * 255, "𝄞" * 255]
        for name in names:
            quota.define_resource(name, project_max=1, user_max=1)
        for name in names:
            quota.claim({name: 1}, project=name, user=name, id=name, external_id="e" + name[:254])
            with pytest.raises(OverLimit):
                quota.claim({name: 1}, project=name)
        assert {one.name for one in quota.resources()} == set(names)
        for name in names:
            assert quota.usage(user=name)[name].used == 1
            assert sum(one.used for one in quota.usage(project=name).values()) == 1
            assert quota.get_claim("e" + name[:254]).id == name
            assert [one.id for one in quota.claims(project=name)] == [name]
            assert [one.id for one in quota.claims(resource=name)] == [name]

    def test_a_project_and_a_user_of_one_name_are_two(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=2, user_max=1)
        quota.claim({"cores": 1}, project="total", user="total")
        assert quota.usage(project="total")["cores"] == Usage(2, 1, 0)
        quota.claim({"cores": 1}, project="total")
        assert quota.usage(user="total")["cores"] == Usage(1, 1, 0)
        assert quota.usage()["cores"].used == 2

    def test_the_largest_amounts(self, quota: Delimiter) -> None:
        quota.define_resource("bytes", max=CEILING, project_max=CEILING)
        quota.claim({"bytes": CEILING - 1}, project="acme", id="most")
        assert quota.check({"bytes": CEILING}, project="acme").available == {"bytes": 1}
        with pytest.raises(OverLimit) as refused:
            quota.claim({"bytes": CEILING}, project="acme")
        assert refused.value.violations == tuple(
            violation("bytes", scope, limit=CEILING, used=CEILING - 1, requested=CEILING)
            for scope in ("total", "project:acme")
        )
        quota.resize("most", {"bytes": CEILING})
        assert quota.usage(project="acme")["bytes"] == Usage(CEILING, CEILING, 0)
        quota.release("most")
        assert quota.usage()["bytes"].used == 0

    def test_an_unlimited_scope_counts_up_to_the_ceiling(self, quota: Delimiter) -> None:
        quota.define_resource("bytes")
        quota.claim({"bytes": CEILING}, project="acme", user="john")
        with pytest.raises(OverLimit) as refused:
            quota.claim({"bytes": CEILING}, project="acme", user="john")
        assert refused.value.violations == tuple(
            violation("bytes", scope, limit=CEILING, used=CEILING, requested=CEILING)
            for scope in ("project:acme", "user:john")
        )
        assert not quota.check({"bytes": 1}, project="acme")
        quota.claim({"bytes": CEILING}, project="zeta")  # nothing limits the total
        assert quota.usage()["bytes"].used == 2 * CEILING

    def test_sums_past_the_ceiling_are_refused(self, quota: Delimiter) -> None:
        from delimiter import Request

        quota.define_resource("bytes", project_max=5)
        with pytest.raises(OverLimit) as refused:
            quota.claim_all([Request({"bytes": CEILING}, project="acme") for _ in range(3)])
        assert refused.value.violations == (
            violation("bytes", "project:acme", limit=5, used=0, requested=3 * CEILING),
        )
