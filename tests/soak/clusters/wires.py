"""The wires between clients and servers: proxies that lose, when they are told to, what commits or the answer to it."""

from __future__ import annotations

import re

from proxy import COMMIT, CuttingProxy
from soak.clusters import Fault


class Wires:
    """Every second client goes through them: bytes that are passed on in Python take their time.

    ``called`` is what commits, found by ``commits`` in what a client sends.
    """

    def __init__(self, called: str = "COMMIT", commits: re.Pattern[bytes] = COMMIT) -> None:
        self._called = called
        self._commits = commits
        self._proxies: list[CuttingProxy] = []

    def to(self, host: str, port: int) -> int:
        """The port of this machine behind which that server is found."""
        self._proxies.append(CuttingProxy(host, port, commits=self._commits))
        return self._proxies[-1].port

    def faults(self) -> list[Fault]:
        return [
            Fault(f"answers to {self._called}s are lost", self._lose_answer, self._disarm),
            Fault(f"{self._called}s are lost", self._lose, self._disarm),
        ]

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.close()

    def _lose_answer(self) -> str:
        for proxy in self._proxies:
            proxy.arm()
        return f"the next answer to a {self._called} is lost, and the connection with it"

    def _lose(self) -> str:
        for proxy in self._proxies:
            proxy.arm(lost=True)
        return f"the next {self._called} is lost, and the connection with it"

    def _disarm(self) -> None:
        for proxy in self._proxies:
            proxy.disarm()
