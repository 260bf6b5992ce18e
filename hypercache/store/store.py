"""A named store: bytes under bytes, with deadlines, memory accounting and eviction.

`hypercache.store.shards` has how records are held, `hypercache.store.replica` what is done with changes from other nodes,
`hypercache.store.upkeep` what goes on in the background and when memory is full.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

from hypercache.limits import EVICTION_SAMPLES_COUNT, TOMBSTONE_TTL_SECONDS, TOMBSTONES_MAX_COUNT
from hypercache.store.eviction import NO_EVICTION, EvictionPolicy
from hypercache.store.memory import DEADLINE_BYTES, bytes_cost, record_bytes
from hypercache.store.replica import MS_SHIFT, STAMP_STEP
from hypercache.store.shards import MS_PER_MINUTE, NEVER, SHARD_MASK, SHARDS
from hypercache.store.tombstones import Tombstones
from hypercache.store.upkeep import TICK_MASK, TICK_MS, Upkeep

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

_TICK_SHIFT: Final = TICK_MS.bit_length() - 1
_RANDOM_KEY_TRIES: Final = 100


class Store(Upkeep):
    """One named store.

    Args:
        name: the store's name.
        origin: the node's id, the lower half of each stamp made here.
        rng: for samples; a seeded one makes eviction repeatable.
        policy: which key goes when memory is full.
        samples: how many keys an eviction looks at.
        maxmemory: this store's own bound, in bytes; 0 for none but the node's.
        ttl_ms: how long a key lives that is written without a deadline, in milliseconds; 0 for ever.
        tombstones_max: how many deleted keys are remembered while replicating.
        tombstone_ttl_ms: for how long, in milliseconds.

    Attributes:
        now_ms: the time of the current batch, Unix milliseconds; `advance` sets it.
        dirty: the journal of keys that peers must hear of, None while nothing is replicated: 0 where the whole record (or
            its deletion) must be told, or the stamp that a mere change of deadline followed.
        floor: records at or under this stamp do not exist (a flush left it); 0 for none.
        before_flush: told of the store before a local flush empties it; None for nobody.
        log: what its commands go through instead of being run at once; None for nothing.
        soonest: no deadline is earlier, Unix milliseconds.
        volatile: how many keys have a deadline.
        hits, misses, expired, evicted: counters.
    """

    __slots__ = ("_ttl_ms", "before_flush", "hits", "log", "maxmemory", "misses", "name")

    def __init__(
        self,
        name: str,
        *,
        origin: int,
        rng: random.Random,
        policy: EvictionPolicy = NO_EVICTION,
        samples: int = EVICTION_SAMPLES_COUNT,
        maxmemory: int = 0,
        ttl_ms: int = 0,
        tombstones_max: int = TOMBSTONES_MAX_COUNT,
        tombstone_ttl_ms: int = int(TOMBSTONE_TTL_SECONDS * 1000),
    ) -> None:
        super().__init__(origin, rng, Tombstones(tombstones_max, tombstone_ttl_ms), policy, samples)
        self.name = name
        self.maxmemory = maxmemory
        self.ttl_ms = ttl_ms
        self.before_flush: Callable[[Store], None] | None = None
        self.log: Any = None
        self.hits = self.misses = 0

    @property
    def ttl_ms(self) -> int:
        """How long a key lives that is written without a deadline, in milliseconds; 0 for ever."""
        return self._ttl_ms

    @ttl_ms.setter
    def ttl_ms(self, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._special = bool(ttl_ms or self._shared)

    # Time

    def advance(self, now_ms: int) -> None:
        """Set the time of what follows; the stamps follow the wall clock and never go back.

        Args:
            now_ms: Unix milliseconds.
        """
        self.now_ms = now_ms
        self._tick = now_ms >> _TICK_SHIFT & TICK_MASK
        stamp = now_ms << MS_SHIFT | self._origin
        if stamp > self._stamp:
            self._stamp = stamp

    # Reading

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a live key and count it as used, else None."""
        key_hash = hash(key)
        value = self._shards[key_hash & SHARD_MASK].get(key)
        if value is None:
            if self._unsifted and self._sifted(key_hash & SHARD_MASK):
                return self.get(key)
            self.misses += 1
            return None
        if self.volatile:
            # `_expires_now`, spelt out: the call would be a fifth of a read.
            deadline = self._deadlines[key_hash & SHARD_MASK].get(key)
            if deadline is not None and deadline <= self.now_ms:
                self._drop_expired(key_hash & SHARD_MASK, key)
                self.misses += 1
                return None
        self.hits += 1
        self._cells[key_hash & self._mask] = self._tick
        if self._frequency is not None:
            self._frequency.count(key_hash, self.now_ms // MS_PER_MINUTE)
        return value

    def contains(self, key: bytes) -> bool:
        """Say whether the key is live."""
        return self.peek(key) is not None

    def touch(self, key: bytes) -> bool:
        """Count the key as used; False where it is not live."""
        if self.peek(key) is None:
            return False
        self._cells[hash(key) & self._mask] = self._tick
        if self._frequency is not None:
            self._frequency.count(hash(key), self.now_ms // MS_PER_MINUTE)
        return True

    def deadline(self, key: bytes) -> int | None:
        """Return the deadline of a live key (0: none), None where there is no such key."""
        if self.peek(key) is None:
            return None
        return self._deadlines[hash(key) & SHARD_MASK].get(key, 0)

    def idle_seconds(self, key: bytes) -> int | None:
        """Return the seconds since the key was last used, None where it is not live."""
        if self.peek(key) is None:
            return None
        return self._idle_ticks(hash(key)) * TICK_MS // 1000

    def frequency(self, key: bytes) -> int | None:
        """Return the use counter (0 to 255), None where the key is not live or the policy counts no uses."""
        if self._frequency is None or self.peek(key) is None:
            return None
        return self._frequency.read(hash(key), self.now_ms // MS_PER_MINUTE)

    def memory_of(self, key: bytes) -> int | None:
        """Return about what the record takes of memory, in bytes, None where the key is not live."""
        value = self.peek(key)
        if value is None:
            return None
        index = hash(key) & SHARD_MASK
        used = record_bytes(key, value) + 2 * getsizeof(self._shards[index]) // len(self._shards[index])
        deadlines = self._deadlines[index]
        if key in deadlines:
            used += DEADLINE_BYTES + getsizeof(deadlines) // len(deadlines)
        return used

    def __len__(self) -> int:
        return self.count

    def average_ttl_ms(self) -> int:
        """Return the mean life left of a sample of the keys that expire, in milliseconds."""
        sample = [d for key in self._sample(20, volatile_only=True) if (d := self.deadline(key))]
        return sum(d - self.now_ms for d in sample) // len(sample) if sample else 0

    def keys(self) -> Iterator[bytes]:
        """Yield the live keys; the store must not change meanwhile."""
        for index in range(SHARDS):
            yield from self._live_keys(index)

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and the live keys of some whole shards, at least ``count`` unless the end is near.

        A key never changes its shard: one that is there from the first call to the last is returned, once.
        """
        found: list[bytes] = []
        while 0 <= cursor < SHARDS:
            found += self._live_keys(cursor)
            cursor += 1
            if len(found) >= count:
                break
        return (cursor if 0 <= cursor < SHARDS else 0), found

    def random_key(self) -> bytes | None:
        """Return a live key, any with about the same chance; None where there is none."""
        for _ in range(_RANDOM_KEY_TRIES):
            if not self.count:
                break
            key = self._sample_one()
            if self.peek(key) is not None:
                return key
        # Nearly all have expired, or are still to come back after a flush.
        return next(self.keys(), None)

    # Writing

    def put(self, key: bytes, value: bytes, deadline: int = 0) -> None:
        """Set a record under a new stamp.

        Args:
            key: the key.
            value: the value.
            deadline: Unix milliseconds; 0 for none but the store's own `ttl_ms`.
        """
        if self._special:
            if self._ttl_ms and not deadline:
                deadline = self.now_ms + self._ttl_ms
            if self._shared:
                self._unshare(hash(key) & SHARD_MASK)
        # `_write` with a fresh stamp, spelt out: this is the path of every SET, and the call alone is a tenth of it.
        key_hash = hash(key)
        index = key_hash & SHARD_MASK
        shard = self._shards[index]
        old = shard.get(key)
        if old is None:
            self._insert(index, key, value)
            if self._tombstones.count:
                self._tombstones.discard(key)
        else:
            if len(old) != len(value):
                self._bytes += bytes_cost(len(value)) - bytes_cost(len(old))
            shard[key] = value
            if self._frequency is not None:
                self._frequency.count(key_hash, self.now_ms // MS_PER_MINUTE)
        if self.volatile or deadline:
            self._put_deadline(index, key, deadline)
        self._stamp = stamp = self._stamp + STAMP_STEP
        self._stamps[index][key] = stamp
        self._cells[key_hash & self._mask] = self._tick
        if self.dirty is not None:
            self.dirty[key] = 0

    def replace(self, key: bytes, value: bytes) -> None:
        """Set a value and keep the key's deadline, if it has one."""
        self.put(key, value, (self.deadline(key) or 0) if self.volatile or self._unsifted else 0)

    def delete(self, key: bytes) -> bool:
        """Delete a live key; False where there is none."""
        index = hash(key) & SHARD_MASK
        if key not in self._shards[index]:
            return bool(self._unsifted) and self._sifted(index) and self.delete(key)
        if self.volatile and self._expires_now(index, key):
            return False
        self._remove(index, key)
        if self.dirty is not None:
            self._stamp += STAMP_STEP
            self._tombstones.bury(key, self._stamp)
            self.dirty[key] = 0
        return True

    def set_deadline(self, key: bytes, deadline: int) -> bool:
        """Change when a live key expires; at or before now deletes it.

        Args:
            key: the key.
            deadline: Unix milliseconds; 0: never.

        Returns:
            False where there is no such key.
        """
        if self.peek(key) is None:
            return False
        if deadline and deadline <= self.now_ms:
            return self.delete(key)
        index = hash(key) & SHARD_MASK
        if self._shared:
            self._unshare(index)
        self._put_deadline(index, key, deadline)
        followed = self._stamps[index][key]
        self._stamp += STAMP_STEP
        self._stamps[index][key] = self._stamp
        if self.dirty is not None:
            self.dirty.setdefault(key, followed)
        return True

    def flush(self) -> None:
        """Empty the store at once; the memory comes back little by little, by `tend`, or when memory is full."""
        if self.before_flush is not None:
            self.before_flush(self)
        self._bury_all()
        if self.dirty is not None:
            self.dirty.clear()
            self.floor = self.next_stamp()

    def discard_all(self) -> None:
        """Empty the store as if nothing had ever been in it: nobody is told, and what comes from elsewhere is taken again."""
        self._bury_all()
        if self.dirty is not None:
            self.dirty.clear()

    # Inside

    def _live_keys(self, index: int) -> list[bytes]:
        if self._unsifted:
            self._sifted(index)
        shard = self._shards[index]
        deadlines = self._deadlines[index]
        if not deadlines:
            return list(shard)
        now = self.now_ms
        if len(deadlines) == len(shard):
            return [key for key, deadline in deadlines.items() if deadline > now]
        return [key for key in shard if deadlines.get(key, NEVER) > now]
