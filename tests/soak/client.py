"""A client process: some callers (or the operator, or a sweeper) that work until they are told to stop, or are killed.

``python -m soak.client FOLDER NAME INCARNATION``: the folder holds ``settings.json`` and receives the journal. The
second and later incarnations go on for one that was killed, and first ask again what it left in doubt.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soak.calls import Calls
    from soak.workload import Asking


def main(folder: Path, name: str, incarnation: int) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    seed = f"{settings['seed']}-{name}-{incarnation}"
    if settings["clients"][name].get("skewed"):
        from soak.skew import skew

        skew(seed)
    # Only now: the library must find the clock that is wrong.
    import sqlalchemy as sa

    from delimiter import Delimiter
    from soak.calls import Calls
    from soak.history import Journal

    mine = settings["clients"][name]
    watch(folder / f"arm-{name}", settings)
    quota = Delimiter(mine["url"], timeout=settings["timeout"])
    engine = None
    if settings["transactions"]:
        engine = sa.create_engine(mine["service_url"], pool_size=16, pool_timeout=5.0, **settings["engine"])
    journal = Journal(folder / f"client-{name}-{incarnation}.jsonl", f"{name}-{incarnation}")
    calls = until_it_answers(lambda: Calls(quota, journal, engine))
    _work(folder, name, incarnation, settings, calls)
    quota.close()
    journal.close()


def watch(armed: Path, settings: dict[str, Any]) -> None:
    """Faults at the moment of COMMIT."""
    if settings["store"] == "zookeeper":
        from soak.clusters.zookeeper import watch_commits

        watch_commits(armed)
    else:
        from soak.moments import Moments

        Moments(armed)


def until_it_answers(make: Any) -> Any:
    """A client that starts while the store is down waits for it, as a service would."""
    from delimiter import DelimiterError

    while True:
        try:
            return make()
        except DelimiterError:
            threading.Event().wait(0.1)


def _work(folder: Path, name: str, incarnation: int, settings: dict[str, Any], calls: Calls) -> None:
    threads = [
        threading.Thread(target=_ask, args=(folder, asking, calls))
        for asking in _askers(folder, name, incarnation, settings)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _askers(folder: Path, name: str, incarnation: int, settings: dict[str, Any]) -> list[Asking]:
    from soak.workload import Caller, Operator, Racer, Sweeper

    mine = settings["clients"][name]
    seed = f"{settings['seed']}-{name}-{incarnation}"
    askers: list[Asking] = []
    for number in range(mine["callers"]):
        own = f"{name}-{incarnation}-{number}"
        if mine["role"] == "racer":
            askers.append(Racer(own))
            continue
        if mine["role"] == "operator":
            askers.append(Operator(f"{seed}-{number}", counting=settings["transactions"]))
            continue
        others = [f"{other}-{incarnation}-{number}" for other in settings["clients"] if other != name]
        others += [f"{name}-{incarnation}-{other}" for other in range(mine["callers"]) if other != number]
        askers.append(Caller(own, f"{seed}-{number}", transactions=settings["transactions"], others=others))
    for number, asked in enumerate(left_in_doubt(folder, name, incarnation)):
        askers[number % len(askers)].repeat(asked)
    for number, claim in enumerate(left_behind(folder, name, incarnation)):
        askers[number % len(askers)].inherit(claim)
    if mine.get("sweeper"):
        askers.append(Sweeper(seed))
    return askers


def left_behind(folder: Path, name: str, incarnation: int) -> list[dict[str, Any]]:
    """The claims that those before made or changed, as they last saw them: somebody has to give them back."""
    from soak.history import whole_lines

    seen: dict[str, dict[str, Any]] = {}
    for before in range(incarnation):
        file = folder / f"client-{name}-{before}.jsonl"
        for line in whole_lines(file) if file.exists() else ():
            answer = line.get("a") or line.get("step") or {}
            found = answer.get("ok")
            for claim in found if isinstance(found, list) else ():
                if isinstance(claim, dict):
                    seen[claim["id"]] = claim
    return list(seen.values())


def left_in_doubt(folder: Path, name: str, incarnation: int) -> list[Any]:
    """What the killed one had asked and not been told, or was about to ask again."""
    from soak.history import whole_lines
    from soak.workload import is_repeated

    file = folder / f"client-{name}-{incarnation - 1}.jsonl"
    if not file.exists():
        return []
    begun: dict[str, Any] = {}
    open_: dict[str, Any] = {}
    for line in whole_lines(file):
        if "call" in line:
            begun[line["o"]] = open_[line["o"]] = line
            open_.pop(line.get("repeats", ""), None)
        elif "a" in line:
            answer = line["a"]
            if not answer.get("in_doubt"):
                open_.pop(line["o"], None)
            repeated = begun[line["o"]].get("repeats")
            if answer.get("error") in ("Conflict", "StoreUnavailable") and repeated in begun:
                open_[line["o"]] = begun[line["o"]]
    return [
        (one["call"], one["args"], one["o"])
        for one in open_.values()
        if is_repeated(one["call"], one["args"])
    ]


def _ask(folder: Path, asking: Asking, calls: Calls) -> None:
    stop = folder / "stop"
    while not (asking.stopping and asking.is_done):
        asked = asking.next()
        key, answer = calls.make(*asked)
        settled = asking.learn(asked, key, answer)
        asking.stopping = stop.exists()
        if not settled or asking.pause:
            threading.Event().wait(asking.pause or 0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
