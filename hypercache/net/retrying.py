"""Requests that are sent again when no answer comes, where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from hypercache.errors import BusyError, DeadlineError, LinkLostError, RefusedError, RequestError
from hypercache.limits import (
    REQUEST_ATTEMPTS_COUNT,
    REQUEST_RETRY_FIRST_SECONDS,
    REQUEST_RETRY_MAX_SECONDS,
    REQUEST_TIMEOUT_SECONDS,
)
from hypercache.net.exchanges import sink_of
from hypercache.wire import ErrorCode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from hypercache.net.link import PeerLink
    from hypercache.wire import Extension, Message

RETRYABLE_CODES: Final = frozenset(
    (
        ErrorCode.CHECKSUM_MISMATCH,
        ErrorCode.RATE_LIMITED,
        ErrorCode.NOT_LEADER,
        ErrorCode.STALE_RING,
        ErrorCode.SHUTTING_DOWN,
    )
)
"""Errors of a peer that another attempt may not meet (wire.md, section 2)."""

_DOUBLINGS_MAX: Final = 30

_log = Logger()


class Retrying:
    """Sends requests, and sends them again.

    A message that was written is written again only where its class is IDEMPOTENT; one of which nothing was written always may be.
    The wait before each further attempt doubles, is drawn at random from its upper half, and is as long at least as the peer asks.

    Args:
        clock: the reactor.
        rng: for the jitter.
        attempts: how often a request is tried at most (the setting ``cluster.request_attempts``).
        timeout: how long one attempt may take, in seconds (the setting ``cluster.request_timeout``).
        first_seconds: the longest first wait.
        max_seconds: the longest wait, but for what a peer asks.

    Attributes:
        repeated: how many attempts were made that were not the first.
    """

    def __init__(
        self,
        clock: Any,
        rng: random.Random,
        *,
        attempts: int = REQUEST_ATTEMPTS_COUNT,
        timeout: float = REQUEST_TIMEOUT_SECONDS,
        first_seconds: float = REQUEST_RETRY_FIRST_SECONDS,
        max_seconds: float = REQUEST_RETRY_MAX_SECONDS,
    ) -> None:
        self.repeated = 0
        self._clock = clock
        self._rng = rng
        self._attempts = attempts
        self._timeout = timeout
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds

    async def request(
        self,
        message: Message,
        link_for: Callable[[], PeerLink | None],
        *,
        within: float | None = None,
        extension: Extension | None = None,
    ) -> Any:
        """Send a request until it is answered.

        Args:
            message: the request; its class says what answers it, and whether it may be sent twice.
            link_for: returns the link of an attempt, None where there is none now; called anew for each.
            within: seconds until there must be an answer, all attempts and waits included; None for as many as all attempts may
                take.
            extension: what goes with it, beside the number of the exchange.

        Returns:
            The answer.

        Raises:
            RequestError: the last attempt's, where no further one may be made: there were enough, the error is not one that another
                attempt may not meet, the message was written and is not idempotent, or the time is up before the next.
        """
        clock = self._clock
        deadline = clock.seconds() + (self._timeout * self._attempts if within is None else within)
        attempt = 1
        while True:
            timeout = min(self._timeout, deadline - clock.seconds())
            written = False
            try:
                answer = self._send(message, link_for(), timeout, extension)
                written = True
                return await answer
            except RequestError as error:
                wait = self._wait_seconds(attempt, error)
                again = not written or (message.IDEMPOTENT and _is_retryable(error))
                if not again or attempt >= self._attempts or clock.seconds() + wait >= deadline:
                    raise
                _log.debug("attempt {attempt} of {name} failed: {error}", attempt=attempt, name=type(message).__name__, error=error)
            await deferLater(clock, wait)
            attempt += 1
            self.repeated += 1

    def _send(self, message: Message, link: PeerLink | None, timeout: float, extension: Extension | None) -> Deferred[Any]:
        """Write a request; return what fires with its answer.

        Raises:
            RequestError: nothing was written.
        """
        if link is None:
            raise LinkLostError("there is no link to send it over")
        answer: Deferred[Any] = Deferred()
        link.ask(message, sink_of(answer), timeout=timeout, extension=extension)
        return answer

    def _wait_seconds(self, failures: int, error: RequestError) -> float:
        """Return how long to wait after so many failures, of which the last is given."""
        longest = min(self._max_seconds, self._first_seconds * 2 ** min(failures - 1, _DOUBLINGS_MAX))
        wait: float = longest * self._rng.uniform(0.5, 1.0)
        if isinstance(error, RefusedError) and error.retry_after is not None:
            wait = max(wait, error.retry_after)
        return wait


def _is_retryable(error: RequestError) -> bool:
    """Say whether another attempt may fare better than one that failed so."""
    if isinstance(error, RefusedError):
        return error.code in RETRYABLE_CODES
    return isinstance(error, LinkLostError | DeadlineError | BusyError)
