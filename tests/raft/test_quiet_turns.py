"""What changes nothing causes no turn; what may be followed by anything does."""

from __future__ import annotations

from hypercache.raft import Configuration, Options, Raft
from hypercache.wire.messages import AppendEntries, AppendResponse, TimeoutNow
from tests.raft.group import PLAIN, Group, Node

LATE_COMMITS = Options(pre_vote=False, check_quorum=False, prompt_commits=False)


def leading(options: Options = PLAIN) -> Raft:
    """Return the leader of three nodes that are level, which has nothing to do."""
    group = Group.of(3, options)
    group.elect(1)
    group.settle()
    return group.raft(1)


def sent(raft: Raft) -> dict[int, int]:
    """Take the next ready, whose disk is done at once; return the exchanges of its appends by follower."""
    ready = raft.ready()
    raft.advance(ready)
    return {each.to: each.exchange for each in ready.messages if isinstance(each.message, AppendEntries)}


def acknowledge(raft: Raft, follower: int, exchange: int) -> None:
    raft.step(follower, AppendResponse(raft.term, True, 0, 0), exchange)


def test_an_answer_behind_the_one_that_commits_is_quiet() -> None:
    raft = leading(LATE_COMMITS)
    raft.propose(b"one")
    exchanges = sent(raft)
    acknowledge(raft, 2, exchanges[2])
    assert raft.has_ready
    assert raft.ready().committed
    acknowledge(raft, 3, exchanges[3])
    assert not raft.has_ready


def test_a_disk_that_is_not_waited_for_is_quiet() -> None:
    raft = leading(LATE_COMMITS)
    raft.propose(b"one")
    ready = raft.ready()
    raft.advance(ready)
    assert not raft.has_ready


def test_a_disk_that_commits_is_not() -> None:
    raft = leading(LATE_COMMITS)
    raft.propose(b"one")
    ready = raft.ready()
    acknowledge(raft, 2, next(each.exchange for each in ready.messages if each.to == 2))
    assert not raft.has_ready
    raft.advance(ready)
    assert raft.has_ready
    assert raft.ready().committed


def test_a_disk_that_is_the_last_of_all_is_not_for_what_it_has_may_be_applied() -> None:
    raft = leading(LATE_COMMITS)
    raft.propose(b"one")
    ready = raft.ready()
    for each in ready.messages:
        acknowledge(raft, each.to, each.exchange)
    assert not raft.ready().committed
    raft.advance(ready)
    assert raft.has_ready
    assert raft.ready().committed


def test_a_quiet_answer_hides_nothing_that_came_before() -> None:
    raft = leading(LATE_COMMITS)
    raft.propose(b"one")
    exchanges = sent(raft)
    acknowledge(raft, 2, exchanges[2])
    raft.ready()
    raft.tick()
    acknowledge(raft, 3, exchanges[3])
    assert raft.has_ready
    assert set(sent(raft)) == {2, 3}, "heartbeats"


def test_an_answer_that_opens_the_window_is_not_quiet() -> None:
    raft = leading(Options(pre_vote=False, check_quorum=False, prompt_commits=False, inflight_max_count=1))
    raft.propose(b"one")
    exchanges = sent(raft)
    acknowledge(raft, 2, exchanges[2])
    raft.ready()
    raft.propose(b"two")
    assert set(sent(raft)) == {2}
    acknowledge(raft, 3, exchanges[3])
    assert raft.has_ready
    assert set(sent(raft)) == {3}


def test_an_answer_that_a_read_waits_for_is_not_quiet() -> None:
    raft = leading()
    raft.read_index(7)
    exchanges = sent(raft)
    acknowledge(raft, 2, exchanges[2])
    assert raft.has_ready
    assert [each.context for each in raft.ready().reads] == [7]


def test_a_refusal_is_not_quiet() -> None:
    raft = leading()
    raft.propose(b"lost")
    sent(raft)
    raft.propose(b"arrived")
    exchanges = sent(raft)
    raft.step(2, AppendResponse(raft.term, False, 1, 0), exchanges[2])
    assert raft.has_ready
    assert set(sent(raft)) == {2}


def test_an_answer_that_ends_a_probe_is_not_quiet() -> None:
    raft = leading()
    raft.lost(2)
    exchanges = sent(raft)
    acknowledge(raft, 2, exchanges[2])
    assert raft.has_ready


def test_an_answer_of_who_is_handed_the_leadership_is_not_quiet() -> None:
    raft = leading(LATE_COMMITS)
    raft.propose(b"one")
    exchanges = sent(raft)
    acknowledge(raft, 2, exchanges[2])
    raft.transfer_leadership(3)
    raft.ready()
    acknowledge(raft, 3, exchanges[3])
    assert raft.has_ready
    assert [each.to for each in raft.ready().messages if isinstance(each.message, TimeoutNow)] == [3]


def test_the_disk_that_makes_a_leader_of_one_is_not_quiet() -> None:
    raft = Node(1, Configuration((1,))).raft
    raft.campaign()
    raft.advance(raft.ready())
    assert raft.has_ready
    assert raft.ready().entries
