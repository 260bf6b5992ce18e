"""Version 0x02 frames: an extension, a body that means what it means in 0x01, perhaps a signature (wire.md, section 3)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import MalformedMessageError
from hypercache.limits import COMPRESSION_THRESHOLD_BYTES, SIGNATURE_BYTES, TRACE_MAX_HOPS
from hypercache.wire.compression import Codec, compress, decompress
from hypercache.wire.header import EXTENDED_VERSION, frame
from hypercache.wire.leb128 import decode_leb128, encode_leb128

if TYPE_CHECKING:
    from hypercache.wire.schema import Message

CORRELATED: Final = 1 << 0
REPLY: Final = 1 << 1
STREAM: Final = 1 << 2
STAMPED: Final = 1 << 3
TRACED: Final = 1 << 4
COMPRESSED: Final = 1 << 5
SIGNED: Final = 1 << 6
MORE: Final = 1 << 7

TAG_VERSION_VECTOR: Final = 1
TAG_RETRY_AFTER: Final = 3
TAG_VIEW: Final = 4
TAG_FOLLOWS: Final = 5
TAG_PART: Final = 6

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_TWO_U64: Final = struct.Struct(">QQ")
_THREE_U64: Final = struct.Struct(">QQQ")
_TRACE: Final = struct.Struct(">16s16sQB")
_COMPRESSED: Final = struct.Struct(">BI")
_CORRELATED: Final = struct.Struct(">BI")
REPLY_HEAD_BYTES: Final = _CORRELATED.size
"""How long the extension of an answer is at most."""
_CORRELATED_STAMPED: Final = struct.Struct(">BIQQ")
_STREAMED_STAMPED: Final = struct.Struct(">BIHQQ")


class TraceLoopError(MalformedMessageError):
    """A trace of 17 hops, or one that passed a node twice: refused, but the link stays.

    Args:
        text: what is wrong.
        exchange: the number of the request that carried it, None where it had none.
        stream: the stream that it came on; 0 for none.
    """

    def __init__(self, text: str, exchange: int | None = None, stream: int = 0) -> None:
        super().__init__(text)
        self.exchange = exchange
        self.stream = stream


class Trace(msgspec.Struct, frozen=True):
    """Where a request came from.

    Attributes:
        request_id: 16 bytes.
        parent_id: 16 bytes.
        timestamp: Unix nanoseconds.
        path: the ids of the nodes it passed, at most 16, none twice.
    """

    request_id: bytes
    parent_id: bytes
    timestamp: int
    path: tuple[int, ...] = ()


class Part(msgspec.Struct, frozen=True):
    """One part of something that exceeds a frame."""

    transfer: int
    offset: int
    total: int


class More(msgspec.Struct, frozen=True):
    """The rarer fields, each with its tag.

    Attributes:
        version_vector: node id to counter.
        retry_after: milliseconds.
        view: the ring version of a slot's view.
        follows: the stamp that this change follows; 0 where it says none.
        part: which part of something larger.
    """

    version_vector: dict[int, int] | None = None
    retry_after: int | None = None
    view: int | None = None
    follows: int = 0
    part: Part | None = None


class Extension(msgspec.Struct, frozen=True, gc=False):
    """What a version 0x02 frame carries beside its message.

    Attributes:
        exchange: chosen by the requester, echoed by the answer; None where the frame is not correlated.
        reply: this frame answers the exchange.
        stream: 0 for the default stream.
        stamp: ``hlc << 64 | origin``; 0 for none.
        trace: where the request came from.
        codec: how the body is compressed on the wire; None for not at all.
        signed: whether the frame ends with a signature.
        more: the rarer fields.
    """

    exchange: int | None = None
    reply: bool = False
    stream: int = 0
    stamp: int = 0
    trace: Trace | None = None
    codec: Codec | None = None
    signed: bool = False
    more: More | None = None


PLAIN: Final = Extension()
PLAIN_HEAD: Final = b"\0"
"""The extension of a frame that carries nothing beside its message."""


def encode_extended(message: Message, extension: Extension = PLAIN) -> bytes:
    """Return an unsigned version 0x02 frame; `signing.sign` makes a signed one of it.

    Args:
        message: the message.
        extension: what goes with it; a codec is used only where the body is longer than 1024 bytes and shrinks.

    Raises:
        MessageTooLargeError: a field does not fit its place.
    """
    body = message.encode_body()
    return frame(EXTENDED_VERSION, message.TYPE, encode_extension(extension, body))


def exchange_of(payload: bytes) -> int | None:
    """Return the number of the request in a version 0x02 payload; None where it has none, or is an answer."""
    if len(payload) < _CORRELATED.size or payload[0] & (CORRELATED | REPLY) != CORRELATED:
        return None
    number: int = _CORRELATED.unpack_from(payload)[1]
    return number


def stream_of(payload: bytes) -> int:
    """Return the stream of a version 0x02 payload; 0 where it has none."""
    if not payload or not payload[0] & STREAM:
        return 0
    at = _CORRELATED.size if payload[0] & CORRELATED else 1
    stream: int = _U16.unpack_from(payload, at)[0] if len(payload) >= at + _U16.size else 0
    return stream


def request_head(exchange: int) -> bytes:
    """Return the extension of a request that carries its number alone."""
    return _CORRELATED.pack(CORRELATED, exchange)


def reply_head(exchange: int) -> bytes:
    """Return the extension of the answer to a request."""
    return _CORRELATED.pack(CORRELATED | REPLY, exchange)


def stamped_head(exchange: int, stamp: int, stream: int = 0) -> bytes:
    """Return the extension of a request that carries its number and a stamp, and may travel on a stream."""
    if stream:
        return _STREAMED_STAMPED.pack(CORRELATED | STREAM | STAMPED, exchange, stream, stamp >> 64, stamp & (1 << 64) - 1)
    return _CORRELATED_STAMPED.pack(CORRELATED | STAMPED, exchange, stamp >> 64, stamp & (1 << 64) - 1)


def encode_extension(extension: Extension, body: bytes) -> bytes:
    """Return a payload: extension and body, the body compressed where the extension says so and it pays."""
    flags = 0
    fields: list[bytes] = []
    if extension.exchange is not None:
        flags |= CORRELATED
        fields.append(_U32.pack(extension.exchange))
    if extension.reply:
        flags |= REPLY
    if extension.stream:
        flags |= STREAM
        fields.append(_U16.pack(extension.stream))
    if extension.stamp:
        flags |= STAMPED
        fields.append(_TWO_U64.pack(extension.stamp >> 64, extension.stamp & (1 << 64) - 1))
    if extension.trace is not None:
        flags |= TRACED
        trace = extension.trace
        fields.append(_TRACE.pack(trace.request_id, trace.parent_id, trace.timestamp, len(trace.path)))
        fields += map(_U64.pack, trace.path)
    if extension.codec is not None and len(body) > COMPRESSION_THRESHOLD_BYTES:
        shrunk = compress(extension.codec, body)
        if len(shrunk) < len(body):
            flags |= COMPRESSED
            fields.append(_COMPRESSED.pack(extension.codec, len(body)))
            body = shrunk
    if extension.signed:
        flags |= SIGNED
    if extension.more is not None:
        flags |= MORE
        encoded = _encode_more(extension.more)
        fields += [encode_leb128(len(encoded)), encoded]
    return b"".join((bytes((flags,)), *fields, body))


def _encode_more(more: More) -> bytes:
    tagged: list[tuple[int, bytes]] = []
    if more.version_vector is not None:
        pairs = sorted(more.version_vector.items())
        vector = encode_leb128(len(pairs)) + b"".join(_U64.pack(node) + encode_leb128(counter) for node, counter in pairs)
        tagged.append((TAG_VERSION_VECTOR, vector))
    if more.retry_after is not None:
        tagged.append((TAG_RETRY_AFTER, _U32.pack(more.retry_after)))
    if more.view is not None:
        tagged.append((TAG_VIEW, _U64.pack(more.view)))
    if more.follows:
        tagged.append((TAG_FOLLOWS, _TWO_U64.pack(more.follows >> 64, more.follows & (1 << 64) - 1)))
    if more.part is not None:
        tagged.append((TAG_PART, _THREE_U64.pack(more.part.transfer, more.part.offset, more.part.total)))
    return b"".join(encode_leb128(tag) + encode_leb128(len(value)) + value for tag, value in tagged)


class _Reader:
    """Takes fields off the front of a payload."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise MalformedMessageError("the extension is cut off")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def leb128(self) -> int:
        number, self.at = decode_leb128(self.data, self.at)
        return number


def decode_extended(payload: bytes, max_frame: int, *, bare: bool = False) -> tuple[Extension, bytes]:
    """Return the extension and the inflated body of a version 0x02 payload; a signature is cut off, not verified.

    Args:
        payload: the whole payload.
        max_frame: the most that a body may inflate to, in bytes.
        bare: whether it may be neither compressed nor signed.

    Raises:
        TraceLoopError: the trace is too long or passed a node twice.
        MalformedMessageError: the extension is cut off or contradicts itself, or the body does not inflate to its announced size.
    """
    # The combinations that nearly every frame has, without a detour.
    flags = payload[0] if payload else 0
    if flags == CORRELATED | STAMPED and len(payload) >= _CORRELATED_STAMPED.size:
        _, number, hlc, origin = _CORRELATED_STAMPED.unpack_from(payload)
        return Extension(number, False, 0, hlc << 64 | origin), payload[_CORRELATED_STAMPED.size :]
    if flags & ~REPLY == CORRELATED and len(payload) >= _CORRELATED.size:
        return Extension(_CORRELATED.unpack_from(payload)[1], flags != CORRELATED), payload[_CORRELATED.size :]
    reader = _Reader(payload, 0)
    flags = reader.take(1)[0]
    if bare and flags & (COMPRESSED | SIGNED):
        raise MalformedMessageError("it is compressed or signed, and that was not agreed on")
    exchange = _U32.unpack(reader.take(4))[0] if flags & CORRELATED else None
    stream = 0
    if flags & STREAM:
        stream = _U16.unpack(reader.take(2))[0]
        if not stream:
            raise MalformedMessageError("stream 0 is never sent")
    stamp = 0
    if flags & STAMPED:
        hlc, origin = _TWO_U64.unpack(reader.take(16))
        stamp = hlc << 64 | origin
    loop: str | None = None
    trace = None
    if flags & TRACED:
        request_id, parent_id, timestamp, hops = _TRACE.unpack(reader.take(_TRACE.size))
        path = struct.unpack(f">{hops}Q", reader.take(8 * hops))
        if hops > TRACE_MAX_HOPS or len(set(path)) < hops:
            loop = f"a trace of {hops} hops, or one that passed a node twice, is a loop"
        trace = Trace(request_id, parent_id, timestamp, path)
    codec = None
    raw_length = 0
    if flags & COMPRESSED:
        number, raw_length = _COMPRESSED.unpack(reader.take(_COMPRESSED.size))
        if number not in Codec.__members__.values():
            raise MalformedMessageError(f"unknown compression codec {number}")
        codec = Codec(number)
        if raw_length > max_frame:
            raise MalformedMessageError(f"a body that inflates to {raw_length} bytes exceeds the limit of {max_frame}")
    more = None
    if flags & MORE:
        size = reader.leb128()
        more = _decode_more(reader.take(size))
    body = payload[reader.at :]
    if flags & SIGNED:
        if len(body) < SIGNATURE_BYTES:
            raise MalformedMessageError("the signature is cut off")
        body = body[:-SIGNATURE_BYTES]
    if loop is not None:
        raise TraceLoopError(loop, None if flags & REPLY else exchange, stream)
    if codec is not None:
        body = decompress(codec, body, raw_length)
    extension = Extension(exchange, bool(flags & REPLY), stream, stamp, trace, codec, bool(flags & SIGNED), more)
    return extension, body


def _decode_more(data: bytes) -> More:
    reader = _Reader(data, 0)
    last = 0
    fields: dict[int, bytes] = {}
    while reader.at < len(data):
        tag = reader.leb128()
        if tag <= last:
            raise MalformedMessageError("tags must ascend, each once")
        last = tag
        fields[tag] = reader.take(reader.leb128())
    follows = _sized(fields, TAG_FOLLOWS, _TWO_U64)
    part = _sized(fields, TAG_PART, _THREE_U64)
    retry = _sized(fields, TAG_RETRY_AFTER, _U32)
    view = _sized(fields, TAG_VIEW, _U64)
    vector = fields.get(TAG_VERSION_VECTOR)
    return More(
        version_vector=None if vector is None else _decode_vector(vector),
        retry_after=None if retry is None else retry[0],
        view=None if view is None else view[0],
        follows=0 if follows is None else follows[0] << 64 | follows[1],
        part=None if part is None else Part(*part),
    )


def _sized(fields: dict[int, bytes], tag: int, layout: struct.Struct) -> tuple[int, ...] | None:
    value = fields.get(tag)
    if value is None:
        return None
    if len(value) != layout.size:
        raise MalformedMessageError(f"tag {tag} has {len(value)} bytes, not {layout.size}")
    return layout.unpack(value)


def _decode_vector(data: bytes) -> dict[int, int]:
    reader = _Reader(data, 0)
    vector: dict[int, int] = {}
    last = -1
    for _ in range(reader.leb128()):
        (node,) = _U64.unpack(reader.take(8))
        if node <= last:
            raise MalformedMessageError("the nodes of a version vector must ascend")
        last = node
        vector[node] = reader.leb128()
    if reader.at != len(data):
        raise MalformedMessageError("a version vector has bytes left over")
    return vector
