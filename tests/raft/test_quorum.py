"""Majorities, checked against what a majority is by definition."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.raft.quorum import UNBOUNDED, VoteResult, joint_value, joint_vote_result, majority, vote_result

voter_sets = st.frozensets(st.integers(1, 7), max_size=7)
values = st.dictionaries(st.integers(1, 7), st.integers(0, 20), max_size=7)
ballots = st.dictionaries(st.integers(1, 7), st.booleans(), max_size=7)


def reached(voters: frozenset[int], index: int, acked: dict[int, int]) -> bool:
    """Whether some subset of more than half the voters has all reached an index."""
    return any(
        all(acked.get(node, 0) >= index for node in subset)
        for size in range(len(voters) // 2 + 1, len(voters) + 1)
        for subset in combinations(sorted(voters), size)
    )


@given(voter_sets, voter_sets, values)
def test_the_value_agreed_on_is_the_largest_that_both_majorities_reached(
    voters: frozenset[int], outgoing: frozenset[int], acked: dict[int, int]
) -> None:
    agreed = joint_value(voters, outgoing, acked)
    groups = [group for group in (voters, outgoing) if group]
    if not groups:
        assert agreed == UNBOUNDED
        return
    assert agreed == max(index for index in range(21) if all(reached(group, index, acked) for group in groups))


def outcome(voters: frozenset[int], votes: dict[int, bool]) -> VoteResult:
    """Try all ways in which the missing votes can come."""
    if not voters:
        return VoteResult.WON
    granted = sum(votes.get(node, False) for node in voters)
    missing = sum(node not in votes for node in voters)
    if 2 * granted > len(voters):
        return VoteResult.WON
    return VoteResult.PENDING if 2 * (granted + missing) > len(voters) else VoteResult.LOST


@given(voter_sets, voter_sets, ballots)
def test_an_election_is_won_by_both_majorities_and_lost_by_either(
    voters: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]
) -> None:
    single = outcome(voters, votes)
    assert vote_result(voters, votes) is single
    both = {single, outcome(outgoing, votes)}
    expected = next(each for each in (VoteResult.LOST, VoteResult.PENDING, VoteResult.WON) if each in both)
    assert joint_vote_result(voters, outgoing, votes) is expected


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half(size: int, needed: int) -> None:
    assert majority(size) == needed


# After etcd/raft's quorum/testdata: voters, outgoing, what each has reached, the index agreed on.
TABLE = [
    ((1,), (), {1: 12}, 12),
    ((1, 2), (), {1: 12, 2: 5}, 5),
    ((1, 2), (), {1: 12}, 0),
    ((1, 2, 3), (), {1: 12, 2: 5}, 5),
    ((1, 2, 3), (), {1: 12, 2: 5, 3: 6}, 6),
    ((1, 2, 3, 4), (), {1: 5, 2: 5, 3: 5}, 5),
    ((1, 2, 3, 4), (), {1: 5, 2: 5}, 0),
    ((1, 2, 3, 4, 5), (), {1: 5, 2: 101, 3: 101, 4: 104, 5: 103}, 101),
    ((1, 2, 3), (1,), {1: 100, 2: 200, 3: 200}, 100),
    ((1,), (2,), {1: 100, 2: 101}, 100),
    ((1, 2), (3, 4), {1: 3, 2: 3, 3: 2, 4: 1}, 1),
    ((1, 2, 3), (4, 5, 6), {1: 9, 2: 9, 4: 7, 5: 8}, 7),
    ((1, 2, 3), (1, 4, 5), {1: 9, 2: 9}, 0),
    ((1, 2, 3), (1, 4, 5), {1: 9, 2: 8, 4: 3}, 3),
    ((1, 2, 3, 4, 5), (1, 2, 3), {1: 9, 4: 9, 5: 9}, 0),
]


@pytest.mark.parametrize(("voters", "outgoing", "acked", "index"), TABLE)
def test_joint_commit_table(voters: tuple[int, ...], outgoing: tuple[int, ...], acked: dict[int, int], index: int) -> None:
    assert joint_value(voters, outgoing, acked) == index
    if outgoing:
        assert joint_value(outgoing, voters, acked) == index
