from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred

from hypercache.errors import BusyError
from hypercache.limits import RAFT_JOURNAL_JOBS_MAX_COUNT
from hypercache.persist.journal import JournalThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Loop:
    """A reactor that keeps what comes from threads until it is asked to go on."""

    def __init__(self) -> None:
        self.woken: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        self.woken.append((call, args))

    def turn(self) -> None:
        woken, self.woken = self.woken, []
        for call, args in woken:
            call(*args)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def journal(loop: Loop) -> Iterator[JournalThread]:
    journal = JournalThread(loop)  # type: ignore[arg-type]
    yield journal
    journal.stop()


def finish(journal: JournalThread) -> None:
    """Wait until all that was handed in is done."""
    done = threading.Event()
    journal.run(done.set, lambda *_: None)
    # The one behind it: what it waits for is then told of, too.
    assert done.wait(10)
    behind = threading.Event()
    journal.run(behind.set, lambda *_: None)
    assert behind.wait(10)


def test_work_is_done_in_order_in_another_thread_and_told_of_on_the_loop(journal: JournalThread, loop: Loop) -> None:
    worked: list[int] = []
    told: list[tuple[int, int]] = []
    here = threading.get_ident()

    def work(number: int) -> int:
        assert threading.get_ident() != here
        worked.append(number)
        return number * 2

    for number in range(50):
        journal.run(
            lambda number=number: work(number),  # type: ignore[misc]
            lambda result, fault, number=number: told.append((number, result)),  # type: ignore[misc]
        )
    finish(journal)
    assert worked == list(range(50))
    assert told == []
    loop.turn()
    assert told == [(number, number * 2) for number in range(50)]


def test_jobs_that_are_done_together_share_one_waking(journal: JournalThread, loop: Loop) -> None:
    for _ in range(50):
        journal.run(lambda: None, lambda *_: None)
    finish(journal)
    assert len(loop.woken) == 1


def test_what_work_raises_is_handed_over(journal: JournalThread, loop: Loop) -> None:
    told: list[tuple[Any, BaseException | None]] = []
    failed = OSError("on purpose")

    def work() -> None:
        raise failed

    journal.run(work, lambda result, fault: told.append((result, fault)))
    journal.run(lambda: "on", lambda result, fault: told.append((result, fault)))
    finish(journal)
    loop.turn()
    assert told == [(None, failed), ("on", None)]


def test_one_that_fails_to_listen_does_not_deafen_the_next(journal: JournalThread, loop: Loop) -> None:
    told: list[int] = []

    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    journal.run(lambda: None, fail)
    journal.run(lambda: None, lambda *_: told.append(1))
    finish(journal)
    loop.turn()
    assert told == [1]


def test_what_waits_is_bounded(journal: JournalThread, loop: Loop) -> None:
    go = threading.Event()
    journal.run(lambda: go.wait(10), lambda *_: None)
    for _ in range(RAFT_JOURNAL_JOBS_MAX_COUNT - 1):
        journal.run(lambda: None, lambda *_: None)
    with pytest.raises(BusyError, match=f"{RAFT_JOURNAL_JOBS_MAX_COUNT} jobs wait"):
        journal.run(lambda: None, lambda *_: None)
    go.set()


def test_stopping_waits_for_what_is_being_done_and_for_nothing_more(loop: Loop) -> None:
    journal = JournalThread(loop)  # type: ignore[arg-type]
    begun, go = threading.Event(), threading.Event()
    worked: list[str] = []
    told: list[str] = []

    def work() -> None:
        begun.set()
        go.wait(10)
        worked.append("first")

    journal.run(work, lambda *_: told.append("first"))
    journal.run(lambda: worked.append("second"), lambda *_: told.append("second"))
    assert begun.wait(10)
    threading.Timer(0.05, go.set).start()
    journal.stop()
    assert worked == ["first"]
    loop.turn()
    assert told == []
    with pytest.raises(BusyError, match="stopped"):
        journal.run(lambda: None, lambda *_: None)


@pytest_twisted.inlineCallbacks
def test_it_wakes_a_real_reactor() -> Any:
    journal = JournalThread(global_reactor)  # type: ignore[arg-type]
    heard: Deferred[int] = Deferred()
    journal.run(lambda: 5, lambda result, fault: heard.callback(result))
    assert (yield heard) == 5
    journal.stop()
