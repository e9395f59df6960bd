"""A million things adopted from a listing and compared with it: time, and how much memory the process took at most.

.venv/bin/python benchmarks/reconcile.py [--rows 1000000] [sqlite postgresql mariadb]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from delimiter import Delimiter, listing
from servers import Servers

PROJECTS, USERS = 200, 1000


def write(path: Path, rows: int, *, without: int = 0) -> None:
    """A listing; every ``without``-th thing has gone, and as many have grown."""
    with path.open("w") as file:
        file.write("external_id,project,user,storage.gb,storage.volumes\n")
        for number in range(rows):
            if without and number % without == 0:
                continue
            size = 10 + number % 90 + (1 if without and number % without == 1 else 0)
            file.write(f"vol-{number:08},p{number % PROJECTS},u{number % USERS},{size},1\n")


def measured(what: str, call: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    answer = call()
    taken = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {what:42} {taken:8.1f} s   at most {peak:6.0f} MB   {answer}", flush=True)
    return answer


def run(url: str, rows: int, folder: Path) -> None:
    full, less = folder / "full.csv", folder / "less.csv"
    write(full, rows)
    write(less, rows, without=1000)
    with Delimiter(url, timeout=60) as quota:
        quota.define_resource("storage.gb", project_max=10**9, user_max=10**9)
        quota.define_resource("storage.volumes", project_max=10**9)
        measured("before", lambda: "")

        def adopted(path: Path) -> str:
            found = quota.adopt(lambda: listing.read(path))
            return f"claimed {found.claimed}, known {found.known}"

        def count(found: Iterator[Any]) -> str:
            return f"{sum(1 for _ in found)} mismatches"

        measured("adopt", lambda: adopted(full))
        measured("adopt again", lambda: adopted(full))
        measured("compare", lambda: count(quota.reconcile_with(lambda: listing.read(full), grace=0)))
        measured(
            "compare and repair",
            lambda: count(quota.reconcile_with(lambda: listing.read(less), grace=0, repair=True)),
        )
        measured("compare again", lambda: count(quota.reconcile_with(lambda: listing.read(less), grace=0)))
        measured("counters", lambda: count(quota.reconcile()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("stores", nargs="*", default=["sqlite", "postgresql", "mariadb"])
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = Servers()
        stack.callback(servers.close)
        for store in options.stores:
            print(f"{store}, {options.rows} things", flush=True)
            if store == "sqlite":
                url = f"sqlite:///{folder}/bench.db"
            else:
                url = servers.get(store).create_database().render_as_string(hide_password=False)
            run(url, options.rows, folder)


if __name__ == "__main__":
    main()
