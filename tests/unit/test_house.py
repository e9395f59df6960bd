"""The house: imports inside the package go one way only, and nobody goes round the desk or the seams.

Read from the source tree by `ast`, so that an import inside a function or under TYPE_CHECKING counts too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "delimiter"

# Which room each module or sub-package of delimiter belongs to ("" is the package's own __init__).
ROOMS = {
    "": "front",
    "conformance": "conformance",
    "cli": "door",
    "aio": "door",
    "bench": "door",
    "web": "door",
    "demo": "door",
    "hosting": "door",
    "handlers": "door",
    "problems": "door",
    "fastapi": "door",
    "testing": "door",
    "quota": "desk",
    "counting": "desk",
    "reconciling": "desk",
    "comparing": "desk",
    "spool": "desk",
    "watching": "desk",
    "rules": "desk",
    "subscription": "desk",
    "desk": "desk",
    "freshness": "desk",
    "combining": "desk",
    "engines": "plug",
    "sources": "plug",
    "limits_file": "seam",
    "listing": "seam",
    "engine": "seam",
    "waiting": "seam",
    "source": "seam",
    "changes": "seam",
    "counted": "seam",
    "edits": "seam",
    "condition": "word",
    "validation": "word",
    "model": "word",
    "errors": "word",
    "ids": "word",
    "refusals": "word",
}
# What each room may import. The front is what users import from, so only doors may look through it.
MAY_IMPORT = {
    "front": {"door", "desk", "plug", "seam", "word"},
    "conformance": {"front", "door", "desk", "plug", "seam", "word", "conformance"},
    "door": {"front", "door", "desk", "plug", "seam", "word"},
    "desk": {"desk", "seam", "word"},
    "plug": {"plug", "seam", "word"},
    "seam": {"seam", "word"},
    "word": {"word"},
}


def imports_of(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything below delimiter that the module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*above, *([node.module] if node.module else [])])
            if is_ours(base):
                # `from delimiter import quota` imports that module, `… import Delimiter` the front
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            # importlib.import_module("delimiter.engines.sqlite") is an import as well
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            if called in {"import_module", "__import__"} and isinstance(name, str) and is_ours(name):
                yield node.lineno, name


def is_ours(name: str) -> bool:
    return name == "delimiter" or name.startswith("delimiter.")


def room_of(name: str) -> str:
    parts = name.split(".")
    first = parts[1] if len(parts) > 1 else ""
    # A name that is no module is something the front shows: Delimiter, __version__, …
    return ROOMS.get(first, "front")


def wrong_arrows(source: str, module: str, *, is_package: bool = False) -> list[str]:
    here = room_of(module)
    return [
        f"{module}:{line} ({here}) imports {target} ({room_of(target)})"
        for line, target in imports_of(ast.parse(source), module, is_package=is_package)
        if room_of(target) not in MAY_IMPORT[here]
    ]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["delimiter", *path.relative_to(PACKAGE).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_every_module_has_a_room():
    homeless = {name for name, _ in modules() if name.count(".") and name.split(".")[1] not in ROOMS}
    assert not homeless, f"give these a room in ROOMS, and a layer in pyproject.toml: {sorted(homeless)}"


def test_no_arrow_turns_round():
    wrong = [
        arrow
        for name, path in modules()
        for arrow in wrong_arrows(path.read_text(), name, is_package=path.name == "__init__.py")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module, is_package, source",
    [
        ("delimiter.quota", False, "from delimiter.engines.sql import Engine"),
        ("delimiter.quota", False, "from delimiter.engines import sql"),
        ("delimiter.quota", False, "from delimiter import cli"),
        ("delimiter.quota", False, "from delimiter import Delimiter"),
        ("delimiter.quota", False, "def f():\n    import delimiter.engines"),
        ("delimiter.quota", False, "importlib.import_module('delimiter.engines.sql')"),
        ("delimiter.quota", True, "from .engines import sql\nfrom ..engines import sql"),
        ("delimiter.quota.retry", False, "from ..engines import sql"),
        ("delimiter.engines.sql.claims", False, "from ...quota import Delimiter"),
        ("delimiter.engines", True, "from ..quota import Delimiter"),
        ("delimiter.engines.sql", False, "if TYPE_CHECKING:\n    from delimiter.quota import Delimiter"),
        ("delimiter.engine", False, "from .quota import Delimiter"),
        ("delimiter.model", False, "from .engine import Engine"),
        ("delimiter.engines.sql", False, "from delimiter.conformance import EngineContract"),
        ("delimiter", True, "from .conformance import EngineContract"),
    ],
)
def test_a_wrong_arrow_is_seen(module, is_package, source):
    assert wrong_arrows(source, module, is_package=is_package)


@pytest.mark.parametrize(
    "module, is_package, source",
    [
        ("delimiter.quota", False, "from .engine import Engine\nfrom .model import Claim\nimport json"),
        ("delimiter.quota.retry", False, "from . import desk\nfrom ..errors import Conflict"),
        ("delimiter.engines.sql.claims", False, "from . import tables\nfrom ...errors import Conflict"),
        ("delimiter.engines.sql", True, "from .claims import claim"),
        (
            "delimiter.cli",
            True,
            "from delimiter import __version__\nfrom delimiter.engines.sql import SQLEngine",
        ),
        ("delimiter", True, "from .quota import Delimiter\nfrom . import errors"),
    ],
)
def test_a_right_arrow_is_let_pass(module, is_package, source):
    assert not wrong_arrows(source, module, is_package=is_package)
