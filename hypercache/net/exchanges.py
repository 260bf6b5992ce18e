"""What was asked over a link and is not answered yet.

Each request has a number. On an extended link it travels, and answers come in any order; a base peer answers in the order of the
requests. Who asks is called back with the number, so one callback can serve many requests. Each request has one outcome: its
answer, or the error in the place of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.logger import Logger

from hypercache.errors import BusyError, DeadlineError, LinkLostError, RefusedError, RequestError
from hypercache.wire.messages import GenericError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from hypercache.net.latency import Latency
    from hypercache.wire import Message

Sink = Callable[[int, "Message | RequestError"], None]
"""Takes a request's number and its answer, a GenericError too, or why there is none."""

NUMBER_MAX: Final = (1 << 32) - 1

_log = Logger()


class Numbers:
    """The numbers of a node's requests: one source for all its links, so that a request may move from one to another.

    They begin anew behind `NUMBER_MAX`; 0 is never given.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 1

    def take(self, count: int) -> int:
        """Return the first of ``count`` numbers in a row."""
        first = self._next
        if first + count - 1 > NUMBER_MAX:
            first = 1
        self._next = first + count
        return first


class _Run(msgspec.Struct):
    """Requests in a row whose answers, all of one type, go to one place."""

    answer_type: int
    sink: Sink
    deadline: float
    first: int
    count: int
    round_trips: Latency | None
    started: float
    answered: int = 0


class Exchanges:
    """The requests of one link that are not answered.

    Attributes:
        in_order: the peer answers in order, and knows no numbers.
        now: when the answers that are taken were read, by the reactor's clock.
    """

    __slots__ = ("_earliest", "_ended", "_highest", "_numbered", "_runs", "_waiting", "in_order", "now")

    def __init__(self) -> None:
        self.in_order = True
        self.now = 0.0
        self._runs: deque[_Run] = deque()
        self._numbered: dict[int, _Run] = {}
        # How many of `_runs` are not answered.
        self._waiting = 0
        # No deadline is before this one.
        self._earliest = inf
        # No number that was ever expected is above this one: only a number that is not may still be waited for.
        self._highest = 0
        # Why nothing is answered any more.
        self._ended = ""

    def __len__(self) -> int:
        return len(self._numbered) + self._waiting

    def expect(
        self,
        first: int,
        answer_type: int,
        sink: Sink,
        deadline: float,
        count: int = 1,
        *,
        round_trips: Latency | None = None,
        started: float = 0.0,
    ) -> None:
        """Have answers go to ``sink``; to be called before the requests are sent.

        Args:
            first: the number of the first of the requests, whose numbers are in a row.
            answer_type: the type of their answers.
            sink: who takes them.
            deadline: until when, by the reactor's clock.
            count: how many requests, 1 at least.
            round_trips: is told how long it took until all were answered.
            started: when they were sent, by the reactor's clock.

        Raises:
            LinkLostError: the link answers nothing any more.
            BusyError: the numbers have gone round, and one of these is still waited for.
        """
        if self._ended:
            raise LinkLostError(self._ended)
        assert count > 0
        last = first + count - 1
        if first > self._highest:
            self._highest = last
        elif not self.in_order and not self._numbered.keys().isdisjoint(range(first, last + 1)):
            raise BusyError(f"a request numbered {first} to {last} is not answered yet")
        run = _Run(answer_type, sink, deadline, first, count, round_trips, started)
        if deadline < self._earliest:
            self._earliest = deadline
        if self.in_order:
            self._runs.append(run)
            self._waiting += count
        elif count == 1:
            self._numbered[first] = run
        else:
            self._numbered.update(zip(range(first, last + 1), repeat(run)))

    def forget(self, number: int) -> None:
        """Take back what was expected of an extended peer: the request could not be sent, and its sink is not called."""
        self._numbered.pop(number, None)

    def answer(self, number: int, message: Message, retry_after_ms: int | None = None) -> bool:
        """Take the answer to a numbered request; return whether anybody waits for it.

        Args:
            number: the request's.
            message: the answer; one of another type than expected leaves the request waiting, but for a GenericError.
            retry_after_ms: when the peer may be asked again, where a GenericError said so: the sink gets a RefusedError then.
        """
        run = self._numbered.get(number)
        if run is None or (message.TYPE not in (run.answer_type, 0xFF)):
            return False
        del self._numbered[number]
        run.answered += 1
        if run.answered == run.count and run.round_trips is not None:
            run.round_trips.record(self.now - run.started, run.count)
        if retry_after_ms is not None and isinstance(message, GenericError):
            _tell(run.sink, number, RefusedError(message.error_code, message.message, retry_after_ms / 1000))
        else:
            _tell(run.sink, number, message)
        return True

    def awaits(self, answer_type: int) -> bool:
        """Say whether the oldest request of a peer that answers in order is answered by that type."""
        return bool(self._runs) and self._runs[0].answer_type == answer_type

    def answer_in_order(self, message: Message, answer_type: int) -> bool:
        """Take an answer of a peer that knows no numbers, or an error in the place of one.

        Args:
            message: the answer.
            answer_type: its type; of an error, any: 0.

        Returns:
            Whether the oldest request is answered by that.
        """
        runs = self._runs
        if not runs:
            return False
        run = runs[0]
        if answer_type and run.answer_type != answer_type:
            return False
        number = run.first + run.answered
        run.answered += 1
        self._waiting -= 1
        if run.answered == run.count:
            runs.popleft()
            if run.round_trips is not None:
                run.round_trips.record(self.now - run.started, run.count)
        _tell(run.sink, number, message)
        return True

    def expire(self, now: float) -> int:
        """Fail the requests whose deadline has passed; return how many.

        Until the earliest deadline there was this costs one comparison; then it looks at all that waits, once.

        Of a peer that answers in order no request can be failed alone, for its answer would be taken for the next one's. So one
        that is late ends all: those that are late fail with DeadlineError, the others with LinkLostError, and whoever gets a number
        from this must end the link.
        """
        if now < self._earliest:
            return 0
        error = DeadlineError("no answer came in time")
        late = [number for number, run in self._numbered.items() if run.deadline <= now]
        overdue = sum(run.count - run.answered for run in self._runs if run.deadline <= now)
        self._earliest = min((run.deadline for run in self._numbered.values() if run.deadline > now), default=inf)
        if overdue:
            reason = "it did not answer in time, and what it answers late would be taken for something else"
            lost = LinkLostError(reason)
            self._end(reason, lambda run: error if run.deadline <= now else lost)
            return overdue + len(late)
        self._earliest = min(self._earliest, min((run.deadline for run in self._runs), default=inf))
        for number in late:
            run = self._numbered.pop(number, None)
            # One that was told before may have ended the link, and all the others with it.
            if run is not None:
                _tell(run.sink, number, error)
        return len(late)

    def fail(self, error: RequestError) -> None:
        """Tell everybody who waits that no answer comes, and let nobody wait any more: the link is lost.

        Args:
            error: what each is told.
        """
        self._end(str(error), lambda run: error)

    def _end(self, reason: str, error_for: Callable[[_Run], RequestError]) -> None:
        self._ended = self._ended or reason
        numbered, self._numbered = self._numbered, {}
        runs, self._runs = self._runs, deque()
        self._waiting = 0
        self._earliest = inf
        for number, run in numbered.items():
            _tell(run.sink, number, error_for(run))
        for run in runs:
            error = error_for(run)
            for number in range(run.first + run.answered, run.first + run.count):
                _tell(run.sink, number, error)


def sink_of(answer: Deferred[Any]) -> Sink:
    """Return a sink that fires a Deferred with the answer, or fails it with the RequestError; a GenericError is a RefusedError."""

    def sink(number: int, received: Message | RequestError) -> None:
        if isinstance(received, RequestError):
            answer.errback(received)
        elif isinstance(received, GenericError):
            answer.errback(RefusedError(received.error_code, received.message))
        else:
            answer.callback(received)

    return sink


def _tell(sink: Sink, number: int, answer: Message | RequestError) -> None:
    try:
        sink(number, answer)
    except Exception:  # noqa: BLE001 - who asked has a fault; the answers behind belong to others
        _log.failure("an answer could not be taken")
