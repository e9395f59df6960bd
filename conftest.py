"""Runs the examples of README.md and docs/: Python blocks as Python, console blocks as commands.

A document's examples share one namespace and one fresh, empty working directory. A block that must not
be run stands after `<!-- skip: next -->` (or between `<!-- skip: start -->` and `<!-- skip: end -->`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import ExceptionInfo, Traceback
from sybil import Example, Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

_FLAGS = ELLIPSIS | NORMALIZE_WHITESPACE
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stores",
        help="run only the tests of these stores: memory, sqlite, postgresql, mariadb, zookeeper, with commas",
    )
    parser.addoption(
        "--apart",
        action="store_true",
        help="no call shares a batch with others, and no claim is made by one statement (DELIMITER_TESTS_APART=1)",
    )


def run_console_block(example: Example) -> str | None:
    """Runs each `$ command` and compares what follows it with its output; `...` stands for anything.

    A command with no output below it must succeed; one with output may exit as it likes: `echo $?` shows it.
    """
    status = 0
    for command, expected in _commands(str(example.parsed)):
        done = subprocess.run(
            ["bash", "-c", f"(exit {status}); {command}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "PATH": _PATH, "NO_COLOR": "1", "COLUMNS": "100"},
        )
        status = done.returncode
        if not expected:
            if status:
                return f"{command}exited {status}:\n{done.stdout}"
        elif not OutputChecker().check_output(expected, done.stdout, _FLAGS):
            return f"{command}expected:\n{expected}got (exit {status}):\n{done.stdout}"
    return None


def _commands(block: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and not found[-1][1] and found[-1][0].endswith("\\\n"):
            found[-1] = (found[-1][0] + line, "")
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def _enter_fresh_directory(namespace: dict[str, Any]) -> None:
    namespace["_came_from"] = Path.cwd()
    namespace["_directory"] = tempfile.mkdtemp(prefix="delimiter-docs-")
    os.chdir(namespace["_directory"])


def _leave_directory(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_came_from"])
    shutil.rmtree(namespace["_directory"], ignore_errors=True)


def _traceback_of_failure(item: SybilItem, failure: ExceptionInfo[BaseException]) -> Traceback:
    """Sybil's own breaks pytest when a failure did not come out of an example: an unclosed file, say."""
    try:
        return _SYBILS_TRACEBACK(item, failure)
    except IndexError:
        return failure.traceback


_SYBILS_TRACEBACK = SybilItem._traceback_filter
SybilItem._traceback_filter = _traceback_of_failure  # type: ignore[method-assign]

pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=_FLAGS),
        CodeBlockParser("console", run_console_block),
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/_build/**"],
    setup=_enter_fresh_directory,
    teardown=_leave_directory,
).pytest()
