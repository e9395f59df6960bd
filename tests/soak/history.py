"""The journal of a client, and a history: what all of them wrote, as operations with their times.

A line is written before a call and after it, by one ``write`` each, so that whatever ends the process loses nothing
that was written before. Times are of ``CLOCK_MONOTONIC``, which all processes of a machine share, in nanoseconds.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The end of an operation that was never answered.
NEVER = math.inf


class Journal:
    """One file of one process; its threads write whole lines."""

    def __init__(self, file: Path, process: str) -> None:
        self._out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()
        self._process = process
        self._calls = 0
        self._write({"hello": process, "pid": os.getpid()})

    def invoke(self, call: str, args: dict[str, Any], repeats: str | None = None) -> str:
        """Before the call; the key by which its answer is written."""
        with self._lock:
            self._calls += 1
            key = f"{self._process}#{self._calls}"
        self._write({"o": key, "call": call, "args": args, **({"repeats": repeats} if repeats else {})})
        return key

    def step(self, key: str, started: int, answer: dict[str, Any]) -> None:
        """One step of a transaction is answered; its COMMIT has not been sent yet."""
        self._write({"o": key, "step": answer, "s": started})

    def answer(self, key: str, answer: dict[str, Any]) -> None:
        self._write({"o": key, "a": answer})

    def _write(self, line: dict[str, Any]) -> None:
        # Before a call the time is older than the call, after it younger: its interval is never made too small.
        text = json.dumps({"t": time.monotonic_ns(), **line}, separators=(",", ":"))
        os.write(self._out, text.encode() + b"\n")

    def close(self) -> None:
        os.close(self._out)


@dataclass
class Step:
    """One call of the interface within an operation: what was asked, and the answer if there is one."""

    verb: str
    args: dict[str, Any]
    start: float
    end: float
    answer: dict[str, Any] | None = None

    @property
    def error(self) -> str | None:
        return None if self.answer is None else self.answer.get("error")

    @property
    def violations(self) -> list[list[Any]]:
        """``[resource, scope, limit, used, requested, available]`` each."""
        return [] if self.answer is None else self.answer.get("violations", [])


@dataclass
class Operation:
    """What one client asked for in one transaction. Times are microseconds of the store's clock."""

    key: str
    verb: str
    steps: list[Step]
    start: float
    end: float
    #: ``"done"``: answered. ``"void"``: for sure nothing has happened. ``"unknown"``: it may have happened.
    outcome: str
    args: dict[str, Any] = field(default_factory=dict)
    repeats: str | None = None
    answer: dict[str, Any] | None = None

    @property
    def error(self) -> str | None:
        return None if self.answer is None else self.answer.get("error")

    def told(self) -> str:
        """One line for people."""
        said = "no answer" if self.answer is None else json.dumps(self.answer)[:300]
        return f"{self.key} {self.verb} {json.dumps(self.args)[:300]} → {said}"


@dataclass
class History:
    """All operations of a run, and what was found at its end."""

    operations: list[Operation]
    final: dict[str, Any]
    settings: dict[str, Any]
    faults: list[dict[str, Any]] = field(default_factory=list)
    #: Answered with anything that is not of the interface.
    crashes: list[str] = field(default_factory=list)


def read(folder: Path) -> History:
    """The history in a folder: ``settings.json``, ``final.json``, ``nemesis.jsonl`` and the clients' journals."""
    settings = json.loads((folder / "settings.json").read_text())
    offset = settings["real_minus_monotonic_us"]
    final_file = folder / "final.json"
    final = json.loads(final_file.read_text()) if final_file.exists() else {}
    lines: list[dict[str, Any]] = []
    for file in sorted(folder.glob("client-*.jsonl")):
        lines += whole_lines(file)
    nemesis = folder / "nemesis.jsonl"
    faults = list(whole_lines(nemesis)) if nemesis.exists() else []
    return History(sorted(operations(lines, offset), key=lambda o: o.start), final, settings, faults)


def whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The last line of a killed process may be half written."""
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def operations(lines: Iterable[dict[str, Any]], offset: float = 0.0) -> Iterator[Operation]:
    """Lines put together; ``offset`` (microseconds) is added to make the store's clock of the monotonic one."""
    begun: dict[str, dict[str, Any]] = {}
    steps: dict[str, list[dict[str, Any]]] = {}
    ended: dict[str, dict[str, Any]] = {}
    for line in lines:
        if "call" in line:
            begun[line["o"]] = line
        elif "step" in line:
            steps.setdefault(line["o"], []).append(line)
        elif "a" in line:
            ended[line["o"]] = line
    for key, line in begun.items():
        yield _operation(line, steps.get(key, []), ended.get(key), offset)


def _operation(
    line: dict[str, Any], steps: list[dict[str, Any]], ended: dict[str, Any] | None, offset: float
) -> Operation:
    def at(nanoseconds: int) -> float:
        return nanoseconds / 1000 + offset

    start = at(line["t"])
    end = NEVER if ended is None else at(ended["t"])
    answer = None if ended is None else ended["a"]
    verb, args = line["call"], line["args"]
    if verb == "transaction":
        made = [
            Step(asked["verb"], asked["args"], at(known["s"]), at(known["t"]), known["step"])
            for asked, known in zip(args["steps"], steps, strict=False)
        ]
        outcome = _outcome_of_transaction(args, made, answer)
    else:
        made = [Step(verb, args, start, end, answer)]
        outcome = _outcome(answer)
        if outcome == "unknown":
            made[0].answer = None
    return Operation(line["o"], verb, made, start, end, outcome, args, line.get("repeats"), answer)


def _outcome(answer: dict[str, Any] | None) -> str:
    if answer is None or answer.get("in_doubt"):
        return "unknown"
    return "void" if answer.get("error") in _NOTHING_DONE else "done"


#: Errors that promise that nothing has happened.
_NOTHING_DONE = ("Conflict", "StoreUnavailable")


def _outcome_of_transaction(args: dict[str, Any], made: list[Step], answer: dict[str, Any] | None) -> str:
    if args["end"] == "rollback" or len(made) < len(args["steps"]):
        return "void"  # COMMIT was never sent
    if any(step.error in _NOTHING_DONE for step in made):
        return "void"
    if answer is None or answer.get("in_doubt"):
        return "unknown"
    return "done" if answer.get("end") == "committed" else "void"
