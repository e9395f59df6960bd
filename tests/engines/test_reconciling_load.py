"""Counters and claims spoilt by hand while others go on claiming: just that is found and mended, and nothing else.

Guards. The ``seen`` and ``unchanged_since`` of a correction, and the second look at what differs, were taken out: what
others were just changing was reported, or ended under their hands.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import pytest
import sqlalchemy as sa

from delimiter import Delimiter
from delimiter.listing import rows
from engines.service import assert_sound, until_decided

_THREADS: Final = 4
_RESOURCE: Final = "storage.gb"
_SEEDED: Final = 60
#: By kind: which of the seeded things are spoilt.
_SPOILT: Final = {
    "missing": range(3),
    "orphaned": range(3, 7),
    "amount": range(7, 12),
    "owner": range(12, 14),
    "counter": range(14, 17),
}


class Service:
    """Volumes in a table beside the store, each with its claim."""

    def __init__(self, url: str) -> None:
        connect_args = {"timeout": 60} if url.startswith("sqlite") else {}
        self.engine = sa.create_engine(url, pool_size=12, connect_args=connect_args)
        self._metadata = sa.MetaData()
        self.volumes = sa.Table(
            "volumes",
            self._metadata,
            sa.Column("id", sa.String(50), primary_key=True),
            sa.Column("project", sa.String(50)),
            sa.Column("size", sa.BigInteger),
            sa.Column("made", sa.BigInteger),
        )
        self._metadata.create_all(self.engine)
        v = self.volumes.c
        made = sa.type_coerce(v.made, _Time())
        self.listing = rows(
            self.engine, id=v.id, project=v.project, resources={_RESOURCE: v.size}, created_at=made
        )

    def insert(self, connection: Any, id: str, project: str, size: int, made: int = 0) -> None:
        connection.execute(sa.insert(self.volumes).values(id=id, project=project, size=size, made=made))

    def update(self, connection: Any, id: str, **values: Any) -> None:
        connection.execute(sa.update(self.volumes).where(self.volumes.c.id == id).values(**values))

    def delete(self, connection: Any, id: str) -> None:
        connection.execute(sa.delete(self.volumes).where(self.volumes.c.id == id))


class _Time(sa.types.TypeDecorator[datetime]):
    impl = sa.BigInteger
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: Any) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value / 1_000_000, UTC)


# -- what the others do -------------------------------------------------------------------------------------------


def together(service: Service, *changes: Callable[[sa.Connection], object]) -> None:
    """In one transaction of the service, begun anew until it is through."""

    def transaction() -> None:
        with service.engine.begin() as connection:
            for change in changes:
                change(connection)

    until_decided(transaction)


def in_one_transaction(quota: Delimiter, service: Service, name: str, dice: random.Random) -> None:
    """A volume's whole life; each step commits the row and the claim together."""
    size, project, other = dice.randint(1, 5), f"t{dice.randrange(4)}", f"t{dice.randrange(4)}"
    insert = partial(service.insert, id=name, project=project, size=size)
    if dice.random() < 0.5:
        claim = partial(quota.claim, {_RESOURCE: size}, project=project, external_id=name)
        together(service, lambda c: claim(connection=c), insert)
    else:
        held = quota.reserve({_RESOURCE: size}, project=project, expires_in=3600)
        together(service, lambda c: quota.provision(held.id, external_id=name, connection=c), insert)
    together(
        service,
        lambda c: quota.resize(name, {_RESOURCE: size + 1}, connection=c),
        partial(service.update, id=name, size=size + 1),
    )
    together(
        service,
        lambda c: quota.transfer(name, project=other, connection=c),
        partial(service.update, id=name, project=other),
    )
    if dice.random() < 0.8:
        release = partial(quota.release, name)
        together(service, lambda c: release(connection=c), partial(service.delete, id=name))


def step_by_step(quota: Delimiter, service: Service, name: str, dice: random.Random) -> None:
    """The same without a common transaction: the claim is there before the volume, and perhaps after it."""
    size, project, other = dice.randint(1, 5), f"t{dice.randrange(4)}", f"t{dice.randrange(4)}"
    insert = partial(service.insert, id=name, project=project, size=size)
    if dice.random() < 0.5:
        quota.claim({_RESOURCE: size}, project=project, external_id=name)
        together(service, insert)
    else:
        held = quota.reserve({_RESOURCE: size}, project=project, expires_in=3600)
        together(service, partial(insert, made=quota._engine.now()))
        quota.provision(held.id, external_id=name)
    quota.resize(name, {_RESOURCE: size + 1})
    together(service, partial(service.update, id=name, size=size + 1))
    quota.transfer(name, project=other)
    together(service, partial(service.update, id=name, project=other))
    if dice.random() < 0.4:
        quota.release(name)
        together(service, partial(service.delete, id=name))
    elif dice.random() < 0.6:
        together(service, partial(service.delete, id=name))
        quota.release(name)


@contextmanager
def traffic(quota: Delimiter, service: Service, life: Callable[..., None]) -> Iterator[Counter[str]]:
    """Others at work until the block ends; at least some of it beside every step."""
    stop, lives = threading.Event(), Counter[str]()

    def work(number: int) -> None:
        dice = random.Random(number)
        while not stop.is_set():
            life(quota, service, f"live-{number}-{lives[str(number)]}", dice)
            lives[str(number)] += 1

    with ThreadPoolExecutor(_THREADS) as pool:
        working = [pool.submit(work, number) for number in range(_THREADS)]
        try:
            yield lives
        finally:
            stop.set()
        for one in working:
            one.result()


# -- the spoiling -------------------------------------------------------------------------------------------------


def seed(quota: Delimiter, service: Service) -> None:
    for number in range(_SEEDED):
        id, project = f"seed-{number}", f"s{number}"
        quota.claim({_RESOURCE: 10}, project=project, external_id=id)
        with service.engine.begin() as connection:
            service.insert(connection, id, project, 10)


def spoil(service: Service) -> None:
    """By hand, past everything."""

    def each(kind: str, *statements: str) -> None:
        for number in _SPOILT[kind]:
            for statement in statements:
                done = connection.execute(
                    sa.text(statement), {"thing": f"seed-{number}", "project": f"s{number}"}
                )
                assert done.rowcount == 1, (kind, number, statement)

    claim = "SELECT id FROM delimiter_claims WHERE external_id = :thing"
    with service.engine.begin() as connection:
        each(
            "missing",
            f"DELETE FROM delimiter_allocations WHERE claim IN ({claim})",
            "DELETE FROM delimiter_claims WHERE external_id = :thing",
        )
        each("orphaned", "DELETE FROM volumes WHERE id = :thing")
        each("amount", f"UPDATE delimiter_allocations SET amount = 77 WHERE claim IN ({claim})")
        each("owner", "UPDATE delimiter_claims SET project_id = 'nobody' WHERE external_id = :thing")
        each("counter", "UPDATE delimiter_counters SET used = used + 5 WHERE scope = :project")


def drifting() -> set[str]:
    """The scopes whose counters disagree with their claims then."""
    spoilt = [n for kind in ("missing", "amount", "owner", "counter") for n in _SPOILT[kind]]
    return {f"project:s{number}" for number in spoilt} | {"project:nobody"}


def expected() -> list[tuple[str, str]]:
    kinds = ("missing", "orphaned", "amount", "owner")
    return sorted((kind, f"seed-{number}") for kind in kinds for number in _SPOILT[kind])


@pytest.mark.parametrize(
    "life, grace", [(in_one_transaction, 0), (step_by_step, 600)], ids=["in-one-transaction", "step-by-step"]
)
def test_exactly_what_was_spoilt_is_found_and_mended(
    store_url: str, life: Callable[..., None], grace: float
) -> None:
    service = Service(store_url)
    with Delimiter(store_url, timeout=120) as quota:
        quota.define_resource(_RESOURCE, project_max=100)
        seed(quota, service)
        quota._engine.clock_offset += 1_000_000_000
        spoil(service)
        with traffic(quota, service, life) as lives:
            for repair in (False, True):
                assert {one.scope for one in quota.reconcile(repair=repair)} == drifting()
            assert list(quota.reconcile()) == []
            for repair in (False, True):
                found = list(quota.reconcile_with(service.listing, repair=repair, grace=grace))
                assert sorted((one.kind, one.external_id) for one in found) == expected()
                assert all(one.repaired is repair for one in found)
            before = lives.total()
            for _ in range(3):
                assert list(quota.reconcile_with(service.listing, repair=True, grace=grace)) == []
            assert list(quota.reconcile()) == []
        assert lives.total() > before, "nothing went on meanwhile"
        assert list(quota.reconcile_with(service.listing, grace=0)) == [], "every claim is its volume's"
        assert_sound(quota)
    service.engine.dispose()
