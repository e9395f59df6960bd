"""One run: a cluster, clients, a nemesis, a calm end, and everything that is found there; then the judgement."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, get_args

import sqlalchemy as sa

from delimiter import Delimiter
from delimiter.model import ClaimState
from soak import clusters, world
from soak.calls import INSTANCES, METADATA, SERVICE_ROWS, Calls
from soak.clusters import Cluster
from soak.history import Journal, read
from soak.judge import Verdict, judge
from soak.model import told
from soak.nemesis import Nemesis
from soak.pauses import Pause, pauses
from soak.people import Clients, Progress
from soak.violation import Violation

#: Seconds of one call.
TIMEOUT = 10.0
#: Seconds without faults before the end: whatever waited goes on.
_CALM = 1.5


@dataclass
class Plan:
    """What to run. ``seed`` decides what is asked and what is broken, not who wins."""

    store: str
    seconds: float
    seed: int
    processes: int = 3
    callers: int = 2
    #: All callers claim of one thing that is limited, and nodes are taken away: what is admitted is counted exactly.
    race: bool = False
    tell: Callable[[str], None] = print


@dataclass
class Outcome:
    """What a run has shown."""

    plan: Plan
    verdict: Verdict
    pauses: list[Pause] = field(default_factory=list)
    faults: int = 0
    deaths: int = 0
    folder: Path | None = None  # kept, because something is wrong

    @property
    def violations(self) -> list[Violation]:
        return self.verdict.violations

    def tell_briefly(self, console: Any = None) -> None:
        """One line."""
        longest = max(self.pauses, key=lambda pause: pause.longest, default=None)
        paused = "" if longest is None else f", longest pause {longest.longest:.1f} s ({longest.fault})"
        (console.print if console is not None else print)(
            f"{self.plan.store}: seed {self.plan.seed}, {sum(self.verdict.answers.values())} answers,"
            f" {self.verdict.refused_share:.0%} refused, {self.faults} faults, {self.deaths} clients died{paused},"
            f" {len(self.violations)} violations"
        )


def run(plan: Plan, *, servers: Any = None, keep: Path | None = None) -> Outcome:
    """Run it and judge it. On a violation the histories and the servers' logs are kept in a folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"delimiter-soak-{plan.store}-{plan.seed}-", dir=keep))
    with clusters.start(plan.store, folder, servers) as cluster:
        try:
            faults, deaths, broken = _live(cluster, plan, folder)
            plan.tell("judging")
            history = read(folder)
            verdict = judge(history)
        except BaseException as error:
            error.add_note(f"seed {plan.seed}; the journals are in {folder}")
            raise
        finally:
            for log in cluster.logs():
                if log.exists():
                    shutil.copy(log, folder / f"server-{log.parent.name}-{log.name}")
    verdict.violations += [Violation("crash", f"a client process ended: {line}") for line in broken]
    outcome = Outcome(plan, verdict, pauses(history), faults, deaths)
    if verdict.violations:
        outcome.folder = folder
        (folder / "violations.txt").write_text("\n\n".join(map(str, verdict.violations)))
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _live(cluster: Cluster, plan: Plan, folder: Path) -> tuple[int, int, list[str]]:
    settings = prepare(cluster, plan, folder)
    people = Clients(folder, list(settings["clients"]))
    progress = Progress(folder)
    nemesis = Nemesis(
        cluster, people, progress, folder, f"{plan.seed}-nemesis", plan.tell, nodes_only=plan.race
    )
    try:
        people.tend()
        _until(lambda: progress.look() > 20, "clients begin to work", tend=people.tend)
        nemesis.work(plan.seconds, faults=3, answers=300)
        healed = _store_time()
        plan.tell("everything is healed")
        _until_calm(people, progress)
        late = people.finish(TIMEOUT * 2 + 5)
        final = collect(cluster, settings, folder)
        final["healed_at"] = healed
        final["locks"] += [f"the client {name}, which does not stop" for name in late]
        (folder / "final.json").write_text(json.dumps(final))
    finally:
        nemesis.close()
        people.close()
    return len(nemesis.done), people.deaths, people.broken


def _until_calm(people: Clients, progress: Progress) -> None:
    deadline = time.monotonic() + _CALM
    while time.monotonic() < deadline:
        people.tend()
        Event().wait(0.05)
    before = progress.look()
    _until(
        lambda: progress.look() > before, "calls are answered after everything was healed", tend=people.tend
    )


def _until(
    condition: Callable[[], bool], what: str, *, tend: Callable[[], None], within: float = 60.0
) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:g} s")
        tend()
        Event().wait(0.05)


def prepare(cluster: Cluster, plan: Plan, folder: Path) -> dict[str, Any]:
    """The tables, the world, and the settings that clients and the checker go by."""
    with Delimiter(cluster.url, timeout=30) as quota:
        world.set_up(quota, counting=cluster.transactions)
    if cluster.transactions:
        engine = sa.create_engine(cluster.service_url, **cluster.engine)
        METADATA.create_all(engine)
        engine.dispose()
    names = [f"c{number}" for number in range(plan.processes)]
    urls = cluster.urls(plan.processes + 1)
    people: dict[str, Any] = {
        name: {"role": "racer" if plan.race else "caller", "callers": plan.callers, "url": url, "service_url": service,
               "skewed": number % 2 == 1, "sweeper": number < 2 and not plan.race}
        for number, (name, (url, service)) in enumerate(zip(names, urls, strict=False))
    }  # fmt: skip
    url, service = urls[-1]
    if not plan.race:
        people["op"] = {"role": "operator", "callers": 1, "url": url, "service_url": service}
    settings = {
        "store": cluster.store,
        "seed": plan.seed,
        "timeout": TIMEOUT,
        "transactions": cluster.transactions,
        "engine": cluster.engine,
        "tolerance_us": cluster.tolerance_us,
        "real_minus_monotonic_us": (time.time_ns() - time.monotonic_ns()) / 1000,
        "clients": people,
        "filled": world.RACED if plan.race else None,
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1))
    return settings


def _store_time() -> float:
    return time.time_ns() / 1000


def collect(cluster: Cluster, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Everything there is at the end, when nobody works any more."""
    with Delimiter(cluster.url, timeout=30) as quota:
        engine = None
        if cluster.transactions:
            engine = sa.create_engine(cluster.service_url, **cluster.engine)
            journal = Journal(folder / "final-calls.jsonl", "final")
            Calls(quota, journal, engine)
            journal.close()
        _until(lambda: not _about_to_expire(quota), "short reservations run out", tend=lambda: None)
        began = _store_time()
        claims = [told(one) for state in get_args(ClaimState) for one in quota.claims(state=state)]
        final = {
            "claims": claims,
            "at": [int(began), int(_store_time())],
            "projects": dict(quota.projects()),
            "own_limits": [[one.resource, str(one.scope), one.max] for one in quota.own_limits()],
            "usage": _usage(quota),
            "drift": [str(drift) for drift in quota.reconcile()],
        }
        if engine is not None:
            final |= _service_tables(engine)
            engine.dispose()
    final["locks"] = _left(cluster)
    return final


def _about_to_expire(quota: Delimiter) -> bool:
    ends = [one["expires_at"] for one in map(told, quota.claims(state="reserved"))]
    return any(end is not None and end < _store_time() + 60_000_000 for end in ends)


def _usage(quota: Delimiter) -> dict[str, Any]:
    scopes = ["total", *(f"project:{one}" for one in world.PROJECTS), *(f"user:{one}" for one in world.USERS)]
    found = {}
    for scope in scopes:
        usage = quota.usage(**world.named(scope))  # type: ignore[arg-type]
        found[scope] = {name: [one.limit, one.used, one.reserved] for name, one in usage.items()}
    return found


def _service_tables(engine: sa.Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        rows = connection.execute(sa.select(INSTANCES)).all()
        return {
            "rows": [{"id": row.id, "project": row.project_id, "user": row.user_id} for row in rows],
            "service_rows": list(connection.scalars(sa.select(SERVICE_ROWS.c.id))),
        }


def _left(cluster: Cluster) -> list[str]:
    """A server notices later that a client has gone; of one that was cut off, when its transaction has stood still."""
    deadline = time.monotonic() + 2 * TIMEOUT
    while (left := cluster.left()) and time.monotonic() < deadline:
        Event().wait(0.1)
    return left


def fresh_seed() -> int:
    with contextlib.suppress(NotImplementedError):
        return random.SystemRandom().randrange(1_000_000)
    return time.time_ns() % 1_000_000
