"""The asking side of a pair of processes: told line by line on its standard input what to ask, it prints what that took."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver

if TYPE_CHECKING:
    from collections.abc import Callable


class Task(msgspec.Struct, frozen=True):
    """What is to be asked.

    Attributes:
        count: how many requests.
        in_flight: how many of them wait for their answers at a time.
        kind: what is asked; what there is depends on who asks.
        bytes_per_second: what the network would carry; 0 for as much as there is.
    """

    count: int
    in_flight: int
    kind: str = "requests"
    bytes_per_second: int = 0


class Took(msgspec.Struct, frozen=True):
    """What it took, on the asking side.

    Attributes:
        seconds: until all was answered.
        cpu_seconds: of this process.
        sent_bytes: over the network; 0 where that is not known.
    """

    seconds: float
    cpu_seconds: float
    sent_bytes: int = 0


def keep_in_flight(ask: Callable[[], Deferred[Any]], task: Task) -> Deferred[None]:
    """Ask so many times, with so many under way; return what fires when all is answered, and fails with the first that does."""
    done: Deferred[None] = Deferred()
    unasked = task.count
    unanswered = task.count

    def following(answer: Any = None) -> None:
        nonlocal unasked
        if unasked:
            unasked -= 1
            ask().addCallbacks(answered, failed)

    def answered(answer: Any) -> None:
        nonlocal unanswered
        unanswered -= 1
        if unanswered:
            following()
        else:
            done.callback(None)

    def failed(failure: Any) -> None:
        if not done.called:
            done.errback(failure)

    for _ in range(task.in_flight):
        following()
    return done


class Asking(LineOnlyReceiver):
    """Takes a `Task` a line and answers it by a `Took`.

    Args:
        ask: begins; what it returns fires at the end.
        sent_bytes: returns how much was sent so far.
    """

    delimiter = b"\n"

    def __init__(self, ask: Callable[[Task], Deferred[None]], sent_bytes: Callable[[], int] = lambda: 0) -> None:
        self._ask = ask
        self._sent_bytes = sent_bytes

    def lineReceived(self, line: bytes) -> None:
        """Do what a line says."""
        task = msgspec.json.decode(line, type=Task)
        sent, started, started_cpu = self._sent_bytes(), time.perf_counter(), time.process_time()

        def done(_: None) -> None:
            took = Took(time.perf_counter() - started, time.process_time() - started_cpu, self._sent_bytes() - sent)
            say(msgspec.json.encode(took).decode())

        self._ask(task).addCallbacks(done, lambda failure: say(failure.getErrorMessage()))


def say(line: str) -> None:
    """Print a line for the process that measures."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def listen_to_orders(asking: Asking, reactor: Any) -> None:
    """Take tasks from the standard input from now on."""
    StandardIO(asking, reactor=reactor)
    say("ready")
