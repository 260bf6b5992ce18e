"""What a node of a Raft group keeps on its disk: the log, the vote, snapshots (`hypercache.consensus.contracts.Storage`).

docs/durability.md has the files, their records, and what is done about each fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import msgspec

from hypercache.errors import ConfigurationError, DiskFullError, StorageError
from hypercache.limits import RAFT_LOOP_WRITE_MAX_BYTES, RAFT_SEGMENT_BYTES
from hypercache.persist.records import BATCH_END_BYTES, entry_frames
from hypercache.persist.recovery import read_log
from hypercache.persist.segments import Segments, segment_name, state_record
from hypercache.persist.snapshots import Snapshots
from hypercache.persist.terms import Terms
from hypercache.raft import HardState, SnapshotMeta
from hypercache.wire.messages import LogBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hypercache.persist.disk import Disk
    from hypercache.persist.recovery import Found
    from hypercache.raft import Configuration, Ready
    from hypercache.wire.messages import LogEntry


class Recovered(msgspec.Struct, frozen=True):
    """What a restart finds: the arguments of `hypercache.raft.Raft` of the same names.

    Attributes:
        hard_state: term, vote and commit index.
        snapshot: the newest one.
        entries: those behind it.
    """

    hard_state: HardState
    snapshot: SnapshotMeta
    entries: list[LogEntry]


class RaftStorage:
    """The disk of one node; made by `open_raft_storage`.

    `write`, `found`, `compact` and `close` are called one at a time, and so is `append`, which `synced` ends; `save_snapshot` and
    what reads `load_snapshot` beside them, one at a time too; `read` at any time. Once the disk has failed, every call raises
    StorageError: the process must end.

    Args:
        disk: the directory.
        segments: of the log.
        snapshots: of the directory.
        state: as it is on the disk.
        terms: of the log's entries.
    """

    def __init__(self, disk: Disk, segments: Segments, snapshots: Snapshots, state: HardState, terms: Terms) -> None:
        self._disk = disk
        self._segments = segments
        self._snapshots = snapshots
        self._state = state
        self._terms = terms
        self._broken: BaseException | None = None
        self._closed = False
        self._saving = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a group was ever kept here."""
        return self._snapshots.newest is None and not self._terms.last and self._state == HardState()

    def found(self, configuration: Configuration) -> SnapshotMeta:
        """Keep the first configuration of a new group, durably: a snapshot of index 0.

        Raises:
            ConfigurationError: something of a group is here already.
            DiskFullError, StorageError: as `write`.
        """
        if not self.is_empty:
            raise ConfigurationError(f"{self._disk.path} holds a group's log: a group is founded once, in an empty directory")
        meta = SnapshotMeta(0, 0, configuration)
        self.save_snapshot(meta, ())
        return meta

    def write(self, readies: Sequence[Ready]) -> None:
        """Write what these readies want written, in order, and make it durable with one fsync.

        Raises:
            DiskFullError: nothing more fits; nothing of it counts, and the same may be written again. Only a snapshot that was
                whole stays: what the log holds agrees with it, or is dropped at the next start.
            StorageError: the disk failed: nothing is known of what it holds, and the process must end.
        """
        self._require_sound()
        incoming = self._snapshots.mark()
        try:
            try:
                self._write(readies)
            except DiskFullError:
                self._snapshots.rewind(incoming)
                raise
        except OSError as error:
            self._fail(error)

    def append(self, readies: Sequence[Ready]) -> int | None:
        """Write as `write` does what is small, into the page cache alone; called on the loop.

        Returns:
            The descriptor of the file that must be made durable, before anything else is done but what may be done beside
            `write`; `synced` is called then. None where `write` must do it all.

        Raises:
            StorageError: as `write`.
        """
        self._require_sound()
        # While a snapshot is written the kernel holds up who writes beside it.
        if self._saving or not _is_small(readies):
            return None
        state, terms = self._state, self._terms.copy()
        frames: list[bytes] = []
        for ready in readies:
            state = _add_frames(ready, state, terms, frames)
        segments = self._segments
        if not frames or not segments.has_room(sum(map(len, frames)) + BATCH_END_BYTES):
            return None
        frames.append(LogBatch(segments.end).encode_frame())
        try:
            descriptor = segments.append_unsynced(b"".join(frames))
        except OSError as error:
            self._fail(error)
        if descriptor is not None:
            self._state, self._terms = state, terms
        return descriptor

    def synced(self, error: BaseException | None) -> None:
        """Take note that what was appended is durable, or why it is not.

        Raises:
            StorageError: there was an error, and as `write`.
        """
        if error is not None:
            self._fail(error)

    def save_snapshot(self, snapshot: SnapshotMeta, stream: Iterable[bytes]) -> None:
        """Write a snapshot of this node's own state machine, durably, beside and renamed; older snapshots then go.

        Args:
            snapshot: what it stands for; nothing happens where a newer one is there by now.
            stream: the pieces behind `hypercache.raft.snapshot_header`, which this writes itself.

        Raises:
            DiskFullError: it does not fit; the one before is still there.
            StorageError: as `write`.
        """
        self._require_sound()
        self._saving = True
        try:
            self._snapshots.save(snapshot, stream)
        except OSError as error:
            self._fail(error)
        finally:
            self._saving = False

    def load_snapshot(self) -> Iterator[bytes]:
        """Return the pieces of the newest snapshot, without its header, one at a time; none where there is no snapshot.

        Raises:
            LogDamagedError: it is damaged.
            StorageError: as `write`.
        """
        self._require_sound()
        try:
            yield from self._snapshots.load()
        except OSError as error:
            self._fail(error)

    def compact(self, index: int) -> None:
        """Remove the segments that hold nothing behind ``index``, or behind the newest snapshot where that ends sooner.

        Raises:
            StorageError: as `write`.
        """
        self._require_sound()
        newest = self._snapshots.newest
        if newest is None:
            return
        try:
            self._terms.forget(self._segments.compact(min(index, newest.index)))
        except OSError as error:
            self._fail(error)

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        """Return a piece of a snapshot for a follower and whether it is the last; None where there is none such any more.

        Args:
            index: the snapshot's last entry.
            offset: where in the stream, in bytes.
            max_bytes: at most so many; a piece ends where a record does, too.

        Raises:
            LogDamagedError: it is damaged there.
            StorageError: as `write`.
        """
        self._require_sound()
        try:
            return self._snapshots.read(index, offset, max_bytes)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Let go of the files. No other call may follow, or be under way.

        Raises:
            StorageError: as `write`.
        """
        if self._closed or self._broken is not None:
            return
        self._closed = True
        try:
            self._snapshots.close()
            self._segments.close()
        except OSError as error:
            self._fail(error)

    def _write(self, readies: Sequence[Ready]) -> None:
        state, terms = self._state, self._terms.copy()
        frames: list[bytes] = []
        for ready in readies:
            if ready.chunks:
                self._snapshots.take(ready.chunks)
            if ready.snapshot is not None:
                state = ready.hard_state or state
                self._install(ready.snapshot, state)
                frames.clear()
                terms = self._terms.copy()
            state = _add_frames(ready, state, terms, frames)
        if frames:
            self._append(frames)
            self._terms = terms
        self._state = state

    def _append(self, frames: list[bytes]) -> None:
        segments = self._segments
        if not segments.has_room(sum(map(len, frames)) + BATCH_END_BYTES):
            segments.begin(self._terms.last, self._terms.last_term, self._state)
        frames.append(LogBatch(segments.end).encode_frame())
        segments.append(b"".join(frames))

    def _install(self, snapshot: SnapshotMeta, state: HardState) -> None:
        """Put a snapshot in the place of the log; a crash in between leaves the log to `open_raft_storage`, which drops it."""
        self._snapshots.install(snapshot)
        self._segments.begin(snapshot.index, snapshot.term, state)
        self._state, self._terms = state, Terms(snapshot.index, snapshot.term)
        self._segments.drop_all_but_last()

    def _require_sound(self) -> None:
        if self._broken is not None:
            raise StorageError(f"{self._disk.path} failed earlier ({self._broken}): this process must end")
        if self._closed:
            raise StorageError(f"{self._disk.path} is closed")

    def _fail(self, error: BaseException) -> NoReturn:
        self._broken = self._broken or error
        raise StorageError(f"{self._disk.path} failed ({error}): what it holds is not known, and this process must end") from error


def _is_small(readies: Sequence[Ready]) -> bool:
    """Whether the loop may write it."""
    size = 0
    for ready in readies:
        if ready.chunks or ready.snapshot is not None:
            return False
        for entry in ready.entries:
            size += len(entry.data)
    return size <= RAFT_LOOP_WRITE_MAX_BYTES


def _add_frames(ready: Ready, state: HardState, terms: Terms, frames: list[bytes]) -> HardState:
    """Add the records of a ready behind its snapshot, and their terms; return the state as of then."""
    changed = ready.hard_state
    if changed is not None:
        voted = (changed.term, changed.vote) != (state.term, state.vote)
        state = changed
        # A segment that follows a snapshot begins with the state.
        if voted:
            frames.append(state_record(state))
    if ready.entries:
        first = ready.first_index
        prev_term = terms.at(first - 1)
        terms.replace(first, ready.entries)
        frames += entry_frames(state.term, first - 1, prev_term, state.commit, ready.entries)
    return state


def open_raft_storage(
    disk: Disk, cluster_id: int, node_id: int, *, segment_bytes: int = RAFT_SEGMENT_BYTES
) -> tuple[RaftStorage, Recovered]:
    """Find what a node kept, put right what a crash left, and go on there.

    Args:
        disk: the directory; nothing else is in it.
        cluster_id: whose log it must be.
        node_id: likewise.
        segment_bytes: how long a segment of the log gets.

    Raises:
        LogDamagedError: it is damaged, or a part of it is missing: nothing was changed.
        ConfigurationError: it is another node's.
        DiskFullError: there is no room for a record.
        StorageError: the disk failed.
    """
    try:
        snapshots = Snapshots(disk)
        found = read_log(disk, cluster_id, node_id, snapshots.newest)
        segments = Segments(disk, cluster_id, node_id, segment_bytes, found.segments)
        return _put_right(disk, segments, snapshots, found)
    except OSError as error:
        raise StorageError(f"{disk.path} failed ({error.strerror or error})") from error


def _put_right(disk: Disk, segments: Segments, snapshots: Snapshots, found: Found) -> tuple[RaftStorage, Recovered]:
    for number in found.leftovers:
        disk.remove(segment_name(number))
    if snapshots.clear_leftovers() or found.leftovers:
        disk.sync()
    snapshot = snapshots.newest or SnapshotMeta()
    state, terms, entries = found.state, found.terms, found.entries
    reached = max(snapshot.term, terms.last_term)
    if reached > state.term:
        # A crash came between a snapshot and the term that it came in; nobody was voted for in that one.
        state = HardState(reached, 0, state.commit)
    if segments.is_begun:
        segments.resume(found.end, found.size, found.begin)
    else:
        segments.begin(0, 0, state)
    if terms.at(snapshot.index) != snapshot.term:
        # A crash came between a snapshot from the leader and the log behind it.
        terms, entries = Terms(snapshot.index, snapshot.term), []
        segments.begin(snapshot.index, snapshot.term, state)
        segments.drop_all_but_last()
    storage = RaftStorage(disk, segments, snapshots, state, terms)
    return storage, Recovered(state, snapshot, entries)
