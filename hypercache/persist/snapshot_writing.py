"""A snapshot on its way to the disk: written beside, then renamed (docs/durability.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.limits import HEADER_BYTES, RAFT_CHUNK_BYTES, RAFT_SNAPSHOT_SYNC_BYTES
from hypercache.wire.messages import InstallSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hypercache.persist.disk import Disk

FIXED_BYTES: Final = HEADER_BYTES + len(InstallSnapshot(0, 0, 0, 0, 0, False, b"").encode_payload())
"""What a frame has before its data."""


class Places(msgspec.Struct):
    """Where the frames of a snapshot are: they stand one behind the other.

    Attributes:
        offsets: where in the stream the data of each begins, ascending.
        size: the stream's length, bytes.
    """

    offsets: list[int] = msgspec.field(default_factory=list)
    size: int = 0

    def add(self, size: int) -> None:
        """Note one more frame, with so many bytes of data."""
        self.offsets.append(self.size)
        self.size += size

    def place(self, number: int) -> tuple[int, int]:
        """Return where in the file a frame begins, and how long it is, in bytes."""
        start = self.offsets[number]
        stop = self.offsets[number + 1] if number + 1 < len(self.offsets) else self.size
        return start + number * FIXED_BYTES, stop - start + FIXED_BYTES


class SnapshotWriter:
    """A file that a snapshot is written into.

    Args:
        disk: where.
        name: the file's name until it is whole.
        index: the snapshot's last entry.
        term: that entry's term.

    Attributes:
        name, index, term: as given.
        places: where its frames are.
        whole: whether the last one is there.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, disk: Disk, name: str, index: int, term: int) -> None:
        self._disk = disk
        self.name = name
        self.index = index
        self.term = term
        self.places = Places()
        self.whole = False
        self._file = disk.create(name)
        self._unsynced_bytes = 0

    def append(self, data: bytes, *, done: bool) -> None:
        """Write what comes next of the stream, in frames of `RAFT_CHUNK_BYTES`.

        Raises:
            OSError: it cannot be written.
        """
        for start in range(0, len(data), RAFT_CHUNK_BYTES) if len(data) > RAFT_CHUNK_BYTES else (0,):
            piece = data[start : start + RAFT_CHUNK_BYTES]
            last = done and start + RAFT_CHUNK_BYTES >= len(data)
            frame = InstallSnapshot(0, 0, self.index, self.term, self.places.size, last, piece).encode_frame()
            self._file.append(frame)
            self.places.add(len(piece))
            self._unsynced_bytes += len(frame)
        self.whole = done
        # A log is synced meanwhile, and would have to wait for all that is not written yet.
        if self._unsynced_bytes >= RAFT_SNAPSHOT_SYNC_BYTES:
            self._file.sync()
            self._unsynced_bytes = 0

    def truncate(self, frames: int) -> None:
        """Take back all but the first so many frames, and what is there of one that failed.

        Raises:
            OSError: the disk fails.
        """
        places = self.places
        self.whole = self.whole and frames == len(places.offsets)
        if frames < len(places.offsets):
            places.size = places.offsets[frames]
            del places.offsets[frames:]
        self._file.truncate(places.size + frames * FIXED_BYTES)

    def sync(self) -> None:
        """Make all of it durable, but not its name.

        Raises:
            OSError: the disk fails.
        """
        self._file.sync()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def abandon(self) -> None:
        """Remove the file.

        Raises:
            OSError: the disk fails.
        """
        self._file.close()
        self._disk.remove(self.name)


def chunked(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield a stream in chunks of `RAFT_CHUNK_BYTES`, each with whether it is the last; there is always one."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) > RAFT_CHUNK_BYTES:
            yield bytes(memoryview(held)[:RAFT_CHUNK_BYTES]), False
            del held[:RAFT_CHUNK_BYTES]
    yield bytes(held), True
