"""What ZooKeeper's multis and Galera's nodes are held together by."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["CLUSTERS"]

_SESSION: Final = "engines/zookeeper/session.py"
_WRITING: Final = "engines/zookeeper/writing.py"
_CHANGING: Final = "engines/zookeeper/changing.py"
_GALERA: Final = "engines/sql/galera.py"

_ZOOKEEPER: Final = (
    Mutation(
        name="results-unseen",
        guard="every result of a multi is looked at",
        without="a multi that failed is answered like one that succeeded: claims that were never made are admitted",
        file=_SESSION,
        source="failed = [one for one in results if isinstance(one, Exception)]",
        becomes="failed: list[Exception] = []",
        tests=("engines/test_zookeeper.py::test_a_multi_that_failed_is_a_conflict",),
        store="zookeeper",
    ),
    Mutation(
        name="results-missing",
        guard="a multi has as many results as operations",
        without="an answer that was cut short is taken for a whole one",
        file=_SESSION,
        source="if not failed and len(results) == len(multi):",
        becomes="if not failed:",
        tests=("engines/test_zookeeper.py::test_every_result_is_looked_at",),
        store="zookeeper",
    ),
    Mutation(
        name="doubt-of-a-multi",
        guard="a multi that was not answered is in doubt",
        without="the caller is told that nothing has happened, and asks for another one",
        file=_SESSION,
        source="raise _unavailable(error, in_doubt=True) from error",
        becomes="raise _unavailable(error, in_doubt=False) from error",
        tests=("engines/test_zookeeper.py::test_in_doubt_the_caller_is_told",),
        store="zookeeper",
    ),
    Mutation(
        name="counters-without-versions",
        guard="a counter is written on the condition that its version is what was read",
        without="of two claims that read one number, the second is written over the first",
        file="engines/zookeeper/counters.py",
        source="multi.set(path, data, self.version)",
        becomes="multi.set(path, data, -1)",
        tests=("engines/test_zookeeper.py::test_what_was_overtaken_is_decided_again",),
        store="zookeeper",
    ),
    Mutation(
        name="rules-unchecked",
        guard="each multi checks the version of the rules that it was decided by",
        without="a limit that was lowered, or set for the first time, does not hold for who remembers the old rules",
        file="engines/zookeeper/rulebook.py",
        source="multi.check(self._layout.rules, edition.version)",
        becomes="multi.size += 0",
        tests=("engines/test_zookeeper.py::test_nothing_rests_on_what_a_process_remembers",),
        store="zookeeper",
    ),
    Mutation(
        name="forgetting-unchecked",
        guard="what rests on claims checks that none was forgotten meanwhile",
        without="a node made again has the version of the old one: another claim is taken for the one that was read",
        file=_WRITING,
        source="if decision.rests_on_claims:",
        becomes="if False:",
        tests=(
            "engines/test_zookeeper_moments.py::test_an_external_id_that_is_forgotten_and_taken_meanwhile",
            "engines/test_zookeeper_moments.py::test_a_claim_that_is_forgotten_and_made_again_meanwhile",
        ),
        store="zookeeper",
    ),
    Mutation(
        name="refusal-of-two-moments",
        guard="a refusal looks once more whether rules and claims stand as they did",
        without="a limit of one moment is held against usage of another, and what always fitted is refused",
        file=_CHANGING,
        source="self._confirm(decision)",
        becomes="self._claims",
        tests=("engines/test_zookeeper_moments.py::test_a_refusal_is_of_one_moment",),
        store="zookeeper",
    ),
    Mutation(
        name="multi-of-any-size",
        guard="what is too large for one multi is refused before it is sent",
        without="the server drops the connection, and nobody knows whether it happened",
        file="engines/zookeeper/multi.py",
        source="if self.size > largest:",
        becomes="if self.size < 0:",
        tests=("engines/test_zookeeper_nodes.py::test_what_is_too_large_for_one_step_is_refused",),
        store="zookeeper",
    ),
)

_ON_GALERA: Final = (
    Mutation(
        name="nodes-do-not-meet",
        guard="who makes a first counter, and who sets limits or moves, write one row on Galera",
        without="nodes do not see each other's locks: a first claim on one passes a limit that is set on another",
        file=_GALERA,
        source="if self.is_one(connection) and connection.execute(self._meet).rowcount == 0:",
        becomes="if False:",
        tests=(
            "engines/test_galera.py::test_a_first_claim_meets_a_new_default",
            "engines/test_galera.py::test_a_first_claim_meets_a_first_limit",
            "engines/test_galera.py::test_a_first_claim_meets_a_move",
        ),
        store="galera",
    ),
    Mutation(
        name="nodes-do-not-wait",
        guard="a transaction begins with what was committed on any node before",
        without="what was released on one node is still counted on another, and a claim that fits is refused there",
        file=_GALERA,
        source='_ALWAYS_WAIT: Final = "SET SESSION wsrep_sync_wait = 15"',
        becomes='_ALWAYS_WAIT: Final = "SET SESSION wsrep_sync_wait = 0"',
        tests=("engines/test_galera.py::test_no_false_refusal_after_a_release_elsewhere",),
        store="galera",
        attempts=3,
    ),
)

CLUSTERS: Final = (
    Room("Multis of ZooKeeper", _ZOOKEEPER),
    Room("Nodes of Galera", _ON_GALERA),
)
