"""The records of the Raft log: frames of the wire, read back strictly (docs/durability.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import LogDamagedError, MalformedMessageError
from hypercache.limits import HEADER_BYTES, MIB, RAFT_RECORD_BYTES
from hypercache.raft.log import ENTRY_OVERHEAD_BYTES
from hypercache.wire.checksum import crc32
from hypercache.wire.header import BASE_VERSION, HEADER, MAGIC_NUMBER
from hypercache.wire.messages import AppendEntries, LogBatch, LogSegment, LogState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hypercache.persist.disk import Disk
    from hypercache.wire.messages import LogEntry

Record = LogSegment | LogState | LogBatch | AppendEntries

RECORD_TYPES: Final[dict[int, type[Record]]] = {cls.TYPE: cls for cls in (LogSegment, LogState, LogBatch, AppendEntries)}
BATCH_END_BYTES: Final = len(LogBatch(0).encode_frame())
ADVICE: Final = "restore the directory from a copy, or remove this node from the cluster and let it join anew with an empty one"
_READ_BYTES: Final = 1 * MIB


class Fault(Exception):  # noqa: N818 - it is judged by who reads; an error comes of it only then
    """What is at a place is no record.

    Args:
        offset: where in the file, in bytes.
        reason: what is wrong.
        sound: whether its checksum is right: no crash produces that.
    """

    def __init__(self, offset: int, reason: str, *, sound: bool = False) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason
        self.sound = sound


def damaged(disk: Disk, name: str, offset: int, reason: str) -> LogDamagedError:
    """Return the error that refuses a file."""
    return LogDamagedError(f"{disk.path}/{name}", offset, f"{reason}; {ADVICE}")


def entry_frames(term: int, prev_index: int, prev_term: int, commit: int, entries: Sequence[LogEntry]) -> list[bytes]:
    """Return the records of entries; one takes `RAFT_RECORD_BYTES`, or a single entry.

    Args:
        term: the current term.
        prev_index: the index before the first entry's.
        prev_term: the term of the entry there.
        commit: the commit index, a hint.
        entries: at least one.
    """
    size = 0
    for entry in entries:
        size += len(entry.data)
    if size + ENTRY_OVERHEAD_BYTES * len(entries) <= RAFT_RECORD_BYTES:
        return [AppendEntries(term, 0, prev_index, prev_term, commit, tuple(entries)).encode_frame()]
    frames: list[bytes] = []
    start = size = 0
    for place, entry in enumerate(entries):
        needed = len(entry.data) + ENTRY_OVERHEAD_BYTES
        if size and size + needed > RAFT_RECORD_BYTES:
            frames.append(AppendEntries(term, 0, prev_index, prev_term, commit, tuple(entries[start:place])).encode_frame())
            prev_index += place - start
            prev_term = entries[place - 1].term
            start, size = place, 0
        size += needed
    frames.append(AppendEntries(term, 0, prev_index, prev_term, commit, tuple(entries[start:])).encode_frame())
    return frames


def read_records(disk: Disk, name: str) -> Iterator[tuple[int, Record]]:
    """Yield each record of a file and where it begins; it holds one piece of the file, and one record, at a time.

    Raises:
        Fault: what comes next is no record.
    """
    data, at, base = b"", 0, 0
    while True:
        needed = HEADER_BYTES
        if len(data) - at >= HEADER_BYTES:
            magic, version, kind, length, checksum = HEADER.unpack_from(data, at)
            if magic != MAGIC_NUMBER or version != BASE_VERSION or kind not in RECORD_TYPES or not length:
                raise Fault(base + at, "no record of a log begins here")
            needed += length
            if len(data) - at >= needed:
                payload = data[at + HEADER_BYTES : at + needed]
                if crc32(payload) != checksum:
                    raise Fault(base + at, "the checksum of a record is wrong")
                yield base + at, _decode(kind, payload, base + at)
                at += needed
                continue
        data, base, at = data[at:], base + at, 0
        piece = disk.read(name, base + len(data), max(_READ_BYTES, needed - len(data)))
        if not piece:
            if data:
                raise Fault(base, "the last record is cut short")
            return
        data += piece


def _decode(kind: int, payload: bytes, offset: int) -> Record:
    cls = RECORD_TYPES[kind]
    try:
        record, end = cls.read_entry(payload, 0)
    except MalformedMessageError as error:
        raise Fault(offset, f"a record is malformed ({error})", sound=True) from None
    if end != len(payload):
        raise Fault(offset, f"a {cls.__name__} of {len(payload)} bytes should have {end}", sound=True)
    return record
