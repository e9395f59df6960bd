"""An engine and the memory engine side by side: the same calls, the same ids, the same time, the same answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from delimiter import Delimiter, Scope
from delimiter.conformance import drawn
from delimiter.conformance.alike import by_id
from delimiter.conformance.contract import STATES, Contract, Whom, move_time
from delimiter.conformance.side_by_side import SideBySide
from delimiter.edits import AdoptAncestors, AdoptLimits, Edit

if TYPE_CHECKING:
    from collections.abc import Callable

    from delimiter.engine import Engine


class Machine(SideBySide):
    """All verbs, in any order."""

    # -- rules ----------------------------------------------------------------------------------------------------

    @initialize(
        grown=st.sampled_from([True, True, True, False]), requests=st.lists(drawn.requests, max_size=6)
    )
    def begin(self, requests: list[dict[str, Any]], *, grown: bool) -> None:
        for name in drawn.RESOURCES:
            self.both(lambda q: q.define_resource(self.own(name), max=15, user_max=9))  # noqa: B023
        if grown:
            for project, parent in (("acme", None), ("web", "acme"), ("shop", "web"), ("zeta", None)):
                self.both(lambda q: q.add_project(self.own(project), parent=self.own(parent)))  # noqa: B023
        for request in requests:
            self.claim_all([request])

    @rule(
        name=drawn.resources,
        max=drawn.maxima,
        project_max=drawn.maxima,
        user_max=drawn.maxima,
        floor=st.integers(0, 2),
        gone=drawn.rarely,
    )
    def define(self, name: str, max: int, project_max: int, user_max: int, floor: int, *, gone: bool) -> None:
        if gone:
            self.both(lambda q: q.undefine_resource(self.own(name)))
            self.both(lambda q: q.check({self.own(name): 1}, project="somebody"))
        self.both(
            lambda q: q.define_resource(
                self.own(name), max=max, project_max=project_max, user_max=user_max, user_min=floor
            )
        )

    @rule(
        name=drawn.resources,
        scope=drawn.scopes,
        max=drawn.maybe,
        min=drawn.maybe,
        which=st.sampled_from(["max", "min", "both"]),
        dry_run=drawn.rarely,
    )
    def limit(
        self, name: str, scope: Whom, max: int | None, min: int | None, which: str, *, dry_run: bool
    ) -> None:
        values: dict[str, Any] = {"max": max, "min": min}
        given = values if which == "both" else {which: values[which]}
        given["dry_run"] = dry_run
        self.both(lambda q: q.update_limits(self.own(name), **self.owner({**scope}), **given))

    # -- projects -------------------------------------------------------------------------------------------------

    @rule(project=drawn.projects, parent=drawn.parents, verb=drawn.tree_verbs)
    def change_the_tree(self, project: str, parent: str | None, verb: str) -> None:
        id, above = self.own(project), self.own(parent)
        verbs: dict[str, Callable[[Delimiter], None]] = {
            "add": lambda q: q.add_project(id, parent=above),
            "remove": lambda q: q.remove_project(id),
            "forbid": lambda q: q.set_overbooking("forbidden"),
            "allow": lambda q: q.set_overbooking("allowed"),
        }
        self.both(verbs[verb])
        self.look_at({"project": project})

    @rule(project=drawn.projects, parent=drawn.parents)
    def move(self, project: str, parent: str | None) -> None:
        self.both(lambda q: q.move_project(self.own(project), parent=self.own(parent)))
        for charged in drawn.PROJECTS:
            self.look_at({"project": charged})

    @rule(edits=drawn.edits, dry_run=drawn.rarely)
    def edit(self, edits: list[Edit], *, dry_run: bool) -> None:
        mine = [self.edit_of(edit) for edit in edits]
        self.both(lambda q: q.edit(mine, dry_run=dry_run))
        self.look_at_the_tree()

    # -- what happens elsewhere -----------------------------------------------------------------------------------

    @rule(scope=drawn.scopes, maxima=drawn.adopted_maxima, age=drawn.ages)
    def adopt_limits(self, scope: Whom, maxima: dict[str, int], age: int) -> None:
        self.adopt(AdoptLimits(self.scope(Scope.of(**scope)), self.content(maxima), self.fetch(age)))

    @rule(path=drawn.adopted_paths, age=drawn.ages)
    def adopt_ancestors(self, path: list[str], age: int) -> None:
        project, *ancestors = map(self.own, path)
        self.adopt(AdoptAncestors(project, tuple(ancestors), self.fetch(age)))

    # -- claims ---------------------------------------------------------------------------------------------------

    @rule(request=drawn.requests)
    def claim(self, request: dict[str, Any]) -> None:
        self.claim_all([request])

    @rule(request=drawn.requests)
    def claim_more(self, request: dict[str, Any]) -> None:
        self.claim_all([request])

    @rule(requests=st.lists(drawn.requests, min_size=2, max_size=4))
    def claim_all(self, requests: list[dict[str, Any]]) -> None:
        made = [self.request(one) for one in requests]
        self.both(lambda q: q.claim_all(made))

    @rule(requests=st.lists(drawn.requests, min_size=1, max_size=3))
    def claim_existing(self, requests: list[dict[str, Any]]) -> None:
        self.apply_existing([self.request(one) for one in requests])

    @precondition(lambda self: self.asked)
    @rule(
        id=drawn.ids,
        resources=st.one_of(drawn.contents, drawn.contents, st.just({})),
        owner=drawn.owners,
        old=drawn.rarely,
    )
    def correct(self, id: int, resources: dict[str, int], owner: dict[str, str | None], *, old: bool) -> None:
        self.apply_correction(self.id_of(id), self.content(resources), self.owner(owner), old=old)

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, 9))
    def replay(self, which: int) -> None:
        request = self.requests[-1 - which % len(self.requests)]
        self.both(lambda q: q.claim_all([request]))

    @precondition(lambda self: self.asked)
    @rule(id=drawn.ids, external_id=st.sampled_from([None] * 3 + [*drawn.EXTERNAL]))
    def provision(self, id: int, external_id: str | None) -> None:
        self.both(lambda q: q.provision(self.id_of(id), external_id=self.own(external_id)))

    @precondition(lambda self: self.asked)
    @rule(id=drawn.ids, expires_in=drawn.spans)
    def renew(self, id: int, expires_in: int) -> None:
        self.both(lambda q: q.renew(self.id_of(id), expires_in=expires_in))

    @precondition(lambda self: self.asked)
    @rule(id=drawn.ids, resources=drawn.contents, force=st.booleans())
    def resize(self, id: int, resources: dict[str, int], *, force: bool) -> None:
        self.both(lambda q: q.resize(self.id_of(id), self.content(resources), force=force))

    @precondition(lambda self: self.asked)
    @rule(id=drawn.ids, owner=drawn.owners)
    def transfer(self, id: int, owner: dict[str, str | None]) -> None:
        self.both(lambda q: q.transfer(self.id_of(id), **self.owner(owner)))

    @precondition(lambda self: self.asked)
    @rule(id=drawn.ids, force=st.booleans())
    def release(self, id: int, *, force: bool) -> None:
        self.both(lambda q: q.release(self.id_of(id), force=force))

    @rule(seconds=drawn.spans, swept=st.sampled_from([True, True, True, False]))
    def time_goes_on(self, seconds: int, *, swept: bool) -> None:
        move_time(self.engine, seconds)
        move_time(self.model, seconds)
        if swept:
            self.sweep()
        else:
            # When it is noticed that time alone brought a scope back, and at which limit, is the engine's own affair.
            self.events_compare = False

    @rule()
    def sweep(self) -> None:
        # How many is not compared: a claim that would have been refused may have swept some of them already.
        for quota in (self.theirs, self.ours):
            quota.expire_reservations()
        self.compare_claims()
        self.compare_events()

    @rule(older_than=st.sampled_from([0, 100, 200]))
    def prune(self, older_than: int) -> None:
        self.both(lambda q: q.prune(older_than=older_than))

    @rule(resources=drawn.contents, owner=drawn.owners, explained=st.booleans())
    def check(self, resources: dict[str, int], owner: dict[str, str | None], *, explained: bool) -> None:
        asked, named = self.content(resources), self.owner(owner)
        self.both(lambda q: q.explain(asked, **named) if explained else q.check(asked, **named))

    @rule(scope=drawn.scopes, tree=st.booleans())
    def look(self, scope: Whom, *, tree: bool) -> None:
        if tree:
            self.look_at_the_tree()
        else:
            self.look_at(scope)

    @rule(
        owner=drawn.owners,
        name=st.one_of(st.none(), drawn.resources),
        state=st.sampled_from([None, *STATES]),
        subtree=st.booleans(),
        id=drawn.ids,
    )
    def find(
        self, owner: dict[str, str | None], name: str | None, state: Any, id: int, *, subtree: bool
    ) -> None:
        self.both(lambda q: q.get_claim(self.id_of(id)))
        self.both(
            lambda q: by_id(
                q.claims(**self.owner(owner), resource=self.own(name), state=state, subtree=subtree)
            )
        )

    # -- the end --------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Look at everything once, then leave nothing behind."""
        try:
            self.compare_claims()
            self.both(lambda q: [one for one in q.resources() if one.name.startswith(self.prefix)])
            for scope in drawn.SCOPES:
                self.look_at(scope)
            self.look_at_the_tree()
            self.compare_events()
            assert list(self.theirs.reconcile()) == []
        finally:
            self.theirs.set_overbooking("allowed")
            for claim in list(self.theirs.claims()):
                self.theirs.release(claim.id, force=True)
            self.theirs.expire_reservations()
            self.theirs.prune(older_than=0)
            for project in reversed(self.theirs.projects()):
                self.theirs.remove_project(project.id)
            for resource in self.theirs.resources():
                self.theirs.undefine_resource(resource.name)
        assert [one for state in STATES for one in self.theirs.claims(state=state)] == []


class MachineContract(Contract):
    def test_it_answers_as_the_memory_engine_does(self, engine: Engine) -> None:
        run_state_machine_as_test(
            partial(Machine, engine),  # type: ignore[arg-type] # it calls what it is given, a class or not
            settings=settings(
                max_examples=self.machine_examples,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
                phases=self.machine_phases,
            ),
        )

    #: Examples of the state machine; each is up to fifty calls on both engines.
    machine_examples = 60
    #: Add ``Phase.shrink`` to be given the shortest failing example: on a database that takes minutes.
    machine_phases: tuple[Phase, ...] = (Phase.explicit, Phase.reuse, Phase.generate)
