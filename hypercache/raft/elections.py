"""How a node answers those who campaign, and takes their answers (Raft paper, 5.2 and 5.4.1; dissertation, 3.10, 4.2.3, 9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.raft.candidate import Candidate
from hypercache.wire.messages import PreVoteRequest, PreVoteResponse, TimeoutNow, VoteRequest, VoteResponse

if TYPE_CHECKING:
    from hypercache.raft.core import Raft


def on_vote_request(raft: Raft, sender: int, message: VoteRequest, exchange: int) -> None:
    """Grant or refuse a vote: one a term, to a log that lacks nothing committed."""
    if message.term >= raft.term and raft.hears_leader and not message.transfer:
        # Also in its own term, which a stray answer may have raised meanwhile: a lease would not hold else.
        raft.outbox.reply(sender, VoteResponse(raft.term, False), exchange)
        return
    if message.term > raft.term:
        raft.become_follower(message.term, 0)
    granted = (
        message.term == raft.term
        and _knows_members(raft)
        and (raft.vote == sender or (not raft.vote and not raft.leader))
        and raft.log.up_to_date(message.last_log_index, message.last_log_term)
    )
    if granted:
        raft.vote_for(sender)
    raft.outbox.promise(sender, VoteResponse(raft.term, granted), exchange)


def on_pre_vote_request(raft: Raft, sender: int, message: PreVoteRequest, exchange: int) -> None:
    """Say whether a vote would be granted; nothing changes by it."""
    granted = (
        message.term > raft.term
        and _knows_members(raft)
        and not raft.hears_leader
        and raft.log.up_to_date(message.last_log_index, message.last_log_term)
    )
    raft.outbox.reply(sender, PreVoteResponse(message.term if granted else raft.term, granted), exchange)


def _knows_members(raft: Raft) -> bool:
    """Whether this node has a log: one that lost it, or never had one, must not help a candidate that lacks what it once held."""
    return bool(raft.log.configuration.voters)


def on_vote_response(raft: Raft, sender: int, message: VoteResponse, exchange: int) -> None:
    """Count a vote."""
    if message.term > raft.term:
        raft.become_follower(message.term, 0)
    elif message.term == raft.term and isinstance(raft.role, Candidate) and not raft.role.pre:
        raft.role.answered(sender, message.vote_granted, exchange)


def on_pre_vote_response(raft: Raft, sender: int, message: PreVoteResponse, exchange: int) -> None:
    """Count an answer: granted ones carry the term asked about, refusals the term of who refuses."""
    if not message.vote_granted and message.term > raft.term:
        raft.become_follower(message.term, 0)
    elif isinstance(raft.role, Candidate) and raft.role.pre and message.term == raft.term + message.vote_granted:
        raft.role.answered(sender, message.vote_granted, exchange)


def on_timeout_now(raft: Raft, sender: int, message: TimeoutNow, exchange: int) -> None:
    """Campaign at once, since the leader wishes it."""
    if message.term == raft.term and raft.leader == sender and raft.promotable:
        raft.elect(transfer=True)
