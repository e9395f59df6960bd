"""Runs the tests of each mutation against a copy of the library from which its guard is taken out.

The copy stands before the installed library on ``PYTHONPATH``, so nothing is built; processes that a test starts
import it too. Servers are started once, for all of them.
"""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from mutations.mutation import ROOT, Mutation
from server_process import ServerNotAvailable
from servers import Servers

__all__ = ["Outcome", "Runner", "servers_for"]

#: Seconds for one test, and for all that one mutation is shown to: what hangs has noticed it too.
_ONE_TEST: Final = 60
_ONE_RUN: Final = 300
_ALL_UNCHANGED: Final = 1800

_FAILED: Final = 1

_NEEDS_SERVER: Final = ("postgresql", "mariadb", "zookeeper", "galera")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutation."""

    name: str
    guard: str
    store: str
    apart: bool
    #: ``caught``, ``survived``, or ``broken``: the tests could not be run on it, which shows nothing.
    verdict: str
    caught_by: str
    #: The first line of why that test failed; of a broken one, the end of what pytest printed.
    reason: str
    runs: int
    seconds: float


@contextmanager
def servers_for(stores: Iterable[str]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """The environment in which tests find servers that are kept, and the stores without one (with the reason)."""
    servers = Servers()
    environment: dict[str, str] = {}
    missing: dict[str, str] = {}
    try:
        for store in sorted(set(stores).intersection(_NEEDS_SERVER)):
            try:
                url = servers.get(store).url.render_as_string(hide_password=False)
                environment[f"DELIMITER_TEST_{store.upper()}_URL"] = url
            except ServerNotAvailable as reason:
                missing[store] = str(reason)
        yield environment, missing
    finally:
        servers.close()


class Runner:
    """Runs pytest on copies of the library. ``seed`` decides the order of sets in every process."""

    def __init__(self, environment: dict[str, str], *, seed: int) -> None:
        self._environment = {**os.environ, **environment, "PYTHONHASHSEED": str(seed), "NO_COLOR": "1"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the compiled copy, if there is one."""
        if "_compiled" in self.__dict__:
            self._compiled.cleanup()

    def unchanged(self, mutations: Sequence[Mutation]) -> list[str]:
        """Run all their tests on the library as it is: the lines of what fails already."""
        complaints = []
        with self._copy() as copy:
            for store, apart in sorted({(one.store, one.apart) for one in mutations}):
                nodes = {
                    node: None
                    for one in mutations
                    if (one.store, one.apart) == (store, apart)
                    for node in one.node_ids()
                }
                status, found, output = self._pytest(
                    copy, store, list(nodes), apart=apart, within=_ALL_UNCHANGED, stop=False
                )
                complaints += [f"{store}: {name}: {reason}" for name, reason in found]
                if status and not found:
                    complaints.append(f"{store}: {output}")
        return complaints

    def run(self, mutation: Mutation, *, factor: int = 1) -> Outcome:
        """Take the guard out and run its tests, as often as it says, until one fails."""
        began = time.monotonic()
        runs = 0
        verdict, caught_by, reason = "survived", "", ""
        with self._copy() as copy:
            path = copy / "delimiter" / mutation.file
            path.write_text(mutation.applied(path.read_text()))
            while verdict == "survived" and runs < mutation.attempts * factor:
                runs += 1
                status, found, output = self._pytest(
                    copy, mutation.store, mutation.node_ids(), apart=mutation.apart, within=_ONE_RUN
                )
                if status == _FAILED and found:
                    verdict, (caught_by, reason) = "caught", found[0]
                elif status:
                    verdict, reason = "broken", output
        return Outcome(
            mutation.name,
            mutation.guard,
            mutation.store,
            mutation.apart,
            verdict,
            caught_by,
            reason,
            runs,
            time.monotonic() - began,
        )

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="delimiter-mutation-") as folder:
            shutil.copytree(self._compiled.name, folder, dirs_exist_ok=True)
            yield Path(folder)

    @cached_property
    def _compiled(self) -> tempfile.TemporaryDirectory[str]:
        """The library as it is, with its bytecode: to compile all of it for each mutation would cost seconds.

        Of the suite for engines pytest has a bytecode of its own, which it writes while it collects.
        """
        folder = tempfile.TemporaryDirectory(prefix="delimiter-unchanged-")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src" / "delimiter", Path(folder.name) / "delimiter", ignore=ignored)
        compileall.compile_dir(folder.name, quiet=1)
        subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/engines/test_conformance.py"],
            cwd=ROOT,
            env={**self._environment, "PYTHONPATH": folder.name},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return folder

    def _pytest(
        self,
        copy: Path,
        store: str,
        nodes: Sequence[str],
        *,
        apart: bool,
        within: float,
        stop: bool = True,
    ) -> tuple[int, list[tuple[str, str]], str]:
        """Exit status, what failed and why, and the end of the output."""
        report = copy / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", f"--stores={store}", f"--timeout={_ONE_TEST}"),
            *("-p", "no:cacheprovider", f"--junitxml={report}", *(["-x"] if stop else [])),
            *(["--apart"] if apart else []),
            *nodes,
        ]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**self._environment, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return _FAILED, [("all of them", f"no end after {within:g} s")], ""
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if f"delimiter: {copy / 'delimiter'}" not in output:
            return process.returncode or -1, [], f"the copy was not what the tests imported: {output[-2000:]}"
        return process.returncode, _failures(report), output[-2000:]


def _failures(report: Path) -> list[tuple[str, str]]:
    if not report.exists():
        return []
    found = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest has just written it
        for failure in (*case.findall("failure"), *case.findall("error")):
            message = (failure.get("message") or "").strip()
            found.append((str(case.get("name")), message.partition("\n")[0][:200]))
    return found
