"""What a store does with changes from other nodes: the later stamp wins, whatever the order in which they come.

A *stamp* is one int, ``hlc << 64 | origin``: comparing two compares (hlc, origin). A *deadline* is Unix milliseconds, 0 for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.store import tombstones
from hypercache.store.shards import SHARD_MASK, SHARDS, Shards
from hypercache.store.tombstones import Tombstones

if TYPE_CHECKING:
    import random

STAMP_STEP: Final = 1 << 64
MS_SHIFT: Final = 80
"""From a stamp to its milliseconds."""

_ORIGIN_MASK: Final = STAMP_STEP - 1


class Record(msgspec.Struct, frozen=True, gc=False):
    """What a store holds under one key."""

    value: bytes
    deadline: int
    stamp: int


class Replica(Shards):
    """Records that have a place among those of other nodes; the base of `hypercache.store.Store`, which documents it.

    Args:
        origin: the node's id, the lower half of each stamp made here.
        rng: for samples.
        buried: where deletions are remembered.
    """

    __slots__ = ("_origin", "_stamp", "_tombstones", "dirty", "expired")

    def __init__(self, origin: int, rng: random.Random, buried: Tombstones) -> None:
        super().__init__(rng)
        self.dirty: dict[bytes, int] | None = None
        self.expired = 0
        self._origin = origin
        self._stamp = origin
        self._tombstones = buried

    def observe(self, stamp: int) -> None:
        """Make every later stamp exceed ``stamp``."""
        if stamp > self._stamp:
            self._stamp = stamp & ~_ORIGIN_MASK | self._origin

    def next_stamp(self) -> int:
        """Return a new stamp of this node, later than all it has seen."""
        self._stamp += STAMP_STEP
        return self._stamp

    def peek(self, key: bytes) -> bytes | None:
        """Return the value of a live key without counting it as used, else None."""
        index = hash(key) & SHARD_MASK
        value = self._shards[index].get(key)
        if value is None:
            return self.peek(key) if self._unsifted and self._sifted(index) else None
        if self.volatile and self._expires_now(index, key):
            return None
        return value

    def record(self, key: bytes) -> Record | None:
        """Return the live record of a key, None where there is none."""
        value = self.peek(key)
        if value is None:
            return None
        index = hash(key) & SHARD_MASK
        return Record(value, self._deadlines[index].get(key, 0), self._stamps[index][key])

    def tombstone(self, key: bytes) -> int:
        """Return the stamp under which the key was deleted, 0 where it was not (or that is forgotten, or under the floor)."""
        stamp = self._tombstones.get(key) if self._tombstones.count else 0
        return stamp if stamp > self.floor else 0

    def copy_scan(self, cursor: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and the keys of one shard, of records or of tombstones, for a full copy."""
        if cursor < SHARDS:
            if self._unsifted:
                self._sifted(cursor)
            keys = list(self._shards[cursor])
        else:
            keys = self._tombstones.keys_of(cursor - SHARDS, self.floor)
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
        index = hash(key) & SHARD_MASK
        if not self._is_later(index, key, stamp):
            return False
        self.observe(stamp)
        if deadline and deadline <= self.now_ms:
            self._bury(index, key, stamp)
        else:
            self._write(index, key, value, deadline, stamp)
            if self._tombstones.count:
                self._tombstones.discard(key)
        if relay and self.dirty is not None:
            self.dirty[key] = 0
        return True

    def apply_delete(self, key: bytes, stamp: int, *, relay: bool = False) -> bool:
        """Take a deletion from another node unless what is held here is as late or later; True where it was taken."""
        index = hash(key) & SHARD_MASK
        if not self._is_later(index, key, stamp):
            return False
        self.observe(stamp)
        self._bury(index, key, stamp)
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
        index = hash(key) & SHARD_MASK
        if not self._is_later(index, key, stamp):
            return False
        held = self._stamps[index].get(key, 0)
        if not held or (follows and held != follows):
            return None
        self.observe(stamp)
        if deadline and deadline <= self.now_ms:
            self._bury(index, key, stamp)
        else:
            if self._shared:
                self._unshare(index)
            self._put_deadline(index, key, deadline)
            self._stamps[index][key] = stamp
        if relay and self.dirty is not None:
            self.dirty.setdefault(key, held)
        return True

    def apply_flush(self, stamp: int) -> None:
        """Drop every record at or under ``stamp`` and refuse such from now on.

        It takes no time: what is later comes back when it is asked for or by `tend`. Until then `len` does not count it.
        """
        if stamp <= self.floor:
            return
        self.observe(stamp)
        self.floor = stamp
        self._bury_under_floor()

    # Inside

    def _is_later(self, index: int, key: bytes, stamp: int) -> bool:
        """Say whether a change under ``stamp`` comes after all that is known of the key."""
        held = self._stamps[index].get(key)
        if held is None and self._unsifted and self._sifted(index):
            held = self._stamps[index].get(key)
        if stamp <= self.floor:
            return False
        if held is not None:
            return stamp > held
        return not self._tombstones.count or stamp > self._tombstones.get(key)

    def _bury(self, index: int, key: bytes, stamp: int) -> None:
        if key in self._shards[index]:
            self._remove(index, key)
        self._tombstones.bury(key, stamp)

    def _expires_now(self, index: int, key: bytes) -> bool:
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
