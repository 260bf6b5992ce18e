"""Where a message came from, as its handler is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from hypercache.net.link import PeerLink
    from hypercache.net.streams import Stream
    from hypercache.wire import Extension
    from hypercache.wire.extension import Trace


class PeerContext(msgspec.Struct):
    """Where a message came from.

    Attributes:
        link: the link.
        now_ms: when it was read, Unix milliseconds.
        extension: what came with it in a version 0x02 frame.
        stream: the stream it came on, None for the link's own.
    """

    link: PeerLink
    now_ms: int
    extension: Extension | None = None
    stream: Stream | None = None

    @property
    def stamp(self) -> int:
        """The message's stamp; 0 for none."""
        return self.extension.stamp if self.extension is not None else 0

    @property
    def trace(self) -> Trace | None:
        """Where the request came from, where it is traced."""
        return self.extension.trace if self.extension is not None else None

    @property
    def member(self) -> bool:
        """Whether the sender is a member of the cluster."""
        return self.link.member

    @property
    def node_id(self) -> int:
        """The sender's node id; 0 while unknown."""
        return self.link.node_id
