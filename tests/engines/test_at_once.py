"""A batch that is a transaction of its own: one statement, in which it is committed, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, InvalidRequest, OverLimit, StoreUnavailable
from delimiter.engines.sql.store import SqlEngine
from engines.test_arrivals import admit, at_once, sound, statements, told
from proxy import CuttingProxy

pytestmark = pytest.mark.stores("postgresql", "mariadb")


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=30) as quota:
        yield warm(quota)


def warm(quota: Delimiter) -> Delimiter:
    quota.define_resource("cores", project_max=10)
    quota.define_resource("ram")
    for number in range(2):  # a way is remembered from the second time on
        quota.claim({"cores": 1, "ram": 1}, project="acme", user="john", id=f"warm:{number}")
    return quota


def engine_of(quota: Delimiter) -> SqlEngine:
    assert isinstance(quota._engine, SqlEngine)
    return quota._engine


def test_what_the_statement_cannot_keep_is_taken_back(quota: Delimiter) -> None:
    """Guard: it fails. Nothing else would take back the claims that it has placed."""
    engine = engine_of(quota)
    with statements() as sent:
        answers = engine.apply_each([admit("a", 5), admit("b", 5)])
    assert at_once(sent) == 1
    assert told(answers) == [["a"], OverLimit]
    answers = engine.apply_each([admit("a", 5), admit("c")])  # an id is known
    assert told(answers) == [["a"], ["c"]]
    sound(quota, acme=8)


@pytest.mark.stores("postgresql")
def test_a_connection_goes_outside_and_into_transactions_again(quota: Delimiter) -> None:
    """Guard: its level is set whenever it is to be another; it keeps the one it had in the pool."""
    transactions = engine_of(quota)._transactions
    same, there = sa.text("SELECT pg_backend_pid()"), sa.text("SELECT to_regclass('marks') IS NOT NULL")
    pids = set()
    for _ in range(2):
        with transactions.own() as own:
            own.execute(sa.text("CREATE TABLE marks ()"))
            pids.add(own.scalar(same))
            own.rollback()
        with transactions.at_once() as outside:
            assert outside.scalar(there) is False
            outside.execute(sa.text("CREATE TABLE marks ()"))
            pids.add(outside.scalar(same))
        with transactions.own() as own:
            assert own.scalar(there) is True
            assert own.scalar(sa.text("SHOW transaction_isolation")) == "read committed"
            own.execute(sa.text("DROP TABLE marks"))
    assert len(pids) == 1


@pytest.mark.stores("postgresql")
def test_who_is_interrupted_on_the_way_leaves_no_connection_in_between(
    quota: Delimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: a connection's level is unknown while it is set. Else what is told as made would be rolled back."""
    engine = engine_of(quota)
    transactions = engine._transactions

    def interrupted(driver: Any, level: Any) -> None:
        set_level(driver, level)
        raise KeyboardInterrupt

    with transactions.reading() as outside:
        dialect = outside.dialect
    set_level = dialect.set_isolation_level
    monkeypatch.setattr(dialect, "set_isolation_level", interrupted)
    with pytest.raises(KeyboardInterrupt), transactions.own():
        pytest.fail("nobody was interrupted")
    monkeypatch.undo()
    assert told(engine.apply_each([admit("a"), admit("b")])) == [["a"], ["b"]]
    sound(quota, acme=4)


@pytest.mark.stores("postgresql")
def test_where_it_was_full_no_error_comes_into_the_servers_log(quota: Delimiter) -> None:
    """Guard: ``likely``. At a limit that is always nearly reached each batch would fail, and be written there."""
    engine = engine_of(quota)
    assert told(engine.apply_each([admit(f"a{n}") for n in range(7)])) == [[f"a{n}"] for n in range(7)]
    some = [admit("b"), admit("c")]  # there is room for one
    assert told(engine.apply_each(some)) == [["b"], OverLimit]
    quota.release("a0")
    with statements() as sent:
        answers = engine.apply_each([admit("d"), admit("e")])
    assert told(answers) == [["d"], OverLimit]
    assert at_once(sent) == 0
    for number in range(1, 7):
        quota.release(f"a{number}")
    engine.apply_each([admit("f"), admit("g")])  # there is room: that is noticed, too
    with statements() as sent:
        engine.apply_each([admit("h"), admit("i")])
    assert at_once(sent) == 1
    sound(quota, acme=8)


@pytest.mark.leaves_connections
def test_a_statement_without_an_answer_is_in_doubt(store_url: str, quota: Delimiter) -> None:
    """Guard: ``at_once`` of ``DriverErrors._translated``; it may have been committed when the wire is cut."""
    url = sa.make_url(store_url)
    assert url.host is not None
    assert url.port is not None
    proxy = CuttingProxy(url.host, url.port)
    through = url.set(port=proxy.port).render_as_string(hide_password=False)
    with Delimiter(through, timeout=2) as cut:
        for number in range(2):
            cut.claim({"cores": 1, "ram": 1}, project="acme", user="john", id=f"warm:{number}")
        proxy.arm(last=True)
        with statements() as sent, pytest.raises(StoreUnavailable, match="it may have happened") as lost:
            cut.claim({"cores": 1, "ram": 1}, project="acme", user="john", id="mine")
        assert at_once(sent) == 1
        assert (lost.value.in_doubt, lost.value.claim_id) == (True, "mine")
    proxy.close()
    assert quota.get_claim("mine").live  # it had happened
    sound(quota, acme=3)


def test_a_name_that_the_connection_cannot_carry(store_url: str, store_name: str) -> None:
    """Guard: ``translating``; else the driver's own exception comes out."""
    option = "client_encoding" if store_name == "postgresql" else "charset"
    narrow = sa.make_url(store_url).update_query_dict({option: "latin1"})
    with Delimiter(narrow.render_as_string(hide_password=False)) as quota:
        engine = engine_of(warm(quota))
        with pytest.raises(InvalidRequest, match="UTF-8"):
            engine.apply([admit("a", external_id="Ж")])
        sound(quota, acme=2)


@pytest.mark.stores("postgresql")
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_another_default_level_of_the_database_is_noticed(store_url: str, level: str) -> None:
    """Guard: ``can_at_once``; a statement outside transactions is of the default level, and would fail at a meeting."""
    admin = sa.create_engine(store_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        name = sa.make_url(store_url).database
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{level}'")
    with Delimiter(store_url) as quota:
        engine = engine_of(warm(quota))
        with statements() as sent:
            assert told(engine.apply_each([admit("a"), admit("b")])) == [["a"], ["b"]]
        assert at_once(sent) == 0
        assert sent.count("COMMIT") == 1
        sound(quota, acme=4)


def test_it_waits_no_longer_than_a_call_on_a_services_engine(store_url: str) -> None:
    """Guard: the bound that the statement sets itself, where the connections are not opened by Delimiter."""
    service = sa.create_engine(store_url)
    with Delimiter(service, timeout=0.5) as quota, service.connect() as keeper:
        engine = engine_of(warm(quota))
        keeper.exec_driver_sql("SELECT 1 FROM delimiter_counters FOR UPDATE")
        with pytest.raises(Conflict, match="in the way"):
            engine.apply([admit("a")])
        keeper.rollback()
        sound(quota, acme=2)
    service.dispose()
