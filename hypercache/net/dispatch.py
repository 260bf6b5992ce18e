"""What becomes of the frames of one read: requests go to their handlers, answers to who asked."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from hypercache.errors import LinkLostError, SignatureError, WireError
from hypercache.net.answering import Answering
from hypercache.net.context import PeerContext
from hypercache.net.faults import FAULTS, Fault, unknown_type
from hypercache.net.lifecycle import LinkState
from hypercache.net.negotiation import HANDSHAKE_TYPES, UnspokenError
from hypercache.wire import ErrorCode, events
from hypercache.wire.extension import PLAIN_HEAD, TraceLoopError, reply_head
from hypercache.wire.header import BASE_VERSION, EXTENDED_VERSION
from hypercache.wire.messages import GenericError, Goodbye, HashRingUpdate, Hello, KeepAlive, StreamReset, WindowUpdate

if TYPE_CHECKING:
    from hypercache.net.link import PeerLink
    from hypercache.net.streams import Stream
    from hypercache.wire import Extension, Message

_CONTROL: Final = frozenset((Goodbye.TYPE, WindowUpdate.TYPE, StreamReset.TYPE))
"""Types that are for the link itself."""

_OF_THE_LINK: Final = _CONTROL | HANDSHAKE_TYPES | {KeepAlive.TYPE}
_RAFT: Final = range(0x10, 0x1D)
_TAKE_NO_TURN: Final = frozenset((ErrorCode.INVALID_VERSION, ErrorCode.CHECKSUM_MISMATCH, ErrorCode.MESSAGE_TOO_LARGE))


class Dispatcher:
    """Handles what one link receives.

    Args:
        link: the link.
    """

    __slots__ = ("_answering", "_factory", "_heard_stranger", "_link", "_now_ms")

    def __init__(self, link: PeerLink) -> None:
        self._answering = Answering(link)
        self._link = link
        self._factory = link.factory
        self._now_ms = 0
        # A peer that need not authenticate for what it asked has been served: it is a base peer for good.
        self._heard_stranger = False

    @property
    def pending(self) -> int:
        """How many answers are not ready, or wait for one that is not."""
        return self._answering.pending

    def dispatch(self, arrived: list[Any], now_ms: int) -> None:
        """Handle the events of one read, until the link ends.

        Args:
            arrived: the events.
            now_ms: when they were read, Unix milliseconds.
        """
        self._now_ms = now_ms
        link = self._link
        place = 0
        while place < len(arrived) and not link.ended:
            event = arrived[place]
            kind = event.__class__
            if kind is tuple:
                place = self._through_layers(arrived, place)
                continue
            fault = FAULTS.get(kind)
            if fault is not None:
                found = fault(event)
                self._answering.refuse(found, event.extension if kind is events.UnknownType else None)
                if found.stream:
                    link.streams.skipped(found.stream, found.size, told=found.exchange is not None)
            elif kind is events.Garbage:
                self._factory.metrics.garbage_bytes += event.count
                self._factory.reports.warn(
                    "skipped {count} bytes of garbage from {address}", count=event.count, address=link.address
                )
            elif kind is events.Broken:
                self._factory.metrics.links_broken += 1
                link.part(event.reason)
            elif kind is events.Extended:
                place = self._run_of_extended(arrived, place)
                continue
            else:
                place = self._run(arrived, place)
                continue
            place += 1

    # Layers

    def _through_layers(self, arrived: list[Any], place: int) -> int:
        """Have the layers see a run of frames, of which what comes out is handled; return where the run ends."""
        start = place
        while place < len(arrived) and arrived[place].__class__ is tuple:
            place += 1
        try:
            self._link.layering.receive(arrived[start:place])
        except WireError as error:
            self.layers_failed(error, arrived[start][0])
        return place

    def layers_failed(self, error: WireError, message_type: int = KeepAlive.TYPE) -> None:
        """End the link for what a layer says of a frame."""
        link = self._link
        self._factory.metrics.links_broken += 1
        if isinstance(error, SignatureError):
            # Whoever changed the frame must learn nothing, and the peer has not sent it.
            self._factory.reports.error(
                "a frame from {address} was changed on the way: {reason}", address=link.address, reason=str(error)
            )
        else:
            self._answering.refuse(Fault(message_type, error.code, str(error)))
        link.part(str(error))

    def out_of_layers(self, frames: list[Any]) -> None:
        """Handle frames that came up through the layers."""
        link = self._link
        found = link.decoder.open_all(EXTENDED_VERSION if link.extended else BASE_VERSION, frames)
        if link.outgoing.batching:
            self.dispatch(found, self._now_ms)
            return
        # A layer has held them back until now.
        link.outgoing.batching = True
        try:
            self.dispatch(found, int(self._factory.wall() * 1000))
        finally:
            link.outgoing.batching = False
        link.outgoing.settle()

    # Base peers, and the handshake

    def _run(self, arrived: list[Any], place: int) -> int:
        """Take the messages of one type from ``place`` on; return where they end."""
        link = self._link
        message = arrived[place]
        message_type: int = message.TYPE
        if message_type in HANDSHAKE_TYPES and link.negotiation is not None:
            self._factory.metrics.meter(message_type).received += 1
            if link.state in (LinkState.HANDSHAKING, LinkState.AUTHENTICATING) and not self._heard_stranger:
                link.negotiation.received(message, link.decoder.greeting)
            elif message_type == Hello.TYPE and not link.extended:
                # Whose first frame is not Hello is a base peer for good (wire.md, section 4).
                self._answering.refuse(unknown_type(message_type))
            elif message_type in self._factory.router.answers:
                self._factory.metrics.unexpected_answers += 1
            else:
                self._answering.refuse(Fault(message_type, ErrorCode.NOT_AUTHORIZED, "it has said already who it is"))
                link.part("it says Hello again")
            return place + 1
        if message_type == KeepAlive.TYPE:
            self._factory.metrics.meter(message_type).received += 1
            return place + 1
        if link.state is not LinkState.CONNECTED and not self._admit(message):
            return place + 1
        if link.extended and message_type in _CONTROL:
            self._control(message)
            return place + 1
        exchanges = link.exchanges
        if message_type in self._factory.router.answers or exchanges.awaits(message_type):
            if message_type in (GenericError.TYPE, HashRingUpdate.TYPE):
                self._answered(message)
                return place + 1
            return self._run_of_answers(arrived, place, message.__class__)
        handler = self._handler(message_type, None)
        if handler is None:
            return place + 1
        return self._run_of_requests(arrived, place, message.__class__, handler)

    def _admit(self, message: Message) -> bool:
        """Decide what a link is over which something comes before the handshake is over; return whether that is handled."""
        link = self._link
        if link.state is LinkState.CLOSING:
            return True
        if link.dialled and link.negotiation is not None and isinstance(message, GenericError):
            self._factory.metrics.meter(message.TYPE).received += 1
            link.negotiation.refused(message)
            return False
        if link.state is LinkState.AUTHENTICATING:
            refusal = "it did not finish to authenticate"
        elif link.may_be_base:
            if link.dialled and link.negotiation is not None:
                # It is a base peer for good, and must be dialled as one: this attempt waits for an answer to Hello.
                link.negotiation.fail(UnspokenError("it speaks before it has answered Hello"))
                return False
            link.become_base()
            return True
        else:
            handler = self._factory.router.handler_for(message.TYPE)
            if handler is not None and not handler.requires_auth:
                # A word with a stranger, within the time that Hello may take.
                self._heard_stranger = True
                return True
            refusal = "it does not authenticate, and must"
        self._answering.refuse(Fault(message.TYPE, ErrorCode.NOT_AUTHORIZED, "authentication is required"))
        self._factory.metrics.auth_failures += 1
        self._factory.reports.error("{address} is refused: {reason}", address=link.address, reason=refusal)
        link.part(refusal)
        return False

    def _run_of_requests(self, arrived: list[Any], place: int, cls: type[Message], handler: Any) -> int:
        """Handle requests of one type.

        Frames come in runs of one type: the look-up, the clock and the counting are for the run. Most of a run is answered by the
        same object ("done"), whose bytes are kept.
        """
        link, factory = self._link, self._factory
        handle = handler.handle
        context = PeerContext(link, self._now_ms)
        answering = self._answering
        row, add = answering.turns.row, link.outgoing.frames.append
        start = place
        repeated = later = 0
        started = time.perf_counter()
        while place < len(arrived) and not link.ended:
            message = arrived[place]
            if message.__class__ is not cls:
                break
            place += 1
            try:
                answer = handle(context, message)
                if answer is factory.last_answer and not row:
                    add(factory.last_frame)
                    repeated += 1
                elif answer is not None:
                    repeated = factory.count_repeated(repeated)
                    if answer.__class__ is Deferred:
                        later += 1
                    answering.answer(answer, cls.TYPE)
            except Exception:  # noqa: BLE001 - a handler's bug is its own; the peer hears that there was one
                repeated = factory.count_repeated(repeated)
                answering.answer(answering.internal_error(cls.TYPE), cls.TYPE)
        factory.count_repeated(repeated)
        factory.metrics.meter(cls.TYPE).handled(place - start, time.perf_counter() - started, later)
        return place

    def _handler(self, message_type: int, extension: Extension | None) -> Any | None:
        """Return who takes a type; where nobody does or may, tell the peer."""
        handler = self._factory.router.handler_for(message_type)
        fault: Fault | None = None
        if message_type in _RAFT and not self._link.member:
            fault = Fault(message_type, ErrorCode.NOT_AUTHORIZED, "only members take part in Raft")
        elif handler is None:
            fault = unknown_type(message_type)
        elif handler.requires_auth and not self._link.decoder.authenticated:
            fault = Fault(message_type, ErrorCode.NOT_AUTHORIZED, "authentication is required")
        if fault is not None:
            self._factory.metrics.meter(message_type).received += 1
            self._answering.refuse(fault, extension)
            return None
        return handler

    def _run_of_answers(self, arrived: list[Any], place: int, cls: type[Message]) -> int:
        """Give answers of one type to who asked; those that nobody asked for are dropped and counted."""
        start = place
        message_type = cls.TYPE
        answer = self._link.exchanges.answer_in_order
        dropped = 0
        while place < len(arrived) and not self._link.ended:
            message = arrived[place]
            if message.__class__ is not cls:
                break
            place += 1
            if not answer(message, message_type):
                dropped += 1
        metrics = self._factory.metrics
        metrics.meter(message_type).received += place - start
        metrics.unexpected_answers += dropped
        return place

    def _answered(self, answer: Message) -> None:
        """Give one answer to who asked; an error takes the place of any."""
        metrics = self._factory.metrics
        meter = metrics.meter(answer.TYPE)
        meter.received += 1
        answer_type = answer.TYPE
        if isinstance(answer, GenericError):
            meter.errors += 1
            if answer.error_code in _TAKE_NO_TURN or self._link.extended:
                self._factory.reports.warn("{address} reports: {text}", address=self._link.address, text=answer.message)
                return
            answer_type = 0
        if not self._link.exchanges.answer_in_order(answer, answer_type):
            metrics.unexpected_answers += 1

    # Extended peers

    def _run_of_extended(self, arrived: list[Any], place: int) -> int:
        """Handle version 0x02 messages of one type, requests or answers; return where they end."""
        link, factory, answering = self._link, self._factory, self._answering
        metrics = factory.metrics
        if link.state in (LinkState.HANDSHAKING, LinkState.AUTHENTICATING):
            # The frame cannot be meant for a link that has agreed on nothing.
            assert link.negotiation is not None
            link.negotiation.fail(LinkLostError("a version 0x02 frame came before the handshake was over"))
            return place + 1
        cls = arrived[place].message.__class__
        start = place
        handler: Any = None
        started = time.perf_counter()
        add = link.outgoing.frames.append
        repeated = later = 0
        while place < len(arrived) and not link.ended:
            event = arrived[place]
            if event.__class__ is not events.Extended or event.message.__class__ is not cls:
                break
            place += 1
            message, extension = event.message, event.extension
            exchange = extension.exchange
            if extension.reply:
                retry_after = extension.more.retry_after if extension.more is not None else None
                if exchange is None or not link.exchanges.answer(exchange, message, retry_after):
                    metrics.unexpected_answers += 1
                continue
            stream: Stream | None = None
            if extension.stream:
                stream = self._arrived_on_stream(event)
                if stream is None:
                    continue
            if handler is None:
                if cls.TYPE in _OF_THE_LINK or cls.TYPE in factory.router.answers:
                    self._unhandled(message)
                    # Errors count themselves.
                    start += cls is GenericError
                    if stream is not None:
                        stream.consumed(event.size)
                    continue
                handler = self._handler(cls.TYPE, extension)
                if handler is None:
                    start += 1
                    if stream is not None:
                        stream.consumed(event.size)
                    continue
            try:
                context = PeerContext(link, self._now_ms, extension, stream)
                if extension.trace is None or factory.tracer is None:
                    answer = handler.handle(context, message)
                else:
                    answer = factory.tracer.serve(handler.handle, context, message)
            except TraceLoopError as loop:
                # The request has passed this node already: it is refused, and the link stays.
                answering.refuse(Fault(cls.TYPE, loop.code, f"malformed message: {loop}"), extension)
                answer = None
            except Exception:  # noqa: BLE001 - a handler's bug is its own; the peer hears that there was one
                answer = answering.internal_error(cls.TYPE, extension=extension)
            if answer is None:
                pass
            elif answer is answering.last_payload_of:
                add(
                    (
                        answer.TYPE,
                        PLAIN_HEAD + answering.last_payload if exchange is None else reply_head(exchange) + answering.last_payload,
                    )
                )
                repeated += 1
            elif answer.__class__ is Deferred:
                later += 1
                repeated = answering.count_repeated(repeated)
                answering.reply_later(
                    answer, cls.TYPE, extension, partial(stream.consumed, event.size) if stream is not None else None
                )
                continue
            else:
                repeated = answering.count_repeated(repeated)
                answering.reply(answer, cls.TYPE, extension)
            if stream is not None:
                stream.consumed(event.size)
        answering.count_repeated(repeated)
        metrics.meter(cls.TYPE).handled(place - start, time.perf_counter() - started, later)
        return place

    def _arrived_on_stream(self, event: events.Extended) -> Stream | None:
        """Return the stream of a message that its type's handler is to take; None where it is dropped, or taken already."""
        message, extension = event.message, event.extension
        stream = self._link.streams.arrived(extension.stream, event.size)
        if stream is None:
            if extension.exchange is not None:
                fault = Fault(message.TYPE, ErrorCode.RATE_LIMITED, "its stream is over, or was not taken")
                self._answering.refuse(fault, extension)
            return None
        return None if stream.received(message, event.size) else stream

    def _unhandled(self, message: Message) -> None:
        """Take a message that is for the link itself."""
        message_type = message.TYPE
        if message_type == GenericError.TYPE:
            self._answered(message)
        elif message_type in _CONTROL:
            self._control(message)
        elif message_type in self._factory.router.answers:
            self._factory.metrics.unexpected_answers += 1
        elif message_type != KeepAlive.TYPE:
            self._answering.refuse(Fault(message_type, ErrorCode.NOT_AUTHORIZED, "it has said already who it is"))
            self._link.part("it says Hello again")

    def _control(self, message: Message) -> None:
        if isinstance(message, WindowUpdate):
            self._link.streams.credited(message)
        elif isinstance(message, StreamReset):
            self._link.streams.was_reset(message)
        elif isinstance(message, Goodbye):
            self._link.farewell.heard(message)
