"""Steps of a history on the reference model: the rules of the memory engine, without limits and without a clock.

Whether there was room is judged elsewhere (:mod:`soak.bounds`); here it is which states follow from which, and which
answers belong to them. A state is the claims of one family: those that some operation names together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from delimiter.changes import Admit, Change, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.engines.memory.claims import Record
from delimiter.engines.memory.rules import Rules
from delimiter.engines.memory.trial import Trial
from delimiter.errors import DelimiterError, UnknownClaim
from delimiter.model import Claim, Resource
from soak.history import NEVER, Operation, Step
from soak.world import DEFINITIONS, ROWS

State: TypeAlias = Mapping[str, Record]

_UNLIMITED = Rules(definitions={name: Resource(name=name, service="") for name in DEFINITIONS})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Verbs that make claims. ``claim`` and ``reserve`` are lists of one.
ADMITTING = ("claim", "reserve", "claim_all")


def row_id(row: str) -> str:
    """A counted row among the claims: one of its own resource, known by the row's key."""
    return f"row:{row}"


def new_claims(step: Step) -> list[NewClaim]:
    """What a step would make."""
    if step.verb == "guard":
        row = step.args
        return [NewClaim(row_id(row["id"]), {ROWS: 1}, row.get("project"), row.get("user"))]
    if step.verb not in ADMITTING:
        return []
    return [_new_claim(request) for request in step.args["requests"]]


def _new_claim(request: Mapping[str, Any]) -> NewClaim:
    seconds = request.get("expires_in")
    return NewClaim(
        id=request["id"],
        resources=request["resources"],
        project=request.get("project"),
        user=request.get("user"),
        parent=request.get("parent"),
        external_id=request.get("external_id"),
        expires_in=None if seconds is None else microseconds(seconds),
    )


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def names(step: Step) -> list[str]:
    """The ids of claims that a step is about."""
    if step.verb == "remove_row":
        return [row_id(step.args["id"])]
    if claims := new_claims(step):
        return [one.id for one in claims] + [own_id(one.parent) for one in claims if one.parent]
    return [own_id(step.args["id"])] if "id" in step.args else []


def external_id_of(id: str) -> str:
    """The external id that a claim is given, if any: nobody else is given that one."""
    return f"x-{id}"


def own_id(name: str) -> str:
    return name.removeprefix("x-")


def state_key(state: State) -> tuple[Any, ...]:
    """Two states with the same key cannot be told apart by any later answer."""
    return tuple(
        (
            one.id,
            one.state,
            one.project,
            one.user,
            one.parent,
            one.external_id,
            tuple(one.resources.items()),
            one.ends_at if one.state == "reserved" else None,
        )
        for _, one in sorted(state.items())
    )


@dataclass
class Observed:
    """What any answer told of a claim: when it runs out. Narrows down what an unanswered call may have done."""

    ends: dict[str, set[int]]

    @classmethod
    def by(cls, operations: Iterable[Operation], final: Iterable[Mapping[str, Any]] = ()) -> Observed:
        ends: dict[str, set[int]] = {}
        told = [claim for operation in operations for step in operation.steps for claim in claims_told(step)]
        for claim in (*told, *final):
            if claim.get("expires_at") is not None:
                ends.setdefault(claim["id"], set()).add(claim["expires_at"])
        return cls(ends)


def claims_told(step: Step) -> list[dict[str, Any]]:
    """The claims in an answer, as :func:`told` wrote them."""
    if step.answer is None or not isinstance(step.answer.get("ok"), list):
        return []
    return [one for one in step.answer["ok"] if isinstance(one, dict)]


def told(claim: Claim) -> dict[str, Any]:
    """A claim as a journal keeps it: its time in microseconds."""
    ends = claim.expires_at
    return {
        "id": claim.id,
        "resources": dict(claim.resources),
        "project": claim.project,
        "user": claim.user,
        "parent": claim.parent,
        "state": claim.state,
        "external_id": claim.external_id,
        "expires_at": None if ends is None else instant_us(ends),
    }


def instant_us(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


class Model:
    """Takes operations from state to state."""

    def __init__(self, observed: Observed, *, tolerance: float) -> None:
        self._observed = observed
        self._tolerance = tolerance

    def after(self, state: State, operation: Operation) -> Iterator[State]:
        """Every state that the operation may have left, given its answers; none if no order makes sense of them."""
        states = [state]
        for step in operation.steps:
            states = list(
                itertools.chain.from_iterable(self._after_step(one, step, operation) for one in states)
            )
        found: dict[tuple[Any, ...], State] = {}
        for one in states:
            found.setdefault(state_key(one), one)
        return iter(found.values())

    def _after_step(self, state: State, step: Step, operation: Operation) -> Iterator[State]:
        change = _change(step)
        if change is None and step.verb != "get":
            yield state
            return
        if step.verb == "remove_row" and not _deleted_what_was_there(state, step):
            return
        for now in self._moments(state, step):
            trial = Trial(_UNLIMITED, state, now, itertools.count(len(state) * 2 + 1))
            try:
                answer = _read(trial, step) if change is None else tuple(map(told, trial.make(change)))
            except DelimiterError as error:
                if _agrees_on_error(step, error):
                    yield state
                continue
            if step.answer is None or _agrees(step, answer):
                yield trial.claims
            elif step.error == "OverLimit":
                yield state

    def _moments(self, state: State, step: Step) -> list[int]:
        """The times at which it may have been decided, as far as they differ: by which reservations had run out."""
        first, last = step.start - self._tolerance, step.end + self._tolerance
        last = min(last, step.start + 3_600_000_000)  # for a call that was never answered
        moments = {int(first)}
        moments |= {one.ends_at for one in state.values() if one.state == "reserved" and one.ends_at}
        span, ids = _span(step)
        if span is not None:
            ends = {end for id in ids for end in self._observed.ends.get(id, ())}
            moments |= {end - span for end in ends}
            if step.answer is None:
                moments.add(int(last) if step.end != NEVER else int(first) + 1_000_000)
        return sorted(moment for moment in moments if first - 1 <= moment <= last)


def _span(step: Step) -> tuple[int | None, list[str]]:
    """How long what it makes is to live, and whose end tells when it was decided."""
    if step.verb == "renew":
        return microseconds(step.args["expires_in"]), [step.args["id"]]
    spans = {one.expires_in: one.id for one in new_claims(step) if one.expires_in is not None}
    for span, id in spans.items():
        return span, [id]
    return None, []


def _change(step: Step) -> Change | None:
    args = step.args
    if admitted := new_claims(step):
        return Admit(tuple(admitted))
    match step.verb:
        case "provision":
            return Provision(args["id"], args.get("external_id"))
        case "renew":
            return Renew(args["id"], microseconds(args["expires_in"]))
        case "resize":
            return Resize(args["id"], args["resources"])
        case "transfer":
            return Transfer(args["id"], args.get("project"), args.get("user"))
        case "release":
            return Release(args["id"])
        case "remove_row":
            return Release(row_id(args["id"]))
        case _:
            return None


def _read(trial: Trial, step: Step) -> tuple[dict[str, Any], ...]:
    return (told(trial.find(step.args["id"]).claim_at(trial.now)),)


def _deleted_what_was_there(state: State, step: Step) -> bool:
    row = state.get(row_id(step.args["id"]))
    there = row is not None and row.state == "provisioned"
    return step.answer is None or step.answer.get("ok") == int(there)


def _agrees_on_error(step: Step, error: DelimiterError) -> bool:
    if step.verb == "remove_row":  # a DELETE that finds nothing
        return isinstance(error, UnknownClaim)
    return step.answer is None or step.error == type(error).__name__


def _agrees(step: Step, answer: tuple[dict[str, Any], ...]) -> bool:
    assert step.answer is not None
    if "ok" not in step.answer:
        return False
    if step.verb in ("release", "guard", "remove_row"):
        return True
    return bool(step.answer["ok"] == list(answer))
