"""Guards of a batch that is a transaction of its own, and of ways that are read for all who came together."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["ARRIVING"]

_POSTGRESQL: Final = "engines/sql/together/postgresql.py"
_MAKING: Final = "engines/sql/together/making.py"
_ARRIVALS: Final = "engines/sql/together/arrivals.py"

AT_ONCE: Final = (
    Mutation(
        name="at-once-kept-in-part",
        guard="a statement that is a transaction of its own fails where not all fit",
        without="its claims are there, and nobody is charged for them",
        file=_POSTGRESQL,
        source="ELSE '{_NO_ROOM}' END",
        becomes="ELSE '1' END",
        tests=("engines/test_at_once.py::test_what_the_statement_cannot_keep_is_taken_back",),
    ),
    Mutation(
        name="at-once-kept-in-part-mariadb",
        guard="on MariaDB it takes back what it has written where not all fit",
        without="its claims are there, and nobody is charged for them",
        file="engines/sql/together/mariadb.py",
        source="{fits} COMMIT; ELSE ROLLBACK; END IF;",
        becomes="{fits} COMMIT; ELSE COMMIT; END IF;",
        tests=("engines/test_at_once.py::test_what_the_statement_cannot_keep_is_taken_back",),
        store="mariadb",
    ),
    Mutation(
        name="outside-for-ever",
        guard="a connection that has been outside transactions is set back before one begins",
        without="what is rolled back stays",
        file="engines/sql/transactions.py",
        source="connection.info.get(_LEVEL, self.database.isolation) != isolation",
        becomes="_LEVEL not in connection.info",
        tests=("engines/test_at_once.py::test_a_connection_goes_outside_and_into_transactions_again",),
    ),
    Mutation(
        name="level-half-set",
        guard="a connection's level is unknown while it is set",
        without="after an interruption a batch is told as made, and rolled back",
        file="engines/sql/transactions.py",
        source="            connection.info[_LEVEL] = None",
        becomes="            pass",
        tests=(
            "engines/test_at_once.py::test_who_is_interrupted_on_the_way_leaves_no_connection_in_between",
        ),
    ),
    Mutation(
        name="plans-for-ever",
        guard="what a connection has planned for a small table is planned anew",
        without="a release reads all claims of a new store, until autovacuum comes",
        file="engines/sql/plans.py",
        source="cursor.execute(self._forget)",
        becomes="pass",
        tests=("engines/test_plans.py",),
    ),
    Mutation(
        name="at-once-at-the-limit",
        guard="where it was full a batch is not made by a statement that would fail",
        without="a project at its limit fills the server's log with errors",
        file=_ARRIVALS,
        source="        likely = self._full.isdisjoint(batch.charges)\n",
        becomes="        likely = True\n",
        tests=("engines/test_at_once.py::test_where_it_was_full_no_error_comes_into_the_servers_log",),
    ),
    Mutation(
        name="at-once-lost",
        guard="a statement of its own that was not answered is in doubt",
        without="who is told that nothing happened asks for something else, and both are there",
        file="engines/sql/driver_errors.py",
        source="in_doubt=at_once and passing",
        becomes="in_doubt=False",
        tests=("engines/test_at_once.py::test_a_statement_without_an_answer_is_in_doubt",),
    ),
    Mutation(
        name="at-once-untranslated",
        guard="what the driver raises in a statement of its own is translated as everywhere",
        without="a name that the connection cannot carry ends the call with the driver's exception",
        file="engines/sql/transactions.py",
        source="self._connected(self._outside) as connection, self.translating(at_once=True):",
        becomes="self._connected(self._outside) as connection:",
        tests=("engines/test_at_once.py::test_a_name_that_the_connection_cannot_carry",),
    ),
    Mutation(
        name="at-once-at-another-level",
        guard="statements are transactions of their own only where those are at READ COMMITTED",
        without="whoever meets another fails, instead of waiting for it",
        file="engines/sql/transactions.py",
        source="self._reads_committed = level.upper() == self.database.isolation",
        becomes="self._reads_committed = bool(level)",
        tests=("engines/test_at_once.py::test_another_default_level_of_the_database_is_noticed",),
    ),
    Mutation(
        name="at-once-unbounded",
        guard="on a service's connections the statement bounds its wait itself",
        without="it waits for as long as somebody keeps a lock",
        file=_MAKING,
        source="patience = patience or self._transactions.timeout",
        becomes="patience = patience or 3600",
        tests=("engines/test_at_once.py::test_it_waits_no_longer_than_a_call_on_a_services_engine",),
    ),
)

COLD: Final = (
    Mutation(
        name="ways-read-one-by-one",
        guard="ways that are not remembered are read for all who came together",
        without="each project costs statements of its own when a process begins",
        file=_ARRIVALS,
        source="        if not unknown:\n",
        becomes="        if unknown is not None:\n",
        tests=("engines/test_cold_ways.py::test_the_ways_of_all_are_read_together",),
        store="sqlite",
    ),
    Mutation(
        name="generations-read-last",
        guard="generations are read before what is above",
        without="a way that changes meanwhile is remembered with the generation of the new one",
        file="engines/sql/ways.py",
        source="        own = self._own_counters(connection, names, starts)\n"
        "        above = self._above(connection, names, starts)\n",
        becomes="        above = self._above(connection, names, starts)\n"
        "        own = self._own_counters(connection, names, starts)\n",
        tests=("engines/test_cold_ways.py::test_a_way_that_changes_while_it_is_read_is_noticed",),
        store="sqlite",
    ),
    Mutation(
        name="counted-looked-at-first",
        guard="whether somebody counts a resource is looked at after the generations were read",
        without="who begins to count it meanwhile is not noticed, and it is claimed",
        file="engines/sql/counters.py",
        source="        read = self._reader.read(connection, starts)\n",
        becomes="        self._definitions.look_again({resource for resource, _ in starts})\n"
        "        for resource in {resource for resource, _ in starts}:\n"
        "            self._definitions.id_of(connection, resource)\n"
        "        return self._reader.read(connection, starts)\n",
        tests=(
            "engines/test_cold_ways.py::test_what_begins_to_be_counted_while_ways_are_read_is_not_claimed",
        ),
        store="sqlite",
    ),
    Mutation(
        name="epoch-first",
        guard="the epoch grows after the ways have changed",
        without="what another thread works out meanwhile from an old way counts as new",
        file="engines/sql/counters.py",
        source="""            self._ways.pop(start, None)
        self.epoch += 1
""",
        becomes="""            self.epoch += 1
            self._ways.pop(start, None)
""",
        tests=("engines/test_cold_ways.py::test_what_is_old_is_gone_before_it_is_said",),
        store="sqlite",
    ),
)

ARRIVING: Final = (
    Room("A statement that is a transaction of its own", AT_ONCE),
    Room("Ways that are not remembered", COLD),
)
