"""One side of one stream: what waits to be sent, what is held of the peer's, and the credit for both.

The credit never comes to a standstill. A message may be sent while any credit is left, however long it is: the credit goes below
nothing then, and the receiver allows that. The receiver returns credit when half the window is handled, and at once for whatever is
handled while the window is used up. So a sender waits only for a receiver that holds a whole window of messages.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from hypercache.errors import BusyError, LinkLostError
from hypercache.limits import STREAM_OUTBOX_MAX_COUNT, STREAM_WINDOW_BYTES, STREAM_WINDOW_COUNT
from hypercache.wire.messages import WindowUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.streams import Streams
    from hypercache.wire import Message

FINISHED: Final = 0
"""StreamReset codes: the sender has sent all;"""
CANCELLED: Final = 1
"""the sender gives the stream up;"""
REFUSED: Final = 2
"""there are too many streams;"""
OVERRUN: Final = 3
"""the peer sent more than it was allowed;"""
LOST: Final = 4
"""the link is gone (never sent);"""
OVERLOADED: Final = 5
"""all streams together hold too much, and this one the most."""

_CREDIT_MAX: Final = 1 << 31
_U32_MAX: Final = (1 << 32) - 1

_log = Logger()


class Stream:
    """One side of one stream; `hypercache.net.streams.Streams` makes them.

    Args:
        streams: those of the link.
        stream_id: its number.
        opened_here: whether this side opened it.

    Attributes:
        stream_id: its number.
        opened_here: whether this side opened it.
        known: the peer knows of it: something was sent or came.
        finished: nothing more can be put in.
        closed: the peer has been told so, behind all that was put in.
        ended: the code with which the peer ended its half; None while it has not.
        given_up: both halves are: what waited is not sent, what comes is dropped.
        on_end: called with `FINISHED` when the peer has sent all, and with another code when the stream is over before both sides
            have; not after this side's own `reset`. Where nobody asks for that, this side's half of a stream that the peer opened
            ends by itself when the peer has ended and all is handled.
        on_message: takes the peer's messages, ``on_message(message, consumed)``, where the handlers of their types shall not;
            ``consumed`` is called, once, when the message is handled.
        queued: it waits for its turn to send.
        served: how much it has sent, on the scale by which `Streams` is fair, in bytes.
    """

    __slots__ = (
        "_bytes_credit",
        "_count_credit",
        "_held_bytes",
        "_held_count",
        "_outbox",
        "_outbox_bytes",
        "_owed_bytes",
        "_owed_count",
        "_producer",
        "_streams",
        "_told_to_pause",
        "closed",
        "ended",
        "finished",
        "given_up",
        "known",
        "on_end",
        "on_message",
        "opened_here",
        "queued",
        "served",
        "stream_id",
    )

    def __init__(self, streams: Streams, stream_id: int, *, opened_here: bool) -> None:
        self.stream_id = stream_id
        self.opened_here = opened_here
        self.known = not opened_here
        self.finished = False
        self.closed = False
        self.ended: int | None = None
        self.given_up = False
        self.on_end: Callable[[int], None] | None = None
        self.on_message: Callable[[Message, Callable[[], None]], None] | None = None
        self.queued = False
        self.served = 0
        self._streams = streams
        self._outbox: deque[tuple[int, bytes]] = deque()
        self._outbox_bytes = 0
        self._count_credit = STREAM_WINDOW_COUNT
        self._bytes_credit = STREAM_WINDOW_BYTES
        # What came and is not handled; what is handled, and the peer has no credit for yet.
        self._held_count = 0
        self._held_bytes = 0
        self._owed_count = 0
        self._owed_bytes = 0
        self._producer: Any = None
        self._told_to_pause = False

    # Sending

    @property
    def full(self) -> bool:
        """Whether `put` would refuse."""
        return len(self._outbox) >= STREAM_OUTBOX_MAX_COUNT or self._outbox_bytes >= STREAM_WINDOW_BYTES

    def put(self, message_type: int, payload: bytes) -> None:
        """Send a frame of version 0x02.

        Args:
            message_type: the type byte.
            payload: extension, with this stream's id, and body.

        Raises:
            BusyError: `STREAM_OUTBOX_MAX_COUNT` messages, or `STREAM_WINDOW_BYTES`, wait already for the peer's credit.
            LinkLostError: the stream has ended.
        """
        if self.finished:
            raise LinkLostError(f"stream {self.stream_id} has ended")
        if self.full:
            self._streams.metrics.refused_stream_messages += 1
            raise BusyError(f"stream {self.stream_id} is full: the peer gives no credit")
        self._outbox.append((message_type, payload))
        self._outbox_bytes += len(payload)
        self._streams.wake(self)
        self.steer_producer()

    def register_producer(self, producer: Any) -> None:
        """Have an `IPushProducer` paused while the stream is full, resumed when it is empty, and stopped when it is given up."""
        if self.finished:
            producer.stopProducing()
            return
        self._producer = producer
        self._told_to_pause = False
        self.steer_producer()

    def unregister_producer(self) -> None:
        """Leave the producer alone from now on."""
        self._producer = None

    def finish(self) -> None:
        """End this half when everything is sent."""
        if self.finished:
            return
        self.finished = True
        self._producer = None
        if self.known or self._outbox:
            self._streams.wake(self)
        else:
            # The peer never heard of it, and could not end its half.
            self._streams.drop(self)
            self.ended = FINISHED
            self.tell_end(FINISHED)

    def reset(self, code: int = CANCELLED, reason: str = "") -> None:
        """Give both halves up: what waits is not sent, what comes is dropped.

        Args:
            code: what the peer is told; not `FINISHED`.
            reason: the same in words.
        """
        assert code != FINISHED
        if self.given_up:
            return
        self.given_up = True
        self._break_off()
        self._streams.give_up(self, code, reason)

    def lost(self) -> None:
        """Take note that the link is gone."""
        told = not self.given_up
        self.given_up = self.closed = True
        self.ended = LOST
        self._break_off()
        if told:
            self.tell_end(LOST)

    # Towards the link

    @property
    def can_send(self) -> bool:
        """Whether there is something to send, and credit for it."""
        return bool(self._outbox) and self._count_credit > 0 and self._bytes_credit > 0

    @property
    def is_drained(self) -> bool:
        """Whether all was put in and is sent, and the peer must be told."""
        return self.finished and not self._outbox and not self.closed

    def next_frame(self) -> tuple[int, bytes]:
        """Return the next frame; only where `can_send`."""
        frame = self._outbox.popleft()
        size = len(frame[1])
        self._outbox_bytes -= size
        self._count_credit -= 1
        self._bytes_credit -= size
        self.known = True
        return frame

    def steer_producer(self) -> None:
        """Pause the producer of a stream that is full, have that of one that is empty go on."""
        producer = self._producer
        if producer is None:
            return
        if self._told_to_pause:
            if not self._outbox:
                self._told_to_pause = False
                self._call(producer.resumeProducing)
        elif self.full:
            self._told_to_pause = True
            self._call(producer.pauseProducing)

    def credited(self, update: WindowUpdate) -> None:
        """Take the peer's credit."""
        self._count_credit = min(self._count_credit + update.messages, _CREDIT_MAX)
        self._bytes_credit = min(self._bytes_credit + update.bytes, _CREDIT_MAX)
        self._streams.wake(self)

    @property
    def held_bytes(self) -> int:
        """How much came and is not handled."""
        return self._held_bytes

    def deliver(self, size: int) -> bool:
        """Account for a message that came; return whether the peer was allowed to send it.

        Args:
            size: of its payload, in bytes, as the peer counts it: inflated, with the extension, without a signature.
        """
        if self._is_used_up:
            return False
        self.known = True
        self._held_count += 1
        self._held_bytes += size
        self._streams.held_bytes += size
        if self._owed_count and self._is_used_up:
            self._return_credit()
        return True

    def received(self, message: Message, size: int) -> bool:
        """Give a message that was delivered to whoever takes this stream's; return False where the handler of its type must."""
        if self.on_message is None:
            return False
        try:
            self.on_message(message, partial(self.consumed, size))
        except Exception:  # noqa: BLE001 - who takes it has a fault; the link's other streams belong to others
            _log.failure("a message of stream {id} could not be taken", id=self.stream_id)
            self.reset(CANCELLED, "its receiver failed")
            self.tell_end(CANCELLED)
        return True

    def consumed(self, size: int) -> None:
        """Account for a message that is handled, and give the peer credit where it is time for that.

        Args:
            size: as it was delivered.
        """
        if not self._held_count:
            return
        self._held_count -= 1
        self._held_bytes -= size
        self._streams.held_bytes -= size
        self._owed_count += 1
        self._owed_bytes += size
        half = self._owed_count * 2 >= STREAM_WINDOW_COUNT or self._owed_bytes * 2 >= STREAM_WINDOW_BYTES
        if half or self._is_used_up:
            self._return_credit()
        if self.ended == FINISHED:
            self._end_by_itself()

    def peer_finished(self) -> None:
        """Take note that the peer has sent all."""
        if self.given_up:
            return
        if self.on_end is not None:
            self.tell_end(FINISHED)
        else:
            self._end_by_itself()

    def tell_end(self, code: int) -> None:
        """Tell whoever wants to know that the stream ends."""
        if self.on_end is not None:
            self._call(self.on_end, code)

    @property
    def _is_used_up(self) -> bool:
        """Whether the peer, as far as it can be known here, has no credit left."""
        return (
            self._held_count + self._owed_count >= STREAM_WINDOW_COUNT or self._held_bytes + self._owed_bytes >= STREAM_WINDOW_BYTES
        )

    def _return_credit(self) -> None:
        count, self._owed_count = self._owed_count, 0
        size, self._owed_bytes = self._owed_bytes, 0
        if self.ended is not None or self.given_up:
            return
        # One message may be longer than the field can say together with others.
        while size > _U32_MAX:
            self._streams.send_urgent(WindowUpdate(self.stream_id, 0, _U32_MAX))
            size -= _U32_MAX
        self._streams.send_urgent(WindowUpdate(self.stream_id, count, size))

    def _end_by_itself(self) -> None:
        if not self.opened_here and self.on_end is None and not self._held_count:
            self.finish()

    def _break_off(self) -> None:
        self.finished = True
        self._outbox.clear()
        self._outbox_bytes = 0
        self._streams.held_bytes -= self._held_bytes
        self._held_count = self._held_bytes = self._owed_count = self._owed_bytes = 0
        producer, self._producer = self._producer, None
        if producer is not None:
            self._call(producer.stopProducing)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception:  # noqa: BLE001 - whose stream it is has a fault; the link's other streams belong to others
            _log.failure("whoever has stream {id} failed", id=self.stream_id)
