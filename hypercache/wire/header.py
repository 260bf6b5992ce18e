"""The 14 bytes before every payload, in every version (wire.md, section 1)."""

from __future__ import annotations

import struct
from typing import Final

from hypercache.limits import HEADER_BYTES, MAX_FRAME_BYTES, SMALL_FRAME_BYTES
from hypercache.wire.checksum import crc32

MAGIC: Final = b"\x48\x43\x52\x41"
MAGIC_NUMBER: Final = 0x48435241
BASE_VERSION: Final = 1
EXTENDED_VERSION: Final = 2
HIGHEST_VERSION: Final = EXTENDED_VERSION

HEADER: Final = struct.Struct(">IBBII")
assert HEADER.size == HEADER_BYTES

_LONG_TYPES: Final = frozenset((0x12, 0x14, 0x19, *range(0x20, 0x25), *range(0x50, 0x55), *range(0x80, 0xF0)))


def frame(version: int, message_type: int, payload: bytes) -> bytes:
    """Return a whole frame."""
    return HEADER.pack(MAGIC_NUMBER, version, message_type, len(payload), crc32(payload)) + payload


def length_limits(max_frame: int = MAX_FRAME_BYTES) -> tuple[int, ...]:
    """Return the longest payload of each type byte, in bytes, for a peer that counts as authenticated (wire.md, section 2)."""
    small = min(SMALL_FRAME_BYTES, max_frame)
    return tuple(max_frame if message_type in _LONG_TYPES else small for message_type in range(256))
