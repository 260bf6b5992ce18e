"""The peers of a node: what their links share; `hypercache.net.link` has the link."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall

from hypercache.limits import FRAME_TIMEOUT_SECONDS
from hypercache.net.dispatch import PeerContext
from hypercache.net.link import PeerLink
from hypercache.net.unfinished import ReceiveBudget
from hypercache.wire import Decoder
from hypercache.wire.messages import KeepAlive

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress

    from hypercache.net.metrics import MessageMetrics
    from hypercache.net.router import Router
    from hypercache.wire import Message

__all__ = ["LinkSettings", "PeerContext", "PeerFactory", "PeerLink", "ReceiveBudget"]


class LinkSettings(msgspec.Struct, frozen=True):
    """What bounds a link; the names are the configuration's."""

    max_frame: int
    resync_bytes_max: int
    errors_max: int
    frame_timeout: float = FRAME_TIMEOUT_SECONDS


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
        last_answer, last_frame: the answer that was encoded last, and its bytes.
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
        self.last_answer: Message = KeepAlive()
        self.last_frame = b""
        self._sweep = LoopingCall(self._check_times)
        self._sweep.clock = clock

    def buildProtocol(self, addr: IAddress | None) -> PeerLink:
        """Return the link of a connection that a peer opened."""
        return PeerLink(self, dialled=False)

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
            self._sweep.start(1.0, now=False)

    def closed(self, link: PeerLink) -> None:
        """Forget a link."""
        self.links.discard(link)
        if not self.links and self._sweep.running:
            self._sweep.stop()

    def _check_times(self) -> None:
        now = self.clock.seconds()
        for link in list(self.links):
            link.check_time(now)


def _nothing() -> None:
    """Do nothing after a read."""
