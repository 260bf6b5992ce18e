"""What this node has proposed and has no answer to yet: sent again until it is applied, and applied once (dissertation, 6.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from twisted.internet.defer import Deferred, fail

from hypercache.errors import BusyError, NotLeaderError, OutcomeUnknownError
from hypercache.limits import RAFT_PROPOSALS_MAX_BYTES, RAFT_PROPOSALS_MAX_COUNT
from hypercache.raft.sessions import sequence_of
from hypercache.wire.codes import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.raft import Raft
    from hypercache.wire.messages import ProposeResponse


class _Proposal(msgspec.Struct):
    """A proposal without an answer.

    Attributes:
        sequence: its number.
        data: what is proposed.
        answer: fires with what the state machine answers.
        deadline: when it is given up, in ticks.
        resend: when it is sent again, in ticks.
        copies: how many were sent and not refused: while there are any it may be in a log.
    """

    sequence: int
    data: bytes
    answer: Deferred[bytes]
    deadline: int
    resend: int = 0
    copies: int = 0


class Proposals:
    """The proposals of one start of a node.

    Args:
        raft: the core.
        boot: counts the node's starts.
        prepare: the leader's part in a proposal (`StateMachine.prepare`).
        patience: ticks after which one is given up.
        resend: ticks after which one that shows in no log is sent again.
    """

    def __init__(self, raft: Raft, boot: int, prepare: Callable[[bytes], bytes], *, patience: int, resend: int) -> None:
        self._raft = raft
        self._boot = boot
        self._prepare = prepare
        self._patience = patience
        self._resend = resend
        self._ticks = 0
        self._counter = 0
        self._bytes = 0
        # In the order of their sequences: the first is the lowest unanswered.
        self._pending: dict[int, _Proposal] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def propose(self, data: bytes) -> Deferred[bytes]:
        """Propose data.

        Returns:
            Fires with the state machine's answer once this node has applied it; fails with a BusyError or a NotLeaderError where it
            was certainly not done, with an OutcomeUnknownError where it may have been.
        """
        if len(self._pending) >= RAFT_PROPOSALS_MAX_COUNT or (self._pending and self._bytes + len(data) > RAFT_PROPOSALS_MAX_BYTES):
            return fail(BusyError("too many proposals of this node wait for their answers"))
        sequence = sequence_of(self._boot, self._counter)
        self._counter += 1
        proposal = _Proposal(sequence, data, Deferred(), self._ticks + self._patience)
        self._pending[sequence] = proposal
        self._bytes += len(data)
        try:
            self._send(proposal)
        except BusyError as error:
            self._take(sequence)
            return fail(error)
        return proposal.answer

    def answered(self, sequence: int, answer: bytes) -> None:
        """Take what the state machine answered."""
        proposal = self._take(sequence)
        if proposal is not None:
            proposal.answer.callback(answer)

    def placed(self, response: ProposeResponse) -> None:
        """Take the leader's answer to a proposal that was sent to it."""
        proposal = self._pending.get(response.sequence)
        if proposal is None or response.client_id != self._raft.node_id or response.status == Status.SUCCESS:
            return
        proposal.copies -= 1
        proposal.resend = self._ticks + 1
        if response.status == Status.RETRY_LATER and not proposal.copies:
            self._take(response.sequence)
            proposal.answer.errback(BusyError("the leader holds too much that is not committed"))

    def tick(self) -> None:
        """Let a tick pass: give up what waits for too long, send again what may be lost."""
        self._ticks += 1
        now = self._ticks
        for proposal in list(self._pending.values()):
            if proposal.deadline <= now:
                self._take(proposal.sequence)
                proposal.answer.errback(self._given_up(proposal))
            elif proposal.resend <= now:
                self._send_again(proposal)

    def leader_changed(self) -> None:
        """Send everything to the new leader: the old one's log may be gone."""
        if self._raft.leader:
            for proposal in list(self._pending.values()):
                self._send_again(proposal)

    def stop(self) -> None:
        """Give up all of them."""
        for proposal in list(self._pending.values()):
            self._take(proposal.sequence)
            proposal.answer.errback(self._given_up(proposal))

    def _given_up(self, proposal: _Proposal) -> Exception:
        if proposal.copies:
            return OutcomeUnknownError("the proposal found no majority in time")
        return NotLeaderError(0)

    def _take(self, sequence: int) -> _Proposal | None:
        proposal = self._pending.pop(sequence, None)
        if proposal is not None:
            self._bytes -= len(proposal.data)
        return proposal

    def _send_again(self, proposal: _Proposal) -> None:
        try:
            self._send(proposal)
        except BusyError:
            # It may be in a log already: only its deadline ends it.
            proposal.resend = self._ticks + self._resend

    def _send(self, proposal: _Proposal) -> None:
        raft = self._raft
        proposal.resend = self._ticks + self._resend
        data = self._prepare(proposal.data) if raft.leader == raft.node_id else proposal.data
        lowest = next(iter(self._pending))
        try:
            raft.propose(data, client_id=raft.node_id, sequence=proposal.sequence, lowest_unanswered=lowest)
        except NotLeaderError:
            # Nobody leads; it is sent as soon as somebody does.
            return
        proposal.copies += 1
