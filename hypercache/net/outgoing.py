"""What a link writes: the frames of a read, or of a turn of the reactor, in one write; held back while the peer does not read.

There are three lanes. Urgent frames (Raft, heartbeats, the link's own) go before all others; then the frames of this turn, in their
order; then a share of each stream. What the transport has no room for stays here, so that an urgent frame still overtakes it:
before it goes only what the transport had taken, a batch and a share of the streams at most.

Where frames are not written as fast as they come, reading stops at `PEER_OUTPUT_PAUSE_BYTES`, and at `PEER_OUTPUT_MAX_BYTES` the
peer is cut. Streams are bounded by themselves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.limits import (
    BATCH_MAX_BYTES,
    BATCH_MAX_COUNT,
    LINK_LINGER_SECONDS,
    PEER_OUTPUT_MAX_BYTES,
    PEER_OUTPUT_PAUSE_BYTES,
    STREAM_TURN_BYTES,
)
from hypercache.wire.checksum import crc32
from hypercache.wire.header import EXTENDED_VERSION, HEADER, MAGIC_NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.streams import Streams

_log = Logger()
_pack = HEADER.pack


class BatchLimits(msgspec.Struct, frozen=True):
    """When frames that wait for others are written.

    Attributes:
        frames: at so many.
        bytes: at so many bytes of payload.
        delay: after so many seconds; 0: at the end of the reactor's turn. Urgent frames never wait longer than that.
    """

    frames: int = BATCH_MAX_COUNT
    bytes: int = BATCH_MAX_BYTES
    delay: float = 0.0


def encode_frames(frames: list[Any]) -> bytes:
    """Return the bytes of frames: of those that are bytes already, and of (type, payload) as version 0x02."""
    pieces: list[bytes] = []
    add = pieces.append
    for each in frames:
        if each.__class__ is bytes:
            add(each)
        else:
            message_type, payload = each
            add(_pack(MAGIC_NUMBER, EXTENDED_VERSION, message_type, len(payload), crc32(payload)))
            add(payload)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@implementer(IPushProducer)
class Outgoing:
    """The frames on their way to one peer: whole frames as bytes, or (type, payload) of version 0x02.

    Args:
        transport: the connection.
        clock: the reactor.
        address: the peer's, for the log.
        on_room: called when there is room again, when there is none, and when more has to wait for it.
        on_cut: called when a peer that does not read is cut.
        limits: when a batch is written.

    Attributes:
        frames: those of the read or turn that is under way, always the same list; whoever appends to it directly calls `settle`
            afterwards.
        batching: a read is under way, at whose end `settle` is called.
        writable: the transport takes more.
        waiting_bytes: how much waits until it does, streams left out.
        encode: makes bytes of frames.
        streams: whose frames go last; None while there are none.
    """

    __slots__ = (
        "_address",
        "_clock",
        "_closing",
        "_limits",
        "_linger",
        "_on_cut",
        "_on_room",
        "_open",
        "_scheduled",
        "_told_full",
        "_transport",
        "_turn_bytes",
        "_urgent",
        "_urgent_bytes",
        "_waiting",
        "_writing",
        "batching",
        "encode",
        "frames",
        "streams",
        "waiting_bytes",
        "writable",
    )

    def __init__(
        self,
        transport: Any,
        *,
        clock: Any,
        address: str,
        on_room: Callable[[], None],
        on_cut: Callable[[], None],
        limits: BatchLimits,
    ) -> None:
        self.frames: list[Any] = []
        self.batching = False
        self.writable = True
        self.waiting_bytes = 0
        self.encode: Callable[[list[Any]], bytes] = encode_frames
        self.streams: Streams | None = None
        # Those that are not written at once: older than `frames`.
        self._waiting: deque[Any] = deque()
        self._urgent: list[Any] = []
        self._urgent_bytes = 0
        # What was put into `frames` since they were written.
        self._turn_bytes = 0
        self._transport = transport
        self._clock = clock
        self._address = address
        self._on_room = on_room
        self._on_cut = on_cut
        self._limits = limits
        self._scheduled: Any = None
        self._open = True
        self._writing = False
        self._closing = False
        self._told_full = False
        self._linger: Any = None
        transport.registerProducer(self, True)

    @property
    def crowded(self) -> bool:
        """Whether so much waits that nothing should be read that makes more."""
        return self.waiting_bytes > PEER_OUTPUT_PAUSE_BYTES

    def put(self, frame: Any) -> None:
        """Add a frame, or several as bytes; on a connection that is closed they are dropped."""
        if not self._open:
            return
        frames = self.frames
        frames.append(frame)
        if self.batching:
            return
        self._turn_bytes += len(frame) if frame.__class__ is bytes else len(frame[1])
        if self._turn_bytes >= self._limits.bytes or len(frames) >= self._limits.frames:
            self.settle()
        elif self._scheduled is None:
            self._scheduled = self._clock.callLater(self._limits.delay, self._end_turn)

    def put_urgent(self, frame: Any) -> None:
        """Add a frame that goes before all others, at the end of this turn of the reactor."""
        if not self._open:
            return
        size = len(frame) if frame.__class__ is bytes else len(frame[1])
        self._urgent.append(frame)
        self._urgent_bytes += size
        self.waiting_bytes += size
        self.stir()

    def stir(self) -> None:
        """See that what there is, the streams' share included, is written when this turn of the reactor ends."""
        if self.batching or not self._open:
            return
        if self._scheduled is None:
            self._scheduled = self._clock.callLater(0, self._end_turn)
        elif self._limits.delay:
            self._scheduled.reset(0)

    def settle(self) -> None:
        """Write what there is, or keep it where the peer does not read; a peer that makes too much of that is cut."""
        if not self._open:
            self._clear()
        elif self.writable:
            self._flush()
        elif self.frames or self._urgent:
            self._hold()

    def write_now(self, data: bytes) -> None:
        """Write what a layer had held back."""
        if self._open:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection when everything is sent, but for a peer that does not read without waiting for ever."""
        if not self._open:
            return
        if self._writing:
            # Behind what is being written now.
            self._closing = True
            return
        self._flush(everything=True)
        if not self._open:
            return
        self._open = False
        self._linger = self._clock.callLater(LINK_LINGER_SECONDS, self._transport.abortConnection)
        # First, or it is never closed: a transport with a producer waits for that producer's last word.
        self._transport.unregisterProducer()
        self._transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once."""
        self._open = False
        self._clear()
        self._transport.abortConnection()

    def lost(self) -> None:
        """Forget everything: the connection is gone."""
        self._open = False
        self._clear()
        for each in (self._linger, self._scheduled):
            if each is not None and each.active():
                each.cancel()

    def _clear(self) -> None:
        self.frames.clear()
        self._urgent.clear()
        self._waiting.clear()
        self.waiting_bytes = self._urgent_bytes = self._turn_bytes = 0

    def _end_turn(self) -> None:
        self._scheduled = None
        self.settle()

    def _hold(self) -> None:
        """Keep what cannot be written, and see to the bounds."""
        self._put_off()
        self._told_full = True
        self._on_room()
        if self.waiting_bytes > PEER_OUTPUT_MAX_BYTES and self._open:
            _log.warn("cutting {address}: it does not read, {count} bytes wait", address=self._address, count=self.waiting_bytes)
            self._on_cut()
            self.abort()

    def _put_off(self) -> None:
        self.waiting_bytes += _size(self.frames)
        self._waiting += self.frames
        self.frames.clear()
        self._turn_bytes = 0

    def _flush(self, *, everything: bool = False) -> None:
        """Write in batches until there is nothing left or no room: the one place that writes.

        What is put in meanwhile, by whoever hears of room or makes bytes of frames, is written by the same loop.
        """
        if self._writing:
            return
        self._writing = True
        streams = self.streams
        try:
            while self._open and (self.writable or everything):
                batch = self._take() if self.frames or self._waiting else []
                if self._urgent:
                    # What is bytes on a link that has urgent frames is of the handshake, which comes before all else.
                    first = 0
                    while first < len(batch) and batch[first].__class__ is bytes:
                        first += 1
                    batch[first:first] = self._urgent
                    self._urgent.clear()
                    self.waiting_bytes -= self._urgent_bytes
                    self._urgent_bytes = 0
                if streams is not None and streams.ready:
                    batch += streams.take(STREAM_TURN_BYTES, refill=not everything)
                if not batch:
                    break
                self._write(batch)
                if streams is not None and streams.ready and not everything:
                    # The next share is for the next turn: others come in between.
                    self.stir()
                    break
        finally:
            self._writing = False
        if self._closing:
            self._closing = False
            self.close()
        elif self._open and (self._told_full or not self.writable):
            self._told_full = not self.writable
            self._on_room()

    def _take(self) -> list[Any]:
        """Return the frames of one write: all, unless they are many or large."""
        frames, waiting, limits = self.frames, self._waiting, self._limits
        count = len(frames)
        if not waiting and (count == 1 or (count <= limits.frames and _size(frames) <= limits.bytes)):
            batch = frames[:]
            frames.clear()
            self._turn_bytes = 0
            return batch
        if frames:
            self._put_off()
        batch = []
        size = 0
        while waiting and size < limits.bytes and len(batch) < limits.frames:
            frame = waiting.popleft()
            size += len(frame) if frame.__class__ is bytes else len(frame[1])
            batch.append(frame)
        self.waiting_bytes -= size
        return batch

    def _write(self, batch: list[Any]) -> None:
        try:
            data = self.encode(batch)
        except Exception:  # noqa: BLE001 - a layer has a fault; without these frames the link cannot go on
            _log.failure("cutting {address}: its frames cannot be encoded", address=self._address)
            self.abort()
            return
        if data and self._open:
            self._transport.write(data)

    # IPushProducer, towards the transport

    def pauseProducing(self) -> None:
        """Hold back: the transport's buffer is full."""
        self.writable = False
        if not self._writing and not self._told_full:
            self._told_full = True
            self._on_room()

    def resumeProducing(self) -> None:
        """Go on: the transport's buffer is empty."""
        self.writable = True
        if not self.batching:
            self._flush()

    def stopProducing(self) -> None:
        """Nothing more can be sent."""


def _size(frames: list[Any]) -> int:
    """Return how long frames are together, headers left out of those that have none yet."""
    return sum([len(frame) if frame.__class__ is bytes else len(frame[1]) for frame in frames])
