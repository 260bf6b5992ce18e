"""A named store: bytes under bytes, with deadlines, stamps, memory accounting and eviction.

Records live in `SHARDS` small dictionaries, so that no resize ever takes longer than a fraction of a millisecond. What belongs to
a record is spread over parallel shards: the value, the stamp (written by writes alone), the deadline (only where there is one).
Bytes and ints are not tracked by the garbage collector, and a read touches the value alone.

A *stamp* is one int, ``hlc << 64 | origin``: comparing two compares (hlc, origin). A *deadline* is Unix milliseconds, 0 for none.
"""

from __future__ import annotations

from itertools import chain, islice
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hypercache.limits import EVICTION_SAMPLES_COUNT, TOMBSTONE_TTL_SECONDS, TOMBSTONES_MAX_COUNT
from hypercache.store import tombstones
from hypercache.store.access import AccessClock, FrequencySketch
from hypercache.store.eviction import NO_EVICTION, Candidate, EvictionPolicy
from hypercache.store.memory import DEADLINE_BYTES, STAMP_BYTES, bytes_cost
from hypercache.store.tombstones import Tombstones

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

SHARDS: Final = 2048
STAMP_STEP: Final = 1 << 64
TICK_MS: Final = 64
"""The access clock's unit; 32 bits of it last 8.7 years."""

_SHARD_MASK: Final = SHARDS - 1
_TICK_SHIFT: Final = 6
_TICK_MASK: Final = 0xFFFFFFFF
_ORIGIN_MASK: Final = STAMP_STEP - 1
_NOTHING: Final[dict[bytes, Any]] = {}
"""Stands for every shard that holds nothing, so that a small store stays small; it is never written to."""

_PROBES: Final = 16


class Record(msgspec.Struct, frozen=True, gc=False):
    """What a store holds under one key."""

    value: bytes
    deadline: int
    stamp: int


class Store:
    """One named store.

    Args:
        name: the store's name.
        origin: the node's id, the lower half of each stamp made here.
        rng: for samples; a seeded one makes eviction repeatable.
        policy: which key goes when memory is full.
        samples: how many keys an eviction looks at.
        maxmemory: this store's own bound, in bytes; 0 for none but the node's.
        tombstones_max: how many deleted keys are remembered while replicating.
        tombstone_ttl_ms: for how long, in milliseconds.

    Attributes:
        now_ms: the time of the current batch, Unix milliseconds; `advance` sets it.
        dirty: the journal of keys that peers must hear of, None while nothing is replicated: 0 where the whole record (or
            its deletion) must be told, or the stamp that a mere change of deadline followed.
        floor: records at or under this stamp do not exist (a flush left it); 0 for none.
        before_flush: told of the store before a local flush empties it; None for nobody.
        volatile: how many keys have a deadline.
        hits, misses, expired, evicted: counters.
    """

    __slots__ = (
        "_access",
        "_bytes",
        "_cells",
        "_deadlines",
        "_expiry_cursor",
        "_frequency",
        "_graveyard",
        "_mask",
        "_origin",
        "_policy",
        "_rng",
        "_shards",
        "_stamp",
        "_stamps",
        "_table_bytes",
        "_tick",
        "_tombstones",
        "before_flush",
        "count",
        "dirty",
        "evicted",
        "expired",
        "floor",
        "hits",
        "maxmemory",
        "misses",
        "name",
        "now_ms",
        "samples",
        "volatile",
    )

    def __init__(
        self,
        name: str,
        *,
        origin: int,
        rng: random.Random,
        policy: EvictionPolicy = NO_EVICTION,
        samples: int = EVICTION_SAMPLES_COUNT,
        maxmemory: int = 0,
        tombstones_max: int = TOMBSTONES_MAX_COUNT,
        tombstone_ttl_ms: int = int(TOMBSTONE_TTL_SECONDS * 1000),
    ) -> None:
        self.name = name
        self.samples = samples
        self.maxmemory = maxmemory
        self.now_ms = 0
        self.dirty: dict[bytes, int] | None = None
        self.floor = 0
        self.before_flush: Callable[[Store], None] | None = None
        self.hits = self.misses = self.expired = self.evicted = 0
        self._origin = origin
        self._rng = rng
        self._stamp = origin
        self._tick = 0
        self._tombstones = Tombstones(tombstones_max, tombstone_ttl_ms)
        self._graveyard: list[dict[bytes, bytes] | dict[bytes, int]] = []
        self._expiry_cursor = 0
        self._frequency: FrequencySketch | None = None
        self._clear()
        self.policy = policy

    def _clear(self) -> None:
        self._shards: list[dict[bytes, bytes]] = [_NOTHING] * SHARDS
        self._stamps: list[dict[bytes, int]] = [_NOTHING] * SHARDS
        self._deadlines: list[dict[bytes, int]] = [_NOTHING] * SHARDS
        self.count = 0
        self.volatile = 0
        self._bytes = 0
        self._table_bytes = 3 * getsizeof(self._shards)
        self._access = AccessClock()
        self._cells = self._access.cells
        self._mask = self._access.mask
        if self._frequency is not None:
            self._frequency = FrequencySketch(self._rng)

    # Time and policy

    def advance(self, now_ms: int) -> None:
        """Set the time of what follows; the stamps follow the wall clock and never go back.

        Args:
            now_ms: Unix milliseconds.
        """
        self.now_ms = now_ms
        self._tick = now_ms >> _TICK_SHIFT & _TICK_MASK
        stamp = now_ms << 80 | self._origin
        if stamp > self._stamp:
            self._stamp = stamp

    def observe(self, stamp: int) -> None:
        """Make every later stamp exceed ``stamp``."""
        if stamp > self._stamp:
            self._stamp = stamp & ~_ORIGIN_MASK | self._origin

    def next_stamp(self) -> int:
        """Return a new stamp of this node, later than all it has seen."""
        self._stamp += STAMP_STEP
        return self._stamp

    @property
    def policy(self) -> EvictionPolicy:
        """The eviction policy; setting one that counts uses starts the counting."""
        return self._policy

    @policy.setter
    def policy(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        if not policy.counts_uses:
            self._frequency = None
        elif self._frequency is None:
            self._frequency = FrequencySketch(self._rng)
            self._frequency.grow_for(self.count)

    # Reading

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a live key and count it as used, else None."""
        key_hash = hash(key)
        value = self._shards[key_hash & _SHARD_MASK].get(key)
        if value is None or (self.volatile and self._expires_now(key, key_hash & _SHARD_MASK)):
            self.misses += 1
            return None
        self.hits += 1
        self._cells[key_hash & self._mask] = self._tick
        if self._frequency is not None:
            self._frequency.count(key_hash, self.now_ms // 1000)
        return value

    def peek(self, key: bytes) -> bytes | None:
        """Return the value of a live key without counting it as used, else None."""
        index = hash(key) & _SHARD_MASK
        value = self._shards[index].get(key)
        if value is None or (self.volatile and self._expires_now(key, index)):
            return None
        return value

    def contains(self, key: bytes) -> bool:
        """Say whether the key is live."""
        return self.peek(key) is not None

    def touch(self, key: bytes) -> bool:
        """Count the key as used; False where it is not live."""
        if self.peek(key) is None:
            return False
        self._use(hash(key))
        return True

    def deadline(self, key: bytes) -> int | None:
        """Return the deadline of a live key (0: none), None where there is no such key."""
        if self.peek(key) is None:
            return None
        return self._deadlines[hash(key) & _SHARD_MASK].get(key, 0)

    def idle_seconds(self, key: bytes) -> int | None:
        """Return the seconds since the key was last used, None where it is not live."""
        if self.peek(key) is None:
            return None
        return self._idle_ticks(hash(key)) * TICK_MS // 1000

    def frequency(self, key: bytes) -> int | None:
        """Return the use counter (0 to 255), None where the key is not live or the policy counts no uses."""
        if self._frequency is None or self.peek(key) is None:
            return None
        return self._frequency.read(hash(key), self.now_ms // 1000)

    def memory_of(self, key: bytes) -> int | None:
        """Return about what the record takes of memory, in bytes, None where the key is not live."""
        value = self.peek(key)
        if value is None:
            return None
        index = hash(key) & _SHARD_MASK
        tables = 2 * getsizeof(self._shards[index])
        expiry = DEADLINE_BYTES if key in self._deadlines[index] else 0
        return self._record_bytes(key, value) + tables // len(self._shards[index]) + expiry

    def __len__(self) -> int:
        return self.count

    def average_ttl_ms(self) -> int:
        """Return the mean life left of a sample of the keys that expire, in milliseconds."""
        sample = [d for key in self._sample(20, volatile_only=True) if (d := self.deadline(key))]
        return sum(d - self.now_ms for d in sample) // len(sample) if sample else 0

    def keys(self) -> Iterator[bytes]:
        """Yield the live keys; the store must not change meanwhile."""
        for index, shard in enumerate(self._shards):
            deadlines = self._deadlines[index]
            if deadlines:
                yield from (key for key in shard if deadlines.get(key, _TICK_MASK << 32) > self.now_ms)
            else:
                yield from shard

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and the live keys of some whole shards, at least ``count`` unless the end is near.

        A key never changes its shard: one that is there from the first call to the last is returned, once.
        """
        found: list[bytes] = []
        while 0 <= cursor < SHARDS:
            deadlines = self._deadlines[cursor]
            if deadlines:
                now = self.now_ms
                found += [key for key in self._shards[cursor] if not 0 < deadlines.get(key, 0) <= now]
            else:
                found += self._shards[cursor]
            cursor += 1
            if len(found) >= count:
                break
        return (cursor if 0 <= cursor < SHARDS else 0), found

    def random_key(self) -> bytes | None:
        """Return a live key, any with about the same chance; None where there is none."""
        while self.count:
            key = next(iter(self._sample(1, volatile_only=False)))
            if self.peek(key) is not None:
                return key
        return None

    # Writing

    def put(self, key: bytes, value: bytes, deadline: int = 0) -> None:
        """Set a record under a new stamp.

        Args:
            key: the key.
            value: the value.
            deadline: Unix milliseconds; 0 for none.
        """
        # `_write` with a fresh stamp, spelt out: this is the path of every SET, and the call alone is a tenth of it.
        key_hash = hash(key)
        index = key_hash & _SHARD_MASK
        shard = self._shards[index]
        old = shard.get(key)
        if old is None:
            self._insert(index, key, value)
        else:
            if len(old) != len(value):
                self._bytes += bytes_cost(len(value)) - bytes_cost(len(old))
            shard[key] = value
        if self.volatile or deadline:
            self._put_deadline(index, key, deadline)
        self._stamp = stamp = self._stamp + STAMP_STEP
        self._stamps[index][key] = stamp
        self._cells[key_hash & self._mask] = self._tick
        if self.dirty is not None:
            self.dirty[key] = 0
        if self._frequency is not None:
            self._frequency.count(key_hash, self.now_ms // 1000)

    def replace(self, key: bytes, value: bytes) -> None:
        """Set a value and keep the key's deadline, if it has one."""
        self.put(key, value, self.deadline(key) or 0)

    def delete(self, key: bytes) -> bool:
        """Delete a live key; False where there is none."""
        index = hash(key) & _SHARD_MASK
        if key not in self._shards[index] or (self.volatile and self._expires_now(key, index)):
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
        if 0 < deadline <= self.now_ms or deadline < 0:
            return self.delete(key)
        index = hash(key) & _SHARD_MASK
        self._put_deadline(index, key, deadline)
        followed = self._stamps[index][key]
        self._stamp += STAMP_STEP
        self._stamps[index][key] = self._stamp
        if self.dirty is not None:
            self.dirty.setdefault(key, followed)
        return True

    def flush(self) -> None:
        """Empty the store at once; the memory comes back little by little, by `tend`."""
        if self.before_flush is not None:
            self.before_flush(self)
        self._empty()
        if self.dirty is not None:
            self.dirty.clear()
            self._stamp += STAMP_STEP
            self.floor = self._stamp

    # Memory

    def used_bytes(self) -> int:
        """Return about what the store takes of the process' memory, in bytes."""
        used = self._bytes + self._table_bytes + self._access.used_bytes() + self._tombstones.used_bytes()
        if self._frequency is not None:
            used += self._frequency.used_bytes()
        return used

    def evict_one(self) -> bool:
        """Drop the key of a sample that the policy scores highest; False where none may go."""
        policy = self._policy
        if not policy.evicts:
            return False
        if not (self.volatile if policy.volatile_only else self.count):
            return False
        best = max(map(self._candidate, self._sample(self.samples, policy.volatile_only)), key=policy.score)
        self._remove(hash(best.key) & _SHARD_MASK, best.key)
        self.evicted += 1
        return True

    def tend(self, out_of_time: Callable[[], bool]) -> None:
        """Do background work until ``out_of_time()`` or all is done: free flushed shards, expire, collect tombstones."""
        while self._graveyard:
            self._graveyard.pop()
            if not len(self._graveyard) & 7 and out_of_time():
                return
        if self._tombstones.count:
            self._tombstones.collect(self.now_ms, out_of_time)
        if self.volatile:
            self._expire_round(out_of_time)

    # Replication

    def record(self, key: bytes) -> Record | None:
        """Return the live record of a key, None where there is none."""
        value = self.peek(key)
        if value is None:
            return None
        index = hash(key) & _SHARD_MASK
        return Record(value, self._deadlines[index].get(key, 0), self._stamps[index][key])

    def tombstone(self, key: bytes) -> int:
        """Return the stamp under which the key was deleted, 0 where it was not (or that is forgotten)."""
        return self._tombstones.get(key)

    def copy_scan(self, cursor: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and the keys of one shard, of records or of tombstones, for a full copy."""
        keys = list(self._shards[cursor] if cursor < SHARDS else self._tombstones.keys_of(cursor - SHARDS))
        cursor += 1
        return (cursor if cursor < SHARDS + tombstones.SHARDS else 0), keys

    def apply_put(self, key: bytes, value: bytes, deadline: int, stamp: int, *, relay: bool = False) -> bool:
        """Take a record from another node unless what is held here is as late or later.

        Args:
            key: the key.
            value: the value.
            deadline: Unix milliseconds; 0 for none; one that has passed leaves a tombstone.
            stamp: the record's stamp.
            relay: whether this node's own peers must hear of it.

        Returns:
            Whether it was later and was taken.
        """
        index = hash(key) & _SHARD_MASK
        if not self._is_later(index, key, stamp):
            return False
        self.observe(stamp)
        if 0 < deadline <= self.now_ms:
            self._bury_applied(index, key, stamp)
        else:
            self._write(index, key, value, deadline, stamp)
        if relay and self.dirty is not None:
            self.dirty[key] = 0
        return True

    def apply_delete(self, key: bytes, stamp: int, *, relay: bool = False) -> bool:
        """Take a deletion from another node unless what is held here is as late or later; True where it was taken."""
        index = hash(key) & _SHARD_MASK
        if not self._is_later(index, key, stamp):
            return False
        self.observe(stamp)
        self._bury_applied(index, key, stamp)
        if relay and self.dirty is not None:
            self.dirty[key] = 0
        return True

    def apply_deadline(self, key: bytes, deadline: int, stamp: int, follows: int, *, relay: bool = False) -> bool | None:
        """Take a change of deadline from another node.

        Args:
            key: the key.
            deadline: Unix milliseconds; 0: never.
            stamp: the change's stamp.
            follows: the stamp of the record that was changed; 0 where the sender cannot say.
            relay: whether this node's own peers must hear of it.

        Returns:
            True where it was taken, False where what is held here is later, None where the record that it follows is not
            the one held here, so that the sender must send the whole (consistency.md, rule 8).
        """
        index = hash(key) & _SHARD_MASK
        if not self._is_later(index, key, stamp):
            return False
        held = self._stamps[index].get(key, 0)
        if not held or (follows and held != follows):
            return None
        self.observe(stamp)
        if 0 < deadline <= self.now_ms:
            self._bury_applied(index, key, stamp)
        else:
            self._put_deadline(index, key, deadline)
            self._stamps[index][key] = stamp
        if relay and self.dirty is not None:
            self.dirty.setdefault(key, held)
        return True

    def apply_flush(self, stamp: int) -> None:
        """Drop every record at or under ``stamp`` and refuse such from now on."""
        if stamp <= self.floor:
            return
        self.observe(stamp)
        self.floor = stamp
        survivors = [
            (key, self._shards[index][key], self._deadlines[index].get(key, 0), held)
            for index, shard in enumerate(self._stamps)
            for key, held in shard.items()
            if held > stamp
        ]
        self._empty()
        for key, value, deadline, held in survivors:
            self._write(hash(key) & _SHARD_MASK, key, value, deadline, held)

    # Inside

    def _expires_now(self, key: bytes, index: int) -> bool:
        """Drop the key and say True where its deadline has passed."""
        deadline = self._deadlines[index].get(key)
        if deadline is None or deadline > self.now_ms:
            return False
        self._drop_expired(index, key)
        return True

    def _drop_expired(self, index: int, key: bytes) -> None:
        # The record's own stamp stays as a tombstone, so that an older copy elsewhere does not come back.
        stamp = self._stamps[index][key]
        self._remove(index, key)
        if self.dirty is not None:
            self._tombstones.bury(key, stamp)
        self.expired += 1

    def _expire_round(self, out_of_time: Callable[[], bool]) -> None:
        """Go once through the shards, from where the last round stopped."""
        now = self.now_ms
        for _ in range(SHARDS):
            index = self._expiry_cursor = (self._expiry_cursor + 1) & _SHARD_MASK
            deadlines = self._deadlines[index]
            if deadlines:
                for key in [key for key, deadline in deadlines.items() if deadline <= now]:
                    self._drop_expired(index, key)
                if out_of_time():
                    return

    def _insert(self, index: int, key: bytes, value: bytes) -> None:
        """Put a value under a key that is not in its shard."""
        shard = self._shards[index]
        if shard is _NOTHING:
            shard = self._shards[index] = {}
            self._stamps[index] = {}
            before = 0
        else:
            before = getsizeof(shard)
        shard[key] = value
        self.count += 1
        # The stamps' table holds the same keys and grows with this one.
        self._table_bytes += 2 * (getsizeof(shard) - before)
        self._bytes += self._record_bytes(key, value)
        if self._tombstones.count:
            self._tombstones.discard(key)
        if self.count * 4 > self._mask and self._access.grow_for(self.count):
            self._cells = self._access.cells
            self._mask = self._access.mask
        if self._frequency is not None:
            self._frequency.grow_for(self.count)
            self._frequency.reset(hash(key), self.now_ms // 1000)

    def _write(self, index: int, key: bytes, value: bytes, deadline: int, stamp: int) -> None:
        shard = self._shards[index]
        old = shard.get(key)
        if old is None:
            self._insert(index, key, value)
        else:
            if len(old) != len(value):
                self._bytes += bytes_cost(len(value)) - bytes_cost(len(old))
            shard[key] = value
        if self.volatile or deadline:
            self._put_deadline(index, key, deadline)
        self._stamps[index][key] = stamp
        self._cells[hash(key) & self._mask] = self._tick

    def _put_deadline(self, index: int, key: bytes, deadline: int) -> None:
        deadlines = self._deadlines[index]
        if not deadline:
            if key in deadlines:
                self._remove_deadline(index, key)
            return
        if key not in deadlines:
            if deadlines is _NOTHING:
                deadlines = self._deadlines[index] = {}
                before = 0
            else:
                before = getsizeof(deadlines)
            deadlines[key] = deadline
            self._table_bytes += getsizeof(deadlines) - before
            self._bytes += DEADLINE_BYTES
            self.volatile += 1
        else:
            deadlines[key] = deadline

    def _remove(self, index: int, key: bytes) -> None:
        shard = self._shards[index]
        value = shard.pop(key)
        del self._stamps[index][key]
        self.count -= 1
        self._bytes -= self._record_bytes(key, value)
        if not shard:
            self._table_bytes -= 2 * getsizeof(shard)
            self._shards[index] = self._stamps[index] = _NOTHING
        if self.volatile and key in self._deadlines[index]:
            self._remove_deadline(index, key)

    def _remove_deadline(self, index: int, key: bytes) -> None:
        deadlines = self._deadlines[index]
        del deadlines[key]
        self.volatile -= 1
        self._bytes -= DEADLINE_BYTES
        if not deadlines:
            self._table_bytes -= getsizeof(deadlines)
            self._deadlines[index] = _NOTHING

    def _empty(self) -> None:
        for shards in (self._shards, self._stamps, self._deadlines):
            self._graveyard += [shard for shard in shards if shard is not _NOTHING]
        self._tombstones.clear()
        self._clear()

    def _is_later(self, index: int, key: bytes, stamp: int) -> bool:
        """Say whether a change under ``stamp`` comes after all that is known of the key."""
        held = self._stamps[index].get(key)
        if held is not None:
            return stamp > held and stamp > self.floor
        if stamp <= self.floor:
            return False
        return not self._tombstones.count or stamp > self._tombstones.get(key)

    def _bury_applied(self, index: int, key: bytes, stamp: int) -> None:
        if key in self._shards[index]:
            self._remove(index, key)
        self._tombstones.bury(key, stamp)

    def _use(self, key_hash: int) -> None:
        self._cells[key_hash & self._mask] = self._tick
        if self._frequency is not None:
            self._frequency.count(key_hash, self.now_ms // 1000)

    def _idle_ticks(self, key_hash: int) -> int:
        return (self._tick - self._cells[key_hash & self._mask]) & _TICK_MASK

    @staticmethod
    def _record_bytes(key: bytes, value: bytes) -> int:
        return bytes_cost(len(key)) + bytes_cost(len(value)) + STAMP_BYTES

    def _candidate(self, key: bytes) -> Candidate:
        key_hash = hash(key)
        frequency = self._frequency.read(key_hash, self.now_ms // 1000) if self._frequency is not None else 0
        deadline = self._deadlines[key_hash & _SHARD_MASK].get(key, 0) if self.volatile else 0
        return Candidate(key, self._idle_ticks(key_hash), frequency, deadline, self._rng.random())

    def _sample(self, count: int, volatile_only: bool) -> Iterable[bytes]:
        """Return ``count`` random keys, with repetition; fewer only where there are none."""
        shards: list[dict[bytes, bytes]] | list[dict[bytes, int]] = self._deadlines if volatile_only else self._shards
        if not (self.volatile if volatile_only else self.count):
            return []
        return [self._sample_one(shards) for _ in range(count)]

    def _sample_one(self, shards: list[dict[bytes, bytes]] | list[dict[bytes, int]]) -> bytes:
        rng = self._rng
        for _ in range(_PROBES):
            shard = shards[int(rng.random() * SHARDS)]
            if shard:
                return next(islice(shard, int(rng.random() * len(shard)), None))
        # A sparse store: count to one of its few keys.
        return next(islice(chain.from_iterable(shards), int(rng.random() * sum(map(len, shards))), None))
