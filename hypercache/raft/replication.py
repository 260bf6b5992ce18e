"""What a leader sends its followers, and what their answers teach it (Raft paper, section 5.3; dissertation, section 10.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.raft.log import UNKNOWN_TERM
from hypercache.raft.progress import Progress, ProgressState, Request
from hypercache.raft.snapshot import HAVE_ALL
from hypercache.wire.messages import AppendEntries, InstallSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.raft.core import Raft
    from hypercache.wire.messages import AppendResponse, SnapshotResponse

_PROBE: Final = ProgressState.PROBE
_REPLICATE: Final = ProgressState.REPLICATE
_SNAPSHOT: Final = ProgressState.SNAPSHOT


class Replication:
    """The followers of one leader.

    Args:
        raft: the leader's core.

    Attributes:
        progress: by id, without the leader itself.
        tick: the leader's count of ticks.
    """

    __slots__ = ("_raft", "progress", "tick")

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self.progress: dict[int, Progress] = {}
        self.tick = 0

    def follow(self, members: Iterable[int], next_index: int) -> None:
        """Send the log to these nodes and to nobody else."""
        raft = self._raft
        progress = self.progress
        since = raft.outbox.last_exchange
        self.progress = {
            node: progress[node] if node in progress else Progress(next_index, since)
            for node in sorted(members)
            if node != raft.node_id
        }

    def heartbeat(self) -> None:
        """Let every follower hear something in this turn.

        Its answer tells what was lost: it refuses what does not follow the log that it has, or says that all before has arrived.
        """
        for progress in self.progress.values():
            progress.due = True

    def await_commit(self, index: int) -> None:
        """Have every follower hear at once when an entry is committed."""
        for progress in self.progress.values():
            progress.awaited = index

    def flush(self) -> None:
        """Send each follower what it lacks."""
        for node, progress in self.progress.items():
            if progress.state is _REPLICATE:
                self._replicate(node, progress)
            elif progress.state is _PROBE:
                if progress.due or not progress.paused:
                    self._probe(node, progress)
            else:
                self._send_chunk(node, progress)

    def _replicate(self, node: int, progress: Progress) -> None:
        log = self._raft.log
        options = self._raft.options
        last = log.last_index
        quiet = True
        while progress.next <= last and progress.window_open(options.inflight_max_count, options.inflight_max_bytes):
            if not self._append(node, progress, options.append_max_bytes):
                return
            quiet = False
        if quiet:
            news = min(log.committed, progress.next - 1)
            if not options.prompt_commits:
                news = min(news, progress.awaited)
            if progress.due or progress.commit_sent < news:
                self._append(node, progress, 0)

    def _probe(self, node: int, progress: Progress) -> None:
        # Entries go once: while their answer is awaited, a heartbeat that asks the same is enough, and costs a dead peer nothing.
        if self._append(node, progress, 0 if progress.paused else self._raft.options.append_max_bytes):
            progress.paused = True

    def _append(self, node: int, progress: Progress, max_bytes: int) -> bool:
        """Send entries from the follower's next index on, or with ``max_bytes`` 0 none; return whether the log is still there."""
        raft = self._raft
        log = raft.log
        prev = progress.next - 1
        prev_term = log.term_of(prev)
        if prev_term == UNKNOWN_TERM:
            progress.send_snapshot(log.snapshot)
            self._send_chunk(node, progress)
            return False
        last = log.last_within(prev + 1, max_bytes) if max_bytes and prev < log.last_index else prev
        entries = tuple(log.entries(prev + 1, last)) if last > prev else ()
        size = log.bytes_between(prev, last) if entries else 0
        exchange = raft.outbox.request(node, AppendEntries(raft.term, raft.node_id, prev, prev_term, log.committed, entries))
        progress.sent(Request(exchange, prev, last, size, self.tick))
        progress.due = False
        progress.commit_sent = min(log.committed, last)
        if progress.state is _REPLICATE:
            progress.next = last + 1
        return True

    def _send_chunk(self, node: int, progress: Progress) -> None:
        raft = self._raft
        if progress.paused:
            waits = progress.chunk_exchange and self.tick - progress.chunk_tick < raft.options.election_ticks
            if waits and progress.due:
                self._show_life(node, progress)
            if waits or not progress.due:
                return
        chunk = raft.snapshots.read(progress.snapshot.index, progress.offset, raft.options.chunk_bytes)
        if chunk is None and (progress.offset or progress.snapshot.index != raft.log.snapshot.index):
            # It is gone: the newest took its place. As long as it can be read it goes on, or one that is made often never arrives.
            progress.send_snapshot(raft.log.snapshot)
            chunk = raft.snapshots.read(progress.snapshot.index, 0, raft.options.chunk_bytes)
        if chunk is None:
            # There is none yet: the next heartbeat looks again.
            progress.paused = True
            self._show_life(node, progress)
            return
        snapshot = progress.snapshot
        progress.due = False
        data, last = chunk
        message = InstallSnapshot(raft.term, raft.node_id, snapshot.index, snapshot.term, progress.offset, last, data)
        progress.chunk_end = progress.offset + len(data)
        progress.chunk_last = last
        progress.chunk_tick = self.tick
        progress.chunk_exchange = raft.outbox.request(node, message)
        progress.paused = True

    def _show_life(self, node: int, progress: Progress) -> None:
        """Send an AppendEntries that every log agrees with."""
        raft = self._raft
        exchange = raft.outbox.request(node, AppendEntries(raft.term, raft.node_id, 0, 0, 0, ()))
        progress.sent(Request(exchange, 0, 0, 0, self.tick))
        progress.due = False

    def lost(self, node: int) -> None:
        """Note that the link to a follower dropped, with all that was on its way."""
        progress = self.progress.get(node)
        if progress is not None:
            progress.lost()

    def needed(self, index: int) -> int:
        """Return up to where the log may be dropped although a snapshot of ``index`` exists.

        Who is being sent an older snapshot needs what follows it, or it would have to be sent the next one, and so on for ever.
        """
        since = self.tick - self._raft.options.election_ticks
        for progress in self.progress.values():
            if progress.snapshot.index and progress.acked_tick > since:
                index = min(index, max(progress.match, progress.snapshot.index))
        return index

    def append_response(self, progress: Progress, message: AppendResponse, exchange: int) -> bool:
        """Take an answer; return whether the follower is now known to hold more."""
        progress.active = True
        # An answer to what was sent in an earlier life of this node, or to the follower as it was before it was removed, is none.
        if exchange and not progress.since < exchange <= self._raft.outbox.last_exchange:
            return False
        request = progress.answered(exchange)
        # A refusal without a place is that of a request of an older term: it does not show that this term's leader was heard.
        if message.success or message.conflict_index:
            if request is not None:
                exchange = request.exchange
                progress.acked_tick = max(progress.acked_tick, request.tick)
            progress.acked_exchange = max(progress.acked_exchange, exchange)
        if not message.success:
            if request is not None and progress.state is not _SNAPSHOT:
                self._back_off(progress, message, request)
            return False
        index = message.conflict_index
        log = self._raft.log
        if not index and not message.conflict_term:
            if request is None:
                return False
            index = request.last
        elif index > log.last_index or log.term_of(index) not in (message.conflict_term, UNKNOWN_TERM):
            return False
        news = progress.matched(index)
        if progress.state is _PROBE or (progress.state is _SNAPSHOT and progress.match >= log.first_index - 1):
            progress.replicate()
        return news

    def _back_off(self, progress: Progress, message: AppendResponse, request: Request) -> None:
        """Find where the logs may agree, a term a round (dissertation, section 3.5)."""
        prev = request.prev
        if prev <= progress.match or (progress.state is _PROBE and prev != progress.next - 1):
            return
        next_index = message.conflict_index
        if message.conflict_term:
            last = self._raft.log.last_index_of_term(message.conflict_term, prev)
            if last:
                next_index = last + 1
        progress.probe(max(1, min(next_index or prev, prev)))

    def snapshot_response(self, progress: Progress, message: SnapshotResponse, exchange: int) -> bool:
        """Take an answer to a chunk; return whether the follower is now known to hold more."""
        progress.active = True
        chunk = progress.chunk_exchange
        if progress.state is not _SNAPSHOT or not chunk or exchange not in (0, chunk):
            return False
        offset = message.next_offset
        if message.success or offset:
            progress.acked_exchange = max(progress.acked_exchange, chunk)
        if offset == HAVE_ALL or (message.success and progress.chunk_last and offset >= progress.chunk_end):
            news = progress.matched(progress.snapshot.index)
            progress.probe(progress.snapshot.index + 1)
            return news
        # A follower that wants just what it refused finds it damaged: it is sent again, but not at once.
        if offset != progress.offset:
            progress.paused = False
            progress.chunk_exchange = 0
            progress.offset = offset
        return False
