"""However much is listed: memory does not grow with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MEASURED = """
import resource, sys
from delimiter import Delimiter, listing
url, file, less = sys.argv[1:]
with Delimiter(url) as quota:
    quota.define_resource("cores")
    adopted = quota.adopt(lambda: listing.read(file), batch=2000).claimed
    found = sum(1 for _ in quota.reconcile_with(lambda: listing.read(file), grace=0))
    mended = sum(1 for _ in quota.reconcile_with(lambda: listing.read(less), grace=0, repair=True))
print(adopted, found, mended, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.stores("sqlite")
def test_memory_does_not_grow_with_the_listing(database_url, tmp_path):
    """Ten times as many things adopted, compared and mended: the same memory at the most, but for SQLite's caches."""

    def peak(rows: int) -> int:
        lines = [f"v{n},u{n % 20},1\n" for n in range(rows)]
        full, less = tmp_path / f"{rows}.csv", tmp_path / f"{rows}-less.csv"
        full.write_text("external_id,user,cores\n" + "".join(lines))
        less.write_text("external_id,user,cores\n" + "".join(lines[: -rows // 10]))
        run = [sys.executable, "-c", _MEASURED, database_url("sqlite"), str(full), str(less)]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        *counts, most = map(int, done.stdout.split())
        assert counts == [rows, 0, rows // 10]
        return most

    assert peak(30_000) < peak(3_000) + 40_000, (
        "in kB; the caches are 16 MB for the comparison, and a few for the store"
    )
