"""One link to a peer: bytes to events, events to handlers, answers back, one write a read."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.errors import LinkLostError
from hypercache.limits import LINK_LINGER_SECONDS, PENDING_ANSWERS_MAX_COUNT, RENEWAL_SECONDS, SIGNATURE_BYTES
from hypercache.net.dispatch import Dispatcher
from hypercache.net.farewell import Farewell
from hypercache.net.layering import Layering
from hypercache.net.lifecycle import LinkState, life_cycle
from hypercache.net.negotiation import Negotiation
from hypercache.net.outgoing import Outgoing, encode_frames
from hypercache.net.sending import SendingLink
from hypercache.net.tls import explain, looks_like_tls
from hypercache.net.unfinished import Unfinished
from hypercache.wire import Capability, ErrorCode
from hypercache.wire.header import BASE_VERSION, EXTENDED_VERSION, length_limits

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from hypercache.errors import WireError
    from hypercache.net.peer import PeerFactory
    from hypercache.wire.messages import Hello, HelloReply

_log = Logger()


class Meant(msgspec.Struct, frozen=True):
    """Whom a link was dialled for.

    Attributes:
        address: where.
        node_id: the node that must be there; 0 for any.
    """

    address: str
    node_id: int


@implementer(IHandshakeListener)
class PeerLink(SendingLink):
    """One link to a peer.

    Args:
        factory: what all links share.
        dialled: whether this side opened the connection.

    Attributes:
        machine: its life cycle.
        secure: it runs over TLS.
        secured: that has shaken hands.
        meant: whom it was dialled for; None where the peer dialled.
        member: the peer is a member of the cluster.
        node_id, boot: the peer's, 0 while unknown.
        greeting: what the peer said of itself; None of a base peer.
        said: what this node said of itself over it; None to a base peer.
        key_id: of the key that it was authenticated with; empty where there are no keys.
        expires: when its credentials end, Unix seconds.
        last_heard: when anything was read, by the reactor's clock.
        layering: what frames go through.
        farewell: its end in good order.
        ended: nothing more is handled.
        ending: why it ends; empty while it does not.
    """

    def __init__(self, factory: PeerFactory, *, dialled: bool) -> None:
        super().__init__(factory, dialled=dialled)
        self.decoder = factory.decoder()
        self.machine = life_cycle(self)
        self.secure = self.secured = False
        self.meant: Meant | None = None
        self.member = False
        self.node_id = self.boot = 0
        self.greeting: Hello | HelloReply | None = None
        self.said: Hello | HelloReply | None = None
        self.key_id = ""
        self.expires = inf
        self.last_heard = factory.clock.seconds()
        self.ended = False
        self.ending = ""
        self.negotiation: Negotiation | None = None
        self.layering = Layering(self)
        self.farewell = Farewell(self)
        # Nothing more is sent either.
        self._closed = False
        self._parting = False
        self._deadline = inf
        self._untouched = True
        self._reading = True
        self._pauses = 0
        self._unfinished = Unfinished(self.decoder, factory.budget, factory.settings.frame_timeout)
        self._lost: list[Deferred[None]] = []
        self._secured: list[Deferred[None]] = []
        self._dispatcher = Dispatcher(self)

    # Becoming a link

    def makeConnection(self, transport: Any) -> None:
        """Take the transport."""
        self.address = _shown(transport.getPeer())
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        """Begin; over TLS, when its own handshake is over."""
        self.connected_now = True
        transport = self.transport
        factory = self.factory
        # A byte that TLS vouches for is the peer's own: there is nothing to be resynchronised with.
        self.secure = self.decoder.strict = ISSLTransport.providedBy(transport)
        self.outgoing = Outgoing(
            transport,
            clock=factory.clock,
            address=self.address,
            on_room=self._room_changed,
            on_cut=self._was_cut,
            limits=factory.settings.batch,
        )
        self.outgoing.encode = b"".join
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        if factory.terms is not None:
            self.negotiation = Negotiation(self, factory.terms)
            self.decoder.stepwise = True
            self.decoder.authenticated = not factory.terms.provider.required
        self.machine.open()
        factory.opened(self)

    def handshakeCompleted(self) -> None:
        """TLS is up: the dialler may speak."""
        self.secured = True
        waiting, self._secured = self._secured, []
        for each in waiting:
            each.callback(None)

    def when_secured(self) -> Deferred[None]:
        """Return a Deferred that fires when TLS has shaken hands; it fails with LinkLostError where that never happens."""
        secured: Deferred[None] = Deferred()
        if self.secured:
            secured.callback(None)
        elif not self.connected_now:
            secured.errback(LinkLostError(self.ending))
        else:
            self._secured.append(secured)
        return secured

    def negotiate(self) -> Deferred[None]:
        """Say Hello, as `hypercache.net.negotiation.Negotiation.start` has it."""
        if self.negotiation is None or not self.connected_now:
            return fail(LinkLostError(f"the link to {self.address} is closed"))
        self.decoder.extended = True
        return self.negotiation.start()

    @property
    def may_be_base(self) -> bool:
        """Whether a peer that says no Hello is let in."""
        return self.factory.terms is None or not self.factory.terms.provider.required

    def become_base(self) -> None:
        """Take the peer for a base peer, for good."""
        self.decoder.stepwise = False
        self.decoder.authenticated = True
        self.layering.build(BASE_VERSION, None, self.factory.settings.max_frame)
        self.machine.trust()

    def establish(self, capabilities: Capability, authentication: Any, max_frame: int) -> None:
        """Speak version 0x02 from now on, through the layers that both sides have.

        Args:
            capabilities: what both can do.
            authentication: the link's `IAuthentication`; None where there is none.
            max_frame: the longest payload that both accept, in bytes.
        """
        self.capabilities = capabilities
        if self.negotiation is not None:
            self.greeting, self.said = self.negotiation.greeting, self.negotiation.said
        self.key_id = self.greeting.key_id if self.greeting is not None else ""
        self.extended = True
        self.exchanges.in_order = False
        decoder = self.decoder
        decoder.extended = decoder.strict = decoder.authenticated = decoder.bare = True
        decoder.stepwise = False
        keys = None
        if authentication is not None:
            keys = authentication.keys
            self.expires = authentication.expires
        self.longest = length_limits(max_frame - SIGNATURE_BYTES if keys is not None else max_frame)
        self.outgoing.streams = self.streams
        self.outgoing.encode = encode_frames
        self.layering.build(EXTENDED_VERSION, keys, max_frame)
        self.machine.trust()

    # Life cycle

    def entered(self, state: LinkState) -> None:
        """Take note of a new state, and of how long it may last."""
        self.state = state
        settings = self.factory.settings
        limits = {
            LinkState.HANDSHAKING: settings.hello_timeout,
            LinkState.AUTHENTICATING: settings.auth_timeout,
            LinkState.CLOSING: LINK_LINGER_SECONDS,
            LinkState.ERROR: LINK_LINGER_SECONDS,
        }
        self._deadline = self.factory.clock.seconds() + limits.get(state, inf)
        self.factory.changed(self)

    def put_off_deadline(self, seconds: float) -> None:
        """Give the present state so much more time."""
        self._deadline += seconds

    def retire(self, reason: str, code: int = ErrorCode.SHUTTING_DOWN) -> None:
        """End the link in good order (`hypercache.net.farewell`)."""
        self.farewell.begin(code, reason)

    def lose(self, reason: str, *, fault: bool = False) -> None:
        """Send what is queued and close the link.

        Args:
            reason: why, for the log.
            fault: whether something is wrong that cannot be mended.
        """
        if self.connected_now and not self._closed:
            self.ended = self._closed = True
            self.ending = self.ending or reason
            # Of strangers there may be very many.
            tell = _log.info if self.member or self.dialled else _log.debug
            tell("closing the link to {address}: {reason}", address=self.address, reason=reason)
            if fault:
                self.machine.fail()
            elif self.state not in (LinkState.CLOSING, LinkState.ERROR):
                self.machine.close()
            if not self._reading:
                # TLS ends when the peer's word of that is read.
                self.transport.resumeProducing()
            self.outgoing.close()

    def cut(self, reason: str) -> None:
        """Close the link at once: what is queued would keep a half-open connection alive."""
        if self.connected_now:
            self.lose(reason)
            self.transport.abortConnection()

    def when_lost(self) -> Deferred[None]:
        """Return a Deferred that fires when the link is lost."""
        lost: Deferred[None] = Deferred()
        if self.connected_now:
            self._lost.append(lost)
        else:
            lost.callback(None)
        return lost

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Fail everything that waits."""
        if not self.connected_now:
            return
        explained = explain(reason)
        if explained is not None and not self._closed:
            self.factory.metrics.tls_failures += 1
            self.factory.reports.error("TLS with {address} failed: {reason}", address=self.address, reason=explained)
        self.ending = self.ending or explained or "the connection was lost"
        self.connected_now = False
        self.ended = self._closed = True
        self.machine.lose()
        self.factory.closed(self)
        self._unfinished.release()
        self.outgoing.lost()
        self.layering.close()
        if self.negotiation is not None:
            self.negotiation.lost(self.ending)
        self.exchanges.fail(LinkLostError(f"the link to {self.address} was lost before it answered"))
        self.streams.lost()
        self._stop_producers()
        unsecured, self._secured = self._secured, []
        for each in unsecured:
            each.errback(LinkLostError(self.ending))
        lost, self._lost = self._lost, []
        for each in lost:
            each.callback(None)

    def _room_changed(self) -> None:
        self._steer_reading()
        self._tell_producers()

    def _was_cut(self) -> None:
        self.factory.metrics.links_cut += 1

    # Receiving

    def dataReceived(self, data: bytes) -> None:
        """Handle everything that one read completes, and write all answers at once."""
        if self.ended:
            return
        factory = self.factory
        self.last_heard = self.exchanges.now = factory.clock.seconds()
        if self._untouched:
            self._untouched = False
            if not self.secure and looks_like_tls(data):
                factory.metrics.tls_failures += 1
                factory.reports.error("{address} speaks TLS, and this port does not: it has no certificate", address=self.address)
                self.lose("TLS on a port without it")
                return
        outgoing = self.outgoing
        outgoing.batching = True
        now_ms = int(factory.wall() * 1000)
        decoder = self.decoder
        arrived = decoder.feed(data)
        try:
            self._dispatcher.dispatch(arrived, now_ms)
            while decoder.stopped and not self.ended:
                arrived = decoder.feed(b"")
                self._dispatcher.dispatch(arrived, now_ms)
            factory.before_answers()
        finally:
            outgoing.batching = False
        outgoing.settle()
        if decoder.pending_bytes or self._unfinished.held:
            self._unfinished.note(self.last_heard, progress=bool(arrived))
            if self._unfinished.exceeds_budget():
                self._unfinished.release()
                self.lose("the unfinished frames of all links exceed the receive budget")
        if self._dispatcher.pending >= PENDING_ANSWERS_MAX_COUNT or outgoing.waiting_bytes or self._pauses:
            self._steer_reading()
        if self.farewell.begun:
            self.farewell.check()
        factory.after_read()

    def out_of_layers(self, frames: list[Any]) -> None:
        """Handle frames that came up through the layers."""
        self._dispatcher.out_of_layers(frames)

    def layers_failed(self, error: WireError) -> None:
        """End the link: a layer that had held frames back hands up one that is no good."""
        self._dispatcher.layers_failed(error)

    # Pausing and ending

    @property
    def answers_pending(self) -> int:
        """How many of the peer's requests are not answered yet."""
        return self._dispatcher.pending

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading` was called as often as this."""
        self._pauses += 1
        self._steer_reading()

    def resume_reading(self) -> None:
        """Take back one `pause_reading`."""
        self._pauses -= 1
        if not self._pauses:
            self.last_heard = self.factory.clock.seconds()
        self._steer_reading()

    def answered(self) -> None:
        """Go on after an answer that had to be waited for."""
        if self._parting and not self._dispatcher.pending:
            self.lose(self.ending)
        elif not self._reading:
            self._steer_reading()
        if self.farewell.begun:
            self.farewell.check()

    def _steer_reading(self) -> None:
        """Read on only while there is room for what that makes: answers that are not ready, or that the peer does not read."""
        if not self.connected_now or self.ended:
            return
        most = PENDING_ANSWERS_MAX_COUNT if self._reading else PENDING_ANSWERS_MAX_COUNT // 2
        wanted = not self._pauses and self._dispatcher.pending < most and not self.outgoing.crowded
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def silence(self, now: float) -> float:
        """Return for how long nothing was heard though it would have been, in seconds.

        Args:
            now: by the reactor's clock.
        """
        return 0.0 if self._pauses else now - self.last_heard

    def deafen(self) -> None:
        """Handle nothing more, and read nothing more."""
        self.ended = True
        if self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def part(self, reason: str) -> None:
        """Handle nothing more because of a fault, and close when what was asked before is answered, or after a while."""
        self.ending = self.ending or reason
        if not self._dispatcher.pending:
            self.lose(reason, fault=True)
            return
        self._parting = True
        self.machine.fail()
        self.deafen()

    def check_time(self, now: float, wall: float) -> None:
        """Do what is due: end what takes too long, replace what ends soon.

        Args:
            now: by the reactor's clock.
            wall: Unix seconds.
        """
        if self._unfinished.is_late(now):
            self.lose("a frame was not whole in time")
        elif now >= self._deadline:
            self._out_of_time()
        elif self.state is LinkState.CONNECTED:
            if wall >= self.expires:
                self.retire("its credentials have ended", ErrorCode.NOT_AUTHORIZED)
            elif wall >= self.expires - RENEWAL_SECONDS:
                self.factory.renew(self)
            elif not self.member and self.silence(now) > self.factory.settings.idle_timeout:
                self.retire("it was silent for too long")
        late = self.exchanges.expire(now)
        if late:
            self.factory.metrics.deadlines_missed += late
            if self.exchanges.in_order:
                self.lose("it did not answer in time, and what it answers late would be taken for something else")

    def _out_of_time(self) -> None:
        self._deadline = inf
        if self.state is LinkState.CLOSING:
            self.cut("it did not say goodbye in time")
        elif self.state is LinkState.ERROR:
            self.lose(self.ending)
        elif self.state is LinkState.HANDSHAKING and not self.dialled and self.may_be_base and (self.secured or not self.secure):
            self.become_base()
        elif self.negotiation is not None:
            self.negotiation.expired()


def _shown(address: Any) -> str:
    host = getattr(address, "host", None)
    if host is None:
        return str(address)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
