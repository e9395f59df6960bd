"""The command line on a ZooKeeper store."""

from __future__ import annotations

import pytest

from cli.conftest import Command
from delimiter import Delimiter

pytestmark = pytest.mark.stores("zookeeper")


def test_the_verbs(command: Command, store_url: str) -> None:
    def run(*arguments: str) -> int:
        return command("--store", store_url, *arguments).status

    assert run("resource", "define", "cores", "--max", "10") == 0
    assert run("claim", "cores=8", "--user", "john", "--id", "c1") == 0
    assert run("claim", "cores=8", "--user", "john") == 1
    assert run("limit", "set", "cores", "--user", "john", "--max", "20") == 0
    assert run("project", "add", "acme") == 0
    assert run("transfer", "c1", "--project", "acme") == 0
    with Delimiter(store_url) as quota:
        assert quota.usage(project="acme")["cores"].used == 8
    assert run("release", "c1") == 0
    assert run("reconcile") == 0
    with Delimiter(store_url) as quota:
        assert [claim.id for claim in quota.claims(state="released")] == ["c1"]


def test_a_misspelt_path_makes_no_store(command: Command, store_url: str) -> None:
    run = command("--store", store_url, "usage")
    assert (run.status, run.out) == (3, "")
    assert "There is no store of Delimiter" in run.err


def test_doctor_tells_of_a_server_that_stands_alone(command: Command, store_url: str) -> None:
    with Delimiter(store_url) as quota:
        quota.define_resource("cores")
    found = command("--store", store_url, "doctor", "--json").json
    assert (found["healthy"], found["writable"], found["schema_version"]) == (True, True, "1")
    assert found["engine"].startswith("ZooKeeper 3")
    assert any("stands alone" in one for one in found["advice"])
    assert any("open to everybody" in one for one in found["advice"])


def test_a_password_is_not_shown(command: Command, store_url: str) -> None:
    named = store_url.replace("://", "://me:s%2Fecret@")
    with Delimiter(named) as quota:
        quota.define_resource("cores")
    run = command("--store", named, "doctor")
    assert run.status == 0
    assert "ecret" not in run.out + run.err
    assert "me:***@" in run.out
    run = command(
        "--store", named.replace("127.0.0.1", "127.0.0.2").replace("s%2Fecret", "s%2Fecret2"), "usage"
    )
    assert run.status == 3
    assert "ecret" not in run.out + run.err
