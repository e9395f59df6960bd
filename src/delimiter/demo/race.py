"""The race: real processes, each with connections of its own, claim the last instances all at once.

``python -m delimiter.demo.race`` is the starter: it forks the runners, which open the store, say ``ready`` and run when
they all are. (The store's URL is not on its command line, where everybody could read the password.)
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from delimiter import Delimiter, OverLimit

__all__ = ["Course", "RunnerFailed", "run"]

_READY: Final = "ready"
_WON: Final = "won"
_REFUSED: Final = "refused"

#: Far above what a claim takes here: a runner must not give up for want of time.
_CLAIM_TIMEOUT: Final = 30.0

#: A race takes a second or two.
_PATIENCE: Final = 90.0

#: Between two attempts of a runner, so that no lucky one has them all before the others come to it.
_BREATH: Final = 0.15


class RunnerFailed(Exception):
    """A process of the race ended before its time."""


@dataclass(frozen=True, slots=True)
class Course:
    """What the starter is told."""

    store: str
    schema: str | None
    table_prefix: str
    resource: str
    user: str
    runners: int
    attempts: int


# --- here: the one who looks on ----------------------------------------------------------------------------


def run(course: Course, *, each: Callable[[int, bool], None]) -> None:
    """Let them run; ``each`` is told of every attempt as it is answered: which runner, and whether it won."""
    command = [sys.executable, "-P", "-m", "delimiter.demo.race"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as starter:  # noqa: S603
        watchdog = threading.Timer(_PATIENCE, starter.kill)
        watchdog.start()
        try:
            _look_on(starter, course, each)
        finally:
            watchdog.cancel()
            starter.kill()  # before the start it takes the runners with it; after the end it is gone already


def _look_on(starter: subprocess.Popen[str], course: Course, each: Callable[[int, bool], None]) -> None:
    _tell(starter, json.dumps(asdict(course)))
    ready = answers = 0
    for number, word in _heard(starter):
        if word == _READY:
            ready += 1
            if ready == course.runners:
                _tell(starter, "go")
        elif word in (_WON, _REFUSED):
            answers += 1
            each(number, word == _WON)
        else:
            raise RunnerFailed(f"a process of the race failed: {word}")
    if answers < course.runners * course.attempts:
        said = starter.stderr.read().strip().splitlines() if starter.stderr is not None else []
        raise RunnerFailed(f"the race did not come to its end: {said[-1] if said else 'nobody says why'}")


def _tell(starter: subprocess.Popen[str], line: str) -> None:
    assert starter.stdin is not None
    try:
        starter.stdin.write(line + "\n")
        starter.stdin.flush()
    except BrokenPipeError:
        return  # it failed; its exit status says so in a moment


def _heard(starter: subprocess.Popen[str]) -> Iterator[tuple[int, str]]:
    for line in starter.stdout or ():
        number, _, word = line.strip().partition(" ")
        yield int(number), word


# --- there: the starter and its runners --------------------------------------------------------------------


def main() -> None:
    """The starter. It opens no store itself: a connection must not be shared with a fork."""
    course = Course(**json.loads(sys.stdin.readline()))
    start, shot = os.pipe()
    runners = [_forked(course, number, start, shot) for number in range(course.runners)]
    if sys.stdin.readline():
        os.write(shot, b"!" * course.runners)
    os.close(shot)  # whoever finds nothing in the pipe goes home
    for runner in runners:
        os.waitpid(runner, 0)


def _forked(course: Course, number: int, start: int, shot: int) -> int:
    process = os.fork()
    if process:
        return process
    os.close(shot)
    try:
        _run(course, number, start)
    except Exception as error:
        _say(number, f"{type(error).__name__}: {error}".replace("\n", " "))
    finally:
        os._exit(0)


def _run(course: Course, number: int, start: int) -> None:
    quota = Delimiter(
        course.store,
        create=False,
        schema=course.schema,
        table_prefix=course.table_prefix,
        timeout=_CLAIM_TIMEOUT,
    )
    with quota:
        quota.resources()  # connected before the start, so that nobody has a lead
        _say(number, _READY)
        if not os.read(start, 1):
            return
        for attempt in range(course.attempts):
            time.sleep(random.uniform(0, _BREATH))  # noqa: S311
            try:
                quota.claim({course.resource: 1}, user=course.user, id=f"runner-{number + 1}-{attempt + 1}")
            except OverLimit:
                _say(number, _REFUSED)
            else:
                _say(number, _WON)


def _say(number: int, word: str) -> None:
    os.write(1, f"{number} {word}\n".encode())  # in one piece, whoever else writes


if __name__ == "__main__":
    main()
