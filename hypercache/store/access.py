"""When a key was last used, and how often: arrays indexed by the key's hash.

A clock per key would be one more dictionary entry, written by every read. Here a read stores one number in an array. Two keys
may share a cell; then the one counts as used when the other was, which makes it stay longer and never go too early. The arrays
have at least four cells a key, so that one key in five shares at most.

A cell's index is the hash's low bits. Doubling an array is therefore ``array + array``: the new index of a key differs by one
higher bit, and both halves hold what the old cell held.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

CELLS_PER_KEY: Final = 4
FIRST_CELLS: Final = 1 << 14

LFU_INITIAL: Final = 5
"""A new key's frequency: not the first to go before it had a chance (as Redis has it)."""


class AccessClock:
    """Last use of each key, in seconds of a 32-bit clock.

    Attributes:
        cells: the array; the store's hot path writes ``cells[hash & mask] = seconds`` itself.
        mask: the number of cells less one.
    """

    __slots__ = ("cells", "mask")

    def __init__(self) -> None:
        self.cells = array("I", bytes(4 * FIRST_CELLS))
        self.mask = FIRST_CELLS - 1

    def grow_for(self, keys: int) -> bool:
        """Double until ``keys`` keys have ``CELLS_PER_KEY`` cells each; True where that changed something."""
        grown = False
        while self.mask + 1 < keys * CELLS_PER_KEY:
            self.cells += self.cells
            self.mask = len(self.cells) - 1
            grown = True
        return grown

    def used_bytes(self) -> int:
        """Return the size of the array, in bytes."""
        return len(self.cells) * self.cells.itemsize


class FrequencySketch:
    """Logarithmic access counters that decay, as Redis' LFU has them.

    Args:
        rng: the source of randomness for the probabilistic increment.
        log_factor: how much harder each further increment gets.
        decay_minutes: minutes after which a counter loses one; 0 for never.
    """

    __slots__ = ("_counters", "_minutes", "_rng", "decay_minutes", "log_factor")

    def __init__(self, rng: random.Random, *, log_factor: int = 10, decay_minutes: int = 1) -> None:
        self._rng = rng
        self.log_factor = log_factor
        self.decay_minutes = decay_minutes
        self._counters = array("B", [LFU_INITIAL]) * FIRST_CELLS
        self._minutes = array("H", bytes(2 * FIRST_CELLS))

    def grow_for(self, keys: int) -> None:
        """Double until ``keys`` keys have ``CELLS_PER_KEY`` cells each."""
        while len(self._counters) < keys * CELLS_PER_KEY:
            self._counters += self._counters
            self._minutes += self._minutes

    def read(self, key_hash: int, now_seconds: int) -> int:
        """Return the counter (0 to 255) of a key's cell as it has decayed by ``now_seconds``."""
        cell = key_hash & (len(self._counters) - 1)
        counter = self._counters[cell]
        if not self.decay_minutes:
            return counter
        elapsed = ((now_seconds // 60) - self._minutes[cell]) & 0xFFFF
        return max(0, counter - elapsed // self.decay_minutes)

    def reset(self, key_hash: int, now_seconds: int) -> None:
        """Give a new key the initial frequency."""
        cell = key_hash & (len(self._counters) - 1)
        self._counters[cell] = LFU_INITIAL
        self._minutes[cell] = (now_seconds // 60) & 0xFFFF

    def count(self, key_hash: int, now_seconds: int) -> None:
        """Record one use of a key."""
        counter = self.read(key_hash, now_seconds)
        cell = key_hash & (len(self._counters) - 1)
        self._minutes[cell] = (now_seconds // 60) & 0xFFFF
        if counter < 255:
            base = max(0, counter - LFU_INITIAL)
            if self._rng.random() * (base * self.log_factor + 1) < 1.0:
                counter += 1
        self._counters[cell] = counter

    def used_bytes(self) -> int:
        """Return the size of both arrays, in bytes."""
        return len(self._counters) * (self._counters.itemsize + self._minutes.itemsize)
