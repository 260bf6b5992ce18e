"""What a leader knows of one follower: how far it has the log, and what is on its way (dissertation, section 10.2.1)."""

from __future__ import annotations

from collections import deque
from enum import Enum

import msgspec

from hypercache.limits import RAFT_REQUESTS_MAX_COUNT
from hypercache.raft.snapshot import SnapshotMeta


class ProgressState(Enum):
    """How a follower is sent the log."""

    PROBE = "probe"
    """One AppendEntries at a time, to find where the logs agree."""
    REPLICATE = "replicate"
    """AppendEntries one after another, without waiting for answers."""
    SNAPSHOT = "snapshot"
    """What it needs is compacted: chunks of the snapshot, one at a time."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """An AppendEntries on its way.

    Attributes:
        exchange: its number.
        prev: its prev_log_index.
        last: the index of its last entry; `prev` for a heartbeat.
        size: of its entries, in bytes.
        tick: when it was sent.
    """

    exchange: int
    prev: int
    last: int
    size: int
    tick: int


class Progress:
    """A follower.

    Args:
        next_index: the first entry to send.
        since: the last request that was sent to anybody before.

    Attributes:
        match: the highest index known to be durable there.
        next: the next index to send.
        state: how it is sent the log.
        paused: while probing: whether the probe is on its way; while sending a snapshot: whether a chunk is.
        due: whether it must hear something in the next turn: a heartbeat, or the round of a read.
        active: whether it was heard since the last check of the quorum.
        acked_exchange: the latest request that it answered in this term.
        acked_tick: when that was sent.
        awaited: the highest index whose commit the follower waits for.
        commit_sent: the commit index that it knows once all sent has arrived.
        since: the last request before this follower was taken up: answers to older ones were meant for an earlier time.
        snapshot: the snapshot that it is sent.
        offset: the next chunk's place in it, in bytes.
        chunk_end: where the chunk on its way ends.
        chunk_last: whether that is the last one.
        chunk_exchange: its number; 0 where none is on its way.
        chunk_tick: when it was sent.
    """

    __slots__ = (
        "_inflight",
        "_inflight_bytes",
        "_requests",
        "_unmatched",
        "acked_exchange",
        "acked_tick",
        "active",
        "awaited",
        "chunk_end",
        "chunk_exchange",
        "chunk_last",
        "chunk_tick",
        "commit_sent",
        "due",
        "match",
        "next",
        "offset",
        "paused",
        "since",
        "snapshot",
        "state",
    )

    def __init__(self, next_index: int, since: int = 0) -> None:
        self.match = 0
        self.next = next_index
        self.state = ProgressState.PROBE
        self.paused = False
        self.due = True
        self.active = True
        self.acked_exchange = 0
        self.acked_tick = -1
        self.awaited = 0
        self.commit_sent = 0
        self.since = since
        self.snapshot = SnapshotMeta()
        self.offset = self.chunk_end = self.chunk_exchange = self.chunk_tick = 0
        self.chunk_last = False
        self._requests: deque[Request] = deque()
        # Those that carry entries, apart: their place is free once the follower holds them, whichever answer says so.
        self._inflight: deque[Request] = deque()
        self._inflight_bytes = 0
        # Requests that were given up and whose answers may still come: one that says nothing but its order must not be taken for
        # that of a later request.
        self._unmatched = 0

    def probe(self, next_index: int) -> None:
        """Go back to one AppendEntries at a time."""
        self.state = ProgressState.PROBE
        self.next = max(next_index, self.match + 1)
        self.paused = False
        self._forget()

    def send_snapshot(self, snapshot: SnapshotMeta) -> None:
        """Begin with a snapshot."""
        self.state = ProgressState.SNAPSHOT
        self.snapshot = snapshot
        self.offset = self.chunk_exchange = 0
        self.paused = False
        self._forget()

    def lost(self) -> None:
        """Note that nothing that is on its way will be answered: begin again where the follower surely stands."""
        if self.state is ProgressState.SNAPSHOT:
            self.paused = False
            self.chunk_exchange = 0
            self._forget()
        else:
            self.probe(self.match + 1 if self.state is ProgressState.REPLICATE else self.next)
        self._unmatched = 0

    def window_open(self, max_count: int, max_bytes: int) -> bool:
        """Whether one more AppendEntries may be sent before an answer; a window of bytes may be overrun by the last."""
        return len(self._inflight) < max_count and self._inflight_bytes < max_bytes

    def sent(self, request: Request) -> None:
        """Note an AppendEntries."""
        self._requests.append(request)
        if request.size:
            self._inflight.append(request)
            self._inflight_bytes += request.size
        if len(self._requests) > RAFT_REQUESTS_MAX_COUNT:
            self._requests.popleft()
            self._unmatched += 1

    def answered(self, exchange: int) -> Request | None:
        """Return the request that an answer belongs to, no longer on its way; exchange 0 takes the oldest.

        Those before it are given up: their answers were lost, or have nothing to add.
        """
        requests = self._requests
        if not exchange and self._unmatched:
            self._unmatched -= 1
            return None
        if not requests or 0 < exchange < requests[0].exchange:
            return None
        while requests:
            request = requests.popleft()
            if exchange in (0, request.exchange):
                return request
        return None

    def matched(self, index: int) -> bool:
        """Note that the follower holds the log up to ``index``; return whether that is news."""
        inflight = self._inflight
        while inflight and inflight[0].last <= index:
            self._inflight_bytes -= inflight.popleft().size
        if index >= self.next:
            self.next = index + 1
        if index <= self.match:
            return False
        self.match = index
        return True

    def replicate(self) -> None:
        """Go on without waiting for answers, from behind what matches."""
        self.state = ProgressState.REPLICATE
        self.next = self.match + 1
        self.paused = False
        self._forget()

    def _forget(self) -> None:
        self._unmatched += len(self._requests)
        self._requests.clear()
        self._inflight.clear()
        self._inflight_bytes = 0
