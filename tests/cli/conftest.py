"""Running the command line: in this process, as click does it, or as the installed command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from delimiter import Delimiter
from delimiter.cli import main

COMMAND = Path(sys.executable).parent / "delimiter"


@dataclass(frozen=True)
class Run:
    """How a run of the command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        assert not self.out, "with an error nothing is on the output"
        return json.loads(self.err)["error"]


Command = Callable[..., Run]


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DELIMITER_STORE", "DELIMITER_SCHEMA", "DELIMITER_TABLE_PREFIX", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command() -> Command:
    """`command("usage", "--user", "john")`: the command in this process."""

    def run(*arguments: str, **environment: str) -> Run:
        result = CliRunner().invoke(main, list(arguments), prog_name="delimiter", env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Run(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with an instance and storage resource; amrith has a limit of his own."""
    url = f"sqlite:///{tmp_path / 'quota.db'}"
    with Delimiter(url) as quota:
        quota.define_resource("database.instances", max=2000, user_max=25, unit="instances")
        quota.define_resource("storage.gb", user_max=20_000, unit="GB", description="Volumes")
        quota.update_limits("database.instances", user="amrith", max=2)
    return url


@pytest.fixture
def quota(command: Command, url: str) -> Command:
    """The same on that store."""

    def run(*arguments: str) -> Run:
        return command("--store", url, *arguments)

    return run


@pytest.fixture
def installed() -> Command:
    """The installed command, in a process of its own."""

    def run(*arguments: str, **options: Any) -> Run:
        done = subprocess.run(
            [COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False, **options
        )
        return Run(done.returncode, done.stdout, done.stderr)

    return run
