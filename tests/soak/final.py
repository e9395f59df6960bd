"""What was found when the faults had ended: every claim, every counter, every lock, compared with the journals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from delimiter.engines.memory.claims import Record
from delimiter.engines.memory.rules import Rules
from soak.history import History, Operation
from soak.model import State, row_id, told
from soak.violation import Violation
from soak.world import ROWS, scope_of

#: Seconds by which a call may be late on a machine that is busy.
_GRACE = 3.0


def listed_claims(final: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Every claim that was listed, by id: more than one is one too many. Counted rows are listed like claims."""
    found: dict[str, list[dict[str, Any]]] = {}
    for claim in final["claims"]:
        found.setdefault(claim["id"], []).append(claim)
    for row in final.get("rows", ()):
        found.setdefault(row_id(row["id"]), []).append(
            {"id": row_id(row["id"]), "state": "provisioned", **row}
        )
    return found


def fits(
    state: State, names: Iterable[str], listed: Mapping[str, Sequence[Mapping[str, Any]]], at: Sequence[int]
) -> bool:
    """Whether the claims of a family are listed as they should be. ``at``: when the listing began and ended."""
    return all(_one_fits(state.get(name), listed.get(name, ()), at) for name in set(names) | set(state))


def _one_fits(record: Record | None, found: Sequence[Mapping[str, Any]], at: Sequence[int]) -> bool:
    if record is not None and ROWS in record.resources:
        return len(found) == (record.state == "provisioned") and all(
            (one["project"], one["user"]) == (record.project, record.user) for one in found
        )
    if record is None:
        return not found
    return len(found) == 1 and any(dict(found[0]) == told(record.claim_at(now)) for now in at)


def unknown_claims(listed: Iterable[str], known: set[str]) -> Iterator[Violation]:
    for id in sorted(set(listed) - known):
        yield Violation("doubled", f"there is a claim {id} that nobody asked for")


def rules_fit(state: Rules, final: Mapping[str, Any]) -> bool:
    if not final:
        return True
    own = {(name, scope_of(scope)): maximum for name, scope, maximum in final["own_limits"]}
    kept = {key: maximum for key, (maximum, _) in state.own.items()}
    defined = {name for usage in final["usage"].values() for name in usage}
    kept = {key: maximum for key, maximum in kept.items() if key[0] in defined}
    return own == kept and final["projects"] == state.tree.parents


def crashes(operations: Iterable[Operation]) -> Iterator[Violation]:
    """Exceptions that are none of the interface's came out."""
    for one in operations:
        if one.answer is not None and "crash" in one.answer:
            yield Violation("crash", one.answer["crash"], [one.told()])


def checked(history: History) -> Iterator[Violation]:
    """Everything that needs no replay."""
    final = history.final
    for line in final["drift"]:
        yield Violation("drift", f"reconcile found {line}")
    yield from _sums(final)
    yield from _service_rows(history)
    yield from _sweeps(history)
    for line in final["locks"]:
        yield Violation("stuck", f"after the end there is still {line}")
    yield from _stuck(history)
    yield from _not_filled(history)


def _not_filled(history: History) -> Iterator[Violation]:
    """At the end of a race everybody has claimed until nothing was left."""
    filled = history.settings.get("filled")
    if filled:
        limit, used, _ = history.final["usage"]["total"][filled]
        if used != limit:
            yield Violation("race", f"{used} of {filled} are used at the end, the limit is {limit}")


def _sums(final: Mapping[str, Any]) -> Iterator[Violation]:
    """What each scope is said to use is the sum of the claims that are live, with those of projects below."""
    parents = final["projects"]
    sums: dict[tuple[str, str], int] = {}
    for claim in (*final["claims"], *({**row, "resources": {ROWS: 1}} for row in final.get("rows", ()))):
        if claim.get("state", "provisioned") not in ("reserved", "provisioned"):
            continue
        scopes = ["total", *([] if claim["user"] is None else [f"user:{claim['user']}"])]
        project = claim["project"]
        while project is not None:
            scopes.append(f"project:{project}")
            project = parents.get(project)
        for scope in scopes:
            for name, amount in claim["resources"].items():
                sums[name, scope] = sums.get((name, scope), 0) + amount
    for scope, usage in final["usage"].items():
        for name, (_, used, _) in usage.items():
            if used != sums.get((name, scope), 0):
                what = f"{name} of {scope}: {used} is said to be used, its claims hold {sums.get((name, scope), 0)}"
                yield Violation("drift", what)


def _service_rows(history: History) -> Iterator[Violation]:
    """The service's own rows were written in the transactions of their claims: both are there, or neither."""
    if "service_rows" not in history.final:
        return
    rows = set(history.final["service_rows"])
    made = {one["id"] for one in history.final["claims"] if one["id"].endswith("t")}
    for id in sorted(made ^ rows):
        yield Violation(
            "altered", f"{id}: {'a claim without its row' if id in made else 'a row without its claim'}"
        )


def _sweeps(history: History) -> Iterator[Violation]:
    """No reservation is swept twice, whoever sweeps at once."""
    swept = sum(
        one.answer["ok"]
        for one in history.operations
        if one.verb == "expire" and one.outcome == "done" and one.answer is not None and "ok" in one.answer
    )
    expired = sum(one["state"] == "expired" for one in history.final["claims"])
    released = sum(one["state"] == "released" for one in history.final["claims"])
    if swept > expired + released:
        yield Violation("two ends", f"{swept} reservations were swept, {expired} have expired")


def _stuck(history: History) -> Iterator[Violation]:
    """After the faults every call is answered, within the timeout, by more than that it could not be answered."""
    healed, timeout = history.final["healed_at"], history.settings["timeout"]
    for one in history.operations:
        if one.start < healed:
            continue
        late = one.end - one.start > (timeout + _GRACE) * 1_000_000
        gave_up = one.verb != "transaction" and one.error in ("Conflict", "StoreUnavailable")
        if late or gave_up:
            yield Violation(
                "stuck", "after everything was healed a call was not answered in time", [one.told()]
            )
