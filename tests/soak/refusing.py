"""Whether answers about room were true: refusals, admissions by ``check``, and what ``usage`` said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from delimiter.model import UNLIMITED
from soak.bounds import Bounds, Piece, amounts
from soak.history import Operation, Step
from soak.model import ADMITTING, new_claims
from soak.violation import Violation
from soak.world import scope_of

#: What one step of a transaction may have given back before a later one was refused: more than any claim holds.
_MOST_GIVEN_BACK = 50


def wrong_answers(
    operation: Operation, bounds: Bounds, tolerance: float, *, catches_up_once: bool = False
) -> Iterator[Violation]:
    """Answers of this operation that cannot be true, whatever happened around it.

    ``catches_up_once``: a node waits for what the others have committed when a transaction begins, and not again. What
    it tells later on may be as old as that.
    """
    for number, step in enumerate(operation.steps):
        slack = _slack(operation.steps[:number])
        start = operation.start if catches_up_once else step.start
        looks = _Looks(step, bounds, start - tolerance, step.end + tolerance, slack)
        if step.answer is None:
            continue
        if step.error == "OverLimit":
            reasons = looks.wrong_refusal()
        elif step.verb == "check" and "ok" in step.answer:
            reasons = looks.wrong_decision()
        elif step.verb == "usage" and "ok" in step.answer:
            reasons = looks.wrong_usage()
        else:
            continue
        kind = "false admission" if step.verb == "check" and step.answer.get("ok") else "false refusal"
        if step.verb == "usage":
            kind = "wrong usage"
        for reason in reasons:
            yield Violation(kind, reason, [operation.told()])


def _slack(steps: list[Step]) -> int:
    """What the transaction itself has changed before, which nobody else sees yet."""
    made = sum(sum(amounts(one.resources for one in new_claims(step)).values()) for step in steps)
    return made + _MOST_GIVEN_BACK * sum(step.verb not in ADMITTING for step in steps)


class _Looks:
    def __init__(self, step: Step, bounds: Bounds, start: float, end: float, slack: int) -> None:
        self._step = step
        self._bounds = bounds
        self._start, self._end = start, end
        self._slack = slack

    def _pieces(self, resource: str, scope: str) -> list[Piece]:
        series = self._bounds.series.get((resource, scope_of(scope)))
        return [] if series is None else list(series.between(self._start, self._end))

    def _is_possible(self, resource: str, scope: str, limit: int, used: int) -> bool:
        limit_ = float("inf") if limit == UNLIMITED else limit
        return any(
            limit_ in piece.limits and piece.least - self._slack <= used <= piece.most + self._slack
            for piece in self._pieces(resource, scope)
        )

    def wrong_refusal(self) -> Iterator[str]:
        violations = self._step.violations
        if not violations:
            yield "refused without a reason"
        wanted = self._wanted()
        for resource, scope, limit, used, requested, available in violations:
            said = f"{resource} of {scope}: limit {limit}, used {used}, requested {requested}"
            if not self._is_possible(resource, scope, limit, used):
                yield f"{said}: at no moment of the call was that so ({self._seen(resource, scope)})"
            elif used + requested <= limit or available != max(0, limit - used):
                yield f"{said}, available {available}: that fits"
            elif wanted and all(requested != one.get((resource, scope)) for one in wanted):
                yield f"{said}: {[one.get((resource, scope)) for one in wanted]} was asked for"
        named = {(resource, scope) for resource, scope, *_ in violations}
        for resource, scope in _in_all(wanted):
            pieces = self._pieces(resource, scope)
            amount = min(one[resource, scope] for one in wanted)
            in_the_way = all(piece.least - self._slack + amount > max(piece.limits) for piece in pieces)
            if pieces and in_the_way and (resource, scope) not in named:
                yield f"{resource} of {scope} was in the way as well, and is not named"

    def wrong_decision(self) -> Iterator[str]:
        assert self._step.answer is not None
        if not self._step.answer["ok"]:
            yield from self.wrong_refusal()
            return
        wanted = self._wanted()
        for resource, scope in _in_all(wanted):
            amount = min(one[resource, scope] for one in wanted)
            if all(piece.least + amount > max(piece.limits) for piece in self._pieces(resource, scope)):
                yield f"{amount} {resource} would not have fitted {scope} ({self._seen(resource, scope)})"

    def wrong_usage(self) -> Iterator[str]:
        assert self._step.answer is not None
        scope = self._step.args["scope"]
        for resource, (limit, used, _) in self._step.answer["ok"].items():
            if not self._is_possible(resource, scope, limit, used):
                yield f"{resource} of {scope}: {used} of {limit} used ({self._seen(resource, scope)})"

    def _wanted(self) -> list[Mapping[tuple[str, str], int]]:
        """What was asked for of each scope, under each tree that may have been the present one."""
        if self._step.verb == "check":
            asked = [
                (self._step.args["resources"], self._step.args.get("project"), self._step.args.get("user"))
            ]
        else:
            asked = [(one.resources, one.project, one.user) for one in new_claims(self._step)]
        found: list[Mapping[tuple[str, str], int]] = []
        for rules in self._bounds.rules_between(self._start, self._end) if asked else ():
            one: dict[tuple[str, str], int] = {}
            for resources, project, user in asked:
                for scope in rules.tree.path(project, user):
                    for name, amount in resources.items():
                        one[name, str(scope)] = one.get((name, str(scope)), 0) + amount
            found.append(one)
        return found

    def _seen(self, resource: str, scope: str) -> str:
        pieces = self._pieces(resource, scope)
        if not pieces:
            return "nothing is known of it"
        least, most = min(piece.least for piece in pieces), max(piece.most for piece in pieces)
        limits = sorted({limit for piece in pieces for limit in piece.limits})
        return f"{least} to {most} used, limits {limits}"


def _in_all(wanted: list[Mapping[tuple[str, str], int]]) -> list[tuple[str, str]]:
    """The scopes that are charged whichever tree was in force."""
    return [key for key in (wanted[0] if wanted else {}) if all(key in one for one in wanted)]
