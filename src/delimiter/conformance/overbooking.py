"""Whether limits of children may add up to more than their parent's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pytest

from delimiter import Delimiter, InvalidRequest, Resource, Scope
from delimiter.conformance.contract import Contract, plant, sight
from delimiter.edits import (
    AddProject,
    AdoptLimits,
    Define,
    Edit,
    LimitChange,
    MoveProject,
    SetLimit,
    SetOverbooking,
)

if TYPE_CHECKING:
    from delimiter.engine import Engine

_FORBID: Final = SetOverbooking(allowed=False)
_ALLOW: Final = SetOverbooking(allowed=True)


def _limit(project: str, max: int | None) -> SetLimit:
    return SetLimit("cores", Scope("project", project), LimitChange(max))


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
#: Made on the same store. Each passes through what is overbooked, and ends where nothing is.
_ON_THE_WAY: Final[dict[str, list[Edit]]] = {
    "a child, then its parent": [_limit("web", 15), _limit("acme", 20)],
    "a parent, then its children": [_limit("acme", 5), _limit("web", 5), _limit("shop", 5)],
    "a default": [Define(Resource("cores", "cores", project_max=5)), _limit("acme", 11)],
    "a default there and back": [
        Define(Resource("cores", "cores", project_max=5)),
        Define(Resource("cores", "cores")),
    ],
    "a rich project": [AddProject("rich", "acme"), _limit("rich", 4)],
    "a rich project that leaves": [MoveProject("zeta", "acme"), MoveProject("zeta", None)],
    "a move": [MoveProject("zeta", "web"), _limit("shop", 0), _limit("zeta", 6), _limit("lab", 6)],
    "the policy": [_ALLOW, _limit("web", 99), _FORBID, _limit("acme", 99)],
    "the policy taken back": [_limit("web", 99), _ALLOW],
}
#: The same, the other way round: the end is overbooked, whatever was on the way.
_AT_THE_END: Final[dict[str, list[Edit]]] = {
    "a parent, then its child": [_limit("acme", 20), _limit("web", 15), _limit("acme", 14)],
    "a default": [_limit("acme", 11), Define(Resource("cores", "cores", project_max=5)), _limit("acme", 10)],
    "a rich project": [_limit("rich", 4), AddProject("rich", "acme"), _limit("rich", 5)],
    "the policy": [_ALLOW, _limit("web", 99), _FORBID],
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

    @pytest.mark.parametrize("case", _ON_THE_WAY)
    def test_a_list_may_pass_through_what_its_end_does_not_have(self, promised: Delimiter, case: str) -> None:
        """It is looked at once, after the last edit: of a parent and its children one is always changed first."""
        promised.edit(_ON_THE_WAY[case], dry_run=True)
        promised.edit(_ON_THE_WAY[case])
        promised.set_overbooking("allowed" if _ON_THE_WAY[case][-1] == _ALLOW else "forbidden")

    @pytest.mark.parametrize("case", _AT_THE_END)
    def test_the_end_of_a_list_is_held_to_it(self, promised: Delimiter, case: str) -> None:
        before, version = sight(promised), promised.version()
        for dry_run in (True, False):
            with pytest.raises(InvalidRequest, match="acme"):
                promised.edit(_AT_THE_END[case], dry_run=dry_run)
        assert (sight(promised), promised.version()) == (before, version)

    def test_what_comes_from_elsewhere_may_overbook(self, promised: Delimiter, engine: Engine) -> None:
        """Nobody can refuse what has happened; edits are held to what they bear on."""
        engine.adopt(AdoptLimits(Scope("project", "web"), {"cores": 99}, as_of=engine.now()))
        assert promised.limits(project="web")["cores"] == 99
        for edit in (_limit("dev", 1), _limit("web", 11), _limit("acme", 11), AddProject("new", "zeta")):
            with pytest.raises(InvalidRequest):
                promised.edit([edit])
        promised.update_limits("ram", project="web", max=1)
        promised.define_resource("cores")
        promised.define_resource("discs", max=1)
        promised.remove_project("lab")
        promised.update_limits("cores", project="web", max=10)
        promised.add_project("new", parent="zeta")

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
