"""``check`` explains itself to operators, and tells end users no more than they may know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from delimiter import Delimiter


@pytest.fixture
def busy(url):
    """acme with web and db below it; most of acme's 100 GB is held, 30 of it for an hour."""
    with Delimiter(url) as quota:
        quota.add_project("acme")
        quota.add_project("web", parent="acme")
        quota.add_project("db", parent="acme")
        quota.update_limits("storage.gb", project="acme", max=100)
        quota.update_limits("storage.gb", project="web", max=70)
        quota.claim({"storage.gb": 45}, project="web", user="john")
        quota.claim({"storage.gb": 15}, project="web", user="ann")
        quota.reserve({"storage.gb": 30}, project="db", expires_in=3600)
    return url


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_a_refusal_is_explained(quota, busy):
    run = quota("check", "storage.gb=20", "--project", "web", "--user", "john")
    assert run.status == 1
    found = lines(run.out)
    assert found[:8] == [
        "✗ It would be refused now: it does not fit.",
        "",
        "storage.gb: 20 requested, 10 would fit",
        "charged to                                      used  reserved      limit  available",
        "the whole deployment                              90        30  unlimited  unlimited",
        "├─ project acme       ██████████████▒▒▒▒▒▒▒···    90        30        100         10  short by 10",
        "│  └─ project web     ████████████████████····    60         0         70         10  short by 10",
        "└─ user john          █·······················    45         0     20,000     19,955",
    ]
    assert (
        found[8]
        == "held there  45 by project web, user john · 30 by project db · 15 by project web, user ann"
    )
    # What runs out makes room in acme, but none in web.
    assert found[9] == "room        none by itself: what is reserved and runs out does not make enough"
    assert found[11].startswith("Nothing was changed. Ask for no more than fits")


def test_when_there_will_be_room(quota, busy):
    run = quota("check", "storage.gb=20", "--project", "db")
    assert run.status == 1
    assert "room        in 1 h" in run.out or "room        in 59 min" in run.out
    found = quota("check", "storage.gb=20", "--project", "db", "--json").json
    left = datetime.fromisoformat(found["room_at"]["storage.gb"]) - datetime.now(UTC)
    assert timedelta(minutes=50) < left <= timedelta(hours=1)


def test_what_fits_is_explained_too(quota, busy):
    run = quota("check", "storage.gb=5", "database.instances=1", "--project", "web")
    assert run.status == 0
    found = lines(run.out)
    assert found[0] == "✓ it would be admitted now"
    assert "database.instances: 1 requested, 2,000 would fit" in found
    assert "storage.gb: 5 requested, 10 would fit" in found
    assert not any(line.startswith(("room", "Nothing")) for line in found)
    assert sum(line.endswith("least room") for line in found) == 2


def test_without_any_limit(quota):
    run = quota("check", "storage.gb=5", "--project", "anybody")
    assert run.status == 0
    assert "storage.gb: 5 requested, unlimited" in run.out


def test_json_is_the_decision_and_more(quota, busy):
    run = quota("check", "storage.gb=20", "--project", "web", "--user", "john", "--json")
    assert run.status == 1
    found = run.json
    with Delimiter(busy) as library:
        decision = library.check({"storage.gb": 20}, project="web", user="john")
    assert found["allowed"] is decision.allowed
    assert [one["scope"] for one in found["violations"]] == [one.scope for one in decision.violations]
    assert found["available"] == decision.available == {"storage.gb": 10}
    assert list(found) == [
        *("allowed", "violations", "available"),
        *("levels", "binding", "room_at", "consumers"),
    ]
    assert [(one["scope"], one["limit"], one["used"], one["available"]) for one in found["levels"]] == [
        ("total", -1, 90, None),
        ("project:acme", 100, 90, 10),
        ("project:web", 70, 60, 10),
        ("user:john", 20_000, 45, 19_955),
    ]
    assert found["levels"][1]["reserved"] == 30
    assert found["binding"] == {"storage.gb": "project:acme"}
    assert found["room_at"] == {"storage.gb": None}
    assert found["consumers"]["storage.gb"] == [
        {"project": "web", "user": "john", "used": 45},
        {"project": "db", "user": None, "used": 30},
        {"project": "web", "user": "ann", "used": 15},
    ]


def test_brief_tells_nobody_elses_numbers(quota, busy):
    run = quota("check", "storage.gb=15", "--project", "db", "--brief")
    assert (run.status, run.err) == (1, "")
    assert run.out == "✗ There is no room for 15 more storage.gb in what is shared with others.\n"
    assert quota("check", "storage.gb=15", "--project", "db", "--brief", "--json").json == {
        "allowed": False,
        "message": "There is no room for 15 more storage.gb in what is shared with others.",
    }
    own = quota("check", "database.instances=3", "--user", "amrith", "--brief")
    assert own.out.startswith("✗ database.instances of user amrith: 3 more requested, but only 2 available")
    fits = quota("check", "storage.gb=5", "--project", "db", "--brief")
    assert (fits.status, fits.out) == (0, "✓ it would be admitted now\n")
    assert quota("check", "storage.gb=5", "--project", "db", "--brief", "--json").json == {
        "allowed": True,
        "message": "",
    }


@pytest.mark.parametrize("brief", [(), ("--brief",)], ids=["", "brief"])
@pytest.mark.parametrize(
    "arguments, kind",
    [
        ((), "UsageError"),
        (("storage.gb=1",), "InvalidRequest"),
        (("nothing=1", "--user", "john"), "UnknownResource"),
        (("storage.gb=0", "--user", "john"), "InvalidRequest"),
        (("storage.gb=1", "--user", ""), "InvalidRequest"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input(quota, arguments, kind, brief):
    run = quota("check", *arguments, *brief, "--json")
    assert run.status == 2
    assert run.error["kind"] == kind


@pytest.mark.parametrize(
    "width, drawn",
    [
        (
            "90",
            "├─ project acme       ██████████▒▒▒▒▒··    90        30        100         10  short by 10\n",
        ),
        ("78", "├─ project acme       █████████▒▒▒▒··    90        100         10  short by 10\n"),
        ("66", "├─ project acme         90        100         10  short by 10\n"),
        ("50", "├─ project acme: 90 of 100 used, 10 available\n│  │  short by 10\n"),
    ],
)
def test_narrow_terminals(command, busy, width, drawn):
    arguments = ("check", "storage.gb=20", "--project", "web", "--user", "john")
    run = command("--store", busy, *arguments, COLUMNS=width)
    assert run.status == 1
    assert drawn in "".join(f"{line.rstrip()}\n" for line in run.out.splitlines())


def test_names_are_shown_safely(quota):
    name = "[bold]\u202eevil"
    assert quota("claim", "database.instances=25", "--user", name).status == 0
    run = quota("check", "database.instances=1", "--user", name)
    assert "user [bold]\\u202eevil" in run.out
    assert "\u202e" not in run.out
