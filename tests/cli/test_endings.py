"""How a run ends. What must never happen: a traceback, a password on the screen, a refusal taken for a broken store."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time

import pytest

from delimiter import Delimiter, StoreUnavailable
from delimiter.cli import failures

from .conftest import COMMAND

SECRET = "sEcr3t-of-bob"  # noqa: S105 - it is looked for in what is printed
DEAD = f"postgresql+psycopg://bob:{SECRET}@127.0.0.1:1/quota"


@pytest.mark.parametrize(
    "arguments, kind",
    [
        (("claim", "database.instances=3", "--user", "amrith"), "OverLimit"),
        (("reserve", "database.instances=3", "--user", "amrith", "--expires-in", "1h"), "OverLimit"),
        (("resize", "live", "database.instances=26"), "OverLimit"),
        (("transfer", "live", "--user", "amrith"), "OverLimit"),
        (("claim", "database.instances=1", "--user", "john", "--id", "live"), "ClaimConflict"),
        (("claim", "database.instances=1", "--user", "john", "--external-id", "i-1"), "ClaimConflict"),
        (("provision", "expired"), "ClaimExpired"),
        (("renew", "expired", "--expires-in", "1h"), "ClaimExpired"),
        (("provision", "gone"), "ClaimReleased"),
        (("claim", "storage.gb=1", "--user", "john", "--parent", "gone"), "ClaimReleased"),
        (("release", "floor"), "BelowMinimum"),
        (("resize", "floor", "storage.gb=1"), "BelowMinimum"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_refusals_are_status_1(quota, url, arguments, kind):
    with Delimiter(url) as library:
        library.claim({"database.instances": 3}, user="john", id="live", external_id="i-1")
        library.release(library.claim({"storage.gb": 1}, user="john", id="gone").id)
        library.reserve({"storage.gb": 1}, user="john", id="expired", expires_in=0.001)
        library.expire_reservations()
        library.update_limits("storage.gb", user="ann", min=5)
        library.claim({"storage.gb": 5}, user="ann", id="floor")
        before = library.usage()
    run = quota(*arguments, "--json")
    assert run.status == 1
    assert run.error["kind"] == kind
    assert run.error["message"]
    with Delimiter(url) as library:
        assert library.usage() == before, "nothing changed"
    spoken = quota(*arguments)
    assert spoken.status == 1
    assert not spoken.out
    assert "Traceback" not in spoken.err


def test_a_refusal_names_every_limit_in_the_way_and_what_to_do(quota):
    arguments = ("claim", "database.instances=30", "storage.gb=21TB", "--user", "john")
    error = quota(*arguments, "--json").error
    assert [(v["resource"], v["scope"], v["available"]) for v in error["violations"]] == [
        ("database.instances", "user:john", 25),
        ("storage.gb", "user:john", 20_000),
    ]
    text = quota(*arguments).err
    assert "would fit" in text
    assert "delimiter claims --user john" in text
    assert "delimiter limit set database.instances --user john --max N" in text


@pytest.mark.parametrize(
    "arguments, kind, says",
    [
        ((), "UsageError", ""),
        (("frobnicate",), "UsageError", "frobnicate"),
        (("usage", "--frobnicate"), "UsageError", "frobnicate"),
        (("usage", "--project", "a", "--user", "b"), "InvalidRequest", "not both"),
        (("limit", "show", "--project", "a", "--user", "b"), "InvalidRequest", "not both"),
        (("limit", "set", "storage.gb"), "UsageError", "--max"),
        (("limit", "set", "storage.gb", "--max", "1", "--if-version", "x"), "UsageError", "x"),
        (("limit", "unset", "storage.gb", "--if-version", "-1"), "UsageError", "-1"),
        (("limit", "set", "storage.gb", "--max", "lots"), "InvalidRequest", "lots"),
        (("limit", "set", "storage.gb", "--max", "-2"), "InvalidRequest", "unlimited"),
        (("limit", "set", "storage.gb", "--max", "1", "--min", "2"), "InvalidRequest", "above the maximum"),
        (("limit", "set", "storage.gb", "--min", "-1"), "InvalidRequest", "-1"),
        (("limit", "set", "nothing", "--max", "1"), "UnknownResource", "nothing"),
        (("limit", "set", "nothing", "--max", "1GB"), "UnknownResource", "nothing"),
        (("resource", "define", ""), "InvalidRequest", "empty"),
        (("resource", "define", "x", "--max", "1", "--min", "2"), "InvalidRequest", "above the maximum"),
        (("resource", "define", "x", "--max", "5TB"), "InvalidRequest", "no unit"),
        (("resource", "undefine", "nothing"), "UnknownResource", "nothing"),
        (("resource", "undefine", "storage.gb"), "InvalidRequest", "claimed"),
        (("claim",), "UsageError", "NAME=AMOUNT"),
        (("claim", "--user", "john"), "UsageError", "NAME=AMOUNT"),
        (("claim", "storage.gb", "--user", "john"), "InvalidRequest", "NAME=AMOUNT"),
        (("claim", "=5", "--user", "john"), "InvalidRequest", "NAME=AMOUNT"),
        (("claim", "storage.gb=", "--user", "john"), "InvalidRequest", "no amount"),
        (("claim", "storage.gb=0", "--user", "john"), "InvalidRequest", "from 1"),
        (("claim", "storage.gb=-5", "--user", "john"), "InvalidRequest", "-5"),
        (("claim", "storage.gb=1.5", "--user", "john"), "InvalidRequest", "1 and 2"),
        (("claim", "storage.gb=512MiB", "--user", "john"), "InvalidRequest", "not a whole number of GB"),
        (("claim", "database.instances=1GB", "--user", "john"), "InvalidRequest", "instances"),
        (
            ("claim", "storage.gb=9223372036854775808", "--user", "john"),
            "InvalidRequest",
            "9223372036854775807",
        ),
        (("claim", "storage.gb=1", "storage.gb=2", "--user", "john"), "InvalidRequest", "twice"),
        (("claim", "nothing=1", "--user", "john"), "UnknownResource", "nothing"),
        (("claim", "nothing=1GB", "--user", "john"), "UnknownResource", "nothing"),
        (("claim", "storage.gb=1"), "InvalidRequest", "project"),
        (("claim", "storage.gb=1", "--user", ""), "InvalidRequest", "empty"),
        (("claim", "storage.gb=1", "--user", "x" * 256), "InvalidRequest", "255"),
        (("claim", "storage.gb=1", "--user", "a\tb"), "InvalidRequest", "control character"),
        (("claim", "storage.gb=1", "--user", "john", "--parent", "nobody"), "UnknownClaim", "nobody"),
        (("reserve", "storage.gb=1", "--user", "john"), "UsageError", "--expires-in"),
        (("reserve", "storage.gb=1", "--user", "john", "--expires-in", "soon"), "InvalidRequest", "soon"),
        (("reserve", "storage.gb=1", "--user", "john", "--expires-in", "0"), "InvalidRequest", "above 0"),
        (("provision", "nobody"), "UnknownClaim", "nobody"),
        (("release", "nobody"), "UnknownClaim", "nobody"),
        (("renew", "live", "--expires-in", "1h"), "InvalidRequest", "provisioned"),
        (("resize", "live"), "UsageError", "NAME=AMOUNT"),
        (("transfer", "live"), "InvalidRequest", "project"),
        (("claims", "--state", "dreaming"), "UsageError", "dreaming"),
        (("prune",), "UsageError", "--older-than"),
        (("prune", "--older-than", "-1d"), "InvalidRequest", "-1d"),
        (("usage", "--timeout", "0"), "UsageError", "above 0"),
        (("usage", "--timeout", "nan"), "UsageError", "above 0"),
        (("usage", "--timeout", "soon"), "UsageError", "soon"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_wrong_usage_and_bad_input_are_status_2(quota, url, arguments, kind, says):
    with Delimiter(url) as library:
        library.claim({"storage.gb": 3}, user="john", id="live")
        before = (library.usage(), library.resources())
    run = quota(*arguments, "--json")
    assert run.status == 2
    assert run.error["kind"] == kind
    assert says in run.error["message"]
    spoken = quota(*arguments)
    assert spoken.status == 2
    assert not spoken.out
    assert spoken.err
    assert "Traceback" not in spoken.err
    with Delimiter(url) as library:
        assert (library.usage(), library.resources()) == before, "nothing changed"


# --- stores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("usage",), ("claim", "x=1", "--user", "john"), ("doctor",)])
def test_without_a_store_it_says_how_to_name_one(command, arguments):
    run = command(*arguments)
    assert run.status == 2
    assert "--store" in run.err
    assert "DELIMITER_STORE" in run.err
    assert command(*arguments, "--json").error["kind"] == "UsageError"


def test_the_store_from_the_environment_or_either_option(command, url):
    assert command("usage", DELIMITER_STORE=url).status == 0
    assert command("usage", "--store", url).status == 0
    assert command("--store", "sqlite:///elsewhere.db", "usage", "--store", url).status == 0
    assert command("--store", url, "usage", DELIMITER_STORE="sqlite:///elsewhere.db").status == 0


@pytest.mark.parametrize(
    "store, status, says",
    [
        ("quota.db", 2, "sqlite:///quota.db"),
        ("nonsense://host/x", 2, "nonsense"),
        ("sqlite://", 2, "file"),
        ("postgresql+psycopg://bob@127.0.0.1:port/x", 2, "store URL"),
        ("sqlite+nodriver:///x.db", 2, ""),
        ("sqlite+aiosqlite:///x.db", 2, "asynchronous"),
        ("sqlite:///missing.db", 3, "missing.db"),
        ("sqlite:////no/such/folder/quota.db", 3, "/no/such/folder"),
        ("sqlite:///empty.db", 3, "delimiter resource define"),
        ("sqlite:///nonsense.db", 3, "not a database"),
        (DEAD, 3, "127.0.0.1"),
        ("mysql+pymysql://bob:x@127.0.0.1:1/quota", 3, "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("arguments", [("usage",), ("doctor",), ("release", "c")])
def test_stores_that_are_not_there(command, tmp_path, store, status, says, arguments):
    (tmp_path / "empty.db").touch()
    (tmp_path / "nonsense.db").write_text("this is a letter to my grandmother, and no database" * 100)
    run = command(*arguments, "--store", store)
    assert run.status == status
    assert says in " ".join((run.err + run.out).split())
    assert "Traceback" not in run.err
    assert command(*arguments, "--store", store, "--json").error["kind"] in {
        "StoreUnavailable",
        "InvalidRequest",
        "Unsupported",
    }


def test_a_misspelt_store_is_not_made(command, tmp_path):
    assert command("usage", "--store", "sqlite:///mispelt.db").status == 3
    assert list(tmp_path.iterdir()) == []


def test_a_definition_needs_a_folder(command):
    run = command("resource", "define", "x", "--store", "sqlite:////no/such/folder/quota.db")
    assert run.status == 3
    assert "/no/such/folder" in run.err


def test_a_dead_server_is_told_at_once(installed):
    began = time.monotonic()
    run = installed("usage", "--store", DEAD, "--timeout", "30")
    assert time.monotonic() - began < 20
    assert run.status == 3
    assert "cannot be reached" in " ".join(run.err.split())


@pytest.mark.parametrize(
    "store",
    [
        DEAD,
        f"postgresql+psycopg://bob:{SECRET}@127.0.0.1:port/x",
        f"nonsense://bob:{SECRET}@host/x",
        f"mysql+pymysql://bob:{SECRET}@127.0.0.1:1/quota",
        f"postgresql+psycopg://bob@127.0.0.1:1/x?password={SECRET}",
        f"postgresql+psycopg://bob:{SECRET}%40more@127.0.0.1:1/x",
        f"sqlite+aiosqlite://bob:{SECRET}@host/x",
        f"//bob:{SECRET}@host",
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("arguments", [("usage",), ("doctor",), ("resource", "define", "x"), ("demo",)])
def test_no_password_is_shown(command, store, flags, arguments):
    run = command(*arguments, "--store", store, *flags)
    assert run.status in {2, 3}
    assert run.err
    assert SECRET not in run.out + run.err


@pytest.mark.parametrize(
    "text, expected",
    [
        ("postgresql://bob:pw@host/x", "postgresql://bob:***@host/x"),
        ("postgresql+psycopg://bob:p@w@host/x is bad", "postgresql+psycopg://bob:***@host/x is bad"),
        ("mysql://:pw@host", "mysql://:***@host"),
        (
            "postgresql://bob@host/x?sslmode=require&password=pw&x=1",
            "postgresql://bob@host/x?sslmode=require&password=***&x=1",
        ),
        ("postgresql://bob@host:5432/x", "postgresql://bob@host:5432/x"),
        ("no answer from host", "no answer from host"),
    ],
)
def test_masking(text, expected):
    assert failures.masked(text) == expected


def test_known_secrets_are_masked_wherever_they_stand():
    assert failures.masked("login with pw failed, the power is off", secrets=["pw"]) == (
        "login with *** failed, the power is off"
    )


def test_in_doubt_it_says_how_to_settle_it():
    failure = failures.failure_of(StoreUnavailable("no answer", claim_id="c-1", in_doubt=True))
    assert failure.status == 3
    assert "--id c-1" in failure.advice


@pytest.mark.parametrize(
    "store, says",
    [
        ("sqlite:///folder", "Name a file in it"),
        ("sqlite:////no/such/folder/quota.db", "make the folder first"),
        ("sqlite:///nonsense.db", "something else"),
        ("sqlite:///file:quota.db?mode=ro&uri=true", "allowed to write"),
        ("sqlite:///file:missing.db?mode=ro&uri=true", "Look at the path"),
    ],
)
def test_what_to_do_about_a_file(command, url, tmp_path, store, says):
    (tmp_path / "folder").mkdir()
    (tmp_path / "nonsense.db").write_text("this is a letter to my grandmother, and no database" * 100)
    run = command("claim", "storage.gb=1", "--user", "john", "--store", store, "--json")
    assert run.status == 3
    assert says in run.error["advice"]


def test_what_to_do_about_older_tables(command, url, tmp_path):
    with sqlite3.connect(tmp_path / "quota.db") as connection:
        connection.execute("DROP TABLE delimiter_events")
    connection.close()
    run = command("events", "--store", url, "--json")
    assert run.status == 3
    assert "Older than this Delimiter" in run.error["advice"]


# --- ends that nobody planned ---------------------------------------------------------------------


def test_a_fault_of_our_own_is_no_traceback(quota, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"no luck with postgresql://bob:{SECRET}@host")

    monkeypatch.setattr(Delimiter, "usage", broken)
    run = quota("usage")
    assert run.status == 70
    assert "RuntimeError: no luck" in " ".join(run.err.split())
    assert "Traceback" not in run.err
    assert SECRET not in run.err
    assert quota("usage", "--json").error["kind"] == "InternalError"


def test_ctrl_c_is_status_130(quota, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Delimiter, "usage", interrupted)
    assert quota("usage").status == 130


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_a_reader_that_has_seen_enough_is_no_error(url, flags):
    with Delimiter(url) as quota:
        quota.update_limits("storage.gb", user="john", max=-1)
        for number in range(300):
            quota.claim({"storage.gb": 1}, user="john", id=f"{number:0200}")
    process = subprocess.Popen(
        [COMMAND, "--store", url, "claims", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in {141, -signal.SIGPIPE}


def test_the_installed_command(installed, url):
    run = installed("claims", "--json", env={**os.environ, "DELIMITER_STORE": url})
    assert (run.status, run.json, run.err) == (0, [], "")
    run = installed("--version")
    assert run.status == 0
    assert run.out.startswith("delimiter ")


def test_output_without_unicode(installed, url):
    """A terminal that knows only ASCII gets ASCII."""
    environment = {**os.environ, "DELIMITER_STORE": url, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments in (
        ["usage", "--user", "john"],
        ["claim", "storage.gb=1", "--user", "jürgen"],
        ["doctor"],
        ["claims"],
    ):
        run = installed(*arguments, env=environment)
        assert run.status == 0, run.err
        assert run.out.isascii()
        assert not run.err


def test_colours_are_for_terminals(installed, url):
    run = installed("usage", "--store", url)
    assert "\x1b" not in run.out
