"""Guards of reservations that run out, of events, and of reconciling."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["UPKEEP"]

_EXPIRY: Final = "engines/sql/expiry.py"
_CHANGES: Final = "engines/sql/changes.py"
_LEDGER: Final = "engines/ledger.py"
_EVENTS: Final = "engines/sql/events.py"
_UPKEEP: Final = "engines/sql/upkeep.py"

EXPIRY: Final = (
    Mutation(
        name="expired-by-the-sweep",
        guard="a reservation ends at its time, swept or not",
        without="it is provisioned although it ran out",
        file="engines/records.py",
        source='if self.state == "reserved" and self.expires_at is not None and self.expires_at <= now:',
        becomes='if self.state == "expired":',
        tests=("conformance::test_provisioned_too_late_consumes_nothing",),
        store="sqlite",
    ),
    Mutation(
        name="ran-out-unsought",
        guard="before a refusal, what ran out and is still counted is looked for",
        without="a claim that fits is refused",
        file=_CHANGES,
        source="        if keys:\n            raise RunOut(keys)\n",
        becomes="",
        tests=("conformance::test_it_runs_out_by_itself",),
        store="sqlite",
    ),
    Mutation(
        name="ran-out-and-held",
        guard="in a caller's transaction, what ran out but is held by another is looked for too",
        without="a claim is refused because of what another transaction is just sweeping",
        file=_EXPIRY,
        source="(self._free_in_the_way, self._in_the_way) if joined else",
        becomes="(self._free_in_the_way,) if joined else",
        tests=("engines/test_callers_transaction.py::test_what_ran_out_and_is_held_is_a_conflict",),
    ),
    Mutation(
        name="ran-out-below-the-unseen",
        guard="on MariaDB a refusal needs a snapshot that shows the tree as it is",
        without="what ran out in a project that was moved in since refuses a claim that fits",
        file=_EXPIRY,
        source="if joined and self._database.plain_reads_lag and not self._projects.is_present(connection):",
        becomes="if not self._database:",
        tests=(
            "engines/test_rule_corners.py::test_a_project_moved_in_since_the_snapshot_makes_no_false_refusal",
        ),
        store="mariadb",
    ),
    Mutation(
        name="swept-with-waiting",
        guard="in a caller's transaction only what can be locked at once is swept",
        without="a claim waits for whoever holds a reservation, in no order",
        file=_EXPIRY,
        source="self._free_keys = database.locked(keys, skip_locked=True)",
        becomes="self._free_keys = database.locked(keys)",
        tests=("engines/test_callers_transaction.py::test_what_ran_out_and_is_held_is_a_conflict",),
    ),
    Mutation(
        name="counters-swept-with-waiting",
        guard="in a caller's transaction a sweep leaves what needs a counter that another one holds",
        without="two callers that sweep for each other wait in a circle",
        file=_EXPIRY,
        source="self._counters.lock(connection, ways, wait=wait)",
        becomes="self._counters.lock(connection, ways)",
        tests=("engines/test_lock_waits.py::test_a_callers_sweep_waits_for_no_counter",),
    ),
    Mutation(
        name="two-sweepers",
        guard="a sweep locks the reservations that it ends",
        without="two sweeps give one reservation back twice",
        file=_EXPIRY,
        source="self._due = database.locked(due, skip_locked=True)",
        becomes="self._due = due",
        tests=("engines/test_lock_waits.py::test_a_sweep_leaves_what_another_one_holds",),
    ),
    Mutation(
        name="swept-alive",
        guard="a sweep looks at the time again, under the lock",
        without="a reservation that was just renewed is swept",
        file=_LEDGER,
        source='if entry.ended or entry.state_at(self.now) != "expired":',
        becomes="if entry.ended:",
        tests=("engines/test_lock_waits.py::test_what_was_renewed_meanwhile_is_not_swept",),
    ),
    Mutation(
        name="expired-is-released",
        guard="what ran out has expired, whoever ends it",
        without="a reservation ends in two ways",
        file=_LEDGER,
        source="""        if entry.state_at(self.now) == "expired":
            entry.state, entry.ended_at""",
        becomes="""        if entry.ended:
            entry.state, entry.ended_at""",
        tests=("conformance::test_an_expired_one_is_not_released_too",),
        store="sqlite",
    ),
    Mutation(
        name="moment-of-expiry-lost",
        guard="the moment of expiry is kept before it is taken from the row",
        without="on MariaDB, which assigns from left to right, nothing tells when it ended",
        file="engines/sql/writing.py",
        source="""                (c.ended_at, c.expires_at),
                (c.state, "expired"),
                (c.expires_at, None),
""",
        becomes="""                (c.expires_at, None),
                (c.ended_at, c.expires_at),
                (c.state, "expired"),
""",
        tests=("conformance::test_prune_forgets_what_ended_long_ago",),
        store="mariadb",
    ),
    Mutation(
        name="time-of-the-transaction",
        guard="time is that of the statement, not of the transaction's beginning",
        without="in a long transaction a reservation never runs out",
        file="engines/sql/databases.py",
        source="extract(epoch FROM clock_timestamp())",
        becomes="extract(epoch FROM now())",
        tests=("engines/test_transactions.py::test_time_goes_on_within_a_transaction",),
    ),
    Mutation(
        name="over-quota-by-what-ran-out",
        guard="nobody is told to be over quota because of what ran out",
        without="a lowered limit raises a false alarm",
        file="engines/sql/bounds.py",
        source="        self._look_for_expired(connection, definition, updates)\n",
        becomes="",
        tests=("engines/test_rule_corners.py::test_what_ran_out_puts_nobody_over_quota",),
        store="sqlite",
    ),
)

EVENTS: Final = (
    Mutation(
        name="numbering-unlocked",
        guard="who numbers events locks the number that was given last",
        without="two readers number at once, and one of them fails or goes on from an old number",
        file=_EVENTS,
        source="self._lock_numbering = database.locked(sa.select(n.last_seq).where(n.id == 1))",
        becomes="self._lock_numbering = sa.select(n.last_seq).where(n.id == 1)",
        tests=("engines/test_lock_waits.py::test_who_numbers_events_waits_for_another",),
    ),
    Mutation(
        name="numbering-stands-still",
        guard="the number that was given last is kept",
        without="a number is given again",
        file=_EVENTS,
        source='            connection.execute(self._numbered, {"last": last + len(keys)})\n',
        becomes="",
        tests=("conformance::test_forgotten_events_leave_the_numbers_as_they_are",),
        store="sqlite",
    ),
    Mutation(
        name="told-before-the-lock",
        guard="a change of a limit is told once its counters are locked",
        without="events of one scope come in another order than what they tell of",
        file="engines/sql/bounds.py",
        source="        self._apply(connection, definition, [_update(scope, known, bounds, below)], told)\n",
        becomes="        self._apply(connection, definition, [_update(scope, known, bounds, below)], _nothing)\n",
        tests=("conformance::test_a_limit_is_lowered_and_raised",),
        store="sqlite",
    ),
    Mutation(
        name="crossings-unseen",
        guard="a change of a limit tells who has come over quota because of it",
        without="an operator learns nothing",
        file="engines/sql/bounds.py",
        source="""        self._events.crossed(
            connection, ((name, update.scope, update.before, update.after) for update in updates)
        )
""",
        becomes="",
        tests=("conformance::test_a_limit_is_lowered_and_raised",),
        store="sqlite",
    ),
    Mutation(
        name="crossing-marked-twice",
        guard="the mark of who is over quota is compared as it is written",
        without="refused guards, which hold no lock, tell of one crossing many times",
        file="engines/sql/crossings.py",
        source='.where(k.id == sa.bindparam("key"), k.over_quota == sa.bindparam("was"))',
        becomes='.where(k.id == sa.bindparam("key"), k.over_quota <= sa.bindparam("was") + 1)',
        tests=("engines/test_guards_moments.py::test_a_crossing_that_another_has_told_meanwhile",),
    ),
    Mutation(
        name="crossing-result-unread",
        guard="only who has written the mark tells of the crossing",
        without="it is told by everybody who has seen it",
        file="engines/sql/crossings.py",
        source="if connection.execute(self._mark, values).rowcount == 1:",
        becomes="if connection.execute(self._mark, values).rowcount >= 0:",
        tests=("engines/test_guards_moments.py::test_a_crossing_that_another_has_told_meanwhile",),
    ),
)

RECONCILING: Final = (
    Mutation(
        name="repair-unlocked",
        guard="a repair locks the counter, and sums in a new statement",
        without="it writes over what is claimed meanwhile",
        file=_UPKEEP,
        source="self._lock_counter = database.locked(self._find_counter)",
        becomes="self._lock_counter = self._find_counter",
        tests=("engines/test_lock_waits.py::test_a_repair_waits_for_what_is_under_way",),
    ),
    Mutation(
        name="repair-by-what-ran-out",
        guard="a repair sweeps what ran out before it tells of anybody over quota",
        without="it raises a false alarm",
        file=_UPKEEP,
        source="if keys := self._expiry.in_the_way(connection, [violation], joined=False):",
        becomes="if keys := list[int]():",
        tests=("engines/test_rule_corners.py::test_a_repair_brings_no_false_alarm",),
        store="sqlite",
    ),
    Mutation(
        name="lost-counter-unfound-from-below",
        guard="a counter that is made again raises the generations below it",
        without="who lies below goes on without it",
        file=_UPKEEP,
        source="            self._locks.raise_generations(connection, rows)\n",
        becomes="",
        tests=("engines/test_tree_corners.py::test_a_lost_counter_stops_nobody",),
        store="sqlite",
    ),
    Mutation(
        name="pruned-above-children",
        guard="a claim is forgotten only when nothing lies below it",
        without="what is below it can no longer be released with it",
        file=_UPKEEP,
        source="            .where(~sa.exists().where(below.c.parent_id == c.claim_id))\n",
        becomes="            .where(~sa.exists().where(below.c.id < 0))\n",
        tests=("conformance::test_prune_keeps_a_parent_while_something_is_below",),
        store="sqlite",
    ),
)

UPKEEP: Final = (
    Room("Reservations that run out", EXPIRY),
    Room("Events", EVENTS),
    Room("Reconciling", RECONCILING),
)
