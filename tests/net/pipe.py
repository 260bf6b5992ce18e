"""Two sides of a link and a pipe of memory between them, for the streams alone."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from hypercache.limits import STREAM_TURN_BYTES
from hypercache.net.metrics import MessageMetrics
from hypercache.net.streams import Stream, Streams
from hypercache.wire import Extension
from hypercache.wire.extension import decode_extended, encode_extension
from hypercache.wire.messages import SCHEMA, InstallSnapshot, StreamReset, WindowUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 8
TYPE = InstallSnapshot.TYPE


def payload(stream_id: int, body: bytes) -> bytes:
    return encode_extension(Extension(stream=stream_id), body)


class Side:
    """One side of a link: its streams, what it sends, and what has come, by who opened the stream and its id."""

    def __init__(self, *, dialled: bool, most: int = MOST) -> None:
        self.metrics = MessageMetrics(SCHEMA)
        self.urgent: deque[Any] = deque()
        self.wire: deque[Any] = deque()
        self.stirred = 0
        self.streams = Streams(dialled=dialled, most=most, metrics=self.metrics, send_urgent=self.urgent.append, stir=self._stir)
        self.parity = 1 if dialled else 0
        self.other: Side
        self.got: defaultdict[int, list[bytes]] = defaultdict(list)
        self.held: list[tuple[Stream, int]] = []
        self.met: dict[int, Stream] = {}
        self.updates = 0
        # Of which streams messages are held, not handled at once.
        self.holds: Callable[[int], bool] = lambda stream_id: False

    def _stir(self) -> None:
        self.stirred += 1

    def open(self) -> Stream:
        stream = self.streams.open()
        self.met[stream.stream_id] = stream
        return stream

    def put(self, stream: Stream, body: bytes) -> None:
        stream.put(TYPE, payload(stream.stream_id, body))

    def pump(self, most_bytes: int = STREAM_TURN_BYTES) -> list[tuple[int, bytes]]:
        """Write what may be written; urgent frames first."""
        self.wire += self.urgent
        self.urgent.clear()
        frames = self.streams.take(most_bytes)
        self.wire += frames
        return frames

    def deliver(self) -> None:
        """Have the other side handle one frame."""
        frame = self.wire.popleft()
        if isinstance(frame, tuple):
            message_type, data = frame
            extension, body = decode_extended(data, 1 << 30)
            if message_type == StreamReset.TYPE:
                frame = StreamReset.decode_payload(body)
            else:
                self.other.take(extension.stream, len(data), body)
                return
        else:
            # It must fit its layout.
            frame = type(frame).decode_payload(frame.encode_payload())
        if isinstance(frame, WindowUpdate):
            self.other.updates += 1
            self.other.streams.credited(frame)
        else:
            self.other.streams.was_reset(frame)

    def take(self, stream_id: int, size: int, body: bytes) -> None:
        stream = self.streams.arrived(stream_id, size)
        if stream is None:
            return
        self.met[stream_id] = stream
        self.got[stream_id].append(body)
        message: Any = body
        if stream.received(message, size):
            return
        if self.holds(stream_id):
            self.held.append((stream, size))
        else:
            stream.consumed(size)

    def handle_held(self) -> None:
        while self.held:
            stream, size = self.held.pop()
            stream.consumed(size)


def pair(most: int = MOST) -> tuple[Side, Side]:
    dialler, listener = Side(dialled=True, most=most), Side(dialled=False, most=most)
    dialler.other, listener.other = listener, dialler
    return dialler, listener


def settle(*sides: Side) -> None:
    """Let everything go back and forth until nothing moves any more."""
    moved = True
    while moved:
        moved = False
        for side in sides:
            side.pump()
            while side.wire:
                side.deliver()
                moved = True


def resets(side: Side) -> list[tuple[int, int]]:
    """Return stream and code of the StreamResets that wait in the urgent lane."""
    return [(each.stream, each.code) for each in side.urgent if isinstance(each, StreamReset)]


class Producer:
    """An `IPushProducer` that notes what it is told, and fills its stream when it may."""

    def __init__(self, fill: Callable[[], None] = lambda: None) -> None:
        self.calls: list[str] = []
        self._fill = fill

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self._fill()

    def stopProducing(self) -> None:
        self.calls.append("stop")
