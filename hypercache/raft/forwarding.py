"""Proposals and reads that others forward to the leader, and its answers to ours (dissertation, sections 6.2 to 6.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import BusyError
from hypercache.raft.leader import Leader
from hypercache.raft.reads import NOT_LEADER, Read, refuse_read
from hypercache.raft.ready import ReadState
from hypercache.wire.codes import ErrorCode, Status
from hypercache.wire.messages import Propose, ProposeResponse, ReadIndex, ReadIndexResponse

if TYPE_CHECKING:
    from hypercache.raft.core import Raft

_BUSY: Final = ErrorCode.RATE_LIMITED & 0xFF


def on_propose(raft: Raft, sender: int, message: Propose, exchange: int) -> None:
    """Take a proposal into the log, and say where."""
    status, code, index = Status.ERROR, NOT_LEADER, 0
    if isinstance(raft.role, Leader):
        try:
            index = raft.role.propose(message.client_id, message.sequence, message.lowest_unanswered, message.data)
            status, code = Status.SUCCESS, 0
        except BusyError:
            status, code = Status.RETRY_LATER, _BUSY
    answer = ProposeResponse(status, code, message.client_id, message.sequence, raft.term, index, raft.leader)
    raft.outbox.reply(sender, answer, exchange)


def on_propose_response(raft: Raft, sender: int, message: ProposeResponse, exchange: int) -> None:
    """Hand the answer to the driver."""
    raft.answers.append(message)


def on_read_index(raft: Raft, sender: int, message: ReadIndex, exchange: int) -> None:
    """Take a read; it is answered once it is confirmed."""
    read = Read(message.context, sender, exchange)
    if not isinstance(raft.role, Leader):
        refuse_read(raft, read)
        return
    try:
        raft.role.read_index(read)
    except BusyError:
        raft.outbox.reply(sender, ReadIndexResponse(Status.RETRY_LATER, _BUSY, message.context, 0), exchange)


def on_read_index_response(raft: Raft, sender: int, message: ReadIndexResponse, exchange: int) -> None:
    """Hand the read to the driver."""
    raft.reads.append(ReadState(message.context, message.index if message.status == Status.SUCCESS else 0))
