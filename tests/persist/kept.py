"""What the tests of the Raft log share: readies, and a model of what a directory must give back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hypercache.persist.raft_log import RaftStorage, Recovered, open_raft_storage
from hypercache.raft import Chunk, Configuration, HardState, Ready, SnapshotMeta, snapshot_header
from hypercache.testing.disk import SimulatedDisk
from hypercache.wire.messages import LogEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercache.persist.disk import Disk

CLUSTER = 0xC1
NODE = 7
MEMBERS = Configuration((7, 8, 9))


def entry(term: int, data: bytes | str) -> LogEntry:
    return LogEntry(term, 1, data.encode() if isinstance(data, str) else data)


def ready(
    first: int = 0, *entries: LogEntry, state: tuple[int, int, int] | None = None, snapshot: SnapshotMeta | None = None
) -> Ready:
    """Return a Ready that must be synced; with ``snapshot`` one that carries it whole."""
    chunks = chunks_of(snapshot, b"state") if snapshot else ()
    hard_state = HardState(*state) if state else None
    return Ready(number=1, hard_state=hard_state, chunks=chunks, snapshot=snapshot, first_index=first, entries=entries)


def chunks_of(meta: SnapshotMeta, content: bytes, size: int = 1 << 20) -> tuple[Chunk, ...]:
    stream = snapshot_header(meta.configuration) + content
    starts = range(0, len(stream), size)
    return tuple(Chunk(meta.index, meta.term, at, stream[at : at + size], at + size >= len(stream)) for at in starts)


def reopen(disk: Disk, segment_bytes: int = 4096) -> tuple[RaftStorage, Recovered]:
    return open_raft_storage(disk, CLUSTER, NODE, segment_bytes=segment_bytes)


def copied(disk: SimulatedDisk) -> SimulatedDisk:
    """Return a disk that holds the same, all of it durable."""
    other = SimulatedDisk()
    for name in disk.names():
        file = other.create(name)
        file.append(disk.read(name, 0, disk.size(name)))
        file.sync()
    other.sync()
    return other


def put(disk: SimulatedDisk, name: str, data: bytes) -> None:
    """Make a file hold just that."""
    file = disk.create(name)
    file.append(data)
    file.sync()
    disk.sync()


class Kept(msgspec.Struct, frozen=True):
    """What a restart must find.

    Attributes:
        term, vote: of the hard state.
        snapshot: the newest one.
        entries: those behind it.
    """

    term: int = 0
    vote: int = 0
    snapshot: SnapshotMeta = SnapshotMeta()
    entries: tuple[LogEntry, ...] = ()

    def after(self, readies: list[Ready]) -> Iterator[Kept]:
        """Yield each state that a crash may leave on the way, the last of them at the end."""
        kept = self
        for one in readies:
            if one.snapshot is not None:
                kept = Kept(max(kept.term, one.snapshot.term), kept.vote if kept.term >= one.snapshot.term else 0, one.snapshot)
                yield kept
            if one.hard_state is not None:
                kept = Kept(one.hard_state.term, one.hard_state.vote, kept.snapshot, kept.entries)
                yield kept
            if one.entries:
                before = kept.entries[: one.first_index - kept.snapshot.index - 1]
                for count in range(1, len(one.entries) + 1):
                    yield Kept(kept.term, kept.vote, kept.snapshot, before + one.entries[:count])
                kept = Kept(kept.term, kept.vote, kept.snapshot, before + one.entries)

    def saved(self, snapshot: SnapshotMeta) -> Kept:
        """Return the state with a snapshot of its own."""
        return Kept(self.term, self.vote, snapshot, self.entries[snapshot.index - self.snapshot.index :])


def kept_in(recovered: Recovered) -> Kept:
    state = recovered.hard_state
    return Kept(state.term, state.vote, recovered.snapshot, tuple(recovered.entries))
