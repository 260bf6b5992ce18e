"""What a leader knows of one follower: how far it has the log, and what is on its way (dissertation, section 10.2.1)."""

from __future__ import annotations

from collections import deque
from enum import Enum

import msgspec

from hypercache.limits import RAFT_REQUESTS_MAX_COUNT


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

    Attributes:
        match: the highest index known to be durable there.
        next: the next index to send.
        state: how it is sent the log.
        paused: while probing: whether the probe is on its way; while sending a snapshot: whether a chunk is.
        due: whether it must hear something in the next turn: a heartbeat, or the round of a read.
        active: whether it was heard since the last check of the quorum.
        acked_exchange: the latest request that it answered in this term.
        acked_tick: when that was sent.
        commit_sent: the commit index that it knows once all sent has arrived.
        snapshot_index: the snapshot that it is sent.
        offset: the next chunk's place in it, in bytes.
        chunk_end: where the chunk on its way ends.
        chunk_last: whether that is the last one.
        chunk_exchange: its number.
        chunk_tick: when it was sent.
    """

    __slots__ = (
        "_inflight_bytes",
        "_inflight_count",
        "_requests",
        "acked_exchange",
        "acked_tick",
        "active",
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
        "snapshot_index",
        "state",
    )

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.next = next_index
        self.state = ProgressState.PROBE
        self.paused = False
        self.due = True
        self.active = True
        self.acked_exchange = 0
        self.acked_tick = -1
        self.commit_sent = 0
        self.snapshot_index = self.offset = self.chunk_end = self.chunk_exchange = self.chunk_tick = 0
        self.chunk_last = False
        self._requests: deque[Request] = deque()
        self._inflight_count = 0
        self._inflight_bytes = 0

    def probe(self, next_index: int) -> None:
        """Go back to one AppendEntries at a time."""
        self.state = ProgressState.PROBE
        self.next = max(next_index, self.match + 1)
        self.paused = False
        self._forget()

    def send_snapshot(self, index: int) -> None:
        """Begin with a snapshot."""
        self.state = ProgressState.SNAPSHOT
        self.snapshot_index = index
        self.offset = 0
        self.paused = False
        self._forget()

    def window_open(self, max_count: int, max_bytes: int) -> bool:
        """Whether one more AppendEntries may be sent before an answer; a window of bytes may be overrun by the last."""
        return self._inflight_count < max_count and self._inflight_bytes < max_bytes

    def sent(self, request: Request) -> None:
        """Note an AppendEntries."""
        self._requests.append(request)
        if request.size:
            self._inflight_count += 1
            self._inflight_bytes += request.size
        if len(self._requests) > RAFT_REQUESTS_MAX_COUNT:
            self._drop()

    def answered(self, exchange: int) -> Request | None:
        """Return the request that an answer belongs to, no longer on its way; exchange 0 takes the oldest.

        An answer that overtook others leaves theirs to come.
        """
        requests = self._requests
        if not requests:
            return None
        if exchange in (0, requests[0].exchange):
            return self._drop()
        for at, request in enumerate(requests):
            if request.exchange == exchange:
                del requests[at]
                self._release(request)
                return request
        return None

    def matched(self, index: int) -> bool:
        """Note that the follower holds the log up to ``index``; return whether that is news."""
        requests = self._requests
        # What is covered needs no answer any more; heartbeats keep theirs, for they show when the follower was heard.
        while requests and requests[0].size and requests[0].last <= index:
            self._drop()
        self.next = max(self.next, index + 1)
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

    def _drop(self) -> Request:
        request = self._requests.popleft()
        self._release(request)
        return request

    def _release(self, request: Request) -> None:
        if request.size:
            self._inflight_count -= 1
            self._inflight_bytes -= request.size

    def _forget(self) -> None:
        self._requests.clear()
        self._inflight_count = self._inflight_bytes = 0
