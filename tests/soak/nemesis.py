"""What goes wrong: drawn by a seed, one thing after the other, with calm between them, and written down."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

from soak.clusters import Cluster, Fault
from soak.people import Clients, Progress

#: Seconds in which calls must be answered again after a fault has ended.
_PATIENCE = 30.0


class Nemesis:
    """Breaks things until it is told that it is enough."""

    def __init__(
        self,
        cluster: Cluster,
        clients: Clients,
        progress: Progress,
        folder: Path,
        seed: str,
        tell: Callable[[str], None],
        *,
        nodes_only: bool = False,
    ) -> None:
        self._clients = clients
        self._progress = progress
        self._dice = random.Random(seed)
        self._tell = tell
        self._out = (folder / "nemesis.jsonl").open("a")
        self._victim = ""
        theirs = cluster.faults()
        self._faults = (
            [one for one in theirs if one.takes_a_node] if nodes_only else [*self._on_clients(), *theirs]
        )
        self.done: list[dict[str, Any]] = []

    def work(self, seconds: float, *, faults: int = 1, answers: int = 0) -> None:
        """Every kind of fault in turn, in an order that is drawn, until the time is over.

        On a machine that is busy it takes longer: until there were so many faults, and so many calls were answered.
        """
        began = time.monotonic()
        for fault in self._drawn():
            enough = len(self.done) >= faults and self._progress.look() >= answers
            over = time.monotonic() - began
            if over > seconds and (enough or over > 5 * seconds):
                break
            self.strike(fault)
            self._rest(self._dice.uniform(0.1, 0.6))

    def _drawn(self) -> Iterator[Fault]:
        while True:
            self._dice.shuffle(self._faults)
            yield from self._faults

    def strike(self, fault: Fault) -> None:
        """Begin it, wait, put it right, and see that calls are answered again."""
        began = time.monotonic_ns()
        what = fault.begin()
        self._tell(f"{fault.name}: {what}")
        self._rest(self._dice.uniform(fault.least, fault.most), tending=False)
        fault.heal()
        healed = time.monotonic_ns()
        self._clients.tend()
        before = self._progress.look()
        deadline = time.monotonic() + _PATIENCE
        while self._progress.look() <= before and time.monotonic() < deadline:
            self._rest(0.02)
        line = {"fault": fault.name, "what": what, "began": began, "healed": healed}
        self.done.append(line)
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()
        self._tell("calm")

    def _rest(self, seconds: float, *, tending: bool = True) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if tending:
                self._clients.tend()
            Event().wait(min(0.05, seconds))

    def close(self) -> None:
        self._out.close()

    # -- what can be done to clients --------------------------------------------------------------------------------

    def _on_clients(self) -> list[Fault]:
        at_commit = [
            Fault(f"a client dies {where} its COMMIT", self._arming(f"kill-{where}"), self._disarm, 0.2, 0.5)
            for where in ("before", "during", "after")
        ]
        return [
            *at_commit,
            Fault("a client dies at any moment", self._kill, lambda: None, 0.0, 0.2),
            Fault(
                "a client stands still with its locks held", self._arming("stop-before"), self._wake, 0.5, 2.5
            ),
            Fault("a client stands still", self._stop, self._wake, 0.3, 2.0),
        ]

    def _pick(self) -> str:
        self._victim = self._dice.choice(self._clients.names)
        return self._victim

    def _arming(self, word: str) -> Callable[[], str]:
        def begin() -> str:
            self._clients.arm(self._pick(), word)
            return f"{self._victim} will {word.replace('-', ' ')} its next COMMIT"

        return begin

    def _disarm(self) -> None:
        self._clients.disarm(self._victim)

    def _kill(self) -> str:
        self._clients.send(self._pick(), signal.SIGKILL)
        return f"kill -9 of {self._victim}"

    def _stop(self) -> str:
        self._clients.send(self._pick(), signal.SIGSTOP)
        return f"SIGSTOP of {self._victim}"

    def _wake(self) -> None:
        self._clients.disarm(self._victim)
        self._clients.send(self._victim, signal.SIGCONT)
