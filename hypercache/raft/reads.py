"""Linearizable reads by read index (dissertation, section 6.4)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.raft.ready import ReadState
from hypercache.wire.codes import ErrorCode, Status
from hypercache.wire.messages import ReadIndexResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercache.raft.core import Raft

NOT_LEADER: Final = ErrorCode.NOT_LEADER & 0xFF


class Read(msgspec.Struct, frozen=True, gc=False):
    """A read that waits.

    Attributes:
        context: what the reader called it.
        reader: the node that asked; 0 for this one.
        exchange: that node's request.
        index: the commit index when its round began.
        barrier: the last request sent before that: only answers to later ones confirm it.
    """

    context: int
    reader: int
    exchange: int
    index: int = 0
    barrier: int = 0


class ReadQueue:
    """The reads of one leader, in the order in which they came."""

    __slots__ = ("_early", "_rounds")

    def __init__(self) -> None:
        # Those that came before the leader had committed an entry of its term, which alone tells it the true commit index.
        self._early: list[Read] = []
        self._rounds: deque[Read] = deque()

    def __len__(self) -> int:
        return len(self._early) + len(self._rounds)

    def __iter__(self) -> Iterator[Read]:
        yield from self._early
        yield from self._rounds

    def wait_for_commit(self, read: Read) -> None:
        """Keep a read until the leader has committed in its term."""
        self._early.append(read)

    def start(self, read: Read, index: int, barrier: int) -> None:
        """Begin a read's round."""
        self._rounds.append(Read(read.context, read.reader, read.exchange, index, barrier))

    def take_early(self) -> list[Read]:
        """Return the reads that waited for the commit."""
        early, self._early = self._early, []
        return early

    @property
    def first_barrier(self) -> int | None:
        """The barrier of the oldest round; None without one."""
        return self._rounds[0].barrier if self._rounds else None

    def confirmed(self, acked: int) -> list[Read]:
        """Return the reads whose round a majority answered.

        Args:
            acked: a majority has answered a request of at least this number.
        """
        done = []
        rounds = self._rounds
        while rounds and rounds[0].barrier < acked:
            done.append(rounds.popleft())
        return done


def serve_read(raft: Raft, read: Read, index: int) -> None:
    """Let a read be served once ``index`` is applied."""
    if read.reader:
        reader = raft.progress.get(read.reader)
        if reader is not None:
            reader.awaited = max(reader.awaited, index)
        raft.outbox.reply(read.reader, ReadIndexResponse(Status.SUCCESS, 0, read.context, index), read.exchange)
    else:
        raft.reads.append(ReadState(read.context, index))


def refuse_read(raft: Raft, read: Read) -> None:
    """Let a reader ask again."""
    if read.reader:
        raft.outbox.reply(read.reader, ReadIndexResponse(Status.ERROR, NOT_LEADER, read.context, 0), read.exchange)
    else:
        raft.reads.append(ReadState(read.context, 0))
