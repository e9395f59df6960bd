"""Whether limits of children may add up to more than their parent's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from delimiter import Delimiter, InvalidRequest, Scope
from delimiter.conformance.contract import Contract, plant, sight
from delimiter.edits import AddProject, LimitChange, SetLimit

#: Edits after which acme, with a limit of 10 of which ``web`` was promised 6, has promised more; and what they say.
_REFUSALS: Final[dict[str, tuple[Callable[[Delimiter], object], list[str]]]] = {
    "a child's limit": (
        lambda q: q.update_limits("cores", project="dev", max=5),
        ["10", "11", "web 6", "dev 5"],
    ),
    "a lower parent": (lambda q: q.update_limits("cores", project="acme", max=5), ["5", "6", "web 6"]),
    "the default": (lambda q: q.define_resource("cores", project_max=5), ["10", "11", "web 6", "dev 5"]),
    "a project that is added": (lambda q: q.add_project("rich", parent="acme"), ["10", "16", "rich 10"]),
    "a project that is moved": (lambda q: q.move_project("zeta", parent="acme"), ["10", "13", "zeta 7"]),
    "a project below an unlimited one": (
        lambda q: q.move_project("zeta", parent="dev"),
        ["10", "13", "dev 7"],
    ),
    "the default instead of none": (
        lambda q: q.edit(
            [AddProject("third", "acme"), SetLimit("cores", Scope("project", "third"), LimitChange(max=5))]
        ),
        ["10", "11", "third 5"],
    ),
}


class OverbookingContract(Contract):
    @pytest.fixture
    def promised(self, quota: Delimiter) -> Delimiter:
        """acme has 10 and has promised 6 of them to ``web``; ``dev`` has no limit; overbooking is forbidden."""
        quota.define_resource("cores")
        quota.define_resource("ram")
        plant(quota)
        for project, limit in {"acme": 10, "web": 6, "shop": 6, "zeta": 7, "lab": 7, "rich": 10}.items():
            quota.update_limits("cores", project=project, max=limit)
        quota.set_overbooking("forbidden")
        return quota

    def test_it_is_allowed_at_first(self, handles: list[Delimiter]) -> None:
        first, second = handles
        assert first.overbooking() == "allowed"
        first.define_resource("cores", project_max=5)
        plant(first)
        first.update_limits("cores", project="web", max=100)
        version = first.version()
        with pytest.raises(InvalidRequest):
            first.set_overbooking("forbidden")
        assert (second.overbooking(), first.version()) == ("allowed", version)
        first.update_limits("cores", project="acme", max=105)
        first.update_limits("cores", project="zeta", max=-1)
        first.set_overbooking("forbidden")
        assert second.overbooking() == "forbidden"
        with pytest.raises(InvalidRequest):
            second.update_limits("cores", project="acme", max=104)
        second.set_overbooking("allowed")
        first.update_limits("cores", project="acme", max=104)

    @pytest.mark.parametrize("refused", _REFUSALS)
    def test_more_than_there_is_cannot_be_promised(self, promised: Delimiter, refused: str) -> None:
        before, version = sight(promised), promised.version()
        call, says = _REFUSALS[refused]
        with pytest.raises(InvalidRequest) as told:
            call(promised)
        for word in ["cores", "acme", *says]:
            assert word in str(told.value)
        assert sight(promised) == before
        assert promised.version() == version

    def test_all_may_be_promised(self, promised: Delimiter) -> None:
        promised.update_limits("cores", project="dev", max=4)
        promised.update_limits("cores", project="acme", max=11)
        promised.add_project("third", parent="acme")
        promised.update_limits("cores", project="third", max=1)
        promised.update_limits("ram", project="web", max=1000)
        promised.update_limits("cores", user="john", max=1000)
        with pytest.raises(InvalidRequest):
            promised.update_limits("cores", project="acme", max=10)
        promised.update_limits("cores", project="acme", max=-1)
        promised.update_limits("cores", project="dev", max=1000)

    def test_a_child_without_a_limit_passes_on_what_its_own_were_promised(self, promised: Delimiter) -> None:
        for child, limit in {"one": 1, "two": 2}.items():
            promised.add_project(child, parent="dev")
            promised.update_limits("cores", project=child, max=limit)
        with pytest.raises(InvalidRequest, match="dev 5"):
            promised.update_limits("cores", project="two", max=4)
        promised.update_limits("cores", project="two", max=3)
        promised.update_limits("cores", project="dev", max=4)
        with pytest.raises(InvalidRequest, match="dev"):
            promised.update_limits("cores", project="two", max=4)

    def test_claims_are_not_concerned(self, promised: Delimiter) -> None:
        promised.claim({"cores": 9}, project="dev")
        promised.claim({"cores": 1}, project="shop")
        assert promised.usage(project="acme")["cores"].available == 0
