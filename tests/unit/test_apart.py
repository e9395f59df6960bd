"""``--apart`` reaches every process: of those that decide together, none may be left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import apart
from delimiter.engines.sql.together.gathering import Batch, Gathering

_TESTS = Path(__file__).parents[1]

_SAYS = """
import apart
from delimiter.engines.sql.store import SqlEngine
from delimiter.engines.sql.together.gathering import Gathering
from delimiter.engines.zookeeper.engine import ZooKeeperEngine
print(SqlEngine.largest_batch, ZooKeeperEngine.largest_batch, Gathering.gather is apart._gather_nothing)
"""


def said(program: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != apart.VARIABLE}
    environment["PYTHONPATH"] = str(_TESTS)
    run = [sys.executable, "-c", program]
    return subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_a_process_and_those_that_it_starts_decide_apart() -> None:
    """Guards: what is imported already is changed, and what will be; and Python's start looks for the variable."""
    begins = "import apart\napart.begin()\n"
    starts = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_SAYS!r}], check=True)"
    for program in (begins + starts, _SAYS + begins + _SAYS):
        assert said(program).splitlines()[-1] == "1 1 True"
    assert said(_SAYS) == "512 64 False"


def test_for_one_test_only() -> None:
    gather = Gathering.gather
    with pytest.MonkeyPatch.context() as patch:
        apart.within(patch)
        assert Gathering.gather(None, []) == Batch()  # type: ignore[arg-type]
    assert Gathering.gather is gather
