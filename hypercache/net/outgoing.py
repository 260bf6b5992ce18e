"""What a link writes: the frames of a read, or of a turn of the reactor, in one write; held back while the peer does not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.limits import LINK_LINGER_SECONDS, PEER_OUTPUT_MAX_BYTES, PEER_OUTPUT_PAUSE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

_log = Logger()


@implementer(IPushProducer)
class Outgoing:
    """The frames on their way to one peer.

    Args:
        transport: the connection.
        clock: the reactor.
        address: the peer's, for the log.
        on_room: called when what waited has gone out.

    Attributes:
        frames: those of the read or turn that is under way; whoever appends to it directly calls `settle` afterwards.
        batching: a read is under way, at whose end `settle` is called.
        writable: the transport takes more.
        waiting_bytes: how much waits until it does.
    """

    __slots__ = (
        "_address",
        "_backlog",
        "_clock",
        "_linger",
        "_on_room",
        "_open",
        "_scheduled",
        "_transport",
        "batching",
        "frames",
        "waiting_bytes",
        "writable",
    )

    def __init__(self, transport: Any, *, clock: Any, address: str, on_room: Callable[[], None]) -> None:
        self.frames: list[bytes] = []
        self.batching = False
        self.writable = True
        self.waiting_bytes = 0
        self._transport = transport
        self._clock = clock
        self._address = address
        self._on_room = on_room
        self._backlog: list[bytes] = []
        self._scheduled = False
        self._open = True
        self._linger: Any = None
        transport.registerProducer(self, True)

    @property
    def crowded(self) -> bool:
        """Whether so much waits that nothing should be read that makes more."""
        return self.waiting_bytes > PEER_OUTPUT_PAUSE_BYTES

    def put(self, frames: bytes) -> None:
        """Add whole frames."""
        self.frames.append(frames)
        if not self.batching and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._end_turn)

    def settle(self) -> None:
        """Write what there is, or keep it where the peer does not read; a peer that makes too much of that is cut."""
        if not self.frames:
            return
        if self.writable or not self._open:
            self._flush()
            return
        joined = b"".join(self.frames)
        self.frames.clear()
        self._backlog.append(joined)
        self.waiting_bytes += len(joined)
        if self.waiting_bytes > PEER_OUTPUT_MAX_BYTES:
            _log.warn("cutting {address}: it does not read, {count} bytes wait", address=self._address, count=self.waiting_bytes)
            self.abort()

    def close(self) -> None:
        """Close the connection when everything is sent, but for a peer that does not read without waiting for ever."""
        if self._open:
            self._flush()
            self._open = False
            self._linger = self._clock.callLater(LINK_LINGER_SECONDS, self._transport.abortConnection)
            # First, or it is never closed: a transport with a producer waits for that producer's last word.
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once."""
        self._open = False
        self._transport.abortConnection()

    def lost(self) -> None:
        """Forget everything: the connection is gone."""
        self._open = False
        self.frames.clear()
        self._backlog.clear()
        self.waiting_bytes = 0
        if self._linger is not None and self._linger.active():
            self._linger.cancel()

    def _end_turn(self) -> None:
        self._scheduled = False
        self.settle()

    def _flush(self) -> None:
        """Write everything: the one place that does."""
        if self._open and (self._backlog or self.frames):
            pieces = self._backlog + self.frames if self._backlog else self.frames
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._backlog.clear()
            self.waiting_bytes = 0
            self.frames.clear()
            self._transport.write(data)
        else:
            self.frames.clear()

    # IPushProducer, towards the transport

    def pauseProducing(self) -> None:
        """Hold back: the transport's buffer is full."""
        self.writable = False

    def resumeProducing(self) -> None:
        """Go on: the transport's buffer is empty."""
        self.writable = True
        self._flush()
        self._on_room()

    def stopProducing(self) -> None:
        """Nothing more can be sent."""
