"""Guards against those who are killed in the midst of a call, or never come back."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["KILLED"]

_DATABASES: Final = "engines/sql/databases.py"

_VANISHES: Final = ("engines/test_killed.py::test_who_vanishes_holds_no_lock_for_longer_than_a_call",)

VANISHED: Final = (
    Mutation(
        name="idle-for-ever",
        guard="PostgreSQL ends a transaction of ours that stands still",
        without="a client that is cut off keeps a project locked for two hours",
        file=_DATABASES,
        source="idle_in_transaction_session_timeout={milliseconds(max(timeout, _SHORTEST_IDLE))}",
        becomes="idle_in_transaction_session_timeout=0",
        tests=_VANISHES,
    ),
    Mutation(
        name="idle-for-ever-on-mariadb",
        guard="so does MariaDB",
        without="a client that is cut off keeps a project locked for eight hours",
        file=_DATABASES,
        source="idle_transaction_timeout = {whole_seconds(max(timeout, _SHORTEST_IDLE))}",
        becomes="idle_transaction_timeout = 0",
        tests=_VANISHES,
        store="mariadb",
    ),
    Mutation(
        name="ended-for-good",
        guard="a connection that was ended under a call is one that may come back, whichever class its error is of",
        without="who was held up for a moment is told that to try again is of no use",
        file="engines/sql/driver_errors.py",
        source="error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)",
        becomes="isinstance(error, OperationalError | InterfaceError)",
        tests=("engines/test_killed.py::test_who_is_held_up_for_too_long_begins_anew",),
    ),
    Mutation(
        name="sums-split",
        guard="sums are not grouped by a plain column where MariaDB would consider to split them",
        without="a server whose query is killed in that moment goes down",
        file="engines/sql/sums.py",
        source='return f"coalesce({compiler.process(element.clauses, **kwargs)})"',
        becomes="return compiler.process(element.clauses, **kwargs)",
        tests=(
            "engines/test_killed.py::test_who_is_killed_while_sums_are_planned_does_not_take_the_server_along",
        ),
        store="mariadb",
    ),
)

KILLED: Final = (Room("Those who are killed or vanish", VANISHED),)
