"""A clock and sources that do what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from delimiter.model import Scope

ACME = Scope("project", "acme")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Limits:
    """A source whose answer a test sets: a value, or an exception to raise."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = {"storage.gb": 500} if answer is None else answer
        self.asked: list[Scope] = []

    def limits(self, scope: Scope) -> Mapping[str, int]:
        self.asked.append(scope)
        if isinstance(self.answer, BaseException):
            raise self.answer
        answer: Mapping[str, int] = self.answer
        return answer


class Projects:
    def __init__(self, answer: Any = ()) -> None:
        self.answer = answer

    def ancestors(self, project: str) -> Sequence[str]:
        answer: Sequence[str] = self.answer
        return answer


class Both(Limits, Projects):
    def __init__(self) -> None:
        Limits.__init__(self)
        self.answer = {}


def store_clock() -> int:
    return 7
