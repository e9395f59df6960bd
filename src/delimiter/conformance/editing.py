"""Edits in lists, tried out, or made on what was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from delimiter import (
    Conflict,
    Delimiter,
    DelimiterError,
    InvalidRequest,
    Overage,
    OverLimit,
    OwnLimit,
    Project,
    Resource,
    Scope,
    UnknownProject,
    UnknownResource,
)
from delimiter.conformance.contract import Contract, move_time, plant, sight
from delimiter.edits import (
    AddProject,
    Define,
    Edit,
    Keep,
    LimitChange,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
    Undefine,
)

if TYPE_CHECKING:
    from delimiter.engine import Engine

_CORES: Final = Resource("cores", "cores", project_max=9)


def _limit(project: str, max: int | Keep | None, resource: str = "cores", **given: Any) -> SetLimit:
    return SetLimit(resource, Scope("project", project), LimitChange(max, **given))


#: Each changes something, made in this order on an empty store.
_EDITS: Final[list[Edit]] = [
    Define(_CORES),
    Define(replace(_CORES, description="processors")),
    Define(replace(_CORES, project_max=8)),
    Define(Resource("ram", "ram")),
    SetLimit("cores", Scope.total(), LimitChange(max=100)),
    SetLimit("cores", Scope("user", "john"), LimitChange(min=1)),
    _limit("acme", 8),  # as the default is, but its own
    _limit("acme", None),
    AddProject("acme", None),
    AddProject("web", "acme"),
    MoveProject("web", None),
    RemoveProject("web"),
    SetOverbooking(allowed=False),
    SetOverbooking(allowed=True),
    Undefine("ram"),
]
#: On a store on which those were made, each of these changes nothing.
_SAME: Final[list[Edit]] = [
    Define(replace(_CORES, project_max=8)),
    SetLimit("cores", Scope.total(), LimitChange(max=100)),
    SetLimit("cores", Scope("user", "john"), LimitChange(min=1)),
    SetLimit("cores", Scope("user", "john"), LimitChange()),
    _limit("acme", None),
    _limit("nobody", None),
    AddProject("acme", None),
    MoveProject("acme", None),
    SetOverbooking(allowed=True),
]
#: What is refused on the store of ``_busy``.
_REFUSED: Final[list[tuple[Edit, type[DelimiterError]]]] = [
    (Undefine("cores"), InvalidRequest),
    (Undefine("discs"), UnknownResource),
    (_limit("acme", 1, "discs"), UnknownResource),
    (AddProject("shop", "dev"), InvalidRequest),
    (AddProject("new", "nowhere"), UnknownProject),
    (MoveProject("web", "lab"), OverLimit),
    (MoveProject("web", "shop"), InvalidRequest),
    (MoveProject("nowhere", "acme"), UnknownProject),
    (RemoveProject("acme"), InvalidRequest),
    (RemoveProject("nowhere"), UnknownProject),
    (SetOverbooking(allowed=False), InvalidRequest),
]
_MADE_BEFORE: Final[list[Edit]] = [
    Define(Resource("discs-2", "discs")),
    Define(Resource("cores", "cores", project_max=4, unit="cores")),
    _limit("dev", 3, min=1),
    _limit("web", 1),
    AddProject("new-2", "dev"),
    MoveProject("dev", "zeta"),
]
_TOTAL: Final = Scope.total()


def _over(limit: int, *scopes: str) -> list[Overage]:
    return [Overage("cores", scope, limit, used=12) for scope in scopes]


def _default(project_max: int) -> Define:
    return Define(Resource("cores", "cores", project_max=project_max))


#: Lists made where ``lab``, and with it ``zeta``, uses 12, and the default of projects is 20; who is over at the end.
_ENDS: Final[dict[str, tuple[list[Edit], list[Overage]]]] = {
    "lower, then higher": ([_limit("lab", 2), _limit("lab", 100)], []),
    "higher, then lower": ([_limit("lab", 100), _limit("lab", 2)], _over(2, "project:lab")),
    "a default, then own limits": ([_default(5), _limit("lab", 50), _limit("zeta", 12)], []),
    "own limits, then a default": ([_limit("lab", 50), _limit("zeta", 12), _default(5)], []),
    "one own limit and a default": ([_default(5), _limit("lab", 50)], _over(5, "project:zeta")),
    "an own limit that goes again": (
        [_limit("lab", 50), _default(5), _limit("lab", None)],
        _over(5, "project:lab", "project:zeta"),
    ),
    "two defaults": ([_default(5), _default(6)], _over(6, "project:lab", "project:zeta")),
    "a default there and back": ([_default(5), _default(20)], []),
    "the total, taken back": (
        [SetLimit("cores", _TOTAL, LimitChange(max=max)) for max in (3, None)],
        [],
    ),
    "what leaves is not used": ([_limit("zeta", 5), MoveProject("lab", None)], []),
    "what arrives is used": ([MoveProject("lab", "web"), _limit("acme", 5)], _over(5, "project:acme")),
    "what is not there any more": (
        [Define(Resource("ram", "ram")), _limit("lab", 0, "ram"), Undefine("ram")],
        [],
    ),
}


def _busy(quota: Delimiter) -> None:
    quota.define_resource("cores", project_max=8)
    plant(quota)
    quota.claim({"cores": 4}, project="shop", user="john")
    quota.claim({"cores": 3}, project="lab", user="mary")
    quota.update_limits("cores", project="zeta", max=5)


class EditContract(Contract):
    def test_every_edit_that_changes_something_is_a_new_version(self, quota: Delimiter) -> None:
        seen = [quota.version()]
        for edit in _EDITS:
            assert quota.edit([edit]) == []
            seen.append(quota.version())
        assert seen == sorted(set(seen)), seen
        before = sight(quota)
        for edit in _SAME:
            assert quota.edit([edit]) == []
            assert quota.version() == seen[-1], edit
        assert quota.edit([]) == []
        quota.claim({"cores": 1}, project="acme", id="c")
        quota.release("c")
        quota.prune(older_than=0)
        assert (sight(quota), quota.version()) == (before, seen[-1])

    @pytest.mark.parametrize("refused", _REFUSED, ids=str)
    def test_a_list_is_made_whole_or_not_at_all(
        self, quota: Delimiter, refused: tuple[Edit, type[DelimiterError]]
    ) -> None:
        _busy(quota)
        before, version, seq = sight(quota), quota.version(), len(list(quota.events()))
        edit, error = refused
        for dry_run in (True, False):
            with pytest.raises(error):
                quota.edit([*_MADE_BEFORE, edit], dry_run=dry_run)
        assert (sight(quota), quota.version(), len(list(quota.events()))) == (before, version, seq)
        quota.edit(_MADE_BEFORE)
        assert sight(quota) != before

    def test_each_edit_is_made_on_what_those_before_it_left(self, quota: Delimiter) -> None:
        overages = quota.edit(
            [
                Define(_CORES),
                AddProject("acme", None),
                AddProject("web", "acme"),
                AddProject("old", None),
                _limit("web", 3),
                _limit("web", Keep.KEEP, min=2),
                MoveProject("old", "web"),
                MoveProject("web", None),
                RemoveProject("acme"),
                AddProject("acme", "old"),
            ]
        )
        assert overages == []
        assert quota.projects() == [Project("web", None), Project("old", "web"), Project("acme", "old")]
        assert quota.own_limits() == [OwnLimit("cores", Scope("project", "web"), 3, 2)]

    def test_who_is_over_quota_is_told_in_order(self, quota: Delimiter) -> None:
        for name in ("cores", "ram"):
            quota.define_resource(name)
        plant(quota)
        quota.claim({"cores": 5, "ram": 5}, project="shop", user="john")
        quota.claim({"cores": 1, "ram": 9}, project="dev", user="mary")
        edits = [
            _limit("web", 4, "ram"),
            _limit("dev", 5, "ram"),
            _limit("web", 5),
            SetLimit("cores", Scope("user", "john"), LimitChange(max=1)),
            SetLimit("cores", Scope.total(), LimitChange(max=3)),
            _limit("acme", 2),
        ]
        expected = [
            Overage("cores", "total", limit=3, used=6),
            Overage("cores", "project:acme", limit=2, used=6),
            Overage("cores", "user:john", limit=1, used=5),
            Overage("ram", "project:dev", limit=5, used=9),
            Overage("ram", "project:web", limit=4, used=5),
        ]
        assert quota.edit(edits, dry_run=True) == expected
        assert quota.own_limits() == []
        assert quota.edit(edits) == expected
        assert quota.edit(edits) == expected  # nothing changed, but they are over it all the same

    def test_a_changed_default_tells_whom_it_concerns(self, quota: Delimiter) -> None:
        quota.define_resource("cores", project_max=20)
        plant(quota)
        quota.claim({"cores": 5}, project="shop", user="john")
        quota.claim({"cores": 4}, project="dev", user="mary")
        quota.claim({"cores": 6}, project="lab", user="mary")
        quota.update_limits("cores", project="lab", max=1)
        quota.update_limits("cores", project="web", max=5)
        quota.update_limits("cores", project="shop", min=1)
        lower = Define(Resource("cores", "cores", max=14, project_max=4, user_max=9))
        expected = [
            Overage("cores", "total", limit=14, used=15),
            Overage("cores", "project:acme", limit=4, used=9),
            Overage("cores", "project:shop", limit=4, used=5),
            Overage("cores", "project:zeta", limit=4, used=6),
            Overage("cores", "user:mary", limit=9, used=10),
        ]
        assert quota.edit([lower], dry_run=True) == expected
        assert quota.limits(project="dev") == {"cores": 20}
        assert quota.edit([lower]) == expected
        assert quota.edit([lower]) == []
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="dev")

    @pytest.mark.parametrize("case", _ENDS)
    def test_overages_are_those_of_the_end_of_a_list(self, quota: Delimiter, case: str) -> None:
        """Whose limit any of the edits set or changed is looked at once, after the last one."""
        quota.define_resource("cores", project_max=20)
        plant(quota)
        quota.claim({"cores": 12}, project="lab")
        edits, expected = _ENDS[case]
        assert quota.edit(edits, dry_run=True) == expected
        assert quota.edit(edits) == expected

    @pytest.mark.parametrize("own", [False, True], ids=["defaults", "own limits"])
    def test_reservations_that_ran_out_make_no_overage(
        self, quota: Delimiter, engine: Engine, *, own: bool
    ) -> None:
        """Also where they had made one before, and nobody has swept them since."""
        scopes = [_TOTAL, Scope("project", "acme"), Scope("user", "john")]

        def limit_all(limit: int) -> list[Edit]:
            if own:
                return [SetLimit("cores", scope, LimitChange(max=limit)) for scope in scopes]
            return [Define(Resource("cores", "cores", max=limit, project_max=limit, user_max=limit))]

        def over(limit: int, used: int) -> list[Overage]:
            return [Overage("cores", str(scope), limit, used) for scope in scopes]

        quota.define_resource("cores")
        quota.edit(limit_all(12))
        quota.claim({"cores": 5}, project="acme", user="john")
        quota.reserve({"cores": 7}, project="acme", user="john", expires_in=60)
        assert quota.edit(limit_all(6)) == over(6, used=12)
        move_time(engine, 60)
        assert quota.edit(limit_all(5), dry_run=True) == []
        assert quota.edit(limit_all(5)) == []
        assert quota.edit(limit_all(4)) == over(4, used=5)

    # -- tried out ------------------------------------------------------------------------------------------------

    def test_a_dry_run_keeps_nothing(self, handles: list[Delimiter]) -> None:
        quota, other = handles
        _busy(quota)
        before, version, events = sight(quota), quota.version(), list(quota.events())
        assert quota.update_limits("cores", project="web", max=1, dry_run=True) == [
            Overage("cores", "project:web", limit=1, used=4)
        ]
        for edits in ([*_MADE_BEFORE], [AddProject("fresh", "web")], [MoveProject("web", "dev")]):
            quota.edit(edits, dry_run=True)
        for one in handles:
            assert (sight(one), one.version(), list(one.events())) == (before, version, events)
        other.claim({"cores": 4}, project="web")
        with pytest.raises(UnknownProject):
            other.add_project("below", parent="fresh")
        quota.edit([AddProject("fresh", "web")])

    # -- made on what was seen ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_an_edit_of_what_has_changed_since_is_a_conflict(
        self, handles: list[Delimiter], *, dry_run: bool
    ) -> None:
        quota, other = handles
        _busy(quota)
        seen = quota.version()
        other.update_limits("cores", project="lab", max=7)
        before = sight(quota)
        with pytest.raises(Conflict) as refused:
            quota.edit([AddProject("new", "acme")], if_version=seen, dry_run=dry_run)
        assert refused.value.retryable is False
        assert sight(quota) == before
        with pytest.raises(Conflict):
            quota.update_limits("cores", project="lab", max=7, if_version=quota.version() + 1)
        now = quota.version()
        assert quota.edit([AddProject("new", "acme")], if_version=now, dry_run=dry_run) == []
        assert (quota.version() > now) is not dry_run

    # -- own limits -----------------------------------------------------------------------------------------------

    def test_own_limits_are_listed_in_order(self, quota: Delimiter) -> None:
        for name in ("ram", "cores"):
            quota.define_resource(name, max=9, user_max=5)
        assert quota.own_limits() == []
        quota.update_limits("ram", user="john", max=-1, min=2)
        quota.update_limits("cores", user="john", max=0)
        quota.update_limits("cores", project="zeta", min=0)
        quota.update_limits("cores", project="acme", max=3, min=1)
        quota.update_limits("cores", max=4)
        expected = [
            OwnLimit("cores", Scope.total(), 4, None),
            OwnLimit("cores", Scope("project", "acme"), 3, 1),
            OwnLimit("cores", Scope("project", "zeta"), None, 0),
            OwnLimit("cores", Scope("user", "john"), 0, None),
            OwnLimit("ram", Scope("user", "john"), -1, 2),
        ]
        assert quota.own_limits() == expected
        quota.update_limits("cores", project="acme", max=None)
        quota.update_limits("cores", project="zeta", min=None)
        quota.update_limits("cores", max=None)
        assert quota.own_limits() == [
            OwnLimit("cores", Scope("project", "acme"), None, 1),
            *expected[3:],
        ]
