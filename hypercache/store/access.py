"""When a key was last used, and how often: arrays indexed by the key's hash.

A clock per key would be one more dictionary entry, written by every read. Here a read stores one number in an array. Two keys
may share a cell; then the one counts as used when the other was, which makes it stay longer and never go too early. The arrays
have at least four cells a key, so that one key in five shares at most.

A cell's index is the hash's low bits. Doubling an array is therefore appending it to itself: the new index of a key differs by one
higher bit, and both halves hold what the old cell held. Millions of cells take 25 ms to double at once, so it is done a slice at
an insertion; the mask doubles when the whole is there. What is used meanwhile may look unused since the doubling began.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

CELLS_PER_KEY: Final = 4
FIRST_CELLS: Final = 1 << 14
_SLICE_CELLS: Final = 1 << 12
"""Copied an insertion: a doubling ends long before the next is due, and touches four new pages at most each time."""

LFU_INITIAL: Final = 5
"""A new key's frequency: not the first to go before it had a chance (as Redis has it)."""

LFU_MAX: Final = 255
_MINUTES_MASK: Final = 0xFFFF


class AccessClock:
    """Last use of each key, in ticks of a 32-bit clock.

    Attributes:
        cells: the array; the store's hot path writes ``cells[hash & mask] = tick`` itself. It stays the same object.
        mask: the number of cells in use less one.
    """

    __slots__ = ("cells", "mask")

    def __init__(self) -> None:
        self.cells = array("I", bytes(4 * FIRST_CELLS))
        self.mask = FIRST_CELLS - 1

    def grow(self) -> bool:
        """Take one step of a doubling; True when it was the last, and ``mask`` has changed."""
        begin = len(self.cells) - self.mask - 1
        self.cells += self.cells[begin : min(begin + _SLICE_CELLS, self.mask + 1)]
        if len(self.cells) <= 2 * self.mask + 1:
            return False
        self.mask = 2 * self.mask + 1
        return True

    def used_bytes(self) -> int:
        """Return the size of the array, in bytes."""
        return len(self.cells) * self.cells.itemsize


class FrequencySketch:
    """Logarithmic access counters that decay, as Redis' LFU has them.

    Args:
        rng: the source of randomness for the probabilistic increment.
        keys: how many keys there are already.
        log_factor: how much harder each further increment gets.
        decay_minutes: minutes after which a counter loses one; 0 for never.
    """

    __slots__ = ("_counters", "_mask", "_minutes", "_random", "decay_minutes", "log_factor")

    def __init__(self, rng: random.Random, *, keys: int = 0, log_factor: int = 10, decay_minutes: int = 1) -> None:
        self._random = rng.random
        self.log_factor = log_factor
        self.decay_minutes = decay_minutes
        cells = FIRST_CELLS
        while cells < keys * CELLS_PER_KEY:
            cells *= 2
        self._mask = cells - 1
        self._counters = array("B", [LFU_INITIAL]) * cells
        self._minutes = array("H", [0]) * cells

    def add(self, key_hash: int, keys: int, minute: int) -> None:
        """Give a new key the initial frequency, or that of the key that shares its cell where that is higher.

        Args:
            key_hash: the key's hash.
            keys: how many keys there are now.
            minute: the time, in minutes.
        """
        if keys * CELLS_PER_KEY > self._mask + 1:
            self._grow()
        counter = max(LFU_INITIAL, self.read(key_hash, minute))
        self._set(key_hash, counter, minute)

    def read(self, key_hash: int, minute: int) -> int:
        """Return the counter (0 to 255) of a key's cell as it has decayed by ``minute``."""
        cell = key_hash & self._mask
        counter = self._counters[cell]
        elapsed = (minute - self._minutes[cell]) & _MINUTES_MASK
        # The later half of the circle is the past: the wall clock went back.
        if not elapsed or not self.decay_minutes or elapsed > _MINUTES_MASK >> 1:
            return counter
        return max(0, counter - elapsed // self.decay_minutes)

    def count(self, key_hash: int, minute: int) -> None:
        """Record one use of a key."""
        counter = self.read(key_hash, minute)
        if counter <= LFU_INITIAL or (counter < LFU_MAX and self._random() * ((counter - LFU_INITIAL) * self.log_factor + 1) < 1.0):
            counter += 1
        self._set(key_hash, counter, minute)

    def used_bytes(self) -> int:
        """Return the size of both arrays, in bytes."""
        return len(self._counters) * (self._counters.itemsize + self._minutes.itemsize)

    def _set(self, key_hash: int, counter: int, minute: int) -> None:
        cell = key_hash & self._mask
        self._counters[cell] = counter
        self._minutes[cell] = minute & _MINUTES_MASK

    def _grow(self) -> None:
        begin = len(self._counters) - self._mask - 1
        end = min(begin + _SLICE_CELLS, self._mask + 1)
        self._counters += self._counters[begin:end]
        self._minutes += self._minutes[begin:end]
        if len(self._counters) > 2 * self._mask + 1:
            self._mask = 2 * self._mask + 1
