"""A follower or learner: takes the log or a snapshot from the leader (Raft paper, figures 2 and 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.errors import MalformedMessageError
from hypercache.raft.snapshot import HAVE_ALL, Assembly, Chunk, SnapshotMeta
from hypercache.wire.messages import AppendEntries, AppendResponse, InstallSnapshot, SnapshotResponse

if TYPE_CHECKING:
    from hypercache.raft.core import Raft


class Follower:
    """The role of a node that neither leads nor campaigns.

    Args:
        raft: the node's core.
    """

    __slots__ = ("_assembly", "_raft")

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._assembly = Assembly()

    def tick(self) -> None:
        """Campaign where the leader was silent for too long."""
        raft = self._raft
        if raft.timed_out() and raft.promotable:
            raft.campaign()

    def append(self, message: AppendEntries) -> AppendResponse:
        """Take entries of the current leader; return the answer (figure 2, AppendEntries RPC)."""
        raft = self._raft
        log = raft.log
        prev = message.prev_log_index
        if prev > log.last_index:
            return AppendResponse(raft.term, False, log.last_index + 1, 0)
        if prev >= log.first_index - 1 and log.term_of(prev) != message.prev_log_term:
            return AppendResponse(raft.term, False, log.first_index_of_term(prev), log.term_of(prev))
        entries = message.entries
        last = prev + len(entries)
        if entries:
            log.merge(prev, entries)
        # Behind `last` this log may still hold what the leader does not.
        log.commit_to(min(message.leader_commit, last))
        return AppendResponse(raft.term, True, last, entries[-1].term if entries else message.prev_log_term)

    def install(self, message: InstallSnapshot) -> SnapshotResponse:
        """Take a chunk of a snapshot; return the answer (figure 13)."""
        raft = self._raft
        log = raft.log
        index, term = message.last_included_index, message.last_included_term
        if log.term_of(index) == term and index > log.committed:
            # All that the snapshot covers is here (figure 13, rule 6).
            log.commit_to(index)
        if index <= log.committed:
            return SnapshotResponse(raft.term, True, HAVE_ALL)
        key = (message.leader_id, message.term, index, term)
        try:
            taken = self._assembly.take(key, message.offset, message.data)
        except MalformedMessageError:
            return SnapshotResponse(raft.term, False, 0)
        if taken:
            chunk = Chunk(index, term, message.offset, message.data, message.done)
            snapshot = SnapshotMeta(index, term, self._assembly.configuration) if message.done else None
            raft.receive_chunk(chunk, snapshot)
            if snapshot is not None:
                self._assembly = Assembly()
                return SnapshotResponse(raft.term, True, HAVE_ALL)
        return SnapshotResponse(raft.term, taken, self._assembly.next_offset)
