"""A caller reads, somebody else commits, then the caller calls: right, or Conflict. On every database and level.

What is right is what the memory engine answers to the same steps one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from delimiter import Conflict, Delimiter, DelimiterError, OverLimit, Request
from engines.service import PLACES, SERIALIZABLE, Place, Service, assert_sound

_Step = Callable[[Any, str, Any], object]

_DEFINED: dict[str, Any] = {"max": -1, "project_max": 20, "user_max": 12}

#: What somebody else commits after the caller's snapshot was taken. `r` is the resource, c the connection (None).
_MEANWHILE: dict[str, _Step] = {
    "claim": lambda q, r, c: q.claim({r: 6}, project="acme", user="john", id=f"{r}-other"),
    "first claims": lambda q, r, c: [
        q.claim({r: 9}, project="fresh", user=user, id=f"{r}-{user}") for user in ("u", "v")
    ],
    "lower limit": lambda q, r, c: q.update_limits(r, project="acme", max=9),
    "limit of nobody yet": lambda q, r, c: q.update_limits(r, project="fresh", max=2),
    "lower default": lambda q, r, c: q.define_resource(r, **{**_DEFINED, "project_max": 2, "user_max": 2}),
    "first total": lambda q, r, c: q.update_limits(r, max=9),
    "total and room": lambda q, r, c: (q.update_limits(r, max=9), q.release(f"{r}-spare")),
    "resize": lambda q, r, c: q.resize(f"{r}-root", {r: 6}),
    "release": lambda q, r, c: q.release(f"{r}-spare"),
    "release of it": lambda q, r, c: q.release(f"{r}-root"),
    "child": lambda q, r, c: q.claim({r: 3}, project="zeta", user="mary", parent=f"{r}-root", id=f"{r}-c2"),
    "grandchild": lambda q, r, c: q.claim(
        {r: 3}, project="fresh", user="mary", parent=f"{r}-child", id=f"{r}-c2"
    ),
    "transfer": lambda q, r, c: q.transfer(f"{r}-root", project="zeta", user="mary"),
    "provision": lambda q, r, c: q.provision(f"{r}-held", external_id=f"{r}-vm"),
    "move of the external id": lambda q, r, c: (
        q.release(f"{r}-named"),
        q.claim({r: 1}, project="zeta", id=f"{r}-new", external_id=f"{r}-ext"),
    ),
}

#: What the caller then does.
_THEN: dict[str, _Step] = {
    "claim": lambda q, r, c: q.claim({r: 5}, project="acme", user="john", id=f"{r}-x", connection=c),
    "claim of a new project": lambda q, r, c: q.claim(
        {r: 3}, project="fresh", user="u", id=f"{r}-x", connection=c
    ),
    "list": lambda q, r, c: q.claim_all(
        [
            Request({r: 2}, project="acme", user="john", id=f"{r}-x"),
            Request({r: 2}, project="fresh", user="u", id=f"{r}-y", parent=f"{r}-root"),
        ],
        connection=c,
    ),
    "child": lambda q, r, c: q.claim({r: 1}, project="acme", parent=f"{r}-root", id=f"{r}-x", connection=c),
    "replay": lambda q, r, c: q.claim({r: 6}, project="acme", user="john", id=f"{r}-other", connection=c),
    "external": lambda q, r, c: q.claim(
        {r: 1}, project="acme", id=f"{r}-x", external_id=f"{r}-ext", connection=c
    ),
    "resize": lambda q, r, c: q.resize(f"{r}-root", {r: 9}, connection=c),
    "shrink": lambda q, r, c: q.resize(f"{r}-root", {r: 1}, connection=c),
    "release": lambda q, r, c: q.release(f"{r}-root", connection=c),
    "release by name": lambda q, r, c: q.release(f"{r}-ext", connection=c),
    "transfer": lambda q, r, c: q.transfer(f"{r}-root", project="fresh", user="u", connection=c),
    "provision": lambda q, r, c: q.provision(f"{r}-held", external_id=f"{r}-vm", connection=c),
    "renew": lambda q, r, c: q.renew(f"{r}-held", expires_in=9000, connection=c),
}

#: Who can be in whose way. All pairs were tried once; these are the ones that could go wrong.
_PAIRS: dict[str, str] = {
    "claim": "claim, list, replay, resize",
    "first claims": "claim of a new project, transfer",
    "lower limit": "claim, resize, shrink",
    "limit of nobody yet": "claim of a new project, list, transfer",
    "lower default": "claim of a new project, resize",
    "first total": "claim, claim of a new project, transfer, release",
    "total and room": "claim of a new project, resize",
    "resize": "claim, shrink, release",
    "release": "claim, child",
    "release of it": "child, resize, release, list",
    "child": "release, transfer",
    "grandchild": "release, transfer",
    "transfer": "resize, release, transfer",
    "provision": "renew, provision, release by name",
    "move of the external id": "external, release by name",
}


def _before(quota: Delimiter, r: str) -> None:
    quota.define_resource(r, **_DEFINED)
    quota.claim({r: 4}, project="acme", user="john", id=f"{r}-root")
    quota.claim({r: 2}, project="zeta", user="john", parent=f"{r}-root", id=f"{r}-child")
    quota.claim({r: 2}, project="zeta", user="mary", id=f"{r}-spare")
    quota.claim({r: 1}, project="zeta", id=f"{r}-named", external_id=f"{r}-ext")
    quota.reserve({r: 1}, project="zeta", id=f"{r}-held", expires_in=6000)


def _answer(step: Callable[[], object]) -> Any:
    """What is said, without times, which differ from store to store."""
    try:
        told: Any = step()
    except OverLimit as refusal:
        return [(one.resource, one.scope, one.limit, one.used, one.requested) for one in refusal.violations]
    except Conflict:
        return Conflict
    except DelimiterError as error:
        return type(error).__name__
    listed = told if isinstance(told, list) else [] if told is None else [told]
    return [(one.id, dict(one.resources), one.project, one.user, one.parent, one.state) for one in listed]


def _sight(quota: Delimiter, r: str) -> Any:
    claims = {
        one.id: (dict(one.resources), one.project, one.user, one.parent, one.state, one.external_id)
        for state in (None, "released", "expired")
        for one in quota.claims(state=state)
        if one.id.startswith(f"{r}-")
    }
    scopes: list[dict[str, Any]] = [
        {},
        *({"project": p} for p in ("acme", "zeta", "fresh")),
        *({"user": u} for u in ("john", "u")),
    ]
    return claims, [quota.usage(**scope)[r] for scope in scopes]


@dataclass
class _Stores:
    """The store that is tested, through two handles, with the service beside it; and the one that is believed."""

    mine: Delimiter
    other: Delimiter
    service: Service
    believed: Delimiter


@pytest.fixture
def stores(place: Place, database_url: Callable[[str], str]) -> Iterator[_Stores]:
    url = database_url(place.store)
    with (
        Delimiter(url) as mine,
        Delimiter(url) as other,
        Service(place, url) as service,
        Delimiter("memory://") as believed,
    ):
        service.create()
        yield _Stores(mine, other, service, believed)


@pytest.mark.parametrize("place", PLACES)
def test_the_answer_is_right_or_a_conflict(place: Place, stores: _Stores) -> None:
    """Guards: what decides is read from locked rows (`Database.locked`, `current`); the generation and, where a
    counter is made, the definition's version show that the snapshot is older than the rules."""
    for meanwhile, names in _PAIRS.items():
        for name in names.split(", "):
            _try_pair(place, stores, meanwhile, name)
    assert list(stores.other.reconcile()) == []


def _try_pair(place: Place, stores: _Stores, meanwhile: str, name: str) -> None:
    mine, service, believed = stores.mine, stores.service, stores.believed
    row = f"{meanwhile}-{name}"
    r = row.replace(" ", "_")
    then = _THEN[name]
    for quota in (mine, believed):
        _before(quota, r)
    with service.engine.connect() as connection:
        service.look(connection)
        mine.usage(project="acme", connection=None if place.level == SERIALIZABLE else connection)
        for quota in (stores.other, believed):
            _MEANWHILE[meanwhile](quota, r, None)
        expected = _answer(lambda: then(believed, r, None))
        told = _answer(lambda: then(mine, r, connection))
        if told is Conflict:
            connection.rollback()
            assert place.old_snapshots, f"{row}: a false conflict, nobody held anything"
        else:
            service.add(connection, row)  # usable after a refusal
            connection.commit()
    assert (row in service.rows()) == (told is not Conflict)
    if told is Conflict:
        with service.engine.begin() as connection:
            told = _answer(lambda: then(mine, r, connection))
    assert told == expected, row
    assert _sight(mine, r) == _sight(believed, r), row
    for number, (project, amount) in enumerate((("fresh", 18), ("acme", 4), ("fresh", 1))):
        # Whatever was remembered from that transaction must not be believed afterwards.
        again: dict[str, Any] = {"project": project, "id": f"{r}-l{number}"}
        after = [_answer(partial(quota.claim, {r: amount}, **again)) for quota in (mine, believed)]
        assert after[0] == after[1], (row, project, amount)


@pytest.mark.parametrize("place", PLACES)
def test_a_way_remembered_from_a_transaction_that_was_rolled_back(
    place: Place, database_url: Callable[[str], str]
) -> None:
    """Guard: `Counters.ways` remembers no counter that was made in a transaction that is still open.

    SQLite gives the number of a counter that was rolled back to another one; remembered with the way of then, it
    would pass for the same counter, and the total set meanwhile would not be asked.
    """
    url = database_url(place.store)
    with Delimiter(url) as mine, Delimiter(url) as other, Service(place, url) as service:
        service.create()
        mine.define_resource("cores")
        with service.engine.connect() as connection:
            both = [Request({"cores": 1}, project="a"), Request({"cores": 1}, project="b")]
            mine.claim_all(both, connection=connection)
            mine.claim({"cores": 1}, project="b", connection=connection)
            connection.rollback()
        other.update_limits("cores", max=1)
        other.claim({"cores": 1}, project="b")
        with pytest.raises(OverLimit):
            mine.claim({"cores": 1}, project="b")
        with pytest.raises(OverLimit), service.engine.begin() as connection:
            mine.claim({"cores": 1}, project="a", connection=connection)
        assert_sound(other)
