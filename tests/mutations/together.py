"""Guards of what is made together: the one statement of each database, and refusals by a read."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["TOGETHER"]

_POSTGRESQL: Final = "engines/sql/together/postgresql.py"
_MARIADB: Final = "engines/sql/together/mariadb.py"
_SQLITE: Final = "engines/sql/together/sqlite.py"
_GATHERING: Final = "engines/sql/together/gathering.py"
_MAKING: Final = "engines/sql/together/making.py"
_ARRIVALS: Final = "engines/sql/together/arrivals.py"

_FITS: Final = "engines/test_arrivals.py::test_a_batch_takes_nothing_that_is_not_there"
_OWN: Final = "engines/test_arrivals.py::test_each_is_charged_what_it_takes"
_WAY: Final = "engines/test_arrivals.py::test_a_way_that_has_changed_is_noticed"
_KNOWN: Final = "engines/test_arrivals.py::test_an_id_that_is_known_is_not_charged_again"
_HELD_UP: Final = "engines/test_arrivals.py::test_who_waits_for_a_lock_holds_up_nobody_else"
_WAITED: Final = "engines/test_arrivals_joined.py::test_a_claim_is_decided_on_what_it_waited_for"
_REFUSED: Final = "engines/test_arrivals_joined.py::test_a_refusal_leaves_nothing_in_the_transaction"
_REPLAYED: Final = "engines/test_arrivals_joined.py::test_a_replay_leaves_its_neighbours_to_be_charged"

STATEMENTS: Final = (
    Mutation(
        name="one-statement-limit-unasked",
        guard="the one statement compares the limit on every locked row",
        without="eleven are admitted for ten",
        file=_POSTGRESQL,
        source='k.generation = coalesce(n.generation, k.generation) AND k.{self._room("n.used")} AS fits',
        becomes="k.generation = coalesce(n.generation, k.generation) AS fits",
        tests=(_FITS,),
    ),
    Mutation(
        name="one-statement-limit-unasked-mariadb",
        guard="so does MariaDB's",
        without="eleven are admitted for ten",
        file=_MARIADB,
        source="SUM(generation = {generations} AND {self._room(used)})",
        becomes="SUM(generation = {generations})",
        tests=(_FITS,),
        store="mariadb",
    ),
    Mutation(
        name="one-statement-limit-unasked-sqlite",
        guard="so does SQLite's",
        without="eleven are admitted for ten",
        file=_SQLITE,
        source="AND {self._room('?')}",
        becomes="AND ? IS NOT NULL",
        tests=(_FITS,),
        store="sqlite",
    ),
    Mutation(
        name="one-statement-charges-alike-mariadb",
        guard="each counter gets what is its own",
        without="everybody in a batch is charged what the largest claim takes",
        file=_MARIADB,
        source="alike.setdefault(value, [])",
        becomes="alike.setdefault(max(values.values()), [])",
        tests=(_OWN,),
        store="mariadb",
    ),
    Mutation(
        name="one-statement-generation-unasked",
        guard="the one statement compares the generations, too",
        without="a project is not charged to its new parent",
        file=_POSTGRESQL,
        source='k.generation = coalesce(n.generation, k.generation) AND k.{self._room("n.used")} AS fits',
        becomes='k.{self._room("n.used")} AS fits',
        tests=(_WAY,),
    ),
    Mutation(
        name="one-statement-generation-unasked-mariadb",
        guard="so does MariaDB's",
        without="a project is not charged to its new parent",
        file=_MARIADB,
        source="SUM(generation = {generations} AND {self._room(used)})",
        becomes="SUM({self._room(used)})",
        tests=(_WAY,),
        store="mariadb",
    ),
    Mutation(
        name="one-statement-generation-unasked-sqlite",
        guard="so does SQLite's",
        without="a project is not charged to its new parent",
        file=_SQLITE,
        source="generation = coalesce(?, generation) AND",
        becomes="coalesce(?, generation) IS NOT NULL AND",
        tests=(_WAY,),
        store="sqlite",
    ),
    Mutation(
        name="placed-uncounted",
        guard="the one statement goes on only if every row could be placed",
        without="in a caller's transaction a replay is charged again",
        file=_POSTGRESQL,
        source="WHERE (SELECT count(*) FROM placed) = CAST(:claims AS bigint)",
        becomes="WHERE (SELECT count(*) FROM placed) <= CAST(:claims AS bigint)",
        tests=(_REPLAYED,),
    ),
    Mutation(
        name="placed-uncounted-mariadb",
        guard="so does MariaDB's",
        without="in a caller's transaction a replay is charged again",
        file=_MARIADB,
        source="IF placed = {len(batch.claims)} THEN",
        becomes="IF placed <= {len(batch.claims)} THEN",
        tests=(_REPLAYED,),
        store="mariadb",
    ),
    Mutation(
        name="placed-uncounted-sqlite",
        guard="so does SQLite's",
        without="a replay is charged again",
        file=_SQLITE,
        source="if placed.rowcount != len(batch.claims):",
        becomes="if placed.rowcount > len(batch.claims):",
        tests=(_KNOWN,),
        store="sqlite",
    ),
    Mutation(
        name="placed-in-part",
        guard="where MariaDB cannot place all rows of claims it takes back those that it could",
        without="in a caller's transaction a claim is there that nobody was charged for",
        file=_MARIADB,
        source=" ROLLBACK TO SAVEPOINT delimiter_together;",
        becomes=" SET fitted = 0;",
        tests=(_REPLAYED,),
        store="mariadb",
    ),
    Mutation(
        name="one-statement-unlocked",
        guard="the one statement locks the counters before it compares",
        without="two that do not see each other take the last unit twice",
        file=_POSTGRESQL,
        source='"ORDER BY k.id FOR NO KEY UPDATE OF k"',
        becomes='"ORDER BY k.id"',
        tests=(_WAITED,),
    ),
    Mutation(
        name="one-statement-unlocked-mariadb",
        guard="so does MariaDB's",
        without="two that do not see each other take the last unit twice",
        file=_MARIADB,
        source='" FOR UPDATE;"',
        becomes='";"',
        tests=(_WAITED,),
        store="mariadb",
    ),
    Mutation(
        name="one-statement-in-reverse",
        guard="the one statement locks counters in the order of their numbers",
        without="two claims wait for each other in a circle",
        file=_POSTGRESQL,
        source='"ORDER BY k.id FOR NO KEY UPDATE OF k"',
        becomes='"ORDER BY k.id DESC FOR NO KEY UPDATE OF k"',
        tests=("engines/test_arrivals_joined.py::test_counters_are_locked_from_the_lowest",),
    ),
    Mutation(
        name="one-statement-adds-to-the-snapshot",
        guard="what is added is added to the row as it is after the wait",
        without="what was claimed meanwhile is forgotten",
        file=_POSTGRESQL,
        source="SET used = k.used + l.used,",
        becomes='SET used = (SELECT s.used FROM {names["counters"]} s WHERE s.id = k.id) + l.used,',
        tests=(_WAITED,),
    ),
    Mutation(
        name="counters-beside-unplaced-claims",
        guard="the one statement locks no counter before every row of claims is placed",
        without="who waits for somebody else's id keeps others from their counters",
        file=_POSTGRESQL,
        source="WHERE (SELECT count(*) FROM placed) = CAST(:claims AS bigint)",
        becomes="WHERE CAST(:claims AS bigint) > 0",
        tests=("engines/test_arrivals_joined.py::test_who_waits_for_an_id_has_locked_no_counter",),
    ),
    Mutation(
        name="ids-in-the-order-of-calls",
        guard="a batch places claims in the order of their ids",
        without="two that repeat the same ids wait for each other in a circle",
        file=_GATHERING,
        source="        batch.claims.sort(key=_by_id)\n",
        becomes="",
        tests=("engines/test_arrivals_joined.py::test_who_waits_for_an_id_has_placed_none_that_comes_later",),
    ),
    Mutation(
        name="children-together",
        guard="what hangs on a parent is not made by the one statement, which locks no parents",
        without="a child outlives its parent's release",
        file=_GATHERING,
        source="paths = None if claim.parent is not None else self._remembered(claim)",
        becomes="paths = self._remembered(claim)",
        tests=("engines/test_arrivals_joined.py::test_what_hangs_on_a_parent_is_released_with_it",),
        store="sqlite",
    ),
    Mutation(
        name="left-behind-unknown",
        guard="in a caller's transaction the long way knows which rows the one statement has placed",
        without="it takes them for claims made before, and nobody is charged",
        file=_MAKING,
        source="return Left(written.placed, frozenset(batch.charges) if written.locked else frozenset(), written.now)",
        becomes="return Left()",
        tests=(_REFUSED,),
    ),
)

ARRIVALS: Final = (
    Mutation(
        name="batch-kept-in-part",
        guard="a batch that was not admitted whole is rolled back",
        without="its claims are there, and nobody is charged for them",
        file=_MAKING,
        source="                if not written.admitted:\n                    own.rollback()\n",
        becomes="",
        tests=("engines/test_arrivals.py::test_where_not_all_fit_each_is_decided_in_the_order_of_the_calls",),
        store="sqlite",
    ),
    Mutation(
        name="refused-from-memory",
        guard="a refusal rests on a read that began after the call arrived",
        without="who was full once is refused though there is room",
        file=_ARRIVALS,
        source="        charged = self._counters.look(\n"
        "            reading, {start: way for one in wanted for start, way in one.ways.items()}\n        )\n",
        becomes='        charged = self.__dict__.setdefault("before", self._counters.look(\n'
        "            reading, {start: way for one in wanted for start, way in one.ways.items()}\n        ))\n",
        tests=("engines/test_arrivals.py::test_what_was_full_is_not_refused_once_there_is_room",),
    ),
    Mutation(
        name="full-ones-unremembered",
        guard="where it was full a read comes before the next attempt",
        without="a flood of refusals locks and writes, and slows its neighbours",
        file=_ARRIVALS,
        source="        if not self._full.isdisjoint(batch.charges):\n",
        becomes="        if not changes:\n",
        tests=("engines/test_arrivals.py::test_a_flood_of_refusals_locks_nothing_and_writes_nothing",),
    ),
    Mutation(
        name="replays-refused",
        guard="a read refuses nobody whose claim is there already",
        without="who repeats the request for the last unit is told that it is not theirs",
        file=_ARRIVALS,
        source="for number in refused if known.isdisjoint(names[number])}",
        becomes="for number in refused if known is not None}",
        tests=("engines/test_arrivals.py::test_a_claim_that_is_there_is_not_refused",),
    ),
    Mutation(
        name="refused-by-what-ran-out",
        guard="where something is reserved a read refuses nobody: it may have run out",
        without="a claim is refused for what no longer counts",
        file=_ARRIVALS,
        source="if misfits and not any(counters[key].reserved for key in misfits):",
        becomes="if misfits:",
        tests=("engines/test_arrivals.py::test_reservations_that_ran_out_refuse_nobody",),
    ),
    Mutation(
        name="no-patience",
        guard="claims of several callers wait for a lock for a moment only",
        without="all wait for the one whose project is held",
        file=_ARRIVALS,
        source="                batch, patience=self.patience if several else None, likely=likely\n",
        becomes="                batch, patience=None, likely=likely\n",
        tests=(f"{_HELD_UP}[postgresql-claim]",),
    ),
    Mutation(
        name="no-patience-mariadb",
        guard="on MariaDB, too",
        without="all wait for the one whose project is held",
        file=_ARRIVALS,
        source="                batch, patience=self.patience if several else None, likely=likely\n",
        becomes="                batch, patience=None, likely=likely\n",
        tests=(f"{_HELD_UP}[mariadb-claim]",),
        store="mariadb",
    ),
    Mutation(
        name="no-patience-of-other-verbs",
        guard="so do releases and the other verbs",
        without="all wait for the one whose project is held",
        file=_ARRIVALS,
        source="told = self._in_own(step, patience=self.patience if several else None)",
        becomes="told = self._in_own(step, patience=None)",
        tests=(f"{_HELD_UP}[postgresql-release]",),
    ),
    Mutation(
        name="no-halves",
        guard="a batch that waited in vain is parted, until only those are left who are held up",
        without="those who need nothing that is held are held up with it",
        file=_ARRIVALS,
        source="            return self._make_apart(changes, batch, conflict, answers, until)\n",
        becomes="            raise\n",
        tests=(f"{_HELD_UP}[postgresql-claim]",),
    ),
    Mutation(
        name="names-decided-at-once",
        guard="what names the same claim twice is decided one after the other",
        without="a claim is written as another one of the same id, that was refused, had asked for it",
        file="engines/sql/groups.py",
        source="if type(change) is type(changes[numbers[0]]) and not (made & (makes | names) or named & makes):",
        becomes="if type(change) is type(changes[numbers[0]]):",
        tests=("engines/test_arrivals.py::test_an_id_that_was_refused_is_free_for_the_next",),
    ),
)

ON_GALERA: Final = (
    Mutation(
        name="made-and-gone",
        guard="on Galera a batch is looked for before its COMMIT",
        without="who gave way to another node in the midst of the statement is told that the claims are made",
        file=_MARIADB,
        source="            if self._galera.is_one(connection) and not self._are_there(connection, batch.claims):\n",
        becomes="            if False:\n",
        tests=("engines/test_galera.py::test_what_was_acknowledged_is_there",),
        store="galera",
    ),
)

TOGETHER: Final = (
    Room("The one statement", (*STATEMENTS, *ON_GALERA)),
    Room("What came together, and refusals by a read", ARRIVALS),
)
