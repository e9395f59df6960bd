"""Reservations: provisioning, renewing, running out, being swept; and pruning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from delimiter import (
    ClaimConflict,
    ClaimExpired,
    Delimiter,
    InvalidRequest,
    OverLimit,
    Request,
    UnknownClaim,
    Usage,
)
from delimiter.conformance.contract import OWNERS, Contract, all_claims, move_time, sight

if TYPE_CHECKING:
    from delimiter.engine import Engine


class ReservationContract(Contract):
    def test_a_reservation_counts_and_says_when_it_runs_out(self, quota: Delimiter) -> None:
        quota.define_resource("cores", user_max=2)
        first = quota.reserve({"cores": 2}, user="john", expires_in=60)
        assert first.state == "reserved"
        assert first.expires_at is not None
        assert first.expires_at.utcoffset() == timedelta(0)
        assert abs(first.expires_at - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=30)
        assert quota.usage(user="john")["cores"] == Usage(2, 2, 2)
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, user="john")

    def test_times_are_seconds_or_timedeltas(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        for span in (1.5, 90, timedelta(hours=1), timedelta(days=3650)):
            claim = quota.reserve({"cores": 1}, user="john", expires_in=span)
            seconds = span.total_seconds() if isinstance(span, timedelta) else span
            assert claim.expires_at is not None
            left = (claim.expires_at - datetime.now(UTC)).total_seconds()
            assert abs(left - seconds) < 30

    def test_it_runs_out_by_itself(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", max=2, project_max=2, user_max=2)
        made = quota.reserve({"cores": 2}, project="acme", user="john", id="r", expires_in=60)
        move_time(engine, 30)
        assert quota.get_claim("r").state == "reserved"
        move_time(engine, 30)
        gone = quota.get_claim("r")
        assert (gone.state, gone.expires_at) == ("expired", made.expires_at)
        for scope in OWNERS:
            assert quota.usage(**scope)["cores"] == Usage(2, 0, 0)
        quota.claim({"cores": 2}, project="acme", user="john")
        quota.expire_reservations()
        assert quota.get_claim("r") == gone
        for scope in OWNERS:
            assert quota.usage(**scope)["cores"] == Usage(2, 2, 0)

    def test_it_runs_out_in_each_scope_of_a_refusal(self, quota: Delimiter, engine: Engine) -> None:
        """A claim that would be refused looks for what ran out in every scope that is in its way, not in one."""
        quota.define_resource("cores", max=6, project_max=3, user_max=2)
        quota.define_resource("ram", user_max=1)
        quota.reserve({"cores": 2}, project="zeta", expires_in=60)
        quota.reserve({"cores": 2}, project="acme", expires_in=60)
        quota.reserve({"cores": 2, "ram": 1}, user="john", expires_in=60)
        move_time(engine, 60)
        quota.claim({"cores": 2, "ram": 1}, project="acme", user="john")
        assert quota.usage()["cores"] == Usage(6, 2, 0)

    def test_violations_do_not_count_what_ran_out(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_max=4)
        quota.reserve({"cores": 3}, user="john", expires_in=60)
        quota.claim({"cores": 1}, user="john")
        move_time(engine, 60)
        with pytest.raises(OverLimit) as refused:
            quota.claim({"cores": 4}, user="john")
        assert [(one.used, one.available) for one in refused.value.violations] == [(1, 3)]

    def test_a_sweep_says_what_it_swept(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        for number in range(5):
            quota.reserve({"cores": 1}, user="john", id=f"r{number}", expires_in=60)
        quota.reserve({"cores": 1}, user="john", id="longer", expires_in=600)
        quota.provision("r0")
        quota.release("r1")
        assert quota.expire_reservations() == 0
        move_time(engine, 60)
        before = sight(quota)
        assert quota.expire_reservations() == 3
        assert quota.expire_reservations() == 0
        assert sight(quota) == before
        assert quota.usage(user="john")["cores"] == Usage(-1, 2, 1)

    def test_many_are_swept_in_one_call(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", project_max=450)
        quota.claim_all([Request({"cores": 1}, project="acme", expires_in=60) for _ in range(450)])
        move_time(engine, 60)
        assert quota.expire_reservations() == 450
        assert quota.prune(older_than=0) == 450

    def test_provisioned_it_stays(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores", user_max=2)
        quota.reserve({"cores": 2}, user="john", id="r", expires_in=60)
        claim = quota.provision("r", external_id="vm")
        assert (claim.state, claim.expires_at, claim.external_id) == ("provisioned", None, "vm")
        assert quota.usage(user="john")["cores"] == Usage(2, 2, 0)
        move_time(engine, 1000)
        assert quota.expire_reservations() == 0
        assert quota.get_claim("vm") == claim
        assert quota.provision("r") == quota.provision("vm", external_id="vm") == claim
        assert quota.usage(user="john")["cores"] == Usage(2, 2, 0)

    def test_external_ids_of_what_is_provisioned(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="r", external_id="request-1", expires_in=60)
        assert quota.provision("r", external_id="vm").external_id == "vm"
        with pytest.raises(UnknownClaim):
            quota.get_claim("request-1")
        with pytest.raises(ClaimConflict):
            quota.provision("r", external_id="another")
        assert quota.get_claim("r").external_id == "vm"
        quota.claim({"cores": 1}, user="john", id="plain")
        assert quota.provision("plain", external_id="late").external_id == "late"
        assert quota.get_claim("late").id == "plain"

    def test_provisioned_too_late_consumes_nothing(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
        move_time(engine, 60)
        for _ in ("unswept", "swept"):
            with pytest.raises(ClaimExpired):
                quota.provision("r", external_id="vm")
            assert quota.usage(user="john")["cores"].used == 0
            quota.expire_reservations()

    def test_a_reservation_is_renewed_from_now(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        first = quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
        move_time(engine, 50)
        renewed = quota.renew("r", expires_in=60)
        assert renewed.expires_at is not None
        assert first.expires_at is not None
        assert 49 < (renewed.expires_at - first.expires_at).total_seconds() < 80
        move_time(engine, 30)
        assert quota.get_claim("r") == renewed
        shortened = quota.renew("r", expires_in=timedelta(seconds=1))
        assert shortened.expires_at is not None
        assert shortened.expires_at < renewed.expires_at
        move_time(engine, 1)
        with pytest.raises(ClaimExpired):
            quota.renew("r", expires_in=60)

    def test_what_is_provisioned_cannot_be_renewed(self, quota: Delimiter) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="c")
        with pytest.raises(InvalidRequest):
            quota.renew("c", expires_in=60)
        assert quota.get_claim("c").state == "provisioned"

    def test_a_released_reservation_does_not_expire_too(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
        quota.release("r")
        move_time(engine, 60)
        assert quota.expire_reservations() == 0
        assert (quota.get_claim("r").state, quota.get_claim("r").expires_at) == ("released", None)

    def test_an_expired_one_is_not_released_too(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="r", expires_in=60)
        move_time(engine, 60)
        quota.release("r")
        assert quota.get_claim("r").state == "expired"
        assert quota.usage()["cores"].used == 0
        quota.expire_reservations()
        assert quota.get_claim("r").state == "expired"
        assert quota.usage()["cores"].used == 0

    def test_prune_forgets_what_ended_long_ago(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.claim({"cores": 1}, user="john", id="kept")
        quota.claim({"cores": 1}, user="john", id="early", external_id="vm")
        quota.reserve({"cores": 1}, user="john", id="ran-out", expires_in=50)
        quota.release("early")
        move_time(engine, 100)  # early ended 100 s ago, ran-out 50 s
        quota.claim({"cores": 1}, user="john", id="late")
        quota.release("late")
        assert quota.prune(older_than=timedelta(seconds=200)) == 0
        assert quota.prune(older_than=75) == 1
        for name in ("early", "vm"):
            with pytest.raises(UnknownClaim):
                quota.get_claim(name)
        assert quota.prune(older_than=40) == 1
        with pytest.raises(UnknownClaim):
            quota.release("ran-out")
        assert quota.prune(older_than=0) == 1
        assert [claim.id for claim in all_claims(quota)] == ["kept"]
        assert quota.usage(user="john")["cores"].used == 1
        assert quota.claim({"cores": 2}, user="mary", id="early", external_id="vm").user == "mary"

    def test_prune_keeps_a_parent_while_something_is_below(self, quota: Delimiter, engine: Engine) -> None:
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="root", expires_in=60)
        quota.claim({"cores": 1}, user="john", id="middle", parent="root")
        quota.claim({"cores": 1}, user="john", id="leaf", parent="middle")
        move_time(engine, 60)
        assert quota.prune(older_than=0) == 0
        quota.release("leaf")
        assert quota.prune(older_than=0) == 1
        quota.release("root")
        assert quota.get_claim("middle").state == "released"
        assert quota.prune(older_than=0) == 2
        assert all_claims(quota) == []
