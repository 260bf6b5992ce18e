"""The streams of one link: bulk transfers side by side, none of which can hold up another.

A stream carries messages. Its sender may have `STREAM_WINDOW_COUNT` messages and `STREAM_WINDOW_BYTES` under way that the receiver
has not handled; WindowUpdate gives more. Ids are odd for who dialled, even for who listens. Each side ends its half by one
StreamReset: with code 0 when it has sent all, with another to give up both halves; when both have, the id is free again. Answers do
not travel on streams: the number of their exchange says whose they are.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from hypercache.errors import BusyError, LinkLostError
from hypercache.limits import HEADER_BYTES, STREAM_SHARE_BYTES, STREAMS_HELD_MAX_BYTES
from hypercache.net.stream import CANCELLED, FINISHED, LOST, OVERLOADED, OVERRUN, REFUSED, Stream
from hypercache.wire.extension import PLAIN_HEAD
from hypercache.wire.messages import StreamReset, WindowUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.metrics import MessageMetrics
    from hypercache.wire import Message

__all__ = ["CANCELLED", "FINISHED", "LOST", "OVERLOADED", "OVERRUN", "REFUSED", "Stream", "Streams"]

_IDS: Final = 1 << 16
_OPEN_MAX: Final = _IDS // 4
"""Half of a side's ids. An id then rests until others have been opened whose ends were sent behind all that belonged to it."""
_REASON_MAX_CHARACTERS: Final = 63
"""What fits the length byte of a reason whatever its characters are."""

_log = Logger()


class Streams:
    """The streams of one link.

    The bytes are shared fairly: the stream that has been served the least goes next, for `STREAM_SHARE_BYTES` or one frame. One
    that had nothing to send, or no credit, starts level with the others when it has again: it saves up nothing.

    The memory is bounded: there are so many streams, each holds a window, and where all together hold `STREAMS_HELD_MAX_BYTES` the
    one that holds the most is given up.

    Args:
        dialled: whether this side opened the connection.
        most: how many the peer may have open; of this side's own there are no more either.
        metrics: the figures.
        send_urgent: sends a message of the link's own, before all others.
        stir: called when there is something to send: `take` must be called soon.

    Attributes:
        metrics: the figures.
        send_urgent: as given.
        held_bytes: how much came on all streams and is not handled.
    """

    def __init__(
        self,
        *,
        dialled: bool,
        most: int,
        metrics: MessageMetrics,
        send_urgent: Callable[[Message], None],
        stir: Callable[[], None],
    ) -> None:
        self.metrics = metrics
        self.send_urgent = send_urgent
        self.held_bytes = 0
        self._stir = stir
        self._most = min(most, _OPEN_MAX)
        self._parity = 1 if dialled else 0
        self._next = 1 if dialled else 2
        self._open: dict[int, Stream] = {}
        # How many of them the peer opened.
        self._theirs = 0
        self._lost = False
        # Those that wait for their turn, the least served first, and those that have ended since; the number breaks ties.
        self._turns: list[tuple[int, int, Stream]] = []
        self._numbers = count()
        # How many wait.
        self._queued = 0
        # How much the stream whose turn is or was last had been served before it, and the most that any has been.
        self._level = 0
        self._highest = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def ready(self) -> bool:
        """Whether any stream may send something."""
        return self._queued > 0

    def open(self) -> Stream:
        """Return a new stream of this side's.

        Raises:
            BusyError: so many are open that the peer would refuse.
            LinkLostError: the link is gone.
        """
        if self._lost:
            raise LinkLostError("the link is lost")
        if len(self._open) - self._theirs >= self._most:
            self.metrics.refused_requests += 1
            raise BusyError(f"{self._most} streams are open already")
        number = self._next
        while number in self._open:
            number = self._after(number)
        self._next = self._after(number)
        stream = self._open[number] = Stream(self, number, opened_here=True)
        return stream

    # Receiving

    def arrived(self, stream_id: int, size: int) -> Stream | None:
        """Return the stream of a message that came, None where the message is to be dropped.

        Whoever gets a stream calls its `Stream.received`, or has the message handled and calls `Stream.consumed` then.

        Args:
            stream_id: as the frame says.
            size: of its payload, in bytes, as of `Stream.deliver`.
        """
        stream = self._open.get(stream_id)
        if stream is None:
            stream = self._opened(stream_id)
            if stream is None:
                return None
        if stream.given_up:
            # It was sent before the peer knew.
            return None
        if stream.ended is not None:
            self.metrics.refused_stream_messages += 1
            return None
        while self.held_bytes >= STREAMS_HELD_MAX_BYTES:
            most = max(stream, *self._open.values(), key=_held_bytes)
            self._break_off(most, OVERLOADED, "too much waits to be handled, and the most of it on this stream")
            if most is stream:
                return None
        if not stream.deliver(size):
            self._break_off(stream, OVERRUN, "more was sent than the window allows")
            return None
        return stream

    def skipped(self, stream_id: int, size: int, *, told: bool) -> None:
        """Account for a message that came and is not handled: refused by a layer, or of an unknown type.

        Args:
            stream_id: as the frame says.
            size: as of `arrived`.
            told: whether its sender is told which message that was; else the transfer would have a hole, and is given up.
        """
        stream = self.arrived(stream_id, size)
        if stream is None:
            return
        stream.consumed(size)
        if not told:
            self._break_off(stream, REFUSED, "a message was refused")

    def credited(self, update: WindowUpdate) -> None:
        """Take the peer's credit for a stream; of one that has ended it is late."""
        stream = self._open.get(update.stream)
        if stream is not None:
            stream.credited(update)

    def was_reset(self, reset: StreamReset) -> None:
        """Take the end of the peer's half; where it gives up, this half ends too."""
        stream = self._open.get(reset.stream)
        if stream is None:
            return
        if reset.code == FINISHED:
            if stream.ended is None:
                stream.ended = FINISHED
                self._forget_if_over(stream)
                stream.peer_finished()
            return
        stream.ended = reset.code
        self._forget_if_over(stream)
        if not stream.given_up:
            stream.reset(reset.code)
            stream.tell_end(reset.code)

    def _opened(self, stream_id: int) -> Stream | None:
        """Return the stream that the peer opens by this message; None where it may not."""
        if stream_id % 2 == self._parity or self._lost:
            # Of a stream that this side opened and both have ended.
            self.metrics.refused_stream_messages += 1
            return None
        if self._theirs >= self._most:
            self.metrics.refused_stream_messages += 1
            self.send_urgent(StreamReset(stream_id, REFUSED, f"{self._most} streams are open already"))
            return None
        stream = self._open[stream_id] = Stream(self, stream_id, opened_here=False)
        self._theirs += 1
        return stream

    def _break_off(self, stream: Stream, code: int, reason: str) -> None:
        """Give up a stream for what came on it."""
        # Not louder: a peer can cause it any number of times.
        _log.debug("stream {id} is given up: {reason}", id=stream.stream_id, reason=reason)
        self.metrics.refused_stream_messages += 1
        stream.reset(code, reason)
        stream.tell_end(code)

    # Sending

    def wake(self, stream: Stream) -> None:
        """Give a stream its turn among those that send."""
        if not stream.queued and (stream.can_send or stream.is_drained):
            stream.queued = True
            self._queued += 1
            stream.served = max(stream.served, self._level)
            heappush(self._turns, (stream.served, next(self._numbers), stream))
            self._stir()

    def take(self, most_bytes: int, *, refill: bool = True) -> list[tuple[int, bytes]]:
        """Return the next frames of all streams that may send.

        The end of a stream's half comes behind its messages here, for an urgent frame would overtake them.

        Args:
            most_bytes: about how much; the last share is not cut short.
            refill: whether producers are asked for more; not where the link closes.
        """
        frames: list[tuple[int, bytes]] = []
        stopped: list[Stream] = []
        sent = 0
        while self._queued and sent < most_bytes:
            served, _, stream = heappop(self._turns)
            if not stream.queued:
                continue
            self._level = served
            share = served + STREAM_SHARE_BYTES
            while served < share and stream.can_send:
                frame = stream.next_frame()
                frames.append(frame)
                served += HEADER_BYTES + len(frame[1])
            sent += served - self._level
            stream.served = served
            self._highest = max(self._highest, served)
            if stream.can_send:
                heappush(self._turns, (served, next(self._numbers), stream))
                continue
            self._unqueue(stream)
            stopped.append(stream)
            if stream.is_drained:
                stream.closed = True
                self.metrics.meter(StreamReset.TYPE).sent += 1
                frames.append((StreamReset.TYPE, PLAIN_HEAD + StreamReset(stream.stream_id, FINISHED, "").encode_payload()))
                self._forget_if_over(stream)
        # Only now, for producers may put in more.
        if refill:
            for stream in stopped:
                stream.steer_producer()
        return frames

    def _unqueue(self, stream: Stream) -> None:
        if stream.queued:
            stream.queued = False
            self._queued -= 1
            if not self._queued:
                # Nobody waits, so nobody is owed anything.
                self._level = self._highest
                self._turns.clear()

    # Ending

    def give_up(self, stream: Stream, code: int, reason: str) -> None:
        """Tell the peer that a stream is given up, where it does not know of its end already."""
        self._unqueue(stream)
        if self._open.get(stream.stream_id) is not stream:
            return
        if not stream.known:
            self.drop(stream)
            stream.ended = code
            return
        stream.closed = True
        self.send_urgent(StreamReset(stream.stream_id, code, reason[:_REASON_MAX_CHARACTERS]))
        self._forget_if_over(stream)

    def drop(self, stream: Stream) -> None:
        """Forget a stream that the peer has never heard of."""
        stream.closed = True
        del self._open[stream.stream_id]

    def lost(self) -> None:
        """Have all streams end: the link is gone."""
        self._lost = True
        streams = list(self._open.values())
        self._open.clear()
        self._theirs = self._queued = 0
        self._turns.clear()
        for stream in streams:
            stream.queued = False
            stream.lost()

    def _after(self, number: int) -> int:
        following = number + 2
        return following if following < _IDS else (1 if self._parity else 2)

    def _forget_if_over(self, stream: Stream) -> None:
        """Let an id be used again once both halves have ended and everything is sent."""
        if stream.closed and stream.ended is not None and self._open.get(stream.stream_id) is stream:
            del self._open[stream.stream_id]
            if not stream.opened_here:
                self._theirs -= 1


def _held_bytes(stream: Stream) -> int:
    return stream.held_bytes
