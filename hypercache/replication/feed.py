"""What one peer is sent: first what changed, then, while one runs, the next piece of a full copy; within a window.

A message's answer opens the window again. Whatever is sent is the record as it is at that moment, under its stamp, so that doubled
and reordered messages do no harm, and a full copy may run beside new writes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from hypercache.limits import HEADER_BYTES, REPLICATION_OUTBOX_MAX_COUNT, REPLICATION_WINDOW_BYTES, REPLICATION_WINDOW_COUNT
from hypercache.replication.outbox import Outbox
from hypercache.replication.stamps import milliseconds_of
from hypercache.wire import Extension, Message, More, Operation, Status, encode_extended
from hypercache.wire.extension import stamped_frame
from hypercache.wire.messages import ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NS_PER_MS: Final = 1_000_000
_RETRY_MS: Final = 200
_FIXED_BYTES: Final = 18 + 17 + 64
FLUSH_COMMAND: Final = b"*1\r\n$7\r\nFLUSHDB\r\n"


class RecordLike(Protocol):
    """A record of a store."""

    @property
    def value(self) -> bytes:
        """The value."""
        ...

    @property
    def deadline(self) -> int:
        """Unix milliseconds; 0 for none."""
        ...

    @property
    def stamp(self) -> int:
        """The record's stamp."""
        ...


class SourceStore(Protocol):
    """What a feed needs of a store."""

    name: str
    floor: int

    def record(self, key: bytes) -> RecordLike | None:
        """Return the live record of a key."""
        ...

    def tombstone(self, key: bytes) -> int:
        """Return the stamp under which a key was deleted, 0 where it was not."""
        ...

    def copy_scan(self, cursor: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and some keys, deleted ones too."""
        ...


class _Sent(msgspec.Struct, frozen=True, gc=False):
    """A message that is not answered yet."""

    store: str
    key: bytes
    operation: int
    size: int


class Feed:
    """The stream of changes to one peer.

    Args:
        extended: the peer speaks version 0x02: it gets stamps, floors and tombstones. A base peer gets plain messages.
        max_frame: the longest payload that the peer takes, in bytes.
        window_count: how many messages may be unanswered.
        window_bytes: how many bytes of them.
        outbox_max: how many keys may wait.

    Attributes:
        copies: full copies begun.
        refused: messages that the peer answered with an error.
        oversized: records left out because no frame that the peer takes can hold them.
    """

    def __init__(
        self,
        *,
        extended: bool,
        max_frame: int,
        window_count: int = REPLICATION_WINDOW_COUNT,
        window_bytes: int = REPLICATION_WINDOW_BYTES,
        outbox_max: int = REPLICATION_OUTBOX_MAX_COUNT,
    ) -> None:
        self.extended = extended
        self.outbox = Outbox(outbox_max)
        self.copies = 0
        self.refused = 0
        self.oversized = 0
        self._max_frame = max_frame
        self._window_count = window_count
        self._window_bytes = window_bytes
        self._window: deque[_Sent] = deque()
        self._unanswered_bytes = 0
        self._copy: deque[tuple[str, int]] = deque()
        self._copy_keys: deque[bytes] = deque()
        self._copy_store = ""
        self._flushes: deque[str] = deque()
        self._later: deque[tuple[int, str, bytes]] = deque()
        self._copy_wanted = False

    @property
    def is_level(self) -> bool:
        """Whether everything was sent and answered."""
        return not (self._window or self.has_work or self._later)

    @property
    def has_work(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self.outbox or self._copy_keys or self._copy or self._flushes or self._copy_wanted)

    @property
    def unanswered(self) -> int:
        """How many messages are not answered yet."""
        return len(self._window)

    @property
    def retry_at_ms(self) -> int:
        """When the next message that the peer put off is due, Unix milliseconds; 0 for none."""
        return self._later[0][0] if self._later else 0

    def start_copy(self) -> None:
        """Have the peer sent everything there is."""
        self._copy_wanted = True

    def changed(self, store: str, dirty: Mapping[bytes, int]) -> None:
        """Have the peer hear of changed keys; too many of them make it a full copy."""
        if not self.outbox.add(store, dirty):
            self._copy_wanted = True

    def flushed(self, store: str, keys: Iterable[bytes]) -> None:
        """Have the peer hear that a store was emptied of ``keys``: by its floor, or, a base peer, by one deletion a key."""
        self.outbox.forget_store(store)
        if self.extended:
            self._flushes.append(store)
        else:
            self.outbox.add_unbounded(store, keys)

    def produce(self, stores: Mapping[str, SourceStore], now_ms: int) -> tuple[bytes, int]:
        """Return the frames that the window has room for, joined, and how many they are."""
        while self._later and self._later[0][0] <= now_ms:
            _, name, key = self._later.popleft()
            self.changed(name, {key: 0})
        if self._copy_wanted:
            self._begin_copy(stores)
        frames: list[bytes] = []
        while len(self._window) < self._window_count and self._unanswered_bytes < self._window_bytes:
            if self._flushes:
                self._add_floor(stores[self._flushes.popleft()], frames)
                continue
            taken = self.outbox.pop()
            if taken is not None:
                name, key, follows = taken
                self._add(stores[name], key, follows, now_ms, frames, is_change=True)
            elif not self._add_copied(stores, now_ms, frames):
                break
        return b"".join(frames), len(frames)

    def answered(self, answer: Message | None, now_ms: int) -> None:
        """Take the answer to the oldest unanswered message; None where the link was lost."""
        sent = self._window.popleft()
        self._unanswered_bytes -= sent.size
        if answer is None:
            return
        if not isinstance(answer, ReplicateResponse):
            self.refused += 1
        elif answer.status == Status.RETRY_LATER:
            if sent.operation == Operation.EXPIRE:
                # The peer does not hold the record that the change follows: it gets the whole.
                self.changed(sent.store, {sent.key: 0})
            elif sent.operation != Operation.APPLY:
                self._later.append((now_ms + _RETRY_MS, sent.store, sent.key))
        elif answer.status != Status.SUCCESS:
            self.refused += 1

    def _begin_copy(self, stores: Mapping[str, SourceStore]) -> None:
        self._copy_wanted = False
        self.copies += 1
        self._copy_keys.clear()
        self._copy = deque((name, 0) for name in stores)
        if self.extended:
            self._flushes.extend(name for name, store in stores.items() if store.floor and name not in self._flushes)

    def _add_copied(self, stores: Mapping[str, SourceStore], now_ms: int, frames: list[bytes]) -> bool:
        """Add the next key of a running copy; False where there is none."""
        while not self._copy_keys:
            if not self._copy:
                return False
            name, cursor = self._copy.popleft()
            cursor, keys = stores[name].copy_scan(cursor)
            self._copy_keys.extend(keys)
            self._copy_store = name
            if cursor:
                self._copy.appendleft((name, cursor))
        self._add(stores[self._copy_store], self._copy_keys.popleft(), 0, now_ms, frames, is_change=False)
        return True

    def _add_floor(self, store: SourceStore, frames: list[bytes]) -> None:
        message = ReplicateData(Operation.APPLY, 0, store.name, b"", FLUSH_COMMAND)
        self._send(message, stamped_frame(message.TYPE, store.floor, message.encode_payload()), frames)

    def _add(self, store: SourceStore, key: bytes, follows: int, now_ms: int, frames: list[bytes], *, is_change: bool) -> None:
        record = store.record(key)
        if record is None:
            self._add_deletion(store, key, frames, is_change=is_change)
            return
        if len(key) + len(record.value) + len(store.name) * 4 + _FIXED_BYTES > self._max_frame:
            self.oversized += 1
            return
        ttl = 0
        if record.deadline:
            since = milliseconds_of(record.stamp) if self.extended else now_ms
            ttl = max(1, record.deadline - since) * _NS_PER_MS
        if not follows:
            message = ReplicateData(Operation.SET, ttl, store.name, key, record.value)
        else:
            message = ReplicateData(Operation.EXPIRE, ttl, store.name, key, b"")
        if not self.extended:
            frame = message.encode_frame()
        elif follows:
            frame = encode_extended(message, Extension(stamp=record.stamp, more=More(follows=follows)))
        else:
            frame = stamped_frame(message.TYPE, record.stamp, message.encode_payload())
        self._send(message, frame, frames)

    def _add_deletion(self, store: SourceStore, key: bytes, frames: list[bytes], *, is_change: bool) -> None:
        """Add the deletion of a key that is gone: under its tombstone; a base peer hears of it only when it just happened."""
        message = ReplicateData(Operation.DELETE, 0, store.name, key, b"")
        stamp = store.tombstone(key)
        if self.extended and stamp:
            self._send(message, stamped_frame(message.TYPE, stamp, message.encode_payload()), frames)
        elif not self.extended and (stamp or is_change):
            self._send(message, message.encode_frame(), frames)

    def _send(self, message: ReplicateData, frame: bytes, frames: list[bytes]) -> None:
        size = len(frame) - HEADER_BYTES
        self._window.append(_Sent(message.store, message.key, message.operation, size))
        self._unanswered_bytes += size
        frames.append(frame)
