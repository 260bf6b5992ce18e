"""One link to a peer: bytes to events, events to handlers, answers back in order, one write a read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.logger import Logger

from hypercache.errors import LinkLostError
from hypercache.limits import LINK_LINGER_SECONDS, PENDING_ANSWERS_MAX_COUNT
from hypercache.net.dispatch import Dispatcher
from hypercache.net.outgoing import Outgoing
from hypercache.net.requests import Sink
from hypercache.net.unfinished import Unfinished
from hypercache.wire import Extension, encode_extended
from hypercache.wire.messages import HashRingUpdate, HeartbeatResponse, HelloReply, NodeJoinResponse, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from hypercache.net.peer import PeerFactory
    from hypercache.wire import Message

_log = Logger()

_ANSWER_TO: Final[dict[int, type[Message]]] = {
    0x01: HelloReply,
    0x20: ReplicateResponse,
    0x30: NodeJoinResponse,
    0x32: HeartbeatResponse,
    0x41: HashRingUpdate,
}


class PeerLink(Protocol):
    """One link to a peer.

    Args:
        factory: what all links share.
        dialled: whether this side opened the connection.

    Attributes:
        extended: Hello agreed on version 0x02.
        member: the peer is a member of the cluster.
        node_id, boot: the peer's, 0 while unknown.
        address: where it is connected from or to.
        when_writable: called when `writable` is true again.
        connected_now: whether the connection is open.
        last_heard: when anything was read, by the reactor's clock.
        outgoing: what is on its way to the peer.
        closing: nothing more is handled.
    """

    transport: Any
    outgoing: Outgoing

    def __init__(self, factory: PeerFactory, *, dialled: bool) -> None:
        self.factory = factory
        self.dialled = dialled
        self.decoder = factory.decoder()
        self.extended = False
        self.member = False
        self.node_id = 0
        self.boot = 0
        self.address = "?"
        self.when_writable: Callable[[], None] | None = None
        self.last_heard = factory.clock.seconds()
        self.connected_now = False
        self.closing = False
        # Nothing more is sent either.
        self._ended = False
        self._parting: str | None = None
        self._reading = True
        self._unfinished = Unfinished(self.decoder, factory.budget, factory.settings.frame_timeout)
        self._lost: list[Deferred[None]] = []
        self._dispatcher = Dispatcher(self)

    # Sending

    @property
    def writable(self) -> bool:
        """Whether the transport takes more; while it does not, nothing but answers should be sent."""
        return self.connected_now and self.outgoing.writable

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
        self.put(frames)

    def request(self, message: Message) -> Deferred[Message]:
        """Send a request.

        Returns:
            Fires with the answer, a GenericError too; fails with LinkLostError where the link is lost first.
        """
        if not self.connected_now:
            return fail(LinkLostError(f"the link to {self.address} is closed"))
        answer: Deferred[Message] = Deferred()

        def sink(received: Message | None) -> None:
            if received is None:
                answer.errback(LinkLostError(f"the link to {self.address} was lost before it answered"))
            else:
                answer.callback(received)

        self.expect(_ANSWER_TO[message.TYPE].TYPE, sink)
        self.send(message)
        return answer

    def expect(self, answer_type: int, sink: Sink, count: int = 1) -> None:
        """Have the next ``count`` answers that are not spoken for go to ``sink``; None comes where the link is lost first."""
        self._dispatcher.requests.expect(answer_type, sink, count)

    def lose(self, reason: str) -> None:
        """Send what is queued and close the link."""
        if self.connected_now and not self._ended:
            self.closing = self._ended = True
            _log.info("closing the link to {address}: {reason}", address=self.address, reason=reason)
            if not self._reading:
                # TLS ends when the peer's word of that is read.
                self.transport.resumeProducing()
            self.outgoing.close()

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

    def put(self, frames: bytes) -> None:
        """Send whole frames that are counted already."""
        if self.connected_now:
            self.outgoing.put(frames)

    def _went_out(self) -> None:
        self._steer_reading()
        if self.outgoing.writable and self.when_writable is not None:
            self.when_writable()

    # Receiving

    def makeConnection(self, transport: Any) -> None:
        """Take the transport."""
        self.address = _shown(transport.getPeer())
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        """Begin."""
        self.connected_now = True
        transport = self.transport
        # A byte that TLS vouches for is the peer's own: there is nothing to be resynchronised with.
        self.decoder.strict = ISSLTransport.providedBy(transport)
        self.outgoing = Outgoing(transport, clock=self.factory.clock, address=self.address, on_room=self._went_out)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self.factory.opened(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Fail everything that waits."""
        if not self.connected_now:
            return
        self.connected_now = False
        self.closing = self._ended = True
        self.factory.closed(self)
        self._unfinished.release()
        self.outgoing.lost()
        self._dispatcher.requests.fail()
        lost, self._lost = self._lost, []
        for each in lost:
            each.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Handle everything that one read completes, and write all answers at once."""
        if self.closing:
            return
        factory = self.factory
        self.last_heard = factory.clock.seconds()
        outgoing = self.outgoing
        outgoing.batching = True
        arrived = self.decoder.feed(data)
        try:
            self._dispatcher.dispatch(arrived, int(factory.wall() * 1000))
        finally:
            outgoing.batching = False
        outgoing.settle()
        if self.decoder.pending_bytes or self._unfinished.held:
            self._unfinished.note(self.last_heard, progress=bool(arrived))
            if self._unfinished.exceeds_budget():
                self._unfinished.release()
                self.lose("the unfinished frames of all links exceed the receive budget")
        if len(self._dispatcher.turns) >= PENDING_ANSWERS_MAX_COUNT or outgoing.waiting_bytes:
            self._steer_reading()
        factory.after_read()

    # Pausing and ending

    def answered(self) -> None:
        """Go on after an answer that had to be waited for."""
        if self._parting is not None and not self._dispatcher.turns:
            self.lose(self._parting)
        elif not self._reading:
            self._steer_reading()

    def _steer_reading(self) -> None:
        """Read on only while there is room for what that makes: answers that are not ready, or that the peer does not read."""
        if not self.connected_now or self.closing:
            return
        most = PENDING_ANSWERS_MAX_COUNT if self._reading else PENDING_ANSWERS_MAX_COUNT // 2
        wanted = len(self._dispatcher.turns) < most and not self.outgoing.crowded
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def part(self, reason: str) -> None:
        """Handle nothing more, and close when what was asked before is answered."""
        self.closing = True
        if not self._dispatcher.turns:
            self.lose(reason)
            return
        self._parting = reason
        if self._reading:
            self._reading = False
            self.transport.pauseProducing()
        self.factory.clock.callLater(LINK_LINGER_SECONDS, self.lose, reason)

    def check_time(self, now: float) -> None:
        """Close the link where a frame takes too long to become whole."""
        if self._unfinished.is_late(now):
            self.lose("a frame was not whole in time")


def _shown(address: Any) -> str:
    host = getattr(address, "host", None)
    if host is None:
        return str(address)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
