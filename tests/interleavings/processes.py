"""One process for each store, with a server of its own; what each finds comes together."""

from __future__ import annotations

import multiprocessing
import queue
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from interleavings.plans import Task, Work, carry_out
from interleavings.rig import Report, Rig
from servers import Servers

__all__ = ["explored"]


def _explore_store(store: str, tasks: list[Task], work: Work, told: Any) -> None:
    """In a process of its own, which starts a server of its own."""
    servers = Servers()
    try:
        url = servers.get(store).create_database()
        with Rig(store, url, hands=3) as rig:
            for task in tasks:
                told.put(carry_out(rig, task, work))
    except Exception as error:
        told.put(f"{store}: {type(error).__name__}: {error}")
    finally:
        servers.close()


def explored(tasks: Sequence[Task], work: Work) -> Iterator[Report]:
    """One process for each store."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    by_store: defaultdict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_store[task.store].append(task)
    processes = [
        context.Process(target=_explore_store, args=(store, of_store, work, told))
        for store, of_store in by_store.items()
    ]
    for process in processes:
        process.start()
    try:
        for _ in tasks:
            yield _next(told, processes)
    finally:
        for process in processes:
            process.terminate() if sys.exc_info()[0] else process.join()


def _next(told: Any, processes: Sequence[Any]) -> Report:
    while True:
        try:
            report = told.get(timeout=1)
        except queue.Empty:
            if not any(process.is_alive() for process in processes):
                raise RuntimeError("a process has ended before its work was done") from None
            continue
        if isinstance(report, Report):
            return report
        raise RuntimeError(report)
