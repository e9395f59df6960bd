"""The processes that call, from the side of the one that directs them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Self

from delimiter.bench.callers import Failed, Outcome, Turn, serve
from delimiter.errors import DelimiterError

__all__ = ["Crew", "MeasurementFailed"]

#: Seconds within which whoever was told to end has ended; the slowest way may be in the middle of many attempts.
_PATIENCE: Final = 120.0


class MeasurementFailed(Exception):
    """A way did not do what it should; the message says what happened, ``trace`` where."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class Crew:
    """Processes that are started once and take turns. As a context manager it ends them, whatever happened."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._members: list[tuple[Connection, BaseProcess]] = []
        with _deaf_to_interrupts():
            for _ in range(processes):
                ours, theirs = context.Pipe()
                process = context.Process(target=serve, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                self._members.append((ours, process))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in self._members:
            process.terminate()
            process.join()
            pipe.close()

    @property
    def pids(self) -> list[int]:
        return [process.pid for _, process in self._members if process.pid is not None]

    def take(
        self,
        turns: Sequence[Turn],
        *,
        warm_up: float,
        seconds: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """Let each process take one of the turns, all at once; turns with a number of claims end by themselves.

        ``meanwhile`` is called after the warm-up, while it is measured.
        """
        members = self._members[: len(turns)]
        for (pipe, _), turn in zip(members, turns, strict=True):
            pipe.send(turn)
        title = turns[0].way.title
        answers = [self._hear(pipe, process, title, _PATIENCE) for pipe, process in members]
        failed = [answer for answer in answers if isinstance(answer, Failed)]
        if not failed:
            self._tell(members, "warm up")
            if turns[0].claims is None:
                time.sleep(warm_up)
                self._tell(members, seconds)
                meanwhile()
            answers = [self._hear(pipe, process, title, seconds + _PATIENCE) for pipe, process in members]
            failed = [answer for answer in answers if isinstance(answer, Failed)]
        for failure in failed:
            if isinstance(failure.error, DelimiterError):
                raise failure.error
            raise MeasurementFailed(f"{title} failed: {failure.message}", failure.trace)
        return [answer for answer in answers if isinstance(answer, Outcome)]

    def _tell(self, members: Sequence[tuple[Connection, BaseProcess]], word: object) -> None:
        for pipe, _ in members:
            pipe.send(word)

    def _hear(self, pipe: Connection, process: BaseProcess, title: str, patience: float) -> object:
        if not pipe.poll(patience):
            raise MeasurementFailed(f"{title}: no answer from its callers within {patience:.0f} seconds")
        try:
            return pipe.recv()
        except EOFError:
            process.join(1)
            raise MeasurementFailed(
                f"{title}: a process of its callers ended by itself (exit status {process.exitcode})"
            ) from None


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started here does not hear Ctrl-C: a terminal sends it to everybody, and the director ends the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
