"""A server process in a temporary folder, on a free port of 127.0.0.1 or on a host, that ends when the tests do.

However the process that started it ends: the kernel then sends the server's main process a signal, and
folders that a killed run left behind are removed by the next one. The signal comes when the *thread* that
started the server ends, so servers are started from the main thread.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from network import Host

START_TIMEOUT = 60.0
_FOLDER = "delimiter-test-"


class ServerNotAvailable(Exception):
    """This machine cannot give us that server; the message says why and what to do."""


class ServerProcess(ABC):
    """The folder, the port and the process of a throw-away server; the classes below say what runs in it."""

    name: str
    url: URL
    account: str  # the system user it runs as when the tests run as root
    death_signal: str  # how the kernel ends it when we die
    stop_signal: signal.Signals
    throw_away = True

    def __init__(self, host: Host | None = None) -> None:
        remove_left_behind()
        self.host = host
        self.address = "127.0.0.1" if host is None else host.address
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{self.name}-{os.getpid()}-"))
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.close)
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.account)
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts it, on the same data and port, and waits until it answers. Call it from the main thread."""
        if self._process is not None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.host.prefix if self.host is not None else ()),
                    *self._as_account(),
                    f"--pdeathsig={self.death_signal}",
                    *self._command(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for pytest, not for the server
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            try:
                self._process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                self.kill()
                raise ServerNotAvailable(self._failed(f"no answer after {START_TIMEOUT:.0f} s")) from None
            self._process = None
            raise ServerNotAvailable(self._failed("it ended at once"))

    def ensure_running(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        self.start()

    def crashes(self) -> dict[str, str]:
        """If it has ended, and nobody has told it to: how, and what it wrote last."""
        status = None if self._process is None else self._process.poll()
        if status is None:
            return {}
        return {f"{self.name} has ended by itself ({status})": self._last_words(20_000)}

    def kill(self) -> None:
        """kill -9 of the whole server, as in a crash; start() brings it back on the same port."""
        if self._process is None:
            return
        pid = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # so that it starts no more children while we look at them
            children = _children(pid)
            _send([pid, *children], signal.SIGKILL)
            self._process.wait(timeout=10)
            _wait_until_gone(children)
        self._process = None

    def pause(self) -> None:
        """It stands still, with all it has started, until ``resume``."""
        assert self._process is not None
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)  # so that it starts no more children while we look at them
        _send(_children(pid), signal.SIGSTOP)

    def resume(self) -> None:
        """Goes on, if it is still there."""
        if self._process is not None:
            with contextlib.suppress(FileNotFoundError):
                pid = self._process.pid
                _send([pid, *_children(pid)], signal.SIGCONT)

    def stop(self) -> None:
        """An orderly end, without waiting for clients."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def close(self) -> None:
        """Ends it and removes its folder (in the process that made it; a forked child leaves it alone)."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as_account(self) -> list[str]:
        """The head of a command that runs as the server's own user: neither of the two will run as root."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ServerNotAvailable(f"{self.name}: setpriv (package util-linux) is missing")
        if os.geteuid() != 0:
            return [setpriv]
        try:
            user = pwd.getpwnam(self.account)
        except KeyError:
            raise ServerNotAvailable(f"{self.name}: there is no system user {self.account!r}") from None
        return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [*self._as_account(), *command], cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ServerNotAvailable(
                f"{self.name}: {command[0]} failed: {(done.stderr or done.stdout)[-600:]}"
            )

    def _failed(self, what: str) -> str:
        return f"{self.name}: {what}: {self._last_words(600)}"

    def _last_words(self, most: int) -> str:
        return self.log.read_text(errors="replace")[-most:] if self.log.exists() else ""

    def _answers(self) -> bool:
        engine = create_engine(self.url, poolclass=NullPool)
        try:
            with engine.connect():
                return True
        except DBAPIError:
            return False

    @abstractmethod
    def _initialise(self) -> None:
        """Make the folder into one that the server can be started in."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What starts the server."""


def remove_left_behind() -> None:
    """Removes the folders of test runs that were killed before they could do it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*-*"):
        owner = folder.name.split("-")[3]
        if owner.isdecimal() and not Path("/proc", owner).exists() and sys.platform == "linux":
            shutil.rmtree(folder, ignore_errors=True)


def binary(name: str, folders: str, package: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/").glob(f"{folders.lstrip('/')}/{name}"), reverse=True)), None
    )
    if found is None:
        raise ServerNotAvailable(
            f"{name} is not installed (`make servers` installs Debian's package {package})"
        )
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_until_gone(pids: list[int], within: float = 10.0) -> None:
    """Waits for processes that are not our children any more."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([handle], [], [], within)
        finally:
            os.close(handle)
