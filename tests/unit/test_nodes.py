"""Several nodes in one URL: what is written, what is shown, and which one is connected to."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from delimiter import Delimiter, InvalidRequest
from delimiter.cli import reach
from delimiter.engines.sql import nodes

_ALL = "mysql+pymysql://john:s3cr%40t@db1,db2:3307,[fd00::3]:3308/quota?charset=utf8mb4"


def test_all_nodes_are_read():
    url, found = nodes.parsed(_ALL)
    assert [tuple(node) for node in found] == [("db1", None), ("db2", 3307), ("fd00::3", 3308)]
    assert (url.host, url.port, url.database, url.password) == ("db1", None, "quota", "s3cr@t")
    assert dict(url.query) == {"charset": "utf8mb4"}


@pytest.mark.parametrize(
    "store",
    [
        "mysql+pymysql://john@db1:3306/quota",
        "postgresql+psycopg://john@/quota?host=a:1&host=b:2",
        "sqlite:///a,b.db",
        "mysql+pymysql://jo,hn:a,b@db1/quota",
    ],
)
def test_other_urls_are_sqlalchemys(store):
    assert nodes.parsed(store) == (sa.make_url(store), ())


@pytest.mark.parametrize(
    "hosts", ["db1,", ",db1", "db1,db2:x", "db1,db2:0", "db1,db2:70000", "db1,db1", "a b,c"]
)
def test_what_is_no_list_of_nodes(hosts):
    """The message says what to write, and not a word of the URL, in which there is a password."""
    with pytest.raises(InvalidRequest, match="this is no store URL") as refused:
        Delimiter(f"mysql+pymysql://john:s3cret@{hosts}/quota")
    assert "s3cret" not in str(refused.value)
    assert reach.shown(f"mysql+pymysql://john:s3cret@{hosts}/quota") == "(unreadable URL)"


def test_no_password_is_shown():
    shown = "mysql+pymysql://john:***@db1,db2:3307,[fd00::3]:3308/quota?charset=utf8mb4"
    assert reach.shown(_ALL) == shown
    assert reach.secrets_of(_ALL) == ["s3cr@t"]


class _Connection:
    """One connection of the driver; ``ready`` is what the node says of itself (``None``: it is no node of Galera)."""

    def __init__(self, host: str, ready: Any) -> None:
        self.host, self.open = host, True
        self._ready = ready

    def cursor(self) -> Any:
        return SimpleNamespace(execute=self._execute, fetchone=self._row, close=lambda: None)

    def _execute(self, _: str) -> None:
        if isinstance(self._ready, _Answer):
            raise self._ready.error

    def _row(self) -> Any:
        return None if self._ready is None else ("wsrep_ready", self._ready)

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        self.open = False
        if isinstance(self._ready, _Answer) and self._ready.lost:
            raise pymysql.Error("Already closed")


@dataclass(frozen=True)
class _Answer:
    """A node that can be connected to, and what it answers then; ``lost``: that was the end of the connection."""

    error: Exception
    lost: bool = False


class _Cluster:
    """Nodes by name: what each says, or the error of the driver."""

    loaded_dbapi = pymysql

    def __init__(self, **states: Any) -> None:
        self.states = states
        self.asked: list[str] = []
        self.nodes = nodes.Nodes([nodes.Node(name, None) for name in states])
        self.made: list[_Connection] = []

    def connect(self, *_: Any, host: str, **__: Any) -> Any:
        self.asked.append(host)
        state = self.states[host]
        if isinstance(state, Exception):
            raise state
        self.made.append(_Connection(host, state))
        return self.made[-1]

    def host(self) -> str:
        self.asked.clear()
        dialect: Any = self
        connection: _Connection = self.nodes._connect(dialect, None, [], {"host": "db1", "port": 1})
        assert connection.open
        assert [one for one in self.made if one.open] == [connection]
        connection.open = False
        return connection.host


_GONE = pymysql.OperationalError(2003, "no route to host")
_NOT_PREPARED = pymysql.OperationalError(1047, "not prepared")


@pytest.mark.parametrize(
    "bad",
    [
        _GONE,
        _NOT_PREPARED,
        "OFF",
        _Answer(_NOT_PREPARED),
        _Answer(pymysql.OperationalError(2013, "lost"), lost=True),
    ],
    ids=str,
)
def test_a_node_that_takes_no_work_is_left_out(bad):
    """The first time it may be met, and nothing stays open to it; for some seconds it is not asked at all."""
    cluster, chosen = _Cluster(db1=bad, db2="ON", db3="ON"), ""
    while "db1" not in cluster.asked:  # each set of nodes has an order of its own
        cluster = _Cluster(db1=bad, db2="ON", db3="ON")
        chosen = cluster.host()
    assert chosen != "db1"
    assert {cluster.host() for _ in range(5)} == {chosen}
    assert cluster.asked == [chosen]


def test_one_process_stays_with_one_node_and_all_do_not_with_the_same():
    chosen = set()
    for _ in range(50):
        cluster = _Cluster(db1="ON", db2="ON", db3=None)
        found = {cluster.host() for _ in range(3)}
        assert len(found) == 1
        chosen |= found
    assert chosen == {"db1", "db2", "db3"}


def test_a_node_that_is_back_is_asked_where_no_other_is_left():
    cluster = _Cluster(db1=_GONE, db2=_GONE)
    with pytest.raises(pymysql.OperationalError, match="no route"):
        cluster.host()
    cluster.states["db2"] = "ON"
    assert cluster.host() == "db2"


def test_without_a_majority_anywhere():
    with pytest.raises(pymysql.OperationalError, match="majority"):
        _Cluster(db1="OFF", db2="OFF").host()


def test_what_the_last_node_said_is_told():
    """Even where the connection could not be closed any more."""
    lost = _Answer(pymysql.OperationalError(2013, "lost"), lost=True)
    with pytest.raises(pymysql.OperationalError, match="lost"):
        _Cluster(db1=lost, db2=lost).host()


def test_a_wrong_password_is_told_by_the_first():
    cluster = _Cluster(
        db1=pymysql.OperationalError(1045, "denied"), db2=pymysql.OperationalError(1045, "denied")
    )
    with pytest.raises(pymysql.OperationalError, match="denied"):
        cluster.host()
    assert len(cluster.asked) == 1
