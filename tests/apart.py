"""Nothing is made together: neither do calls that meet share a batch, nor is a claim made by one statement.

A claim usually goes the short way, and few tests see what decides the rest, one after the other and exactly. With
``pytest --apart`` (or ``DELIMITER_TESTS_APART=1``) all claims go that way, in every process that a test starts too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pytest

__all__ = ["CHANGED", "VARIABLE", "begin", "is_asked_for", "within"]

VARIABLE: Final = "DELIMITER_TESTS_APART"

#: Holds a ``sitecustomize``, which Python imports by itself at its start.
_AT_START: Final = Path(__file__).parent / "at_start"


def _gather_nothing(_gathering: Any, _changes: Any, _numbers: Any = None) -> Any:
    from delimiter.engines.sql.together.gathering import Batch

    return Batch()


#: By module: the class, and what stands in it instead.
CHANGED: Final[Mapping[str, tuple[str, str, Any]]] = {
    "delimiter.engines.sql.together.gathering": ("Gathering", "gather", _gather_nothing),
    "delimiter.engines.sql.store": ("SqlEngine", "largest_batch", 1),
    "delimiter.engines.zookeeper.engine": ("ZooKeeperEngine", "largest_batch", 1),
}


def is_asked_for() -> bool:
    return bool(os.environ.get(VARIABLE))


def begin() -> None:
    """From now on, in this process and in those that it starts; whether the library is imported already or not."""
    os.environ[VARIABLE] = "1"
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(_AT_START) not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_AT_START), *path]))
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in CHANGED.keys() & sys.modules.keys():
        _change(sys.modules[name])


def within(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the time of one test, in this process."""
    for module, (of, name, value) in CHANGED.items():
        if module in sys.modules:
            monkeypatch.setattr(getattr(sys.modules[module], of), name, value)


def _change(module: ModuleType) -> None:
    of, name, value = CHANGED[module.__name__]
    setattr(getattr(module, of), name, value)


class _Finder:
    """Changes the modules once they are imported: who starts a process may have something to set right before."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in CHANGED else None
        if spec is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _change(module)

            loader.exec_module = exec_module
        return spec
