"""Corners where something was wrong once: each test has been seen failing on the code as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, InvalidRequest, OverLimit, Request, StoreUnavailable, UnknownClaim
from delimiter.changes import Admit, NewClaim, Release

HOUR = 3_600_000_000


@contextmanager
def caller(url: str, level: str | None = None) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, **({"isolation_level": level} if level else {}))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=5) as quota:
        quota.define_resource("a", max=1)
        quota.define_resource("b", project_max=9, user_max=9)
        quota.define_resource("c")
        yield quota


def test_a_refused_first_claim_leaves_no_way_behind(quota: Delimiter) -> None:
    """Guard: ways to counters that this transaction made are not remembered; they are rolled back with it."""
    with pytest.raises(OverLimit):
        quota.claim({"a": 2}, project="acme")
    assert quota.claim({"a": 1, "b": 1}, project="acme").state == "provisioned"


def test_the_number_of_a_counter_that_was_rolled_back(quota: Delimiter, store_url: str) -> None:
    """Guard: a new counter's generation is the definition's version. SQLite gives rolled-back numbers again."""
    with caller(store_url) as connection:
        for _ in range(2):
            quota.claim({"c": 1}, project="bob", user="zoe", connection=connection)
        connection.rollback()
    with Delimiter(store_url) as other:
        other.update_limits("c", max=10)
        other.claim({"c": 1}, user="zoe")
    with pytest.raises(OverLimit):
        quota.claim({"c": 50}, user="zoe")
    assert quota.usage()["c"].used == 1
    assert list(quota.reconcile()) == []


@pytest.mark.stores("postgresql", "mariadb")
def test_the_totals_first_limit_after_the_snapshot(quota: Delimiter, store_url: str) -> None:
    """Guard: the definition's version in the snapshot is compared with the locked row's (PostgreSQL does so itself)."""
    with caller(store_url, "REPEATABLE READ") as connection:
        connection.execute(sa.text("SELECT count(*) FROM delimiter_resources")).all()
        quota.update_limits("c", max=10)
        with pytest.raises(Conflict):
            quota.claim({"c": 50}, user="new", connection=connection)
        connection.rollback()
        with pytest.raises(OverLimit):
            quota.claim({"c": 50}, user="new", connection=connection)
        connection.rollback()


def test_hundreds_of_scopes_at_once(quota: Delimiter, store_url: str) -> None:
    """Guard: ways are read in parts; SQLite takes no more than a thousand terms in one WHERE."""
    requests = [
        Request({"a": 1, "b": 1, "c": 1}, project=f"p{n}", user=f"u{n}", expires_in=60) for n in range(400)
    ]
    quota.update_limits("a", max=-1)
    assert len(quota.claim_all(requests)) == 400
    with Delimiter(store_url) as other:
        other._engine.clock_offset = HOUR
        assert other.expire_reservations() == 400
        assert list(other.reconcile()) == []


@pytest.mark.stores("memory", "sqlite", "postgresql", "mariadb")
def test_a_batch_that_frees_an_external_id_and_takes_it(store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.define_resource("c")
        quota.claim({"c": 1}, user="u", id="old", external_id="vm")
        taken = NewClaim("new", {"c": 1}, user="u", external_id="vm")
        released, admitted = quota._engine.apply([Release("old"), Admit((taken,))])
        assert (released, quota.get_claim("vm").id) == ((), "new")
        assert not isinstance(admitted, Exception)


@pytest.mark.stores("postgresql", "mariadb")
def test_parents_that_are_younger_than_the_snapshot(quota: Delimiter, store_url: str) -> None:
    """MariaDB's locks see the present, of one name as of two; PostgreSQL's fail on what its snapshot does not show."""
    quota.claim({"c": 1}, user="u")  # so that the user's counter is no news to the snapshot
    for count in (1, 2):
        with caller(store_url, "REPEATABLE READ") as connection:
            connection.execute(sa.text("SELECT count(*) FROM delimiter_claims")).all()
            parents = [quota.claim({"c": 1}, user="u", id=f"{count}-{n}").id for n in range(count)]
            requests = [Request({"c": 1}, user="u", parent=parent) for parent in parents]
            if store_url.startswith("mysql"):
                assert len(quota.claim_all(requests, connection=connection)) == count
            else:
                with pytest.raises((UnknownClaim, Conflict)):
                    quota.claim_all(requests, connection=connection)
            connection.rollback()


@pytest.mark.stores("postgresql", "mariadb")
def test_what_ran_out_is_younger_than_the_snapshot(quota: Delimiter, store_url: str) -> None:
    """Guard: the search for what is in the way joins the allocations it locks, and so sees the present of both."""
    quota.update_limits("c", user="u", max=2)
    quota.claim({"c": 1}, user="u")
    with caller(store_url, "REPEATABLE READ") as connection:
        connection.execute(sa.text("SELECT count(*) FROM delimiter_claims")).all()
        quota.reserve({"c": 1}, user="u", expires_in=60)
        quota._engine.clock_offset = HOUR
        try:
            assert quota.claim({"c": 1}, user="u", connection=connection).state == "provisioned"
        except Conflict:
            assert store_url.startswith("postgresql")
        connection.rollback()


@pytest.mark.stores("mariadb")
def test_releasing_at_repeatable_read_locks_no_gap(quota: Delimiter, store_url: str) -> None:
    """Guard: a name is resolved without a lock; a locking search for what is not there would lock its surroundings."""
    quota.claim({"c": 1}, user="u", id="m-1", external_id="vol-1")
    quota.claim({"c": 1}, user="other", id="m-2")
    with caller(store_url, "REPEATABLE READ") as connection:
        quota.release("vol-1", connection=connection)
        for id in ("zzz", "abc", "n-2"):
            quota.claim({"c": 1}, user="other", id=id)
        connection.rollback()


@pytest.mark.stores("postgresql", "mariadb")
def test_renewing_waits_for_no_counter(quota: Delimiter, store_url: str) -> None:
    held = quota.reserve({"b": 1}, user="u", expires_in=100)
    made = quota.claim({"b": 1}, user="u")
    with caller(store_url) as connection:
        quota.claim({"b": 1}, user="u", connection=connection)  # holds the user's counter
        assert quota.renew(held.id, expires_in=200).state == "reserved"
        assert quota.provision(made.id).state == "provisioned"
        connection.rollback()


def test_a_resource_is_undefined_while_it_is_repaired(quota: Delimiter, store_url: str) -> None:
    for user in ("u", "v"):
        quota.claim({"b": 1}, user=user, id=user)
    with caller(store_url) as connection:
        connection.execute(sa.text("UPDATE delimiter_counters SET used = 9"))
        connection.commit()
    drifts = quota._engine.drifts(repair=True)
    assert next(drifts).repaired
    for user in ("u", "v"):
        quota.release(user)
    quota.undefine_resource("b")
    assert [drift for drift in drifts if drift.resource == "b"] == []


@pytest.mark.stores("mariadb")
def test_a_start_that_died_half_way_through_the_migration(store_url: str) -> None:
    """Guard: IF NOT EXISTS; MariaDB commits every CREATE by itself."""
    with Delimiter(store_url) as quota:
        quota.prepare()
    with caller(store_url) as connection:
        for table in ("delimiter_version", "delimiter_allocations"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.commit()
    with Delimiter(store_url) as quota:
        quota.define_resource("c")
        assert quota.claim({"c": 1}, user="u").live


@pytest.mark.stores("mariadb")
def test_a_connection_that_cannot_carry_the_name(quota: Delimiter, store_url: str) -> None:
    narrow = sa.make_url(store_url).update_query_dict({"charset": "latin1"})
    with caller(narrow.render_as_string(hide_password=False)) as connection:
        with pytest.raises(InvalidRequest, match="UTF-8"):
            quota.claim({"c": 1}, user="Ж", connection=connection)
        connection.rollback()


@pytest.mark.stores("postgresql", "mariadb")
@pytest.mark.parametrize("level", ["READ UNCOMMITTED", "READ_UNCOMMITTED"])
def test_read_uncommitted_however_it_is_written(quota: Delimiter, store_url: str, level: str) -> None:
    with caller(store_url, level) as connection:
        with pytest.raises(InvalidRequest, match="READ UNCOMMITTED"):
            quota.claim({"c": 1}, user="u", connection=connection)
        connection.rollback()


@pytest.mark.stores("postgresql")
def test_options_in_the_url_stay(store_url: str) -> None:
    with caller(store_url) as connection:
        connection.execute(sa.text("CREATE SCHEMA quotas"))
        connection.commit()
    url = sa.make_url(store_url).update_query_dict({"options": "-c search_path=quotas"})
    with Delimiter(url.render_as_string(hide_password=False)) as quota:
        quota.define_resource("c")
    with caller(store_url) as connection:
        assert "delimiter_claims" in sa.inspect(connection).get_table_names(schema="quotas")


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u:p@ss:sesame@host/db", "mysql+pymysql://u:sesame@host:port/db"]
)
def test_a_url_that_is_none_keeps_its_password(url: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Delimiter(url)
    assert "sesame" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_server_that_is_not_there(free_port: int) -> None:
    for scheme in ("postgresql+psycopg", "mysql+pymysql"):
        with (
            Delimiter(f"{scheme}://nobody:sesame@127.0.0.1:{free_port}/none", timeout=0.5) as quota,
            pytest.raises(StoreUnavailable) as error,
        ):
            quota.claim({"c": 1}, user="u", id="mine")
        assert (error.value.claim_id, error.value.in_doubt) == ("mine", False)
        assert "sesame" not in str(error.value)


@pytest.fixture
def free_port(request: pytest.FixtureRequest) -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_many_replays_of_one_id(quota: Delimiter, store_url: str, together: Callable[..., list[str]]) -> None:
    """Each gets the same claim; on MariaDB none of them meets a deadlock on the way (they read it shared)."""
    first = quota.claim({"b": 1}, user="u", id="the-one")
    assert set(together(lambda: quota.claim({"b": 1}, user="u", id="the-one").id, 64)) == {first.id}
    assert quota.usage(user="u")["b"].used == 1


@pytest.fixture
def together() -> Callable[..., list[str]]:
    from concurrent.futures import ThreadPoolExecutor

    def run(call: Callable[[], str], times: int) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return [future.result() for future in [pool.submit(call) for _ in range(times)]]

    return run


def test_repairs_are_made_when_asked_for(quota: Delimiter, store_url: str) -> None:
    """Not when somebody looks at the answer."""
    quota.claim({"b": 1}, user="u")
    with caller(store_url) as connection:
        connection.execute(sa.text("UPDATE delimiter_counters SET used = 9 WHERE kind = 'user'"))
        connection.commit()
    quota.reconcile(repair=True)
    assert quota.usage(user="u")["b"].used == 1
    assert list(quota.reconcile()) == []


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE"])
def test_a_fresh_store_on_an_engine_that_begins_by_itself(store_url: str, begin: str) -> None:
    """SQLAlchemy's recipe for SQLite: the tables were looked for before they were made."""
    engine = sa.create_engine(store_url)

    @sa.event.listens_for(engine, "connect")
    def connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def by_itself(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    with Delimiter(engine) as quota:
        quota.define_resource("a", max=1)
        quota.claim({"a": 1}, user="u")
        assert quota.usage()["a"].used == 1
    engine.dispose()
