"""Stores for the tests: which there are, which ones a test wants, and an empty database for each test."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine

import apart
from delimiter import Delimiter
from delimiter.engines.sql.schema import tables_of
from order import in_order
from server_process import ServerNotAvailable
from servers import Server, Servers

SQL_STORES = ("sqlite", "postgresql", "mariadb")  # what `store_url` runs on unless the mark says otherwise
STORES = ("memory", *SQL_STORES, "galera", "zookeeper")
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
_SERVERS = pytest.StashKey[Servers]()
_CHOSEN = pytest.StashKey[tuple[str, ...]]()

pytest.register_assert_rewrite("delimiter.conformance")


# --- the command line -----------------------------------------------------------------------------


def chosen_stores(config: pytest.Config) -> tuple[str, ...]:
    return config.stash[_CHOSEN]


def pytest_configure(config: pytest.Config) -> None:
    # What a script starts in the background ignores Ctrl-C, and so does all that is started from there.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    option = config.getoption("--stores")  # defined in the root's conftest.py, which is always read
    chosen = STORES if option is None else tuple(name.strip() for name in option.split(",") if name.strip())
    if unknown := set(chosen) - set(STORES):
        raise pytest.UsageError(f"--stores: {sorted(unknown)} not known; there are {', '.join(STORES)}")
    if config.getoption("--apart") or apart.is_asked_for():
        apart.begin()
    config.stash[_CHOSEN] = chosen
    config.stash[_SERVERS] = Servers()


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SERVERS in config.stash:
        config.stash[_SERVERS].close()


def pytest_report_header(config: pytest.Config) -> list[str]:
    import delimiter

    return [
        f"stores: {', '.join(chosen_stores(config))}",
        f"changes: {'apart' if apart.is_asked_for() else 'together where they can be'}",
        f"delimiter: {Path(delimiter.__file__).parent}",
    ]


def pytest_sessionstart(session: pytest.Session) -> None:
    """The tests are of the built wheel: the source tree is something that nobody installs."""
    import delimiter

    source = session.config.rootpath / "src"
    if Path(delimiter.__file__).resolve().is_relative_to(source):
        raise pytest.UsageError(f"the tests would import {source}, not the built wheel: use `make test`")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What a worker could not test is told by the process that has started it."""
    missing = getattr(node, "workeroutput", {}).get("missing_engines", {})
    node.config.stash[_SERVERS].missing.update(missing)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["missing_engines"] = dict(session.config.stash[_SERVERS].missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = config.stash[_SERVERS].missing
    if missing:
        terminalreporter.section("ENGINES NOT TESTED", red=True, bold=True)
        for name, reason in missing.items():
            terminalreporter.line(f"{name}: {reason}", red=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails because a server has crashed under it says so, with the server's last words."""
    report = yield
    if report.failed:
        report.sections += item.config.stash[_SERVERS].crashes().items()
    return report


# --- which stores a test runs on ------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store_name" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("stores")
        metafunc.parametrize("store_name", mark.args if mark else SQL_STORES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = set(chosen_stores(config))
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        wanted = _stores_of(item)
        shown = not (apart.is_asked_for() and item.get_closest_marker("together"))
        (kept if shown and (not wanted or wanted & chosen) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    items[:] = in_order(kept)


def pytest_collection_finish(session: pytest.Session) -> None:
    """All that the tests are made of stays to the end: the garbage collector need not look at it again and again.

    And what SQLAlchemy makes and throws away at each opening of a store is looked for less often, in larger lots. As
    usual, both together take a third of the time of the tests on SQLite. (Not where there are servers: a connection
    that a test has lost must not be found in another test.)
    """
    gc.collect()
    gc.freeze()
    if set(chosen_stores(session.config)) <= {"sqlite", "memory"}:
        gc.set_threshold(50_000, 20, 20)


def _stores_of(item: pytest.Item) -> set[str]:
    """The stores of which this test needs one; empty if it needs none."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "store_name" in callspec.params:
        return {callspec.params["store_name"]}
    fixtures = getattr(item, "fixturenames", ())
    on_servers = ("postgresql", "mariadb", "galera", "zookeeper")
    if needed := {name for name in on_servers if f"{name}_server" in fixtures}:
        return needed
    mark = item.get_closest_marker("stores")
    if mark is None:
        return set()
    if unknown := set(mark.args) - set(STORES):
        raise pytest.UsageError(f"{item.nodeid}: stores {sorted(unknown)} not known")
    return set(mark.args)


# --- servers and databases ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Callable[[str], Server]:
    """`server("postgresql")`: the session's server of that name, started when first asked for."""
    servers = pytestconfig.stash[_SERVERS]

    def get(name: str) -> Server:
        if name not in chosen_stores(pytestconfig):
            pytest.skip(f"{name} is not among --stores")
        try:
            return servers.get(name)
        except ServerNotAvailable as reason:
            not_tested(reason)

    return get


def not_tested(reason: ServerNotAvailable) -> NoReturn:
    """Leave the test out, loudly; where every engine must be tested, it fails."""
    if IN_CI:
        pytest.fail(f"CI must test every engine: {reason}", pytrace=False)
    pytest.skip(f"ENGINE NOT TESTED: {reason}")


@pytest.fixture
def postgresql_server(server: Callable[[str], Server]) -> Server:
    return server("postgresql")


@pytest.fixture
def mariadb_server(server: Callable[[str], Server]) -> Server:
    return server("mariadb")


@pytest.fixture
def galera_server(server: Callable[[str], Server]) -> Server:
    """Three nodes; a test that kills or cuts off one leaves them as they are, and the next finds them whole."""
    return server("galera")


@pytest.fixture
def zookeeper_server(server: Callable[[str], Server]) -> Server:
    return server("zookeeper")


@pytest.fixture
def database_url(
    tmp_path: Path, server: Callable[[str], Server], request: pytest.FixtureRequest
) -> Iterator[Callable[[str], str]]:
    """`database_url("mariadb")`: the URL of a fresh, empty store; each call makes another one.

    Afterwards the database is dropped, and a test that left a connection to it open fails.
    """
    made: list[tuple[Server, URL]] = []
    files = 0

    def fresh(name: str) -> str:
        nonlocal files
        if name == "memory":
            return "memory://"
        if name == "sqlite":
            files += 1
            return f"sqlite:///{tmp_path / ('quota.db' if files == 1 else f'quota{files}.db')}"
        owner = server(name)
        url = owner.create_database()
        made.append((owner, url))
        return url.render_as_string(hide_password=False)

    yield fresh
    left_open: list[str] = []
    for owner, url in made:
        owner.ensure_running()
        left_open += _left_open(owner, url)
        owner.drop_database(url)
    if left_open and request.node.get_closest_marker("leaves_connections") is None:
        pytest.fail("connections left open to " + "\n".join(left_open), pytrace=False)


@pytest.fixture(scope="session")
def _kept_databases(
    server: Callable[[str], Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Server | None, URL]]]:
    """One database of each kind, with the tables in it."""
    kept: dict[str, tuple[Server | None, URL]] = {}

    def get(name: str) -> tuple[Server | None, URL]:
        if name not in kept:
            owner = None if name == "sqlite" else server(name)
            file = tmp_path_factory.mktemp("kept") / "quota.db"
            url = URL.create("sqlite", database=str(file)) if owner is None else owner.create_database()
            with Delimiter(url.render_as_string(hide_password=False)) as quota:
                quota.prepare()
            kept[name] = owner, url
        return kept[name]

    yield get
    for owner, url in kept.values():
        if owner is not None:
            owner.ensure_running()
            owner.drop_database(url)


@pytest.fixture
def emptied_url(
    _kept_databases: Callable[[str], tuple[Server | None, URL]],
) -> Iterator[Callable[[str], str]]:
    """`emptied_url("mariadb")`: the URL of a store that is kept from test to test, and empty at each.

    To make and drop a database with its tables takes longer than most tests. One that left a connection open fails.
    """
    used: list[tuple[Server, URL]] = []

    def emptied(name: str) -> str:
        owner, url = _kept_databases(name)
        if owner is not None:
            owner.ensure_running()
            used.append((owner, url))
        _empty(url)
        return url.render_as_string(hide_password=False)

    yield emptied
    if left_open := [line for owner, url in used for line in _left_open(owner, url)]:
        pytest.fail("connections left open to " + "\n".join(left_open), pytrace=False)


def _empty(url: URL) -> None:
    """As the migrations leave it."""
    tables = tables_of("delimiter_", None)
    of_one_row = {tables.tree: {"version": 0, "overbooking": 1}, tables.numbering: {"last_seq": 0}}
    with _emptying(url).begin() as connection:
        for table in tables.metadata.sorted_tables:
            first = of_one_row.get(table)
            connection.execute(table.delete() if first is None else table.update().values(first))


@cache
def _emptying(url: URL) -> Engine:
    """One for each database that is kept, so that its statements are compiled once."""
    return create_engine(url, poolclass=NullPool)


def _left_open(server: Server, url: URL, within: float = 5.0) -> list[str]:
    """Connections still open; a server notices the end of one a moment later, hence the patience."""
    deadline = time.monotonic() + within
    while (found := server.open_connections(url)) and time.monotonic() < deadline:
        Event().wait(0.02)
    return [f"{url.database}: {line}" for line in found]


@pytest.fixture
def store_url(store_name: str, database_url: Callable[[str], str]) -> str:
    """The URL of a fresh, empty store: each SQL store in turn, or those of `@pytest.mark.stores(…)`."""
    return database_url(store_name)
