"""Speaking to the servers: one client for a process, and every answer looked at.

What can go wrong is told apart here, once. A failed multi is no exception in kazoo but a *list* with exceptions in
it, so :meth:`Session.commit` is the only place where one is sent, and it looks at every result. A connection that is
lost, a session that expires or an answer that does not come leave it open whether a multi has happened.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl

from delimiter.engines.zookeeper.address import Address
from delimiter.engines.zookeeper.multi import Multi
from delimiter.errors import Conflict, StoreUnavailable

__all__ = ["Node", "Session"]

# What the client says of lost connections is for those who have set up logging, not for standard error.
logging.getLogger("kazoo").addHandler(logging.NullHandler())

#: What the results of a failed multi are when others have changed something first.
_OVERTAKEN: Final = (
    BadVersionError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)

#: Seconds without a word from a client after which the servers drop its session, and with it the lock of an edit.
_SESSION_TIMEOUT: Final = 6.0

#: Requests on their way at once: enough to fill a round trip, few enough not to fill the server's queue.
_WINDOW: Final = 500

#: After so many seconds the time that is reckoned from the last answer is asked for again.
_RECKONED_FOR: Final = 30.0


class Node(NamedTuple):
    """What a node held when it was read."""

    data: bytes
    version: int
    #: The number of the transaction that made it.
    made: int
    #: When it was last written, by the leader's clock, in milliseconds.
    written_at: int
    children: int


class Session:
    """One process's connection to the servers. A forked child makes one of its own."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: KazooClient | None = None
        #: Whether it is connected just now.
        self._live: threading.Event | None = None
        self._process = os.getpid()
        self._call = threading.local()
        self._reckoned: tuple[int, float] | None = None
        #: Called when a forked child has begun anew, so that nothing waits for threads of its parent.
        self.on_fork: list[Callable[[], None]] = []

    # -- calls --------------------------------------------------------------------------------------------------

    @contextmanager
    def call(self, *, of_any_length: bool = False) -> Iterator[None]:
        """All waiting inside ends when the timeout of one call is over.

        ``of_any_length``: it reads as much as there is, and only each single answer must come in time.
        """
        self.notice_fork()
        before = getattr(self._call, "deadline", None)
        if before is None and not of_any_length:
            self._call.deadline = time.monotonic() + self._timeout
        try:
            yield
        finally:
            self._call.deadline = before

    @contextmanager
    def at_least(self, seconds: float) -> Iterator[None]:
        """So much time is left for what is inside, whatever was left for the call."""
        before = getattr(self._call, "deadline", None)
        if before is not None:
            self._call.deadline = max(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._call.deadline = before

    def left(self) -> float:
        """Seconds that are left for this call."""
        deadline: float | None = getattr(self._call, "deadline", None)
        return self._timeout if deadline is None else max(0.001, deadline - time.monotonic())

    def notice_fork(self) -> None:
        """A forked child must not speak on its parent's socket, nor wait for its threads."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.Lock()
            self._client = None
            for begin_anew in self.on_fork:
                begin_anew()

    @property
    def client(self) -> KazooClient:
        """Made at the first call. While it is not connected it is waited for, by each caller for the time they have."""
        with self._lock:
            if self._client is None:
                client = self._made()
                self._live = client.start_async()
                self._client = client
            client, live = self._client, self._live
        if live is None or client.client_state == KeeperState.AUTH_FAILED or live.wait(self.left()):
            return client
        raise StoreUnavailable(
            f"no ZooKeeper server of {self.address.hosts} answered within {self._timeout:g} s"
        )

    @property
    def client_at_hand(self) -> KazooClient | None:
        """The client if there is one, connected or not."""
        return self._client

    def close(self) -> None:
        self.notice_fork()
        if (client := self._taken_away()) is not None:
            _stop(client)

    def abandon(self) -> None:
        """End the session, and begin another with the next call. Nobody waits for servers that may not answer."""
        if (client := self._taken_away()) is not None:
            threading.Thread(target=_stop, args=(client,), daemon=True).start()

    def _taken_away(self) -> KazooClient | None:
        with self._lock:
            client, self._client = self._client, None
        return client

    def _made(self) -> KazooClient:
        address = self.address
        acl, auth = None, None
        if address.user is not None:
            auth = [("digest", f"{address.user}:{address.password}")]
            acl = [make_digest_acl(address.user, address.password, all=True)]
        return KazooClient(
            hosts=address.hosts,
            timeout=_SESSION_TIMEOUT,
            auth_data=auth,
            default_acl=acl,
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_delay=1.0),
        )

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, path: str) -> Node | None:
        return self.read_all([path])[path]

    def read_all(self, paths: Iterable[str]) -> dict[str, Node | None]:
        """What these nodes hold; ``None``: there is no such node. All are asked for before the first is waited for."""
        client = self.client

        def node(answer: Any) -> Node:
            data, stat = answer
            return Node(data, stat.version, stat.czxid, stat.mtime, stat.numChildren)

        return self._all(paths, client.get_async, node)

    def catch_up(self, path: str) -> None:
        """Let our server hear what it has not heard yet; for before there is a clock to be written."""
        try:
            self.client.sync_async(path).get(timeout=self.left())
        except (KazooException, KazooTimeoutError) as error:
            raise _unavailable(error, in_doubt=False) from error

    def children(self, path: str) -> list[str]:
        """The names of the nodes below; none if there is no such node."""
        return self.children_of([path])[path]

    def children_of(self, paths: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str] | None] = self._all(paths, self.client.get_children_async, sorted)
        return {path: names or [] for path, names in found.items()}

    def _all(self, paths: Iterable[str], ask: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
        wanted = list(dict.fromkeys(paths))
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), _WINDOW):
            part = wanted[start : start + _WINDOW]
            answers = [ask(path) for path in part]
            for path, answer in zip(part, answers, strict=True):
                try:
                    found[path] = read(answer.get(timeout=self.left()))
                except NoNodeError:
                    found[path] = None
                except (KazooException, KazooTimeoutError) as error:
                    raise _unavailable(error, in_doubt=False) from error
        return found

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(self, multi: Multi) -> None:
        """All of it or nothing: ``Conflict`` if what was read before is not so any more.

        ``StoreUnavailable`` if no answer came: then it may have happened.
        """
        if not multi:
            return
        client = self.client
        transaction = client.transaction()
        multi.fill(transaction)
        try:
            results: Sequence[Any] = transaction.commit_async().get(timeout=self.left())
        except (KazooException, KazooTimeoutError) as error:
            raise _unavailable(error, in_doubt=True) from error
        self._inspect(multi, results)

    def _inspect(self, multi: Multi, results: Sequence[Any]) -> None:
        """A multi that failed is answered like one that succeeded: only its results tell."""
        failed = [one for one in results if isinstance(one, Exception)]
        if not failed and len(results) == len(multi):
            return
        if failed and all(isinstance(one, _OVERTAKEN) for one in failed):
            raise Conflict("another process has changed what was just read")
        reason = next((one for one in failed if not isinstance(one, _OVERTAKEN)), None)
        raise StoreUnavailable(
            f"the servers refused a change: {type(reason).__name__ if reason else 'an answer is missing'}",
            retryable=False,
            in_doubt=reason is None,
        )

    def make(self, paths: Mapping[str, bytes] | Iterable[str]) -> None:
        """Nodes without a meaning of their own, parents first; those that are there stay as they are."""
        contents = paths if isinstance(paths, Mapping) else dict.fromkeys(paths, b"")
        client = self.client
        answers = [client.create_async(path, data) for path, data in contents.items()]
        for answer in answers:
            try:
                answer.get(timeout=self.left())
            except NodeExistsError:
                continue
            except (KazooException, KazooTimeoutError) as error:
                raise _unavailable(error, in_doubt=False) from error

    def remove_empty(self, paths: Iterable[str]) -> None:
        """Those of these nodes that have none below them."""
        client = self.client
        for answer in [client.delete_async(path) for path in paths]:
            try:
                answer.get(timeout=self.left())
            except (NotEmptyError, NoNodeError):
                continue
            except (KazooException, KazooTimeoutError) as error:
                raise _unavailable(error, in_doubt=False) from error

    # -- time ---------------------------------------------------------------------------------------------------

    def meet(self, clock: str) -> int:
        """Write, and be told when, in microseconds since 1970: what is read from now on is not older than this.

        A write goes through a majority of the servers, and ours has followed it when it answers; ``sync`` asks only
        whoever believes to lead.
        """
        try:
            stat = self.client.set_async(clock, b"").get(timeout=self.left())
        except NoNodeError as error:
            raise StoreUnavailable(
                f"the store's nodes are gone: {clock} is missing", retryable=False
            ) from error
        except (KazooException, KazooTimeoutError) as error:
            raise _unavailable(error, in_doubt=False) from error
        moment = int(stat.mtime) * 1000
        self._reckoned = moment, time.monotonic()
        return moment

    def reckoned(self, clock: str) -> int:
        """The store's time as reckoned from its last answer: never ahead of it, and hardly behind."""
        known = self._reckoned
        if known is None or time.monotonic() - known[1] > _RECKONED_FOR:
            return self.meet(clock)
        return known[0] + int((time.monotonic() - known[1]) * 1_000_000)


def _stop(client: KazooClient) -> None:
    with suppress(KazooException, OSError):
        client.stop()
    client.close()


def _unavailable(error: Exception, *, in_doubt: bool) -> StoreUnavailable:
    if isinstance(error, NoAuthError | AuthFailedError):
        return StoreUnavailable(
            "the servers do not let us: the store was made with a password (zookeeper://user:password@…), or with"
            " another one",
            retryable=False,
        )
    if isinstance(error, KazooTimeoutError):
        return StoreUnavailable("the servers did not answer in time", in_doubt=in_doubt)
    return StoreUnavailable(f"the servers could not be asked: {type(error).__name__}", in_doubt=in_doubt)
