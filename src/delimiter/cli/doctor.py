"""``doctor``: is the store there, can it be read and written, and does what it says add up?"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click
from rich.table import Table

from delimiter import Delimiter, DelimiterError, Drift, Overage, Project, ProjectUsage, Scope, Usage
from delimiter.cli import failures, options, show
from delimiter.cli.safe_text import Text
from delimiter.cli.session import Session
from delimiter.condition import Weakness
from delimiter.counted import MissingIndex
from delimiter.model import UNLIMITED

__all__ = ["doctor"]

_STATES: Final = ("provisioned", "reserved", "expired", "released")


@dataclass(slots=True)
class Findings:
    """What was found; the fields are what ``--json`` prints."""

    store: str
    engine: str
    schema_version: str | None
    readable: bool = True
    writable: bool | None = None
    resources: int = 0
    projects: int = 0
    users: int = 0
    #: The projects that were given a place, and how many levels they make.
    tree: dict[str, int] = field(default_factory=dict)
    overbooking: str = ""
    #: Of the definitions, limits and projects: what ``--if-version`` takes.
    version: int = 0
    claims: dict[str, int] = field(default_factory=dict)
    over_quota: list[Overage] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)
    #: Resources that are counted from a table of their service.
    counted: dict[str, str] = field(default_factory=dict)
    missing_indexes: list[MissingIndex] = field(default_factory=list)
    #: How the store is kept, in words, and what is unsafe about that.
    kept: str = ""
    weaknesses: list[Weakness] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        unsafe = any(weakness.severe for weakness in self.weaknesses)
        return self.writable is not False and not self.drift and not unsafe


@click.command(epilog=options.examples("delimiter doctor"))
@options.of_store
@click.pass_obj
def doctor(session: Session) -> int:
    """Look the store over: reachable, readable, writable, and do its numbers add up?

    And is it set up safely: durability, replicas, the nodes of a cluster? It changes nothing. Exit status 1 if
    counters disagree with claims, nothing can be written, or acknowledged claims can be lost.
    """
    with session.busy("Connecting …"):
        facts = session.facts()
    findings = Findings(session.shown_url(), facts.engine, facts.schema_version)
    findings.advice += facts.weaknesses
    with session.handle() as quota, session.busy("Looking at every claim and counter …"):
        _read(quota, findings)
        _try_to_write(session, quota, findings)
        findings.drift = list(quota.reconcile())
        findings.missing_indexes = quota.missing_indexes()
        condition = quota.condition()
        findings.kept, findings.weaknesses = condition.kept, list(condition.weaknesses)
    findings.advice = _advice(findings)
    if session.as_json:
        session.answer({"healthy": findings.healthy, **_fields(findings)})
    else:
        _say(session, findings)
    return failures.DONE if findings.healthy else failures.REFUSED


def _fields(findings: Findings) -> dict[str, Any]:
    return {name: getattr(findings, name) for name in Findings.__slots__}


def _read(quota: Delimiter, findings: Findings) -> None:
    findings.resources = len(quota.resources())
    projects: set[str] = set()
    users: set[str] = set()
    states: Counter[str] = Counter(dict.fromkeys(_STATES, 0))
    for state in (None, "expired", "released"):
        for claim in quota.claims(state=state):
            states[claim.state] += 1
            if claim.live:
                projects.update(() if claim.project is None else (claim.project,))
                users.update(() if claim.user is None else (claim.user,))
    findings.claims = dict(states)
    findings.projects, findings.users = len(projects), len(users)
    findings.tree = _size(quota.projects())
    findings.overbooking = quota.overbooking()
    findings.version = quota.version()
    findings.counted = quota.counted()
    findings.over_quota = _over_quota(quota, quota.tree(), users)


def _size(tree: Sequence[Project]) -> dict[str, int]:
    levels: dict[str | None, int] = {None: 0}
    for one in tree:  # parents come before their children
        levels[one.id] = levels.get(one.parent, 0) + 1
    return {"projects": len(tree), "levels": max(levels.values())}


def _over_quota(quota: Delimiter, found: Sequence[ProjectUsage], users: set[str]) -> list[Overage]:
    usages: list[tuple[str, Mapping[str, Usage]]] = [("total", quota.usage())]
    usages += [(str(Scope("project", one.id)), one.usage) for one in found]
    usages += [(str(Scope("user", name)), quota.usage(user=name)) for name in sorted(users)]
    return [
        Overage(resource, scope, usage.limit, usage.used)
        for scope, of_scope in usages
        for resource, usage in of_scope.items()
        if usage.limit != UNLIMITED and usage.used > usage.limit
    ]


def _try_to_write(session: Session, quota: Delimiter, findings: Findings) -> None:
    """A claim in a transaction that is rolled back: as real a write as any, and nothing stays."""
    from delimiter.cli import reach

    if reach.is_zookeeper(session.url()):
        findings.writable = True  # there every reading begins with a write
        return
    name = f"delimiter doctor {uuid.uuid4()}"
    asked = {resource.name: 1 for resource in quota.resources() if resource.name not in findings.counted}
    room = quota.check(asked, user=name).available if asked else {}
    with_room = next((name for name, most in room.items() if most != 0), None)
    if with_room is None or not reach.is_sql(session.url()):
        return
    try:
        with reach.engine_for(session.url(), timeout=session.timeout).connect() as connection:
            connection.begin()
            quota.claim({with_room: 1}, user=name, connection=connection)
            connection.rollback()
        findings.writable = True
    except DelimiterError as error:
        findings.writable = False
        findings.advice.append(failures.masked(f"It cannot be written: {error}", secrets=session.secrets()))


def _advice(findings: Findings) -> list[str]:
    advice = [*findings.advice, *(str(weakness) for weakness in findings.weaknesses)]
    if not findings.resources:
        advice.append("Define a first resource: `delimiter resource define NAME --max N`")
    if findings.drift:
        advice.append("`delimiter reconcile --repair` sets the counters right, beside live claims.")
    advice += [
        f"Guards of {missing.resource} read {missing.table} row by row, without an index on {missing.column}:"
        f" run `{missing.ddl}`"
        for missing in findings.missing_indexes
    ]
    if findings.over_quota:
        advice.append(
            "Over quota: nothing more is given there until enough is released, or the limit is raised."
        )
    if findings.claims["expired"]:
        advice.append("Reservations ran out: `delimiter expire` sweeps them, `delimiter prune` forgets them.")
    return advice


def _say(session: Session, findings: Findings) -> None:
    out = session.out
    out.print(show.title("Delimiter's store", findings.store))
    out.print()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(findings):
        table.add_row(label, value)
    out.print(table)
    out.print()
    if findings.drift:
        out.print(show.drift_table(findings.drift))
    out.print(
        show.done(out, "all is well")
        if findings.healthy
        else show.refused(out, "something is wrong with this store")
    )
    for sentence in findings.advice:
        out.print(show.advice(out, sentence))


def _rows(findings: Findings) -> list[tuple[str, Text]]:
    claims = findings.claims
    return [
        ("engine", Text(findings.engine)),
        *((("set up as", Text(findings.kept)),) if findings.kept else ()),
        ("schema version", Text(findings.schema_version or "none")),
        ("readable", _yes_or_no(findings.readable)),
        ("writable", _yes_or_no(findings.writable)),
        ("resources", Text(f"{findings.resources:,}")),
        *((("counted", Text(_spoken_counted(findings))),) if findings.counted else ()),
        ("live claims", Text(f"{claims['provisioned']:,} provisioned, {claims['reserved']:,} reserved")),
        ("projects", Text(_spoken_tree(findings))),
        ("limits", Text(f"version {findings.version}")),
        (
            "charged to",
            Text(f"{show.number_of(findings.projects, 'project')}, {show.number_of(findings.users, 'user')}"),
        ),
        (
            "ended claims",
            Text(f"{claims['released']:,} released, {claims['expired']:,} ran out (until pruned)"),
        ),
        (
            "over quota",
            Text("\n".join(_spoken(one) for one in findings.over_quota), style="near")
            if findings.over_quota
            else Text("nobody"),
        ),
        (
            "drift",
            Text(show.number_of(len(findings.drift), "counter"), style="bad")
            if findings.drift
            else Text("none"),
        ),
    ]


def _spoken_tree(findings: Findings) -> str:
    size = findings.tree
    in_tree = f"{size['projects']:,} in the tree"
    levels = f" of {show.number_of(size['levels'], 'level')}" if size["projects"] else ""
    return f"{in_tree}{levels}, overbooking {findings.overbooking}"


def _spoken_counted(findings: Findings) -> str:
    return ", ".join(f"{name} from {table or 'its service'}" for name, table in findings.counted.items())


def _spoken(over: Overage) -> str:
    return f"{over.resource} of {over.scope}: {over.used:,} of {over.limit:,}"


def _yes_or_no(value: object) -> Text:
    if value is None:
        return Text("not tried", style="quiet")
    return Text("yes", style="good") if value else Text("no", style="bad")
