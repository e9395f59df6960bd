"""The process that calls: it opens a way, lets its callers loose, and says what they did."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from delimiter.bench.scenario import CONTESTED
from delimiter.bench.tally import Tally
from delimiter.bench.way import AsyncWay, Stopped, ThreadedWay, Way

__all__ = ["Failed", "Outcome", "Turn", "serve"]

#: Between two looks at what the director says, on an event loop (seconds).
_LOOK: Final = 0.002


@dataclass(frozen=True, slots=True)
class Turn:
    """What one process is to do with one way."""

    way: Way
    callers: int
    flood: int
    connections: int
    seed: int
    #: Claims that each caller makes; ``None``: until it is told to end.
    claims: tuple[int, ...] | None = None
    #: Whether the callers race for the contested project.
    contested: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the callers of one process did, those of the flood apart, and what it cost."""

    callers: Tally
    flood: Tally
    #: Measured (seconds).
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a turn could not be ended: the error, for people, and where it happened."""

    message: str
    trace: str
    error: BaseException | None = None


class _Calling:
    """The state that the callers of one turn share: when it is measured, and the first thing that went wrong."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.begin = float("inf") if turn.claims is None else 0.0
        self.end = float("inf")
        self.error: BaseException | None = None
        self._done = False
        self.tallies = [Tally() for _ in range(turn.callers + turn.flood)]
        turn.way.stopping = self.is_over

    def is_over(self) -> bool:
        return self._done or self.error is not None or time.perf_counter() >= self.end

    def numbers(self, caller: int) -> Callable[[], int]:
        """Which project this caller claims for next."""
        turn, projects = self.turn, self.turn.way.scenario.projects
        if turn.contested or caller >= turn.callers:
            return lambda: CONTESTED
        if projects == 1:
            return lambda: 0
        return _picking(random.Random(f"{turn.seed}-{caller}"), projects)  # noqa: S311 - a load, not a secret

    def budget(self, caller: int) -> float:
        """How many claims this caller makes; the flood goes on until the others are done."""
        claims = self.turn.claims
        return float("inf") if claims is None or caller >= len(claims) else claims[caller]

    def done(self, began: float) -> float:
        """The callers have made their claims: whoever floods may stop. What was measured, in seconds."""
        self._done = True
        return (time.perf_counter() if self.turn.claims is not None else self.end) - began

    def answered(self, caller: int, began: float, *, admitted: bool) -> None:
        now = time.perf_counter()
        self.tallies[caller].add(
            admitted=admitted, seconds=now - began, measured=self.begin <= now <= self.end
        )

    def failed(self, error: BaseException) -> None:
        self.error = self.error or error

    def outcome(self, seconds: float, cpu_seconds: float) -> Outcome | Failed:
        if self.error is not None:
            trace = "".join(traceback.format_exception(self.error))
            return Failed(f"{type(self.error).__name__}: {self.error}", trace, _picklable(self.error))
        callers = self.turn.callers
        return Outcome(
            Tally().merge(self.tallies[:callers]), Tally().merge(self.tallies[callers:]), seconds, cpu_seconds
        )


def _picking(choice: random.Random, projects: int) -> Callable[[], int]:
    return lambda: choice.randrange(projects)


def _picklable(error: BaseException) -> BaseException | None:
    from delimiter import DelimiterError

    return error if isinstance(error, DelimiterError) else None


def serve(pipe: Connection) -> None:
    """Take turns until the director hangs up."""
    while True:
        try:
            turn = pipe.recv()
        except EOFError:
            os._exit(0)
        calling = _Calling(turn)
        try:
            if isinstance(turn.way, AsyncWay):
                answer = asyncio.run(_on_loop(calling, turn.way, pipe))
            else:
                answer = _in_threads(calling, turn.way, pipe)
        except EOFError:
            os._exit(0)
        except Exception as error:  # whatever it is, the director must hear of it
            calling.failed(error)
            answer = calling.outcome(0, 0)
        pipe.send(answer)


def _in_threads(calling: _Calling, way: ThreadedWay, pipe: Connection) -> Outcome | Failed:
    def call(caller: int) -> None:
        tally = calling.tallies[caller]
        next_number = calling.numbers(caller)
        left = calling.budget(caller)
        try:
            while left > 0:
                began = time.perf_counter()
                calling.answered(caller, began, admitted=way.claim(next_number()))
                left = 0 if calling.is_over() else left - 1
        except Stopped:
            tally.undecided += 1
        except BaseException as error:
            calling.failed(error)

    turn = calling.turn
    way.open(turn.connections)
    try:
        threads = [
            threading.Thread(target=call, args=(caller,), daemon=True)
            for caller in range(turn.callers + turn.flood)
        ]
        pipe.send("ready")
        pipe.recv()
        cpu, began = time.process_time(), time.perf_counter()
        for thread in threads:
            thread.start()
        if turn.claims is None:
            allowed = pipe.recv()
            cpu, began = time.process_time(), time.perf_counter()
            calling.end, calling.begin = began + allowed, began
        for thread in threads[: turn.callers]:
            thread.join()
        seconds = calling.done(began)
        for thread in threads[turn.callers :]:
            thread.join()
        return calling.outcome(seconds, time.process_time() - cpu)
    finally:
        way.close()


async def _on_loop(calling: _Calling, way: AsyncWay, pipe: Connection) -> Outcome | Failed:
    async def call(caller: int) -> None:
        next_number = calling.numbers(caller)
        left = calling.budget(caller)
        try:
            while left > 0:
                began = time.perf_counter()
                calling.answered(caller, began, admitted=await way.claim(next_number()))
                left = 0 if calling.is_over() else left - 1
        except Exception as error:
            calling.failed(error)

    turn = calling.turn
    await way.open(turn.connections)
    try:
        pipe.send("ready")
        pipe.recv()
        cpu, began = time.process_time(), time.perf_counter()
        tasks = [asyncio.create_task(call(caller)) for caller in range(turn.callers + turn.flood)]
        if turn.claims is None:
            while not pipe.poll():
                await asyncio.sleep(_LOOK)
            allowed = pipe.recv()
            cpu, began = time.process_time(), time.perf_counter()
            calling.end, calling.begin = began + allowed, began
        await asyncio.gather(*tasks[: turn.callers])
        seconds = calling.done(began)
        await asyncio.gather(*tasks[turn.callers :])
        return calling.outcome(seconds, time.process_time() - cpu)
    finally:
        await way.close()
