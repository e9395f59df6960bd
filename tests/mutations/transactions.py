"""Guards of transactions, of what a database's errors mean, of trying again, and of sources outside the store."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["TRANSACTIONS"]

_TRANSACTIONS: Final = "engines/sql/transactions.py"
_DATABASES: Final = "engines/sql/databases.py"
_DESK: Final = "desk.py"
_FRESHNESS: Final = "freshness.py"
_CACHING: Final = "sources/caching.py"
_HANDLING: Final = "handlers/transacting.py"

ERRORS: Final = (
    Mutation(
        name="deadlock-unknown",
        guard="PostgreSQL's deadlock (40P01) is a conflict",
        without="a caller is told that the store is down, and does not begin anew",
        file=_DATABASES,
        source='        "40P01": Fault.CONFLICT,  # deadlock\n',
        becomes="",
        tests=("engines/test_callers_transaction.py::test_crossing_calls_come_out_as_a_conflict",),
    ),
    Mutation(
        name="deadlock-unknown-on-mariadb",
        guard="MariaDB's deadlock (1213) is a conflict",
        without="a caller is told that the store is down, and does not begin anew",
        file=_DATABASES,
        source="        1213: Fault.CONFLICT,",
        becomes="       ",
        tests=("engines/test_callers_transaction.py::test_crossing_calls_come_out_as_a_conflict",),
        store="mariadb",
    ),
    Mutation(
        name="lock-timeout-unknown",
        guard="a lock that PostgreSQL did not give in time (55P03) is a conflict",
        without="a caller is told that the store is down",
        file=_DATABASES,
        source='        "55P03": Fault.LOCK_WAIT,\n',
        becomes="",
        tests=("engines/test_callers_transaction.py::test_a_lock_that_is_not_to_be_had_in_time",),
    ),
    Mutation(
        name="lock-timeout-unknown-on-mariadb",
        guard="a lock that MariaDB did not give in time (1205) is a conflict",
        without="a caller is told that the store is down",
        file=_DATABASES,
        source="        1205: Fault.LOCK_WAIT,  # only the statement is gone\n",
        becomes="",
        tests=("engines/test_callers_transaction.py::test_a_lock_that_is_not_to_be_had_in_time",),
        store="mariadb",
    ),
    Mutation(
        name="serialization-unknown",
        guard="a snapshot that PostgreSQL finds too old (40001) is a conflict",
        without="a caller at REPEATABLE READ is told that the store is down",
        file=_DATABASES,
        source='        "40001": Fault.CONFLICT,  # could not serialize access\n',
        becomes="",
        tests=("conformance::test_an_old_snapshot_admits_nothing_too_much",),
    ),
    Mutation(
        name="failed-transaction-unknown",
        guard="a statement in a transaction that has failed (25P02) is a conflict",
        without="a caller is told that the store is down, though only their transaction is",
        file=_DATABASES,
        source='        "25P02": Fault.CONFLICT,  # the caller\'s transaction has failed before\n',
        becomes="",
        tests=("engines/test_callers_transaction.py::test_a_dead_connection_and_a_failed_transaction",),
    ),
    Mutation(
        name="commit-taken-for-refused",
        guard="a COMMIT without an answer is in doubt",
        without="the caller is told that nothing has happened, though it may have",
        file="engines/sql/driver_errors.py",
        source='return StoreUnavailable(f"no answer to COMMIT: {text}", in_doubt=True)',
        becomes='return StoreUnavailable(f"no answer to COMMIT: {text}", in_doubt=False)',
        tests=("engines/test_transactions.py::test_a_commit_without_an_answer_is_in_doubt",),
    ),
    Mutation(
        name="autocommit-let-in",
        guard="a connection in AUTOCOMMIT mode is refused",
        without="half a claim is committed",
        file=_TRANSACTIONS,
        source='if level == "AUTOCOMMIT" or (self.database.row_locks and self._is_autocommit(connection)):',
        becomes='if level == "COMMIT":',
        tests=("conformance::test_levels_that_cannot_be_safe",),
    ),
    Mutation(
        name="autocommit-of-the-driver",
        guard="the driver is asked for AUTOCOMMIT, too",
        without="half a claim is committed where the service has set it on the driver's own connection",
        file=_TRANSACTIONS,
        source='if level == "AUTOCOMMIT" or (self.database.row_locks and self._is_autocommit(connection)):',
        becomes='if level == "AUTOCOMMIT":',
        tests=("engines/test_callers_transaction.py::test_autocommit_however_it_was_asked_for",),
    ),
    Mutation(
        name="read-uncommitted-let-in",
        guard="READ UNCOMMITTED is refused",
        without="a claim is decided on what is rolled back later",
        file=_TRANSACTIONS,
        source='        if level == "READ UNCOMMITTED":\n',
        becomes='        if level == "UNCOMMITTED":\n',
        tests=("conformance::test_levels_that_cannot_be_safe",),
    ),
    Mutation(
        name="waits-unbounded",
        guard="on a service's own engine, waits for locks are bounded",
        without="a call hangs for as long as another holds the row",
        file=_TRANSACTIONS,
        source="if (self.owned and patience is None) or self.database.bound_waits is None:",
        becomes="if self.owned or self.database.bound_waits is not None or patience is None:",
        tests=("engines/test_transactions.py::test_waits_on_a_services_engine_are_bounded",),
    ),
)

AGAIN: Final = (
    Mutation(
        name="retry-in-the-old-transaction",
        guard="a decision on an old path is taken again in a new transaction",
        without="it meets the rows that it placed itself, and takes them for a replay",
        file="engines/sql/wiring.py",
        source="""        while time.monotonic() < deadline:
            try:
                with self._transactions.own(patience=patience) as connection:
                    return step(connection)
            except Outdated:
                continue
            except RunOut as run_out:
""",
        becomes="""        while time.monotonic() < deadline:
            try:
                with self._transactions.own(patience=patience) as connection:
                    while True:
                        try:
                            return step(connection)
                        except Outdated:
                            continue
            except RunOut as run_out:
""",
        tests=("engines/test_tree_locks.py::test_a_first_limit_holds_for_ways_that_are_remembered",),
    ),
    Mutation(
        name="retry-beside-the-caller",
        guard="in a caller's transaction nothing is tried again",
        without="a retry runs in a transaction that has failed, or sees its own left-over rows",
        file=_DESK,
        source="        if connection is not None:\n            try:\n",
        becomes="        if connection is call:\n            try:\n",
        tests=("unit/test_trying_again.py::test_nothing_is_tried_again_in_a_callers_transaction",),
        store="memory",
    ),
    Mutation(
        name="conflict-untried",
        guard="after a conflict a call of its own is tried again",
        without="a caller is told of every deadlock",
        file=_DESK,
        source="                if not (error.retryable or in_doubt):\n",
        becomes="                if not in_doubt:\n",
        tests=("unit/test_trying_again.py::test_a_call_of_its_own_is_tried_again",),
        store="memory",
    ),
    Mutation(
        name="doubt-forgotten",
        guard="a call that was in doubt once is in doubt until it is settled",
        without="its own doing is taken for another's, and the caller is told that nothing happened",
        file=_DESK,
        source='in_doubt = in_doubt or getattr(error, "in_doubt", False)',
        becomes='in_doubt = getattr(error, "in_doubt", False)',
        tests=("unit/test_in_doubt.py::test_a_removal_in_doubt_is_not_taken_for_unknown",),
        store="memory",
    ),
    Mutation(
        name="handler-in-the-old-transaction",
        guard="a handler is called again in a new transaction",
        without="the rows of the first attempt are there twice",
        file=_HANDLING,
        source="""        while True:
            joined = None
            try:
                with begin(arguments) as joined:
                    return handler.call(arguments, **{connection: joined})
            except (Conflict, OperationalError) as error:
                pause = attempts.pause_after(error, joined)
            time.sleep(pause)
""",
        becomes="""        with begin(arguments) as joined:
            while True:
                try:
                    return handler.call(arguments, **{connection: joined})
                except (Conflict, OperationalError) as error:
                    pause = attempts.pause_after(error, joined)
                time.sleep(pause)
""",
        tests=("engines/test_handlers.py::test_each_attempt_is_a_new_transaction",),
        store="sqlite",
    ),
    Mutation(
        name="handlers-deadlock-unknown",
        guard="a deadlock in a handler's own statement is tried again",
        without="the driver's error comes out",
        file=_HANDLING,
        source="    if database.faults.get(database.code(error.orig)) is not Fault.CONFLICT:\n        return None\n",
        becomes="    if database.faults:\n        return None\n",
        tests=("engines/test_handlers.py::test_a_deadlock_among_the_handlers_own_rows_is_tried_again",),
    ),
    Mutation(
        name="commit-of-a-handler-repeated",
        guard="a handler whose COMMIT got no answer is not called again",
        without="what may have happened is done twice",
        file=_HANDLING,
        source="if not isinstance(error, OperationalError) or error.orig is None or error.connection_invalidated:",
        becomes="if not isinstance(error, OperationalError) or error.orig is None:",
        tests=("unit/test_handlers.py::test_a_commit_without_an_answer_is_no_conflict",),
    ),
    Mutation(
        name="no-guard-around-the-handler",
        guard="a handler runs inside the guard",
        without="more rows than were asked for come in",
        file="handlers/guarding.py",
        source="""        with guard(arguments) as made:
            return handler.call(arguments, **_filled(claim, made))

    return call


def _async_call""",
        becomes="""        with guard(arguments) as made:
            pass
        return handler.call(arguments, **_filled(claim, made))

    return call


def _async_call""",
        tests=("engines/test_handlers.py::test_more_rows_than_were_asked_for",),
        store="sqlite",
    ),
)

SOURCES: Final = (
    Mutation(
        name="dated-by-the-answer",
        guard="an answer is dated by the store's time before the source was asked",
        without="an answer on its way for long passes for newer than it is, and wins",
        file=_CACHING,
        source="""            try:
                # The store's time first, so that an answer is at least as young as it says. A store that cannot tell
                # the time says nothing about the source: that is passed on, and not remembered.
                as_of = 0 if clock is None else clock()
""",
        becomes="""            try:
                ask()
                as_of = 0 if clock is None else clock()
""",
        tests=("unit/test_sources.py::test_the_stores_time_is_taken_before_the_source_is_asked",),
        store="memory",
    ),
    Mutation(
        name="old-for-ever",
        guard="a remembered answer is old after its time",
        without="a limit that was lowered elsewhere never arrives",
        file=_CACHING,
        source="        if usable is not None and now < entry.expires_at:\n",
        becomes="        if usable is not None:\n",
        tests=("unit/test_sources.py::test_a_source_is_asked_once_until_its_answer_expires",),
        store="memory",
    ),
    Mutation(
        name="stale-for-ever",
        guard="an old answer is served for so long, and then the store is not available",
        without="a source that is down for a week still decides",
        file=_CACHING,
        source="return usable if now < entry.expires_at + self._serve_stale_for else None",
        becomes="return usable",
        tests=("unit/test_sources_down.py::test_an_old_answer_is_served_for_so_long_and_no_longer",),
        store="memory",
    ),
    Mutation(
        name="every-thread-asks",
        guard="one asks for a key, and the others wait",
        without="a slow source is asked by everybody at once",
        file=_CACHING,
        source="                flight = self._flights.get((key, dated))\n                mine = flight is None\n",
        becomes="                flight = None\n                mine = flight is None\n",
        tests=("unit/test_sources_down.py::test_many_threads_make_one_fetch",),
        store="memory",
    ),
    Mutation(
        name="undated-for-dated",
        guard="an answer that was asked for without the store's time is not taken for one that has it",
        without="it is dated 1970, and never written",
        file=_CACHING,
        source="usable = entry.fetched if entry.dated or not dated else None\n        if usable",
        becomes="usable = entry.fetched\n        if usable",
        tests=(
            "unit/test_sources.py::test_an_answer_without_a_stores_time_is_not_taken_for_one_that_has_it",
        ),
        store="memory",
    ),
    Mutation(
        name="remembered-though-rolled-back",
        guard="what was written in a caller's transaction is not taken to stand in the store",
        without="it is rolled back, and the limit is not asked for again",
        file=_FRESHNESS,
        source="            if committed:  #",
        becomes="            if change:  #",
        tests=("engines/test_tree_corners.py::test_an_adoption_that_was_rolled_back_is_made_again",),
        store="sqlite",
    ),
    Mutation(
        name="ancestors-limits-unasked",
        guard="the limits of a project's ancestors are asked for, too",
        without="a parent's limit elsewhere is never known",
        file=_FRESHNESS,
        source='                charged[Scope("project", ancestor)] = None\n',
        becomes="                continue\n",
        tests=("unit/test_freshness_callers.py::test_a_project_is_moved_by_the_limits_of_its_new_ancestors",),
        store="memory",
    ),
    Mutation(
        name="limits-edited-though-elsewhere",
        guard="limits that come from elsewhere are not edited here",
        without="an edit holds until the source is asked again, and then goes without a word",
        file=_FRESHNESS,
        source="    def refuse_limit_edits(self) -> None:\n        if self._limits is not None:\n",
        becomes="    def refuse_limit_edits(self) -> None:\n        if not self._engine:\n",
        tests=("unit/test_freshness.py::test_limits_of_a_file_are_changed_there",),
        store="memory",
    ),
    Mutation(
        name="written-once-for-all",
        guard="what a source said is written again every few seconds",
        without="what another process wrote in between stays",
        file=_FRESHNESS,
        source="if known is None or known.fetched is not fetched or time.monotonic() >= known.until:",
        becomes="if known is None or known.fetched is not fetched:",
        tests=("unit/test_freshness_callers.py::test_an_answer_is_stamped_anew_every_few_seconds",),
        store="memory",
    ),
    Mutation(
        name="postponed-for-ever",
        guard="limits that could not be written beside a caller's transaction are written before their next one",
        without="a caller whose own rows are in the way is locked out for ever",
        file=_FRESHNESS,
        source="            self._catch_up(connection)\n",
        becomes="            pass\n",
        tests=("engines/test_tree_corners.py::test_limits_of_a_source_do_not_lock_a_caller_out_for_ever",),
    ),
)

DECLARED: Final = (
    Mutation(
        name="connection-passed-over",
        guard="an engine without transactions refuses a caller's connection",
        without="a claim stays when the caller rolls back",
        file="engines/memory/engine.py",
        source="    if connection is not None:\n        raise Unsupported(",
        becomes="    if connection is Unsupported:\n        raise Unsupported(",
        tests=("conformance::test_an_undeclared_connection_is_unsupported",),
        store="memory",
    ),
    Mutation(
        name="counting-undeclared",
        guard="what an engine can do is declared",
        without="it is not tested",
        file="engines/sql/store.py",
        source="{Capability.CALLERS_TRANSACTION, Capability.COUNTING, Capability.SHARED}",
        becomes="{Capability.CALLERS_TRANSACTION, Capability.SHARED}",
        tests=("conformance::test_undeclared_counting_is_unsupported",),
        store="sqlite",
    ),
)

TRANSACTIONS: Final = (
    Room("What errors mean", ERRORS),
    Room("Trying again", AGAIN),
    Room("Sources outside the store", SOURCES),
    Room("Capabilities", DECLARED),
)
