"""The keys that one peer must still hear of, each once, oldest first, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Outbox:
    """Keys by store. It names keys, not values: what is sent is what a key is when its turn comes.

    Args:
        limit: how many keys to hold; one more empties the outbox, and the peer needs a full copy.

    Attributes:
        overflows: how often that happened.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: dict[str, dict[bytes, int]] = {}
        self._count = 0
        self.overflows = 0

    def __len__(self) -> int:
        return self._count

    def add(self, store: str, dirty: Mapping[bytes, int]) -> bool:
        """Add a store's journal.

        Args:
            store: the store's name.
            dirty: key to 0 (the whole record) or to the stamp that a mere change of deadline followed.

        Returns:
            False where it did not fit: the outbox is empty now, and the peer needs a full copy.
        """
        keys = self._keys.setdefault(store, {})
        before = len(keys)
        for key, follows in dirty.items():
            # A whole record on its way covers a change of its deadline; of two such changes the first is what the peer stands at.
            if not follows:
                keys[key] = 0
            else:
                keys.setdefault(key, follows)
        self._count += len(keys) - before
        if self._count > self._limit:
            self.clear()
            self.overflows += 1
            return False
        return True

    def add_unbounded(self, store: str, keys: Iterable[bytes]) -> None:
        """Add deletions that no full copy could make good; there are at most as many as the store had keys."""
        held = self._keys.setdefault(store, {})
        before = len(held)
        held.update(dict.fromkeys(keys, 0))
        self._count += len(held) - before

    def pop(self) -> tuple[str, bytes, int] | None:
        """Take the oldest key of a store: (store, key, follows); None where there is none."""
        for store, keys in self._keys.items():
            if keys:
                key = next(iter(keys))
                self._count -= 1
                return store, key, keys.pop(key)
        return None

    def forget_store(self, store: str) -> None:
        """Drop what is held of a store: it was flushed."""
        self._count -= len(self._keys.pop(store, {}))

    def clear(self) -> None:
        """Drop everything."""
        self._keys.clear()
        self._count = 0
