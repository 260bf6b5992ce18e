"""The frame layers of one link, between its messages and its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypercache.layers.stack import LinkView, Stack
from hypercache.net.outgoing import encode_frames

if TYPE_CHECKING:
    from hypercache.net.link import PeerLink
    from hypercache.wire.events import Frame


class Layering:
    """The layers of one link; none until it is established, and none where no layer is for it.

    Args:
        link: the link.
    """

    __slots__ = ("_collected", "_link", "_stack")

    def __init__(self, link: PeerLink) -> None:
        self._link = link
        self._stack: Stack | None = None
        # What has come out at the bottom while frames are encoded.
        self._collected: list[Any] | None = None

    def build(self, version: int, keys: tuple[bytes, bytes] | None, max_frame: int) -> None:
        """Put those layers between that the link is to have.

        Args:
            version: that of the frames.
            keys: what signs and what verifies; None for unsigned frames.
            max_frame: the longest payload that both sides accept, in bytes.

        Raises:
            AuthenticationError: a layer that must be there cannot be.
        """
        link = self._link
        view = LinkView(
            dialled=link.dialled,
            extended=link.extended,
            node_id=link.node_id,
            capabilities=int(link.capabilities),
            keys=keys,
            max_frame=max_frame,
            clock=link.factory.clock,
            pause=link.pause_reading,
            resume=link.resume_reading,
            is_member=lambda: link.member,
            fail=link.layers_failed,
        )
        layers = []
        for each in link.factory.layers:
            if each.capability & ~link.capabilities or not (link.extended or each.base_peers):
                continue
            layer = each.layer(view)
            if layer is not None:
                layers.append(layer)
        if layers:
            self._stack = Stack(layers, write=self._out_at_bottom, handle=link.out_of_layers)
            link.decoder.raw_version = version
            if keys is not None:
                # Frames of the other version would pass by the layers, unsigned (wire.md, section 3).
                link.decoder.only_version = version
            if link.extended:
                link.outgoing.encode = self._encode

    def receive(self, frames: list[Frame]) -> None:
        """Take the frames of a read, at the bottom.

        Raises:
            WireError: the link must close.
        """
        assert self._stack is not None
        self._stack.receive(frames)

    def close(self) -> None:
        """The link is gone."""
        if self._stack is not None:
            self._stack.close()

    def _encode(self, frames: list[Any]) -> bytes:
        """Return the bytes of frames that went down through the layers; those of the handshake went by."""
        assert self._stack is not None
        first = 0
        while first < len(frames) and frames[first].__class__ is bytes:
            first += 1
        self._collected = frames[:first]
        self._stack.send(frames[first:] if first else frames)
        collected, self._collected = self._collected, None
        return encode_frames(collected)

    def _out_at_bottom(self, frames: list[Frame]) -> None:
        if self._collected is not None:
            self._collected += frames
        elif self._link.connected_now:
            # A layer has held them back until now.
            self._link.outgoing.write_now(encode_frames(frames))
