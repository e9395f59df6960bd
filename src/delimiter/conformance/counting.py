"""What a store must show after a race: exact counts, and no number that disagrees with the claims."""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from delimiter import Claim, Delimiter, DelimiterError, OverLimit
from delimiter.conformance.contract import Whom

__all__ = ["Bundles", "assert_counts", "assert_full", "kinds", "together", "total"]

T = TypeVar("T")


def together(jobs: Iterable[Callable[[], T]]) -> list[T | DelimiterError]:
    """Run all of them at once, one thread each; what was returned or refused. Any other exception comes out."""
    listed = list(jobs)
    start = threading.Barrier(len(listed))

    def one(job: Callable[[], T]) -> T | DelimiterError:
        start.wait()
        try:
            return job()
        except DelimiterError as error:
            return error

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # else each job is over before the next one begins, and nothing is raced for
    try:
        with ThreadPoolExecutor(len(listed)) as pool:
            return list(pool.map(one, listed))
    finally:
        sys.setswitchinterval(usual)


def total(told: Iterable[object]) -> int:
    """The sum of what everybody returned; nobody was refused."""
    numbers = []
    for one in told:
        if isinstance(one, DelimiterError):
            raise one
        assert isinstance(one, int)
        numbers.append(one)
    return sum(numbers)


def kinds(told: Iterable[object]) -> dict[str, int]:
    """How many were told what."""
    found: dict[str, int] = {}
    for one in told:
        name = type(one).__name__
        found[name] = found.get(name, 0) + 1
    return found


@dataclass(frozen=True)
class Bundles:
    """Random claims of three resources on few projects and users, under limits of all kinds.

    The totals are smaller than the sum of the projects' and of the users' limits, so that filling up whatever has
    room ends with every total met exactly.
    """

    projects: Sequence[str] = ("p0", "p1", "p2")
    users: Sequence[str] = ("u0", "u1", "u2", "u3")
    resources: Sequence[str] = ("r0", "r1", "r2", "r3")
    total: int = 60
    project: int = 25
    user: int = 20

    def define(self, quota: Delimiter) -> None:
        for number, name in enumerate(self.resources):
            quota.define_resource(
                name, max=self.total + number, project_max=self.project + number, user_max=self.user + number
            )

    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.product(self.projects, self.users))

    def claim_some(self, quota: Delimiter, rounds: int, seed: int) -> int:
        """Claims (and now and then gives back) random bundles; how many claims it still holds."""
        dice = random.Random(seed)
        held: list[str] = []
        for _ in range(rounds):
            project, user = dice.choice(self.projects), dice.choice(self.users)
            bundle = {name: dice.randint(1, 3) for name in dice.sample(self.resources, 3)}
            try:
                if held and dice.random() < 0.25:
                    quota.release(held.pop(dice.randrange(len(held))))
                elif dice.random() < 0.2:
                    claim = quota.reserve(bundle, project=project, user=user, expires_in=6000)
                    held.append(quota.provision(claim.id).id)
                else:
                    held.append(quota.claim(bundle, project=project, user=user).id)
            except OverLimit:
                continue
        return len(held)

    def fill(self, quota: Delimiter) -> None:
        """Each pair takes exactly its headroom, and is refused one unit more."""
        for name in self.resources:
            for project, user in self.pairs():
                room = quota.check({name: 1}, project=project, user=user).available[name]
                assert room is not None
                if room:
                    refused = _refused(quota, {name: room + 1}, project, user)
                    assert all(one.used + room + 1 > one.limit for one in refused.violations)
                    quota.claim({name: room}, project=project, user=user)
                _refused(quota, {name: 1}, project, user)

    def assert_met(self, quota: Delimiter) -> None:
        """Every total is met exactly, no limit is passed, and all of it is what the claims say."""
        for number, name in enumerate(self.resources):
            usage = quota.usage()[name]
            assert (usage.used, usage.limit) == (self.total + number, self.total + number)
        assert_counts(quota, projects=self.projects, users=self.users)


def _refused(quota: Delimiter, resources: dict[str, int], project: str, user: str) -> OverLimit:
    try:
        quota.claim(resources, project=project, user=user)
    except OverLimit as refusal:
        return refusal
    raise AssertionError(f"{resources} was admitted for {project}/{user} where there was no room")


def assert_counts(quota: Delimiter, *, projects: Iterable[str] = (), users: Iterable[str] = ()) -> None:
    """What each scope uses is the sum of its live claims, and nobody is over a limit. Nothing moves meanwhile.

    A project's claims are its own and those of all projects below it.
    """
    live = list(quota.claims())
    parents = dict(quota.projects())
    scopes: list[Whom] = [
        {},
        *({"project": one} for one in projects),
        *({"user": one} for one in users),
    ]
    for scope in scopes:
        charged = [one for one in live if _is_charged(one, scope, parents)]
        for name, usage in quota.usage(**scope).items():
            used = sum(one.resources.get(name, 0) for one in charged)
            reserved = sum(one.resources.get(name, 0) for one in charged if one.state == "reserved")
            assert (usage.used, usage.reserved) == (used, reserved), (scope, name)
            assert usage.limit == -1 or usage.used <= usage.limit, (scope, name)
    assert list(quota.reconcile()) == []


def _is_charged(claim: Claim, scope: Whom, parents: Mapping[str, str | None]) -> bool:
    above = claim.project
    while "project" in scope and above != scope["project"] and above is not None:
        above = parents.get(above)
    return scope.get("project") in (None, above) and scope.get("user") in (None, claim.user)


def assert_full(quota: Delimiter, resource: str, limit: int, **scope: Any) -> None:
    """The limit is met exactly."""
    usage = quota.usage(**scope)[resource]
    assert (usage.used, usage.limit) == (limit, limit)
