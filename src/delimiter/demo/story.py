"""The story, scene by scene: whatever it says is done with the library and checked."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from delimiter import Delimiter, OverLimit, Request
from delimiter.cli import show
from delimiter.cli.failures import CheckFailed
from delimiter.cli.session import Session
from delimiter.demo import race
from delimiter.demo.stage import RESOURCES, Stage, clear

__all__ = ["tell"]

CLUSTERS: Final = "database.clusters"
INSTANCES: Final = "database.instances"
STORAGE: Final = "storage.gb"
MEMORY: Final = "memory.gb"

_NODES: Final = (1, 2, 3, 4)
_RUNNERS: Final = 8
_ATTEMPTS: Final = 6
_HELD_BEFORE: Final = 5
_LAST_ONES: Final = 20

#: The ids that things have in the real world, known only once they are made.
_REAL: Final = {"cluster-1": "trove-c5a1"} | {
    f"{kind}-{node}": f"{real}-{node:02}f{node * 7:02x}"
    for kind, real in (("node", "i"), ("volume", "vol"), ("memory", "mem"))
    for node in _NODES
}


def tell(session: Session, *, pauses: bool) -> None:
    """Play all of it; ``CheckFailed`` at the first thing that is not so."""
    began = time.monotonic()
    stage = Stage(session, pauses=pauses)
    with session.opened(create=True) as quota:
        clear(quota)
        stage.out.print(show.title("Delimiter: quotas that cannot be oversubscribed", session.shown_url()))
        _rules(stage, quota)
        _cluster(stage, quota)
        _race(stage, quota, session)
        _refusals(stage, quota)
        _provisioning(stage, quota)
        _changes(stage, quota)
        _release(stage, quota)
    _end(stage, session, seconds=time.monotonic() - began)


def _usage(stage: Stage, quota: Delimiter, user: str | None, *only: str) -> None:
    units = {resource.name: resource.unit for resource in RESOURCES}
    usages = quota.usage(user=user)
    stage.show(show.usage_table({name: usages[name] for name in only or usages}, units))


def _rules(stage: Stage, quota: Delimiter) -> None:
    stage.scene(
        "The limits",
        "A database service may run 2,000 instances and 300 clusters. Each user may have 25 instances, 4 clusters, "
        "20 TB of storage and 10 GB of memory; amrith only 2 instances and 1 cluster.",
    )
    for resource in RESOURCES:
        quota.define_resource(
            resource.name,
            max=resource.max,
            user_max=resource.user_max,
            unit=resource.unit,
            service=resource.service,
            description=resource.description,
        )
    quota.update_limits(INSTANCES, user="amrith", max=2)
    quota.update_limits(CLUSTERS, user="amrith", max=1)
    total, each, amrith = quota.limits(), quota.limits(user="beth"), quota.limits(user="amrith")
    table = show.plain_table(
        "resource", "in total", "each user", "amrith", "unit", right=("in total", "each user", "amrith")
    )
    for resource in RESOURCES:
        name = resource.name
        numbers = (show.amount(total[name]), show.amount(each[name]), show.amount(amrith[name]))
        table.add_row(name, *numbers, Text(resource.unit, style="quiet"))
    stage.show(table)
    in_force = {CLUSTERS: 300, INSTANCES: 2000, MEMORY: -1, STORAGE: -1}
    stage.expect("the limits in total are in force", total, in_force, aloud=False)
    stage.expect(
        "each user's are", each, {CLUSTERS: 4, INSTANCES: 25, MEMORY: 10, STORAGE: 20_000}, aloud=False
    )
    stage.expect(
        "amrith's are", amrith, {CLUSTERS: 1, INSTANCES: 2, MEMORY: 10, STORAGE: 20_000}, aloud=False
    )


def _cluster(stage: Stage, quota: Delimiter) -> None:
    stage.scene(
        "Beth asks for a cluster",
        "Four nodes, each with 1 TB of storage and 1 GB of memory. It takes minutes to build, so all of it is reserved "
        "first: in one step, everything or nothing.",
    )
    _usage(stage, quota, "beth")
    made = quota.claim_all(_cluster_requests())
    tree = Tree(Text("cluster-1", style="held"), guide_style="quiet")
    for node in _NODES:
        tree.add(
            Text.assemble(
                (f"node-{node}", "held"), f"  with volume-{node}, 1,000 GB, and memory-{node}, 1 GB"
            )
        )
    stage.show(tree)
    _usage(stage, quota, "beth")
    stage.out.print(Text("  ").append_text(show.legend(stage.out)))
    stage.expect("13 reservations were made at once, each known by its own id", len(made), 13)
    stage.expect("all of them are reserved", {claim.state for claim in made}, {"reserved"}, aloud=False)
    _expect_use(stage, quota, "beth", "1 cluster, 4 instances, 4 TB and 4 GB count already", (1, 4, 4, 4000))


def _cluster_requests() -> list[Request]:
    def reserved(resources: dict[str, int], id: str, parent: str | None) -> Request:
        return Request(resources, user="beth", id=id, parent=parent, expires_in=600)

    requests = [reserved({CLUSTERS: 1}, "cluster-1", None)]
    for node in _NODES:
        requests += [
            reserved({INSTANCES: 1}, f"node-{node}", "cluster-1"),
            reserved({STORAGE: 1000}, f"volume-{node}", f"node-{node}"),
            reserved({MEMORY: 1}, f"memory-{node}", f"node-{node}"),
        ]
    return requests


def _race(stage: Stage, quota: Delimiter, session: Session) -> None:
    attempts = _RUNNERS * _ATTEMPTS
    stage.scene(
        "A race for the last instances",
        f"Carol has {_HELD_BEFORE} of her 25 instances. Now {_RUNNERS} processes, each with its own connection, ask "
        f"for one more, {_ATTEMPTS} times each: {attempts} attempts at {_LAST_ONES} instances.",
    )
    quota.claim({INSTANCES: _HELD_BEFORE}, user="carol", id="carol-before")
    course = race.Course(
        session.url(),
        session.schema,
        session.table_prefix,
        INSTANCES,
        "carol",
        runners=_RUNNERS,
        attempts=_ATTEMPTS,
    )
    outcomes: list[list[bool]] = [[] for _ in range(_RUNNERS)]
    columns = (TextColumn("  {task.description}"), BarColumn(30), MofNCompleteColumn())
    with Progress(*columns, console=stage.out, transient=True, disable=not stage.out.is_terminal) as progress:
        task = progress.add_task("racing", total=attempts)

        def each(runner: int, won: bool) -> None:  # noqa: FBT001
            outcomes[runner].append(won)
            progress.advance(task)

        try:
            race.run(course, each=each)
        except race.RunnerFailed as error:
            raise CheckFailed(str(error)) from error
    stage.show(_outcome_table(stage, outcomes))
    _usage(stage, quota, "carol", INSTANCES)
    answers = [won for outcome in outcomes for won in outcome]
    stage.expect(f"exactly {_LAST_ONES} of {attempts} won", sum(answers), _LAST_ONES)
    refused = answers.count(False)
    stage.expect(f"the other {attempts - _LAST_ONES} were refused", refused, attempts - _LAST_ONES)
    _expect_use(stage, quota, "carol", "she has 25 of 25, not one more", (0, 25, 0, 0))
    stage.expect("and a claim for each", len(list(quota.claims(user="carol"))), _LAST_ONES + 1, aloud=False)


def _outcome_table(stage: Stage, outcomes: list[list[bool]]) -> Table:
    won, refused = ("█", "·") if stage.out.encoding.startswith("utf") else ("#", ".")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    half = len(outcomes) // 2
    for left, right in zip(range(half), range(half, len(outcomes)), strict=True):
        cells: list[Text] = []
        for runner in (left, right):
            marks = Text.assemble((f"process {runner + 1}  ", "quiet"))
            for outcome in outcomes[runner]:
                marks.append(won if outcome else refused, style="good" if outcome else "bad")
            cells += [marks, Text(f"{sum(outcomes[runner])} won")]
        table.add_row(*cells)
    return table


def _refusals(stage: Stage, quota: Delimiter) -> None:
    stage.scene(
        "No, and why",
        "Beth wants 22 more instances with 17 TB and 7 GB. Every limit in the way is named, with what would fit.",
    )
    wish = {INSTANCES: 22, STORAGE: 17_000, MEMORY: 7}
    refusal = stage.expect_refusal(OverLimit, lambda: quota.claim(wish, user="beth"))
    stage.show(show.violation_table(refusal.violations))
    fits = {violation.resource: violation.available for violation in refusal.violations}
    stage.expect("21 instances, 16 TB and 6 GB would fit", fits, {INSTANCES: 21, MEMORY: 6, STORAGE: 16_000})
    _expect_use(stage, quota, "beth", "and nothing of it was taken", (1, 4, 4, 4000))
    stage.out.print("\nAmrith gets his 2 instances, and asks for a third. What he is told:")
    quota.claim({INSTANCES: 2}, user="amrith", id="amrith-both")
    refusal = stage.expect_refusal(OverLimit, lambda: quota.claim({INSTANCES: 1}, user="amrith"))
    stage.show(show.refused(stage.out, str(refusal)))
    limit = [(violation.scope, violation.limit, violation.available) for violation in refusal.violations]
    stage.expect("amrith is stopped by his own limit, of 2", limit, [("user:amrith", 2, 0)])


def _provisioning(stage: Stage, quota: Delimiter) -> None:
    stage.scene(
        "The cluster is built",
        "Each reservation becomes an allocation, known from now on by the real thing's own id. A reservation that "
        "nobody provisions would have run out by itself after ten minutes.",
    )
    provisioned = [quota.provision(id, external_id=real) for id, real in _REAL.items()]
    examples = ", ".join(f"{id} is {_REAL[id]}" for id in ("cluster-1", "node-1", "volume-3"))
    stage.out.print(Text(f"  {examples}, …", style="quiet"))
    _usage(stage, quota, "beth")
    states = {claim.state for claim in provisioned}
    stage.expect("all 13 are provisioned", (len(provisioned), states), (13, {"provisioned"}))
    reserved = sum(usage.reserved for usage in quota.usage(user="beth").values())
    stage.expect("nothing of hers is merely reserved any more", reserved, 0, aloud=False)


def _changes(stage: Stage, quota: Delimiter) -> None:
    third, fourth = _REAL["volume-3"], _REAL["volume-4"]
    stage.scene(
        "Two volumes change",
        f"The third, {third}, grows to 2 TB: only the difference is checked. The fourth, {fourth}, is released.",
    )
    resized = quota.resize(third, {STORAGE: 2000})
    stage.expect("volume-3 holds 2 TB now", dict(resized.resources), {STORAGE: 2000})
    _expect_use(stage, quota, "beth", "beth uses 5 TB", (1, 4, 4, 5000))
    _usage(stage, quota, "beth", STORAGE)
    quota.release(fourth)
    stage.expect("volume-4 is released", quota.get_claim("volume-4").state, "released")
    _expect_use(stage, quota, "beth", "beth uses 4 TB again", (1, 4, 4, 4000))
    _usage(stage, quota, "beth", STORAGE)


def _release(stage: Stage, quota: Delimiter) -> None:
    top = _REAL["cluster-1"]
    stage.scene(
        "The cluster goes",
        f"One call releases {top} with everything that hangs on it. Carol and amrith give back theirs too.",
    )
    below = len(list(quota.claims(user="beth")))
    stage.expect("beth has 12 live claims", below, 12)
    quota.release(top)
    stage.expect("one release later she has none", len(list(quota.claims(user="beth"))), 0)
    for claim in list(quota.claims()):
        quota.release(claim.id)
    _usage(stage, quota, "beth")
    in_total = {name: usage.used for name, usage in quota.usage().items()}
    stage.expect("the whole deployment uses nothing", set(in_total.values()), {0})
    stage.expect(
        "every counter agrees with its claims (reconcile finds nothing)", list(quota.reconcile()), []
    )


def _expect_use(
    stage: Stage, quota: Delimiter, user: str, what: str, amounts: tuple[int, int, int, int]
) -> None:
    """``amounts`` in the order of the table: clusters, instances, memory, storage."""
    used = {name: usage.used for name, usage in quota.usage(user=user).items()}
    stage.expect(what, used, dict(zip((CLUSTERS, INSTANCES, MEMORY, STORAGE), amounts, strict=True)))


def _end(stage: Stage, session: Session, *, seconds: float) -> None:
    if session.as_json:
        facts = [asdict(fact) for fact in stage.facts]
        session.answer({"store": session.shown_url(), "seconds": round(seconds, 3), "facts": facts})
        return
    out = stage.out
    out.print()
    out.print(
        show.done(
            out,
            f"{len(stage.facts)} facts checked in {seconds:.0f} seconds, all of them so. Go on with its store:",
        )
    )
    out.print()
    program = _program()
    for command in (
        f"export DELIMITER_STORE={session.shown_url()}",
        f"{program} claim database.instances=2 storage.gb=1TB --user amrith",
        f"{program} usage --user amrith",
        f"{program} doctor",
    ):
        out.print(Text(f"  {command}", style="code"), soft_wrap=True)


def _program() -> str:
    """How to call the command from here: its name, or where it lies if that is not on the PATH (`make demo`)."""
    if shutil.which("delimiter") is not None or Path(sys.argv[0]).name != "delimiter":
        return "delimiter"
    return os.path.relpath(sys.argv[0])
