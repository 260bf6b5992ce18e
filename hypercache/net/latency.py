"""How long things took: a histogram of fixed buckets, so that its size does not grow with what it has seen."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from hypercache.limits import DURATIONS_UNSORTED_MAX_COUNT

_STEPS: Final = (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
"""Ten buckets a decade, each 1.28 times as long as the one before at most; 1, 2 and 5 are among them."""

BOUNDS_SECONDS: Final = (*(float(f"{step}e{exponent}") for exponent in range(-7, 2) for step in _STEPS), 100.0)
"""Where the buckets end, the bound included: from 100 ns to 100 s."""

PERCENTILES: Final = {"p50": 500, "p90": 900, "p99": 990, "p999": 999}
"""What is told of each histogram: names, and shares in thousandths."""


class Latency:
    """Durations, in seconds."""

    __slots__ = ("_average", "_counts", "_slowest", "_total", "_unsorted")

    def __init__(self) -> None:
        # Of each bucket, and at last of what is beyond all bounds.
        self._counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self._average = 0.0
        self._slowest = 0.0
        self._total = 0.0
        self._unsorted: list[float] = []

    def record(self, seconds: float, count: int = 1) -> None:
        """Record ``count`` durations of as many seconds each; those below 0, of a clock that was set back, count as 0."""
        if count == 1:
            # Where messages come one by one caches are cold: sorting many durations in one go costs a third less of all that.
            unsorted = self._unsorted
            unsorted.append(seconds)
            if len(unsorted) == DURATIONS_UNSORTED_MAX_COUNT:
                self._sort()
            return
        self._sort()
        seconds = max(seconds, 0.0)
        self._counts[bisect_left(BOUNDS_SECONDS, seconds)] += count
        self._total += seconds * count
        # What `_sort` would come to after so many times.
        self._average = seconds + (self._average - seconds) * 0.5**count
        self._slowest = max(self._slowest, seconds)

    @property
    def counts(self) -> list[int]:
        """How many were as long as each of `BOUNDS_SECONDS`, and longer than the one before; at last those beyond all."""
        self._sort()
        return self._counts

    @property
    def count(self) -> int:
        """How many durations there were."""
        return sum(self.counts)

    @property
    def total_seconds(self) -> float:
        """All durations together."""
        self._sort()
        return self._total

    @property
    def average_seconds(self) -> float:
        """The running average of the seed: each duration counts half, those before it the other half."""
        self._sort()
        return self._average

    @property
    def slowest_seconds(self) -> float:
        """The longest duration."""
        self._sort()
        return self._slowest

    def percentile(self, thousandths: int) -> float:
        """Return a duration, in seconds, that so many thousandths of all did not exceed; 0 where there was none.

        It is where a bucket ends, or the slowest of all: never less than the exact figure, and, where that is above the first
        bound, 1.28 times as much at most.
        """
        rank = -(-self.count * thousandths // 1000)
        passed = 0
        for bound, count in zip(BOUNDS_SECONDS, self._counts, strict=False):
            passed += count
            if passed >= rank:
                return min(bound, self._slowest)
        return self._slowest

    def cumulative(self, bounds: tuple[float, ...]) -> list[int]:
        """Return how many were not longer than each bound.

        Args:
            bounds: some of `BOUNDS_SECONDS`, ascending.
        """
        counts = self.counts
        found: list[int] = []
        passed = begin = 0
        for bound in bounds:
            end = bisect_left(BOUNDS_SECONDS, bound) + 1
            passed += sum(counts[begin:end])
            found.append(passed)
            begin = end
        return found

    def _sort(self) -> None:
        """Put into their buckets what `record` has only noted."""
        unsorted = self._unsorted
        if not unsorted:
            return
        if min(unsorted) < 0.0:
            unsorted[:] = [max(seconds, 0.0) for seconds in unsorted]
        counts, average = self._counts, self._average
        for seconds in unsorted:
            counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
            average = (average + seconds) / 2
        self._average = average
        self._total += sum(unsorted)
        self._slowest = max(self._slowest, max(unsorted))
        unsorted.clear()
