"""Races of claims with the tree they are charged in. Each docstring names the guard without which it fails."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from delimiter import (
    Claim,
    Conflict,
    Delimiter,
    InvalidRequest,
    OverLimit,
    UnknownProject,
)
from delimiter.conformance.contract import FOREST, Contract, plant, used
from delimiter.conformance.counting import assert_counts, assert_full, kinds, together, total
from delimiter.edits import AddProject

if TYPE_CHECKING:
    from collections.abc import Callable


def _claims_of(quota: Delimiter, projects: list[str], tries: int) -> int:
    """How many of these tries were admitted, one core each, around the projects."""
    admitted = 0
    for step in range(tries):
        try:
            quota.claim({"cores": 1}, project=projects[step % len(projects)])
        except OverLimit:
            continue
        admitted += 1
    return admitted


class TreeRaceContract(Contract):
    @pytest.mark.parametrize("limited", ["acme", "web"])
    def test_the_last_units_of_an_ancestor(self, handles: list[Delimiter], limited: str) -> None:
        """Guard: a limited ancestor is one row for all who are below it, and it is decided on that row, locked."""
        handles[0].define_resource("cores")
        plant(handles[0])
        handles[0].update_limits("cores", project=limited, max=30)
        below = ["web", "shop"] if limited == "web" else ["acme", "dev", "web", "shop"]
        told = together(
            [partial(_claims_of, handles[n % 2], below[n % len(below) :] + below, 6) for n in range(12)]
        )
        assert total(told) == 30
        assert_full(handles[1], "cores", 30, project=limited)
        assert_counts(handles[0], projects=FOREST)

    def test_the_first_claims_of_new_projects(self, handles: list[Delimiter]) -> None:
        """Guard: the first claim of a scope makes its counter; it must not miss its ancestors, nor count twice."""
        handles[0].define_resource("cores")
        handles[0].add_project("acme")
        handles[0].update_limits("cores", project="acme", max=15)
        names = [f"p{number}" for number in range(24)]
        for name in names:
            handles[0].add_project(name, parent="acme")
        told = together(
            [partial(handles[n % 2].claim, {"cores": 1}, project=name) for n, name in enumerate(names)]
        )
        assert kinds(told) == {"Claim": 15, "OverLimit": 9}
        assert_full(handles[0], "cores", 15, project="acme")
        assert_counts(handles[1], projects=["acme", *names])

    def test_a_project_is_added_while_it_claims(self, handles: list[Delimiter]) -> None:
        """Guard: what gives a project its place locks its counters; a claim is before it (carried) or after it."""
        handles[0].define_resource("cores")
        handles[0].add_project("acme")
        handles[0].update_limits("cores", project="acme", max=1000)
        for round_ in range(4):
            name = f"p{round_}"
            told = together(
                [partial(_number_of, handles[0].add_project, name, parent="acme")]
                + [partial(_claims_of, handles[n % 2], [name], 3) for n in range(6)]
            )
            assert total(told) == 18
            assert used(handles[1], "cores", name, "acme") == [18, 18 * (round_ + 1)]
        assert_counts(handles[0], projects=["acme", "p0", "p1", "p2", "p3"])

    def test_the_first_limit_of_an_ancestor_under_load(self, handles: list[Delimiter]) -> None:
        """Guards: setting it locks the counters below and sums in a new statement; generations turn later claims."""
        handles[0].define_resource("cores")
        plant(handles[0])
        taken = 0
        for round_ in range(4):
            projects = ["acme", "dev", "shop"]
            limit = taken + 12
            told = together(
                [partial(handles[0].update_limits, "cores", project="acme", max=limit)]
                + [partial(_claims_of, handles[n % 2], projects[n % 3 :] + projects, 4) for n in range(8)]
            )
            overages = told[0]
            assert isinstance(overages, list)
            taken += total(told[1:])
            assert used(handles[1], "cores", "acme") == [taken]
            assert taken == (overages[0].used if overages else limit)
            for project in projects:
                with pytest.raises(OverLimit):
                    handles[round_ % 2].claim({"cores": 1}, project=project)
            assert list(handles[0].reconcile()) == []
            handles[1].update_limits("cores", project="acme", max=None)

    def test_moves_to_and_fro_under_load(self, handles: list[Delimiter]) -> None:
        """Guards: a move locks all it carries, and raises generations; claims are decided on the way they then have."""
        handles[0].define_resource("cores")
        plant(handles[0], {"left": None, "right": None})
        for parent in ("left", "right"):
            handles[0].update_limits("cores", project=parent, max=40)
        moved = ["a", "b", "c"]
        for name in moved:
            handles[0].add_project(name, parent="left")
            handles[0].add_project(name + name, parent=name)
            handles[0].claim({"cores": 2}, project=name + name)

        def move(number: int) -> int:
            made = 0
            for step in range(6):
                try:
                    handles[number % 2].move_project(moved[number], parent=("right", "left")[step % 2])
                except OverLimit:
                    continue
                made += 1
            return made

        def churn(number: int) -> int:
            quota, held = handles[number % 2], 0
            for step in range(8):
                name = moved[(number + step) % 3]
                try:
                    claim = quota.claim({"cores": 1 + step % 3}, project=name * (1 + step % 2))
                except OverLimit:
                    continue
                if step % 4 == 3:
                    quota.release(claim.id)
                else:
                    held += claim.resources["cores"]
            return held

        told = together([partial(move, n) for n in range(3)] + [partial(churn, n) for n in range(8)])
        total(told[:3])
        held = total(told[3:])
        assert sum(used(handles[1], "cores", "left", "right")) == held + 6
        assert handles[0].usage()["cores"].used == held + 6
        assert_counts(handles[0], projects=["left", "right", *moved, *(name * 2 for name in moved)])

    def test_crossing_moves_make_no_circle(self, handles: list[Delimiter]) -> None:
        """Guard: edits of the tree come one after the other, each on what the ones before it left."""
        handles[0].define_resource("cores")
        plant(handles[0], {"a": None, "b": None, "c": None})
        for _ in range(6):
            for name in ("a", "b", "c"):
                handles[0].move_project(name, parent=None)
            pairs = [("a", "b"), ("b", "c"), ("c", "a")]
            told = together(
                [
                    partial(handles[n % 2].move_project, id, parent=parent)
                    for n, (id, parent) in enumerate(pairs)
                ]
            )
            assert kinds(told) == {"NoneType": 2, InvalidRequest.__name__: 1}
            handles[1].claim({"cores": 1}, project="a")
        assert_counts(handles[0], projects=["a", "b", "c"])

    def test_nothing_is_held_by_what_is_removed(self, handles: list[Delimiter]) -> None:
        """Guard: a claim and the removal of its project exclude each other; its ancestors are charged, or nobody is."""
        handles[0].define_resource("cores")
        handles[0].add_project("acme")
        handles[0].update_limits("cores", project="acme", max=100)
        held = 0
        for round_ in range(6):
            name = f"p{round_}"
            handles[0].add_project(name, parent="acme")
            told = together(
                [partial(handles[0].remove_project, name)]
                + [partial(handles[n % 2].claim, {"cores": 1}, project=name) for n in range(5)]
            )
            assert kinds(told[1:]) == {"Claim": 5}  # a project that the tree does not know may claim too
            if told[0] is None:
                assert name not in dict(handles[1].projects())
            else:
                assert isinstance(told[0], InvalidRequest)
                held += 5
            assert used(handles[1], "cores", name, "acme") == [5, held]
        assert list(handles[0].reconcile()) == []

    def test_everybody_plants_the_same_tree(self, handles: list[Delimiter]) -> None:
        """Guard: adding a project is idempotent under its unique key."""
        handles[0].define_resource("cores")
        handles[0].update_limits("cores", project="acme", max=8)

        def start(number: int) -> int:
            plant(handles[number % 2])
            handles[number % 2].claim({"cores": 1}, project=("shop", "dev")[number % 2])
            return 1

        assert together([partial(start, n) for n in range(8)]) == [1] * 8
        assert dict(handles[1].projects()) == FOREST
        assert_full(handles[0], "cores", 8, project="acme")
        assert_counts(handles[0], projects=FOREST)

    def test_one_of_many_edits_on_the_same_version(self, handles: list[Delimiter]) -> None:
        """Guard: the version is compared and raised under one lock."""
        for round_ in range(5):
            seen = handles[0].version()
            jobs: list[Callable[[], Any]] = [
                partial(q.edit, [AddProject(f"p{round_}-{n}", None)], if_version=seen)
                for n, q in enumerate(handles * 4)
            ]
            assert kinds(together(jobs)) == {"list": 1, Conflict.__name__: 7}
            assert len(handles[1].projects()) == round_ + 1

    @pytest.mark.parametrize("scope", ["acme", "web", "shop", None])
    def test_a_limit_holds_for_the_very_next_claim(self, handles: list[Delimiter], scope: str | None) -> None:
        """Guard: what a process remembers of limits and ways is never what decides; the generation tells it so."""
        first, second = handles
        first.define_resource("cores")
        plant(first)
        second.claim({"cores": 5}, project="shop")
        for _ in range(25):
            first.update_limits("cores", project=scope, max=5)
            with pytest.raises(OverLimit):
                second.claim({"cores": 1}, project="shop")
            first.update_limits("cores", project=scope, max=6)
            second.release(second.claim({"cores": 1}, project="shop").id)

    def test_a_move_holds_for_the_very_next_claim(self, handles: list[Delimiter]) -> None:
        """Guard: a move raises the generations of all that it carries."""
        first, second = handles
        first.define_resource("cores")
        plant(first)
        first.update_limits("cores", project="acme", max=0)
        for _ in range(25):
            first.move_project("web", parent="zeta")
            second.release(second.claim({"cores": 1}, project="shop").id)
            first.move_project("web", parent="acme")
            with pytest.raises(OverLimit):
                second.claim({"cores": 1}, project="shop")

    def test_unknown_parents_are_unknown_to_all(self, handles: list[Delimiter]) -> None:
        """Guard: a parent is looked up under the lock of the tree: nothing is added below what is removed."""
        for round_ in range(6):
            parent = f"p{round_}"
            handles[0].add_project(parent)
            told = together(
                [partial(handles[0].remove_project, parent)]
                + [partial(handles[n % 2].add_project, f"{parent}-{n}", parent=parent) for n in range(4)]
            )
            tree = dict(handles[1].projects())
            if told[0] is None:
                assert kinds(told[1:]) == {UnknownProject.__name__: 4}
                assert parent not in tree
            else:
                assert isinstance(told[0], InvalidRequest)
                assert [tree.get(f"{parent}-{n}") == parent for n in range(4)] == [
                    one is None for one in told[1:]
                ]
                assert tree[parent] is None

    def test_each_crossing_is_told_once(self, handles: list[Delimiter]) -> None:
        """Guard: who writes the number that crosses a limit writes the event, in the same transaction."""
        handles[0].define_resource("cores")
        plant(handles[0])
        handles[0].claim({"cores": 1}, project="web")
        rounds = 5
        for _ in range(rounds):
            claims = [handles[0].claim({"cores": 1}, project="shop", user="john") for _ in range(8)]
            told = together(
                [partial(q.update_limits, "cores", project="acme", max=4) for q in handles]
                + [partial(handles[0].update_limits, "cores", user="john", max=2)]
                + [partial(handles[1].claim, {"cores": 5}, project="dev")]
            )
            for one in told:
                if isinstance(one, Claim):
                    handles[0].release(one.id)
            releases = [partial(handles[n % 2].release, one.id) for n, one in enumerate(claims)]
            assert kinds(together(releases)) == {"NoneType": 8}
            for q in handles:
                q.update_limits("cores", project="acme", max=None)
                q.update_limits("cores", user="john", max=None)
        first, second = (list(q.events()) for q in handles)
        assert first == second
        assert [one.seq for one in first] == list(range(1, len(first) + 1))
        crossings = Counter((one.kind, one.scope) for one in first if one.kind != "limit_changed")
        assert crossings == {
            (kind, scope): rounds
            for kind in ("over_quota", "back_within_quota")
            for scope in ("project:acme", "user:john")
        }
        assert Counter(one.scope for one in first if one.kind == "limit_changed") == {
            "project:acme": 2 * rounds,
            "user:john": 2 * rounds,
        }

    def test_readers_of_events_miss_none(self, handles: list[Delimiter]) -> None:
        """Guard: events are numbered in the order of their commits, under the publishing lock, not when written."""
        handles[0].define_resource("cores")
        users = [f"u{number}" for number in range(8)]
        for user in users:
            handles[0].claim({"cores": 2}, user=user)

        def write(number: int) -> list[int]:
            for limit in (1, 2, 1, 2):
                handles[number % 2].update_limits("cores", user=users[number], max=limit)
            return []

        def read(number: int) -> list[int]:
            seen: list[int] = []
            while len(seen) < 8 * 8:
                after = seen[-1] if seen else 0
                seen += [one.seq for one in handles[number % 2].events(after=after)]
            return seen

        told = together([partial(write, n) for n in range(8)] + [partial(read, n) for n in range(4)])
        assert told[8:] == [list(range(1, 65))] * 4
        by_user = Counter((one.scope, one.kind) for one in handles[0].events())
        assert set(by_user.values()) == {4, 2}


def _number_of(call: Callable[..., None], *given: Any, **named: Any) -> int:
    """Of a call that returns nothing: nothing was claimed."""
    call(*given, **named)
    return 0
