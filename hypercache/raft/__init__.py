"""Consensus without I/O: `Raft` takes messages and ticks, and hands out what is to be written and sent (docs/raft.md)."""

from hypercache.raft.configuration import Configuration
from hypercache.raft.core import Raft, State
from hypercache.raft.log import EntryType, RaftLog
from hypercache.raft.options import Options
from hypercache.raft.progress import Progress, ProgressState
from hypercache.raft.ready import HardState, Outbound, ReadState, Ready
from hypercache.raft.snapshot import Chunk, SnapshotMeta, SnapshotReader, snapshot_header, split_stream

__all__ = [
    "Chunk",
    "Configuration",
    "EntryType",
    "HardState",
    "Options",
    "Outbound",
    "Progress",
    "ProgressState",
    "Raft",
    "RaftLog",
    "ReadState",
    "Ready",
    "SnapshotMeta",
    "SnapshotReader",
    "State",
    "snapshot_header",
    "split_stream",
]
