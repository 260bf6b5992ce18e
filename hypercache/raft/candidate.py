"""A candidate: asks whether it could win, then for votes (Raft paper, section 5.2; dissertation, section 9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.raft.quorum import VoteResult, joint_vote_result
from hypercache.wire.messages import PreVoteRequest, VoteRequest

if TYPE_CHECKING:
    from hypercache.raft.core import Raft


class Candidate:
    """The role of a node that campaigns.

    Args:
        raft: the node's core; for an election its term is already the new one, with a vote for itself.
        pre: whether it only asks, without a new term.
        transfer: whether the leader wished this campaign.

    Attributes:
        pre: as given.
        votes: who answered what.
    """

    __slots__ = ("_raft", "_since", "_transfer", "pre", "votes")

    def __init__(self, raft: Raft, *, pre: bool, transfer: bool = False) -> None:
        self._raft = raft
        self._since = raft.outbox.last_exchange
        self._transfer = transfer
        self.pre = pre
        self.votes: dict[int, bool] = {}

    def start(self) -> None:
        """Ask everybody who votes."""
        raft = self._raft
        log = raft.log
        last, last_term = log.last_index, log.last_term
        configuration = log.configuration
        for node in sorted({*configuration.voters, *configuration.outgoing} - {raft.node_id}):
            if self.pre:
                raft.outbox.request(node, PreVoteRequest(raft.term + 1, raft.node_id, last, last_term))
            else:
                raft.outbox.request(node, VoteRequest(raft.term, raft.node_id, last, last_term, self._transfer))
        if self.pre:
            self.count(raft.node_id, True)

    def made_durable(self) -> None:
        """Count the own vote: only once the disk holds it."""
        raft = self._raft
        if not self.pre and raft.node_id not in self.votes and raft.durable_vote == (raft.term, raft.node_id):
            self.count(raft.node_id, True)

    def answered(self, node: int, granted: bool, exchange: int) -> None:
        """Take an answer, unless it is a late one to an earlier campaign."""
        if not exchange or exchange > self._since:
            self.count(node, granted)

    def count(self, node: int, granted: bool) -> None:
        """Note what a node says; its first answer counts."""
        self.votes.setdefault(node, granted)
        raft = self._raft
        configuration = raft.log.configuration
        result = joint_vote_result(configuration.voters, configuration.outgoing, self.votes)
        if result is VoteResult.LOST:
            raft.become_follower(raft.term, 0)
        elif result is VoteResult.WON:
            if self.pre:
                raft.elect()
            else:
                raft.become_leader()

    def tick(self) -> None:
        """Begin anew after an election without a result."""
        raft = self._raft
        if raft.timed_out():
            if raft.promotable:
                raft.campaign()
            else:
                raft.become_follower(raft.term, 0)
