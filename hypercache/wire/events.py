"""What a decoder reports beside sound version 0x01 messages, which it reports as themselves."""

from __future__ import annotations

import msgspec

from hypercache.wire.extension import Extension
from hypercache.wire.schema import Message


class Extended(msgspec.Struct, frozen=True, gc=False):
    """A sound version 0x02 frame; ``size`` is that of its payload, inflated, in bytes."""

    message: Message
    extension: Extension
    size: int = 0


class UnknownType(msgspec.Struct, frozen=True):
    """A sound frame of a type that nobody declared."""

    type: int
    payload: bytes
    version: int
    extension: Extension | None = None
    size: int = 0


class Malformed(msgspec.Struct, frozen=True):
    """A frame with the right checksum whose payload does not fit its layout.

    Attributes:
        type: its type.
        reason: what is wrong.
        closes: whether the link must close.
        exchange: the request's number, None where it has none.
        stream: the stream that it came on; 0 for none.
        size: of its payload, in bytes.
    """

    type: int
    reason: str
    closes: bool = True
    exchange: int | None = None
    stream: int = 0
    size: int = 0


class BadVersion(msgspec.Struct, frozen=True):
    """A frame with the right checksum in a version that is not spoken here."""

    version: int
    type: int


class BadChecksum(msgspec.Struct, frozen=True):
    """A frame whose payload has another checksum than its header says."""

    type: int
    computed: int


class TooLarge(msgspec.Struct, frozen=True):
    """A header that announces more than its type may have."""

    type: int
    length: int
    limit: int


class Garbage(msgspec.Struct, frozen=True):
    """A run of bytes that belonged to no frame, reported where it ended."""

    count: int


class Broken(msgspec.Struct, frozen=True):
    """The link must close: no event follows."""

    reason: str


Frame = tuple[int, bytes]
"""Type and payload of a sound frame that is not decoded yet: layers come first."""

Event = Frame | Message | Extended | UnknownType | Malformed | BadVersion | BadChecksum | TooLarge | Garbage | Broken
