"""Guards of counters: their locks, the order of locks, generations, and first counters."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["COUNTERS"]

_COUNTERS: Final = "engines/sql/counters.py"
_LOCKING: Final = "engines/sql/locking.py"
_BOUNDS: Final = "engines/sql/bounds.py"
_DEFINITIONS: Final = "engines/sql/definitions.py"

LOCKS: Final = (
    Mutation(
        name="counters-unlocked",
        guard="a claim locks the counters that it is charged to",
        without="two claims decide on the same number, and both take the last unit",
        file=_COUNTERS,
        source="self._lock = database.locked(by_id)\n",
        becomes="self._lock = by_id\n",
        tests=("engines/test_lock_waits.py::test_a_claim_decides_on_what_it_waited_for",),
        apart=True,
    ),
    Mutation(
        name="newcomers-in-a-crowd",
        guard="where plain reads lock, who may have to make a counter queues before it looks for it",
        without="newcomers share the gap where the counter is not, and keep each other from making it, for minutes",
        file=_COUNTERS,
        source="""        if not (held or charged):
            self._projects.queue(connection)
""",
        becomes="",
        tests=("engines/test_first_things.py::test_newcomers_do_not_keep_each_other_out",),
        store="mariadb",
    ),
    Mutation(
        name="everybody-queues",
        guard="only where plain reads lock do newcomers queue",
        without="first claims of two projects wait for each other's transactions",
        file="engines/sql/databases.py",
        source="plain_reads_lock=\"@@tx_isolation = 'SERIALIZABLE'\",",
        becomes='plain_reads_lock="true",',
        tests=("engines/test_first_things.py::test_first_claims_of_two_projects_do_not_wait_for_each_other",),
        store="mariadb",
    ),
    Mutation(
        name="counters-in-reverse",
        guard="a claim locks counters in the order of their numbers",
        without="a claim and an edit, or a sweep, wait for each other in a circle",
        file=_COUNTERS,
        source="by_id = database.by_key(by_id.order_by(c.id), tables.counters)",
        becomes="by_id = database.by_key(by_id.order_by(c.id.desc()), tables.counters)",
        tests=("engines/test_lock_order.py::test_counters_are_locked_from_the_lowest",),
    ),
    Mutation(
        name="edit-unlocked",
        guard="an edit of limits or of the tree locks the counters that it bears on",
        without="what it sums or carries is changed under its hands, and written over",
        file=_LOCKING,
        source="self._lock = database.locked(database.by_key(chosen.order_by(c.id), tables.counters))",
        becomes="self._lock = database.by_key(chosen.order_by(c.id), tables.counters)",
        tests=("engines/test_lock_waits.py::test_an_edit_sums_what_it_waited_for",),
    ),
    Mutation(
        name="edit-in-reverse",
        guard="an edit locks counters in the order in which claims do",
        without="an edit and a claim wait for each other in a circle",
        file=_LOCKING,
        source="self._lock = database.locked(database.by_key(chosen.order_by(c.id), tables.counters))",
        becomes="self._lock = database.locked(database.by_key(chosen.order_by(c.id.desc()), tables.counters))",
        tests=("engines/test_lock_order.py::test_edits_lock_counters_from_the_lowest",),
    ),
    Mutation(
        name="list-of-edits-unlocked",
        guard="a list of edits locks all its counters before the first edit is made",
        without="two lists lock their counters one after the other, each in its own order, and wait in a circle",
        file="engines/sql/edits.py",
        source="""        if len(edits) > 1:
            self._lock_what_they_touch(connection, edits, everything=of_the_tree)
""",
        becomes="",
        tests=("engines/test_lock_order.py::test_a_list_of_edits_locks_all_before_the_first",),
    ),
    Mutation(
        name="claims-after-counters",
        guard="the row of a new claim is placed before any counter is locked",
        without="who waits for another's id keeps everybody else from the counters meanwhile",
        file="engines/sql/changes.py",
        source="""        self._place(new)
        refused = self._lock_counters(changes, beside)
""",
        becomes="""        refused = self._lock_counters(changes, beside)
        self._place(new)
""",
        tests=("engines/test_lock_order.py::test_who_waits_for_an_id_holds_no_counter",),
    ),
    Mutation(
        name="counters-beside-held-ones",
        guard="what is locked beside counters that are held already must come after them",
        without="a caller who decides again locks a lower counter late, and two callers wait in a circle",
        file=_COUNTERS,
        source="if any(id < max(held) for id in ids - held):",
        becomes="if not ids:",
        tests=("engines/test_lock_order.py::test_a_lower_counter_is_not_locked_late",),
    ),
    Mutation(
        name="makers-beside-held-counters",
        guard="no counter is made while others are held",
        without="a caller who decides again locks the tree after counters, and waits in a circle with a move",
        file=_COUNTERS,
        source="            if held:\n                raise out_of_order()\n            self.change_in(connection)\n",
        becomes="            self.change_in(connection)\n",
        tests=("engines/test_lock_order.py::test_no_counter_is_made_beside_held_ones",),
    ),
)

GENERATIONS: Final = (
    Mutation(
        name="generation-unasked",
        guard="a locked counter's generation is compared with that of the remembered path",
        without="a claim is charged along an old path: a new limit above it is not asked, a moved project pays twice",
        file=_COUNTERS,
        source="            and own.generation == way.generation\n",
        becomes="",
        tests=(
            "engines/test_tree_locks.py::test_a_first_limit_holds_for_ways_that_are_remembered",
            "conformance::test_a_limit_holds_for_the_very_next_claim",
        ),
    ),
    Mutation(
        name="ways-of-open-transactions",
        guard="no path is remembered that was read in a transaction which changes paths",
        without="numbers that are rolled back are remembered, and given to other counters",
        file=_COUNTERS,
        source="elif connection.get_transaction() not in _changing(connection):",
        becomes="else:",
        tests=(
            "engines/test_tree_corners.py::test_a_way_to_a_counter_that_was_rolled_back_is_not_remembered",
        ),
        store="sqlite",
    ),
    Mutation(
        name="making-is-no-change",
        guard="a transaction that has made a counter is known as one that changes paths",
        without="a second claim in it remembers what may be rolled back",
        file=_COUNTERS,
        source="            self.change_in(connection)\n            self._make(connection, unmade)\n",
        becomes="            self._make(connection, unmade)\n",
        tests=(
            "engines/test_tree_corners.py::test_a_way_to_a_counter_that_was_rolled_back_is_not_remembered",
        ),
        store="sqlite",
    ),
    Mutation(
        name="adopting-is-no-change",
        guard="a transaction that adopts limits or ancestors is known as one that changes paths",
        without="in a caller's transaction, rolled back, its paths stay remembered",
        file="engines/sql/edits.py",
        source="        self._counters.change_in(connection)\n        match adoption:\n",
        becomes="        match adoption:\n",
        tests=(
            "engines/test_tree_corners.py::test_a_way_behind_an_adoption_that_was_rolled_back_is_not_remembered",
        ),
        store="sqlite",
    ),
    Mutation(
        name="counter-above-is-gone",
        guard="every counter on a remembered path must still be there",
        without="a claim fails, or is decided without an ancestor, whose counter was lost",
        file=_COUNTERS,
        source="            and all(id in rows for id, _ in way.above)\n",
        becomes="",
        tests=("engines/test_tree_corners.py::test_a_lost_counter_stops_nobody",),
        store="sqlite",
    ),
    Mutation(
        name="generations-of-everybody",
        guard="a total's, or a default's, first limit raises the generations of all counters of the resource",
        without="who remembers the path of before is never held to the new limit",
        file=_BOUNDS,
        source="""        if turns or any(update.turned for update in updates):
            self._locks.raise_generations(connection, rows)
""",
        becomes="",
        tests=("engines/test_tree_locks.py::test_a_first_limit_holds_for_ways_that_are_remembered",),
    ),
    Mutation(
        name="generations-below",
        guard="a project's first limit raises the generations of all counters below it",
        without="the projects below go on without being charged to it",
        file=_BOUNDS,
        source="        self._locks.raise_generations(connection, rows)\n\n    # -- writing",
        becomes="\n    # -- writing",
        tests=("engines/test_tree_locks.py::test_a_first_limit_holds_for_ways_that_are_remembered",),
    ),
    Mutation(
        name="generations-of-the-moved",
        guard="a move raises the generations of all counters that it carries",
        without="who remembers the path of before charges the old ancestors",
        file="engines/sql/moving.py",
        source="        self._locks.raise_generations(connection, moving)\n",
        becomes="",
        tests=("conformance::test_a_move_holds_for_the_very_next_claim",),
    ),
    Mutation(
        name="generations-of-the-counted",
        guard="beginning to count a resource raises the generations of its counters",
        without="a process that claimed it before goes on claiming what is counted now",
        file="engines/sql/store.py",
        source="        self._locks.raise_generations(own, self._locks.of_resources(own, ids.values()))\n",
        becomes="",
        tests=("engines/test_who_counts.py::test_who_claimed_it_before_learns_that_it_is_counted",),
    ),
)

FIRST: Final = (
    Mutation(
        name="tree-unshared-by-makers",
        guard="who makes a first counter shares the tree's row",
        without="a project is moved past a counter that is just being made: it keeps its old ancestors",
        file=_COUNTERS,
        source="version = self._projects.share(connection)",
        becomes="version = self._projects.version(connection)",
        tests=(
            "engines/test_tree_locks.py::test_a_first_claim_waits_for_a_change_of_the_tree",
            "engines/test_tree_locks.py::test_an_edit_waits_for_a_first_claim",
        ),
    ),
    Mutation(
        name="definition-unshared-by-makers",
        guard="who makes a first counter shares the definition's row",
        without="a limit is set past a counter that is just being made, and does not stand on it",
        file=_DEFINITIONS,
        source="self._shared = database.locked(by_ids, share=True)",
        becomes="self._shared = by_ids",
        tests=("engines/test_first_things.py::test_a_first_limit_waits_for_counters_that_are_being_made",),
    ),
    Mutation(
        name="definition-unheld-by-edits",
        guard="who changes a limit holds the definition's row against everybody",
        without="of two edits of one limit at once, one is lost",
        file=_DEFINITIONS,
        source="self._exclusive = database.locked(by_ids)",
        becomes="self._exclusive = by_ids",
        tests=("engines/test_lock_waits.py::test_two_edits_of_one_limit",),
    ),
    Mutation(
        name="old-rules-for-a-counter",
        guard="on MariaDB a first counter is made only if the snapshot shows the rules of the locked rows",
        without="a caller at REPEATABLE READ makes a counter from limits that have changed since",
        file=_COUNTERS,
        source="if self._database.plain_reads_lag and not (",
        becomes="if not self._database and not (",
        tests=("engines/test_corners.py::test_the_totals_first_limit_after_the_snapshot",),
        store="mariadb",
    ),
    Mutation(
        name="unseen-ancestor",
        guard="on MariaDB an ancestor's counter that is younger than the snapshot is a conflict",
        without="a first claim is not charged to an ancestor that has a limit",
        file=_COUNTERS,
        source="if self._database.plain_reads_lag and self._unmade(connection, ancestors):",
        becomes="if not self._database:",
        tests=(
            "engines/test_tree_corners.py::test_an_ancestor_s_first_counter_is_younger_than_the_snapshot",
        ),
        store="mariadb",
    ),
    Mutation(
        name="ancestors-unmade",
        guard="a first claim makes the counters of its limited ancestors too",
        without="nothing is charged to an ancestor before it has claimed something itself",
        file=_COUNTERS,
        source="for resource, scope in sorted(starts | self._unmade(connection, ancestors)):",
        becomes="for resource, scope in sorted(starts):",
        tests=("conformance::test_a_claim_is_charged_to_all_ancestors",),
        store="sqlite",
    ),
    Mutation(
        name="counted-unseen",
        guard="on MariaDB a first counter is made only if the snapshot shows whether the resource is counted",
        without="a caller at REPEATABLE READ claims what somebody has begun to count since",
        file=_DEFINITIONS,
        source="return {row.id: (row.version, row.counted_from) for row in rows} == present",
        becomes="return {row.id: row.version for row in rows} == {id: one[0] for id, one in present.items()}",
        tests=("engines/test_who_counts.py::test_a_caller_whose_snapshot_is_from_before_it_was_counted",),
        store="mariadb",
    ),
    Mutation(
        name="counters-of-two-makers",
        guard="a scope has one counter of a resource: a unique key",
        without="two first claims make a counter each, and each has the whole limit",
        file="engines/sql/migrations/versions/0001_first_tables.py",
        source='        sa.UniqueConstraint("resource_id", "kind", "scope", name=f"{tables.prefix}counters_scope"),\n',
        becomes="",
        tests=("engines/test_lock_waits.py::test_two_first_claims_make_one_counter",),
    ),
)

COUNTERS: Final = (
    Room("Locks and their order", LOCKS),
    Room("Generations", GENERATIONS),
    Room("First counters", FIRST),
)
