"""The stamps of deleted keys, so that an older copy from elsewhere cannot bring a key back (consistency.md, rules 7 and 11)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from hypercache.store.memory import STAMP_BYTES, bytes_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARDS: Final = 256
_ENTRY_BYTES: Final = 2 * STAMP_BYTES + 96
"""A stamp and an entry in a dictionary and in the order."""


class Tombstones:
    """Deleted keys and when they were deleted, at most ``limit`` of them; at the limit the oldest goes.

    Args:
        limit: how many to hold.
        ttl_ms: how long one is kept, in milliseconds.
    """

    __slots__ = ("_bytes", "_order", "_shards", "count", "limit", "ttl_ms")

    def __init__(self, limit: int, ttl_ms: int) -> None:
        self.limit = limit
        self.ttl_ms = ttl_ms
        self.count = 0
        self._bytes = 0
        self._shards: list[dict[bytes, int]] = [{} for _ in range(SHARDS)]
        # (key, stamp) in the order of burial; an entry whose stamp is no longer the key's is stale and skipped.
        self._order: deque[tuple[bytes, int]] = deque()

    def get(self, key: bytes) -> int:
        """Return the stamp under which ``key`` was deleted, 0 where it was not."""
        return self._shards[hash(key) % SHARDS].get(key, 0)

    def bury(self, key: bytes, stamp: int) -> None:
        """Remember that ``key`` was deleted under ``stamp``; an older tombstone of the key is replaced."""
        shard = self._shards[hash(key) % SHARDS]
        if key not in shard:
            self.count += 1
            self._bytes += bytes_cost(len(key)) + _ENTRY_BYTES
        shard[key] = stamp
        self._order.append((key, stamp))
        while len(self._order) > self.limit:
            self._drop(*self._order.popleft())

    def discard(self, key: bytes) -> None:
        """Forget ``key``: it was written again."""
        if self._shards[hash(key) % SHARDS].pop(key, None) is not None:
            self._forget(key)

    def collect(self, now_ms: int, out_of_time: Callable[[], bool]) -> None:
        """Drop those that are older than the time to live, until ``out_of_time()``."""
        oldest = (now_ms - self.ttl_ms) << 80
        while self._order and self._order[0][1] < oldest:
            self._drop(*self._order.popleft())
            if not self.count & 0x3F and out_of_time():
                return

    def clear(self) -> None:
        """Forget all."""
        self._shards = [{} for _ in range(SHARDS)]
        self._order.clear()
        self.count = 0
        self._bytes = 0

    def keys_of(self, shard: int) -> Iterator[bytes]:
        """Return the keys of one of the ``SHARDS`` shards."""
        return iter(self._shards[shard])

    def used_bytes(self) -> int:
        """Return about what they take of memory, in bytes."""
        return self._bytes

    def _drop(self, key: bytes, stamp: int) -> None:
        shard = self._shards[hash(key) % SHARDS]
        if shard.get(key) == stamp:
            del shard[key]
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        self.count -= 1
        self._bytes -= bytes_cost(len(key)) + _ENTRY_BYTES
