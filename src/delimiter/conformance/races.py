"""Races of threads, counted exactly. Each docstring names the guard without which it fails."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from delimiter import (
    BelowMinimum,
    Claim,
    ClaimConflict,
    ClaimExpired,
    ClaimReleased,
    Delimiter,
    InvalidRequest,
    OverLimit,
    Request,
)
from delimiter.conformance.contract import OWNERS, Contract, Whom, move_time
from delimiter.conformance.counting import Bundles, assert_counts, assert_full, kinds, together, total

if TYPE_CHECKING:
    from collections.abc import Callable

    from delimiter.engine import Engine


class RaceContract(Contract):
    @pytest.mark.parametrize("scope", OWNERS, ids=str)
    def test_the_last_units(self, handles: list[Delimiter], scope: Whom) -> None:
        """Guard: the counter's row is locked, and ``used + n <= limit`` is decided on the locked row."""
        handles[0].define_resource("cores")
        handles[0].update_limits("cores", **scope, max=100)

        def take(number: int) -> int:
            quota, admitted = handles[number % 2], 0
            for _ in range(10):
                try:
                    quota.claim({"cores": 1}, project="acme", user="john")
                except OverLimit:
                    continue
                admitted += 1
            return admitted

        told = together([partial(take, number) for number in range(16)])
        assert total(told) == 100
        assert_full(handles[1], "cores", 100, **scope)
        assert_counts(handles[0], projects=["acme"], users=["john"])

    def test_the_whole_headroom_is_taken_once(self, handles: list[Delimiter]) -> None:
        """Guard: all counters of a path are locked before any is judged; here each of three alone would not do."""
        handles[0].define_resource("cores", max=30, project_max=20, user_max=10)
        for number in range(5):
            users = [f"u{number}-{one}" for one in range(2)]
            jobs = [
                partial(q.claim, {"cores": 10}, project="acme", user=user)
                for user in users
                for q in handles * 2
            ]
            assert kinds(together(jobs)) == {"Claim": 2, "OverLimit": 6}
            assert_counts(handles[0], projects=["acme"], users=users)
            for claim in handles[0].claims():
                handles[0].release(claim.id)

    def test_bundles_meet_every_limit_exactly(self, handles: list[Delimiter]) -> None:
        """Guards: the conditional update, the one lock order, and all or nothing: without any of them it fails."""
        bundles = Bundles()
        bundles.define(handles[0])
        done = threading.Event()
        seen: list[str] = []

        def watch() -> int:
            while not done.wait(0.002):
                for name, usage in handles[1].usage().items():
                    if usage.used > usage.limit:
                        seen.append(f"{name}: {usage}")
            return 0

        def work(number: int) -> int:
            return bundles.claim_some(handles[number % 2], rounds=12, seed=number)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            told = together([partial(work, number) for number in range(16)])
        finally:
            done.set()
            watcher.join()
        assert seen == []
        assert total(told) == len(list(handles[0].claims()))
        bundles.fill(handles[1])
        bundles.assert_met(handles[0])

    def test_one_id_by_many(self, handles: list[Delimiter]) -> None:
        """Guard: the unique key of the claim's id; who loses waits for the other and is answered as a replay."""
        handles[0].define_resource("cores", user_max=10)
        for round_ in range(5):
            jobs = [partial(q.claim, {"cores": 2}, user="john", id=f"c{round_}") for q in handles * 6]
            told = together(jobs)
            assert kinds(told) == {"Claim": 12}
            assert len({str(one) for one in told}) == 1
        assert_full(handles[0], "cores", 10, user="john")
        assert_counts(handles[0], users=["john"])

    def test_one_id_for_different_requests(self, handles: list[Delimiter]) -> None:
        """Guard: the fingerprint is compared on the row that won."""
        handles[0].define_resource("cores")
        jobs = [
            partial(q.claim, {"cores": n}, user=f"u{n}", id="c") for n, q in enumerate(handles * 6, start=1)
        ]
        assert kinds(together(jobs)) == {"Claim": 1, "ClaimConflict": 11}
        assert_counts(handles[0], users=[f"u{n}" for n in range(1, 13)])

    def test_one_external_id_by_many(self, handles: list[Delimiter]) -> None:
        """Guard: the unique key of the external ids of live claims."""
        handles[0].define_resource("cores")
        for number in range(4):
            handles[0].reserve({"cores": 1}, user="john", id=f"r{number}", expires_in=600)
        jobs: list[Callable[[], Claim]] = [
            partial(q.claim, {"cores": 1}, user="john", external_id="vm") for q in handles * 3
        ]
        jobs += [partial(handles[n % 2].provision, f"r{n}", external_id="vm") for n in range(4)]
        assert kinds(together(jobs)) == {"Claim": 1, "ClaimConflict": 9}
        assert [one.external_id for one in handles[0].claims()].count("vm") == 1
        assert_counts(handles[0], users=["john"])

    def test_a_reservation_ends_in_one_way(self, handles: list[Delimiter], engine: Engine) -> None:
        """Guard: the claim's row is locked and its state read under the lock, before anything is given back."""
        a, b = handles
        a.define_resource("cores", user_max=9)
        for round_ in range(8):
            a.reserve({"cores": 2}, user="john", id=f"r{round_}", expires_in=60)
            id = f"r{round_}"
            jobs: list[Callable[[], Any]] = [
                partial(a.release, id),
                partial(b.release, id),
                partial(a.provision, id),
                partial(b.renew, id, expires_in=600),
                partial(a.resize, id, {"cores": 3}),
                partial(b.transfer, id, user="mary"),
                a.expire_reservations,
                b.expire_reservations,
            ]
            if round_ % 2:
                jobs.append(partial(self._move_all, engine, handles, 100))
            told = together(jobs)
            refused = [one for one in told if isinstance(one, Exception)]
            allowed = ClaimExpired, ClaimReleased, InvalidRequest
            assert all(isinstance(one, allowed) for one in refused), refused
            assert a.get_claim(id).state in ("released", "expired")
            assert_counts(a, users=["john", "mary"])
            assert a.usage()["cores"].used == 0

    def test_a_sweep_sweeps_each_once(self, handles: list[Delimiter], engine: Engine) -> None:
        """Guard: a sweep takes the rows it ends under lock; two sweeps never give one reservation back twice."""
        handles[0].define_resource("cores", max=100)
        handles[0].claim_all([Request({"cores": 1}, user=f"u{n % 3}", expires_in=60) for n in range(60)])
        handles[0].claim({"cores": 40}, user="u0")
        self._move_all(engine, handles, 60)
        jobs: list[Callable[[], Any]] = [q.expire_reservations for q in handles * 4]
        jobs += [partial(q.claim, {"cores": 1}, user="u0") for q in handles * 4]
        told = together(jobs)
        assert kinds(told) == {"int": 8, "Claim": 8}
        assert sum(one for one in told if isinstance(one, int)) <= 60
        assert len(list(handles[0].claims(state="expired"))) == 60
        assert_counts(handles[0], users=["u0", "u1", "u2"])
        assert handles[0].usage()["cores"].used == 48

    def test_what_ran_out_is_found_by_all_who_need_it(self, handles: list[Delimiter], engine: Engine) -> None:
        """Guard: before it is refused, a claim looks for what ran out; and decides on locked rows again."""
        handles[0].define_resource("cores", max=8)
        handles[0].claim_all([Request({"cores": 1}, user="john", expires_in=60) for _ in range(8)])
        self._move_all(engine, handles, 60)
        jobs = [partial(q.claim, {"cores": 1}, user="john") for q in handles * 6]
        assert kinds(together(jobs)) == {"Claim": 8, "OverLimit": 4}
        assert_full(handles[0], "cores", 8)
        assert_counts(handles[0], users=["john"])

    def test_a_release_gives_back_once(self, handles: list[Delimiter]) -> None:
        """Guard: the state is read under the claim's lock; a second release finds it ended."""
        handles[0].define_resource("cores", user_max=40)
        handles[0].claim({"cores": 20}, user="john")
        handles[0].claim({"cores": 1}, user="john", id="root")
        for number in range(10):
            handles[0].claim({"cores": 1}, user="john", id=f"c{number}", parent="root")
        jobs = [partial(q.release, f"c{n}") for n in range(6) for q in handles]
        jobs += [partial(q.release, "root") for q in handles * 2]
        assert kinds(together(jobs)) == {"NoneType": 16}
        assert handles[0].usage(user="john")["cores"].used == 20
        assert_counts(handles[0], users=["john"])

    def test_no_child_outlives_a_released_parent(self, handles: list[Delimiter]) -> None:
        """Guard: a new child locks its parent's row, so that a release either sees it or refuses it."""
        handles[0].define_resource("cores")
        for round_ in range(5):
            root = handles[0].claim({"cores": 1}, user="john", id=f"root{round_}").id
            jobs: list[Callable[[], Any]] = [
                partial(handles[n % 2].claim, {"cores": 1}, user="mary", parent=root) for n in range(8)
            ]
            jobs.append(partial(handles[1].release, root))
            told = kinds(together(jobs))
            assert set(told) <= {"Claim", "ClaimReleased", "NoneType"}
            assert list(handles[0].claims()) == []
            assert_counts(handles[0], users=["john", "mary"])
        assert handles[0].usage()["cores"].used == 0

    def test_crossing_transfers_and_lists_do_not_deadlock(self, handles: list[Delimiter]) -> None:
        """Guard: the one lock order, claims before counters, counters by number."""
        names = ["p0", "p1", "p2", "p3"]
        for resource in ("a", "b", "c"):
            handles[0].define_resource(resource, max=500, project_max=300)
        for number in range(8):
            handles[0].claim({"a": 1, "b": 2, "c": 3}, project=names[number % 4], id=f"c{number}")

        def cross(number: int) -> None:
            quota = handles[number % 2]
            for step in range(5):
                ahead, back = names[(number + step) % 4], names[(number - step) % 4]
                quota.transfer(f"c{number}", project=ahead)
                quota.resize(f"c{(number + 1) % 8}", {"a": step + 1, "c": 9 - step})
                pair = [Request({"c": 1, "a": 1}, project=ahead), Request({"b": 1, "a": 1}, project=back)]
                for claim in quota.claim_all(pair if number % 2 else pair[::-1]):
                    quota.release(claim.id)

        assert kinds(together([partial(cross, n) for n in range(8)])) == {"NoneType": 8}
        assert_counts(handles[0], projects=names)

    def test_a_floor_is_not_undercut_together(self, handles: list[Delimiter]) -> None:
        """Guard: floors are judged on the locked counters."""
        handles[0].define_resource("cores", project_min=3)
        for number in range(8):
            handles[0].claim({"cores": 1}, project="acme", id=f"c{number}")
        told = together([partial(handles[n % 2].release, f"c{n}") for n in range(8)])
        assert kinds(told) == {"NoneType": 5, BelowMinimum.__name__: 3}
        assert_counts(handles[0], projects=["acme"])

    def test_a_conflicting_replay_takes_nothing(self, handles: list[Delimiter]) -> None:
        """Guard: a list is refused whole, also when the conflict shows only at the unique key."""
        handles[0].define_resource("cores", user_max=100)
        jobs = []
        for number, quota in enumerate(handles * 4, start=1):
            own = Request({"cores": 1}, user="john", id=f"own{number}")
            shared = Request({"cores": number}, user="john", id="shared")
            jobs.append(partial(quota.claim_all, [own, shared]))
        assert kinds(together(jobs)) == {"list": 1, ClaimConflict.__name__: 7}
        assert len(list(handles[0].claims())) == 2
        assert_counts(handles[0], users=["john"])

    def _move_all(self, engine: Engine, handles: list[Delimiter], seconds: float) -> None:
        """Time goes on for both handles."""
        for one in {id(q._engine): q._engine for q in handles}.values():  # noqa: SLF001 - no verb moves time
            move_time(one, seconds)
