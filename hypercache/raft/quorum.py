"""Majorities of one configuration and of two at once (Raft paper, section 6; dissertation, section 4.3)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

UNBOUNDED: Final = (1 << 64) - 1


class VoteResult(Enum):
    """How an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(size: int) -> int:
    """Return how many of ``size`` voters are a majority."""
    return size // 2 + 1


def majority_value(values: Sequence[int]) -> int:
    """Return the largest number that a majority of the values has reached; unbounded where there are no values."""
    size = len(values)
    if not size:
        return UNBOUNDED
    return sorted(values)[size - majority(size)]


def joint_value(voters: Collection[int], outgoing: Collection[int], values: Mapping[int, int]) -> int:
    """Return the largest number that a majority of the voters, and one of the outgoing voters, has reached.

    Args:
        voters: the ids of the incoming configuration, or of the only one.
        outgoing: the ids of the configuration that is being left; empty outside joint consensus.
        values: what each id has reached; 0 where it is missing.
    """
    get = values.get
    reached = majority_value([get(node, 0) for node in voters])
    if outgoing:
        reached = min(reached, majority_value([get(node, 0) for node in outgoing]))
    return reached


def vote_result(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return how an election among ``voters`` stands; won where there are none."""
    needed = majority(len(voters)) if voters else 0
    granted = sum(1 for node in voters if votes.get(node) is True)
    refused = sum(1 for node in voters if votes.get(node) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def joint_vote_result(voters: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return how an election stands that needs a majority of the voters and one of the outgoing voters."""
    results = {vote_result(voters, votes), vote_result(outgoing, votes)}
    if VoteResult.LOST in results:
        return VoteResult.LOST
    if VoteResult.PENDING in results:
        return VoteResult.PENDING
    return VoteResult.WON
