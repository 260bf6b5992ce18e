"""What a node asks of its process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from twisted.internet.epollreactor import EPollReactor

from hypercache.roles.process import make_time_steady

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    reactor = EPollReactor()
    yield reactor
    reactor.removeAll()


def test_a_step_of_the_wall_clock_neither_stops_timers_nor_fires_them(
    reactor: EPollReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = {"wall": 1_800_000_000.0, "boot": 50.0}
    monkeypatch.setattr(time, "time", lambda: clocks["wall"])
    monkeypatch.setattr(time, "clock_gettime", lambda clock: clocks["boot"])
    monkeypatch.setattr(reactor, "seconds", time.time)
    fired: list[str] = []
    reactor.callLater(2, fired.append, "scheduled before")
    make_time_steady(reactor)
    reactor.callLater(1, fired.append, "a second")
    for step in (-86_400, 2 * 86_400):
        clocks["wall"] += step
        reactor.runUntilCurrent()
        assert not fired
    clocks["boot"] += 1.5
    reactor.runUntilCurrent()
    assert fired == ["a second"]
    clocks["boot"] += 1
    reactor.runUntilCurrent()
    assert fired == ["a second", "scheduled before"]
