"""One link to a peer: bytes to events, events to handlers, answers back in order, one write a read."""

from __future__ import annotations

import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.errors import LinkLostError
from hypercache.limits import (
    FRAME_TIMEOUT_SECONDS,
    FRAME_TIMEOUT_SECONDS_PER_MIB,
    MIB,
    PEER_OUTPUT_MAX_BYTES,
    PEER_OUTPUT_PAUSE_BYTES,
    PENDING_ANSWERS_MAX_COUNT,
    RECEIVE_BUDGET_BYTES,
)
from hypercache.wire import Decoder, ErrorCode, Extension, encode_extended
from hypercache.wire import events as wire_events
from hypercache.wire.header import HIGHEST_VERSION
from hypercache.wire.messages import (
    GenericError,
    HashRingUpdate,
    HeartbeatResponse,
    HelloReply,
    KeepAlive,
    NodeJoinResponse,
    ReplicateResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from hypercache.net.metrics import MessageMetrics
    from hypercache.net.router import Router
    from hypercache.wire import Message

_log = Logger()

_ANSWERS: Final = frozenset((0x02, 0x04, 0x09, 0x11, 0x13, 0x15, 0x17, 0x1A, 0x1C, 0x21, 0x23, 0x31, 0x33, 0x35, 0x51, 0xFF))
"""Types that only ever answer; HashRingUpdate does so too, but comes unasked as well."""

_TAKE_NO_TURN: Final = frozenset((ErrorCode.INVALID_VERSION, ErrorCode.CHECKSUM_MISMATCH, ErrorCode.MESSAGE_TOO_LARGE))

_ANSWER_TO: Final[dict[int, type[Message]]] = {
    0x01: HelloReply,
    0x20: ReplicateResponse,
    0x30: NodeJoinResponse,
    0x32: HeartbeatResponse,
    0x41: HashRingUpdate,
}


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


class ReceiveBudget:
    """What the unfinished frames of all links may take together.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int = RECEIVE_BUDGET_BYTES) -> None:
        self.limit = limit
        self.held = 0


class LinkSettings(msgspec.Struct, frozen=True):
    """What bounds a link; the names are the configuration's."""

    max_frame: int
    resync_bytes_max: int
    errors_max: int
    frame_timeout: float = FRAME_TIMEOUT_SECONDS


class _Turn(msgspec.Struct):
    """The place in the row of answers of a request that is still being handled; ``frame`` is filled in when it is done."""

    frame: bytes | None = None


@implementer(IPushProducer)
class PeerLink(Protocol):
    """One link to a peer.

    Args:
        factory: what all links share.
        dialled: whether this side opened the connection.

    Attributes:
        extended: Hello agreed on version 0x02.
        member: the peer is a member of the cluster.
        node_id, boot: the peer's, 0 while unknown.
        writable: the transport takes more; while it does not, nothing but answers should be sent.
        when_writable: called when it does again.
        connected_now: whether the connection is open.
        last_heard: when anything was read, by the reactor's clock.
    """

    transport: Any

    def __init__(self, factory: PeerFactory, *, dialled: bool) -> None:
        settings = factory.settings
        self.factory = factory
        self.dialled = dialled
        self.decoder = Decoder(
            factory.router.schema,
            max_frame=settings.max_frame,
            resync_bytes_max=settings.resync_bytes_max,
            errors_max=settings.errors_max,
        )
        self.extended = False
        self.member = False
        self.node_id = 0
        self.boot = 0
        self.address = "?"
        self.writable = True
        self.when_writable: Callable[[], None] | None = None
        self.last_heard = factory.clock.seconds()
        self.frame_deadline = 0.0
        self.connected_now = False
        self._closing = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flush_scheduled = False
        self._in_read = False
        self._turns: deque[_Turn] = deque()
        self._outstanding: deque[tuple[int, Callable[[Message | None], None]]] = deque()
        self._lost: list[Deferred[None]] = []
        self._paused = False
        self._held_bytes = 0

    # Sending

    def send(self, message: Message, extension: Extension | None = None) -> None:
        """Send a message: with what this read makes, or at the end of this turn of the reactor.

        Args:
            message: the message.
            extension: what goes with it; only on an extended link.
        """
        frame = message.encode_frame() if extension is None else encode_extended(message, extension)
        self.send_encoded(frame, 1, message.TYPE)

    def send_encoded(self, frames: bytes, count: int, message_type: int) -> None:
        """Send ``count`` whole frames of one type."""
        self.factory.metrics.meter(message_type).sent += count
        self._queue(frames)

    def request(self, message: Message) -> Deferred[Message]:
        """Send a request.

        Returns:
            Fires with the answer, a GenericError too; fails with LinkLostError where the link is lost first.
        """
        answer: Deferred[Message] = Deferred()

        def sink(received: Message | None) -> None:
            if received is None:
                answer.errback(LinkLostError(f"the link to {self.address} was lost before it answered"))
            else:
                answer.callback(received)

        if not self.connected_now:
            return fail(LinkLostError(f"the link to {self.address} is closed"))
        self.expect(_ANSWER_TO[message.TYPE].TYPE, sink)
        self.send(message)
        return answer

    def expect(self, answer_type: int, sink: Callable[[Message | None], None], count: int = 1) -> None:
        """Have the next ``count`` answers that are not spoken for go to ``sink``; None comes where the link is lost first."""
        self._outstanding.extend([(answer_type, sink)] * count)

    def lose(self, reason: str) -> None:
        """Send what is queued and close the link."""
        if not self._closing and self.connected_now:
            self._closing = True
            _log.info("closing the link to {address}: {reason}", address=self.address, reason=reason)
            self._flush()
            self.transport.loseConnection()

    def when_lost(self) -> Deferred[None]:
        """Return a Deferred that fires when the link is lost."""
        lost: Deferred[None] = Deferred()
        if self.connected_now:
            self._lost.append(lost)
        else:
            lost.callback(None)
        return lost

    def accept_extended(self) -> None:
        """Understand version 0x02 from now on: Hello has gone out, or come in."""
        self.decoder.extended = True

    def become_extended(self) -> None:
        """Speak version 0x02: Hello has agreed on it. From now on nothing but sound frames is accepted."""
        self.decoder.extended = True
        self.decoder.strict = True
        self.extended = True

    def _queue(self, frames: bytes) -> None:
        if not self.connected_now:
            return
        self._out.append(frames)
        self._out_bytes += len(frames)
        if not self._in_read and not self._flush_scheduled:
            self._flush_scheduled = True
            self.factory.clock.callLater(0, self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_scheduled = False
        if self.writable:
            self._flush()
        else:
            self._check_backlog()

    def _flush(self) -> None:
        """Write what is queued: the one place that does."""
        if self._out and self.connected_now:
            frames = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out = []
            self._out_bytes = 0
            self.transport.write(frames)

    def _check_backlog(self) -> None:
        """A peer that does not read: stop reading from it, then close."""
        if self._out_bytes > PEER_OUTPUT_MAX_BYTES:
            _log.warn("{address} does not read: {count} bytes wait", address=self.address, count=self._out_bytes)
            self._abort()
        elif self._out_bytes > PEER_OUTPUT_PAUSE_BYTES:
            self._pause_reading()

    # IPushProducer, towards the transport

    def pauseProducing(self) -> None:
        """Hold back: the transport's buffer is full."""
        self.writable = False

    def resumeProducing(self) -> None:
        """Go on: the transport's buffer is empty."""
        self.writable = True
        self._flush()
        self._resume_reading()
        if self.writable and self.when_writable is not None:
            self.when_writable()

    def stopProducing(self) -> None:
        """Nothing more can be sent."""

    # Receiving

    def makeConnection(self, transport: Any) -> None:
        """Take the transport."""
        self.address = _shown(transport.getPeer())
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        """Begin."""
        self.connected_now = True
        self.transport.registerProducer(self, True)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self.factory.links.add(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Fail everything that waits."""
        self.connected_now = False
        self.factory.links.discard(self)
        self.factory.budget.held -= self._held_bytes
        self._held_bytes = 0
        outstanding, self._outstanding = self._outstanding, deque()
        for _, sink in outstanding:
            sink(None)
        lost, self._lost = self._lost, []
        for each in lost:
            each.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Handle everything that one read completes, and write all answers at once."""
        factory = self.factory
        self.last_heard = factory.clock.seconds()
        self._in_read = True
        try:
            self._handle(self.decoder.feed(data), int(factory.wall() * 1000))
        finally:
            self._in_read = False
        if self.writable:
            self._flush()
        else:
            self._check_backlog()
        held = self.decoder.pending_bytes
        if held or self._held_bytes:
            self._account(held)
        factory.after_read()

    def _account(self, held: int) -> None:
        """Keep the unfinished frame within its time and the shared budget."""
        factory = self.factory
        budget = factory.budget
        begun = held and (not self._held_bytes or held < self._held_bytes)
        budget.held += held - self._held_bytes
        self._held_bytes = held
        if not held:
            self.frame_deadline = 0.0
        elif begun or not self.frame_deadline:
            size = max(self.decoder.awaited_bytes, held)
            timeout = factory.settings.frame_timeout + size / MIB * FRAME_TIMEOUT_SECONDS_PER_MIB
            self.frame_deadline = factory.clock.seconds() + timeout
        if budget.held > budget.limit:
            self.lose("the unfinished frames of all links exceed the receive budget")

    def _handle(self, events: list[wire_events.Event], now_ms: int) -> None:
        factory = self.factory
        base = PeerContext(self, now_ms)
        place = 0
        while place < len(events) and not self._closing:
            event = events[place]
            cls = event.__class__
            special = _SPECIAL.get(cls)
            if special is not None:
                special(self, event, now_ms)
                place += 1
                continue
            message_type: int = cls.TYPE  # type: ignore[union-attr]
            if message_type in _ANSWERS or (message_type == HashRingUpdate.TYPE and self._awaits(message_type)):
                self._answered(event)  # type: ignore[arg-type]
                place += 1
                continue
            # Frames come in runs of one type: the look-up, the clock and the counting are for the run.
            handler = self._handler(message_type)
            if handler is None:
                place += 1
                continue
            started = time.perf_counter()
            first = place
            handle = handler.handle
            failed = False
            while place < len(events) and events[place].__class__ is cls and not self._closing:
                message = events[place]
                place += 1
                try:
                    answer = handle(base, message)
                except Exception:  # noqa: BLE001 - a handler's bug is its own; the peer hears that there was one
                    self._handler_failed(message_type)
                    failed = True
                    continue
                if answer is not None:
                    self._answer(answer, message_type)
            factory.metrics.meter(message_type).handled(place - first, time.perf_counter() - started)
            if failed:
                _log.warn("messages of type 0x{type:02x} from {address} failed", type=message_type, address=self.address)

    def _handler(self, message_type: int) -> Any | None:
        """Return who takes a type; where nobody does or may, tell the peer."""
        if message_type == KeepAlive.TYPE:
            return None
        handler = self.factory.router.handler_for(message_type)
        if handler is None:
            self._unknown_type(message_type)
            return None
        if handler.requires_auth and not self.decoder.authenticated:
            self._error(ErrorCode.NOT_AUTHORIZED, "authentication is required", message_type)
            return None
        return handler

    def _one(self, message: Message, context: PeerContext) -> None:
        """Handle one message that came in a version 0x02 frame."""
        message_type = message.TYPE
        if message_type in _ANSWERS or (message_type == HashRingUpdate.TYPE and self._awaits(message_type)):
            self._answered(message)
            return
        handler = self._handler(message_type)
        if handler is None:
            return
        started = time.perf_counter()
        try:
            answer = handler.handle(context, message)
        except Exception:  # noqa: BLE001 - see above
            self._handler_failed(message_type)
            return
        if answer is not None:
            self._answer(answer, message_type)
        self.factory.metrics.meter(message_type).handled(1, time.perf_counter() - started)

    def _answer(self, answer: Any, message_type: int) -> None:
        """Send an answer in its turn: after those of the requests that came before."""
        if isinstance(answer, Deferred):
            turn = _Turn()
            self._turns.append(turn)
            if len(self._turns) >= PENDING_ANSWERS_MAX_COUNT:
                self._pause_reading()
            answer.addCallbacks(self._encoded, self._failed, errbackArgs=(message_type,))
            answer.addCallback(self._turn_done, turn)
            return
        frame = self._encoded(answer)
        if self._turns:
            self._turns.append(_Turn(frame))
        else:
            self._queue(frame)

    def _encoded(self, answer: Message | None) -> bytes:
        if answer is None:
            return b""
        factory = self.factory
        factory.metrics.meter(answer.TYPE).sent += 1
        # The same object answers most requests of a run ("done"): its bytes are kept.
        if answer is factory.last_answer:
            kept: bytes = factory.last_frame
            return kept
        factory.last_answer = answer
        factory.last_frame = frame = answer.encode_frame()
        return frame

    def _failed(self, failure: Failure, message_type: int) -> bytes:
        return self._internal_error(message_type, failure).encode_frame()

    def _turn_done(self, frame: bytes, turn: _Turn) -> None:
        turn.frame = frame
        turns = self._turns
        while turns and turns[0].frame is not None:
            self._queue(turns.popleft().frame or b"")
        if len(turns) < PENDING_ANSWERS_MAX_COUNT // 2:
            self._resume_reading()

    def _handler_failed(self, message_type: int) -> None:
        self._answer(self._internal_error(message_type, None), message_type)

    def _internal_error(self, message_type: int, failure: Failure | None) -> GenericError:
        """Log a handler's failure and return what the peer hears of it: a reference, nothing of the cause."""
        reference = secrets.token_hex(4)
        _log.failure("the handler of type 0x{type:02x} failed [{reference}]", failure, type=message_type, reference=reference)
        self.factory.metrics.meter(message_type).errors += 1
        return GenericError(ErrorCode.INTERNAL_ERROR, 0, f"internal error, reference {reference}")

    def _answered(self, answer: Message) -> None:
        meter = self.factory.metrics.meter(answer.TYPE)
        meter.received += 1
        if isinstance(answer, GenericError):
            meter.errors += 1
            if answer.error_code in _TAKE_NO_TURN:
                _log.warn("{address} reports a damaged frame: {text}", address=self.address, text=answer.message)
                return
        elif not self._awaits(answer.TYPE):
            self.factory.metrics.unexpected_answers += 1
            return
        if not self._outstanding:
            self.factory.metrics.unexpected_answers += 1
            return
        _, sink = self._outstanding.popleft()
        sink(answer)

    def _awaits(self, answer_type: int) -> bool:
        return bool(self._outstanding) and self._outstanding[0][0] == answer_type

    # What is wrong with frames

    def _error(self, code: int, text: str, message_type: int, extra: int = 0, *, in_turn: bool = True) -> None:
        """Send an error; to a peer that never said Hello, codes of our own go out as an internal error."""
        self.factory.metrics.meter(message_type).errors += 1
        if code >= ErrorCode.MALFORMED_MESSAGE and not self.extended:
            code = ErrorCode.INTERNAL_ERROR
        frame = GenericError(code, extra, text).encode_frame()
        self.factory.metrics.meter(GenericError.TYPE).sent += 1
        if in_turn and self._turns:
            self._turns.append(_Turn(frame))
        else:
            self._queue(frame)

    def _unknown_type(self, message_type: int) -> None:
        self.factory.metrics.meter(message_type).received += 1
        self._error(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"unknown message type 0x{message_type:02x}", message_type, message_type)

    def _on_extended(self, event: wire_events.Extended, now_ms: int) -> None:
        self._one(event.message, PeerContext(self, now_ms, event.extension))

    def _on_unknown(self, event: wire_events.UnknownType, now_ms: int) -> None:
        self._unknown_type(event.type)

    def _on_malformed(self, event: wire_events.Malformed, now_ms: int) -> None:
        if event.type != GenericError.TYPE:
            self._error(ErrorCode.MALFORMED_MESSAGE, f"malformed message: {event.reason}", event.type)

    def _on_version(self, event: wire_events.BadVersion, now_ms: int) -> None:
        text = f"version {event.version} is not spoken here"
        self._error(ErrorCode.INVALID_VERSION, text, event.type, HIGHEST_VERSION, in_turn=False)

    def _on_checksum(self, event: wire_events.BadChecksum, now_ms: int) -> None:
        self._error(ErrorCode.CHECKSUM_MISMATCH, "checksum mismatch", event.type, event.computed, in_turn=False)

    def _on_large(self, event: wire_events.TooLarge, now_ms: int) -> None:
        text = f"a payload of {event.length} bytes exceeds the limit of {event.limit}"
        self._error(ErrorCode.MESSAGE_TOO_LARGE, text, event.type, event.limit, in_turn=False)

    def _on_garbage(self, event: wire_events.Garbage, now_ms: int) -> None:
        self.factory.metrics.garbage_bytes += event.count
        _log.warn("skipped {count} bytes of garbage from {address}", count=event.count, address=self.address)

    def _on_broken(self, event: wire_events.Broken, now_ms: int) -> None:
        self.factory.metrics.links_broken += 1
        self.lose(event.reason)

    # Reading

    def _pause_reading(self) -> None:
        if not self._paused and self.connected_now:
            self._paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._paused and self.connected_now and len(self._turns) < PENDING_ANSWERS_MAX_COUNT // 2:
            self._paused = False
            self.transport.resumeProducing()

    def _abort(self) -> None:
        self._closing = True
        self.transport.abortConnection()

    def check_time(self, now: float) -> None:
        """Close the link where a frame takes too long to become whole."""
        if self.frame_deadline and now > self.frame_deadline:
            self.lose("a frame was not whole in time")


_SPECIAL: Final[dict[type[Any], Callable[[PeerLink, Any, int], None]]] = {
    wire_events.Extended: PeerLink._on_extended,
    wire_events.UnknownType: PeerLink._on_unknown,
    wire_events.Malformed: PeerLink._on_malformed,
    wire_events.BadVersion: PeerLink._on_version,
    wire_events.BadChecksum: PeerLink._on_checksum,
    wire_events.TooLarge: PeerLink._on_large,
    wire_events.Garbage: PeerLink._on_garbage,
    wire_events.Broken: PeerLink._on_broken,
}


class PeerFactory(Factory):
    """What all links of a node share.

    Args:
        router: the handlers.
        metrics: the figures.
        settings: the bounds of each link.
        budget: the bound of all links together.
        clock: the reactor, for time-outs.
        wall: returns Unix seconds, for stamps.

    Attributes:
        links: those that are open.
        after_read: called after each read, when its answers are written.
    """

    noisy = False

    def __init__(
        self,
        router: Router,
        metrics: MessageMetrics,
        settings: LinkSettings,
        *,
        clock: Any,
        wall: Callable[[], float] = time.time,
        budget: ReceiveBudget | None = None,
    ) -> None:
        self.router = router
        self.metrics = metrics
        self.settings = settings
        self.budget = budget or ReceiveBudget()
        self.clock = clock
        self.wall = wall
        self.links: set[PeerLink] = set()
        self.after_read: Callable[[], None] = _nothing
        self.last_answer: Message | None = None
        self.last_frame = b""
        self._sweep = LoopingCall(self._check_times)
        self._sweep.clock = clock

    def doStart(self) -> None:
        """Start to watch over unfinished frames."""
        super().doStart()
        if not self._sweep.running:
            self._sweep.start(1.0, now=False)

    def doStop(self) -> None:
        """Stop that."""
        super().doStop()
        if not self.numPorts and self._sweep.running:
            self._sweep.stop()

    def buildProtocol(self, addr: IAddress | None) -> PeerLink:
        """Return the link of a connection that a peer opened."""
        return PeerLink(self, dialled=False)

    def _check_times(self) -> None:
        now = self.clock.seconds()
        for link in list(self.links):
            link.check_time(now)


def _nothing() -> None:
    """Do nothing after a read."""


def _shown(address: Any) -> str:
    host = getattr(address, "host", None)
    if host is None:
        return str(address)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
