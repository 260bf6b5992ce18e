"""Whether the end of the log was torn by a crash, or is damaged (docs/durability.md).

What is appended at once is a batch, which a LogBatch ends. The next batch is appended only once the one before is durable, so a
crash can have torn only the last one. A disk writes whole sectors or not at all, so what is missing of it is cut off, or is zeros
for whole sectors. A batch that is there from its beginning to its end, without such a hole, was written whole, and may have been
acknowledged.
"""

from __future__ import annotations

from typing import Final

from hypercache.limits import HEADER_BYTES
from hypercache.persist.disk import SECTOR_BYTES
from hypercache.persist.records import BATCH_END_BYTES, RECORD_TYPES
from hypercache.wire.checksum import crc32
from hypercache.wire.header import BASE_VERSION, HEADER, MAGIC_NUMBER
from hypercache.wire.messages import LogBatch

_BATCH_END_HEAD: Final = LogBatch(0).encode_frame()[: HEADER_BYTES - 4]
AMBIGUOUS: Final = bytes(SECTOR_BYTES // 2 - 1)
"""A batch that holds this could have a sector that is all zeros, or would be with one bit flipped."""


def is_torn(data: bytes, begin: int, bad: int) -> bool:
    """Whether the last batch of a log was never durable, so that what is bad in it may be cut off.

    Args:
        data: the file from the beginning of the batch on.
        begin: where that is in the file, in bytes.
        bad: where in ``data`` the first record begins that cannot be read.
    """
    end = len(data.rstrip(b"\0"))
    if end <= bad:
        return True
    whole = 0
    for found, says in _batch_ends(data, begin, bad):
        if says > begin:
            return False
        whole = found + BATCH_END_BYTES
    if whole:
        return end <= whole and _has_hole(data, begin, bad, whole)
    if len(data) - bad < HEADER_BYTES:
        return True
    magic, version, kind, length, _ = HEADER.unpack_from(data, bad)
    if magic != MAGIC_NUMBER or version != BASE_VERSION or kind not in RECORD_TYPES:
        return end <= bad + HEADER_BYTES or _has_hole(data, begin, bad, bad + HEADER_BYTES)
    stop: int = bad + HEADER_BYTES + length
    # A batch's own end carries nothing: without it, all of the batch is there.
    return kind == LogBatch.TYPE or end <= stop or _has_hole(data, begin, bad, stop)


def _batch_ends(data: bytes, begin: int, at: int) -> list[tuple[int, int]]:
    """Return where in ``data`` batches end from ``at`` on, and the beginnings that their ends name.

    An end names this batch's beginning or a later one, before itself; any other is part of somebody's data.
    """
    ends = []
    while (at := data.find(_BATCH_END_HEAD, at)) >= 0:
        payload = data[at + HEADER_BYTES : at + BATCH_END_BYTES]
        checksum = int.from_bytes(data[at + HEADER_BYTES - 4 : at + HEADER_BYTES], "big")
        says = int.from_bytes(payload, "big")
        if len(payload) == BATCH_END_BYTES - HEADER_BYTES and crc32(payload) == checksum and begin <= says <= begin + at:
            ends.append((at, says))
        at += 1
    return ends


def _has_hole(data: bytes, begin: int, start: int, stop: int) -> bool:
    """Whether what the file's sectors between two places hold of this batch is zeros throughout one of them."""
    sector = (begin + start) // SECTOR_BYTES * SECTOR_BYTES - begin
    while sector < stop:
        part = data[max(sector, 0) : sector + SECTOR_BYTES]
        if part and not part.strip(b"\0"):
            return True
        sector += SECTOR_BYTES
    return False
