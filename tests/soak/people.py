"""The client processes of a run: started, killed, stopped, woken and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

_TESTS = Path(__file__).parents[1]


def _path() -> list[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


class Clients:
    """One process for each name, and a new one in the place of one that died."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._incarnations = dict.fromkeys(names, -1)
        self.deaths = 0
        #: Those that ended although nobody had killed them.
        self.broken: list[str] = []

    @property
    def names(self) -> list[str]:
        return list(self._incarnations)

    def tend(self) -> None:
        """Whoever is not there is replaced."""
        for name in self._incarnations:
            running = self._running.get(name)
            if running is not None and running.poll() is None:
                continue
            if running is not None:
                self.deaths += 1
                if running.returncode != -signal.SIGKILL:
                    self.broken.append(f"{name} ended with {running.returncode}: {self._said(name)}")
            self._incarnations[name] += 1
            self._running[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"client-{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "soak.client", str(self._folder), name, str(self._incarnations[name])],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(_TESTS), *_path()]))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _said(self, name: str) -> str:
        return (self._folder / f"client-{name}.log").read_text(errors="replace")[-1500:]

    def send(self, name: str, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._running[name].send_signal(number)

    def is_running(self, name: str) -> bool:
        return self._running[name].poll() is None

    def arm(self, name: str, word: str) -> None:
        """At its next COMMIT it does to itself what the word says."""
        armed = self._folder / f"arm-{name}"
        new = armed.with_suffix(".new")
        new.write_text(word)
        new.rename(armed)

    def disarm(self, name: str) -> None:
        (self._folder / f"arm-{name}").unlink(missing_ok=True)

    def finish(self, within: float) -> list[str]:
        """Tell all of them to stop and wait for it; the names of those that did not."""
        (self._folder / "stop").touch()
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and any(map(self.is_running, self._running)):
            Event().wait(0.05)
        late = [name for name in self._running if self.is_running(name)]
        for name, running in self._running.items():
            if running.poll() not in (None, 0, -signal.SIGKILL):
                self.broken.append(f"{name} ended with {running.returncode}: {self._said(name)}")
        return late

    def close(self) -> None:
        for running in self._running.values():
            if running.poll() is None:
                running.kill()
                running.wait(10)


class Progress:
    """How many calls were answered with success so far, read from the journals as they grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.answered = 0

    def look(self) -> int:
        for file in self._folder.glob("client-*.jsonl"):
            with file.open("rb") as lines:
                lines.seek(self._read.get(file, 0))
                new = lines.read()
            self._read[file] = self._read.get(file, 0) + len(new)
            self.answered += new.count(b'"a":{"ok"')
        return self.answered
