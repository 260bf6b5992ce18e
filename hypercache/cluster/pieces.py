"""Frames of a snapshot: u32 length, payload; whoever reads them does not know where the pieces of the stream were cut."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hypercache.errors import MalformedMessageError
from hypercache.limits import MAX_FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LENGTH: Final = struct.Struct(">I")
END: Final = _LENGTH.pack(0)
"""What ends a part of a stream: a frame that holds nothing."""


def frame(payload: bytes) -> bytes:
    """Return a frame; an empty one is `END`."""
    return _LENGTH.pack(len(payload)) + payload


def frames(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the payloads of frames, those of `END` too.

    Args:
        stream: the frames, cut anywhere.

    Raises:
        MalformedMessageError: the stream ends within a frame, or a frame is too long.
    """
    held = bytearray()
    wanted = _LENGTH.size
    for piece in stream:
        held += piece
        if len(held) < wanted:
            continue
        at = 0
        while True:
            wanted = _LENGTH.size
            if len(held) - at >= wanted:
                (length,) = _LENGTH.unpack_from(held, at)
                if length > MAX_FRAME_BYTES:
                    raise MalformedMessageError(f"a snapshot has a frame of {length} bytes")
                wanted += length
            if len(held) - at < wanted:
                break
            yield bytes(held[at + _LENGTH.size : at + wanted])
            at += wanted
        del held[:at]
    if held:
        raise MalformedMessageError("a snapshot ends within a frame")
