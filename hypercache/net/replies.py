"""The replies to one client: written at once while it reads, held back while it does not, given up where it never does."""

from __future__ import annotations

import fcntl
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from hypercache.limits import OUTPUT_PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.clients import ClientLimits


@implementer(IPushProducer)
class Replies:
    """What one client is yet to be sent.

    Long replies go to the transport in pieces: each piece that goes out shows that the client reads, however slowly.

    Args:
        transport: the connection.
        clock: the reactor.
        limits: what bounds a client.
        on_room: called after each piece that went out.
        on_cut: called with the reason where the client must be cut.

    Attributes:
        waiting_bytes: how much waits because the transport takes no more.
        blocked: the transport takes no more.
    """

    __slots__ = (
        "_at",
        "_clock",
        "_closing",
        "_limits",
        "_on_cut",
        "_on_room",
        "_stall",
        "_transport",
        "_unsent",
        "_waiting",
        "blocked",
        "waiting_bytes",
    )

    def __init__(
        self, transport: Any, *, clock: Any, limits: ClientLimits, on_room: Callable[[], None], on_cut: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._limits = limits
        self._on_room = on_room
        self._on_cut = on_cut
        self._waiting: deque[bytes] = deque()
        # How much of the first that waits has gone out.
        self._at = 0
        self.waiting_bytes = 0
        self.blocked = False
        self._closing = False
        self._stall: Any = None
        self._unsent = -1
        transport.registerProducer(self, True)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def crowded(self) -> bool:
        """Whether so much waits that nothing more should be read."""
        return self.waiting_bytes > self._limits.output_pause

    def write(self, replies: bytes) -> None:
        """Write the replies to one read, or keep what the transport has no room for.

        Where others wait already and the sum exceeds the limit, the client is cut. A single reply may exceed it: a client that
        asks for a large value gets it.
        """
        if not self.blocked and not self._waiting and len(replies) <= OUTPUT_PIECE_BYTES:
            self._transport.write(replies)
            return
        others_wait = bool(self._waiting)
        self._waiting.append(replies)
        self.waiting_bytes += len(replies)
        if others_wait and self.waiting_bytes > self._limits.output_max:
            self._on_cut(f"over {self._limits.output_max} bytes of replies wait for it")
        else:
            self._pump()

    def close(self) -> None:
        """Close the connection when everything went out."""
        if not self._closing:
            self._closing = True
            self._watch()
        if not self._waiting:
            # First, or it is never closed: a transport with a producer waits for that producer's last word.
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def drop(self) -> None:
        """Forget everything: the connection is gone, or is cut."""
        self._waiting.clear()
        self.waiting_bytes = 0
        self._rest()

    def _pump(self) -> None:
        """Hand over piece by piece until the transport is full."""
        waiting = self._waiting
        while waiting and not self.blocked:
            first, at = waiting[0], self._at
            if len(first) - at <= OUTPUT_PIECE_BYTES:
                waiting.popleft()
                self._at = 0
                piece = first[at:] if at else first
            else:
                self._at = at + OUTPUT_PIECE_BYTES
                piece = first[at : self._at]
            self.waiting_bytes -= len(piece)
            self._transport.write(piece)

    # IPushProducer, towards the transport

    def pauseProducing(self) -> None:
        """Hold replies back: the transport's buffer is full."""
        self.blocked = True
        self._watch()

    def resumeProducing(self) -> None:
        """Go on: the transport's buffer is empty."""
        self.blocked = False
        self._rest()
        if self._closing:
            self._watch()
        self._pump()
        self._on_room()

    def stopProducing(self) -> None:
        """Nothing more can be sent."""

    # A client that reads nothing

    def _watch(self) -> None:
        if self._stall is None:
            self._unsent = _unsent_bytes(self._transport)
            self._stall = self._clock.callLater(self._limits.output_stall, self._look)

    def _rest(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _look(self) -> None:
        self._stall = None
        before = self._unsent
        unsent = _unsent_bytes(self._transport)
        if 0 <= unsent < before:
            # A slow reader takes long until the kernel has room for the next piece, but it reads.
            self._watch()
        else:
            self._on_cut(f"it read nothing for {self._limits.output_stall:g} seconds while replies waited")


def _unsent_bytes(transport: Any) -> int:
    """Return how much the kernel holds for a client that has not confirmed it; -1 where there is no telling."""
    socket = getattr(transport, "socket", None)
    if socket is None:
        return -1
    try:
        return int(struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    except OSError:
        return -1
