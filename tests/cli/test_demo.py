"""The demo plays the thread's worked example (T20), and every number of it is so."""

from __future__ import annotations

import pytest

from delimiter import Delimiter
from delimiter.demo import race


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One demo, played by the installed command in a folder of its own."""
    import subprocess

    from .conftest import COMMAND

    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [COMMAND, "demo", "--fast"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return folder, done


def test_it_tells_the_story(played):
    _, done = played
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    story = " ".join(done.stdout.split())
    for sentence in (
        "2,000 instances and 300 clusters",
        "13 reservations were made at once",
        "exactly 20 of 48 won",
        "the other 28 were refused",
        "21 instances, 16 TB and 6 GB would fit",
        "amrith is stopped by his own limit, of 2",
        "all 13 are provisioned",
        "volume-3 holds 2 TB now",
        "volume-4 is released",
        "beth has 12 live claims",
        "one release later she has none",
        "the whole deployment uses nothing",
        "every counter agrees with its claims",
    ):
        assert sentence in story
    assert "storage.gb ▒▒" in story.replace("  ", " ")
    assert "\x1b" not in done.stdout


def test_its_store_is_what_the_story_says(played):
    folder, _ = played
    with Delimiter(f"sqlite:///{folder / 'delimiter-demo.db'}", create=False) as quota:
        assert {r.name: (r.max, r.user_max) for r in quota.resources()} == {
            "database.clusters": (300, 4),
            "database.instances": (2000, 25),
            "memory.gb": (-1, 10),
            "storage.gb": (-1, 20_000),
        }
        assert quota.limits(user="amrith")["database.instances"] == 2
        assert quota.limits(user="amrith")["database.clusters"] == 1
        ended = {claim.id: claim for claim in quota.claims(state="released")}
        assert not list(quota.claims())
        assert len([claim for claim in ended.values() if claim.user == "beth"]) == 13
        assert dict(ended["volume-3"].resources) == {"storage.gb": 2000}
        assert ended["volume-3"].parent == "node-3"
        assert ended["node-3"].parent == "cluster-1"
        assert sum(id.startswith("runner-") for id in ended) == 20
        assert not list(quota.reconcile())


def test_the_commands_it_ends_with_work(played, installed):
    folder, done = played
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    commands = [line.split() for line in lines if line.partition(" ")[0].endswith("delimiter")]
    assert len(commands) == 3
    assert f"export DELIMITER_STORE=sqlite:///{'delimiter-demo.db'}" in lines
    for _, *arguments in commands:
        run = installed(*arguments, "--store", "sqlite:///delimiter-demo.db", cwd=folder)
        assert run.status == 0, run.err


def test_it_begins_anew_on_its_own_store(played, installed):
    """Also on one that was left in the middle: claims live, limits changed."""
    folder, _ = played
    with Delimiter(f"sqlite:///{folder / 'delimiter-demo.db'}") as quota:
        quota.claim({"database.instances": 1}, user="beth", id="cluster-1-of-mine")
        quota.reserve({"storage.gb": 1}, user="beth", expires_in=0.001)
        quota.update_limits("storage.gb", user="beth", max=1, min=1)
    run = installed("demo", "--json", cwd=folder)
    assert run.status == 0, run.err
    assert run.json["store"] == "sqlite:///delimiter-demo.db"
    assert len(run.json["facts"]) > 20
    assert all(fact["expected"] == fact["actual"] for fact in run.json["facts"])


def test_it_leaves_other_stores_alone(command, url):
    with Delimiter(url) as quota:
        quota.claim({"storage.gb": 5}, user="john")
        before = (quota.resources(), quota.usage())
    run = command("demo", "--store", url)
    assert run.status == 2
    assert "left alone" in " ".join(run.err.split())
    with Delimiter(url) as quota:
        assert (quota.resources(), quota.usage()) == before


def test_it_does_not_play_in_the_store_of_the_environment(command, monkeypatch, url):
    monkeypatch.setattr("delimiter.demo.story._race", lambda *_: None)  # one race is enough for these tests
    run = command("demo", "--json", DELIMITER_STORE=url)
    assert run.json["store"] == "sqlite:///delimiter-demo.db"


def test_what_is_not_so_ends_it(command, monkeypatch):
    """The guard: without `Stage.expect`, a library that admits too much would be applauded."""
    monkeypatch.setattr(race, "run", lambda course, *, each: [each(0, True) for _ in range(48)])
    run = command("demo", "--fast")
    assert run.status == 1
    assert "exactly 20 of 48 won. It is not so: 48" in " ".join(run.err.split())


def test_a_race_that_fails_ends_it(command, monkeypatch):
    def failed(*_: object, **__: object) -> None:
        raise race.RunnerFailed("a process of the race failed")

    monkeypatch.setattr(race, "run", failed)
    run = command("demo", "--fast", "--json")
    assert run.status == 1
    assert run.error["kind"] == "CheckFailed"


def test_a_runner_without_a_store_is_reported(tmp_path):
    course = race.Course(
        f"sqlite:///{tmp_path}/no/store.db", None, "delimiter_", "x", "john", runners=2, attempts=1
    )
    with pytest.raises(race.RunnerFailed, match="StoreUnavailable"):
        race.run(course, each=lambda runner, won: None)


@pytest.mark.stores("postgresql", "mariadb")
def test_on_servers(command, store_name, store_url):
    for _ in ("afresh", "on what it left"):
        run = command("demo", "--store", store_url, "--fast", "--json")
        assert run.status == 0, run.err
        assert all(fact["expected"] == fact["actual"] for fact in run.json["facts"])
