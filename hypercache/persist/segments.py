"""The files of the Raft log, as they are written: one is appended to, those before it are whole (docs/durability.md)."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Final

from hypercache.errors import DiskFullError
from hypercache.persist.tail import AMBIGUOUS
from hypercache.wire.messages import LogBatch, LogSegment, LogState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.persist.disk import AppendFile, Disk
    from hypercache.raft import HardState

_NAME: Final = re.compile(r"log-(\d{10,})\.hc")
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def segment_name(number: int) -> str:
    """Return a segment's file name."""
    return f"log-{number:010d}.hc"


def segment_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the segments among file names, ascending."""
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))


def is_full(error: OSError) -> bool:
    """Whether an error says that nothing more fits."""
    return error.errno in _FULL


def state_record(state: HardState) -> bytes:
    """Return the record of term, vote and commit index."""
    return LogState(state.term, state.vote, state.commit).encode_frame()


class Segments:
    """The segments of a log; the last one is appended to.

    What raises OSError leaves the disk in a state that is not known.

    Args:
        disk: where they are.
        cluster_id: whose they are.
        node_id: likewise.
        segment_bytes: how long one gets; a batch that is longer gets one of its own.
        found: number and previous index of those that are there, ascending.

    Attributes:
        end: where the next batch goes in the last one.
    """

    def __init__(self, disk: Disk, cluster_id: int, node_id: int, segment_bytes: int, found: list[tuple[int, int]]) -> None:
        self._disk = disk
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._segment_bytes = segment_bytes
        self._segments = found
        self._file: AppendFile | None = None
        self._head_end = self.end = 0

    @property
    def name(self) -> str:
        """The file name of the last one."""
        return segment_name(self._segments[-1][0])

    @property
    def is_begun(self) -> bool:
        """Whether there is one."""
        return bool(self._segments)

    def resume(self, end: int, size: int, begin: int) -> None:
        """Append to the last one again; what was found in it is then followed by a batch, and never again taken for torn.

        Args:
            end: where what is sound of it ends.
            size: how long it is.
            begin: where the batch begins that ``end`` ends; ``end`` itself where none is unfinished.

        Raises:
            DiskFullError: nothing fits; there is nothing to append to.
        """
        self._file = self._disk.open(self.name)
        self.end = self._head_end = end
        if size > end:
            self._file.truncate(end)
            # Before anything is appended: what was cut off must not come back behind it.
            self._file.sync()
        self.append(LogBatch(begin).encode_frame())
        if begin < end:
            self._confirm(self._file)

    def begin(self, prev_index: int, prev_term: int, state: HardState) -> None:
        """Begin another one; the one before is whole then.

        Args:
            prev_index: the index of the entry that its first one follows.
            prev_term: that entry's term.
            state: as of then.

        Raises:
            DiskFullError: it does not fit; the one before remains the last.
        """
        self._finish()
        number = self._segments[-1][0] + 1 if self._segments else 1
        name = segment_name(number)
        head = LogSegment(self._cluster_id, self._node_id, number, prev_index, prev_term).encode_frame() + state_record(state)
        head += LogBatch(0).encode_frame()
        try:
            file = self._disk.create(name, self._segment_bytes)
        except OSError as error:
            if is_full(error):
                raise DiskFullError(f"{self._disk.path}/{name} cannot be made: the disk is full") from error
            raise
        try:
            file.append(head)
        except OSError as error:
            file.close()
            if not is_full(error):
                raise
            # It must be gone durably before the one before it grows.
            self._disk.remove(name)
            self._disk.sync()
            raise DiskFullError(f"{self._disk.path}/{name} cannot be begun: the disk is full") from error
        file.sync()
        self._disk.sync()
        if self._file is not None:
            self._file.close()
        self._file = file
        self._segments.append((number, prev_index))
        self.end = self._head_end = len(head)

    def has_room(self, size: int) -> bool:
        """Whether a batch of so many bytes belongs into the last one."""
        return self.end + size <= self._segment_bytes or self.end == self._head_end

    def append_unsynced(self, batch: bytes) -> int | None:
        """Append a batch, its end included, and make nothing durable.

        Returns:
            The descriptor of the file that is to be synced before anything else is done; None where only `append` will do, and
            nothing was done.
        """
        file = self._file
        assert file is not None, "a log is begun or resumed first"
        descriptor = file.descriptor()
        if descriptor is None or AMBIGUOUS in batch:
            return None
        if self._append_whole(file, batch) is not None:
            return None
        self.end += len(batch)
        return descriptor

    def append(self, batch: bytes) -> None:
        """Append a batch, its end included, and make it durable.

        Raises:
            DiskFullError: it does not fit; nothing of it is there.
        """
        file = self._file
        assert file is not None, "a log is begun or resumed first"
        full = self._append_whole(file, batch)
        file.sync()
        if full is not None:
            raise DiskFullError(f"{self._disk.path}/{self.name} cannot grow: the disk is full") from full
        self.end += len(batch)
        if AMBIGUOUS in batch:
            self._confirm(file)

    def _confirm(self, file: AppendFile) -> None:
        """Append an empty batch, which shows that the one before is durable."""
        mark = LogBatch(self.end).encode_frame()
        full = self._append_whole(file, mark)
        file.sync()
        # Without it the batch is durable all the same: only, a flipped bit in it could now be taken for a hole.
        if full is None:
            self.end += len(mark)

    def _append_whole(self, file: AppendFile, data: bytes) -> OSError | None:
        """Append all of it, or nothing where the disk is full; return that error then. Nothing is made durable."""
        try:
            file.append(data)
        except OSError as error:
            if not is_full(error):
                raise
            file.truncate(self.end)
            return error
        return None

    def drop_before(self, number: int) -> None:
        """Remove the segments before the one of that number."""
        kept = [segment for segment in self._segments if segment[0] >= number]
        if len(kept) < len(self._segments):
            for gone, _ in self._segments[: len(self._segments) - len(kept)]:
                self._disk.remove(segment_name(gone))
            self._segments = kept
            self._disk.sync()

    def drop_all_but_last(self) -> None:
        """Remove what a snapshot has replaced."""
        self.drop_before(self._segments[-1][0])

    def compact(self, index: int) -> int:
        """Remove the segments that hold nothing behind an index; return the index that the first one left follows."""
        keep = 0
        while keep + 1 < len(self._segments) and self._segments[keep + 1][1] <= index:
            keep += 1
        self.drop_before(self._segments[keep][0])
        return self._segments[0][1]

    def close(self) -> None:
        """Cut off what was reserved, and let go."""
        if self._file is not None:
            self._finish()
            self._file.close()
            self._file = None

    def _finish(self) -> None:
        """Make the last segment end where its last batch does, before another one follows it."""
        if self._file is not None:
            self._file.truncate(self.end)
            self._file.sync()
