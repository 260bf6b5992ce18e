"""Requests that are sent again: only where that is safe, not too often, and not too soon."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from hypercache.errors import BusyError, DeadlineError, LinkLostError, RefusedError, RequestError
from hypercache.limits import REQUEST_ATTEMPTS_COUNT, REQUEST_RETRY_FIRST_SECONDS, REQUEST_RETRY_MAX_SECONDS
from hypercache.net.exchanges import Exchanges, Numbers
from hypercache.net.retrying import Retrying
from hypercache.wire.messages import GenericError, Heartbeat, HeartbeatResponse, ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.wire import Message

IDEMPOTENT = Heartbeat(1, 2, 3)
ONCE = ReplicateData(1, 0, "", b"k", b"v")
ANSWER = HeartbeatResponse(2, 0)
DONE = ReplicateResponse(0, 0)
RETRYABLE = (0x0003, 0x0101, 0x0102, 0x0103, 0x0104)
FINAL = (0x0001, 0x0002, 0x0004, 0x0005, 0x0006, 0x0007, 0x0100, 0x0105)


class Refuse:
    """Nothing is written."""

    def __init__(self, error: RequestError) -> None:
        self.error = error


class Link:
    """A link whose attempts end as the test says; the last outcome holds for all that follow; None: no answer ever comes."""

    def __init__(self, clock: Clock, *outcomes: Any) -> None:
        self.clock = clock
        self.outcomes = list(outcomes)
        self.written: list[float] = []
        self.asked: list[float] = []
        self.timeouts: list[float] = []
        self.extensions: list[Any] = []
        self.exchanges = Exchanges()
        self.exchanges.in_order = False
        self.numbers = Numbers()

    def ask(self, message: Message, sink: Any, *, timeout: float, extension: Any = None) -> int:
        self.asked.append(self.clock.seconds())
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Refuse):
            raise outcome.error
        number = self.numbers.take(1)
        self.exchanges.expect(number, message.ANSWER, sink, self.clock.seconds() + timeout)
        self.written.append(self.clock.seconds())
        self.timeouts.append(timeout)
        self.extensions.append(extension)
        if isinstance(outcome, RequestError):
            self.clock.callLater(0, sink, number, outcome)
        elif outcome is not None:
            message, retry_after_ms = outcome if isinstance(outcome, tuple) else (outcome, None)
            self.clock.callLater(0, self.exchanges.answer, number, message, retry_after_ms)
        return number


class Asked:
    """One request under way."""

    def __init__(self, message: Message, *outcomes: Any, link_for: Callable[[], Any] | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.link = Link(self.clock, *outcomes)
        within = options.pop("within", None)
        self.retrying = Retrying(self.clock, random.Random(7), **options)
        self.result: Any = None
        self.ended: float | None = None
        find: Any = link_for or (lambda: self.link)
        self.deferred = Deferred.fromCoroutine(self.retrying.request(message, find, within=within))
        self.deferred.addBoth(self._end)
        while self.ended is None and self.clock.seconds() < 100:
            self.clock.advance(0.001)
            self.link.exchanges.expire(self.clock.seconds())

    def _end(self, result: Any) -> None:
        self.result = getattr(result, "value", result)
        self.ended = self.clock.seconds()

    @property
    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.link.asked, self.link.asked[1:], strict=False)]


def test_an_answer_ends_it_at_once() -> None:
    asked = Asked(IDEMPOTENT, ANSWER)
    assert asked.result == ANSWER
    assert len(asked.link.written) == 1
    assert asked.retrying.repeated == 0
    assert not asked.clock.getDelayedCalls()


@pytest.mark.parametrize(
    "failure",
    [LinkLostError("gone"), DeadlineError("late"), *(GenericError(code, 0, "no") for code in RETRYABLE)],
    ids=lambda failure: f"{type(failure).__name__} {getattr(failure, 'error_code', 0):#06x}",
)
def test_an_idempotent_request_is_sent_again_where_that_may_help_and_no_other_is(failure: Any) -> None:
    asked = Asked(IDEMPOTENT, failure, failure, ANSWER)
    assert asked.result == ANSWER
    assert len(asked.link.written) == 3
    assert asked.retrying.repeated == 2
    asked = Asked(ONCE, failure, DONE)
    assert isinstance(asked.result, RequestError)
    assert len(asked.link.written) == 1
    assert asked.retrying.repeated == 0


@pytest.mark.parametrize("code", FINAL)
@pytest.mark.parametrize("message", [IDEMPOTENT, ONCE])
def test_an_error_that_another_attempt_would_meet_too_is_reported_at_once(message: Message, code: int) -> None:
    asked = Asked(message, GenericError(code, 0, "no"), ANSWER)
    assert isinstance(asked.result, RefusedError)
    assert asked.result.code == code
    assert len(asked.link.written) == 1
    assert asked.ended == pytest.approx(0.001)


@pytest.mark.parametrize("error", [BusyError("full"), LinkLostError("closed")])
def test_of_what_was_not_written_every_request_is_sent_again(error: RequestError) -> None:
    asked = Asked(ONCE, Refuse(error), Refuse(error), DONE)
    assert asked.result == DONE
    assert len(asked.link.asked) == 3
    assert len(asked.link.written) == 1


def test_a_request_waits_for_a_link_and_takes_whichever_there_is() -> None:
    clock = Clock()
    other = Link(clock, DONE)
    links: list[Any] = [None, LinkLostError("none yet"), other]

    def link_for() -> Any:
        link = links.pop(0)
        if isinstance(link, Exception):
            raise link
        return link

    retrying = Retrying(clock, random.Random(1))
    results: list[Any] = []
    Deferred.fromCoroutine(retrying.request(ONCE, link_for)).addBoth(results.append)
    for _ in range(1000):
        clock.advance(0.01)
    assert results == [DONE]
    assert len(other.written) == 1
    assert links == []


def test_a_request_that_was_written_once_is_not_written_again_though_nothing_was_written_before() -> None:
    asked = Asked(ONCE, Refuse(BusyError("full")), LinkLostError("gone"), DONE)
    assert isinstance(asked.result, LinkLostError)
    assert len(asked.link.written) == 1


@pytest.mark.parametrize("attempts", [1, 2, REQUEST_ATTEMPTS_COUNT, 10])
def test_there_are_no_more_attempts_than_allowed_and_the_last_error_is_reported(attempts: int) -> None:
    errors = [LinkLostError(str(number)) for number in range(attempts)]
    asked = Asked(IDEMPOTENT, *errors, attempts=attempts)
    assert asked.result is errors[-1]
    assert len(asked.link.written) == attempts


def test_waits_double_up_to_the_longest_with_jitter() -> None:
    asked = Asked(IDEMPOTENT, LinkLostError("gone"), attempts=12)
    assert len(asked.waits) == 11
    for number, wait in enumerate(asked.waits):
        longest = min(REQUEST_RETRY_MAX_SECONDS, REQUEST_RETRY_FIRST_SECONDS * 2**number)
        assert longest / 2 <= wait <= longest + 0.003
    assert len({round(wait / REQUEST_RETRY_MAX_SECONDS, 2) for wait in asked.waits[-5:]}) > 1


def test_a_peer_that_says_when_to_ask_again_is_not_asked_before() -> None:
    asked = Asked(IDEMPOTENT, (GenericError(0x0101, 0, "later"), 3000), ANSWER)
    assert asked.result == ANSWER
    assert asked.waits[0] == pytest.approx(3.0, abs=0.01)
    asked = Asked(IDEMPOTENT, (GenericError(0x0101, 0, "later"), 1), ANSWER)
    assert asked.waits[0] >= REQUEST_RETRY_FIRST_SECONDS / 2


def test_where_the_peer_asks_for_more_time_than_there_is_the_error_is_reported_at_once() -> None:
    asked = Asked(IDEMPOTENT, (GenericError(0x0101, 0, "later"), 3000), ANSWER, within=2.9)
    assert isinstance(asked.result, RefusedError)
    assert asked.result.retry_after == 3.0
    assert asked.ended == pytest.approx(0.001)


def test_all_attempts_together_keep_to_the_time_given() -> None:
    asked = Asked(IDEMPOTENT, None, attempts=100, timeout=1.0, within=3.5)
    assert isinstance(asked.result, DeadlineError)
    assert asked.ended is not None
    assert asked.ended <= 3.5 + 0.002
    assert len(asked.link.written) >= 3
    assert asked.link.timeouts[0] == 1.0
    assert asked.link.timeouts[-1] < 1.0


def test_without_a_time_all_attempts_may_take_as_long_as_each_may() -> None:
    asked = Asked(IDEMPOTENT, None, attempts=3, timeout=1.0)
    assert isinstance(asked.result, DeadlineError)
    assert asked.ended is not None
    assert asked.ended <= 3.0 + 0.002
    assert len(asked.link.written) == 3


def test_a_request_that_is_given_up_is_not_sent_again() -> None:
    clock = Clock()
    link = Link(clock, LinkLostError("gone"))
    retrying = Retrying(clock, random.Random(1))
    results: list[Any] = []
    request = Deferred.fromCoroutine(retrying.request(IDEMPOTENT, lambda: link))  # type: ignore[arg-type,return-value]
    request.addBoth(results.append)
    clock.advance(0.001)
    assert len(clock.getDelayedCalls()) == 1
    request.cancel()
    assert results[0].check(CancelledError)
    assert not clock.getDelayedCalls()
    assert len(link.written) == 1


def test_an_answer_that_comes_when_nobody_waits_any_more_does_no_harm() -> None:
    clock = Clock()
    link = Link(clock, None)
    results: list[Any] = []
    request = Deferred.fromCoroutine(
        Retrying(clock, random.Random(1)).request(IDEMPOTENT, lambda: link)  # type: ignore[arg-type,return-value]
    )
    request.addBoth(results.append)
    request.cancel()
    assert results[0].check(CancelledError)
    assert link.exchanges.answer(1, ANSWER)
    assert len(link.written) == 1


def test_what_goes_with_a_request_goes_with_each_attempt() -> None:
    clock = Clock()
    link = Link(clock, LinkLostError("gone"), ANSWER)
    extension: Any = object()
    results: list[Any] = []
    Deferred.fromCoroutine(
        Retrying(clock, random.Random(1)).request(IDEMPOTENT, lambda: link, extension=extension)  # type: ignore[arg-type,return-value]
    ).addBoth(results.append)
    for _ in range(100):
        clock.advance(0.01)
    assert results == [ANSWER]
    assert link.extensions == [extension, extension]
