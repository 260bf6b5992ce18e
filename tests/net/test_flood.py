"""What strangers can cause does not fill the log."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger

from hypercache.limits import REPORTS_MAX_COUNT, REPORTS_SECONDS
from hypercache.net.flood import FloodGate


def test_a_flood_of_reports_is_cut_off_with_a_word_and_begins_anew_later() -> None:
    seen: list[dict[str, Any]] = []
    clock = Clock()
    observer: Any = seen.append
    gate = FloodGate(Logger(namespace="test", observer=observer), clock, "faults")
    for number in range(REPORTS_MAX_COUNT * 3):
        (gate.error if number % 2 else gate.warn)("fault {number} in {text}", number=number, text="x")
    assert [event.get("number") for event in seen] == [*range(REPORTS_MAX_COUNT), None]
    assert seen[-1]["what"] == "faults"
    clock.advance(REPORTS_SECONDS)
    gate.error("again")
    assert len(seen) == REPORTS_MAX_COUNT + 2
