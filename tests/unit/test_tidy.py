"""What keeps the code readable, counted: sizes, names, leftovers; and how the front page begins."""

from __future__ import annotations

import ast
import re
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


def parametrise(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=short)


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


@parametrise(EVERYTHING)
def test_files_and_classes_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES_OF_A_FILE, "split it by meaning"
    long_ones = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_CLASS
    ]
    assert not long_ones, "split it by meaning"


@parametrise(EVERYTHING)
def test_names_say_something(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    assert not {part.removeprefix("_") for part in parts} & NAMES_THAT_SAY_NOTHING


@parametrise(EVERYTHING)
def test_nothing_is_left_to_do(path):
    found = [line for line in path.read_text().splitlines() if LEFTOVER.search(line)]
    assert not found, "open an issue instead"


@parametrise(TESTS)
def test_tests_do_not_sleep(path):
    lines = sleeps(ast.parse(path.read_text()))
    assert not lines, f"line {lines}: wait for what should happen, or move the clock"


@pytest.mark.parametrize(
    "source",
    ["time.sleep(1)", "from time import sleep\nsleep(1)", "from time import sleep as s\ns(1)"],
)
def test_a_sleep_is_seen(source):
    assert sleeps(ast.parse(source))


@parametrise([path for path in SOURCE if not path.name.startswith("_") or path.name == "__init__.py"])
def test_public_modules_have_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


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
