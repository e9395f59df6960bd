"""Guards of how the calls of one process meet."""

from __future__ import annotations

from typing import Final

from mutations.mutation import Mutation, Room

__all__ = ["COMBINING"]

_COMBINING: Final = "combining.py"

CALLS: Final = (
    Mutation(
        name="followers-told-early",
        guard="whoever is in a batch is let go on when the batch is decided",
        without="they ask again for what is just being committed",
        file=_COMBINING,
        source="        batch = self._take(first)\n        try:\n",
        becomes="        batch = self._take(first)\n"
        "        for waiting in batch[1:]:\n            waiting.ticket.open()\n        try:\n",
        tests=("unit/test_combining.py::test_nobody_is_answered_before_the_batch_is",),
        store="memory",
    ),
    Mutation(
        name="batch-in-doubt-untold",
        guard="a batch in doubt is in doubt for each of its callers",
        without="it is made again behind the back of whoever knows whether it may be",
        file=_COMBINING,
        source='if len(batch) > 1 and not (error.retryable or getattr(error, "in_doubt", False)):',
        becomes="if len(batch) > 1:",
        tests=("unit/test_combining.py::test_a_batch_in_doubt_is_settled_by_each_caller",),
        store="memory",
    ),
    Mutation(
        name="interruption-untold",
        guard="who follows a leader that is interrupted is in doubt, and learns it",
        without="it asks again as if nothing had been sent",
        file=_COMBINING,
        source='waiting.error = StoreUnavailable("whoever led the batch was interrupted", in_doubt=True)',
        becomes="waiting.error = None",
        tests=(
            "unit/test_combining.py::test_a_leader_that_is_interrupted_leaves_its_followers_in_doubt_and_not_alone",
        ),
        store="memory",
    ),
    Mutation(
        name="failure-shared",
        guard="what a batch fails at each of its callers then asks for alone",
        without="one that cannot be made takes the others with it",
        file=_COMBINING,
        source="                return  # it may be the fault of one of them\n",
        becomes="                error.retryable\n",
        tests=("unit/test_combining.py::test_what_a_batch_fails_for_is_made_call_by_call",),
        store="memory",
    ),
    Mutation(
        name="leader-unshielded",
        guard="a cancelled leader decides its batch to the end",
        without="those who wait in it are never answered, or in doubt",
        file="engines/sql/on_loop.py",
        source="        return await_only(asyncio.shield(task))\n",
        becomes="        return await_only(task)\n",
        tests=("engines/test_aio.py::test_a_cancelled_leader_takes_nobody_with_it",),
    ),
    Mutation(
        name="no-takeover",
        guard="when a leader is held up the next in the queue leads beside it",
        without="one lock that somebody keeps stops the whole process",
        file=_COMBINING,
        source="if self._queue[0] is waiting and now - self._began >= self._held_up_after:",
        becomes="if self._queue[0] is not waiting and now - self._began >= self._held_up_after:",
        tests=("unit/test_combining.py::test_a_leader_that_is_held_up_holds_up_nobody_else",),
        store="memory",
    ),
    Mutation(
        name="queue-never-left",
        guard="who gives up leaves the queue",
        without="what was given up is made",
        file=_COMBINING,
        source="                self._queue.remove(waiting)\n",
        becomes="",
        tests=("unit/test_combining.py::test_who_is_interrupted_in_the_queue_is_not_made",),
        store="memory",
    ),
    Mutation(
        name="turn-kept",
        guard="who is interrupted when its turn has come hands it over",
        without="all that come later wait for nobody",
        file=_COMBINING,
        source="        self._hand_over(waiting.turn)\n",
        becomes="",
        tests=("unit/test_combining.py::test_who_is_interrupted_when_its_turn_has_come_hands_it_over",),
        store="memory",
    ),
    Mutation(
        name="kinds-mixed",
        guard="only changes of one kind go together",
        without="a release sends the claims beside it the long way",
        file=_COMBINING,
        source="(batch if type(waiting.change) is type(first.change) else others).append(waiting)",
        becomes="batch.append(waiting)",
        tests=("unit/test_combining.py::test_only_what_is_of_one_kind_goes_together",),
        store="memory",
    ),
    Mutation(
        name="fork-unnoticed",
        guard="a forked child begins with nobody at work",
        without="it waits for a leader that is not in its process",
        file=_COMBINING,
        source="        if self._process != os.getpid():",
        becomes="        if not self._process:",
        tests=("unit/test_combining.py::test_a_forked_child_waits_for_nobody",),
        store="memory",
    ),
    Mutation(
        name="queue-without-end",
        guard="the queue is bounded",
        without="memory grows with every caller while the store stands still",
        file=_COMBINING,
        source="            if len(self._queue) >= _MOST_WAITING:\n",
        becomes="            if len(self._queue) < 0:\n",
        tests=("unit/test_combining.py::test_a_full_queue_says_so",),
        store="memory",
    ),
    Mutation(
        name="row-stopped",
        guard="who leaves lets the next go on",
        without="all behind it wait until they look around",
        file="waiting.py",
        source="        self.gone = True\n        self.pass_on()\n",
        becomes="        self.gone = True\n",
        tests=("unit/test_waiting.py::test_who_has_left_stops_nobody",),
        store="memory",
    ),
    Mutation(
        name="row-behind-one-that-left",
        guard="who had left before the row was formed is passed by",
        without="all behind it wait until they look around",
        file="waiting.py",
        source="            if ticket.gone:\n",
        becomes="            if ticket.then is None:\n",
        tests=("unit/test_waiting.py::test_who_has_left_stops_nobody",),
        store="memory",
    ),
    Mutation(
        name="time-begins-anew",
        guard="the time of an asyncio call is over once",
        without="who waited in vain for others takes its timeout a second time",
        file="aio.py",
        source="        call = combiner.caller(change, deadline, waiting)\n",
        becomes="        deadline = time.monotonic() + 60\n        call = combiner.caller(change, deadline, waiting)\n",
        tests=("engines/test_aio.py::test_the_time_of_a_call_is_over_once",),
    ),
    Mutation(
        name="never-alone",
        guard="what was in conflict together again and again is asked for alone",
        without="it is in conflict with its neighbours for ever",
        file=_COMBINING,
        source="            if attempt < _ATTEMPTS_TOGETHER:\n",
        becomes="            if attempt >= 0:\n",
        tests=("unit/test_combining.py::test_a_batch_in_conflict_is_begun_anew_and_at_last_each_asks_alone",),
        store="memory",
    ),
)

COMBINING: Final = (Room("Calls that meet", CALLS),)
