"""Of many failures that strangers can cause, the log gets the first; all are counted elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypercache.limits import REPORTS_MAX_COUNT, REPORTS_SECONDS

if TYPE_CHECKING:
    from twisted.logger import Logger


class FloodGate:
    """Lets `REPORTS_MAX_COUNT` reports into the log within `REPORTS_SECONDS`, and then one that says that more are left out.

    Args:
        log: the log.
        clock: the reactor.
        what: names the failures, for that last report: ``TLS failures of cluster_tls``.
    """

    __slots__ = ("_clock", "_count", "_end", "_log", "_what")

    def __init__(self, log: Logger, clock: Any, what: str) -> None:
        self._log = log
        self._clock = clock
        self._what = what
        self._count = 0
        self._end: float = 0.0

    def error(self, text: str, /, **values: Any) -> None:
        """Log an error, unless there are too many.

        Args:
            text: as of a `Logger`.
            values: what its fields stand for.
        """
        if self._admits():
            self._log.error(text, **values)

    def warn(self, text: str, /, **values: Any) -> None:
        """Log a warning, unless there are too many; the arguments are those of `error`."""
        if self._admits():
            self._log.warn(text, **values)

    def _admits(self) -> bool:
        now = self._clock.seconds()
        if now >= self._end:
            self._end = now + REPORTS_SECONDS
            self._count = 0
        self._count += 1
        if self._count == REPORTS_MAX_COUNT + 1:
            self._log.error(
                "more than {count} {what} within {seconds:g} s: the next ones are counted and not logged",
                count=REPORTS_MAX_COUNT,
                what=self._what,
                seconds=REPORTS_SECONDS,
            )
        return self._count <= REPORTS_MAX_COUNT
