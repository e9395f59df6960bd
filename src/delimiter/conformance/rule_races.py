"""Races of claims with the rules they are decided by. Each docstring names the guard without which it fails."""

from __future__ import annotations

from functools import partial

import pytest

from delimiter import (
    Claim,
    Delimiter,
    OverLimit,
    UnknownResource,
)
from delimiter.conformance.contract import OWNERS, Contract, Whom, all_claims
from delimiter.conformance.counting import assert_counts, assert_full, kinds, together, total


class RuleRaceContract(Contract):
    @pytest.mark.parametrize("scope", OWNERS, ids=str)
    def test_a_limit_holds_once_it_is_set(self, handles: list[Delimiter], scope: Whom) -> None:
        """Guards: setting a limit locks the counters it sums; the generation turns later claims to the new path."""
        for round_ in range(4):
            name = f"cores{round_}"
            handles[0].define_resource(name)
            told = together(
                [partial(handles[0].update_limits, name, **scope, max=12)]
                + [partial(_claims_of, handles[n % 2], name, 4) for n in range(8)]
            )
            overages = told[0]
            assert isinstance(overages, list)
            used = handles[1].usage(**scope)[name].used
            assert used == total(told[1:])
            assert used == (overages[0].used if overages else 12)
            assert handles[0].usage()[name].used == used
            with pytest.raises(OverLimit):
                handles[1].claim({name: 1}, project="acme", user="john")

    def test_a_default_holds_once_it_is_defined(self, handles: list[Delimiter]) -> None:
        """Guard: the first claim of a new scope makes its counter from the definition under lock."""
        for round_ in range(4):
            name = f"cores{round_}"
            handles[0].define_resource(name)
            told = together(
                [partial(handles[0].define_resource, name, project_max=12)]
                + [partial(_claims_of, handles[n % 2], name, 4) for n in range(8)]
            )
            used = handles[1].usage(project="acme")[name].used
            assert used == total(told[1:])
            assert used >= 12
            with pytest.raises(OverLimit):
                handles[1].claim({name: 1}, project="acme", user="john")
            assert handles[0].limits(project="acme")[name] == 12

    def test_nothing_is_held_of_what_is_undefined(self, handles: list[Delimiter]) -> None:
        """Guard: a claim and the removal of a definition exclude each other."""
        for round_ in range(6):
            name = f"cores{round_}"
            handles[0].define_resource(name)
            told = together(
                [partial(handles[0].undefine_resource, name)]
                + [partial(handles[n % 2].claim, {name: 1}, user=f"u{n}", id=f"{name}-{n}") for n in range(6)]
            )
            gone = told[0] is None
            held = [one for one in told[1:] if isinstance(one, Claim)]
            refused = [one for one in told[1:] if not isinstance(one, Claim)]
            assert all(isinstance(one, UnknownResource) for one in refused)
            assert (gone, bool(held)) in ((True, False), (False, True)), told
            assert {one.id for one in handles[0].claims(resource=name)} == {one.id for one in held}
            assert (name in handles[1].usage()) is not gone

    def test_everybody_defines_at_once(self, handles: list[Delimiter]) -> None:
        """Guard: registering is idempotent under the definition's unique key."""

        def start(number: int) -> int:
            quota = handles[number % 2]
            quota.define_resource("cores", max=16, user_max=16)
            quota.claim({"cores": 1}, user="john", project=f"p{number % 3}")
            return 1

        assert together([partial(start, n) for n in range(16)]) == [1] * 16
        assert_full(handles[1], "cores", 16)
        assert_counts(handles[0], projects=["p0", "p1", "p2"], users=["john"])

    def test_pruning_beside_claims(self, handles: list[Delimiter]) -> None:
        """Guard: a claim is forgotten only if, under lock, nothing hangs below it."""
        handles[0].define_resource("cores", user_max=50)

        def churn(number: int) -> int:
            quota = handles[number % 2]
            for step in range(4):
                root = quota.claim({"cores": 1}, user="john", id=f"{number}-{step}")
                quota.claim({"cores": 1}, user="john", parent=root.id)
                quota.release(root.id)
            return 0

        jobs = [partial(churn, n) for n in range(6)]
        jobs += [partial(q.prune, older_than=0) for q in handles]
        assert kinds(together(jobs)) == {"int": 8}
        handles[0].prune(older_than=0)
        assert all_claims(handles[0]) == []
        assert_counts(handles[0], users=["john"])


def _claims_of(quota: Delimiter, name: str, tries: int) -> int:
    """How many of these tries were admitted; all for the same project and user."""
    admitted = 0
    for _ in range(tries):
        try:
            quota.claim({name: 1}, project="acme", user="john")
        except OverLimit:
            continue
        admitted += 1
    return admitted
