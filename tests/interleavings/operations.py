"""What is done at once: the verbs, rules that change, guards, and callers' transactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from delimiter import Claim, Conflict, Delimiter, DelimiterError, OverLimit, Request
from delimiter.changes import Admit, NewClaim
from delimiter.engine import Answer
from driver_errors import met_another
from interleavings.stage import Kind, Stage, Step
from interleavings.world import COUNTED, ROWS, Store

__all__ = ["BY_NAME", "OPERATIONS", "Hand", "Operation", "answer", "outcome_of"]

#: Attempts of a caller whose transaction met another.
_ATTEMPTS: Final = 30


@dataclass(slots=True)
class Hand:
    """What one operation works with: a Delimiter of its own, and the service's engine at some level."""

    number: int
    quota: Delimiter
    #: By isolation level.
    services: dict[str, sa.Engine]
    stage: Stage
    others: list[Delimiter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done on the stage, and to the store that is believed."""

    name: str
    run: Callable[[Hand, str], Any]
    believed: Callable[[Delimiter, int], Any]
    #: A caller's transaction, which has an isolation level of its own.
    joins: bool = False
    #: The answer is not compared: how many a sweep finds depends on what others just hold.
    silent: bool = False


def answer(told: Any) -> Any:
    """What is said, without times and generated ids."""
    if told is None or isinstance(told, int):
        return told
    if not isinstance(told, list):
        told = [told]
    return [
        (one.id, sorted(one.resources.items()), one.project, one.user, one.parent, one.state, one.external_id)
        if hasattr(one, "external_id")
        else one
        if isinstance(one, str)
        else (one.resource, str(one.scope), one.limit, one.used)
        for one in told
    ]


def outcome_of(call: Callable[[], Any]) -> Any:
    """The answer, or what was raised by it."""
    try:
        return answer(call())
    except OverLimit as refusal:
        return refused(refusal.violations)
    except DelimiterError as error:
        return type(error).__name__, str(error)


def refused(violations: Any) -> Any:
    return "refused", sorted(
        (one.resource, str(one.scope), one.limit, one.used, one.requested) for one in violations
    )


# --- verbs in transactions of their own ------------------------------------------------------------------------


def _verb(name: str, call: Callable[[Delimiter, int], Any], *, silent: bool = False) -> Operation:
    def run(hand: Hand, _level: str) -> Any:
        return outcome_of(lambda: call(hand.quota, hand.number))

    def believed(quota: Delimiter, number: int) -> Any:
        return outcome_of(lambda: call(quota, number))

    return Operation(name, run, believed, silent=silent)


def _claim(quota: Delimiter, number: int, **more: Any) -> Any:
    return quota.claim({"cpu": 3, "disk": 5}, project="acme", user="john", id=f"new-{number}", **more)


def _take_the_name(quota: Delimiter, number: int) -> Any:
    """An external id that a provision gives too."""
    return quota.claim({"cpu": 1}, project="globex", id=f"t-{number}", external_id="vol-held")


def _drifts(quota: Delimiter, *, repair: bool) -> list[str]:
    """None, ever: a counter that is just being changed has not drifted."""
    return [str(drift) for drift in quota.reconcile(repair=repair)]


def _list(quota: Delimiter, number: int) -> Any:
    cluster = Request({"cpu": 1, "disk": 6}, project="zeta", user="mary", id=f"b-{number}")
    node = Request({"cpu": 2}, project="acme", user="john", id=f"a-{number}", parent=f"b-{number}")
    other = Request({"disk": 2}, project="acme", id=f"c-{number}", parent="root")
    return quota.claim_all([cluster, node, other] if number else [cluster, other, node])


def _batch(quota: Delimiter, number: int) -> Any:
    """Two callers of one process who met. Whoever is refused may have been the first: then it was told less."""
    changes = [
        Admit((NewClaim(f"{name}-{number}", {"cpu": 2, "disk": disk}, "acme", "john"),))
        for name, disk in (("x", 2), ("y", 3))
    ]
    outcomes = [outcome_of(lambda: _told(one)) for one in quota._engine.apply_each(changes)]  # noqa: B023
    return ["refused" if told[0] == "refused" else told for told in outcomes]


def _told(answer: Answer) -> list[Claim]:
    if isinstance(answer, DelimiterError):
        raise answer
    return list(answer)


# --- callers' transactions -------------------------------------------------------------------------------------


class _Undone(Exception):
    """The caller rolls back, with what it has been told."""


class _Met(Exception):
    """A Conflict is the caller's to answer, and no outcome."""


def _in_callers(hand: Hand, level: str, step: Callable[[sa.Connection], Any]) -> Any:
    """A transaction of the service; it is rolled back and begun anew where it met another."""
    for _ in range(_ATTEMPTS):
        try:
            with hand.services[level].begin() as connection:
                # A read of its own first: above READ COMMITTED the snapshot is from then on.
                connection.execute(sa.select(ROWS.c.id).where(ROWS.c.id == 1)).all()
                return step(connection)
        except _Undone as undone:
            return undone.args[0]
        except (Conflict, _Met):
            pass
        except sa.exc.DBAPIError as error:
            if not met_another(error):
                raise
        hand.stage.pause()
    return "never decided", None


def _add_row(connection: sa.Connection, project: str, name: str) -> None:
    connection.execute(sa.insert(ROWS).values(project_id=project, name=name))


def _commits(hand: Hand, level: str) -> Any:
    def step(connection: sa.Connection) -> Any:
        told = outcome_of(lambda: _claimed(hand, connection))
        if told[0] != "refused":
            _add_row(connection, "globex", f"of-{hand.number}")
        return told

    return _in_callers(hand, level, step)


def _rolls_back(hand: Hand, level: str) -> Any:
    def step(connection: sa.Connection) -> Any:
        told = outcome_of(lambda: _claimed(hand, connection))
        _add_row(connection, "globex", f"of-{hand.number}")
        raise _Undone(told if told[0] == "refused" else "admitted")

    return _in_callers(hand, level, step)


def _claimed(hand: Hand, connection: sa.Connection) -> Any:
    try:
        return _claim(hand.quota, hand.number, connection=connection)
    except Conflict as conflict:
        raise _Met from conflict


def _would_be_admitted(quota: Delimiter, _number: int) -> Any:
    decision = quota.check({"cpu": 3, "disk": 5}, project="acme", user="john")
    return "admitted" if decision.allowed else refused(decision.violations)


def _committed(quota: Delimiter, number: int) -> Any:
    told = outcome_of(lambda: _claim(quota, number))
    if told[0] != "refused":
        quota.claim({COUNTED: 1}, project="globex", id=f"row-of-{number}")
    return told


def _guard(*, optimistic: bool) -> Callable[[Hand, str], Any]:
    def run(hand: Hand, level: str) -> Any:
        def step(connection: sa.Connection) -> Any:
            try:
                with hand.quota.guard(
                    {COUNTED: 1}, project="acme", connection=connection, optimistic=optimistic
                ):
                    _add_row(connection, "acme", f"guarded-{hand.number}")
            except OverLimit as refusal:
                return refused(refusal.violations)
            return "admitted"

        return _in_callers(hand, level, step)

    return run


def _guarded(quota: Delimiter, number: int) -> Any:
    told = outcome_of(lambda: quota.claim({COUNTED: 1}, project="acme", id=f"guarded-{number}"))
    return told if told[0] == "refused" else "admitted"


# --- time ------------------------------------------------------------------------------------------------------


def _time_passes(hand: Hand, _level: str) -> Any:
    hand.stage.gate(Step(Kind.TIME, ""))
    Store.pass_time(hand.quota, *hand.others, seconds=10_000_000)


def _time_passed(quota: Delimiter, _number: int) -> None:
    Store.pass_time(quota, seconds=10_000_000)


OPERATIONS: Final = (
    _verb("claim", _claim),
    _verb("claim of the other", lambda q, n: q.claim({"cpu": 2}, project="zeta", user="john", id=f"z-{n}")),
    _verb("first claim", lambda q, n: q.claim({"cpu": 2}, project="fresh", user="newbie", id=f"f-{n}")),
    _verb("same id", lambda q, _: q.claim({"cpu": 2, "disk": 1}, project="acme", user="john", id="same")),
    _verb("same name", _take_the_name),
    _verb("list", _list),
    Operation("batch", lambda hand, _: _batch(hand.quota, hand.number), _batch),
    _verb("child", lambda q, n: q.claim({"cpu": 1}, project="zeta", parent="root", id=f"child-{n}")),
    _verb("grow", lambda q, _: q.resize("root", {"cpu": 6, "disk": 1})),
    _verb("shrink", lambda q, _: q.resize("root", {"cpu": 1})),
    _verb("release", lambda q, _: q.release("root")),
    _verb("release of held", lambda q, _: q.release("held")),
    _verb("provision", lambda q, _: q.provision("held", external_id="vol-held")),
    _verb("renew", lambda q, _: q.renew("held", expires_in=10**9)),
    _verb("transfer", lambda q, _: q.transfer("root", project="globex", user="mary")),
    _verb("sweep", lambda q, _: q.expire_reservations(), silent=True),
    _verb("reconcile", lambda q, _: _drifts(q, repair=False)),
    _verb("repair", lambda q, _: _drifts(q, repair=True)),
    _verb("lower limit", lambda q, _: q.update_limits("cpu", project="acme", max=6)),
    _verb("first total", lambda q, _: q.update_limits("cpu", max=11)),
    _verb("first of an ancestor", lambda q, _: q.update_limits("cpu", project="org", max=10)),
    _verb("first of a project", lambda q, _: q.update_limits("cpu", project="zeta", max=4)),
    _verb("lower default", lambda q, _: q.define_resource("disk", max=30, project_max=5)),
    _verb("move", lambda q, _: q.move_project("zeta", parent="globex")),
    _verb("move back", lambda q, _: q.move_project("acme", parent="zeta")),
    _verb("lower limit of rows", lambda q, _: q.update_limits(COUNTED, project="acme", max=2)),
    _verb("first of rows above", lambda q, _: q.update_limits(COUNTED, project="org", max=2)),
    Operation("caller commits", _commits, _committed, joins=True),
    Operation("caller rolls back", _rolls_back, _would_be_admitted, joins=True),
    Operation("guard", _guard(optimistic=False), _guarded, joins=True),
    Operation("optimistic guard", _guard(optimistic=True), _guarded, joins=True),
    Operation("time", _time_passes, _time_passed),
)
BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}
