"""What becomes of the frames of one read: messages go to their handlers, answers to who asked, and answers back in order."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from hypercache.net.faults import FAULTS, Fault, unknown_type
from hypercache.net.requests import Requests
from hypercache.net.turns import Turn, Turns
from hypercache.wire import ErrorCode, Extension, events
from hypercache.wire.messages import GenericError, HashRingUpdate, Hello, KeepAlive

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from hypercache.net.link import PeerLink
    from hypercache.wire import Message

_log = Logger()

_ANSWERS: Final = frozenset((0x02, 0x04, 0x09, 0x11, 0x13, 0x15, 0x17, 0x1A, 0x1C, 0x21, 0x23, 0x31, 0x33, 0x35, 0x51, 0xFF))
"""Types that only ever answer; HashRingUpdate does so too, but comes unasked as well."""

_RAFT: Final = range(0x10, 0x1D)
_TAKE_NO_TURN: Final = frozenset((ErrorCode.INVALID_VERSION, ErrorCode.CHECKSUM_MISMATCH, ErrorCode.MESSAGE_TOO_LARGE))


class PeerContext(msgspec.Struct):
    """Where a message came from.

    Attributes:
        link: the link.
        now_ms: when it was read, Unix milliseconds.
        extension: what came with it in a version 0x02 frame.
    """

    link: PeerLink
    now_ms: int
    extension: Extension | None = None

    @property
    def stamp(self) -> int:
        """The message's stamp; 0 for none."""
        return self.extension.stamp if self.extension is not None else 0

    @property
    def member(self) -> bool:
        """Whether the sender is a member of the cluster."""
        return self.link.member

    @property
    def node_id(self) -> int:
        """The sender's node id; 0 while unknown."""
        return self.link.node_id


class Dispatcher:
    """Handles what one link receives.

    Args:
        link: the link.

    Attributes:
        turns: the answers that wait for one that is not ready.
        requests: what was asked over the link.
    """

    __slots__ = ("_factory", "_link", "_spoke_before_hello", "requests", "turns")

    def __init__(self, link: PeerLink) -> None:
        self.turns = Turns(link.put)
        self.requests = Requests()
        self._link = link
        self._factory = link.factory
        self._spoke_before_hello = False

    def dispatch(self, arrived: list[events.Event], now_ms: int) -> None:
        """Handle the events of one read, until the link closes.

        Args:
            arrived: the events.
            now_ms: when they were read, Unix milliseconds.
        """
        link = self._link
        place = 0
        while place < len(arrived) and not link.closing:
            event = arrived[place]
            fault = FAULTS.get(event.__class__)
            if fault is not None:
                self._refuse(fault(event))
            elif isinstance(event, events.Garbage):
                self._factory.metrics.garbage_bytes += event.count
                _log.warn("skipped {count} bytes of garbage from {address}", count=event.count, address=link.address)
            elif isinstance(event, events.Broken):
                self._factory.metrics.links_broken += 1
                link.part(event.reason)
            else:
                place = self._run(arrived, place, now_ms)
                continue
            place += 1

    def _run(self, arrived: list[Any], place: int, now_ms: int) -> int:
        """Take the messages of one type from ``place`` on; return where they end."""
        first = arrived[place]
        extended = first.__class__ is events.Extended
        cls = first.message.__class__ if extended else first.__class__
        message_type: int = cls.TYPE
        if message_type in _ANSWERS or (message_type == HashRingUpdate.TYPE and self.requests.awaits(message_type)):
            if extended or message_type == GenericError.TYPE or message_type == HashRingUpdate.TYPE:
                self._answered(first.message if extended else first)
                return place + 1
            return self._run_of_answers(arrived, place, cls)
        handler = self._handler(message_type)
        if handler is None:
            return place + 1
        return self._run_of_requests(arrived, place, now_ms, cls, handler)

    def _run_of_requests(self, arrived: list[Any], place: int, now_ms: int, cls: type[Message], handler: Any) -> int:
        """Handle requests of one type.

        Frames come in runs of one type: the look-up, the clock and the counting are for the run. Most of a run is answered by the
        same object ("done"), whose bytes are kept.
        """
        link, factory = self._link, self._factory
        kind = arrived[place].__class__
        extended = kind is events.Extended
        handle = handler.handle
        context = PeerContext(link, now_ms)
        row, add = self.turns.row, link.outgoing.frames.append
        start = place
        repeated = 0
        started = time.perf_counter()
        while place < len(arrived) and not link.closing:
            message = arrived[place]
            if message.__class__ is not kind:
                break
            if extended:
                context = PeerContext(link, now_ms, message.extension)
                message = message.message
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
                    self._answer(answer, cls.TYPE)
            except Exception:  # noqa: BLE001 - a handler's bug is its own; the peer hears that there was one
                repeated = factory.count_repeated(repeated)
                self.turns.take(self._encoded(self._internal_error(cls.TYPE, None)))
        factory.count_repeated(repeated)
        factory.metrics.meter(cls.TYPE).handled(place - start, time.perf_counter() - started)
        return place

    def _handler(self, message_type: int) -> Any | None:
        """Return who takes a type; where nobody does or may, tell the peer."""
        meter = self._factory.metrics.meter(message_type)
        if message_type == KeepAlive.TYPE:
            meter.received += 1
            return None
        handler = self._factory.router.handler_for(message_type)
        fault: Fault | None = None
        if message_type in _RAFT and not self._link.member:
            fault = Fault(message_type, ErrorCode.NOT_AUTHORIZED, "only members take part in Raft")
        elif handler is None or (message_type == Hello.TYPE and self._spoke_before_hello):
            # Whose first frame is not Hello is a base peer for good (wire.md, section 4).
            fault = unknown_type(message_type)
        elif handler.requires_auth and not self._link.decoder.authenticated:
            fault = Fault(message_type, ErrorCode.NOT_AUTHORIZED, "authentication is required")
        if message_type != Hello.TYPE:
            self._spoke_before_hello = not self._link.extended
        if fault is not None:
            meter.received += 1
            self._refuse(fault)
            return None
        return handler

    def _run_of_answers(self, arrived: list[Any], place: int, cls: type[Message]) -> int:
        """Give answers of one type to who asked; those that nobody asked for are dropped and counted."""
        start = place
        message_type = cls.TYPE
        answer = self.requests.answer
        dropped = 0
        while place < len(arrived) and not self._link.closing:
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
            if answer.error_code in _TAKE_NO_TURN:
                _log.warn("{address} reports a damaged frame: {text}", address=self._link.address, text=answer.message)
                return
            answer_type = 0
        if not self.requests.answer(answer, answer_type):
            metrics.unexpected_answers += 1

    # Answering

    def _answer(self, answer: Any, message_type: int) -> None:
        """Send an answer in its turn: after those of the requests that came before."""
        if not isinstance(answer, Deferred):
            self.turns.take(self._encoded(answer))
            return
        turn = self.turns.hold()
        started = time.perf_counter()
        answer.addCallback(self._encoded)
        answer.addErrback(self._failed, message_type)
        answer.addCallback(self._turn_done, turn, message_type, started)

    def _encoded(self, answer: Message | None) -> bytes:
        if answer is None:
            return b""
        factory = self._factory
        if answer is not factory.last_answer:
            factory.last_frame = answer.encode_frame()
            factory.last_answer = answer
        factory.metrics.meter(answer.TYPE).sent += 1
        frame: bytes = factory.last_frame
        return frame

    def _failed(self, failure: Failure, message_type: int) -> bytes:
        return self._encoded(self._internal_error(message_type, failure))

    def _turn_done(self, frame: bytes, turn: Turn, message_type: int, started: float) -> None:
        self._factory.metrics.meter(message_type).took(time.perf_counter() - started)
        self.turns.fill(turn, frame)
        self._link.answered()

    def _internal_error(self, message_type: int, failure: Failure | None) -> GenericError:
        """Log a handler's failure and return what the peer hears of it: a reference, nothing of the cause."""
        reference = secrets.token_hex(4)
        text = "handling type 0x{type:02x} from {address} failed [{reference}]"
        _log.failure(text, failure, type=message_type, address=self._link.address, reference=reference)
        self._factory.metrics.meter(message_type).errors += 1
        return GenericError(ErrorCode.INTERNAL_ERROR, 0, f"internal error, reference {reference}")

    def _refuse(self, fault: Fault) -> None:
        """Tell the peer of a fault; an error is never answered by an error."""
        meter = self._factory.metrics.meter(fault.message_type)
        meter.errors += 1
        if fault.message_type == GenericError.TYPE:
            return
        frame = self._encoded(fault.error(extended=self._link.extended))
        if fault.takes_turn:
            self.turns.take(frame)
        else:
            self._link.put(frame)
