"""Guards of counted resources."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["GUARDS"]

_GUARDS: Final = "engines/sql/guards.py"
_MOMENTS: Final = "engines/test_guards_moments.py"

COUNTED: Final = (
    Mutation(
        name="guard-unlocked",
        guard="entering a guard locks the counters of everybody who is charged",
        without="two callers count, both find room, and both write their rows",
        file=_GUARDS,
        source="        answer, charged = self._changes.decide_beside(joined, admit, starts)\n",
        becomes="        answer = self._changes.decide_beside(joined, admit, ())[0]\n"
        "        charged = self._look(joined, starts)\n",
        tests=(f"{_MOMENTS}::test_who_waits_counts_afterwards",),
    ),
    Mutation(
        name="sum-before-the-lock",
        guard="the sum is a statement after the lock",
        without="who waited for the lock counts without the rows that it waited for",
        file=_GUARDS,
        source="""        answer, charged = self._guards.lock(joined, request, starts)
        if isinstance(answer, DelimiterError) and not isinstance(answer, OverLimit):
            raise answer
        self._rows = _in_order(charged.all(), request.counted)
        self._guards.refuse(request, self._rows)
        self._sums = self._guards.count(joined, self._rows)
""",
        becomes="""        self._sums = self._guards.count(joined, self._guards._look(joined, starts).all())
        answer, charged = self._guards.lock(joined, request, starts)
        if isinstance(answer, DelimiterError) and not isinstance(answer, OverLimit):
            raise answer
        self._rows = _in_order(charged.all(), request.counted)
        self._guards.refuse(request, self._rows)
""",
        tests=(f"{_MOMENTS}::test_who_waits_counts_afterwards",),
    ),
    Mutation(
        name="guard-unwritten",
        guard="every guard writes the rows that it holds",
        without="at REPEATABLE READ the next one counts by a snapshot that is older than these rows",
        file=_GUARDS,
        source="            self._guards.write(joined, self._rows)\n",
        becomes="",
        tests=(f"{_MOMENTS}::test_a_snapshot_from_before",),
    ),
    Mutation(
        name="lag-unasked",
        guard="on MariaDB the locked revision is compared with the one that the snapshot shows",
        without="a caller at REPEATABLE READ counts by an old snapshot, and nothing says so",
        file=_GUARDS,
        source="if starts and self._plain_reads_lag:",
        becomes="if not self._counters:",
        tests=(f"{_MOMENTS}::test_a_snapshot_from_before",),
        store="mariadb",
    ),
    Mutation(
        name="move-unnoticed-by-guards",
        guard="a move writes the revision of those whose subtree it changes",
        without="a guard with an older snapshot counts the subtree as it was",
        file="engines/sql/moving.py",
        source="self._locks.raise_revisions(connection, [row for row in rows if row.scope not in below])",
        becomes="self._locks.raise_revisions(connection, [])",
        tests=(f"{_MOMENTS}::test_a_snapshot_from_before",),
    ),
    Mutation(
        name="limits-unnoticed-by-guards",
        guard="what raises a generation raises the revision too",
        without="an optimistic guard goes by a path that is no longer the right one",
        file="engines/sql/locking.py",
        source=".values(generation=c.generation + 1, revision=c.revision + 1)",
        becomes=".values(generation=c.generation + 1)",
        tests=(f"{_MOMENTS}::test_inside_an_optimistic_guard", f"{_MOMENTS}::test_a_snapshot_from_before"),
        store="mariadb",
    ),
    Mutation(
        name="made-late",
        guard="an optimistic guard makes the counters that are missing before its claim locks any",
        without="it holds its claim's counters while it waits for a move, which waits for them",
        file=_GUARDS,
        source="""            with suppress(Outdated):
                self._counters.ways(joined, starts)  # what is missing is made before anything is locked
""",
        becomes="",
        tests=("engines/test_lock_order.py::test_an_optimistic_guard_makes_counters_before_it_locks_any",),
    ),
    Mutation(
        name="revision-uncompared",
        guard="an optimistic guard compares the revision as it writes it",
        without="two that entered together both let their rows in",
        file=_GUARDS,
        source='                k.revision == sa.bindparam("seen"),\n',
        becomes='                k.revision >= sa.bindparam("seen"),\n',
        tests=(f"{_MOMENTS}::test_inside_an_optimistic_guard",),
    ),
    Mutation(
        name="limit-uncompared",
        guard="an optimistic guard compares the limit as it writes the row",
        without="a limit that was lowered inside is passed",
        file=_GUARDS,
        source='                k.maximum == sa.bindparam("limit"),\n',
        becomes='                sa.bindparam("limit", type_=sa.BigInteger) >= -1,\n',
        tests=(f"{_MOMENTS}::test_inside_an_optimistic_guard",),
    ),
    Mutation(
        name="rows-written-unread",
        guard="an optimistic guard reads how many rows it has written",
        without="the compare decides nothing",
        file=_GUARDS,
        source="if joined.execute(self._raise_seen, values).rowcount != 1:",
        becomes="if joined.execute(self._raise_seen, values).rowcount < 0:",
        tests=(f"{_MOMENTS}::test_inside_an_optimistic_guard",),
    ),
    Mutation(
        name="counted-once",
        guard="leaving counts again",
        without="two rows come in where one was asked for",
        file=_GUARDS,
        source="                self._count_again(joined)\n",
        becomes="",
        tests=("engines/test_guards.py::test_more_than_was_asked_for_is_taken_back",),
        store="sqlite",
    ),
    Mutation(
        name="rows-left",
        guard="a savepoint takes back what was written inside a guard that is refused",
        without="the caller commits the rows of a refusal",
        file=_GUARDS,
        source="                self._savepoint.rollback()\n",
        becomes="                self._savepoint.commit()\n",
        tests=("engines/test_guards.py::test_more_than_was_asked_for_is_taken_back",),
        store="sqlite",
    ),
    Mutation(
        name="guards-nested",
        guard="a guard inside a guard is refused",
        without="the outer one takes the rows of the inner one for its own",
        file=_GUARDS,
        source="            _refuse_nesting(joined)\n        self.flush(given)\n",
        becomes="            pass\n        self.flush(given)\n",
        tests=("engines/test_guards.py::test_guards_do_not_nest_and_leave_no_mark",),
        store="sqlite",
    ),
    Mutation(
        name="below-the-unlimited",
        guard="below a project without a limit only its own rows are compared",
        without="a row of another project, which nothing locks out, refuses this guard",
        file=_GUARDS,
        source="return self._counts.of(joined, starts, alone=alone)",
        becomes="return self._counts.of(joined, starts)",
        tests=(f"{_MOMENTS}::test_what_comes_in_below_an_unlimited_project_is_not_the_callers",),
    ),
    Mutation(
        name="limit-without-a-column",
        guard="a limit for which no column was named is refused",
        without="it is passed over in silence",
        file="engines/sql/counts.py",
        source="if limit != UNLIMITED and not self.can(resource, scope.kind):",
        becomes="if limit < UNLIMITED:",
        tests=("engines/test_who_counts.py::test_a_check_refuses_what_a_guard_would",),
        store="sqlite",
    ),
    Mutation(
        name="names-in-another-spelling",
        guard="an owner whose name the service's column cannot hold is refused",
        without="its rows are never found, and so never limited",
        file="engines/sql/counts.py",
        source="        if not self.can_hold(resource, scope):\n",
        becomes="        if not resource:\n",
        tests=("engines/test_guards_columns.py::test_columns_that_are_no_text",),
        store="sqlite",
    ),
    Mutation(
        name="names-by-collation",
        guard="names are compared byte by byte, whatever the service's collation",
        without="acme and ACME are counted as one, and limited as two",
        file="engines/sql/counts.py",
        source="if self._database.exactly is None or not count.is_text(kind):",
        becomes="if not count.is_text(kind) or self._database:",
        tests=("engines/test_guards_columns.py::test_names_are_bytes_in_any_collation",),
        store="mariadb",
    ),
    Mutation(
        name="claimed-though-counted",
        guard="claim and reserve refuse what is counted",
        without="a number is kept that nobody compares with the rows",
        file="engines/sql/changes.py",
        source="                    self._counters.refuse_counted(self._connection, asked)\n",
        becomes="                    list(asked)\n",
        tests=("engines/test_who_counts.py::test_who_claimed_it_before_learns_that_it_is_counted",),
        store="sqlite",
    ),
    Mutation(
        name="removed-with-rows",
        guard="a project with rows of counted resources is not removed",
        without="its rows count for nobody",
        file="engines/sql/moving.py",
        source="        if any(counted.values()):\n",
        becomes="        if not id:\n",
        tests=("engines/test_guards_events.py::test_the_tree_knows_of_rows",),
        store="sqlite",
    ),
)

GUARDS: Final = (Room("Counted resources", COUNTED),)
