"""Peers without a cluster around them: handlers of a test's own, a transport of memory."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from hypercache.auth.none import NoAuthProvider
from hypercache.interfaces import IMessageHandler
from hypercache.net.metrics import MessageMetrics
from hypercache.net.peer import LinkSettings, PeerFactory, PeerLink, ReceiveBudget
from hypercache.net.router import Router
from hypercache.wire import Decoder
from hypercache.wire.messages import SCHEMA, Heartbeat, HeartbeatResponse, ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.wire.events import Event
    from hypercache.wire.messages import Hello, HelloReply

MAX_FRAME = 64 << 20
DONE = ReplicateResponse(0, 0)


@implementer(IMessageHandler)
class Handler:
    """A handler that does what the test says."""

    def __init__(self, message_type: int, handle: Callable[[Any, Any], Any], *, requires_auth: bool = False) -> None:
        self.message_type = message_type
        self.requires_auth = requires_auth
        self._handle = handle

    def handle(self, context: Any, message: Any) -> Any:
        return self._handle(context, message)


def echo(context: Any, message: Heartbeat) -> HeartbeatResponse:
    return HeartbeatResponse(message.timestamp, 0)


def beat(number: int) -> bytes:
    return Heartbeat(1, number, 3).encode_frame()


def write(value: bytes) -> bytes:
    return ReplicateData(1, 0, "", b"k", value).encode_frame()


class Terms:
    """On what terms a node without a cluster links: with everybody whose provider agrees."""

    failure_delay = 1.0

    def __init__(self, provider: Any = None, *, required: bool = False, node_id: int = 1, capabilities: int = 0x78) -> None:
        self.provider = provider or NoAuthProvider()
        if required:
            self.provider.required = True
        self.node_id = node_id
        self.capabilities = capabilities
        self.wall: Callable[[], float] = time.time
        self.refusal: str | None = None
        self.renewed: list[PeerLink] = []

    def hello(self, cls: type[Hello | HelloReply], key_id: str) -> Hello | HelloReply:
        return cls(1, 2, self.capabilities, self.node_id, 1, 0, 1, 0, bytes(32), MAX_FRAME, 0, key_id, f"n{self.node_id}", "", "")

    def judge(self, link: PeerLink, greeting: Hello | HelloReply) -> str | None:
        link.node_id = greeting.node_id
        return self.refusal

    def renew(self, link: PeerLink) -> None:
        self.renewed.append(link)

    def settle(self, link: PeerLink) -> str | None:
        return None


def peer_factory(
    *handlers: Handler,
    clock: Any = reactor,
    budget: ReceiveBudget | None = None,
    frame_timeout: float = 10.0,
    terms: Terms | None = None,
    layers: Iterable[Any] = (),
    **settings: Any,
) -> PeerFactory:
    """Return a factory whose links answer heartbeats and writes, unless a handler given takes those."""
    router = Router(SCHEMA, handlers)
    for each in (Handler(Heartbeat.TYPE, echo), Handler(ReplicateData.TYPE, lambda context, message: DONE)):
        if router.handler_for(each.message_type) is None:
            router.add(each)
    bounds = LinkSettings(max_frame=MAX_FRAME, resync_bytes_max=1 << 20, errors_max=16, frame_timeout=frame_timeout, **settings)
    factory = PeerFactory(router, MessageMetrics(SCHEMA), bounds, clock=clock, budget=budget, layers=layers)
    factory.terms = terms
    return factory


class Wire(StringTransport):
    """A transport of memory: it counts its writes, fills up when told to, and hands over what was sent as events."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.full = False
        self.aborted = False
        self._decoder = Decoder()
        self._decoder.extended = True

    def write(self, data: bytes) -> None:
        assert not self.disconnecting, "nothing is written behind the end"
        self.writes.append(data)
        if self.full and self.producer is not None:
            self.producer.pauseProducing()

    def events(self) -> list[Event]:
        """Return what was sent since the last call."""
        data = b"".join(self.writes)
        self.writes.clear()
        return self._decoder.feed(data)

    def drain(self) -> None:
        self.full = False
        assert self.producer is not None
        self.producer.resumeProducing()

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


def linked(factory: PeerFactory, *, dialled: bool = False) -> tuple[PeerLink, Wire]:
    link = PeerLink(factory, dialled=dialled)
    wire = Wire()
    link.makeConnection(wire)
    return link, wire


class RemotePeer(Protocol):
    """The far end of a real connection."""

    transport: Any

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reads = 0
        self.lost = False
        self._decoder = Decoder()

    def dataReceived(self, data: bytes) -> None:
        self.reads += 1
        self.events += self._decoder.feed(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


def noise(count: int, seed: int = 1) -> bytes:
    """Return garbage without a magic."""
    return random.Random(seed).randbytes(count).replace(b"H", b"h")
