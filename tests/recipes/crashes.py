"""A worker that dies between two steps. Every call of whatever it was given is a step, and so is every COMMIT."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa


class Crash(BaseException):
    """The process is gone: no handler of the worker runs for it."""


class Steps:
    """Dies before the step of this number; 0 is the first."""

    def __init__(self, dies_before: int) -> None:
        self._dies_before = dies_before
        self.taken: list[str] = []

    def take(self, name: str) -> None:
        if len(self.taken) == self._dies_before:
            raise Crash
        self.taken.append(name)

    def watch(self, target: Any, name: str) -> Any:
        """The same object, of which every call is a step."""
        return _WatchedEngine(target, self) if isinstance(target, sa.Engine) else _Watched(target, name, self)


class _Watched:
    def __init__(self, target: Any, name: str, steps: Steps) -> None:
        self._target, self._name, self._steps = target, name, steps

    def __getattr__(self, attribute: str) -> Any:
        call = getattr(self._target, attribute)

        @functools.wraps(call)
        def step(*args: Any, **kwargs: Any) -> Any:
            self._steps.take(f"{self._name}.{attribute}")
            return call(*args, **kwargs)

        return step


class _WatchedEngine:
    def __init__(self, engine: sa.Engine, steps: Steps) -> None:
        self._engine, self._steps = engine, steps

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        self._steps.take("begin")
        with self._engine.begin() as connection:
            yield connection
            self._steps.take("commit")
