"""The checker: what a history shows, against what Delimiter promises.

Nothing here is a matter of luck: whatever is reported is wrong in every order of events that the journal allows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from delimiter.edits import Edit, LimitChange, MoveProject, SetLimit
from delimiter.engines.memory.claims import Record
from delimiter.engines.memory.editing import Editor
from delimiter.engines.memory.rules import Rules
from delimiter.errors import DelimiterError
from delimiter.model import Scope
from soak import final, refusing
from soak.bounds import Bounds, Change, changes_of, changes_of_undecided, over
from soak.families import families
from soak.history import History, Operation
from soak.model import Model, Observed, State, own_id, state_key
from soak.orders import Node, Orders, Unexplained
from soak.violation import Violation
from soak.world import rules, scope_of

EDITS = ("update_limits", "move_project")
#: Microseconds by which the store's clock and a client's may be read differently.
TOLERANCE = 5_000.0
#: Whose nodes wait for each other at a transaction's first statement only.
CATCH_UP_ONCE = ("galera",)


@dataclass
class Verdict:
    """What was found, and how much was looked at."""

    violations: list[Violation] = field(default_factory=list)
    #: How often each verb had which end.
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    families: int = 0
    undecided: int = 0

    #: Of all that can be refused for want of room, in the order in which it was asked for: whether it was.
    decided: list[bool] = field(default_factory=list)

    @property
    def refused_share(self) -> float:
        return sum(self.at_the_limits) / max(1, len(self.at_the_limits))

    @property
    def at_the_limits(self) -> list[bool]:
        """What was decided since the first refusal: before, the limits were not reached."""
        return self.decided[self.decided.index(True) :] if any(self.decided) else []


CAN_BE_REFUSED = ("claim", "reserve", "claim_all", "guard")


def judge(history: History) -> Verdict:
    """Everything that is wrong in a history."""
    verdict = Verdict()
    tolerance = float(history.settings.get("tolerance_us", TOLERANCE))
    _settle(history.operations)
    _count(history.operations, verdict)
    verdict.violations += final.crashes(history.operations)
    rule_nodes = _rules(history, verdict)
    changes: list[Change] = []
    claims = [one for one in history.operations if one.verb not in (*EDITS, "check", "usage", "expire")]
    claims += [first for one in claims for first in _first_try(one)]
    listed = final.listed_claims(history.final) if history.final else {}
    observed = Observed.by(claims, (one for some in listed.values() for one in some))
    model = Model(observed, tolerance=tolerance)
    known: set[str] = set()
    for names, family in families(claims):
        verdict.families += 1
        known |= names
        changes += _explain(model, names, family, listed if history.final else None, history, verdict)
    if history.final:
        verdict.violations += final.unknown_claims(listed, known)
    if rule_nodes:
        verdict.violations += _about_room(history, rule_nodes, changes, tolerance)
    if history.final:
        verdict.violations += final.checked(history)
    return verdict


def _about_room(
    history: History, rule_nodes: Sequence[Node[Rules]], changes: Iterable[Change], tolerance: float
) -> Iterator[Violation]:
    keys = [(name, scope) for name in rules().definitions for scope in _scopes(history)]
    bounds = Bounds(rule_nodes, changes, keys)
    for (name, scope), piece in over(bounds):
        what = f"{name} of {scope}: at least {piece.least} held where {piece.cap:g} is the most"
        yield Violation("over", what)
    once = history.settings.get("store") in CATCH_UP_ONCE
    for operation in history.operations:
        yield from refusing.wrong_answers(operation, bounds, tolerance, catches_up_once=once)


def _settle(operations: Sequence[Operation]) -> None:
    """What was never answered, and was asked again with its id: when that was answered, it had happened or never will.

    The repetition waits for the rows that the first attempt holds.
    """
    settled: dict[str, float] = {}
    for one in sorted(operations, key=lambda one: -one.start):
        end = one.end if one.outcome == "done" else settled.get(one.key)
        if one.repeats is not None and end is not None:
            settled[one.repeats] = min(end, settled.get(one.repeats, end))
        if one.outcome == "unknown" and end is not None:
            one.end = end
            for step in one.steps:
                step.end = min(step.end, one.end)


def _first_try(operation: Operation) -> Iterator[Operation]:
    """A call asks again by itself when no answer comes to COMMIT, and is told what became of its first try meanwhile.

    So what is said to have ended may have been made or changed by this very call.
    """
    if operation.verb == "transaction" or operation.error not in ("ClaimExpired", "ClaimReleased"):
        return
    steps = [replace(step, answer=None) for step in operation.steps]
    key = f"{operation.key} (its first try)"
    yield replace(operation, key=key, steps=steps, outcome="unknown", answer=None)


def _count(operations: Iterable[Operation], verdict: Verdict) -> None:
    for one in operations:
        if one.verb == "transaction":
            verdict.answers["transaction", _end_of_transaction(one)] += 1
        for step in one.steps:
            end = step.error or ("ok" if step.answer is not None else "in doubt")
            verdict.answers[step.verb, end] += 1
            if step.verb in CAN_BE_REFUSED and end in ("ok", "OverLimit"):
                verdict.decided.append(end == "OverLimit")


def _end_of_transaction(one: Operation) -> str:
    if one.answer is None:
        return "killed"
    return str(one.answer.get("end") or one.answer.get("error"))


# -- the rules ----------------------------------------------------------------------------------------------------


def _rules(history: History, verdict: Verdict) -> Sequence[Node[Rules]]:
    edits = [one for one in history.operations if one.verb in EDITS]
    orders = Orders(_edited, key=_rules_key, fits_the_end=lambda state: final.rules_fit(state, history.final))
    found = orders.explain(rules(), edits)
    if isinstance(found, Unexplained):
        what = (
            "the rules at the end are not those that were set" if found.at_the_end else "edits make no sense"
        )
        verdict.violations.append(Violation("rules", what, [one.told() for one in found.blocked]))
        return []  # which limits were in force nobody knows: about room nothing more can be said
    return found.nodes


def _edited(state: Rules, operation: Operation) -> Iterator[Rules]:
    editor = Editor(state, (), 0)
    error = operation.error if operation.outcome == "done" else None
    try:
        editor.make([_edit(operation)])
    except DelimiterError as wrong:
        if operation.outcome == "unknown" or error == type(wrong).__name__:
            yield state
        return
    if error == "OverLimit":
        yield state
    elif error is None:
        yield editor.rules


def _edit(operation: Operation) -> Edit:
    args = operation.args
    if operation.verb == "move_project":
        return MoveProject(args["id"], args["parent"])
    return SetLimit(args["resource"], scope_of(args["scope"]), LimitChange(max=args["max"]))


def _rules_key(state: Rules) -> Any:
    return tuple(sorted(state.own.items())), tuple(sorted(state.tree.parents.items(), key=str))


def _scopes(history: History) -> list[Scope]:
    projects = [Scope("project", name) for name in rules().tree.parents]
    users = {
        step.args.get("user") or request.get("user")
        for one in history.operations
        for step in one.steps
        for request in (step.args.get("requests") or [step.args])
    }
    return [Scope.total(), *projects, *(Scope("user", name) for name in sorted(filter(None, users)))]


# -- claims -------------------------------------------------------------------------------------------------------


def _explain(
    model: Model,
    names: set[str],
    family: Sequence[Operation],
    listed: Mapping[str, Sequence[Mapping[str, Any]]] | None,
    history: History,
    verdict: Verdict,
) -> Iterator[Change]:
    def fits(state: State) -> bool:
        return listed is None or final.fits(state, names, listed, history.final["at"])

    first: dict[str, Record] = {}
    found = Orders(model.after, key=state_key, fits_the_end=fits).explain(first, family)
    if isinstance(found, Unexplained):
        verdict.violations.append(_named(found, names, family, listed))
        return iter(())
    if not found.complete:
        verdict.undecided += 1
        return changes_of_undecided(found.nodes)
    return changes_of(found.nodes, float(history.settings.get("tolerance_us", TOLERANCE)))


def _named(
    found: Unexplained[State],
    names: set[str],
    family: Sequence[Operation],
    listed: Mapping[str, Sequence[Mapping[str, Any]]] | None,
) -> Violation:
    """Which promise is broken, as far as it can be told."""
    state = {id: one.state for id, one in found.state.items()}
    shown = [one.told() for one in sorted(family, key=lambda one: one.start)]
    if found.at_the_end:
        assert listed is not None
        there = {id: [one["state"] for one in listed.get(id, ())] for id in sorted(names)}
        kind = "altered"
        for id, one in found.state.items():
            if one.state in ("reserved", "provisioned") and not there.get(id):
                kind = "lost"
        if any(len(one) > 1 or (one and id not in found.state) for id, one in there.items()):
            kind = "doubled"
        return Violation(kind, f"expected {json.dumps(state)}, found {json.dumps(there)}", shown)
    blocked = found.blocked
    ends = {step.error for one in blocked for step in one.steps} & {"ClaimExpired", "ClaimReleased"}
    kind = "two ends" if ends or _ended(found.state, blocked) else "wrong answer"
    return Violation(kind, f"after {json.dumps(state)}: {'; '.join(one.told() for one in blocked)}", shown)


def _ended(state: State, blocked: Sequence[Operation]) -> bool:
    """Something was done to a claim that had ended."""
    named = [(own_id(step.args["id"]), step) for one in blocked for step in one.steps if "id" in step.args]
    return any(id in state and not state[id].live_at(int(step.start)) for id, step in named)
