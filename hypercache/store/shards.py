"""The records of a store, spread over small dictionaries, and what they take of memory.

Records live in `SHARDS` small dictionaries, so that no resize ever takes longer than a fraction of a millisecond. What belongs to
a record is spread over parallel shards: the value, the stamp (written by writes alone), the deadline (only where there is one).
Bytes and ints are not tracked by the garbage collector, and a read touches the value alone.
"""

from __future__ import annotations

from itertools import chain, islice
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

from hypercache.store.access import CELLS_PER_KEY, AccessClock, FrequencySketch
from hypercache.store.memory import DEADLINE_BYTES, bytes_cost, record_bytes

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

SHARDS: Final = 2048
SHARD_MASK: Final = SHARDS - 1
MS_PER_MINUTE: Final = 60_000

_NOTHING: Final[dict[bytes, Any]] = {}
"""Stands for every shard that holds nothing, so that a small store stays small; it is never written to."""

NEVER: Final = 1 << 64
_PROBES: Final = 16

_Parts = tuple[dict[bytes, bytes], dict[bytes, int], dict[bytes, int]]


class Frozen:
    """The records of a store as of one moment; it may be read anywhere, once.

    Args:
        shards: the values.
        deadlines: the deadlines, by shard.
        count: how many records there are.
    """

    __slots__ = ("_deadlines", "_shards", "count")

    def __init__(self, shards: list[dict[bytes, bytes]], deadlines: list[dict[bytes, int]], count: int) -> None:
        self._shards = shards
        self._deadlines = deadlines
        self.count = count

    def records(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield key, value and deadline (Unix milliseconds; 0 for none) of each, and give up what was yielded."""
        while self._shards:
            deadlines = self._deadlines.pop()
            for key, value in self._shards.pop().items():
                yield key, value, deadlines.get(key, 0)


class Shards:
    """Values, stamps and deadlines by key; the base of `hypercache.store.Store`, which says what the operations mean.

    Args:
        rng: for samples.
    """

    __slots__ = (
        "_access",
        "_buried_bytes",
        "_bytes",
        "_cells",
        "_deadlines",
        "_due",
        "_frequency",
        "_graveyard",
        "_mask",
        "_rng",
        "_shards",
        "_shared",
        "_special",
        "_stamps",
        "_table_bytes",
        "_tick",
        "_unsifted",
        "count",
        "floor",
        "now_ms",
        "soonest",
        "volatile",
    )

    def __init__(self, rng: random.Random) -> None:
        self.now_ms = 0
        self.floor = 0
        self._rng = rng
        self._tick = 0
        self._frequency: FrequencySketch | None = None
        # What a flush took: freed one by one, since a million records take 200 ms.
        self._graveyard: list[_Parts] = []
        # What a flush from elsewhere may have left something of, by shard. A shard that is in here is empty in `_shards`: whoever
        # does not find a key there sifts it first.
        self._unsifted: dict[int, _Parts] = {}
        self._buried_bytes = 0
        # Whether `put` has more to do than usual: a shard may belong to a frozen copy too, or keys have a default life.
        self._special = False
        # By shard: 1 where a frozen copy holds it too, so that it is copied before it changes.
        self._shared = bytearray()
        self._clear()

    def _clear(self) -> None:
        self._shards: list[dict[bytes, bytes]] = [_NOTHING] * SHARDS
        self._stamps: list[dict[bytes, int]] = [_NOTHING] * SHARDS
        self._deadlines: list[dict[bytes, int]] = [_NOTHING] * SHARDS
        # No deadline of the shard is earlier.
        self._due = [NEVER] * SHARDS
        self.soonest = NEVER
        self._shared = bytearray()
        self.count = 0
        self.volatile = 0
        self._bytes = 0
        self._table_bytes = 4 * getsizeof(self._shards)
        self._access = AccessClock()
        self._cells = self._access.cells
        self._mask = self._access.mask
        if self._frequency is not None:
            self._frequency = FrequencySketch(self._rng)

    # Records

    def _write(self, index: int, key: bytes, value: bytes, deadline: int, stamp: int) -> None:
        if self._shared:
            self._unshare(index)
        old = self._shards[index].get(key)
        if old is None:
            self._insert(index, key, value)
        else:
            if len(old) != len(value):
                self._bytes += bytes_cost(len(value)) - bytes_cost(len(old))
            self._shards[index][key] = value
        if self.volatile or deadline:
            self._put_deadline(index, key, deadline)
        self._stamps[index][key] = stamp
        self._cells[hash(key) & self._mask] = self._tick

    def _insert(self, index: int, key: bytes, value: bytes) -> None:
        """Put a value under a key that was not found; the caller sets its stamp."""
        if self._unsifted and self._sifted(index) and key in self._shards[index]:
            self._remove(index, key)
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
        self._bytes += record_bytes(key, value)
        if self.count * CELLS_PER_KEY > self._mask and self._access.grow():
            self._mask = self._access.mask
        if self._frequency is not None:
            self._frequency.add(hash(key), self.count, self.now_ms // MS_PER_MINUTE)

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
        if deadline < self._due[index]:
            self._due[index] = deadline
            if deadline < self.soonest:
                self.soonest = deadline

    def _remove(self, index: int, key: bytes) -> None:
        if self._shared:
            self._unshare(index)
        shard = self._shards[index]
        value = shard.pop(key)
        del self._stamps[index][key]
        self.count -= 1
        self._bytes -= record_bytes(key, value)
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
            self._due[index] = NEVER

    # Copies

    def freeze(self) -> Frozen:
        """Return the records as of now; what changes later does not change them. It takes no time that grows with their number."""
        while self._unsifted:
            self._sifted(next(iter(self._unsifted)))
        self._shared = bytearray(b"\1") * SHARDS
        self._special = True
        return Frozen(list(self._shards), list(self._deadlines), self.count)

    def become(self, other: Shards) -> None:
        """Hold what another store holds, which is given up for it."""
        self._bury_all()
        for name in ("_shards", "_stamps", "_deadlines", "_due", "soonest", "count", "volatile", "_bytes", "_table_bytes"):
            setattr(self, name, getattr(other, name))
        self._access, self._cells, self._mask = other._access, other._cells, other._mask
        if self._frequency is not None:
            self._frequency = FrequencySketch(self._rng, keys=self.count)

    def load(self, key: bytes, value: bytes, deadline: int) -> None:
        """Put a record of a frozen copy into a store that is being filled; it has no stamp."""
        self._write(hash(key) & SHARD_MASK, key, value, deadline, 0)

    def _unshare(self, index: int) -> None:
        """Copy a shard that a frozen copy holds too."""
        if self._shared[index]:
            self._shared[index] = 0
            if self._shards[index] is not _NOTHING:
                self._shards[index] = self._shards[index].copy()
            if self._deadlines[index] is not _NOTHING:
                self._deadlines[index] = self._deadlines[index].copy()

    # Emptying

    def _bury_all(self) -> None:
        """Empty the store at once; `release_one` frees the memory."""
        self._graveyard += self._unsifted.values()
        self._unsifted = {}
        self._graveyard += [shard for shard in zip(self._shards, self._stamps, self._deadlines, strict=True) if shard[0]]
        self._buried_bytes += self._bytes + self._table_bytes
        self._clear()
        self._buried_bytes -= self._table_bytes

    def _bury_under_floor(self) -> None:
        """Empty the store at once of what is at or under the floor; what is not comes back shard by shard."""
        shards = zip(self._shards, self._stamps, self._deadlines, strict=True)
        self._unsifted |= {index: shard for index, shard in enumerate(shards) if shard[0]}
        self._buried_bytes += self._bytes + self._table_bytes
        self._clear()
        self._buried_bytes -= self._table_bytes

    def release_one(self) -> bool:
        """Free a shard that a flush took, or sift one; False where there is none."""
        if self._graveyard:
            self._buried_bytes -= self._buried_bytes // (len(self._graveyard) + len(self._unsifted))
            self._graveyard.pop()
            return True
        return bool(self._unsifted) and self._sifted(next(iter(self._unsifted)))

    def _sifted(self, index: int) -> bool:
        """Bring back what a flush left of a shard; False where there is nothing to sift."""
        shard = self._unsifted.get(index)
        if shard is None:
            return False
        self._buried_bytes -= self._buried_bytes // (len(self._graveyard) + len(self._unsifted))
        del self._unsifted[index]
        values, stamps, deadlines = shard
        floor = self.floor
        for key in [key for key, stamp in stamps.items() if stamp > floor]:
            self._write(index, key, values[key], deadlines.get(key, 0), stamps[key])
        return True

    # Samples

    def _sample(self, count: int, *, volatile_only: bool) -> list[bytes]:
        """Return ``count`` keys by chance, or all where there are fewer.

        They come from one shard, or from neighbours: which keys share a shard is chance already. Within a shard they are spread
        evenly from the oldest to the newest; one pass in C finds them all.
        """
        if not (self.volatile if volatile_only else self.count):
            return []
        shards: list[dict[bytes, Any]] = self._deadlines if volatile_only else self._shards
        random = self._rng.random
        index = int(random() * SHARDS)
        found: list[bytes] = []
        for _ in range(SHARDS):
            shard = shards[index]
            index = (index + 1) & SHARD_MASK
            if shard:
                missing = count - len(found)
                spare = len(shard) - missing
                if spare > 0:
                    step = len(shard) // missing
                    start = int(random() * (len(shard) - step * (missing - 1)))
                    found += islice(shard, start, start + step * (missing - 1) + 1, step)
                    break
                found += shard
                if not spare:
                    break
        return found

    def _sample_one(self) -> bytes:
        """Return one key by chance, where there is any."""
        random = self._rng.random
        for _ in range(_PROBES):
            shard = self._shards[int(random() * SHARDS)]
            if shard:
                return next(islice(shard, int(random() * len(shard)), None))
        return self._count_to_one(self._shards)

    def _count_to_one(self, shards: list[dict[bytes, Any]]) -> bytes:
        """Return one of the few keys of a sparse store, each with the same chance."""
        position = int(self._rng.random() * sum(map(len, shards)))
        return next(islice(chain.from_iterable(shards), position, None))
