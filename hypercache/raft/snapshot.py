"""Snapshots: what names one, the stream that carries it, and how its chunks are put together (Raft paper, figure 13).

InstallSnapshot has no field for the configuration, so the stream begins with it: u32 length, msgpack; then come the state
machine's bytes.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

import msgspec

from hypercache.errors import MalformedMessageError
from hypercache.limits import RAFT_SNAPSHOT_HEADER_MAX_BYTES
from hypercache.raft.configuration import Configuration, decode_configuration

HAVE_ALL: Final = (1 << 64) - 1
"""The next_offset of a follower that needs no more of a snapshot."""

_LENGTH: Final = struct.Struct(">I")


class SnapshotMeta(msgspec.Struct, frozen=True):
    """What a snapshot stands for.

    Attributes:
        index: the last entry that it covers; 0 for the empty beginning.
        term: that entry's term.
        configuration: the latest configuration as of that entry.
    """

    index: int = 0
    term: int = 0
    configuration: Configuration = Configuration()


class SnapshotReader(Protocol):
    """Where a leader gets the chunks that it sends; the driver's, for the core knows no files."""

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        """Return a piece of a snapshot's stream and whether it is the last.

        Args:
            index: the snapshot's last entry.
            offset: where in the stream, in bytes.
            max_bytes: at most so many.

        Returns:
            None where there is no such snapshot any more, or it is not that long.
        """


class NoSnapshots:
    """The reader of a node that never makes snapshots."""

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        """Return None."""
        return None


def snapshot_header(configuration: Configuration) -> bytes:
    """Return how a snapshot's stream begins; the state machine's bytes follow."""
    encoded = configuration.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def split_stream(data: bytes) -> tuple[Configuration, int]:
    """Return the configuration of a stream and where the state machine's bytes begin.

    Raises:
        MalformedMessageError: the stream does not begin with a whole header.
    """
    if len(data) < _LENGTH.size:
        raise MalformedMessageError("a snapshot's first chunk holds no header")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if length > RAFT_SNAPSHOT_HEADER_MAX_BYTES or end > len(data):
        raise MalformedMessageError("the header of a snapshot exceeds its first chunk")
    return decode_configuration(data[_LENGTH.size : end]), end


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a snapshot that a follower must write; offset 0 begins the file anew.

    Attributes:
        index: the snapshot's last entry.
        term: that entry's term.
        offset: where in the stream, in bytes.
        data: the bytes.
        done: whether it is the last piece.
    """

    index: int
    term: int
    offset: int
    data: bytes
    done: bool


class Assembly:
    """A snapshot on its way in: only its place is held, never its bytes.

    Attributes:
        next_offset: where the next chunk must begin.
        configuration: from the header.
    """

    __slots__ = ("_key", "configuration", "next_offset")

    def __init__(self) -> None:
        self._key: tuple[int, int, int, int] | None = None
        self.next_offset = 0
        self.configuration = Configuration()

    def take(self, key: tuple[int, int, int, int], offset: int, data: bytes) -> bool:
        """Whether a chunk is the next one; it then counts as taken.

        Args:
            key: sender, term, index and term of the snapshot: bytes of two leaders are never mixed.
            offset: where the chunk begins.
            data: its bytes.

        Raises:
            MalformedMessageError: the first chunk has no sound header.
        """
        if key != self._key:
            self._key, self.next_offset = key, 0
        if offset != self.next_offset:
            return False
        if not offset:
            self.configuration, _ = split_stream(data)
        self.next_offset += len(data)
        return True
