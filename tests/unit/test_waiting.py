"""How those who wait are let go on: one by the other, in two rows, and nobody stops a row."""

from __future__ import annotations

import asyncio
import threading

import pytest

from delimiter.waiting import Ticket, Waits


def let_go(count: int) -> tuple[list[Ticket], list[str]]:
    tickets, ended = [Ticket() for _ in range(count)], list[str]()
    Waits().let_go(tickets, lambda: ended.append("all"))
    return tickets, ended


def is_open(ticket: Ticket) -> bool:
    return ticket.wait(0)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 4, 0, 1, 2), (0, 3, 1, 4, 2)])
def test_each_lets_the_next_go_on_and_the_last_ends_it(order: tuple[int, ...]) -> None:
    """In two rows, whichever of them is quicker. Guard: ``_at_last``."""
    tickets, ended = let_go(5)
    ready = {0, 3}
    for number in order:
        assert ready == {other for other, ticket in enumerate(tickets) if is_open(ticket)}
        for other in ready:
            tickets[other].open()  # looked at, and as it was
        assert ended == []
        tickets[number].wait(0)
        tickets[number].pass_on()
        tickets[number].pass_on()  # again: nothing
        ready.remove(number)
        ready |= {number + 1} - {3, 5}
    assert ended == ["all"]


def test_a_coroutine_waits_too() -> None:
    ticket = Ticket()
    ticket.open()
    ticket.open()  # again: nothing
    assert asyncio.run(_of(ticket))


async def _of(ticket: Ticket) -> bool:
    return await ticket.waited(20)


def test_where_nobody_waits_it_ends_at_once() -> None:
    assert let_go(0)[1] == ["all"]


@pytest.mark.parametrize("left", [0, 1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_who_has_left_stops_nobody(left: int, before: bool) -> None:
    """Taken out: ``gone``, and that who leaves passes on."""
    tickets, ended = [Ticket() for _ in range(3)], list[str]()
    if before:
        tickets[left].leave()
    Waits().let_go(tickets, lambda: ended.append("all"))
    if not before:
        tickets[left].leave()
    for number, ticket in enumerate(tickets):
        if number != left:
            assert is_open(ticket)
            ticket.pass_on()
    assert "all" in ended


def test_a_thread_waits_until_it_is_let_go() -> None:
    tickets, ended = [Ticket() for _ in range(8)], threading.Event()

    def wait(ticket: Ticket) -> None:
        while not ticket.wait(20):
            pass
        ticket.pass_on()

    threads = [threading.Thread(target=wait, args=(ticket,)) for ticket in tickets]
    for thread in threads:
        thread.start()
    Waits().let_go(tickets, ended.set)
    assert ended.wait(20)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
