"""How likely it is that a silent node is dead: the phi-accrual failure detector (Hayashibara et al., SRDS 2004).

The time between two signs of life is taken to be normal, with the mean and the deviation of the last ones. Phi is minus the decimal
logarithm of how likely a node that lives would be silent for as long: at 8 one such judgement in a hundred million is wrong, if the
past is a guide. It knows no clock: times are arguments.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from hypercache.limits import (
    HEARTBEAT_INTERVAL_SECONDS,
    SUSPICION_DEVIATION_MIN_SECONDS,
    SUSPICION_PAUSE_SECONDS,
    SUSPICION_PHI,
    SUSPICION_WINDOW_COUNT,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT_2: Final = math.sqrt(2.0)
_LN_10: Final = math.log(10.0)
# Beyond, erfc comes close to the smallest float there is; its asymptotic series is as good.
_ERFC_MAX: Final = 20.0


def phi_of(silence: float, mean: float, deviation: float) -> float:
    """Return phi for a silence.

    Args:
        silence: seconds since the last sign of life.
        mean: the mean time between two, in seconds.
        deviation: its standard deviation, in seconds, above 0.
    """
    x = (silence - mean) / (deviation * _ROOT_2)
    if x > _ERFC_MAX:
        return (x * x + math.log(2.0 * x * math.sqrt(math.pi))) / _LN_10
    return -math.log10(0.5 * math.erfc(x))


class _Arrivals:
    """The signs of life of one node: the last one, and the last intervals between two."""

    __slots__ = ("intervals", "last", "sampled", "squares", "total")

    def __init__(self, now: float, intervals: Iterable[float], window: int) -> None:
        self.last = self.sampled = now
        self.intervals: deque[float] = deque(intervals, window)
        self.total = sum(self.intervals)
        self.squares = sum(each * each for each in self.intervals)

    def add(self, interval: float) -> None:
        intervals = self.intervals
        if len(intervals) == intervals.maxlen:
            oldest = intervals[0]
            self.total -= oldest
            self.squares -= oldest * oldest
        intervals.append(interval)
        self.total += interval
        self.squares += interval * interval


class Detector:
    """Judges the silence of nodes.

    Args:
        interval: seconds between two heartbeats: no silence shorter than that means anything.
        threshold: phi from which on a node is suspected.
        pause: seconds of silence beyond the mean that a node is always allowed: a collection of garbage, a slow disk.
        deviation_min: seconds; a node that was punctual until now is not suspected for one late sign.
        window: how many intervals are remembered of each node.
    """

    def __init__(
        self,
        *,
        interval: float = HEARTBEAT_INTERVAL_SECONDS,
        threshold: float = SUSPICION_PHI,
        pause: float = SUSPICION_PAUSE_SECONDS,
        deviation_min: float = SUSPICION_DEVIATION_MIN_SECONDS,
        window: int = SUSPICION_WINDOW_COUNT,
    ) -> None:
        self._interval = interval
        self._threshold = threshold
        self._pause = pause
        self._deviation_min = deviation_min
        self._window = window
        self._nodes: dict[int, _Arrivals] = {}

    def watch(self, nodes: Iterable[int], now: float) -> None:
        """Judge these nodes and no others; one that is new has from now on as long as a first heartbeat may take.

        Args:
            nodes: their ids.
            now: seconds.
        """
        # A mean of two intervals with a deviation of half of one: little is known yet.
        first = (1.5 * self._interval, 2.5 * self._interval)
        known = self._nodes
        self._nodes = {node: known.get(node) or _Arrivals(now, first, self._window) for node in nodes}

    def heard(self, node: int, now: float) -> None:
        """Take note of a sign of life of a node that is watched.

        Args:
            node: its id.
            now: when it came, in seconds; one that is not later than the last is none.
        """
        arrivals = self._nodes.get(node)
        if arrivals is None or now <= arrivals.last:
            return
        interval = now - arrivals.sampled
        # Dense traffic says nothing of how long a node that has nothing to say may be silent.
        if interval >= self._interval / 2:
            # Neither does a time in which it was dead.
            if self._phi(arrivals, now) < self._threshold:
                arrivals.add(max(interval, self._interval))
            arrivals.sampled = now
        arrivals.last = now

    def forgive(self, seconds: float) -> None:
        """Count no silence for a time in which this node itself did not listen."""
        for arrivals in self._nodes.values():
            arrivals.last += seconds
            arrivals.sampled += seconds

    def phi(self, node: int, now: float) -> float:
        """Return how suspicious a node's silence is; 0 for one that is not watched."""
        arrivals = self._nodes.get(node)
        return 0.0 if arrivals is None else self._phi(arrivals, now)

    def suspects(self, now: float) -> frozenset[int]:
        """Return the nodes that are suspected."""
        return frozenset(node for node in self._nodes if self.phi(node, now) >= self._threshold)

    def _phi(self, arrivals: _Arrivals, now: float) -> float:
        count = len(arrivals.intervals)
        mean = arrivals.total / count
        deviation = math.sqrt(max(arrivals.squares / count - mean * mean, 0.0))
        return max(phi_of(now - arrivals.last, mean + self._pause, max(deviation, self._deviation_min)), 0.0)
