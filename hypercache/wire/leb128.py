"""Canonical LEB128 varints of at most ten bytes (wire.md, section 1)."""

from __future__ import annotations

from hypercache.errors import MalformedMessageError
from hypercache.limits import LEB128_MAX_BYTES

_UINT64_MAX = (1 << 64) - 1


def encode_leb128(number: int) -> bytes:
    """Return an unsigned 64-bit integer in as few bytes as it takes.

    Raises:
        ValueError: the number is negative or longer than 64 bits.
    """
    if not 0 <= number <= _UINT64_MAX:
        raise ValueError(f"{number} does not fit an unsigned integer of 64 bits")
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode_leb128(data: bytes, at: int = 0) -> tuple[int, int]:
    """Return the integer at ``at`` and where it ends.

    Raises:
        MalformedMessageError: it is cut off, longer than 64 bits, or not in its shortest form.
    """
    number = 0
    for place in range(LEB128_MAX_BYTES):
        if at + place >= len(data):
            raise MalformedMessageError("a varint is cut off")
        byte = data[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if (place and not byte) or number > _UINT64_MAX:
                raise MalformedMessageError("a varint is not canonical or exceeds 64 bits")
            return number, at + place + 1
    raise MalformedMessageError("a varint is longer than ten bytes")
