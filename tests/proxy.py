"""A wire between a client and a server that is cut just when the answer to COMMIT comes back."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import Final

#: Not READ COMMITTED; and words of a statement that commits by itself.
COMMIT: Final = re.compile(rb"COMMIT(?!TED)|Delimiter decides again")

#: A request to ZooKeeper that is a multi: type 14, behind the packet's length and the request's own number.
ZOOKEEPER_MULTI: Final = re.compile(rb"\A.{8}\x00\x00\x00\x0e", re.DOTALL)


class CuttingProxy:
    """Passes bytes on, until it is armed: then the next COMMIT reaches the server, and its answer nobody.

    ``commits`` finds what commits in the bytes of a client, for protocols that do not say COMMIT.
    """

    def __init__(self, host: str, port: int, *, commits: re.Pattern[bytes] = COMMIT) -> None:
        self._server = (host, port)
        self._commits = commits
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._armed = threading.Event()
        self._last = self._lost = False
        self.cut = 0
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, *, last: bool = False, lost: bool = False) -> None:
        """``last``: afterwards nobody gets through any more. ``lost``: COMMIT itself does not reach the server."""
        self._last = last
        self._lost = lost
        self._armed.set()

    def disarm(self) -> None:
        self._armed.clear()

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server, timeout=5)
            except OSError:  # the server is gone: so is this wire to it
                _end(client)
                continue
            for one in (client, server):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets |= {client, server}
            committing = threading.Event()
            for source, target, back in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass_on, args=(source, target, committing, back), daemon=True
                ).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, committing: threading.Event, back: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not back and self._armed.is_set() and self._commits.search(data):
                    self._armed.clear()
                    if self._lost:
                        self.cut += 1
                        break
                    committing.set()
                if back and committing.is_set():
                    self.cut += 1  # the server has answered, so it is done
                    if self._last:
                        _end(self._listener)
                    break
                target.sendall(data)
        for one in (source, target):
            _end(one)
            self._sockets.discard(one)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
