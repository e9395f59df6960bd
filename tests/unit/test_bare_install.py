"""Without any extra the library and the command line work: nothing optional is imported on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

OPTIONAL = (
    "greenlet",
    "psycopg",
    "pymysql",
    "asyncmy",
    "aiosqlite",
    "pytest",
    "hypothesis",
    "fastapi",
    "anyio",
    "matplotlib",
)

CLAIM = """
from delimiter import Delimiter
with Delimiter("sqlite:///bare.db") as quota:
    quota.define_resource("a.thing", user_max=1)
    print(quota.claim({"a.thing": 1}, user="john").state)
"""

HANDLER = """
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from delimiter import Delimiter, OverLimit
from delimiter.handlers import guarded, transactional
from delimiter.problems import problem
engine = create_engine("sqlite:///bare.db")
quota = Delimiter(engine)
quota.define_resource("a.thing", user_max=1)

@transactional(sessionmaker(engine))
@guarded(quota, {"a.thing": 1}, user="user")
def create(session, user):
    return user

print(create("john"))
try:
    create("john")
except OverLimit as refusal:
    print(problem(refusal).status)
"""

COMMAND = """
from delimiter.cli import main
main(["--store", "sqlite:///bare.db", "usage", "--user", "john"])
"""


def without_extras(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    block = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))"
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, "-c", block + program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_claim_and_the_command_line(tmp_path: Path) -> None:
    claimed = without_extras(CLAIM, tmp_path)
    assert (claimed.stdout, claimed.returncode) == ("provisioned\n", 0), claimed.stderr
    shown = without_extras(COMMAND, tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "a.thing" in shown.stdout


def test_a_handler(tmp_path: Path) -> None:
    handled = without_extras(HANDLER, tmp_path)
    assert (handled.stdout, handled.returncode) == ("john\n403\n", 0), handled.stderr


def test_a_missing_framework_is_named(tmp_path: Path) -> None:
    failed = without_extras("\nimport delimiter.fastapi", tmp_path)
    assert failed.returncode
    assert failed.stderr.splitlines()[-1].endswith(
        "delimiter.fastapi needs FastAPI: pip install 'delimiter[fastapi]'"
    )


def test_a_missing_driver_is_named(tmp_path: Path) -> None:
    for url, extra in (
        ("postgresql+psycopg://h/d", "[postgresql]"),
        ("mysql+pymysql://h/d", "[mysql]"),
        ("postgres://h/d", "postgresql+psycopg://"),
    ):
        failed = without_extras(f"\nfrom delimiter import Delimiter\nDelimiter({url!r})", tmp_path)
        assert extra in failed.stderr.splitlines()[-1]
