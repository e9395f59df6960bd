"""What keeps the code readable, counted: sizes, names, leftovers; and how the front page begins."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from order import LONGEST

ROOT = Path(__file__).parents[2]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OTHERS = sorted(path for folder in ("benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))
EVERYTHING = [*SOURCE, *TESTS, *OTHERS, ROOT / "conftest.py"]

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_CLASS = 300
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}
# Written so that this file does not find itself.
LEFTOVER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def text_of(path: Path) -> str:
    return path.read_text()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def sleeps(tree: ast.AST) -> list[int]:
    """The lines that call time.sleep, however it was imported; asyncio.sleep(0) only lets others run."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for alias in node.names
        if alias.name == "sleep"
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (ast.unparse(node.func) in {"time.sleep", *imported})
    ]


# Each test looks at all files: one for each file would be thousands, and to hand those out takes longer than to look.


def test_files_and_classes_are_small():
    long_files = [
        short(path) for path in EVERYTHING if len(text_of(path).splitlines()) > MOST_LINES_OF_A_FILE
    ]
    long_classes = [
        f"{short(path)}: {node.name}"
        for path in EVERYTHING
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_CLASS
    ]
    assert not long_files + long_classes, f"split by meaning: {long_files + long_classes}"


def test_names_say_something():
    found = [
        short(path)
        for path in EVERYTHING
        if {part.removeprefix("_") for part in path.relative_to(ROOT).with_suffix("").parts}
        & NAMES_THAT_SAY_NOTHING
    ]
    assert not found, found


def test_nothing_is_left_to_do():
    found = [
        f"{short(path)}: {line}"
        for path in EVERYTHING
        for line in text_of(path).splitlines()
        if LEFTOVER.search(line)
    ]
    assert not found, f"open an issue instead: {found}"


def test_tests_do_not_sleep():
    found = [f"{short(path)}: line {line}" for path in TESTS for line in sleeps(tree_of(path))]
    assert not found, f"wait for what should happen, or move the clock: {found}"


@pytest.mark.parametrize(
    "source",
    ["time.sleep(1)", "from time import sleep\nsleep(1)", "from time import sleep as s\ns(1)"],
)
def test_a_sleep_is_seen(source):
    assert sleeps(ast.parse(source))


def test_public_modules_have_a_docstring():
    public = [path for path in SOURCE if not path.name.startswith("_") or path.name == "__init__.py"]
    found = [short(path) for path in public if not ast.get_docstring(tree_of(path))]
    assert not found, found


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_front_page_says_how_to_begin(command):
    assert command in (ROOT / "README.md").read_text()


def test_what_is_begun_first_is_there():
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


def test_the_typing_marker_is_in_the_wheel():
    import delimiter

    assert (Path(delimiter.__file__).parent / "py.typed").exists()


def test_the_lock_names_public_addresses_only():
    found = set(re.findall(r"https?://[^/\"]+", (ROOT / "uv.lock").read_text()))
    assert found <= {"https://pypi.org", "https://files.pythonhosted.org"}
