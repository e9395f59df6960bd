"""Which processes know that a resource is counted: from the store, whatever they have met before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from delimiter import Conflict, Delimiter, InvalidRequest, OverLimit, Request

NAME = "compute.instances"
_VMS = sa.Table(
    "vms",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project", sa.String(50), index=True),
    sa.Column("gone", sa.Boolean, nullable=False, default=False),
)


@pytest.fixture
def service(store_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(store_url)
    _VMS.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def opened(store_url: str) -> Iterator[Callable[[], Delimiter]]:
    """Each is as good as another process: nothing is remembered between them."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Delimiter(store_url))


def _create(quota: Delimiter, service: sa.Engine, project: str = "acme") -> None:
    with service.begin() as connection, quota.guard({NAME: 1}, project=project, connection=connection):
        connection.execute(sa.insert(_VMS), {"project": project})


def test_counted_before_it_is_defined(service: sa.Engine, opened: Callable[[], Delimiter]) -> None:
    quota = opened()
    quota.count(NAME, sa.func.count(), project=_VMS.c.project)
    quota.define_resource(NAME, project_max=1)
    assert opened().counted() == {NAME: "vms"}
    _create(quota, service)
    with pytest.raises(OverLimit):
        _create(quota, service)
    assert quota.usage(project="acme")[NAME].used == 1


def test_a_process_that_does_not_count(service: sa.Engine, opened: Callable[[], Delimiter]) -> None:
    """It neither claims nor checks what it cannot know, though it claimed the resource when that was tracked."""
    other = opened()
    other.define_resource(NAME, project_max=5)
    quota = opened()
    quota.count(NAME, sa.func.count(), project=_VMS.c.project)
    fresh = opened()
    for refused in (
        lambda: fresh.claim({NAME: 1}, project="acme"),
        lambda: fresh.reserve({NAME: 1}, project="acme", expires_in=60),
        lambda: fresh.claim_all([Request({NAME: 1}, project="acme")]),
        lambda: fresh.check({NAME: 1}, project="acme"),
        lambda: fresh.explain({NAME: 1}, project="acme"),
        lambda: fresh.reconcile_with([], resources=[NAME]),
    ):
        with pytest.raises(InvalidRequest, match=f"{NAME} is counted"):
            refused()
    with service.begin() as connection, pytest.raises(InvalidRequest, match="has been called"):
        fresh.guard({NAME: 1}, project="acme", connection=connection).__enter__()
    assert list(fresh.claims()) == []
    fresh.update_limits(NAME, project="acme", max=1)
    assert [event.used for event in fresh.events()] == [None]


def test_counted_otherwise_from_now_on(service: sa.Engine, opened: Callable[[], Delimiter]) -> None:
    quota = opened()
    quota.define_resource(NAME, project_max=1)
    quota.count(NAME, sa.func.count(), project=_VMS.c.project)
    _create(quota, service)
    quota.count(NAME, sa.func.count(), project=_VMS.c.project, where=_VMS.c.gone.is_(False))
    with service.begin() as connection:
        connection.execute(sa.update(_VMS).values(gone=True))
    _create(quota, service)
    assert quota.usage(project="acme")[NAME].used == 1


def test_tracked_again(service: sa.Engine, opened: Callable[[], Delimiter]) -> None:
    """Guard: that a resource is counted is looked up again before it is a reason to refuse."""
    quota = opened()
    quota.define_resource(NAME, project_max=1)
    quota.count(NAME, sa.func.count(), project=_VMS.c.project)
    _create(quota, service)
    with pytest.raises(InvalidRequest, match="1 are counted in the service's own table"):
        quota.undefine_resource(NAME)
    other = opened()
    with pytest.raises(InvalidRequest):
        other.claim({NAME: 1}, project="acme")
    operator = opened()
    operator.undefine_resource(NAME)
    operator.define_resource(NAME, project_max=1)
    for one in (operator, other):
        claim = one.claim({NAME: 1}, project="acme")
        one.release(claim.id)
    assert opened().counted() == {}


def test_who_claimed_it_before_learns_that_it_is_counted(
    service: sa.Engine, opened: Callable[[], Delimiter]
) -> None:
    """Guard: beginning to count raises the generations of the resource's counters, and is seen by who makes one."""
    other = opened()
    other.define_resource(NAME, project_max=5)
    for id in ("one", "two"):  # the second one remembers the way
        other.claim({NAME: 1}, project="acme", id=id)
    quota = opened()
    quota.count(NAME, sa.func.count(), project=_VMS.c.project)
    for project in ("acme", "globex"):
        with pytest.raises(InvalidRequest, match=f"{NAME} is counted"):
            other.claim({NAME: 1}, project=project)
    for id in ("one", "two"):
        other.release(id)
    assert quota.usage()[NAME].used == 0


@pytest.mark.stores("postgresql", "mariadb")
def test_a_caller_whose_snapshot_is_from_before_it_was_counted(
    store_url: str, service: sa.Engine, opened: Callable[[], Delimiter]
) -> None:
    """Guard: ``Definitions.are_seen`` compares where it is counted from; on MariaDB no error tells."""
    other, quota = opened(), opened()
    other.define_resource(NAME, project_max=5)
    engine = sa.create_engine(store_url, isolation_level="REPEATABLE READ", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT count(*) FROM delimiter_resources")).all()
        quota.count(NAME, sa.func.count(), project=_VMS.c.project)
        with pytest.raises((Conflict, InvalidRequest)):
            other.claim({NAME: 1}, project="globex", connection=connection)
        connection.rollback()
        with pytest.raises(InvalidRequest, match=f"{NAME} is counted"):
            other.claim({NAME: 1}, project="globex", connection=connection)


def test_what_was_claimed_before_is_not_shown_as_used(
    service: sa.Engine, opened: Callable[[], Delimiter]
) -> None:
    quota = opened()
    quota.define_resource(NAME, project_max=5)
    quota.claim({NAME: 3}, project="acme")
    quota.count(NAME, sa.func.count(), project=_VMS.c.project)
    _create(quota, service)
    assert quota.usage(project="acme")[NAME].used == 1
    assert [(one.id, one.usage[NAME].used) for one in quota.tree()] == [("acme", 1)]


def test_a_check_refuses_what_a_guard_would(service: sa.Engine, opened: Callable[[], Delimiter]) -> None:
    """Guard: a limit of users that no column tells of is not taken for one with room."""
    quota = opened()
    quota.define_resource(NAME, user_max=1)
    quota.count(NAME, sa.func.count(), project=_VMS.c.project)
    with pytest.raises(InvalidRequest, match="which column names the user"):
        quota.check({NAME: 1}, project="acme", user="john")
    assert quota.check({NAME: 1}, project="acme")
    quota.count("numbered", sa.func.count(), project=_VMS.c.id)
    quota.define_resource("numbered")
    with pytest.raises(InvalidRequest, match="cannot be in the column"):
        quota.check({"numbered": 1}, project="007")
