"""The body of a frame, compressed: one zstd frame, or one LZ4 frame (wire.md, section 3)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import lz4.frame
import zstandard

from hypercache.errors import MalformedMessageError

_MAX_WINDOW_BYTES: Final = 1 << 27


class Codec(IntEnum):
    """The codecs by their number on the wire."""

    ZSTD = 1
    LZ4 = 2


def compress(codec: Codec, body: bytes) -> bytes:
    """Return the body compressed."""
    if codec is Codec.ZSTD:
        return zstandard.ZstdCompressor().compress(body)
    compressed: bytes = lz4.frame.compress(body, content_checksum=False)
    return compressed


def decompress(codec: Codec, data: bytes, raw_length: int) -> bytes:
    """Return the body inflated; never more than one byte beyond ``raw_length`` is produced.

    Raises:
        MalformedMessageError: the data is damaged, is not one frame exactly, or does not inflate to ``raw_length`` bytes.
    """
    try:
        if codec is Codec.ZSTD:
            body, left = _inflate_zstd(data, raw_length)
        else:
            lz4_inflater = lz4.frame.LZ4FrameDecompressor()
            body = lz4_inflater.decompress(data, max_length=raw_length + 1)
            left = not lz4_inflater.eof or bool(lz4_inflater.unused_data)
    except (zstandard.ZstdError, RuntimeError, EOFError) as error:
        raise MalformedMessageError(f"a compressed body is damaged: {error}") from None
    if left or len(body) != raw_length:
        raise MalformedMessageError(f"a compressed body is not exactly one frame of {raw_length} bytes")
    return body


def _inflate_zstd(data: bytes, raw_length: int) -> tuple[bytes, bool]:
    """Return the inflated body, and whether the data is anything but one whole frame of ``raw_length`` bytes."""
    declared = zstandard.frame_content_size(data)
    if declared not in (-1, raw_length):
        return b"", True
    if declared < 0:
        # A frame need not say its size: then a bounded read finds out before anything larger is inflated.
        with zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(data) as reader:
            if len(reader.read(raw_length + 1)) != raw_length:
                return b"", True
    inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
    body = inflater.decompress(data)
    return body, not inflater.eof or bool(inflater.unused_data)
