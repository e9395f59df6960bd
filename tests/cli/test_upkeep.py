"""Keeping a store in order: what ran out or ended goes, what disagrees is found, and a doctor looks it all over."""

from __future__ import annotations

import pytest


def test_expire_and_prune(quota):
    quota("reserve", "storage.gb=1", "--user", "john", "--expires-in", "1ms")
    assert quota("expire", "--json").json == {"expired": 1}
    assert len(quota("claims", "--state", "expired", "--json").json) == 1
    assert quota("prune", "--older-than", "1d", "--json").json == {"pruned": 0}
    assert quota("prune", "--older-than", "0", "--json").json == {"pruned": 1}
    assert quota("claims", "--state", "expired", "--json").json == []


def test_reconcile_finds_and_repairs(quota, spoilt):
    found = quota("reconcile", "--json")
    assert found.status == 1
    assert [(drift["recorded"], drift["actual"], drift["repaired"]) for drift in found.json] == [
        (8, 1, False)
    ]
    assert "--repair" in quota("reconcile").out
    repaired = quota("reconcile", "--repair", "--json")
    assert repaired.status == 0
    assert [drift["repaired"] for drift in repaired.json] == [True]
    assert quota("reconcile").status == 0


@pytest.fixture
def spoilt(quota, url):
    """A counter of john's says 8 where 1 is true."""
    import sqlalchemy as sa

    quota("claim", "storage.gb=1", "--user", "john")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        changed = connection.execute(sa.text("UPDATE delimiter_counters SET used = 8 WHERE used = 1"))
        assert changed.rowcount == 1


def test_doctor_of_a_healthy_store(quota, url):
    quota("claim", "storage.gb=1", "--user", "john", "--project", "acme")
    quota("reserve", "storage.gb=1", "--user", "john", "--expires-in", "1ms")
    before = quota("claims", "--json").out
    run = quota("doctor", "--json")
    assert run.status == 0
    found = run.json
    assert found["healthy"] is found["readable"] is found["writable"] is True
    assert found["engine"].startswith("SQLite ")
    assert found["store"] == url
    assert found["schema_version"]
    assert (found["resources"], found["projects"], found["users"]) == (2, 1, 1)
    assert (found["tree"], found["overbooking"]) == ({"projects": 0, "levels": 0}, "allowed")
    assert found["version"] == 3, "two definitions, one limit"
    assert found["claims"] == {"provisioned": 1, "reserved": 0, "expired": 1, "released": 0}
    assert any("delimiter expire" in sentence for sentence in found["advice"])
    assert quota("claims", "--json").out == before, "it changes nothing"
    assert "all is well" in quota("doctor").out


def test_doctor_sees_drift_and_who_is_over_quota(quota, spoilt):
    quota("limit", "set", "storage.gb", "--user", "john", "--max", "0")
    run = quota("doctor", "--json")
    assert run.status == 1
    assert run.json["healthy"] is False
    assert [drift["recorded"] for drift in run.json["drift"]] == [8]
    over = {"resource": "storage.gb", "scope": "user:john", "limit": 0, "used": 8}
    assert run.json["over_quota"] == [over]
    text = quota("doctor").out
    assert "delimiter reconcile --repair" in text
    assert "storage.gb of user:john: 8 of 0" in text


def test_doctor_of_a_tree(quota):
    for name, above in (("acme", ()), ("web", ("--parent", "acme")), ("globex", ())):
        quota("project", "add", name, *above)
    quota("limit", "set", "storage.gb", "--project", "acme", "--max", "5")
    quota("claim", "storage.gb=5", "--project", "web")
    quota("limit", "set", "storage.gb", "--project", "acme", "--max", "4")
    run = quota("doctor", "--json")
    assert run.json["tree"] == {"projects": 3, "levels": 2}
    assert run.json["over_quota"] == [
        {"resource": "storage.gb", "scope": "project:acme", "limit": 4, "used": 5}
    ], "also a project that holds nothing itself"
    assert "3 in the tree of 2 levels, overbooking allowed" in quota("doctor").out


def test_doctor_sees_that_nothing_can_be_written(quota, url, tmp_path):
    read_only = f"sqlite:///file:{tmp_path / 'quota.db'}?mode=ro&uri=true"
    run = quota("doctor", "--store", read_only, "--json")
    assert run.status == 1
    assert run.json["writable"] is False
