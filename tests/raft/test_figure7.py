"""Figure 7 of the Raft paper: a leader of term 8 meets every kind of diverging follower."""

from __future__ import annotations

import pytest

from hypercache.raft import Configuration
from hypercache.wire.messages import AppendResponse
from tests.raft.group import Group, Node

LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FOLLOWERS = {
    "a": ([1, 1, 1, 4, 4, 5, 5, 6, 6], 1),
    "b": ([1, 1, 1, 4], 1),
    "c": ([1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6], 0),
    "d": ([1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7], 0),
    "e": ([1, 1, 1, 4, 4, 4, 4], 2),
    "f": ([1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], 2),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_the_leaders_log_replaces_what_diverges_in_few_rounds(name: str) -> None:
    """Section 5.3 with the back-off of dissertation section 3.5; the number of refusals is what a term a round costs."""
    terms, expected = FOLLOWERS[name]
    configuration = Configuration((1, 2, 3))
    follower = Node(2, configuration, terms=terms, term=7)
    group = Group(Node(1, configuration, terms=LEADER, term=7), follower, Node(3, configuration, term=7))
    group.elect(1)
    refusals = [each for each in follower.sent if isinstance(each.message, AppendResponse) and not each.message.success]
    assert follower.terms == [*LEADER, 8]
    assert len(refusals) == expected
    group.tick(1, 1)
    assert follower.raft.commit == 11
