"""New claims made by one statement, where it does not go as expected: what is left behind, and what is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, OverLimit, UnknownClaim
from delimiter.changes import Admit, Change, NewClaim, Release
from delimiter.engines.sql.store import SqlEngine
from delimiter.engines.sql.together import arrivals
from engines.held_rows import session

_SECOND: Final = 1_000_000


@pytest.fixture
def quota(store_url: str) -> Iterator[Delimiter]:
    with Delimiter(store_url, timeout=30) as quota:
        quota.define_resource("cores", project_max=10, user_max=3)
        for number in range(2):  # a way is remembered from the second time on
            quota.claim({"cores": 1}, project="acme", user="john", id=f"warm:{number}")
        for number in range(2):
            quota.release(f"warm:{number}")
        yield quota


def engine_of(quota: Delimiter) -> SqlEngine:
    assert isinstance(quota._engine, SqlEngine)
    return quota._engine


def admit(id: str, cores: int = 1, user: str = "john", **more: Any) -> Admit:
    return Admit((NewClaim(id, {"cores": cores}, "acme", user, **more),))


def sound(quota: Delimiter, cores: int) -> None:
    assert quota.usage(project="acme")["cores"].used == cores
    assert list(quota.reconcile()) == []


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_refusal_in_a_callers_transaction_leaves_nothing(
    store_url: str, quota: Delimiter, store_name: str, level: str
) -> None:
    options = {} if store_name == "sqlite" else {"isolation_level": level}
    with session(store_url, **options) as caller:
        quota.claim({"cores": 2}, project="acme", user="john", id="first", connection=caller)
        for _ in range(2):
            with pytest.raises(OverLimit) as refused:
                quota.claim({"cores": 2}, project="acme", user="john", id="second", connection=caller)
            assert [(v.scope, v.used) for v in refused.value.violations] == [("user:john", 2)]
        quota.claim({"cores": 1}, project="acme", user="john", id="third", connection=caller)
        caller.commit()
    sound(quota, 3)
    with pytest.raises(UnknownClaim):
        quota.get_claim("second")


def test_a_reservation_that_is_made_in_the_end_runs_out_when_it_was_told(
    store_url: str, quota: Delimiter
) -> None:
    """Guard: ``Left.now``, the moment by which the row was written."""
    engine = engine_of(quota)
    quota.reserve({"cores": 3}, project="acme", user="john", id="old", expires_in=60)
    engine.clock_offset = 61 * _SECOND
    with session(store_url) as caller:
        made = quota.reserve(
            {"cores": 3}, project="acme", user="john", id="new", expires_in=60, connection=caller
        )
        caller.commit()
    assert quota.get_claim("new") == made
    sound(quota, 3)


@pytest.mark.stores("sqlite")
def test_ways_of_two_moments_are_not_mixed(store_url: str, quota: Delimiter, monkeypatch: Any) -> None:
    """What another thread may do while one adds up a batch. Guard: the comparison of generations in ``Gathering``."""
    engine = engine_of(quota)
    gathering = engine._together.gathering
    for number in range(2):
        quota.claim({"cores": 1}, project="acme", user="jane", id=f"jane:{number}")
    quota.update_limits("cores", user="jane", max=9)
    quota.release("jane:0")
    find = gathering._find

    def overtaken(claim: NewClaim) -> Any:
        paths = find(claim)
        monkeypatch.setattr(gathering, "_find", find)
        with Delimiter(store_url) as other:
            other.add_project("parent")
            other.update_limits("cores", project="parent", max=4)
            other.add_project("acme", parent="parent")
        engine.apply([admit("refused", 9, user="jane")])
        engine.apply([admit("a", user="jane")])
        return paths

    gathering._paths.clear()
    monkeypatch.setattr(gathering, "_find", overtaken)
    answers = engine.apply_each([admit("b", 2), admit("c", user="jane")])
    assert list(quota.reconcile()) == []
    assert quota.usage(project="parent")["cores"].used == 4
    assert [type(answer) for answer in answers] == [tuple, OverLimit]


@pytest.mark.stores("sqlite")
def test_a_counter_number_that_was_rolled_back_is_nobodys(store_url: str, quota: Delimiter) -> None:
    """Another Delimiter of the same process sees counters in the caller's transaction, which are never committed."""
    with Delimiter(store_url) as other, session(store_url) as caller:
        other.claim({"cores": 1}, project="acme", user="john", id="x")
        quota.claim({"cores": 1}, project="rolled", user="back", connection=caller)
        other.claim({"cores": 1}, project="rolled", user="back", connection=caller)
        caller.rollback()
        quota.claim({"cores": 1}, project="globex", user="jim")
        other.claim({"cores": 1}, project="rolled", user="back")
        assert list(quota.reconcile()) == []
        assert quota.usage(project="globex")["cores"].used == 1


def test_what_was_made_is_told_even_if_the_rest_failed(quota: Delimiter, monkeypatch: Any) -> None:
    """Guard: ``Arrivals.decide`` keeps the answers it has; else what is committed is called a ``Conflict``."""
    engine = engine_of(quota)
    quota.claim({"cores": 1}, project="acme", user="john", id="one", external_id="vm")
    decide = engine._changes.decide_group
    calls = []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise Conflict("deadlock found")
        return decide(*arguments)

    monkeypatch.setattr(engine._changes, "decide_group", failing)
    answers = engine.apply_each([Release("vm"), Release("vm")])
    assert answers[0] == ()
    assert isinstance(answers[1], Conflict)


@pytest.mark.stores("postgresql", "mariadb")
@pytest.mark.parametrize("verb", ["claim", "release"])
def test_a_lock_that_is_kept_is_not_waited_for_by_each_half(
    store_url: str, quota: Delimiter, verb: str, monkeypatch: Any
) -> None:
    """Guard: ``until``; without it every half of a batch waits for the lock anew, on MariaDB a second each."""
    engine = engine_of(quota)
    monkeypatch.setattr(arrivals, "_HELD_UP", 0.0)
    for number in range(4):
        quota.claim({"cores": 1}, project="acme", id=f"old{number}")
    changes: list[Change] = [
        admit(f"new{number}") if verb == "claim" else Release(f"old{number}") for number in range(4)
    ]
    rounds: list[Any] = []

    def count(of: Any, name: str) -> None:
        real = getattr(of, name)

        def counted(step: Any, **more: Any) -> Any:
            rounds.append(step)
            return real(step, **more)

        monkeypatch.setattr(of, name, counted)

    count(engine._arrivals, "_in_own")
    count(engine._together, "make")
    with session(store_url) as caller:
        quota.claim({"cores": 1}, project="acme", connection=caller)
        answers = engine.apply_each(changes)
    assert [type(answer) for answer in answers] == [Conflict] * 4
    assert len(rounds) == 1
    sound(quota, 4)


@pytest.mark.parametrize("prefix", ['a"b', "it's:a`", "x\\y_"])
def test_prefixes_of_any_characters(store_url: str, prefix: str) -> None:
    with Delimiter(store_url, table_prefix=prefix) as quota:
        quota.define_resource("cores", project_max=3)
        for number in range(2):
            quota.claim({"cores": 1}, project="acme", id=f"warm:{number}")
        with session(store_url) as caller:
            quota.claim({"cores": 1}, project="acme", connection=caller)
            with pytest.raises(OverLimit):
                quota.claim({"cores": 1}, project="acme", connection=caller)
            caller.commit()
        with pytest.raises(OverLimit):
            quota.claim({"cores": 1}, project="acme")
        assert list(quota.reconcile()) == []


_NAMES: Final = [
    "a",
    "A",
    "a ",
    " a",
    "NULL",
    "null",
    '"',
    "\\",
    '\\"',
    "{}",
    "{a,b}",
    ",",
    "'",
    "%s",
    "%%",
    "%(x)s",
]
_NAMES_TOO: Final = [
    ":x",
    "$1",
    "?",
    "`",
    "--",
    "/*",
    "\\0",
    "NaN",
    "\u2028",
    "ä",
    "a\u0308",
    "\U0001f600",
    "\u00a0",
]


def test_names_of_any_characters_stay_what_they_are(
    store_url: str, quota: Delimiter, store_name: str
) -> None:
    """On an engine of the service's, whose own ways with JSON and with quotes are not ours."""
    mode = (
        {"init_command": "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'"}
        if store_name == "mariadb"
        else {}
    )
    service = sa.create_engine(store_url, connect_args=mode, json_deserializer=lambda _: 7)
    names = [*_NAMES, *_NAMES_TOO]
    quota.define_resource("ram", project_max=2)
    with Delimiter(service) as joined:
        engine = engine_of(joined)
        for number in range(3):  # by one statement from the third time on
            answers = engine.apply_each(
                [
                    Admit(
                        (NewClaim(f"{number}{name}", {"ram": 1}, name, external_id=name, expires_in=10**9),)
                    )
                    for name in names
                ]
            )
            for name, answer in zip(names, answers, strict=True):
                assert answer == (quota.get_claim(name),)
                assert quota.usage(project=name)["ram"].used == 1
            assert engine.apply_each([Release(name) for name in names]) == [()] * len(names)
    service.dispose()
    assert list(quota.reconcile()) == []


@pytest.mark.stores("mariadb", "postgresql")
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_callers_of_other_projects_do_not_wait(
    store_url: str, store_name: str, quota: Delimiter, level: str
) -> None:
    """Guard: no row is looked for in the statement; to find the new claim by its id would lock the gap before it."""
    for number in range(2):
        for project in ("one", "two"):
            quota.claim({"cores": 1}, project=project, id=f"{project}:{number}")
    briefly = "innodb_lock_wait_timeout = 1" if store_name == "mariadb" else "lock_timeout = 1000"
    options = {"isolation_level": level}
    with session(store_url, **options) as one, session(store_url, **options) as two:
        for caller in (one, two):
            caller.exec_driver_sql(f"SET {briefly}")
        quota.claim({"cores": 1}, project="one", id="m", connection=one)
        quota.claim({"cores": 1}, project="two", id="k", connection=two)
        quota.claim({"cores": 1}, project="one", id="l", connection=one)
        one.commit()
        two.commit()
    assert list(quota.reconcile()) == []
