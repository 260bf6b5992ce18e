"""Compressed bodies: smaller frames where both sides know how (wire.md, section 3)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from zope.interface import implementer

from hypercache.errors import MalformedMessageError
from hypercache.interfaces import IFrameLayerFactory
from hypercache.layers.stack import FrameLayer
from hypercache.limits import COMPRESSION_RATIO_MAX, COMPRESSION_THRESHOLD_BYTES, INFLATED_BATCH_BYTES
from hypercache.wire.codes import Capability
from hypercache.wire.compression import Codec, Deflater, Inflater
from hypercache.wire.extension import COMPRESSED, CORRELATED, MORE, SIGNED, STAMPED, STREAM, TRACED
from hypercache.wire.header import length_limits
from hypercache.wire.leb128 import decode_leb128

if TYPE_CHECKING:
    from hypercache.layers.stack import Frame, LinkView

ORDER: Final = 20

_FIELD: Final = struct.Struct(">BI")
_MARKED: Final = tuple(bytes((flags | COMPRESSED,)) for flags in range(256))
_CLEARED: Final = tuple(bytes((flags & ~COMPRESSED,)) for flags in range(256))
_TRACE_BYTES: Final = 41
_HOP_BYTES: Final = 8
_FIXED_BYTES: Final = tuple(
    1 + 4 * bool(flags & CORRELATED) + 2 * bool(flags & STREAM) + 16 * bool(flags & STAMPED) + _TRACE_BYTES * bool(flags & TRACED)
    for flags in range(256)
)
"""By the flags: how long the extension is up to the compression's field, hops left out."""


@implementer(IFrameLayerFactory)
class CompressionFactory:
    """Makes the compression layer of each link whose sides both have one.

    What compresses and inflates is shared by all links: no body depends on one before, and it would cost each link half a megabyte.

    Args:
        codec: what is sent is compressed with; what comes may be compressed with any.
        threshold: bodies up to this length stay as they are, in bytes.
        ratio_max: how many times its size a body may inflate to.
    """

    name = "compression"
    order = ORDER
    capability = int(Capability.COMPRESSION)
    base_peers = False

    def __init__(
        self, codec: Codec, *, threshold: int = COMPRESSION_THRESHOLD_BYTES, ratio_max: int = COMPRESSION_RATIO_MAX
    ) -> None:
        self._threshold = threshold
        self._ratio_max = ratio_max
        self._deflater = Deflater(codec)
        self._inflater = Inflater()

    def layer(self, link: LinkView) -> CompressionLayer | None:
        """Return the layer of a link; None where not both sides have compression."""
        if not link.extended or not link.capabilities & Capability.COMPRESSION:
            return None
        return CompressionLayer(
            self._deflater,
            self._inflater,
            limits=length_limits(link.max_frame),
            threshold=self._threshold,
            ratio_max=self._ratio_max,
        )


class CompressionLayer(FrameLayer):
    """Compresses the long bodies that are sent, and inflates what comes compressed: above it no body is.

    Args:
        deflater: compresses.
        inflater: inflates.
        limits: the longest body of each type, in bytes.
        threshold: bodies up to this length stay as they are, in bytes.
        ratio_max: a body that would inflate to more than so many times its size is refused, and never sent.
    """

    def __init__(self, deflater: Deflater, inflater: Inflater, *, limits: tuple[int, ...], threshold: int, ratio_max: int) -> None:
        self._deflater = deflater
        self._inflater = inflater
        self._limits = limits
        self._threshold = threshold
        self._ratio_max = ratio_max

    def send(self, frames: list[Frame]) -> None:
        """Compress where it pays, and hand down."""
        threshold = self._threshold
        result = frames
        for place, (message_type, payload) in enumerate(frames):
            if len(payload) > threshold:
                smaller = self._compressed(payload)
                if smaller is not None:
                    if result is frames:
                        result = frames.copy()
                    result[place] = (message_type, smaller)
        self.below.send(result)

    def receive(self, frames: list[Any]) -> None:
        """Inflate, and hand up: in pieces, so that what inflates to much is not in memory all at once.

        Raises:
            MalformedMessageError: a body is not compressed as it should be, or inflates to too much; the frames before it have been
                handed up.
        """
        result = frames
        start = inflated = 0
        for place, frame in enumerate(frames):
            if frame.__class__ is not tuple or not frame[1] or not frame[1][0] & COMPRESSED:
                continue
            message_type, payload = frame
            try:
                payload = self._inflated(message_type, payload)
            except MalformedMessageError:
                if place > start:
                    self.above.receive(result[start:place])
                raise
            if result is frames:
                result = frames.copy()
            result[place] = (message_type, payload)
            inflated += len(payload)
            if inflated >= INFLATED_BATCH_BYTES:
                ready = result[start : place + 1]
                # Not kept here any longer.
                result[start : place + 1] = [None] * len(ready)
                start, inflated = place + 1, 0
                self.above.receive(ready)
        if start < len(result):
            self.above.receive(result[start:] if start else result)

    def _compressed(self, payload: bytes) -> bytes | None:
        """Return a payload with its body compressed; None where that is short, or does not shrink."""
        flags = payload[0]
        if flags & COMPRESSED:
            return None
        field_at, body_at = _places(payload)
        size = len(payload) - body_at
        if size <= self._threshold:
            return None
        whole = memoryview(payload)
        body = self._deflater.deflate(whole[body_at:])
        if len(body) + _FIELD.size >= size or size > self._ratio_max * len(body):
            return None
        return b"".join((_MARKED[flags], whole[1:field_at], _FIELD.pack(self._deflater.codec, size), whole[field_at:body_at], body))

    def _inflated(self, message_type: int, payload: bytes) -> bytes:
        """Return a payload with its body inflated.

        Raises:
            MalformedMessageError: that cannot be, or must not.
        """
        flags = payload[0]
        if flags & SIGNED:
            raise MalformedMessageError("a signed frame on a link that has no keys")
        field_at, body_at = _places(payload)
        number, raw_length = _FIELD.unpack_from(payload, field_at)
        if number not in Codec.__members__.values():
            raise MalformedMessageError(f"unknown compression codec {number}")
        limit = self._limits[message_type]
        if raw_length > limit:
            raise MalformedMessageError(f"a body that inflates to {raw_length} bytes exceeds the limit of {limit}")
        size = len(payload) - body_at
        if raw_length > self._ratio_max * size:
            raise MalformedMessageError(
                f"a body of {size} bytes that inflates to {raw_length} exceeds the ratio of {self._ratio_max}"
            )
        whole = memoryview(payload)
        body = self._inflater.inflate(Codec(number), whole[body_at:], raw_length)
        return b"".join((_CLEARED[flags], whole[1:field_at], whole[field_at + _FIELD.size : body_at], body))


def _places(payload: bytes) -> tuple[int, int]:
    """Return where in a payload the compression's field is, or would be, and where the body begins.

    Raises:
        MalformedMessageError: the extension is cut off.
    """
    flags = payload[0]
    field_at = _FIXED_BYTES[flags]
    if flags & TRACED and field_at <= len(payload):
        field_at += _HOP_BYTES * payload[field_at - 1]
    body_at = field_at
    if flags & COMPRESSED:
        body_at += _FIELD.size
    if flags & MORE:
        size, body_at = decode_leb128(payload, body_at)
        body_at += size
    if body_at > len(payload):
        raise MalformedMessageError("the extension is cut off")
    return field_at, body_at
