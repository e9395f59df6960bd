"""What the state machine stands on: two engines that are told the same, and names that no other example uses."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis.stateful import RuleBasedStateMachine

from delimiter import Claim, Delimiter, DelimiterError, Request, Scope
from delimiter.changes import Admit, Correct, NewClaim
from delimiter.conformance import drawn
from delimiter.conformance.alike import alike, by_id, told
from delimiter.conformance.contract import STATES, Whom
from delimiter.edits import (
    AddProject,
    Adoption,
    Define,
    Edit,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
    Undefine,
)
from delimiter.engines.memory import MemoryEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from delimiter.engine import Answer, Engine

__all__ = ["SideBySide"]

_NUMBERS = itertools.count(1)


class SideBySide(RuleBasedStateMachine):
    """Two engines. The store is shared by all examples: each has names of its own, and cleans up."""

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
        self.seen = engine.last_event()  # of the examples before
        self.events_compare = True
        self.fetched = next(_NUMBERS) * 10_000  # above all that was adopted in the examples before

    # -- what a rule means ----------------------------------------------------------------------------------------

    def own(self, name: str | None) -> Any:
        """A name that no other example uses."""
        return None if name is None else self.prefix + name

    def id_of(self, which: int) -> Any:
        """The id that a rule means, counted back from the request made last."""
        if which < drawn.KNOWN and self.asked:
            return self.asked[-1 - which % len(self.asked)]
        return self.own([*drawn.EXTERNAL, "nobody"][(which - drawn.KNOWN) % 4])

    def request(self, one: dict[str, Any]) -> Request:
        request = Request(
            self.content(one["resources"]),
            **self.owner(one["owner"]),
            id=self.id_of(one["id"]) if one["again"] else self.own(f"c{len(self.asked)}"),
            parent=self.id_of(one["parent"]) if one["below"] and self.asked else None,
            external_id=self.own(one["external_id"]),
            expires_in=one["expires_in"],
        )
        self.asked.append(str(request.id))
        self.requests.append(request)
        return request

    def owner(self, owner: dict[str, str | None]) -> dict[str, Any]:
        return {kind: self.own(name) for kind, name in owner.items()}

    def content(self, resources: dict[str, int]) -> dict[str, int]:
        return {self.own(name): amount for name, amount in resources.items()}

    def edit_of(self, edit: Edit) -> Edit:
        """The same edit of names that are this example's own."""
        match edit:
            case Define():
                return Define(replace(edit.resource, name=self.own(edit.resource.name)))
            case Undefine():
                return Undefine(self.own(edit.name))
            case SetLimit():
                return replace(edit, resource=self.own(edit.resource), scope=self.scope(edit.scope))
            case RemoveProject():
                return RemoveProject(self.own(edit.id))
            case AddProject() | MoveProject():
                return replace(edit, id=self.own(edit.id), parent=self.own(edit.parent))
            case SetOverbooking():
                return edit

    def scope(self, scope: Scope) -> Scope:
        return scope if scope.kind == "total" else Scope(scope.kind, self.own(scope.name))

    def fetch(self, age: int) -> int:
        """When it was fetched: now, or before what was adopted lately."""
        self.fetched += 1
        return self.fetched - age

    # -- the two of them ------------------------------------------------------------------------------------------

    def both(self, call: Callable[[Delimiter], Any]) -> None:
        theirs, ours = told(call, self.theirs), told(call, self.ours)
        assert alike(theirs, ours), f"\nthe engine:        {theirs}\nthe memory engine: {ours}"

    def compare_claims(self) -> None:
        for state in (None, *STATES):
            self.both(partial(_listed, state=state))

    def compare_events(self) -> None:
        """Those of one change come in no order; what ran out is swept before, so that nobody is behind."""
        for quota in (self.theirs, self.ours):
            quota.expire_reservations()
        if not self.events_compare:
            return
        of_theirs, of_ours = (
            Counter(
                (one.kind, one.resource, one.scope, one.limit, one.used)
                for one in quota.events(after=after)
                if one.resource.startswith(self.prefix)
            )
            for quota, after in ((self.theirs, self.seen), (self.ours, 0))
        )
        assert of_theirs == of_ours, (
            f"\nonly the engine:        {of_theirs - of_ours}\nonly the memory engine: {of_ours - of_theirs}"
        )

    def adopt(self, adoption: Adoption) -> None:
        # It may overbook. Which edits that would be in the way of, where it is forbidden, has a test of its own.
        self.both(lambda q: q.set_overbooking("allowed"))
        for engine in (self.engine, self.model):
            assert engine.adopt(adoption)
        self.look_at_the_tree()

    def apply_existing(self, requests: list[Request]) -> None:
        claims = tuple(
            NewClaim(
                str(one.id),
                one.resources,
                one.project,
                one.user,
                one.parent,
                one.external_id,
                None if one.expires_in is None else int(one.expires_in) * 1_000_000,  # type: ignore[arg-type]
            )
            for one in requests
        )
        if len({claim.id for claim in claims}) == len(claims):
            self.of_each(lambda engine: engine.apply([Admit(claims, existing=True)])[0])

    def apply_correction(
        self, id: str, resources: dict[str, int], owner: dict[str, str | None], *, old: bool
    ) -> None:
        """Of the claim as it is now; ``old``: if nothing has changed it for a while."""

        def corrected(engine: Engine) -> Answer:
            since = engine.now() - (50_000_000 if old else 0)
            return engine.apply([Correct(engine.get_claim(id), since, resources, **owner)])[0]

        self.of_each(corrected)

    def of_each(self, ask: Callable[[Engine], Answer]) -> None:
        """What the engines themselves answer, which no verb asks for."""
        engines = {self.theirs: self.engine, self.ours: self.model}

        def answer(quota: Delimiter) -> list[Claim]:
            found = ask(engines[quota])
            if isinstance(found, DelimiterError):
                raise found
            return list(found)

        self.both(answer)

    def look_at_the_tree(self) -> None:
        self.both(lambda q: q.tree())
        self.both(lambda q: q.projects())
        self.both(lambda q: q.own_limits())

    def look_at(self, scope: Whom) -> None:
        named = self.owner({**scope})
        self.both(lambda q: q.usage(**named))
        self.both(lambda q: q.limits(**named))


def _listed(quota: Delimiter, state: Any) -> list[Claim]:
    return by_id(quota.claims(state=state))
