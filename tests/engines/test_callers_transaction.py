"""What a caller's transaction must be, and how it comes out of every call: refused, savepoints, deadlocks, expiry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from delimiter import Conflict, Delimiter, InvalidRequest, OverLimit, Request
from engines.service import (
    PLACES,
    READ_COMMITTED,
    SERVER_PLACES,
    Place,
    Service,
    assert_sound,
    eventually,
    waiting_for_locks,
)

_VERBS: dict[str, Callable[[Delimiter, Any], object]] = {
    "claim": lambda q, c: q.claim({"cores": 1}, project="acme", connection=c),
    "reserve": lambda q, c: q.reserve({"cores": 1}, project="acme", expires_in=60, connection=c),
    "claim_all": lambda q, c: q.claim_all([Request({"cores": 1}, project="acme")], connection=c),
    "provision": lambda q, c: q.provision("held", connection=c),
    "renew": lambda q, c: q.renew("held", expires_in=60, connection=c),
    "resize": lambda q, c: q.resize("held", {"cores": 2}, connection=c),
    "transfer": lambda q, c: q.transfer("held", project="zeta", connection=c),
    "release": lambda q, c: q.release("held", connection=c),
    "check": lambda q, c: q.check({"cores": 1}, project="acme", connection=c),
    "usage": lambda q, c: q.usage(project="acme", connection=c),
}
_WRITING = [name for name in _VERBS if name not in ("check", "usage")]


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url) as quota:
        quota.define_resource("cores", project_max=10)
        quota.reserve({"cores": 1}, project="acme", id="held", expires_in=6000)
        yield quota
        assert (quota.usage(project="acme")["cores"].used, quota.get_claim("held").state) == (1, "reserved")
        assert len(list(quota.claims())) == 1


def _autocommit_in_the_driver(store: str) -> dict[str, Any]:
    return {"isolation_level": None} if store == "sqlite" else {"autocommit": True}


def test_autocommit_however_it_was_asked_for(quota: Delimiter, store_url: str, store_name: str) -> None:
    """Guard: `Transactions._refuse_isolation` asks the driver too; half a claim must never be committed."""
    ways: list[dict[str, Any]] = [
        {"isolation_level": "AUTOCOMMIT"},
        {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
        {"connect_args": _autocommit_in_the_driver(store_name)},
    ]
    for arguments in ways:
        engine = sa.create_engine(store_url, **arguments)
        for verb in _WRITING:
            with engine.connect() as connection, pytest.raises(InvalidRequest):
                _VERBS[verb](quota, connection)
            with Session(engine) as session, pytest.raises(InvalidRequest):
                _VERBS[verb](quota, session)
        engine.dispose()


def test_read_uncommitted_however_it_was_asked_for(quota: Delimiter, store_url: str) -> None:
    ways: list[dict[str, Any]] = [
        {"isolation_level": "READ UNCOMMITTED"},
        {"execution_options": {"isolation_level": "READ UNCOMMITTED"}},
    ]
    for arguments in ways:
        engine = sa.create_engine(store_url, **arguments)
        for verb, call in _VERBS.items():
            with engine.connect() as connection, pytest.raises(InvalidRequest):
                call(quota, connection)
            assert verb
        engine.dispose()


def test_a_closed_connection_and_one_to_something_else(
    quota: Delimiter, store_url: str, store_name: str
) -> None:
    engine = sa.create_engine(store_url)
    closed = engine.connect()
    closed.close()
    elsewhere = sa.create_engine("sqlite://" if store_name != "sqlite" else "mysql+pymysql://")
    other: Any = elsewhere.connect() if store_name != "sqlite" else _Pretended(elsewhere)
    for call in _VERBS.values():
        with pytest.raises(InvalidRequest):
            call(quota, closed)
        with pytest.raises(InvalidRequest):
            call(quota, other)
    other.close()
    engine.dispose()
    elsewhere.dispose()


class _Pretended(sa.Connection):
    """A connection to another kind of database, without one."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect

    closed = False

    def close(self) -> None: ...


def test_a_dead_connection_and_a_failed_transaction(quota: Delimiter, store_url: str) -> None:
    """Guard: `DriverErrors._translated`: no driver's exception comes out, and nothing is decided on a dead one."""
    engine = sa.create_engine(store_url)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.invalidate()
        with pytest.raises(Conflict):
            quota.claim({"cores": 1}, project="acme", connection=connection)
        connection.rollback()
    with Session(engine) as session:
        with pytest.raises(sa.exc.DBAPIError):
            session.execute(sa.text("SELECT no_such_column FROM delimiter_claims"))
        if engine.dialect.name == "postgresql":  # elsewhere only the statement has failed
            with pytest.raises(Conflict):
                quota.claim({"cores": 1}, project="acme", connection=session)
        session.rollback()
    engine.dispose()


def _locks_no_gaps(place: Any) -> bool:
    where: Place = place.values[0]
    return where.store == "postgresql" or where.level == READ_COMMITTED


# --- savepoints -------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_savepoints_after_reads(place: Place, database_url: Callable[[str], str]) -> None:
    """A claim inside a savepoint goes with it, and all of it with the transaction.

    Guard: nothing is remembered of a claim or a counter that was taken back (`Counters.ways`).
    """
    if place.level == "legacy":
        pytest.skip(
            "pysqlite commits at the end of a SAVEPOINT that follows mere reads, the caller's rows as well"
        )
    url = database_url(place.store)
    with Delimiter(url) as quota, Service(place, url) as service:
        service.create()
        quota.define_resource("cores", max=10, project_max=4)
        for amount, outcome in ((3, "undone"), (4, "kept"), (5, "refused")):
            with service.engine.connect() as connection:
                service.look(connection)
                savepoint = connection.begin_nested()
                service.add(connection, outcome)
                try:
                    quota.claim({"cores": amount}, project=outcome, id=outcome, connection=connection)
                except OverLimit:
                    assert outcome == "refused"
                if outcome == "undone":
                    savepoint.rollback()
                else:
                    savepoint.commit()
                quota.claim({"cores": 1}, project="x", id=f"after-{outcome}", connection=connection)
                connection.commit()
            with service.engine.connect() as connection:
                service.look(connection)
                with connection.begin_nested():
                    quota.claim({"cores": 1}, project=f"never-{outcome}", connection=connection)
                connection.rollback()
        assert service.rows() == {"kept", "refused"}
        assert {one.id for one in quota.claims()} == {"kept", "after-undone", "after-kept", "after-refused"}
        quota.claim({"cores": 3}, project="never-kept")
        assert_sound(quota)


# --- locks ------------------------------------------------------


@pytest.mark.parametrize("place", SERVER_PLACES)
def test_crossing_calls_come_out_as_a_conflict(place: Place, database_url: Callable[[str], str]) -> None:
    """Two calls a transaction, in opposite order: 40P01 or 1213 is a `Conflict` for one, and the other goes on.

    Guard: `Database.faults`; with the code left out the caller is told that the store is not available.
    """
    url = database_url(place.store)
    with Delimiter(url) as quota, Service(place, url) as service:
        quota.define_resource("cores", project_max=9)
        for project in ("a", "b", "a", "b"):  # the second time the process learns of the counters
            quota.claim({"cores": 1}, project=project)
        both = threading.Barrier(2)
        told: dict[str, str] = {}

        def cross(first: str, second: str) -> None:
            with service.engine.connect() as connection:
                try:
                    quota.claim({"cores": 1}, project=first, connection=connection)
                    both.wait(10)
                    quota.claim({"cores": 1}, project=second, connection=connection)
                    connection.commit()
                    told[first] = "committed"
                except Conflict:
                    connection.rollback()
                    told[first] = "conflict"

        threads = [threading.Thread(target=cross, args=pair) for pair in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(told.values()) == ["committed", "conflict"]
        assert [quota.usage(project=p)["cores"].used for p in ("a", "b")] == [3, 3]
        assert_sound(quota)


@pytest.mark.stores("postgresql", "mariadb")
def test_a_lock_that_is_not_to_be_had_in_time(store_url: str, store_name: str) -> None:
    """1205 takes back the statement only, 55P03 fails the transaction: `Conflict` both, and nothing stays.

    Guard: `Database.faults`.
    """
    engine = sa.create_engine(store_url)
    bound = {
        "postgresql": "SET lock_timeout = 200",
        "mariadb": "SET SESSION innodb_lock_wait_timeout = 1",
    }[store_name]
    with Delimiter(store_url, timeout=0.5) as quota:
        quota.define_resource("cores", project_max=9)
        quota.claim({"cores": 1}, project="acme")
        with engine.connect() as holder, engine.connect() as late:
            quota.claim({"cores": 2}, project="acme", connection=holder)
            late.execute(sa.text(bound))
            with pytest.raises(Conflict):
                quota.claim({"cores": 1}, project="acme", id="late", connection=late)
            late.rollback()
            with pytest.raises(Conflict):
                quota.claim({"cores": 1}, project="acme", id="late")
            holder.commit()
            quota.claim({"cores": 1}, project="acme", id="late", connection=late)
            late.commit()
        assert quota.usage(project="acme")["cores"].used == 4
        assert_sound(quota)
    engine.dispose()


@pytest.mark.parametrize("place", [place for place in SERVER_PLACES if _locks_no_gaps(place)])
def test_a_refusal_holds_up_nobody(place: Place, database_url: Callable[[str], str]) -> None:
    """Who was refused and goes on, or releases, holds up only who needs the counters it asked for.

    (Not so on MariaDB above READ COMMITTED: its gap locks at the end of a table shut out every new row.)
    """
    url = database_url(place.store)
    with (
        Delimiter(url, timeout=3) as quota,
        Service(place, url) as service,
        service.engine.connect() as connection,
    ):
        quota.define_resource("cores", project_max=4)
        quota.reserve({"cores": 1}, project="acme", id="held", expires_in=600)
        quota.claim({"cores": 1}, project="zeta")
        with pytest.raises(OverLimit):
            quota.claim({"cores": 9}, project="acme", connection=connection)
        quota.claim({"cores": 2}, project="zeta")
        quota.release("held", connection=connection)
        quota.claim({"cores": 1}, project="zeta")
        connection.commit()
        assert quota.usage()["cores"].used == 4
        assert_sound(quota)


# --- reservations that ran out ----------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_what_ran_out_is_swept_on_the_way(place: Place, database_url: Callable[[str], str]) -> None:
    """Guard: `Changes._decide_group_joined` sweeps and decides again; else a false refusal. Many, and with a floor."""
    url = database_url(place.store)
    with Delimiter(url) as quota, Service(place, url) as service:
        service.create()
        quota.define_resource("cores", project_max=300)
        requests = [Request({"cores": 1}, project="acme", expires_in=60) for _ in range(299)]
        quota.claim_all(requests)
        quota.claim({"cores": 1}, project="acme", id="kept")
        quota._engine.clock_offset += 61_000_000
        with service.engine.connect() as connection:
            service.look(connection)
            with pytest.raises(OverLimit) as refusal:
                quota.claim({"cores": 300}, project="acme", connection=connection)
            assert [(one.used, one.requested) for one in refusal.value.violations] == [(1, 300)]
            quota.claim({"cores": 299}, project="acme", id="all", connection=connection)
            service.add(connection, "all")
            connection.commit()
        assert {one.id for one in quota.claims()} == {"kept", "all"}
        assert quota.expire_reservations() == 0
        assert_sound(quota)


@pytest.mark.stores("sqlite", "postgresql")
def test_more_ran_out_than_is_swept_at_once(store_url: str) -> None:
    """Guard: in the caller's transaction sweeping goes on while it gets anywhere; else a Conflict, again and again."""
    engine = sa.create_engine(store_url)
    with Delimiter(store_url) as quota:
        quota.define_resource("cores", project_max=1700)
        quota.claim_all([Request({"cores": 1}, project="acme", expires_in=60) for _ in range(1700)])
        quota._engine.clock_offset += 61_000_000
        with engine.begin() as connection:
            quota.claim({"cores": 1700}, project="acme", connection=connection)
        assert quota.usage(project="acme")["cores"].used == 1700
        assert_sound(quota)
    engine.dispose()


@pytest.mark.parametrize("place", [p for p in SERVER_PLACES if p.values[0].level == READ_COMMITTED])
def test_what_ran_out_and_is_held_is_a_conflict(place: Place, database_url: Callable[[str], str]) -> None:
    """Somebody else is just sweeping or provisioning it: not to be waited for, and no reason to say no.

    Guard: `Changes._decide_group_joined` raises `Conflict` where `sweep_keys` could have nothing.
    """
    url = database_url(place.store)
    with Delimiter(url) as quota, Service(place, url) as service:
        quota.define_resource("cores", project_max=4)
        quota.reserve({"cores": 3}, project="acme", id="old", expires_in=60)
        quota._engine.clock_offset += 61_000_000
        with service.engine.connect() as holder, service.engine.connect() as connection:
            holder.execute(sa.text("SELECT id FROM delimiter_claims WHERE claim_id = 'old' FOR UPDATE"))
            with pytest.raises(Conflict):
                quota.claim({"cores": 2}, project="acme", id="new", connection=connection)
            connection.rollback()
            quota.claim({"cores": 1}, project="acme", id="fits", connection=connection)  # needs no sweep
            connection.commit()
            holder.rollback()
            quota.claim({"cores": 2}, project="acme", id="new", connection=connection)
            connection.commit()
        assert {one.id for one in quota.claims()} == {"fits", "new"}
        assert_sound(quota)


# --- who waits for whom -----------------------------------------


@pytest.mark.parametrize("place", SERVER_PLACES)
def test_a_total_that_is_not_set_serialises_nobody(place: Place, database_url: Callable[[str], str]) -> None:
    """Claims of two projects do not wait for each other, until the total has a limit; then they do.

    Guard: no counter for a total without a limit (`Limits._bring_up_to_date`): with one, the second would wait.
    """
    url = database_url(place.store)
    with Delimiter(url, timeout=20) as quota, Service(place, url) as service:
        quota.define_resource("cores", project_max=9)
        for project in ("a", "b"):
            quota.claim({"cores": 1}, project=project)
        with service.engine.connect() as holder, Delimiter(url, timeout=1) as impatient:
            quota.claim({"cores": 1}, project="a", connection=holder)
            impatient.claim({"cores": 1}, project="b")
            with pytest.raises(Conflict):
                impatient.claim({"cores": 1}, project="a")
            holder.commit()
        quota.update_limits("cores", max=9)
        told: list[str] = []
        with service.engine.connect() as holder:
            quota.claim({"cores": 1}, project="a", connection=holder)
            waiter = threading.Thread(
                target=lambda: told.append(quota.claim({"cores": 1}, project="b", id="waited").id)
            )
            waiter.start()
            eventually(waiting_for_locks(url), what="the claim of project b waits for the total")
            assert told == []
            holder.commit()
            waiter.join(20)
        assert told == ["waited"]
        assert quota.usage()["cores"].used == 6
        assert_sound(quota)
