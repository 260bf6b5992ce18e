"""The stamps of deleted keys, so that an older copy from elsewhere cannot bring a key back (consistency.md, rules 7 and 11)."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Final

from hypercache.store.memory import STAMP_BYTES, bytes_cost

if TYPE_CHECKING:
    from collections.abc import Callable

SHARDS: Final = 256
_SHARD_MASK: Final = SHARDS - 1
_ORDER_BYTES: Final = STAMP_BYTES + 64 + 8
"""A stamp, the pair of it and its key, and the pair's place in the order."""
_TABLE_BYTES: Final = 48
"""An entry of a half-full dictionary."""

_STEP_COUNT: Final = 64
_STALE_SLACK_COUNT: Final = 64


class Tombstones:
    """Deleted keys and when they were deleted, at most ``limit`` of them; at the limit the oldest goes.

    Args:
        limit: how many to hold.
        ttl_ms: how long one is kept, in milliseconds.

    Attributes:
        count: how many there are.
        used_bytes: about what they take of memory.
    """

    __slots__ = ("_aged", "_recent", "_shards", "count", "limit", "ttl_ms", "used_bytes")

    def __init__(self, limit: int, ttl_ms: int) -> None:
        self.limit = limit
        self.ttl_ms = ttl_ms
        self.count = 0
        self.used_bytes = 0
        self._shards: list[dict[bytes, int]] = [{} for _ in range(SHARDS)]
        # (key, stamp) in the order of burial, oldest first: all of `_aged`, then `_recent`. An entry whose stamp is no longer its
        # key's is stale. A sweep moves what is not from the one to the other, so that keys that are deleted again and again
        # fill no memory and push out no others.
        self._aged: deque[tuple[bytes, int]] = deque()
        self._recent: deque[tuple[bytes, int]] = deque()

    def get(self, key: bytes) -> int:
        """Return the stamp under which ``key`` was deleted, 0 where it was not."""
        return self._shards[hash(key) & _SHARD_MASK].get(key, 0)

    def bury(self, key: bytes, stamp: int) -> None:
        """Remember that ``key`` was deleted under ``stamp``; an older tombstone of the key is replaced."""
        shard = self._shards[hash(key) & _SHARD_MASK]
        if key not in shard:
            self.count += 1
            self.used_bytes += _TABLE_BYTES
        shard[key] = stamp
        self._recent.append((key, stamp))
        self.used_bytes += bytes_cost(len(key)) + _ORDER_BYTES
        # A bounded number of steps: many stale entries may lie before the oldest that counts.
        for _ in range(_STEP_COUNT):
            if self.count <= self.limit:
                break
            self._drop_oldest()
        if len(self._aged) + len(self._recent) > 2 * self.count + _STALE_SLACK_COUNT:
            self._sweep_one()
            self._sweep_one()

    def discard(self, key: bytes) -> None:
        """Forget ``key``: it was written again."""
        index = hash(key) & _SHARD_MASK
        if key in self._shards[index]:
            self._forget(index, key)

    def collect(self, until: int, out_of_time: Callable[[], bool]) -> None:
        """Drop the oldest while they are stale or their stamps are at or under ``until``, until ``out_of_time()``."""
        for step in count(1):
            order = self._aged or self._recent
            if not order:
                return
            key, stamp = order[0]
            if stamp > until and self.get(key) == stamp:
                return
            self._drop_oldest()
            if not step % _STEP_COUNT and out_of_time():
                return

    def drop_some(self) -> None:
        """Drop a few of the oldest: they take more of a full memory than they are worth."""
        for _ in range(_STEP_COUNT):
            self._drop_oldest()

    def keys_of(self, index: int, floor: int) -> list[bytes]:
        """Return the keys of one of the ``SHARDS`` shards that were deleted after the stamp ``floor``."""
        return [key for key, stamp in self._shards[index].items() if stamp > floor]

    def _drop_oldest(self) -> None:
        order = self._aged or self._recent
        if order:
            key, stamp = order.popleft()
            self.used_bytes -= bytes_cost(len(key)) + _ORDER_BYTES
            index = hash(key) & _SHARD_MASK
            if self._shards[index].get(key) == stamp:
                self._forget(index, key)

    def _sweep_one(self) -> None:
        if not self._recent:
            self._recent, self._aged = self._aged, self._recent
        key, stamp = entry = self._recent.popleft()
        if self._shards[hash(key) & _SHARD_MASK].get(key) == stamp:
            self._aged.append(entry)
        else:
            self.used_bytes -= bytes_cost(len(key)) + _ORDER_BYTES

    def _forget(self, index: int, key: bytes) -> None:
        shard = self._shards[index]
        del shard[key]
        if not shard:
            # An emptied dictionary keeps its table.
            self._shards[index] = {}
        self.count -= 1
        self.used_bytes -= _TABLE_BYTES
