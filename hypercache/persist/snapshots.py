"""The snapshots of a node's directory: the newest one is read, a newer one takes its place (docs/durability.md)."""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import DiskFullError, MalformedMessageError
from hypercache.limits import HEADER_BYTES
from hypercache.persist.records import damaged
from hypercache.persist.segments import is_full
from hypercache.persist.snapshot_writing import FIXED_BYTES, Places, SnapshotWriter, chunked
from hypercache.raft import SnapshotMeta, snapshot_header, split_stream
from hypercache.wire.checksum import crc32
from hypercache.wire.header import BASE_VERSION, HEADER, MAGIC_NUMBER
from hypercache.wire.messages import InstallSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hypercache.persist.disk import Disk
    from hypercache.raft import Chunk

_NAME: Final = re.compile(r"snapshot-(\d+)-(\d+)\.hc")
_OWN_NAME: Final = "snapshot-own.part"
_INCOMING_NAME: Final = "snapshot-incoming.part"
PART_SUFFIX: Final = ".part"


class _Snapshot(msgspec.Struct, frozen=True):
    meta: SnapshotMeta
    name: str
    places: Places


class Snapshots:
    """The snapshots of one directory. The log's thread installs, another one saves and loads, the loop reads.

    What raises OSError leaves the disk in a state that is not known.

    Args:
        disk: the directory.

    Raises:
        LogDamagedError: the newest one is damaged.
        OSError: it cannot be read.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self._loading: dict[str, int] = {}
        self._incoming: SnapshotWriter | None = None
        found = [(int(match[1]), int(match[2]), name) for name in disk.names() if (match := _NAME.fullmatch(name))]
        self._newest = self._open(*max(found)) if found else None

    @property
    def newest(self) -> SnapshotMeta | None:
        """What the newest one stands for; None where there is none."""
        newest = self._newest
        return newest.meta if newest else None

    def clear_leftovers(self) -> bool:
        """Remove what a crash left: older ones and parts; return whether there was anything."""
        left = [name for name in self._disk.names() if name.endswith(PART_SUFFIX)]
        for name in left:
            self._disk.remove(name)
        return bool(self._remove_older() or left)

    def save(self, meta: SnapshotMeta, stream: Iterable[bytes]) -> None:
        """Write one, durably, unless a newer one is there.

        Args:
            meta: what it stands for.
            stream: the pieces behind its header.

        Raises:
            DiskFullError: it does not fit; the one before is still there.
        """
        if not self._is_newer(meta):
            return
        writer: SnapshotWriter | None = None
        try:
            writer = SnapshotWriter(self._disk, _OWN_NAME, meta.index, meta.term)
            for chunk, last in chunked(chain((snapshot_header(meta.configuration),), stream)):
                writer.append(chunk, done=last)
        except OSError as error:
            if not is_full(error):
                raise
            if writer is not None:
                writer.abandon()
            raise DiskFullError(f"{self._disk.path}: a snapshot does not fit: the disk is full") from error
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
        writer.sync()
        writer.close()
        self._put(writer, meta)

    def take(self, chunks: Iterable[Chunk]) -> None:
        """Write chunks of one on its way in; each follows the one before, or begins anew.

        Raises:
            DiskFullError: they do not fit; `rewind` makes them count for nothing.
        """
        try:
            for chunk in chunks:
                self._take(chunk)
        except OSError as error:
            if not is_full(error):
                raise
            raise DiskFullError(f"{self._disk.path}: a snapshot from the leader does not fit: the disk is full") from error

    def mark(self) -> tuple[SnapshotWriter | None, int]:
        """Return how much of a snapshot has come in, for `rewind`."""
        writer = self._incoming
        return writer, len(writer.places.offsets) if writer else 0

    def rewind(self, mark: tuple[SnapshotWriter | None, int]) -> None:
        """Take back what came in since a mark."""
        writer, frames = mark
        if writer is not None and writer is self._incoming:
            writer.truncate(frames)
        else:
            self._abandon_incoming()

    def install(self, meta: SnapshotMeta) -> None:
        """Make the one that came in the newest, durably."""
        writer = self._incoming
        if writer is None:
            assert not self._is_newer(meta), "no chunk of the snapshot that is installed came in"
            return
        assert writer.whole, "a snapshot is installed once its last chunk is here"
        assert (writer.index, writer.term) == (meta.index, meta.term), "another snapshot came in than is installed"
        writer.sync()
        writer.close()
        self._incoming = None
        self._put(writer, meta)

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        """Return a piece of the newest one's stream and whether it is the last (`hypercache.raft.SnapshotReader`).

        Raises:
            LogDamagedError: it is damaged there.
            OSError: it cannot be read.
        """
        newest = self._newest
        if newest is None or newest.meta.index != index or offset >= newest.places.size:
            return None
        number = bisect_right(newest.places.offsets, offset) - 1
        try:
            frame = self._frame(newest, number)
        except FileNotFoundError:
            return None
        start = offset - newest.places.offsets[number]
        data = frame.data[start : start + max_bytes]
        return data, offset + len(data) == newest.places.size

    def load(self) -> Iterator[bytes]:
        """Yield the pieces of the newest one behind its header, one frame at a time; it stays while it is read.

        Raises:
            LogDamagedError: it is damaged.
            OSError: it cannot be read.
        """
        with self._lock:
            snapshot = self._newest
            if snapshot is None:
                return
            self._loading[snapshot.name] = self._loading.get(snapshot.name, 0) + 1
        try:
            for number in range(len(snapshot.places.offsets)):
                data = self._frame(snapshot, number).data
                if not number:
                    data = data[split_stream(data)[1] :]
                if data:
                    yield data
        finally:
            with self._lock:
                self._loading[snapshot.name] -= 1
                if not self._loading[snapshot.name]:
                    del self._loading[snapshot.name]
                    if snapshot is not self._newest:
                        self._remove_older()

    def close(self) -> None:
        """Let go of what comes in."""
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None

    def _take(self, chunk: Chunk) -> None:
        if self._newest is not None and self._newest.meta.index >= chunk.index:
            # It is here already: only the log behind it could not be begun.
            return
        if not chunk.offset:
            self._abandon_incoming()
            self._incoming = SnapshotWriter(self._disk, _INCOMING_NAME, chunk.index, chunk.term)
        writer = self._incoming
        if writer is None or (writer.index, writer.term, writer.places.size) != (chunk.index, chunk.term, chunk.offset):
            # Written once more after the disk was full, and given up for another one already.
            self._abandon_incoming()
            return
        writer.append(chunk.data, done=chunk.done)

    def _abandon_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.abandon()
            self._incoming = None

    def _is_newer(self, meta: SnapshotMeta) -> bool:
        return self._newest is None or meta.index > self._newest.meta.index

    def _put(self, writer: SnapshotWriter, meta: SnapshotMeta) -> None:
        with self._lock:
            if not self._is_newer(meta):
                self._disk.remove(writer.name)
                return
            name = f"snapshot-{meta.index}-{meta.term}.hc"
            self._disk.replace(writer.name, name)
            self._disk.sync()
            self._newest = _Snapshot(meta, name, writer.places)
            self._remove_older()

    def _remove_older(self) -> list[str]:
        newest = self._newest
        if newest is None:
            return []
        older = [name for name in self._disk.names() if _NAME.fullmatch(name) and name != newest.name and name not in self._loading]
        for name in older:
            self._disk.remove(name)
        return older

    def _open(self, index: int, term: int, name: str) -> _Snapshot:
        """Find the frames of a snapshot by their headers, and read the first one."""
        places = Places()
        at, size = 0, self._disk.size(name)
        done = False
        while at < size and not done:
            head = self._disk.read(name, at, FIXED_BYTES)
            if len(head) < FIXED_BYTES:
                raise damaged(self._disk, name, at, "the snapshot is cut short")
            magic, version, kind, length, _ = HEADER.unpack_from(head)
            if (magic, version, kind) != (MAGIC_NUMBER, BASE_VERSION, InstallSnapshot.TYPE) or length < FIXED_BYTES - HEADER_BYTES:
                raise damaged(self._disk, name, at, "no record of a snapshot begins here")
            data_bytes = length + HEADER_BYTES - FIXED_BYTES
            record = InstallSnapshot.decode_payload(head[HEADER_BYTES:-4] + bytes(4))
            if (record.last_included_index, record.last_included_term, record.offset) != (index, term, places.size):
                raise damaged(
                    self._disk, name, at, f"the record is not the one at {places.size} of snapshot {index} of term {term}"
                )
            places.add(data_bytes)
            at += FIXED_BYTES + data_bytes
            done = record.done
        if not done or at != size:
            raise damaged(self._disk, name, min(at, size), "the snapshot does not end where its file does")
        snapshot = _Snapshot(SnapshotMeta(index, term), name, places)
        try:
            configuration, _ = split_stream(self._frame(snapshot, 0).data)
        except MalformedMessageError as error:
            raise damaged(self._disk, name, 0, str(error)) from None
        return _Snapshot(SnapshotMeta(index, term, configuration), name, places)

    def _frame(self, snapshot: _Snapshot, number: int) -> InstallSnapshot:
        at, size = snapshot.places.place(number)
        data = self._disk.read(snapshot.name, at, size)
        reason = "a record of the snapshot is cut short"
        if len(data) == size:
            magic, version, kind, length, checksum = HEADER.unpack_from(data)
            payload = data[HEADER_BYTES:]
            reason = "the checksum of a record of the snapshot is wrong"
            sound = (magic, version, kind, length) == (MAGIC_NUMBER, BASE_VERSION, InstallSnapshot.TYPE, len(payload))
            if sound and crc32(payload) == checksum:
                return InstallSnapshot.decode_payload(payload)
        raise damaged(self._disk, snapshot.name, at, reason)
