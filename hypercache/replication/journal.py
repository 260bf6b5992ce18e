"""What a store's journal says has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hypercache.replication.outbox import Change

if TYPE_CHECKING:
    from hypercache.replication.feed import RecordLike


class JournalingStore(Protocol):
    """What is needed of a store to read its journal; `hypercache.store.Store` is the one."""

    dirty: dict[bytes, int] | None
    floor: int

    def record(self, key: bytes) -> RecordLike | None:
        """Return the live record of a key."""
        ...

    def next_stamp(self) -> int:
        """Return a new stamp of this node."""
        ...


def take_changes(store: JournalingStore) -> tuple[dict[bytes, Change], dict[bytes, Change]]:
    """Empty a store's journal; return the keys of which the whole must be told, and those of which the deadline alone changed."""
    dirty = store.dirty or {}
    floor = store.floor
    # One for all: a key that is gone by the time it is sent is deleted at the peer under a stamp that is not before the change.
    whole = Change(0, store.next_stamp(), floor)
    deadlines: dict[bytes, Change] = {}
    if not any(dirty.values()):
        changed = dict.fromkeys(dirty, whole)
    else:
        changed = {}
        for key, follows in dirty.items():
            record = store.record(key) if follows else None
            if record is None:
                changed[key] = whole
            else:
                deadlines[key] = Change(follows, record.stamp, floor)
    dirty.clear()
    return changed, deadlines
