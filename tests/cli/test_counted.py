"""The command line beside a service that counts its own rows: it tells what it cannot know, and names an index."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from delimiter import Delimiter


@pytest.fixture
def store(tmp_path):
    """A service with two instances in its table, which has no index on the project."""
    url = f"sqlite:///{tmp_path}/service.db"
    engine = sa.create_engine(url)
    instances = sa.Table(
        "instances",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("project", sa.String(50)),
        sa.Column("deleted", sa.Boolean),
    )
    instances.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(instances), [{"project": "acme", "deleted": False}] * 2)
    with Delimiter(engine) as quota:
        quota.define_resource("compute.instances", project_max=10)
        quota.define_resource("storage.gb", project_max=100)
        c = instances.c
        quota.count("compute.instances", sa.func.count(), project=c.project, where=c.deleted.is_(False))
    engine.dispose()
    return url


@pytest.fixture
def quota(command, store):
    return lambda *arguments: command("--store", store, *arguments)


def test_usage_claims_no_knowledge_it_does_not_have(quota):
    told = quota("usage", "--project", "acme", "--json").json
    assert told["compute.instances"] == {
        "limit": 10,
        "used": None,
        "reserved": None,
        "available": None,
        "counted_from": "instances",
    }
    assert told["storage.gb"]["used"] == 0
    shown = quota("usage", "--project", "acme").out
    assert "compute.instances is counted by its service from its table instances" in shown


@pytest.mark.parametrize("verb", ["check", "claim"])
def test_what_is_counted_elsewhere_is_neither_checked_nor_claimed(quota, verb):
    refused = quota(verb, "compute.instances=1", "--project", "acme")
    assert refused.status == 2
    assert "compute.instances is counted" in refused.err


def test_a_limit_is_set_all_the_same_and_its_event_does_not_guess(quota):
    quota("limit", "set", "compute.instances", "--project", "acme", "--max", "1")
    told = quota("events", "--json").json
    assert [(event["kind"], event["limit"], event["used"]) for event in told] == [("limit_changed", 1, None)]


def test_doctor_names_the_missing_index_and_its_ddl_makes_it(quota, store):
    (missing,) = quota("doctor", "--json").json["missing_indexes"]
    assert (missing["resource"], missing["table"], missing["column"]) == (
        "compute.instances",
        "instances",
        "project",
    )
    assert missing["ddl"] in " ".join(quota("doctor").out.split())
    engine = sa.create_engine(store)
    with engine.begin() as connection:
        connection.exec_driver_sql(missing["ddl"])
    engine.dispose()
    assert quota("doctor", "--json").json["missing_indexes"] == []


@pytest.mark.parametrize("verb", [("adopt",), ("reconcile", "--repair", "--listing")])
def test_a_listing_of_what_is_counted_is_refused_before_anything_is_claimed(quota, tmp_path, verb):
    listing = tmp_path / "instances.csv"
    listing.write_text("external_id,project,compute.instances,storage.gb\nvm-1,acme,1,20\n")
    refused = quota(*verb, str(listing))
    assert refused.status == 2
    assert "compute.instances is counted" in refused.err
    assert quota("claims", "--json").json == []
