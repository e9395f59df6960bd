"""An engine and the memory engine side by side: the same calls, the same ids, the same time, the same answers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from delimiter import Claim, Delimiter, DelimiterError, Request, Violation
from delimiter.conformance.contract import STATES, Contract, Whom, move_time
from delimiter.engines.memory import MemoryEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from delimiter.engine import Engine

_EXTERNAL: Final = tuple(f"e{n}" for n in range(3))
_RESOURCES: Final = ("cores", "ram", "disc")
_PROJECTS: Final = ("acme", "zeta")
_USERS: Final = ("john", "mary")
_NUMBERS = itertools.count(1)

# Times are whole hundreds of seconds, so that the moments between two calls decide nothing.
_SPANS = st.sampled_from([100, 200, 300])
#: Which claim a verb is about: one of the last that were asked for, rarely an external id or one that nobody knows.
_KNOWN: Final = 10
_ids = st.integers(0, _KNOWN + len(_EXTERNAL))
_rarely = st.integers(0, 9).map(lambda number: number == 9)
_resources = st.sampled_from(_RESOURCES)
_contents = st.dictionaries(_resources, st.integers(1, 4), min_size=1, max_size=3)
_owners = st.sampled_from(
    [
        {"project": project, "user": user}
        for project in (None, *_PROJECTS)
        for user in (None, *_USERS)
        if project or user
    ]
)
_SCOPES: Final[list[dict[str, Any]]] = [
    {},
    *({"project": one} for one in _PROJECTS),
    *({"user": one} for one in _USERS),
]
_scopes = st.sampled_from(_SCOPES)
_maxima = st.integers(-1, 9)
_maybe = st.one_of(st.none(), st.integers(0, 9))
_requests = st.fixed_dictionaries(
    {
        "resources": _contents,
        "owner": _owners,
        "again": _rarely,
        "id": _ids,
        "below": st.integers(0, 3).map(lambda number: number == 3),
        "parent": _ids,
        "external_id": st.sampled_from([None] * 4 + [*_EXTERNAL]),
        "expires_in": st.one_of(st.none(), _SPANS),
    }
)


class SideBySide(RuleBasedStateMachine):
    """All verbs, on two engines. The store is shared by all examples: each has names of its own, and cleans up."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.model = MemoryEngine()
        self.model.clock_offset = engine.clock_offset  # time has gone on in the examples before
        self.theirs = Delimiter(engine, timeout=5)
        self.ours = Delimiter(self.model)
        self.prefix = f"x{next(_NUMBERS)}-"
        self.asked: list[str] = []  # the ids of all requests, admitted or refused
        self.requests: list[Request] = []

    # -- the two of them ------------------------------------------------------------------------------------------

    def own(self, name: str | None) -> Any:
        """A name that no other example uses."""
        return None if name is None else self.prefix + name

    def id_of(self, which: int) -> Any:
        """The id that a rule means, counted back from the request made last."""
        if which < _KNOWN and self.asked:
            return self.asked[-1 - which % len(self.asked)]
        return self.own([*_EXTERNAL, "nobody"][(which - _KNOWN) % 4])

    def request(self, drawn: dict[str, Any]) -> Request:
        request = Request(
            self.content(drawn["resources"]),
            **self.owner(drawn["owner"]),
            id=self.id_of(drawn["id"]) if drawn["again"] else self.own(f"c{len(self.asked)}"),
            parent=self.id_of(drawn["parent"]) if drawn["below"] and self.asked else None,
            external_id=self.own(drawn["external_id"]),
            expires_in=drawn["expires_in"],
        )
        self.asked.append(str(request.id))
        self.requests.append(request)
        return request

    def owner(self, owner: dict[str, str | None]) -> dict[str, Any]:
        return {kind: self.own(name) for kind, name in owner.items()}

    def content(self, resources: dict[str, int]) -> dict[str, int]:
        return {self.own(name): amount for name, amount in resources.items()}

    def both(self, call: Callable[[Delimiter], Any]) -> None:
        theirs, ours = _told(call, self.theirs), _told(call, self.ours)
        assert _alike(theirs, ours), f"\nthe engine:        {theirs}\nthe memory engine: {ours}"

    def compare_claims(self) -> None:
        for state in (None, *STATES):
            self.both(partial(_listed, state=state))

    # -- rules ----------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        for name in _RESOURCES:
            self.define(name, 9, -1, 6, 0)

    @rule(name=_resources, max=_maxima, project_max=_maxima, user_max=_maxima, floor=st.integers(0, 2))
    def define(self, name: str, max: int, project_max: int, user_max: int, floor: int) -> None:
        self.both(
            lambda q: q.define_resource(
                self.own(name), max=max, project_max=project_max, user_max=user_max, user_min=floor
            )
        )

    @rule(name=_resources, for_good=_rarely)
    def undefine(self, name: str, *, for_good: bool) -> None:
        self.both(lambda q: q.undefine_resource(self.own(name)))
        if not for_good:
            self.define(name, 9, -1, 6, 0)

    @rule(
        name=_resources, scope=_scopes, max=_maybe, min=_maybe, which=st.sampled_from(["max", "min", "both"])
    )
    def limit(self, name: str, scope: Whom, max: int | None, min: int | None, which: str) -> None:
        values: dict[str, Any] = {"max": max, "min": min}
        given = values if which == "both" else {which: values[which]}
        self.both(lambda q: q.update_limits(self.own(name), **self.owner({**scope}), **given))

    @rule(request=_requests)
    def claim(self, request: dict[str, Any]) -> None:
        self.claim_all([request])

    @rule(request=_requests)
    def claim_more(self, request: dict[str, Any]) -> None:
        self.claim_all([request])

    @rule(requests=st.lists(_requests, min_size=2, max_size=4))
    def claim_all(self, requests: list[dict[str, Any]]) -> None:
        made = [self.request(drawn) for drawn in requests]
        self.both(lambda q: q.claim_all(made))

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, 9))
    def replay(self, which: int) -> None:
        request = self.requests[-1 - which % len(self.requests)]
        self.both(lambda q: q.claim_all([request]))

    @precondition(lambda self: self.asked)
    @rule(id=_ids, external_id=st.sampled_from([None] * 3 + [*_EXTERNAL]))
    def provision(self, id: int, external_id: str | None) -> None:
        self.both(lambda q: q.provision(self.id_of(id), external_id=self.own(external_id)))

    @precondition(lambda self: self.asked)
    @rule(id=_ids, expires_in=_SPANS)
    def renew(self, id: int, expires_in: int) -> None:
        self.both(lambda q: q.renew(self.id_of(id), expires_in=expires_in))

    @precondition(lambda self: self.asked)
    @rule(id=_ids, resources=_contents, force=st.booleans())
    def resize(self, id: int, resources: dict[str, int], *, force: bool) -> None:
        self.both(lambda q: q.resize(self.id_of(id), self.content(resources), force=force))

    @precondition(lambda self: self.asked)
    @rule(id=_ids, owner=_owners)
    def transfer(self, id: int, owner: dict[str, str | None]) -> None:
        self.both(lambda q: q.transfer(self.id_of(id), **self.owner(owner)))

    @precondition(lambda self: self.asked)
    @rule(id=_ids, force=st.booleans())
    def release(self, id: int, *, force: bool) -> None:
        self.both(lambda q: q.release(self.id_of(id), force=force))

    @rule(seconds=_SPANS)
    def time_goes_on(self, seconds: int) -> None:
        move_time(self.engine, seconds)
        move_time(self.model, seconds)

    @rule()
    def sweep(self) -> None:
        # How many is not compared: a claim that would have been refused may have swept some of them already.
        for quota in (self.theirs, self.ours):
            quota.expire_reservations()
        self.compare_claims()

    @rule(older_than=st.sampled_from([0, 100, 200]))
    def prune(self, older_than: int) -> None:
        self.both(lambda q: q.prune(older_than=older_than))

    @rule(resources=_contents, owner=_owners)
    def check(self, resources: dict[str, int], owner: dict[str, str | None]) -> None:
        self.both(lambda q: q.check(self.content(resources), **self.owner(owner)))

    @rule(scope=_scopes)
    def look(self, scope: Whom) -> None:
        self.look_at(scope)

    @rule(owner=_owners, name=st.one_of(st.none(), _resources), state=st.sampled_from([None, *STATES]))
    def list_claims(self, owner: dict[str, str | None], name: str | None, state: Any) -> None:
        self.both(lambda q: _sorted(q.claims(**self.owner(owner), resource=self.own(name), state=state)))

    @precondition(lambda self: self.asked)
    @rule(id=_ids)
    def get(self, id: int) -> None:
        self.both(lambda q: q.get_claim(self.id_of(id)))

    # -- the end --------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Look at everything once, then leave nothing behind."""
        try:
            self.compare_claims()
            self.both(lambda q: [one for one in q.resources() if one.name.startswith(self.prefix)])
            for scope in _SCOPES:
                self.look_at(scope)
            assert list(self.theirs.reconcile()) == []
        finally:
            for claim in list(self.theirs.claims()):
                self.theirs.release(claim.id, force=True)
            self.theirs.expire_reservations()
            self.theirs.prune(older_than=0)
            for resource in self.theirs.resources():
                self.theirs.undefine_resource(resource.name)
        assert [one for state in STATES for one in self.theirs.claims(state=state)] == []

    def look_at(self, scope: Whom) -> None:
        named = self.owner({**scope})
        self.both(lambda q: q.usage(**named))
        self.both(lambda q: q.limits(**named))


def _listed(quota: Delimiter, state: Any) -> list[Claim]:
    return _sorted(quota.claims(state=state))


def _sorted(claims: Iterable[Claim]) -> list[Claim]:
    """Those of one list were made at one moment, in no order."""
    return sorted(claims, key=lambda one: one.id)


def _told(call: Callable[[Delimiter], Any], quota: Delimiter) -> Any:
    """What was answered; of a refusal its kind, its violations, and whose numbers may be told."""
    try:
        return call(quota)
    except DelimiterError as error:
        return type(error), _ordered(getattr(error, "violations", ())), getattr(error, "own", None)


def _ordered(violations: Sequence[Violation]) -> list[Violation]:
    """By resource, then total, projects, users; several projects (or users) of one resource stand in any order."""
    kinds = ("total", "project", "user")
    places = [(one.resource, kinds.index(one.scope.partition(":")[0])) for one in violations]
    assert places == sorted(places)
    return sorted(violations, key=lambda one: (one.resource, one.scope))


def _alike(theirs: Any, ours: Any) -> bool:
    """Equal but for the moments between two calls."""
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_alike, theirs, ours))
    if isinstance(theirs, Claim) and isinstance(ours, Claim):
        if theirs.expires_at is None or ours.expires_at is None:
            return theirs == ours
        apart = abs(theirs.expires_at - ours.expires_at)
        return apart < timedelta(seconds=50) and replace(theirs, expires_at=ours.expires_at) == ours
    return bool(theirs == ours)


class MachineContract(Contract):
    def test_it_answers_as_the_memory_engine_does(self, engine: Engine) -> None:
        run_state_machine_as_test(
            partial(SideBySide, engine),  # type: ignore[arg-type] # it calls what it is given, a class or not
            settings=settings(
                max_examples=self.machine_examples,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
                phases=self.machine_phases,
            ),
        )

    #: Examples of the state machine; each is up to forty calls on both engines.
    machine_examples = 40
    #: Add ``Phase.shrink`` to be given the shortest failing example: on a database that takes minutes.
    machine_phases: tuple[Phase, ...] = (Phase.explicit, Phase.reuse, Phase.generate)
