from __future__ import annotations

from time import process_time

import pytest
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface.verify import verifyObject

from hypercache.testing.clock import HeapClock, NodeClock


@pytest.fixture(params=[HeapClock, lambda: NodeClock(HeapClock())], ids=["true", "node"])
def clock(request: pytest.FixtureRequest) -> HeapClock | NodeClock:
    made: HeapClock | NodeClock = request.param()
    return made


def advance(clock: HeapClock | NodeClock, seconds: float) -> None:
    (clock if isinstance(clock, HeapClock) else clock._clock).advance(seconds)


def test_clocks_and_timers_are_what_twisted_takes_them_for(clock: HeapClock | NodeClock) -> None:
    verifyObject(IReactorTime, clock)
    verifyObject(IDelayedCall, clock.callLater(1, print))


def test_what_is_due_happens_in_order_and_ties_in_the_order_of_asking(clock: HeapClock | NodeClock) -> None:
    happened: list[str] = []
    clock.callLater(2, happened.append, "c")
    clock.callLater(1, happened.append, "a")
    clock.callLater(1, happened.append, "b")
    advance(clock, 1.5)
    assert happened == ["a", "b"]
    assert clock.seconds() == 1.5
    advance(clock, 1)
    assert happened == ["a", "b", "c"]


def test_what_a_call_asks_for_at_once_happens_in_the_same_instant(clock: HeapClock | NodeClock) -> None:
    happened: list[float] = []
    clock.callLater(1, lambda: clock.callLater(0, lambda: happened.append(clock.seconds())))
    advance(clock, 1)
    assert happened == [1]


def test_a_cancelled_timer_does_not_come_and_says_so(clock: HeapClock | NodeClock) -> None:
    timer = clock.callLater(1, pytest.fail)
    timer.cancel()
    advance(clock, 2)
    assert not timer.active()
    for change in (timer.cancel, lambda: timer.reset(1), lambda: timer.delay(1)):
        with pytest.raises(AlreadyCancelled):
            change()


def test_a_timer_that_came_cannot_be_moved(clock: HeapClock | NodeClock) -> None:
    timer = clock.callLater(1, int)
    advance(clock, 1)
    with pytest.raises(AlreadyCalled):
        timer.reset(1)


@pytest.mark.parametrize(
    ("moves", "due"), [([("reset", 5.0)], 5), ([("reset", 0.5)], 0.5), ([("delay", 1)], 3), ([("delay", -1)], 1)]
)
def test_a_moved_timer_comes_once_and_at_its_new_time(
    clock: HeapClock | NodeClock, moves: list[tuple[str, float]], due: float
) -> None:
    happened: list[float] = []
    timer = clock.callLater(2, lambda: happened.append(clock.seconds()))
    for name, seconds in moves:
        getattr(timer, name)(seconds)
    assert timer.getTime() == due
    advance(clock, 10)
    assert happened == [due]


def test_a_timer_moved_forth_and_back_comes_once(clock: HeapClock | NodeClock) -> None:
    happened: list[float] = []
    timer = clock.callLater(10, lambda: happened.append(clock.seconds()))
    timer.reset(1)
    timer.delay(4)
    timer.reset(2)
    advance(clock, 20)
    assert happened == [2]


def test_pending_timers_are_listed_without_those_that_came_or_were_cancelled(clock: HeapClock | NodeClock) -> None:
    came, waits, cancelled = clock.callLater(1, int), clock.callLater(3, int), clock.callLater(3, int)
    cancelled.cancel()
    waits.reset(2)
    advance(clock, 1)
    assert not came.active()
    assert list(clock.getDelayedCalls()) == [waits]


def test_a_delay_in_the_past_is_refused(clock: HeapClock | NodeClock) -> None:
    with pytest.raises(ValueError, match="past"):
        clock.callLater(-1, int)


def test_cancelled_timers_do_not_pile_up() -> None:
    clock = HeapClock()
    for _ in range(10_000):
        clock.callLater(1000, int).cancel()
    assert len(clock._heap) < 1000


def test_steps_go_from_event_to_event() -> None:
    clock = HeapClock()
    clock.callLater(5, int).cancel()
    clock.schedule(7, int)
    assert clock.step()
    assert clock.seconds() == 7
    assert not clock.step()


def test_a_hundred_thousand_timers_a_second_with_as_many_pending() -> None:
    clock = HeapClock()
    started = process_time()
    for number in range(50_000):
        clock.callLater(number % 997 / 100, int)
    clock.advance(10)
    # The machine may be slow: a task.Clock takes minutes for this.
    assert process_time() - started < 5


def test_a_node_clock_runs_at_its_own_rate() -> None:
    true = HeapClock()
    node = NodeClock(true, offset=100, rate=2)
    happened: list[float] = []
    node.callLater(10, lambda: happened.append(true.seconds()))
    true.advance(20)
    assert happened == [5]
    assert node.seconds() == 140
    node.set_rate(0.5)
    true.advance(10)
    assert node.seconds() == 145


def test_a_node_clock_that_jumps_ahead_brings_all_that_is_due_and_one_that_jumps_back_delays_it() -> None:
    true = HeapClock()
    node = NodeClock(true)
    happened: list[str] = []
    node.callLater(5, happened.append, "five")
    node.callLater(50, happened.append, "fifty")
    node.jump(10)
    true.advance(0)
    assert happened == ["five"]
    node.jump(-30)
    true.advance(69)
    assert happened == ["five"]
    true.advance(1)
    assert happened == ["five", "fifty"]


@pytest.mark.parametrize("rate", [0.7, 0.95, 1.0, 1 / 3, 1.05])
def test_a_node_clock_never_calls_early_by_a_rounding(rate: float) -> None:
    true = HeapClock(0.1)
    node = NodeClock(true, offset=0.3, rate=rate)
    for _ in range(2000):
        due = node.seconds() + 0.1
        early: list[float] = []
        node.callLater(0.1, lambda due=due, early=early: early.append(due - node.seconds()))
        true.step()
        while not early:
            true.step()
        assert early[0] <= 0


def test_a_stopped_node_clock_calls_nobody() -> None:
    true = HeapClock()
    node = NodeClock(true)
    node.callLater(1, pytest.fail)
    node.stop()
    true.advance(2)
