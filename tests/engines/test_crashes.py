"""Processes and servers die at the worst moment: what was acknowledged is there, and an id settles what is in doubt."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from delimiter import ClaimExpired, Delimiter, DelimiterError, OverLimit, Request, StoreUnavailable
from engines.service import assert_sound, eventually
from proxy import CuttingProxy
from servers import Server

_OWNERS = [("acme", "john"), ("acme", "mary"), ("zeta", "john")]
_LIMIT = 100_000


def _request(id: str) -> dict[str, Any]:
    """The same request for the same id, whoever makes it again."""
    dice = random.Random(id)
    project, user = dice.choice(_OWNERS)
    return {"resources": {"cores": dice.randint(1, 3), "ram": 1}, "project": project, "user": user, "id": id}


def _ask(quota: Delimiter, id: str) -> None:
    request = _request(id)
    if id.endswith("r"):
        quota.reserve(request.pop("resources"), expires_in=60, **request)
    elif id.endswith("l"):
        requests = [Request(**request), Request({"ram": 1}, project="acme", id=f"{id}-child", parent=id)]
        quota.claim_all(requests)
    else:
        quota.claim(request.pop("resources"), **request)


def _child(url: str, journal: str, number: int) -> None:
    """Claims until it is killed; writes down what it asks before, and what it got after, so that both survive."""
    with Path(journal).open("a") as lines, Delimiter(url, timeout=30) as quota:

        def note(what: str) -> None:
            lines.write(what + "\n")
            lines.flush()
            os.fsync(lines.fileno())

        for step in range(1_000_000):
            id = f"{number}-{step}{'rlc'[step % 3]}"
            note(f"asked {id}")
            with contextlib.suppress(StoreUnavailable):
                _ask(quota, id)
                note(f"got {id}")


def _noted(journals: list[Path], what: str) -> set[str]:
    """Whole lines only: the last one may be half written."""
    lines = [line for one in journals if one.exists() for line in one.read_text().splitlines(keepends=True)]
    return {line.split()[1] for line in lines if line.startswith(f"{what} ") and line.endswith("\n")}


def _has_got(journals: list[Path], count: int) -> bool:
    return len(_noted(journals, "got")) >= count


def _define(quota: Delimiter) -> None:
    for name in ("cores", "ram"):
        quota.define_resource(name, max=_LIMIT, project_max=_LIMIT, user_max=_LIMIT)


def _settle(quota: Delimiter, journals: list[Path]) -> None:
    """What must hold after any crash: nothing acknowledged is lost, every replay gives exactly one claim."""
    asked, got = _noted(journals, "asked"), _noted(journals, "got")
    assert got
    assert got <= asked
    live = [one.id for one in quota.claims()]
    assert got <= set(live)
    assert {id.removesuffix("-child") for id in live} <= asked
    assert sum(id.endswith("l-child") for id in live) == sum(id.endswith("l") for id in live)
    assert_sound(quota)
    for id in sorted(asked):
        _ask(quota, id)
    live = [one.id for one in quota.claims()]
    assert len(live) == len(set(live))
    assert set(live) == asked | {f"{id}-child" for id in asked if id.endswith("l")}
    assert_sound(quota)
    quota._engine.clock_offset += 61_000_000
    waiting = {id for id in asked if id.endswith("r")}
    assert {one.id for one in quota.claims()} == set(live) - waiting
    assert quota.expire_reservations() == len(waiting)
    with pytest.raises(ClaimExpired):
        _ask(quota, min(waiting))
    assert_sound(quota)
    room = quota.check({"cores": 1}, project="acme", user="john").available["cores"]
    assert room is not None
    with pytest.raises(OverLimit):
        quota.claim({"cores": room + 1}, project="acme", user="john")
    quota.claim({"cores": room}, project="acme", user="john")


@pytest.mark.slow
@pytest.mark.leaves_connections
def test_claiming_processes_are_killed(store_url: str, tmp_path: Path) -> None:
    """kill -9 at random moments, again and again.

    Guards: counters, claims and allocations are one transaction; a repeated id is found at its unique key.
    """
    context = multiprocessing.get_context("spawn")
    dice = random.Random(7)
    with Delimiter(store_url, timeout=30) as quota:
        _define(quota)
        journals: list[Path] = []
        for wave in range(2):
            children = []
            for number in range(3):
                journals.append(tmp_path / f"journal{wave}-{number}")
                child = context.Process(
                    target=_child, args=(store_url, str(journals[-1]), wave * 10 + number), daemon=True
                )
                child.start()
                children.append(child)
            for child, journal in zip(children, journals[-3:], strict=True):
                eventually(partial(_has_got, [journal], 5), what="a child claims", within=30)
                threading.Event().wait(dice.uniform(0, 0.05))
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
            for child in children:
                child.join(10)
                child.close()
        _settle(quota, journals)


@pytest.mark.slow
@pytest.mark.leaves_connections
@pytest.mark.stores("postgresql", "mariadb")
def test_the_server_is_killed(
    store_url: str, store_name: str, server: Callable[[str], Server], tmp_path: Path
) -> None:
    """kill -9 of the server under load, and a start: every call in its own transaction is settled by itself.

    Guard: `Desk._run` repeats what is in doubt with the same id, in a new transaction on a new connection.
    """
    running = server(store_name)
    if not running.throw_away:
        pytest.skip("a server of your own is not killed by tests")
    journals = [tmp_path / f"journal{number}" for number in range(8)]
    done = threading.Event()
    failures: list[BaseException] = []
    with Delimiter(store_url, timeout=60) as quota:
        _define(quota)

        def work(number: int) -> None:
            with journals[number].open("a") as lines:
                for step in range(100_000):
                    if done.is_set():
                        return
                    id = f"{number}-{step}{'rlc'[step % 3]}"
                    lines.write(f"asked {id}\n")
                    try:
                        _ask(quota, id)
                    except DelimiterError as error:
                        failures.append(error)
                    else:
                        lines.write(f"got {id}\n")
                    lines.flush()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        try:
            for target in (20, 60):
                eventually(partial(_has_got, journals, target), what="claims go on", within=60)
                running.kill()
                running.start()
            before = len(_noted(journals, "got"))
            eventually(lambda: len(_noted(journals, "got")) > before + 20, what="claims go on", within=60)
        finally:
            done.set()
            for thread in threads:
                thread.join(60)
        assert failures == []
        _settle(quota, journals)


@pytest.mark.leaves_connections
@pytest.mark.stores("postgresql", "mariadb")
def test_the_answer_to_commit_is_lost(store_url: str) -> None:
    """The wire is cut when COMMIT's answer comes back: the desk repeats with the id, and there is one claim.

    Guard: `Transactions.own` says `in_doubt`, and the unique key of the id answers the repetition as a replay.
    """
    url = sa.make_url(store_url)
    assert url.host is not None
    assert url.port is not None
    proxy = CuttingProxy(url.host, url.port)
    through = url.set(port=proxy.port).render_as_string(hide_password=False)
    with Delimiter(store_url) as quota, Delimiter(through, timeout=20) as cut:
        _define(quota)
        cut.usage()
        calls: dict[str, Callable[[], object]] = {
            "claim": lambda: cut.claim({"cores": 2}, project="acme", id="a", external_id="vm"),
            "generated": lambda: cut.claim({"cores": 1}, project="acme"),
            "list": lambda: cut.claim_all(
                [Request({"ram": 1}, project="acme", id=f"l{n}") for n in range(3)]
            ),
            "reserve": lambda: cut.reserve({"ram": 1}, project="acme", id="r", expires_in=600),
            "provision": lambda: cut.provision("r", external_id="volume"),
            "resize": lambda: cut.resize("a", {"cores": 5}),
            "transfer": lambda: cut.transfer("a", project="zeta"),
            "release": lambda: cut.release("l0"),
            "define": lambda: cut.define_resource("new", max=3),
            "limit": lambda: cut.update_limits("new", project="acme", max=1),
        }
        for number, (name, call) in enumerate(calls.items(), start=1):
            proxy.arm()
            call()
            assert proxy.cut == number, name
        assert len(list(quota.claims())) == 5
        assert (quota.usage(project="zeta")["cores"].used, quota.usage()["cores"].used) == (5, 6)
        assert quota.usage()["ram"].used == 3
        assert_sound(quota)
        with Delimiter(through, timeout=1) as hasty:
            hasty.usage()
            proxy.arm(last=True)
            with pytest.raises(StoreUnavailable) as doubt:
                hasty.claim({"cores": 1}, project="acme", id="hasty")
        assert (doubt.value.claim_id, doubt.value.in_doubt) == ("hasty", True)
        quota.claim({"cores": 1}, project="acme", id="hasty")
        assert quota.usage()["cores"].used == 7
        assert_sound(quota)
    proxy.close()
