"""What a decoder reports beside sound version 0x01 messages, which it reports as themselves."""

from __future__ import annotations

import msgspec

from hypercache.wire.extension import Extension
from hypercache.wire.schema import Message


class Extended(msgspec.Struct, frozen=True):
    """A sound version 0x02 frame."""

    message: Message
    extension: Extension


class UnknownType(msgspec.Struct, frozen=True):
    """A sound frame of a type that nobody declared."""

    type: int
    payload: bytes
    version: int


class Malformed(msgspec.Struct, frozen=True):
    """A frame with the right checksum whose payload does not fit its layout; ``closes`` says whether the link must close."""

    type: int
    reason: str
    closes: bool = True


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


Event = Message | Extended | UnknownType | Malformed | BadVersion | BadChecksum | TooLarge | Garbage | Broken
