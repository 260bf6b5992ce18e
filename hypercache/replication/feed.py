"""What one peer is sent: first what changed, then, while one runs, the next piece of a full copy; within a window.

A message's answer, known by its number, opens the window again. Whatever is sent is the record as it is at that moment, under its
stamp, so that doubled and reordered messages do no harm, and a full copy may run beside new writes.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from hypercache.limits import (
    REPLICATION_OUTBOX_MAX_COUNT,
    REPLICATION_PUT_OFF_MAX_COUNT,
    REPLICATION_RETRY_FIRST_MS,
    REPLICATION_RETRY_MAX_MS,
    REPLICATION_SLICE_COUNT,
    REPLICATION_WINDOW_BYTES,
    REPLICATION_WINDOW_COUNT,
)
from hypercache.replication.outbox import COPIED, Change, Outbox
from hypercache.replication.stamps import milliseconds_of
from hypercache.replication.traces import TracedKeys
from hypercache.wire import ErrorCode, Extension, Message, More, Operation, Status
from hypercache.wire.extension import encode_extension, stamped_head
from hypercache.wire.messages import GenericError, ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hypercache.wire.extension import Trace

_NS_PER_MS: Final = 1_000_000
_TTL_MAX_NS: Final = (1 << 64) - 1
_FIXED_BYTES: Final = 18 + 21 + 64
_COPY_TURN: Final = 8
_RETRYABLE: Final = frozenset((ErrorCode.RATE_LIMITED, ErrorCode.NOT_LEADER, ErrorCode.STALE_RING, ErrorCode.SHUTTING_DOWN))
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
    """A request that is not answered yet."""

    store: str
    key: bytes
    operation: int
    size: int
    change: Change


class Feed:
    """The stream of changes to one peer.

    Args:
        extended: the peer speaks version 0x02: it gets stamps, floors and tombstones. A base peer gets plain messages.
        max_frame: the longest payload that the peer takes, in bytes.
        window_count: how many messages may be unanswered.
        window_bytes: how many bytes of them.
        outbox_max: how many keys may wait.

    Attributes:
        outbox: the keys that wait.
        copies: full copies begun.
        refused: messages that the peer answered with an error.
        oversized: records that no frame that the peer takes can hold; it is told to delete the key instead.
        left_behind: flushes of which a base peer, which gets a deletion a key, could not be told every key.
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
        self.left_behind = 0
        self._max_frame = max_frame
        self._window_count = window_count
        self._window_bytes = window_bytes
        self._window: dict[int, _Sent] = {}
        self._unanswered_bytes = 0
        # The number of the next request.
        self._next = 1
        # The stream that it travels on; 0 for the link's own.
        self._stream = 0
        self._copy: deque[tuple[str, int]] = deque()
        self._copy_keys: deque[bytes] = deque()
        self._copy_store = ""
        self._copy_wanted = False
        self._floors: dict[str, None] = {}
        self._traced = TracedKeys()
        # Deletions for a base peer after a flush: apart from the outbox, since no full copy makes good for them.
        self._emptied = Outbox(outbox_max)
        self._put_off: dict[tuple[str, bytes], Change] = {}
        self._floors_put_off: dict[str, None] = {}
        self._retry_at_ms = 0
        self._retry_delay_ms = REPLICATION_RETRY_FIRST_MS

    @property
    def is_level(self) -> bool:
        """Whether everything was sent and answered."""
        return not (self._window or self._has_changes or self.is_copying or self.retry_at_ms)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send, now or later, but what is sent already."""
        return not (self._has_changes or self._put_off or self._floors_put_off or self.is_copying)

    @property
    def can_produce(self) -> bool:
        """Whether `produce` would get on now: something waits, and the window is open."""
        return self.can_tell_changes or self.can_copy

    @property
    def can_tell_changes(self) -> bool:
        """Whether changes wait, and the window is open."""
        return self._is_open and self._has_changes

    @property
    def can_copy(self) -> bool:
        """Whether a full copy would get on now."""
        # While many records are put off (the peer is full, say), it waits: it would only be refused too.
        return self._is_open and self.is_copying and len(self._put_off) < REPLICATION_PUT_OFF_MAX_COUNT

    @property
    def is_copying(self) -> bool:
        """Whether a full copy is under way, or wanted."""
        return bool(self._copy_wanted or self._copy_keys or self._copy)

    @property
    def unanswered(self) -> int:
        """How many messages are not answered yet."""
        return len(self._window)

    @property
    def retry_at_ms(self) -> int:
        """When what the peer put off is sent again, Unix milliseconds; 0 for never."""
        return self._retry_at_ms if self._put_off or self._floors_put_off else 0

    def limit_frame(self, max_frame: int) -> None:
        """Send no longer payload than the peer says that it takes, in bytes."""
        self._max_frame = min(self._max_frame, max_frame)

    def start_copy(self) -> None:
        """Have the peer sent everything there is."""
        self._copy_wanted = True

    def changed(self, store: str, whole: Mapping[bytes, Change], deadlines: Mapping[bytes, Change] | None = None) -> None:
        """Have the peer hear of changed keys; too many of them make it a full copy."""
        if not self.outbox.add(store, whole, deadlines):
            self._copy_wanted = True

    def traced(self, store: str, key: bytes, trace: Trace) -> None:
        """Have the next message of a changed key carry a trace."""
        self._traced.add(store, key, trace)

    def flushed(self, store: str, keys: Iterator[bytes], change: Change) -> None:
        """Have the peer hear that a store was emptied of ``keys``: by its floor, or, a base peer, by one deletion a key.

        Of these there are at most as many as an outbox holds; a base peer keeps the rest until it is overwritten or expires.
        """
        self.outbox.forget_store(store)
        self._traced.forget_store(store)
        if self.extended:
            self._floors[store] = None
            return
        room = self._emptied.limit - len(self._emptied)
        self._emptied.add(store, dict.fromkeys(islice(keys, room), change))
        if next(keys, None) is not None:
            self.left_behind += 1

    def produce(self, stores: Mapping[str, SourceStore], now_ms: int, first: int, *, copy: bool = True) -> list[bytes]:
        """Return the next requests; a bounded piece of work, so ask again while `can_produce`.

        Args:
            stores: what is sent.
            now_ms: Unix milliseconds.
            first: the number of the first request; `REPLICATION_SLICE_COUNT` numbers from there are free.
            copy: whether a full copy is among them; else it goes by `next_copied`.

        Returns:
            Payloads with their extensions; for a base peer, whole frames.
        """
        self._next = first
        if self.retry_at_ms and self._retry_at_ms <= now_ms:
            self._release()
        if copy:
            self._begin_copy(stores)
        frames: list[bytes] = []
        for turn in range(REPLICATION_SLICE_COUNT):
            if not self._is_open:
                break
            # Changes go first, yet a full copy gets on however many there are.
            if copy and turn % _COPY_TURN == _COPY_TURN - 1 and self._add_copied(stores, now_ms, frames):
                continue
            if self._floors:
                self._add_floor(stores[self._floors.popitem()[0]], frames)
                continue
            taken = self.outbox.pop() or self._emptied.pop()
            if taken is not None:
                name, key, change = taken
                self._add(stores[name], key, change, now_ms, frames)
            elif not (copy and self._add_copied(stores, now_ms, frames)):
                break
        return frames

    def next_copied(self, stores: Mapping[str, SourceStore], now_ms: int, number: int, stream: int) -> bytes | None:
        """Return the next request of a full copy that travels on a stream of its own.

        Args:
            stores: what is copied.
            now_ms: Unix milliseconds.
            number: the request's.
            stream: the stream's id.

        Returns:
            A payload with its extension; None where the copy is done, or must wait.
        """
        self._next, self._stream = number, stream
        self._begin_copy(stores)
        frames: list[bytes] = []
        while not frames and self._is_open and self._add_copied(stores, now_ms, frames):
            # A key that is gone by now makes no request.
            pass
        self._stream = 0
        return frames[0] if frames else None

    def acknowledged(self, number: int) -> None:
        """Take the peer's success at the request of that number."""
        self._unanswered_bytes -= self._window.pop(number).size
        if not (self._window or self._put_off):
            self._retry_delay_ms = REPLICATION_RETRY_FIRST_MS

    def answered(self, number: int, answer: Message | None, now_ms: int) -> None:
        """Take the answer to the request of that number; None where none came, so that nobody knows what the peer did."""
        if isinstance(answer, ReplicateResponse) and answer.status == Status.SUCCESS:
            self.acknowledged(number)
            return
        sent = self._window.pop(number)
        self._unanswered_bytes -= sent.size
        if sent.operation == Operation.EXPIRE:
            # Most likely the peer does not hold the record that the change follows: it gets the whole.
            self.changed(sent.store, {sent.key: Change(0, sent.change.stamp, sent.change.floor)})
        elif answer is None or _is_retryable(answer):
            self._put_off_sent(sent, now_ms)
        else:
            self.refused += 1

    # What waits

    @property
    def _is_open(self) -> bool:
        return len(self._window) < self._window_count and self._unanswered_bytes < self._window_bytes

    @property
    def _has_changes(self) -> bool:
        return bool(self.outbox or self._floors or self._emptied)

    def _put_off_sent(self, sent: _Sent, now_ms: int) -> None:
        if not self.retry_at_ms:
            self._retry_at_ms = now_ms + self._retry_delay_ms
            self._retry_delay_ms = min(2 * self._retry_delay_ms, REPLICATION_RETRY_MAX_MS)
        if sent.operation == Operation.APPLY:
            self._floors_put_off[sent.store] = None
            return
        self._put_off[sent.store, sent.key] = sent.change
        if len(self._put_off) > self.outbox.limit:
            self._put_off.clear()
            self._copy_wanted = True

    def _release(self) -> None:
        """Send again what the peer put off."""
        put_off, self._put_off = self._put_off, {}
        self._floors.update(self._floors_put_off)
        self._floors_put_off.clear()
        for (name, key), change in put_off.items():
            self.changed(name, {key: change})

    # Messages

    def _begin_copy(self, stores: Mapping[str, SourceStore]) -> None:
        """Begin the full copy that is wanted, unless it would only be refused."""
        if not self._copy_wanted or len(self._put_off) >= REPLICATION_PUT_OFF_MAX_COUNT:
            return
        self._copy_wanted = False
        self.copies += 1
        self._copy_keys.clear()
        self._copy = deque((name, 0) for name in stores)
        if self.extended:
            self._floors.update(dict.fromkeys(name for name, store in stores.items() if store.floor))

    def _add_copied(self, stores: Mapping[str, SourceStore], now_ms: int, frames: list[bytes]) -> bool:
        """Add the next key of a running copy, or look for one; False where the copy is done or must wait."""
        if len(self._put_off) >= REPLICATION_PUT_OFF_MAX_COUNT:
            return False
        if self._copy_keys:
            self._add(stores[self._copy_store], self._copy_keys.popleft(), COPIED, now_ms, frames)
            return True
        if not self._copy:
            return False
        name, cursor = self._copy.popleft()
        cursor, keys = stores[name].copy_scan(cursor)
        self._copy_keys.extend(keys)
        self._copy_store = name
        if cursor:
            self._copy.appendleft((name, cursor))
        return True

    def _add_floor(self, store: SourceStore, frames: list[bytes]) -> None:
        message = ReplicateData(Operation.APPLY, 0, store.name, b"", FLUSH_COMMAND)
        self._send(message, stamped_head(self._next, store.floor) + message.encode_payload(), COPIED, frames)

    def _add(self, store: SourceStore, key: bytes, change: Change, now_ms: int, frames: list[bytes]) -> None:
        trace = self._traced.held.pop((store.name, key), None) if self._traced.held else None
        record = store.record(key)
        if record is None:
            self._add_deletion(store, key, change, frames, trace)
            return
        stamp = record.stamp
        if len(key) + len(record.value) + len(store.name) * 4 + _FIXED_BYTES > self._max_frame:
            # Better that the peer has nothing than an old value.
            self.oversized += 1
            self._add_deletion(store, key, Change(0, stamp, store.floor), frames, trace)
            return
        ttl = 0
        if record.deadline:
            since = milliseconds_of(stamp) if self.extended else now_ms
            ttl = min(max(1, record.deadline - since) * _NS_PER_MS, _TTL_MAX_NS)
        # A change of deadline stands for the record only where nothing else has changed it since.
        follows = change.follows if change.stamp == stamp else 0
        if not follows:
            message = ReplicateData(Operation.SET, ttl, store.name, key, record.value)
        else:
            message = ReplicateData(Operation.EXPIRE, ttl, store.name, key, b"")
        if not self.extended:
            frame = message.encode_frame()
        elif follows or trace is not None:
            frame = self._encoded(message, stamp, follows, trace)
        else:
            frame = stamped_head(self._next, stamp, self._stream) + message.encode_payload()
        self._send(message, frame, change, frames)

    def _add_deletion(
        self, store: SourceStore, key: bytes, change: Change, frames: list[bytes], trace: Trace | None = None
    ) -> None:
        """Add the deletion of a key that is gone: under its tombstone, or, where it has none, under the stamp of the change.

        A record may be dropped without a tombstone (it was evicted) before the peer heard of it: the peer must not keep what it
        had before. A flush since then has told the peer already.
        """
        stamp = store.tombstone(key)
        if not stamp and not change.follows and (change.floor == store.floor or not self.extended):
            stamp = change.stamp
        if not stamp:
            return
        message = ReplicateData(Operation.DELETE, 0, store.name, key, b"")
        if not self.extended:
            frame = message.encode_frame()
        elif trace is not None:
            frame = self._encoded(message, stamp, 0, trace)
        else:
            frame = stamped_head(self._next, stamp, self._stream) + message.encode_payload()
        self._send(message, frame, change, frames)

    def _encoded(self, message: ReplicateData, stamp: int, follows: int, trace: Trace | None) -> bytes:
        """Return the payload of a message that may carry more than its stamp."""
        body = message.encode_payload()
        more = More(follows=follows) if follows else None
        payload = encode_extension(Extension(self._next, stream=self._stream, stamp=stamp, trace=trace, more=more), body)
        if trace is None or len(payload) <= self._max_frame:
            return payload
        # The record is worth more than its trace.
        return encode_extension(Extension(self._next, stream=self._stream, stamp=stamp, more=more), body)

    def _send(self, message: ReplicateData, frame: bytes, change: Change, frames: list[bytes]) -> None:
        size = len(frame)
        self._window[self._next] = _Sent(message.store, message.key, message.operation, size, change)
        self._next += 1
        self._unanswered_bytes += size
        frames.append(frame)


def _is_retryable(answer: Message) -> bool:
    if isinstance(answer, ReplicateResponse):
        return answer.status == Status.RETRY_LATER
    return isinstance(answer, GenericError) and answer.error_code in _RETRYABLE
