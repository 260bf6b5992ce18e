"""What the lean reactor does at the end of a turn: calls that were put off for no time, and what other threads hand over."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.python.failure import Failure

from hypercache.net import lean as lean_module
from hypercache.net.lean import LeanReactor
from tests.net.sockets import turns, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Turns:
    """A lean reactor whose turns are the test's."""

    def __init__(self, lean: LeanReactor) -> None:
        self.lean = lean
        self.seen: list[Any] = []

    def run(self, work: Callable[[], object]) -> None:
        """Have a turn with this work in it."""
        self.lean.callFromThread(work)
        self.lean.doRead()

    def note(self, what: Any) -> None:
        self.seen.append(what)

    def later(self, what: Any, delay: float = 0) -> Any:
        return self.lean.callLater(delay, self.note, what)


@pytest.fixture
def a_turn(lean: LeanReactor) -> Iterator[Turns]:
    real: Any = reactor
    # Else the real reactor has turns of it, too.
    real.removeReader(lean)
    yield Turns(lean)
    lean.connectionLost(Failure(ConnectionError()))


def test_what_is_put_off_within_a_turn_runs_in_order_at_its_end(a_turn: Turns) -> None:
    def work() -> None:
        a_turn.later(1)
        a_turn.later(2)
        a_turn.note(0)

    a_turn.run(work)
    assert a_turn.seen == [0, 1, 2]


def test_what_is_put_off_by_that_runs_in_the_same_turn(a_turn: Turns) -> None:
    a_turn.run(lambda: a_turn.lean.callLater(0, a_turn.later, "by another"))
    assert a_turn.seen == ["by another"]


@pytest_twisted.ensureDeferred
async def test_a_chain_without_end_goes_on_in_later_turns_of_the_real_reactor(a_turn: Turns) -> None:
    def again() -> None:
        a_turn.note(1)
        a_turn.lean.callLater(0, again)

    a_turn.run(again)
    assert len(a_turn.seen) == 1 + lean_module.ROUNDS_PER_TURN
    a_turn.seen.clear()
    await until(lambda: a_turn.seen)


@pytest_twisted.ensureDeferred
async def test_outside_of_a_turn_and_with_a_delay_the_real_reactor_sees_to_it(a_turn: Turns) -> None:
    a_turn.later("outside")
    a_turn.run(lambda: a_turn.later("delayed", 0.001))
    a_turn.lean.doRead()
    assert a_turn.seen == []
    await until(lambda: len(a_turn.seen) == 2)


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_cancelled_does_not_run(a_turn: Turns) -> None:
    def work() -> None:
        call = a_turn.later("never")
        assert call.active()
        call.cancel()
        assert not call.active()
        with pytest.raises(AlreadyCancelled):
            call.cancel()

    a_turn.run(work)
    await turns()
    assert a_turn.seen == []


def test_a_call_that_has_run_is_active_no_more(a_turn: Turns) -> None:
    calls: list[Any] = []
    a_turn.run(lambda: calls.append(a_turn.later("run")))
    assert not calls[0].active()
    with pytest.raises(AlreadyCalled):
        calls[0].cancel()


@pytest_twisted.ensureDeferred
async def test_a_call_can_be_given_another_time(a_turn: Turns) -> None:
    calls: list[Any] = []

    def work() -> None:
        calls.append(a_turn.later("delayed"))
        calls[0].delay(0.001)
        calls.append(a_turn.later("brought forward"))
        calls[1].reset(1000)
        calls[1].reset(0.002)
        calls.append(a_turn.later("cancelled"))
        calls[2].reset(0.001)

    a_turn.run(work)
    assert a_turn.seen == []
    calls[1].reset(0)
    calls[2].cancel()
    await until(lambda: len(a_turn.seen) == 2)
    await turns(5)
    assert sorted(a_turn.seen) == ["brought forward", "delayed"]


def test_a_call_that_raises_ends_alone(a_turn: Turns) -> None:
    def work() -> None:
        a_turn.lean.callLater(0, int, "none")
        a_turn.later("the next")
        a_turn.lean.callFromThread(a_turn.note, "of a thread")
        raise RuntimeError("a fault")

    a_turn.run(work)
    a_turn.lean.doRead()
    assert a_turn.seen == ["the next", "of a thread"]


@pytest_twisted.ensureDeferred
async def test_what_threads_hand_over_runs_once_and_in_their_order_on_the_loop(lean: LeanReactor) -> None:
    seen: list[tuple[int, int]] = []
    loop = threading.get_ident()
    strange: list[int] = []

    def note(thread: int, number: int) -> None:
        seen.append((thread, number))
        if threading.get_ident() != loop:
            strange.append(thread)

    def hand_over(thread: int) -> None:
        for number in range(500):
            lean.callFromThread(note, thread, number)

    threads = [threading.Thread(target=hand_over, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    await until(lambda: len(seen) == 2000)
    for each in threads:
        each.join()
    await turns()
    assert not strange
    for thread in range(4):
        assert [number for which, number in seen if which == thread] == list(range(500))


@pytest_twisted.ensureDeferred
async def test_when_it_is_closed_the_real_reactor_takes_what_threads_hand_over(lean: LeanReactor) -> None:
    real: Any = reactor
    real.removeReader(lean)
    seen: list[int] = []
    lean.callFromThread(seen.append, 1)
    lean.connectionLost(Failure(ConnectionError()))
    lean.callFromThread(seen.append, 2)
    await until(lambda: len(seen) == 2)
    assert seen == [1, 2]


def test_what_a_thread_hands_over_while_its_waking_is_read_is_not_lost(a_turn: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.eventfd_read
    handed: list[int] = []

    def read_late(descriptor: int) -> int:
        # The thread comes between the two steps of waking up.
        if not handed:
            handed.append(1)
            a_turn.lean.callFromThread(a_turn.note, "during")
        return read(descriptor)

    monkeypatch.setattr(os, "eventfd_read", read_late)
    a_turn.run(lambda: a_turn.note("before"))
    a_turn.lean.callFromThread(a_turn.note, "after")
    a_turn.lean.doRead()
    assert a_turn.seen == ["before", "during", "after"]
