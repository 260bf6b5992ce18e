from __future__ import annotations

from typing import Any

import pytest

from hypercache.testing.clock import HeapClock
from hypercache.testing.crashes import CrashPoints, SimulatedCrash
from hypercache.testing.journal import SimulatedJournal


class Bench:
    def __init__(self) -> None:
        self.clock = HeapClock()
        self.points = CrashPoints()
        self.events: list[Any] = []
        self.journal = SimulatedJournal(self.clock, self.enter, self.points, lambda: 1.0, lambda: 0.5)

    def enter(self, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except SimulatedCrash as crash:
            self.events.append(("crash", crash.point))
            self.journal.stop()

    def run(self, name: str, error: Exception | None = None) -> None:
        def work() -> str:
            self.events.append(("work", name, self.clock.seconds()))
            if error is not None:
                raise error
            return name

        self.journal.run(work, lambda result, fault: self.events.append(("done", result or fault, self.clock.seconds())))


def test_work_is_done_in_order_one_at_a_time_and_told_of_later() -> None:
    bench = Bench()
    bench.run("a")
    bench.run("b")
    assert not bench.events
    bench.clock.advance(10)
    assert bench.events == [("work", "a", 1.0), ("done", "a", 1.5), ("work", "b", 2.0), ("done", "b", 2.5)]


def test_what_work_raises_is_told() -> None:
    bench = Bench()
    error = OSError()
    bench.run("a", error)
    bench.clock.advance(10)
    assert bench.events[-1] == ("done", error, 1.5)


def test_a_stopped_journal_does_and_tells_nothing_more() -> None:
    bench = Bench()
    bench.run("a")
    bench.run("b")
    bench.clock.advance(1.2)
    bench.journal.stop()
    bench.clock.advance(10)
    assert bench.events == [("work", "a", 1.0)]


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("journal work", []),
        ("journal worked", [("work", "a", 1.0)]),
        ("journal told", [("work", "a", 1.0), ("done", "a", 1.5)]),
    ],
)
def test_a_crash_strikes_before_work_after_it_and_after_it_was_told(point: str, left: list[Any]) -> None:
    bench = Bench()
    bench.points.strike(1, point)
    bench.run("a")
    bench.run("b")
    bench.clock.advance(10)
    assert bench.events == [*left, ("crash", point)]
