"""Stamps: a hybrid logical clock and a node's id in one int, ``hlc << 64 | origin`` (wire.md, section 3).

The clock's upper 48 bits are Unix milliseconds, its lower 16 a counter whose overflow carries into them. Comparing two stamps as
ints compares (hlc, origin).
"""

from __future__ import annotations

from typing import Final

COUNTER_BITS: Final = 16
ORIGIN_BITS: Final = 64
_MS_SHIFT: Final = COUNTER_BITS + ORIGIN_BITS


def make_stamp(now_ms: int, origin: int, counter: int = 0) -> int:
    """Return a stamp.

    Args:
        now_ms: Unix milliseconds.
        origin: the node's id.
        counter: 0 to 65535.
    """
    return (now_ms << COUNTER_BITS | counter) << ORIGIN_BITS | origin


def hlc_of(stamp: int) -> int:
    """Return the hybrid logical clock's 64 bits."""
    return stamp >> ORIGIN_BITS


def origin_of(stamp: int) -> int:
    """Return the id of the node that made the stamp."""
    return stamp & (1 << ORIGIN_BITS) - 1


def milliseconds_of(stamp: int) -> int:
    """Return the stamp's Unix milliseconds."""
    return stamp >> _MS_SHIFT


def is_too_far_ahead(stamp: int, now_ms: int, skew_max_ms: int) -> bool:
    """Say whether a stamp is so far in the future that it must be refused (consistency.md, rule 7)."""
    return milliseconds_of(stamp) > now_ms + skew_max_ms
