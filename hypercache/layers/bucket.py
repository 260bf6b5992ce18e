"""A token bucket that loses nothing to rounding."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

NANOSECONDS: Final = 10**9


class TokenBucket:
    """Tokens that accrue with time, up to a burst; it starts full.

    Whole numbers count parts of a token so small that each nanosecond brings a whole number of them. So what has accrued depends on
    the time alone, not on how often it was asked for. (The seed's bucket forgets, at each question, the time that did not make a
    whole token: asked often enough, it never refills.)

    Args:
        per_second: how many tokens accrue in a second; above 0.
        burst: how many there are at most.
        now: seconds, by the clock that all other times are of.
    """

    __slots__ = ("_full", "_last", "_level", "_rate", "_unit")

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        # As the operator wrote it: 0.1 is a tenth.
        exact = Fraction(repr(per_second))
        self._rate = exact.numerator
        self._unit = exact.denominator * NANOSECONDS
        self._level = self._full = burst * self._unit
        self._last = round(now * NANOSECONDS)

    def refill(self, now: float) -> None:
        """Add what has accrued until ``now``, in seconds; a clock that was set back brings nothing and takes nothing."""
        nanoseconds = round(now * NANOSECONDS)
        elapsed = nanoseconds - self._last
        self._last = nanoseconds
        if elapsed > 0:
            self._level = min(self._full, self._level + elapsed * self._rate)

    def take(self, tokens: int) -> bool:
        """Take so many tokens; return whether there were."""
        parts = tokens * self._unit
        if parts > self._level:
            return False
        self._level -= parts
        return True

    def wait(self, tokens: int) -> int:
        """Return how many nanoseconds it takes from the last refill until there are so many tokens; 0 where there are."""
        return max(0, -((self._level - tokens * self._unit) // self._rate))
