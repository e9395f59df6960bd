"""Several nodes of one database in a store's URL: which of them to connect to, and noticing that one is gone.

``mysql+pymysql://user:password@db1,db2:3307,db3/quota`` names three. Each process takes them in an order of its own and
stays with the first that takes work; one that does not answer, or is cut off from the majority of its cluster, is left
out for some seconds. There is nothing to balance: claims of one process that go through one node meet at its locks,
which is cheaper than to meet at COMMIT.
"""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

__all__ = ["Node", "Nodes", "notice_silence", "parsed", "shown"]

#: Seconds for which a node that did not take work is asked last.
_LEFT_OUT: Final = 5.0

#: The driver's errors that another node would answer with too: a wrong name or password, no such database.
_THE_SAME_ELSEWHERE: Final = frozenset({1044, 1045, 1049, 1698})

#: "WSREP has not yet prepared node for application use": it is not one of the majority.
_NOT_PREPARED: Final = 1047

_AUTHORITY: Final = re.compile(
    r"^(?P<head>(?:mysql|mariadb)[^:]*://(?:[^/?#]*@)?)(?P<hosts>[^/?#@]*,[^/?#@]*)(?=[/?#]|$)"
)
_PLACE: Final = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:,\[\]]+)(?::(?P<port>\d{1,5}))?$")

#: Stands for the nodes while SQLAlchemy reads or writes the rest of the URL.
_STAND_IN: Final = "nodes.of.this.store"


class Node(NamedTuple):
    """Where a node listens; without a port, where such servers usually do."""

    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parsed(store: str | sa.URL) -> tuple[sa.URL, tuple[Node, ...]]:
    """The URL as SQLAlchemy knows it, with the first node, and all nodes if there are several.

    Raises ``ArgumentError`` or ``ValueError``, whose texts may hold a password.

    >>> url, nodes = parsed("mysql+pymysql://john@db1,db2:3307/quota")
    >>> url.host, [str(node) for node in nodes]
    ('db1', ['db1', 'db2:3307'])
    """
    found = _AUTHORITY.match(store) if isinstance(store, str) else None
    if found is None or not isinstance(store, str):
        return sa.make_url(store), ()
    nodes = tuple(_node(place) for place in found["hosts"].split(","))
    if len(set(nodes)) < len(nodes):
        raise ArgumentError("a node is named twice")
    url = sa.make_url(f"{found['head']}{_STAND_IN}{store[found.end() :]}")
    return url.set(host=nodes[0].host, port=nodes[0].port), nodes


def _node(place: str) -> Node:
    found = _PLACE.match(place)
    if found is None or not 0 < int(found["port"] or 1) < 2**16:
        raise ArgumentError("a node is written host or host:port")
    return Node(found["host"].strip("[]"), None if found["port"] is None else int(found["port"]))


def shown(url: sa.URL, nodes: Sequence[Node]) -> str:
    """The URL with all its nodes and without its password.

    >>> shown(*parsed("mysql+pymysql://john:secret@db1,db2/quota"))
    'mysql+pymysql://john:***@db1,db2/quota'
    """
    if not nodes:
        return url.render_as_string(hide_password=True)
    text = url._replace(host=_STAND_IN, port=None).render_as_string(hide_password=True)
    return text.replace(_STAND_IN, ",".join(str(node) for node in nodes), 1)


class Nodes:
    """Connects an engine to one of several nodes."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._order = random.sample(nodes, len(nodes))
        self._left_out: dict[Node, float] = {}
        self._lock = threading.Lock()

    def serve(self, engine: sa.Engine) -> None:
        """From now on the engine connects to these."""
        sa.event.listen(engine, "do_connect", self._connect)
        sa.event.listen(engine, "handle_error", _end_if_not_prepared)

    def _connect(self, dialect: sa.Dialect, _: Any, cargs: Any, cparams: Any) -> Any:
        failures: Any = dialect.loaded_dbapi
        last: BaseException | None = None
        for node in self._in_turn():
            place = {"host": node.host, "port": node.port}
            arguments = {**cparams, **{key: value for key, value in place.items() if value is not None}}
            if node.port is None:
                arguments.pop("port", None)
            connection: Any = None
            try:
                connection = dialect.connect(*cargs, **arguments)
                if _takes_work(connection):
                    self._found(node)
                    return connection
            except failures.Error as error:
                if error.args and error.args[0] in _THE_SAME_ELSEWHERE:
                    raise
                last = error
            if connection is not None:
                with suppress(failures.Error):  # it may have been lost meanwhile
                    connection.close()
            self._leave_out(node)
        if last is not None:
            raise last
        raise failures.OperationalError(_NOT_PREPARED, "no node is in touch with the majority of its cluster")

    def _in_turn(self) -> Iterator[Node]:
        """Those that were left out a moment ago come last: there may be no other."""
        with self._lock:
            now = time.monotonic()
            waiting = {node for node, until in self._left_out.items() if until > now}
        yield from (node for node in self._order if node not in waiting)
        yield from (node for node in self._order if node in waiting)

    def _leave_out(self, node: Node) -> None:
        with self._lock:
            self._left_out[node] = time.monotonic() + _LEFT_OUT

    def _found(self, node: Node) -> None:
        with self._lock:
            self._left_out.pop(node, None)


def _takes_work(connection: Any) -> bool:
    """Whether it is no node of Galera, or one that is in touch with the majority."""
    cursor = connection.cursor()
    try:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'wsrep_ready'")
        row = cursor.fetchone()
    finally:
        cursor.close()
    connection.rollback()
    return row is None or row[1] == "ON"


def _end_if_not_prepared(context: Any) -> None:
    """A node that lost touch with the majority goes on answering, with this error: go elsewhere."""
    arguments = getattr(context.original_exception, "args", ())
    if arguments and arguments[0] == _NOT_PREPARED:
        context.is_disconnect = True


def notice_silence(engine: sa.Engine, timeout: float) -> None:
    """A server that is cut off is noticed after about ``timeout`` seconds, even while its answer is waited for.

    PyMySQL leaves that to the operating system, which takes hours. (asyncmy does too, and keeps its socket to itself.)
    """

    def listen(connection: Any, _: Any) -> None:
        wire = getattr(connection, "_sock", None)
        if not isinstance(wire, socket.socket) or not hasattr(socket, "TCP_USER_TIMEOUT"):
            return
        third = min(max(1, round(timeout / 3)), 600)
        with suppress(OSError):  # a socket within one machine
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, third)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, third)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3 * third * 1000)

    sa.event.listen(engine, "connect", listen)
