"""The peers of a node: what their links share; `hypercache.net.link` has the link."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hypercache.limits import (
    ANSWER_SILENCE_SECONDS,
    AUTH_TIMEOUT_SECONDS,
    FRAME_TIMEOUT_SECONDS,
    HANDSHAKES_MAX_COUNT,
    HELLO_TIMEOUT_SECONDS,
    LINK_IDLE_SECONDS,
    REQUEST_TIMEOUT_SECONDS,
    STREAMS_MAX_COUNT,
)
from hypercache.net.context import PeerContext
from hypercache.net.exchanges import Numbers
from hypercache.net.flood import FloodGate
from hypercache.net.lifecycle import LinkState
from hypercache.net.link import PeerLink
from hypercache.net.outgoing import BatchLimits
from hypercache.net.unfinished import ReceiveBudget
from hypercache.wire import Decoder
from hypercache.wire.messages import KeepAlive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IAddress

    from hypercache.net.metrics import MessageMetrics
    from hypercache.net.negotiation import Terms
    from hypercache.net.router import Router
    from hypercache.tracing import Tracer
    from hypercache.wire import Message

__all__ = ["LinkSettings", "PeerContext", "PeerFactory", "PeerLink", "ReceiveBudget"]

_SWEEP_SECONDS: Final = 0.5

_log = Logger()


class LinkSettings(msgspec.Struct, frozen=True):
    """What bounds a link; the names are the configuration's."""

    max_frame: int
    resync_bytes_max: int
    errors_max: int
    frame_timeout: float = FRAME_TIMEOUT_SECONDS
    hello_timeout: float = HELLO_TIMEOUT_SECONDS
    auth_timeout: float = AUTH_TIMEOUT_SECONDS
    idle_timeout: float = LINK_IDLE_SECONDS
    request_timeout: float = REQUEST_TIMEOUT_SECONDS
    bulk_timeout: float = ANSWER_SILENCE_SECONDS
    handshakes_max: int = HANDSHAKES_MAX_COUNT
    streams_max: int = STREAMS_MAX_COUNT
    batch: BatchLimits = BatchLimits()


class PeerFactory(Factory):
    """What all links of a node share.

    Args:
        router: the handlers.
        metrics: the figures.
        settings: the bounds of each link.
        budget: the bound of all links together.
        clock: the reactor, for time-outs.
        wall: returns Unix seconds, for stamps.
        layers: `IFrameLayerFactory` objects: what links are made of where both sides have it.

    Attributes:
        terms: on what terms links are made; None, and every peer is a base peer.
        accepting: whether connections are taken; a node does so when its terms are known.
        tracer: serves the requests that are traced; None, and none are.
        numbers: of the requests over all links.
        reports: where faults are logged that any peer can cause.
        links: those that are open.
        before_answers: called when all of a read is handled, before its answers are written.
        after_read: called after each read, when its answers are written.
        last_answer, last_frame: the answer that was encoded last for a base peer, and its bytes.
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
        layers: Iterable[Any] = (),
    ) -> None:
        self.router = router
        self.metrics = metrics
        self.settings = settings
        self.budget = budget or ReceiveBudget()
        self.clock = clock
        self.wall = wall
        self.layers = sorted(layers, key=lambda layer: layer.order)
        self.terms: Terms | None = None
        self.accepting = True
        self.tracer: Tracer | None = None
        self.numbers = Numbers()
        self.reports = FloodGate(_log, clock, "faults of peers")
        self.links: set[PeerLink] = set()
        self.before_answers: Callable[[], None] = _nothing
        self.after_read: Callable[[], None] = _nothing
        # Those that shake hands, the oldest first.
        self._handshakes: OrderedDict[PeerLink, None] = OrderedDict()
        self.last_answer: Message = KeepAlive()
        self.last_frame = b""
        self._sweep = LoopingCall(self._check_times)
        self._sweep.clock = clock

    def buildProtocol(self, addr: IAddress | None) -> PeerLink | None:
        """Return the link of a connection that a peer opened; None, which closes it, where none is taken."""
        return PeerLink(self, dialled=False) if self.accepting else None

    def decoder(self) -> Decoder:
        """Return the decoder of a new link."""
        settings = self.settings
        return Decoder(
            self.router.schema,
            max_frame=settings.max_frame,
            resync_bytes_max=settings.resync_bytes_max,
            errors_max=settings.errors_max,
        )

    def count_repeated(self, count: int) -> int:
        """Count answers that were sent as `last_frame` again; return 0, the count of those to come."""
        if count:
            self.metrics.meter(self.last_answer.TYPE).sent += count
        return 0

    def opened(self, link: PeerLink) -> None:
        """Watch over a link."""
        self.links.add(link)
        if not self._sweep.running:
            self._sweep.start(_SWEEP_SECONDS, now=False)

    def closed(self, link: PeerLink) -> None:
        """Forget a link."""
        self.links.discard(link)
        self._handshakes.pop(link, None)
        if not self.links and self._sweep.running:
            self._sweep.stop()

    def changed(self, link: PeerLink) -> None:
        """Take note of a link's new state; of those that shake hands there are so many at most, or the oldest goes."""
        if link.state in (LinkState.HANDSHAKING, LinkState.AUTHENTICATING):
            self._handshakes[link] = None
            if len(self._handshakes) > self.settings.handshakes_max:
                oldest, _ = self._handshakes.popitem(last=False)
                self.metrics.handshakes_dropped += 1
                oldest.cut("too many links shake hands, and it is the oldest")
        else:
            self._handshakes.pop(link, None)

    def renew(self, link: PeerLink) -> None:
        """Take note that a link's credentials end soon."""
        if self.terms is not None:
            self.terms.renew(link)

    def _check_times(self) -> None:
        now, wall = self.clock.seconds(), self.wall()
        for link in list(self.links):
            try:
                link.check_time(now, wall)
            except Exception:  # noqa: BLE001 - a fault at one link must not end the watch over all
                _log.failure("the times of the link to {address} cannot be looked after", address=link.address)
                link.cut("its times cannot be looked after")


def _nothing() -> None:
    """Do nothing after a read."""
