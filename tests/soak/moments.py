"""Faults that a client does to itself at the moment of its COMMIT, when the nemesis has asked for it.

The nemesis writes a file ``arm-PROCESS`` with one word; the next COMMIT of that process takes the file away and does
what it says. So the moment is exact, and the process has not prepared for it in any way.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

#: What may be asked for.
WORDS = ("kill-before", "kill-during", "kill-after", "stop-before")


class Moments:
    """Watches for COMMITs of every SQLAlchemy engine of this process."""

    def __init__(self, armed: Path) -> None:
        self._armed = armed
        self._after = threading.local()
        sa.event.listen(sa.Engine, "commit", self._before_commit)
        sa.event.listen(sa.pool.Pool, "checkin", self._after_commit)

    def _before_commit(self, _: Any) -> None:
        word = take(self._armed)
        if word == "kill-during":
            threading.Timer(0.0005, end_here).start()
        elif word == "kill-after":
            self._after.due = True
        elif word is not None:
            act(word)

    def _after_commit(self, *_: Any) -> None:
        if getattr(self._after, "due", False):
            end_here()


def take(armed: Path) -> str | None:
    """The word, once: whoever takes the file away does it."""
    if not armed.exists():
        return None
    taken = armed.with_suffix(f".{threading.get_ident()}")
    try:
        armed.rename(taken)
    except OSError:
        return None
    return taken.read_text()


def act(word: str) -> None:
    if word == "stop-before":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        end_here()


def end_here() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def around(call: Callable[[], Any], armed: Path) -> Any:
    """The same for a store that is not reached through SQLAlchemy: ``call`` sends what commits."""
    word = take(armed)
    if word == "kill-during":
        threading.Timer(0.0005, end_here).start()
    elif word not in (None, "kill-after"):
        assert word is not None
        act(word)
    done = call()
    if word == "kill-after":
        end_here()
    return done
