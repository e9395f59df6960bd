"""What an engine declares works; what it does not declare is ``Unsupported``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from delimiter import (
    BelowMinimum,
    ClaimConflict,
    Conflict,
    Delimiter,
    DelimiterError,
    InvalidRequest,
    OverLimit,
    Request,
    UnknownClaim,
    UnknownResource,
    Unsupported,
    Usage,
)
from delimiter.conformance.contract import Contract, plant, sight, used
from delimiter.conformance.own_rows import OwnRows
from delimiter.engine import Capability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from delimiter.engine import Engine

_VERBS: dict[str, Callable[[Delimiter, Any], object]] = {
    "claim": lambda q, c: q.claim({"cores": 1}, user="john", connection=c),
    "reserve": lambda q, c: q.reserve({"cores": 1}, user="john", expires_in=60, connection=c),
    "claim_all": lambda q, c: q.claim_all([Request({"cores": 1}, user="john")] * 2, connection=c),
    "provision": lambda q, c: q.provision("held", external_id="vm", connection=c),
    "renew": lambda q, c: q.renew("held", expires_in=6000, connection=c),
    "resize": lambda q, c: q.resize("held", {"cores": 2}, connection=c),
    "transfer": lambda q, c: q.transfer("held", user="mary", connection=c),
    "release": lambda q, c: q.release("held", connection=c),
}
_LOOKS: dict[str, Callable[[Delimiter, Any], object]] = {
    "check": lambda q, c: q.check({"cores": 1}, user="john", connection=c),
    "usage": lambda q, c: q.usage(user="john", connection=c),
}
_COUNTING: dict[str, Callable[[Delimiter, Any], object]] = {
    "count": lambda q, c: q.count("cores", c),
    "guard": lambda q, c: q.guard({"cores": 1}, user="john", connection=c).__enter__(),
    "optimistic guard": lambda q, c: q.guard(
        {"cores": 1}, user="john", connection=c, optimistic=True
    ).__enter__(),
}
_REFUSALS: dict[str, tuple[Callable[[Delimiter, Any], object], type[DelimiterError]]] = {
    "over limit": (lambda q, c: q.claim({"cores": 99}, user="john", connection=c), OverLimit),
    "resize": (lambda q, c: q.resize("held", {"cores": 99}, connection=c), OverLimit),
    "conflict": (lambda q, c: q.claim({"cores": 9}, user="john", id="held", connection=c), ClaimConflict),
    "external": (
        lambda q, c: q.claim({"cores": 1}, user="john", external_id="x", connection=c),
        ClaimConflict,
    ),
    "parent": (lambda q, c: q.claim({"cores": 1}, user="john", parent="y", connection=c), UnknownClaim),
    "resource": (lambda q, c: q.claim({"y": 1}, user="john", connection=c), UnknownResource),
    "floor": (lambda q, c: q.release("floor", connection=c), BelowMinimum),
}


class CapabilityContract(Contract):
    @pytest.fixture
    def rows(self, engine: Engine, quota: Delimiter) -> Iterator[OwnRows]:
        """The caller's own table beside a store that holds a reservation and a claim."""
        if Capability.CALLERS_TRANSACTION not in engine.capabilities:
            pytest.skip("this engine does not declare CALLERS_TRANSACTION")
        quota.define_resource("cores", user_max=9)
        quota.update_limits("cores", user="zoe", min=1)
        quota.reserve({"cores": 1}, user="john", id="held", external_id="x", expires_in=600)
        quota.claim({"cores": 1}, user="zoe", id="floor")
        rows = OwnRows(self.database(engine))
        yield rows
        rows.close()

    @pytest.mark.parametrize("call", [*_VERBS, *_LOOKS])
    def test_an_undeclared_connection_is_unsupported(
        self, engine: Engine, quota: Delimiter, call: str
    ) -> None:
        if Capability.CALLERS_TRANSACTION in engine.capabilities:
            pytest.skip("this engine declares CALLERS_TRANSACTION")
        quota.define_resource("cores")
        quota.reserve({"cores": 1}, user="john", id="held", expires_in=600)
        before = sight(quota)
        with pytest.raises(Unsupported):
            (_VERBS | _LOOKS)[call](quota, object())
        assert sight(quota) == before

    @pytest.mark.parametrize("call", _COUNTING)
    def test_undeclared_counting_is_unsupported(self, engine: Engine, quota: Delimiter, call: str) -> None:
        if Capability.COUNTING in engine.capabilities:
            pytest.skip("this engine declares COUNTING")
        quota.define_resource("cores", user_max=9)
        before = sight(quota)
        with pytest.raises(Unsupported):
            _COUNTING[call](quota, object())
        assert sight(quota) == before
        quota.claim({"cores": 1}, user="john")

    def test_declared_counting(self, engine: Engine, quota: Delimiter, rows: OwnRows) -> None:
        """Guard: ``guard`` counts what is there, as it enters and as it leaves."""
        if Capability.COUNTING not in engine.capabilities:
            pytest.skip("this engine does not declare COUNTING")
        quota.define_resource("rows", max=2)
        quota.count("rows", rows.amount())
        with rows.engine.begin() as connection:
            with quota.guard({"rows": 1, "cores": 2}, user="john", connection=connection) as claim:
                rows.add(connection, 1)
            assert claim is not None
            assert claim.resources == {"cores": 2}
            with (  # noqa: PT012 - the guard around it is what raises
                pytest.raises(OverLimit),
                quota.guard({"rows": 1}, user="john", connection=connection),
            ):
                rows.add(connection, 2)
                rows.add(connection, 3)
        assert rows.all() == [1]
        assert quota.usage()["rows"] == Usage(2, 1, 0)
        assert quota.usage(user="john")["cores"].used == 3
        with pytest.raises(InvalidRequest):
            quota.claim({"rows": 1}, user="john")

    @pytest.mark.parametrize("verb", _VERBS)
    def test_a_change_commits_with_the_callers_rows(self, quota: Delimiter, rows: OwnRows, verb: str) -> None:
        before = sight(quota)
        with rows.engine.begin() as connection:
            rows.add(connection, 1)
            _VERBS[verb](quota, connection)
            rows.add(connection, 2)
        assert sight(quota) != before
        assert rows.all() == [1, 2]

    @pytest.mark.parametrize("verb", _VERBS)
    def test_a_change_rolls_back_with_the_callers_rows(
        self, quota: Delimiter, rows: OwnRows, verb: str
    ) -> None:
        before = sight(quota)
        with rows.engine.connect() as connection:
            rows.add(connection, 1)
            _VERBS[verb](quota, connection)
            connection.rollback()
        assert sight(quota) == before
        assert rows.all() == []
        _VERBS[verb](quota, None)
        assert sight(quota) != before

    def test_a_rolled_back_id_is_free(self, quota: Delimiter, rows: OwnRows) -> None:
        with rows.engine.connect() as connection:
            quota.claim({"cores": 1}, user="mary", id="c", external_id="vm", connection=connection)
            connection.rollback()
        with pytest.raises(UnknownClaim):
            quota.get_claim("c")
        assert quota.claim({"cores": 9}, user="mary", id="c", external_id="vm").resources == {"cores": 9}

    def test_a_callers_claim_is_charged_to_all_ancestors(self, quota: Delimiter, rows: OwnRows) -> None:
        plant(quota)
        quota.update_limits("cores", project="acme", max=4)
        quota.claim({"cores": 1}, project="web")
        with rows.engine.begin() as connection:
            quota.claim({"cores": 2}, project="shop", user="mary", id="c", connection=connection)
            assert quota.usage(project="acme", connection=connection)["cores"] == Usage(4, 3, 0)
            assert quota.check({"cores": 9}, project="dev", connection=connection).available == {"cores": 1}
            with pytest.raises(OverLimit):
                quota.claim({"cores": 2}, project="dev", connection=connection)
            assert used(quota, "cores", "acme", "web") == [1, 1]
        assert used(quota, "cores", "acme", "web", "shop", "dev") == [3, 3, 2, 0]
        with rows.engine.connect() as connection:
            quota.transfer("c", project="dev", connection=connection)
            assert quota.usage(project="web", connection=connection)["cores"].used == 1
            connection.rollback()
        assert used(quota, "cores", "acme", "web", "shop", "dev") == [3, 3, 2, 0]
        assert list(quota.reconcile()) == []

    @pytest.mark.parametrize("refusal", _REFUSALS)
    def test_a_transaction_is_usable_after_a_refusal(
        self, quota: Delimiter, rows: OwnRows, refusal: str
    ) -> None:
        """Guard: what a refused change wrote is taken back before the answer, not left to the caller's COMMIT."""
        call, error = _REFUSALS[refusal]
        before = sight(quota, users=("john", "mary", "zoe"))
        with rows.engine.begin() as connection:
            rows.add(connection, 1)
            with pytest.raises(error):
                call(quota, connection)
            rows.add(connection, 2)
        assert rows.all() == [1, 2]
        assert sight(quota, users=("john", "mary", "zoe")) == before
        with rows.engine.begin() as connection:
            with pytest.raises(error):
                call(quota, connection)
            quota.claim({"cores": 8}, user="john", id="fits", connection=connection)
        assert quota.usage(user="john")["cores"] == Usage(9, 9, 1)

    def test_a_transaction_sees_its_own_claims(self, quota: Delimiter, rows: OwnRows) -> None:
        with rows.engine.begin() as connection:
            quota.claim({"cores": 8}, user="john", id="c", connection=connection)
            assert quota.usage(user="john", connection=connection)["cores"] == Usage(9, 9, 1)
            assert not quota.check({"cores": 1}, user="john", connection=connection)
            assert quota.usage(user="john")["cores"] == Usage(9, 1, 1)  # nobody else does
            with pytest.raises(OverLimit):
                quota.claim({"cores": 1}, user="john", connection=connection)
            quota.release("c", connection=connection)
            quota.claim({"cores": 8}, user="john", id="d", parent="held", connection=connection)
        assert quota.usage(user="john")["cores"] == Usage(9, 9, 1)

    def test_a_session(self, quota: Delimiter, rows: OwnRows) -> None:
        from sqlalchemy.orm import Session

        with Session(rows.engine) as session, session.begin():
            rows.add(session, 1)
            quota.claim({"cores": 1}, user="john", id="c", connection=session)
        assert quota.get_claim("c").live
        with Session(rows.engine) as session:
            rows.add(session, 2)
            quota.release("c", connection=session)
            session.rollback()
        assert quota.get_claim("c").live
        assert rows.all() == [1]

    def test_a_savepoint(self, quota: Delimiter, rows: OwnRows) -> None:
        with rows.engine.begin() as connection:
            rows.add(connection, 1)
            quota.claim({"cores": 1}, user="john", id="kept", connection=connection)
            savepoint = connection.begin_nested()
            quota.claim({"cores": 2}, user="john", id="undone", connection=connection)
            savepoint.rollback()
        assert quota.usage(user="john")["cores"] == Usage(9, 2, 1)
        with pytest.raises(UnknownClaim):
            quota.get_claim("undone")

    @pytest.mark.parametrize("level", ["AUTOCOMMIT", "READ UNCOMMITTED"])
    @pytest.mark.parametrize("call", _VERBS)
    def test_levels_that_cannot_be_safe(self, quota: Delimiter, rows: OwnRows, level: str, call: str) -> None:
        before = sight(quota)
        with rows.at(level).connect() as connection:
            with pytest.raises(InvalidRequest):
                _VERBS[call](quota, connection)
            connection.rollback()
        assert sight(quota) == before

    @pytest.mark.parametrize("call", [*_VERBS, *_LOOKS])
    def test_what_is_no_connection(self, quota: Delimiter, rows: OwnRows, call: str) -> None:
        before = sight(quota)
        for bad in (object(), rows.engine, "connection"):
            with pytest.raises(InvalidRequest):
                (_VERBS | _LOOKS)[call](quota, bad)
        assert sight(quota) == before

    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    def test_an_old_snapshot_admits_nothing_too_much(
        self, quota: Delimiter, rows: OwnRows, level: str
    ) -> None:
        """Guard: what is decided is decided on the locked row; a snapshot that is older raises ``Conflict``."""
        with rows.at(level).connect() as connection:
            rows.look(connection)
            if level != "SERIALIZABLE":  # there some databases lock what is read, and the others wait for it
                quota.usage(user="john", connection=connection)
            quota.claim({"cores": 8}, user="john", id="meanwhile")
            with pytest.raises((OverLimit, Conflict)):
                quota.claim({"cores": 1}, user="john", connection=connection)
            connection.rollback()
        assert quota.usage(user="john")["cores"] == Usage(9, 9, 1)
        with rows.at(level).begin() as connection, pytest.raises(OverLimit):
            quota.claim({"cores": 1}, user="john", connection=connection)

    def _undefine(self, quota: Delimiter) -> None:
        for id in ("held", "floor"):
            quota.release(id, force=True)
        quota.undefine_resource("cores")

    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    @pytest.mark.parametrize("what", ["limit", "default", "total", "sweep", "undefine"])
    def test_an_old_snapshot_of_the_rules(
        self, quota: Delimiter, rows: OwnRows, level: str, what: str
    ) -> None:
        """Guard: the generation. A limit that was set after the snapshot holds for a claim that begins after it."""
        changes: dict[str, Callable[[], object]] = {
            "limit": lambda: quota.update_limits("cores", user="john", max=1),
            "default": lambda: quota.define_resource("cores", user_max=1),
            "total": lambda: quota.update_limits("cores", max=2),
            "sweep": lambda: (quota.update_limits("cores", user="john", max=1), quota.expire_reservations()),
            "undefine": lambda: self._undefine(quota),
        }
        with rows.at(level).connect() as connection:
            rows.look(connection)
            if level != "SERIALIZABLE":  # there some databases lock what is read, and the others wait for it
                quota.usage(user="john", connection=connection)
                quota.check({"cores": 1}, user="john", connection=connection)
            changes[what]()
            with pytest.raises((OverLimit, Conflict, UnknownResource)):
                quota.claim({"cores": 1}, user="john", connection=connection)
            connection.rollback()
        assert all(one.id in ("held", "floor") for one in quota.claims())
