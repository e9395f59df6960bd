"""Bad input, as tables: the documented error, nothing changed, and nothing of a driver."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from delimiter import (
    Conflict,
    Delimiter,
    DelimiterError,
    InvalidRequest,
    Request,
    Resource,
    Scope,
    UnknownClaim,
    UnknownProject,
    UnknownResource,
)
from delimiter.conformance.contract import OWNERS, Contract, sight
from delimiter.edits import AddProject, Define, Edit, LimitChange, SetLimit, Undefine
from delimiter.model import CEILING

if TYPE_CHECKING:
    from delimiter.engine import Engine

Row: TypeAlias = tuple[str, Callable[[Any], object], type[DelimiterError]]

_BAD_NAMES: dict[str, Any] = {
    "empty": "",
    "too long": "x" * 256,
    "newline": "a\nb",
    "nul": "a\x00b",
    "escape": "\x1b[2J",
    "delete": "a\x7f",
    "c1 control": "a\x85b",
    "half a surrogate": "a\ud800",
    "bytes": b"a",
    "number": 7,
    "list": ["a"],
}
_BAD_AMOUNTS: dict[str, Any] = {
    "zero": 0,
    "negative": -1,
    "bool": True,
    "float": 1.0,
    "none": None,
    "text": "1",
    "nan": float("nan"),
    "too large": CEILING + 1,
    "far too large": 10**40,
}
_BAD_MAPPINGS: dict[str, Any] = {
    "empty": {},
    "none": None,
    "list": ["cores"],
    "text": "cores",
    "pairs": [("cores", 1)],
}
_BAD_LIMITS: dict[str, Any] = {
    "below -1": -2,
    "bool": True,
    "float": 1.0,
    "text": "5",
    "too large": CEILING + 1,
    "infinity": float("inf"),
}
_BAD_TIMES: dict[str, Any] = {
    "zero": 0,
    "negative": -1,
    "bool": True,
    "text": "60",
    "nan": float("nan"),
    "infinity": float("inf"),
    "negative timedelta": timedelta(seconds=-1),
    "no time": timedelta(0),
    "beyond any date": 1e15,
}


def _names() -> list[Row]:
    rows: list[Row] = []
    places: dict[str, Callable[[Any, Any], object]] = {
        "resource": lambda q, bad: q.define_resource(bad),
        "service": lambda q, bad: q.define_resource("new", service=bad),
        "limit of resource": lambda q, bad: q.update_limits(bad, max=1),
        "undefined resource": lambda q, bad: q.undefine_resource(bad),
        "claimed resource": lambda q, bad: q.claim({bad: 1}, user="john"),
        "project": lambda q, bad: q.claim({"cores": 1}, project=bad),
        "user": lambda q, bad: q.claim({"cores": 1}, project="acme", user=bad),
        "id": lambda q, bad: q.claim({"cores": 1}, user="john", id=bad),
        "parent": lambda q, bad: q.claim({"cores": 1}, user="john", parent=bad),
        "external id": lambda q, bad: q.claim({"cores": 1}, user="john", external_id=bad),
        "list": lambda q, bad: q.claim_all(
            [Request({"cores": 1}, user="john"), Request({"cores": 1}, user=bad)]
        ),
        "provision": lambda q, bad: q.provision(bad),
        "provision external": lambda q, bad: q.provision("held", external_id=bad),
        "renew": lambda q, bad: q.renew(bad, expires_in=1),
        "resize": lambda q, bad: q.resize(bad, {"cores": 1}),
        "transfer": lambda q, bad: q.transfer(bad, user="john"),
        "transfer to": lambda q, bad: q.transfer("held", user=bad),
        "transfer into": lambda q, bad: q.transfer("held", project=bad),
        "release": lambda q, bad: q.release(bad),
        "get": lambda q, bad: q.get_claim(bad),
        "check": lambda q, bad: q.check({"cores": 1}, project=bad),
        "usage": lambda q, bad: q.usage(user=bad),
        "limits": lambda q, bad: q.limits(project=bad),
        "limit of user": lambda q, bad: q.update_limits("cores", user=bad, max=1),
        "claims": lambda q, bad: list(q.claims(user=bad)),
        "claims below": lambda q, bad: list(q.claims(project=bad, subtree=True)),
        "explain": lambda q, bad: q.explain({"cores": 1}, project="acme", user=bad),
        "add": lambda q, bad: q.add_project(bad),
        "add below": lambda q, bad: q.add_project("new", parent=bad),
        "move": lambda q, bad: q.move_project(bad, parent="tree"),
        "move below": lambda q, bad: q.move_project("leaf", parent=bad),
        "remove": lambda q, bad: q.remove_project(bad),
        "edit of a project": lambda q, bad: q.edit([AddProject("new", None), AddProject("leaf", bad)]),
        "edit of a limit": lambda q, bad: q.edit(
            [SetLimit("cores", Scope("project", bad), LimitChange(max=1))]
        ),
        "edit of a resource": lambda q, bad: q.edit([AddProject("new", None), Undefine(bad)]),
        "edit of a definition": lambda q, bad: q.edit([Define(Resource(bad, "compute"))]),
    }
    for place, call in places.items():
        for kind, bad in _BAD_NAMES.items():
            if place == "claimed resource" and kind == "list":
                continue  # no dictionary takes it
            rows.append(
                (f"{place} {kind}", lambda q, call=call, bad=bad: call(q, bad), InvalidRequest)  # type: ignore[misc]
            )
    return rows


def _amounts() -> list[Row]:
    rows: list[Row] = []
    verbs: dict[str, Callable[[Any, Any], object]] = {
        "claim": lambda q, bad: q.claim(bad, user="john"),
        "reserve": lambda q, bad: q.reserve(bad, user="john", expires_in=60),
        "claim_all": lambda q, bad: q.claim_all(
            [Request({"cores": 1}, user="john"), Request(bad, user="john")]
        ),
        "resize": lambda q, bad: q.resize("held", bad),
        "check": lambda q, bad: q.check(bad, user="john"),
        "explain": lambda q, bad: q.explain(bad, user="john"),
    }
    for verb, call in verbs.items():
        mappings = _BAD_MAPPINGS | {kind: {"cores": 1, "ram": bad} for kind, bad in _BAD_AMOUNTS.items()}
        for kind, bad in mappings.items():
            rows.append((f"{verb} {kind}", lambda q, call=call, bad=bad: call(q, bad), InvalidRequest))  # type: ignore[misc]
    for kind, bad in _BAD_TIMES.items():
        times: dict[str, Callable[[Any, Any], object]] = {
            "reserve": lambda q, bad: q.reserve({"cores": 1}, user="john", expires_in=bad),
            "renew": lambda q, bad: q.renew("held", expires_in=bad),
            "claim_all": lambda q, bad: q.claim_all([Request({"cores": 1}, user="john", expires_in=bad)]),
        }
        for verb, call in times.items():
            rows.append((f"{verb} time {kind}", lambda q, call=call, bad=bad: call(q, bad), InvalidRequest))  # type: ignore[misc]
    return rows


def _update_cores(quota: Delimiter, given: dict[str, Any]) -> object:
    return quota.update_limits("cores", **given)


def _edit(quota: Delimiter, edits: Any, **given: Any) -> object:
    return quota.edit(edits, **given)


def _limits() -> list[Row]:
    rows: list[Row] = []
    for word in ("max", "min", "project_max", "project_min", "user_max", "user_min"):
        for kind, bad in _BAD_LIMITS.items():
            rows.append(
                (
                    f"define {word} {kind}",
                    lambda q, word=word, bad=bad: q.define_resource("cores", **{word: bad}),  # type: ignore[misc]
                    InvalidRequest,
                )
            )
    for word, kind, scope in itertools.product(("max", "min"), _BAD_LIMITS, OWNERS):
        given: dict[str, Any] = {**scope, word: _BAD_LIMITS[kind]}
        call = partial(_update_cores, given=given)
        rows.append((f"update {word} {kind} of {scope}", call, InvalidRequest))
    for kind, bad in _BAD_LIMITS.items():
        edits: list[Edit] = [
            SetLimit("cores", Scope("user", "john"), LimitChange(max=bad)),
            SetLimit("cores", Scope.total(), LimitChange(min=bad)),
            Define(Resource("cores", "cores", project_max=bad)),
        ]
        rows += [
            (f"edit {kind}: {edit}", partial(_edit, edits=[AddProject("new", None), edit]), InvalidRequest)
            for edit in edits
        ]
    rows += [
        ("define none", lambda q: q.define_resource("new", max=None), InvalidRequest),
        ("define negative floor", lambda q: q.define_resource("new", min=-1), InvalidRequest),
        ("update negative floor", lambda q: q.update_limits("cores", user="john", min=-1), InvalidRequest),
        ("limits of a pair", lambda q: q.limits(project="acme", user="john"), InvalidRequest),
        ("usage of a pair", lambda q: q.usage(project="acme", user="john"), InvalidRequest),
        (
            "update of a pair",
            lambda q: q.update_limits("cores", project="acme", user="john", max=1),
            InvalidRequest,
        ),
        ("unit", lambda q: q.define_resource("new", unit=7), InvalidRequest),
        ("description", lambda q: q.define_resource("new", description=None), InvalidRequest),
    ]
    return rows


_CROSSED = SetLimit("cores", Scope("user", "john"), LimitChange(max=1, min=2))

_CALLS: list[Row] = [
    ("claim for nobody", lambda q: q.claim({"cores": 1}), InvalidRequest),
    ("reserve for nobody", lambda q: q.reserve({"cores": 1}, expires_in=60), InvalidRequest),
    ("check for nobody", lambda q: q.check({"cores": 1}), InvalidRequest),
    ("transfer to nobody", lambda q: q.transfer("held"), InvalidRequest),
    ("reserve without end", lambda q: q.reserve({"cores": 1}, user="john", expires_in=None), InvalidRequest),
    ("renew without end", lambda q: q.renew("held", expires_in=None), InvalidRequest),
    ("an empty list", lambda q: q.claim_all([]), InvalidRequest),
    ("a list of dicts", lambda q: q.claim_all([{"resources": {"cores": 1}}]), InvalidRequest),
    ("one for nobody", lambda q: q.claim_all([Request({"cores": 1})]), InvalidRequest),
    ("one id twice", lambda q: q.claim_all([Request({"cores": 1}, user="john", id="a")] * 2), InvalidRequest),
    (
        "a known id twice",
        lambda q: q.claim_all([Request({"cores": 1}, user="john", id="c")] * 2),
        InvalidRequest,
    ),
    ("unknown state", lambda q: list(q.claims(state="live")), InvalidRequest),
    ("prune the future", lambda q: q.prune(older_than=-1), InvalidRequest),
    ("prune a bool", lambda q: q.prune(older_than=True), InvalidRequest),
    ("prune text", lambda q: q.prune(older_than="1d"), InvalidRequest),
    ("prune nan", lambda q: q.prune(older_than=float("nan")), InvalidRequest),
    ("undefine what is claimed", lambda q: q.undefine_resource("cores"), InvalidRequest),
    ("undefine the unknown", lambda q: q.undefine_resource("Cores"), UnknownResource),
    ("limit of the unknown", lambda q: q.update_limits("cores ", max=1), UnknownResource),
    ("claim the unknown", lambda q: q.claim({"cores": 1, "CORES": 1}, user="john"), UnknownResource),
    ("reserve the unknown", lambda q: q.reserve({"x": 1}, user="john", expires_in=60), UnknownResource),
    ("check the unknown", lambda q: q.check({"x": CEILING}, user="john"), UnknownResource),
    ("resize to the unknown", lambda q: q.resize("held", {"x": 1}), UnknownResource),
    ("get another case", lambda q: q.get_claim("HELD"), UnknownClaim),
    ("release with a space", lambda q: q.release("held "), UnknownClaim),
    ("release what looks like all", lambda q: q.release("%"), UnknownClaim),
    ("renew what is provisioned", lambda q: q.renew("c", expires_in=60), InvalidRequest),
    ("explain for nobody", lambda q: q.explain({"cores": 1}), InvalidRequest),
    ("explain the unknown", lambda q: q.explain({"x": 1}, user="john"), UnknownResource),
    ("events after text", lambda q: list(q.events(after="1")), InvalidRequest),
    ("events after a bool", lambda q: list(q.events(after=True)), InvalidRequest),
    ("events after a float", lambda q: list(q.events(after=1.0)), InvalidRequest),
    ("events before the first", lambda q: list(q.events(after=-1)), InvalidRequest),
    ("events after nothing", lambda q: list(q.events(after=None)), InvalidRequest),
    ("subscribe with nothing to call", lambda q: q.subscribe("print"), InvalidRequest),
    ("subscribe after text", lambda q: q.subscribe(print, after="1"), InvalidRequest),
]

#: On the tree of ``_hold``: ``leaf`` below ``tree``, and claims in acme, which the tree does not know.
_TREE: list[Row] = [
    ("move acme", lambda q: q.move_project("acme", parent="tree"), UnknownProject),
    ("move to acme", lambda q: q.move_project("leaf", parent="acme"), UnknownProject),
    ("move another case", lambda q: q.move_project("Leaf", parent=None), UnknownProject),
    ("remove acme", lambda q: q.remove_project("acme"), UnknownProject),
    ("remove with a space", lambda q: q.remove_project("leaf "), UnknownProject),
    ("remove a parent", lambda q: q.remove_project("tree"), InvalidRequest),
    ("add below acme", lambda q: q.add_project("new", parent="acme"), UnknownProject),
    ("add elsewhere", lambda q: q.add_project("leaf"), InvalidRequest),
    ("add the root below its leaf", lambda q: q.add_project("tree", parent="leaf"), InvalidRequest),
    ("move below itself", lambda q: q.move_project("tree", parent="tree"), InvalidRequest),
    ("move below the leaf", lambda q: q.move_project("tree", parent="leaf"), InvalidRequest),
    ("overbooking", lambda q: q.set_overbooking("sometimes"), InvalidRequest),
    ("overbooking as a bool", lambda q: q.set_overbooking(False), InvalidRequest),
    ("an edit that is none", lambda q: q.edit([AddProject("new", None), "add"]), InvalidRequest),
    ("an edit of nothing", lambda q: q.edit([AddProject("new", None), None]), InvalidRequest),
    ("a version as text", lambda q: q.edit([AddProject("new", None)], if_version="1"), InvalidRequest),
    ("a version as a bool", lambda q: q.edit([AddProject("new", None)], if_version=True), InvalidRequest),
    ("a version of long ago", lambda q: q.edit([AddProject("new", None)], if_version=-1), Conflict),
    ("limits that cross", partial(_edit, edits=[_CROSSED, AddProject("new", None)]), InvalidRequest),
    (
        "a trial of the unknown",
        lambda q: q.update_limits("x", project="acme", max=1, dry_run=True),
        UnknownResource,
    ),
]


def _hold(quota: Delimiter, trace: Callable[[], object], rows: list[Row]) -> None:
    """Every row raises its error, and the store looks the same as before; all that fail are told at once."""
    quota.define_resource("cores", max=100, project_max=50, user_max=25)
    quota.define_resource("ram")
    quota.claim({"cores": 2, "ram": 3}, project="acme", user="john", id="c", external_id="vm")
    quota.reserve({"cores": 1}, user="john", id="held", expires_in=6000)
    quota.add_project("tree")
    quota.add_project("leaf", parent="tree")
    before, unchanged = sight(quota), trace()
    wrong: list[str] = []
    for name, call, expected in rows:
        try:
            call(quota)
        except expected as error:
            if not str(error):
                wrong.append(f"{name}: {expected.__name__} without a word")
        except Exception as error:
            wrong.append(f"{name}: {error!r} instead of {expected.__name__}")
        else:
            wrong.append(f"{name}: nothing raised instead of {expected.__name__}")
        if unchanged is not None and trace() == unchanged:
            continue
        if sight(quota) != before:
            wrong.append(f"{name}: the store was changed")
            before = sight(quota)
        unchanged = trace()
    assert wrong == []
    assert sight(quota) == before


class InputContract(Contract):
    def test_bad_names(self, engine: Engine, quota: Delimiter) -> None:
        _hold(quota, partial(self.trace, engine), _names())

    def test_bad_amounts_and_times(self, engine: Engine, quota: Delimiter) -> None:
        _hold(quota, partial(self.trace, engine), _amounts())

    def test_bad_limits(self, engine: Engine, quota: Delimiter) -> None:
        _hold(quota, partial(self.trace, engine), _limits())

    def test_bad_calls(self, engine: Engine, quota: Delimiter) -> None:
        _hold(quota, partial(self.trace, engine), _CALLS)

    def test_bad_edits_of_the_tree(self, engine: Engine, quota: Delimiter) -> None:
        _hold(quota, partial(self.trace, engine), _TREE)

    def test_an_invalid_request_is_a_value_error(self) -> None:
        assert issubclass(InvalidRequest, ValueError)
