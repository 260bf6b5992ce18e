"""A frame layer: it sees every frame of a link in both directions, and changes none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from hypercache.interfaces import IFrameLayerFactory
from hypercache.layers.stack import FrameLayer

if TYPE_CHECKING:
    from hypercache.layers.stack import Frame, LinkView

_log = Logger()


class TallyLayer(FrameLayer):
    """Counts the frames of one link, and logs the figures when it ends.

    Args:
        node_id: the peer's.
    """

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._sent = 0
        self._received = 0

    def send(self, frames: list[Frame]) -> None:
        """Count and hand down."""
        self._sent += len(frames)
        self.below.send(frames)

    def receive(self, frames: list[Any]) -> None:
        """Count and hand up; what a layer below refused is in the list as well, and is nobody's frame."""
        self._received += sum(frame.__class__ is tuple for frame in frames)
        self.above.receive(frames)

    def close(self) -> None:
        """Log."""
        _log.info(
            "the link of node {node} carried {sent} frames out and {received} in",
            node=self._node_id,
            sent=self._sent,
            received=self._received,
        )


@implementer(IPlugin, IFrameLayerFactory)
class Tally:
    """Puts the layer into each link between nodes, above signing and compression: it sees what was meant, not what travels."""

    name = "tally"
    order = 50
    capability = 0
    base_peers = False

    def layer(self, link: LinkView) -> TallyLayer:
        """Return the layer of a link."""
        return TallyLayer(link.node_id)
