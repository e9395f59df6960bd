"""Of several servers the one to which something is done: drawn by a seed, and put right again afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from server_process import ServerProcess

S = TypeVar("S", bound=ServerProcess)


class Victim(Generic[S]):
    """``named`` tells which server it is; ``whole`` waits until all of them take part again."""

    def __init__(
        self, servers: Sequence[S], seed: str, *, named: Callable[[S], str], whole: Callable[[], object]
    ) -> None:
        self._servers = servers
        self._dice = random.Random(seed)
        self._named = named
        self._whole = whole
        self.server = servers[0]

    def draw(self) -> S:
        self.server = self._dice.choice(self._servers)
        return self.server

    def told(self, what: str) -> str:
        return f"{what} {self._named(self.server)}"

    def kill(self) -> str:
        self.draw().kill()
        return self.told("kill -9 of")

    def pause(self) -> str:
        self.draw().pause()
        return self.told("SIGSTOP of")

    def resume(self) -> None:
        self.server.resume()
        self._whole()
