"""What a store does unasked: it expires, frees what a flush took, forgets tombstones, and evicts when memory is full.

Every step is bounded, whatever the number of keys.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from hypercache.store.access import FrequencySketch
from hypercache.store.eviction import Candidate
from hypercache.store.replica import MS_SHIFT, Replica
from hypercache.store.shards import MS_PER_MINUTE, NEVER, SHARD_MASK, SHARDS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from hypercache.store.eviction import EvictionPolicy
    from hypercache.store.tombstones import Tombstones

TICK_MS: Final = 64
"""The access clock's unit; 32 bits of it last 8.7 years."""

TICK_MASK: Final = 0xFFFFFFFF

_TOMBSTONES_SHARE: Final = 4
"""A full store gives up its oldest tombstones while they take more than one in so many bytes: better than to refuse writes."""

_RUNNERS_UP: Final = 2
"""Of a sample, kept for the next: with 5 samples that evicts as well as 10 do, at less cost."""

_EXPIRY_SCAN_COUNT: Final = 4096
_EXPIRY_YIELD: Final = 10
"""A round of expiry goes on after `_EXPIRY_SCAN_COUNT` deadlines while one in so many has passed."""

_EXPIRY_STEP_COUNT: Final = 256


class Upkeep(Replica):
    """Records that are kept within bounds; the base of `hypercache.store.Store`, which documents it.

    Args:
        origin: the node's id, the lower half of each stamp made here.
        rng: for samples.
        buried: where deletions are remembered.
        policy: which key goes when memory is full.
        samples: how many keys an eviction looks at.
    """

    __slots__ = ("_expiry_cursor", "_policy", "_runners_up", "evicted", "samples")

    def __init__(self, origin: int, rng: random.Random, buried: Tombstones, policy: EvictionPolicy, samples: int) -> None:
        super().__init__(origin, rng, buried)
        self.samples = samples
        self.evicted = 0
        self._expiry_cursor = 0
        self.policy = policy

    @property
    def policy(self) -> EvictionPolicy:
        """The eviction policy; setting one that counts uses starts the counting."""
        return self._policy

    @policy.setter
    def policy(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        self._runners_up: list[bytes] = []
        if not policy.counts_uses:
            self._frequency = None
        elif self._frequency is None:
            self._frequency = FrequencySketch(self._rng, keys=self.count)

    def used_bytes(self) -> int:
        """Return about what the store takes of the process' memory, in bytes."""
        used = self._bytes + self._table_bytes + self._buried_bytes + self._tombstones.used_bytes + self._access.used_bytes()
        if self._frequency is not None:
            used += self._frequency.used_bytes()
        return used

    def evict_one(self) -> bool:
        """Drop the key of a sample that the policy scores highest, or one that has expired, or tombstones that take too much.

        Returns:
            False where nothing may go.
        """
        if self._tombstones.used_bytes * _TOMBSTONES_SHARE > self.used_bytes():
            self._tombstones.drop_some()
            return True
        policy = self._policy
        if not policy.evicts:
            return False
        shards: list[dict[bytes, Any]] = self._deadlines if policy.volatile_only else self._shards
        ranked: list[tuple[float, bytes]] = []
        sample = self._sample(self.samples, volatile_only=policy.volatile_only)
        for key in sample + [key for key in self._runners_up if key in shards[hash(key) & SHARD_MASK]]:
            candidate = self._candidate(key)
            if candidate.deadline and candidate.deadline <= self.now_ms:
                self._drop_expired(hash(key) & SHARD_MASK, key)
                return True
            ranked.append((policy.score(candidate), key))
        if not ranked:
            return False
        # Among equals the first of the shard goes: the oldest.
        ranked.sort(key=itemgetter(0), reverse=True)
        self._runners_up = [key for _, key in ranked[1 : 1 + _RUNNERS_UP]]
        key = ranked[0][1]
        self._remove(hash(key) & SHARD_MASK, key)
        self.evicted += 1
        return True

    def victims(self, count: int) -> list[bytes]:
        """Return up to ``count`` keys that should go by the policy, without dropping any."""
        policy = self._policy
        chosen: dict[bytes, None] = {}
        for _ in range(count if policy.evicts else 0):
            sample = self._sample(self.samples, volatile_only=policy.volatile_only)
            if not sample:
                break
            chosen[max(sample, key=lambda key: policy.score(self._candidate(key)))] = None
        return list(chosen)

    def expire_due(self) -> None:
        """Drop every key whose deadline has passed: from then on nothing shows that it was there."""
        now = self.now_ms
        if self.soonest > now:
            return
        for index, due in enumerate(self._due):
            if due <= now:
                for key in [key for key, deadline in self._deadlines[index].items() if deadline <= now]:
                    self._drop_expired(index, key)
                self._due[index] = min(self._deadlines[index].values(), default=NEVER)
        self.soonest = min(self._due)

    def tend(self, out_of_time: Callable[[], bool]) -> None:
        """Do background work until ``out_of_time()`` or all is done: free flushed shards, expire, collect tombstones."""
        while self.release_one():
            if out_of_time():
                return
        if self._tombstones.used_bytes:
            self._tombstones.collect(max(self.floor, (self.now_ms - self._tombstones.ttl_ms) << MS_SHIFT), out_of_time)
        if self.volatile:
            self._expire_round(out_of_time)

    # Inside

    def _expire_round(self, out_of_time: Callable[[], bool]) -> None:
        """Expire shard by shard, from where the last round stopped, for as long as it is worth it."""
        now = self.now_ms
        scanned = dropped = 0
        for _ in range(SHARDS):
            index = self._expiry_cursor
            if self._due[index] <= now:
                deadlines = self._deadlines[index]
                scanned += len(deadlines)
                late = [key for key, deadline in deadlines.items() if deadline <= now]
                for number, key in enumerate(late, 1):
                    self._drop_expired(index, key)
                    if not number % _EXPIRY_STEP_COUNT and out_of_time():
                        return
                self._due[index] = min(self._deadlines[index].values(), default=NEVER)
                dropped += len(late)
                if out_of_time() or (scanned > _EXPIRY_SCAN_COUNT and dropped * _EXPIRY_YIELD < scanned):
                    self._expiry_cursor = (index + 1) & SHARD_MASK
                    return
            self._expiry_cursor = (index + 1) & SHARD_MASK

    def _idle_ticks(self, key_hash: int) -> int:
        ticks = (self._tick - self._cells[key_hash & self._mask]) & TICK_MASK
        # The later half of the circle is the past: the wall clock went back.
        return ticks if ticks <= TICK_MASK >> 1 else 0

    def _candidate(self, key: bytes) -> Candidate:
        key_hash = hash(key)
        return Candidate(
            key,
            self._idle_ticks(key_hash),
            self._frequency.read(key_hash, self.now_ms // MS_PER_MINUTE) if self._frequency is not None else 0,
            self._deadlines[key_hash & SHARD_MASK].get(key, 0) if self.volatile else 0,
            self._rng.random(),
        )
