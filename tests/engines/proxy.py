"""A wire between a client and a server that is cut just when the answer to COMMIT comes back."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Final

_COMMIT: Final = re.compile(rb"COMMIT(?!TED)")  # not READ COMMITTED


#: ZooKeeper's number for a request that is a multi, behind the packet's length and the request's own number.
_MULTI: Final = (14).to_bytes(4, "big")


def is_multi(data: bytes) -> bool:
    """Whether a client of ZooKeeper says something that would change several nodes at once."""
    return data[8:12] == _MULTI


class CuttingProxy:
    """Passes bytes on, until it is armed: then the next COMMIT reaches the server, and its answer nobody."""

    def __init__(
        self, host: str, port: int, *, is_commit: Callable[[bytes], object] = _COMMIT.search
    ) -> None:
        self._is_commit = is_commit
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._armed = threading.Event()
        self._last = False
        self.cut = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, *, last: bool = False) -> None:
        """``last``: afterwards nobody gets through any more."""
        self._last = last
        self._armed.set()

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += [client, server]
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
                if not back and self._is_commit(data) and self._armed.is_set():
                    self._armed.clear()
                    committing.set()
                if back and committing.is_set():
                    self.cut += 1  # the server has answered, so it is done
                    if self._last:
                        _end(self._listener)
                    break
                target.sendall(data)
        _end(source)
        _end(target)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
