"""The keys that one peer must still hear of, each once, oldest first, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Change(msgspec.Struct, frozen=True, gc=False):
    """What is known of a change when it is noted; many keys share one.

    Attributes:
        follows: the stamp that a mere change of deadline followed; 0 where the whole record must be told.
        stamp: of a change of deadline its own; else one at or after it, under which the key is deleted at the peer where the
            record is gone by the time it would be sent (evicted, say); 0 where nothing is to be said then.
        floor: the store's floor at that time.
    """

    follows: int
    stamp: int
    floor: int


COPIED = Change(0, 0, 0)
"""A key of a full copy: where it is gone, there is nothing to say."""


def merged(first: Change, second: Change) -> Change:
    """Return one change for two of the same key.

    Two changes of deadline are one only where the second follows the first: a value that came in between is not the peer's.
    """
    if not second.follows:
        return second
    follows = first.follows if second.follows == first.stamp else 0
    return Change(follows, second.stamp, second.floor)


class Outbox:
    """Keys by store. It names keys, not values: what is sent is what a key is when its turn comes.

    A generation of keys is taken while the next one gathers, so that taking is an iteration: a dictionary whose head is popped
    again and again takes quadratic time.

    Args:
        limit: how many keys to hold; one more empties the outbox, and the peer needs a full copy.

    Attributes:
        overflows: how often that happened.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.overflows = 0
        self._gathering: dict[str, dict[bytes, Change]] = {}
        self._store = ""
        self._taking: Iterator[tuple[bytes, Change]] = iter(())
        self._taking_count = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, store: str, whole: Mapping[bytes, Change], deadlines: Mapping[bytes, Change] | None = None) -> bool:
        """Add changed keys.

        Args:
            store: the store's name.
            whole: keys whose record, or its deletion, must be told.
            deadlines: keys of which only the deadline changed.

        Returns:
            False where they did not fit: the outbox is empty now, and the peer needs a full copy.
        """
        keys = self._gathering.setdefault(store, {})
        before = len(keys)
        keys.update(whole)
        if deadlines:
            for key, change in deadlines.items():
                held = keys.get(key)
                keys[key] = change if held is None else merged(held, change)
        self._count += len(keys) - before
        if self._count > self.limit:
            self.clear()
            self.overflows += 1
            return False
        return True

    def pop(self) -> tuple[str, bytes, Change] | None:
        """Take the next key: (store, key, change); None where there is none."""
        while True:
            for key, change in self._taking:
                self._count -= 1
                self._taking_count -= 1
                # What is sent is the record as it is now: a later change of the same key goes with it.
                gathering = self._gathering.get(self._store)
                later = gathering.pop(key, None) if gathering else None
                if later is None:
                    return self._store, key, change
                self._count -= 1
                return self._store, key, merged(change, later)
            if not self._gathering:
                return None
            self._store = next(iter(self._gathering))
            generation = self._gathering.pop(self._store)
            self._taking = iter(generation.items())
            self._taking_count = len(generation)

    def forget_store(self, store: str) -> None:
        """Drop what is held of a store: it was flushed."""
        self._count -= len(self._gathering.pop(store, {}))
        if store == self._store:
            self._count -= self._taking_count
            self._taking_count = 0
            self._taking = iter(())

    def clear(self) -> None:
        """Drop everything."""
        self._gathering.clear()
        self._taking = iter(())
        self._taking_count = self._count = 0
