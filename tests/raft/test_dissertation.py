"""Ongaro, Consensus: Bridging Theory and Practice: chapters 3, 4, 6.4 and 9.6, beyond what figures 2 and 13 say."""

from __future__ import annotations

import random

import pytest

from hypercache.errors import BusyError, ConfigurationChangeError, NotLeaderError, RaftError
from hypercache.raft import Configuration, EntryType, HardState, Options, ProgressState, Raft, ReadState, SnapshotMeta, State
from hypercache.raft.sessions import proposal_of
from hypercache.wire.messages import (
    AppendEntries,
    AppendResponse,
    LogEntry,
    PreVoteRequest,
    PreVoteResponse,
    Propose,
    ProposeResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.raft.group import PLAIN, Group, Node

THREE = Configuration((1, 2, 3))


# Chapter 3: the basic algorithm


def test_3_5_back_off_takes_one_round_for_each_conflicting_term() -> None:
    """Section 3.5: "one AppendEntries RPC will be required for each term with conflicting entries"."""
    leader_terms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    follower_terms = [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]
    group = Group(Node(1, THREE, terms=leader_terms, term=7), Node(2, THREE, terms=follower_terms, term=7), Node(3, THREE, term=7))
    group.elect(1)
    refused = [each for each in group[2].sent if isinstance(each.message, AppendResponse) and not each.message.success]
    assert len(refused) <= 2
    assert group[2].terms == [*leader_terms, 8]


def test_3_6_1_a_stale_log_cannot_win() -> None:
    """Section 3.6.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate"."""
    group = Group(Node(1, THREE, terms=[1]), Node(2, THREE, terms=[1, 1]), Node(3, THREE, terms=[1, 1]))
    group.raft(1).campaign()
    group.settle()
    assert group.raft(1).state is State.FOLLOWER


def test_3_6_2_figure_8_cannot_lose_what_is_committed() -> None:
    """Section 3.6.2, figure 3.7: the entry of term 2 is on a majority and still not committed by its successor in term 4."""
    five = Configuration((1, 2, 3, 4, 5))
    group = Group(*(Node(node, five, terms=terms, term=3) for node, terms in enumerate([[1, 2], [1, 2], [1], [1], [1, 3]], 1)))
    group.cut(4, 5)
    group.raft(1).campaign()
    group.collect()
    group.queue = [item for item in group.queue if not isinstance(item[1].message, AppendEntries)]
    group.settle()
    assert group.raft(1).state is State.LEADER
    assert group.raft(1).commit == 3, "the no-op of term 4 commits the entry of term 2 with it"


def test_3_8_a_restart_forgets_the_leader_and_what_is_not_persistent() -> None:
    """Section 3.8: "commit index ... can safely be reinitialized to zero on a restart"; here the persisted hint serves."""
    node = Node(1, THREE, terms=[1, 1], vote=1)
    assert (node.raft.leader, node.raft.state, node.raft.commit) == (0, State.FOLLOWER, 0)


def test_3_10_a_transfer_brings_the_target_level_and_lets_it_campaign_at_once() -> None:
    """Section 3.10: stop proposals, bring the target's log level, send TimeoutNow; it then wins without waiting."""
    group = Group.of(3, Options())
    leader = group.elect(1)
    group.cut(3)
    leader.raft.propose(b"x")
    group.settle()
    group.heal()
    leader.raft.transfer_leadership(3)
    with pytest.raises(BusyError):
        leader.raft.propose(b"y")
    group.tick(1, 1)
    assert group.raft(3).state is State.LEADER
    assert group.raft(3).term == 2
    requests = [each.message for each in group[3].sent if isinstance(each.message, VoteRequest)]
    assert [request.transfer for request in requests] == [True, True]
    assert group.raft(1).leader == 3


def test_3_10_a_transfer_that_fails_is_given_up_after_an_election_timeout() -> None:
    """Section 3.10: "If leadership transfer does not complete after about an election timeout, the prior leader aborts"."""
    group = Group.of(3, Options(check_quorum=False))
    leader = group.elect(1)
    group.cut(3)
    leader.raft.transfer_leadership(3)
    group.tick(9, 1)
    with pytest.raises(BusyError):
        leader.raft.propose(b"y")
    with pytest.raises(BusyError):
        leader.raft.transfer_leadership(2)
    group.tick(1, 1)
    assert leader.raft.propose(b"y") == 2


def test_3_10_only_a_voter_can_be_handed_the_leadership() -> None:
    group = Group.of(2, PLAIN, learners=[3])
    leader = group.elect(1)
    with pytest.raises(RaftError):
        leader.raft.transfer_leadership(3)
    with pytest.raises(NotLeaderError) as refused:
        group.raft(2).transfer_leadership(1)
    assert refused.value.leader == 1
    leader.raft.transfer_leadership(1)
    assert leader.raft.propose(b"x") == 2


def test_3_10_timeout_now_counts_from_the_leader_of_the_term_alone() -> None:
    node = Node(2, THREE)
    node.raft.step(1, AppendEntries(3, 1, 0, 0, 0, ()))
    node.raft.step(3, TimeoutNow(3, 3))
    node.raft.step(1, TimeoutNow(2, 1))
    assert node.state is State.FOLLOWER
    node.raft.step(1, TimeoutNow(3, 1))
    assert (node.raft.state, node.raft.term) == (State.CANDIDATE, 4)


# Chapter 4: membership


def grown(group: Group, *node_ids: int) -> None:
    """Start nodes that know nothing."""
    for node_id in node_ids:
        group.nodes[node_id] = Node(node_id, Configuration(), group.raft(1).options)


def test_4_1_the_latest_configuration_in_the_log_is_used_at_once() -> None:
    """Section 4.1: "a server always uses the latest configuration in its log, regardless of whether the entry is committed"."""
    group = Group.of(3)
    leader = group.elect(1)
    group.cut(1)
    leader.raft.propose_configuration([1, 2, 3, 4])
    assert leader.raft.configuration == Configuration((1, 2, 3, 4), (1, 2, 3), auto_leave=True)
    group.settle()
    assert leader.raft.commit == 1


def test_4_1_a_configuration_that_is_replaced_in_the_log_is_fallen_back_from() -> None:
    """Section 4.1: "if it was removed from the log, the server must fall back to the previous configuration"."""
    group = Group.of(3)
    group.elect(1)
    group.cut(1)
    group.raft(1).propose_configuration([1])
    group.settle()
    group.elect(2)
    group.heal()
    group.tick(2, 2)
    assert group.raft(1).configuration == THREE


def test_4_1_one_change_at_a_time() -> None:
    """Section 4.1: "any number of changes ... one at a time": the next waits until the last is committed."""
    group = Group.of(3)
    raft = group.elect(1).raft
    raft.propose_configuration([1, 2, 3], [4])
    with pytest.raises(ConfigurationChangeError):
        raft.propose_configuration([1, 2, 3], [4, 5])
    group.settle()
    raft.propose_configuration([1, 2, 3], [4, 5])
    group.settle()
    assert raft.configuration == Configuration((1, 2, 3), learners=(4, 5))


def test_4_1_a_leader_changes_members_only_after_it_has_committed_in_its_term() -> None:
    """Ongaro, raft-dev, 2015 (the error in section 4.1's single-server changes): first an entry of the leader's own term."""
    node = Node(1, THREE)
    node.raft.campaign()
    node.work()
    node.raft.step(2, VoteResponse(1, True))
    with pytest.raises(BusyError):
        node.raft.propose_configuration([1, 2])


def test_4_2_1_a_learner_is_sent_the_log_and_does_not_vote() -> None:
    """Section 4.2.1: "new servers are initially added as non-voting members"."""
    group = Group.of(2, PLAIN, learners=[3])
    leader = group.elect(1)
    group.cut(2)
    leader.raft.propose(b"x")
    group.settle()
    assert leader.raft.commit == 1
    assert group.raft(3).log.last_index == 2
    assert not group.raft(3).promotable
    with pytest.raises(RaftError):
        group.raft(3).campaign()
    for _ in range(50):
        group.raft(3).tick()
    assert group.raft(3).term == 1


def test_4_2_1_a_learner_is_promoted() -> None:
    group = Group.of(2, PLAIN, learners=[3])
    leader = group.elect(1)
    leader.raft.propose_configuration([1, 2, 3])
    group.settle()
    assert {group.raft(node).configuration for node in (1, 2, 3)} == {THREE}
    assert group.raft(3).promotable


def test_4_2_2_a_leader_that_is_removed_goes_once_the_change_is_committed() -> None:
    """Section 4.2.2: it manages a change that it is no part of, does not count itself, and steps down when it is committed."""
    group = Group.of(3, Options())
    leader = group.elect(1)
    leader.raft.propose_configuration([2, 3])
    group.settle()
    assert leader.raft.state is State.FOLLOWER
    assert not leader.raft.promotable
    group.tick(1)
    (next_leader,) = [node.raft for node in group.nodes.values() if node.raft.state is State.LEADER]
    assert next_leader.configuration == Configuration((2, 3)), "the leader that goes lets the most level voter campaign at once"


def test_4_2_2_who_is_no_part_of_its_own_latest_configuration_still_campaigns() -> None:
    """Section 4.2.2: "... as it might still be needed until the C_new entry is committed (as in Figure 4.6)"."""
    group = Group.of(3)
    leader = group.elect(1)
    leader.raft.propose_configuration([3], auto_leave=False)
    group.settle()
    leader.raft.leave_joint()
    leader.raft.ready()
    group.raft(2).step(1, AppendEntries(1, 1, 2, 1, 2, tuple(leader.raft.log.entries(3, 3))))
    group.cut(1)
    group.raft(3).campaign()
    group.settle()
    assert group.raft(3).state is not State.LEADER, "the log of 2 is longer"
    assert not group.raft(2).configuration.votes(2)
    group.raft(2).campaign()
    group.settle()
    assert group.raft(3).configuration == Configuration((3,))
    assert group.raft(3).state is State.LEADER, "2 goes once it has committed the change that removes it"
    with pytest.raises(RaftError):
        group.raft(2).campaign()


def test_4_2_2_a_leader_that_leaves_does_not_count_itself() -> None:
    """Section 4.2.2: "it does not count itself in majorities"."""
    group = Group.of(3)
    leader = group.elect(1)
    leader.raft.propose_configuration([2, 3])
    group.cut(2, 3)
    group.lost = lambda sender, outbound: outbound.to == 3 or sender == 3
    group.settle()
    assert leader.raft.commit == 1, "1 and 2 are a majority of the old, but not of the new configuration"


def test_4_2_3_a_removed_server_cannot_disrupt() -> None:
    """Section 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of hearing from a current
    leader, it does not update its term or grant its vote"."""
    group = Group.of(3, Options(pre_vote=False))
    group.elect(1)
    group.tick(1, 1)
    group.raft(2).step(3, VoteRequest(9, 3, 99, 8), 4)
    group.raft(1).step(3, VoteRequest(9, 3, 99, 8), 5)
    assert group[2].messages() == [VoteResponse(1, False)]
    assert group.raft(1).state is State.LEADER
    group.raft(2).step(3, VoteRequest(9, 3, 99, 8, transfer=True))
    assert group.raft(2).term == 9


def test_4_3_joint_consensus_needs_both_majorities() -> None:
    """Section 4.3: "agreement ... requires majorities from both the old and new configurations"."""
    group = Group.of(3)
    leader = group.elect(1)
    grown(group, 4, 5)
    group.lost = lambda sender, outbound: outbound.to in {4, 5}
    leader.raft.propose_configuration([1, 4, 5])
    group.settle()
    assert leader.raft.configuration.joint
    assert leader.raft.commit == 1, "all of the old configuration, but not a majority of the new one"
    group.heal()
    group.tick(3, 1)
    assert leader.raft.configuration == Configuration((1, 4, 5))
    assert group.raft(5).configuration == Configuration((1, 4, 5))


def test_4_3_an_election_in_joint_consensus_needs_both_majorities() -> None:
    joint = Configuration((1, 4, 5), (1, 2, 3))
    node = Node(1, joint)
    node.raft.campaign()
    node.work()
    for voter in (2, 3):
        node.raft.step(voter, VoteResponse(1, True))
    assert node.state is State.CANDIDATE
    node.raft.step(4, VoteResponse(1, True))
    assert node.state is State.LEADER  # type: ignore[comparison-overlap]


def test_4_3_the_leader_leaves_the_joint_configuration_by_itself_or_on_demand() -> None:
    """Section 4.3: "once C_old,new has been committed ... the leader creates C_new"."""
    group = Group.of(3)
    leader = group.elect(1)
    leader.raft.propose_configuration([1, 2], auto_leave=False)
    with pytest.raises(ConfigurationChangeError):
        leader.raft.leave_joint()
    group.settle()
    assert leader.raft.configuration.joint
    with pytest.raises(ConfigurationChangeError):
        leader.raft.propose_configuration([1])
    leader.raft.leave_joint()
    group.settle()
    assert leader.raft.configuration == Configuration((1, 2))
    with pytest.raises(ConfigurationChangeError):
        leader.raft.leave_joint()


def test_4_3_a_new_leader_ends_the_joint_configuration_of_the_old_one() -> None:
    group = Group.of(3, learners=[4])
    leader = group.elect(1)
    leader.raft.propose_configuration([1, 2, 3, 4])
    leader.raft.ready()
    group.raft(2).step(1, AppendEntries(1, 1, 1, 1, 1, tuple(leader.raft.log.entries(2, 2))))
    group.cut(1)
    group.elect(2)
    group.tick(2, 2)
    assert group.raft(2).configuration == Configuration((1, 2, 3, 4))


def test_4_3_a_voter_that_becomes_a_learner_does_so_at_the_end_of_the_joint_configuration() -> None:
    """As etcd's learners_next: until then it still votes in the old configuration."""
    group = Group.of(3)
    leader = group.elect(1)
    leader.raft.propose_configuration([1, 2], [3], auto_leave=False)
    assert leader.raft.configuration == Configuration((1, 2), (1, 2, 3), learners_next=(3,))
    group.settle()
    leader.raft.leave_joint()
    group.settle()
    assert leader.raft.configuration == Configuration((1, 2), learners=(3,))


def test_4_4_a_new_server_is_caught_up_before_it_is_waited_for() -> None:
    """Section 4.2.1 and 4.4: a learner far behind is sent the log in bounded pieces."""
    group = Group.of(1, Options(append_max_bytes=100))
    leader = group.elect(1)
    for number in range(50):
        leader.raft.propose(b"%d" % number)
    group.settle()
    grown(group, 2)
    leader.raft.propose_configuration([1], [2])
    group.tick(2, 1)
    assert group[2].data == leader.data
    pieces = [each.message for each in leader.sent if isinstance(each.message, AppendEntries) and each.message.entries]
    assert max(sum(len(entry.data) + 13 for entry in piece.entries) for piece in pieces) <= 100


@pytest.mark.parametrize(("voters", "learners"), [([], []), ([1, 2], [2]), ([0, 1], []), (range(1, 9), []), ([1], range(2, 2000))])
def test_a_configuration_must_make_sense(voters: list[int], learners: list[int]) -> None:
    """architecture.md, "The control plane": at most 7 voters."""
    with pytest.raises(ConfigurationChangeError):
        THREE.change(voters, learners)


# Section 6.4: linearizable reads


def test_6_4_a_read_waits_for_a_round_of_a_majority() -> None:
    """Section 6.4, step 3: "the leader needs to make sure it has not been superseded by a newer leader of which it is unaware"."""
    group = Group.of(3)
    leader = group.elect(1)
    group.cut(1)
    leader.raft.read_index(7)
    group.settle()
    assert leader.reads == []
    group.heal()
    group.tick(1, 1)
    assert leader.reads == [ReadState(7, 1)]


def test_6_4_an_answer_to_an_older_request_confirms_nothing() -> None:
    """Section 6.4, step 3: a new round of heartbeats, begun after the read came."""
    group = Group.of(3)
    raft = group.elect(1).raft
    raft.tick()
    old = raft.ready().messages
    raft.read_index(7)
    for outbound in old:
        raft.step(outbound.to, AppendResponse(1, True, 1, 1), outbound.exchange)
    assert not raft.ready().reads


def test_6_4_a_leader_that_has_committed_nothing_in_its_term_waits() -> None:
    """Section 6.4, step 1: "If the leader has not yet marked an entry from its current term committed, it waits"."""
    node = Node(1, THREE, terms=[1, 1])
    node.raft.campaign()
    node.work()
    node.raft.step(2, VoteResponse(2, True))
    sent = {outbound.to: outbound.exchange for outbound in node.work()}
    node.raft.read_index(7)
    node.raft.step(2, AppendResponse(2, False, 1, 0), sent[2])
    node.work()
    assert node.reads == []
    node.raft.step(2, AppendResponse(2, True, 3, 2))
    round_two = {outbound.to: outbound.exchange for outbound in node.work()}
    node.raft.step(2, AppendResponse(2, True, 3, 2), round_two[2])
    node.work()
    assert node.reads == [ReadState(7, 3)], "the read index covers all that older leaders committed"


def test_6_4_many_reads_share_a_round() -> None:
    """Section 6.4: "amortize ... a single round of heartbeats for any number of read-only queries"."""
    group = Group.of(3)
    leader = group.elect(1)
    leader.sent.clear()
    for context in range(1, 101):
        leader.raft.read_index(context)
    group.settle()
    assert [read.context for read in leader.reads] == list(range(1, 101))
    assert len(leader.sent) == 2


def test_6_4_a_follower_asks_the_leader_for_the_index() -> None:
    """Section 6.4: "followers can help offload ... the follower would issue a request to the leader that just asked for a current
    readIndex"."""
    group = Group.of(3)
    group.elect(1)
    group.raft(2).read_index(9)
    group.settle()
    assert group[2].reads == [ReadState(9, 1)]
    with pytest.raises(NotLeaderError):
        Node(2, THREE).raft.read_index(1)


def test_6_4_a_leader_that_steps_down_refuses_its_reads() -> None:
    group = Group.of(3)
    leader = group.elect(1)
    group.cut(1)
    leader.raft.read_index(7)
    leader.raft.step(2, AppendResponse(5, False, 0, 0))
    leader.work()
    assert leader.reads == [ReadState(7, 0)]


def test_6_4_reads_are_bounded() -> None:
    group = Group.of(3, Options(reads_max_count=2))
    leader = group.elect(1)
    leader.raft.read_index(1)
    leader.raft.read_index(2)
    with pytest.raises(BusyError):
        leader.raft.read_index(3)


def test_6_4_a_group_of_one_reads_at_once() -> None:
    group = Group.of(1)
    leader = group.elect(1)
    leader.raft.read_index(1)
    leader.work()
    assert leader.reads == [ReadState(1, 1)]


def test_6_4_1_a_lease_answers_without_a_round_until_it_ends() -> None:
    """Section 6.4.1: "if the leader's heartbeats were acknowledged by a majority, it extends its lease", from when it sent them."""
    group = Group.of(3, Options(lease_ticks=5))
    leader = group.elect(1)
    group.tick(1, 1)
    group.cut(1)
    for _ in range(4):
        leader.raft.tick()
    leader.raft.read_index(1)
    assert leader.raft.ready().reads == (ReadState(1, 1),)
    leader.raft.tick()
    leader.raft.read_index(2)
    assert not leader.raft.ready().reads


def test_6_4_1_a_transfer_ends_the_lease() -> None:
    """Section 6.4.1: "Leadership transfer ... the prior leader needs to expire its lease before"."""
    group = Group.of(3, Options(lease_ticks=5))
    leader = group.elect(1)
    group.tick(1, 1)
    group.cut(1)
    leader.raft.transfer_leadership(2)
    leader.raft.read_index(1)
    assert not leader.raft.ready().reads


def test_6_4_1_a_restarted_voter_helps_nobody_before_a_lease_could_have_ended() -> None:
    """Section 6.4.1 rests on 4.2.3, whose memory a restart loses."""
    node = Node(2, THREE, Options(lease_ticks=5), term=3)
    node.raft.step(3, VoteRequest(4, 3, 9, 3))
    assert node.messages() == [VoteResponse(3, False)]
    for _ in range(10):
        node.raft.tick()
    node.work()
    node.raft.step(3, VoteRequest(4, 3, 9, 3))
    assert VoteResponse(4, True) in node.messages()


# Section 6.2, 9.6: check-quorum and pre-vote


def test_6_2_a_leader_that_hears_no_majority_steps_down() -> None:
    """Section 6.2: "a leader steps down if an election timeout elapses without a successful round of heartbeats to a majority"."""
    group = Group.of(3, Options())
    leader = group.elect(1)
    group.cut(1)
    group.tick(10, 1)
    assert leader.raft.state is State.LEADER, "the first interval saw the votes"
    group.tick(10, 1)
    assert leader.raft.state is not State.LEADER


def test_6_2_a_minority_of_silent_followers_is_no_reason_to_step_down() -> None:
    group = Group.of(3, Options())
    leader = group.elect(1)
    group.cut(3)
    group.tick(40, 1)
    assert leader.raft.state is State.LEADER


def test_9_6_a_campaign_asks_first_without_raising_the_term() -> None:
    """Section 9.6: "a candidate would only increment its term if it first learns ... that they would be willing"."""
    node = Node(1, THREE, Options(), terms=[1, 2])
    node.raft.campaign()
    assert node.messages() == [PreVoteRequest(3, 1, 2, 2)] * 2
    assert (node.raft.state, node.raft.term) == (State.PRE_CANDIDATE, 2)
    assert not node.persisted, "nothing is promised by asking"
    node.raft.step(2, PreVoteResponse(3, True))
    assert (node.raft.state, node.raft.term) == (State.CANDIDATE, 3)


def test_9_6_asking_changes_nothing_at_who_is_asked() -> None:
    node = Node(2, THREE, Options(), terms=[1, 2])
    node.raft.step(1, PreVoteRequest(9, 1, 2, 2))
    node.raft.step(3, PreVoteRequest(9, 3, 2, 2))
    assert node.messages() == [PreVoteResponse(9, True)] * 2
    assert (node.raft.term, node.raft.vote) == (2, 0)


@pytest.mark.parametrize(
    ("term", "last", "last_term", "granted"), [(3, 2, 2, True), (2, 2, 2, False), (3, 1, 2, False), (3, 5, 1, False)]
)
def test_9_6_a_pre_vote_is_granted_as_a_vote_would_be(term: int, last: int, last_term: int, granted: bool) -> None:
    node = Node(2, THREE, Options(), terms=[1, 2])
    node.raft.step(1, PreVoteRequest(term, 1, last, last_term))
    assert node.messages() == [PreVoteResponse(3 if granted else 2, granted)]


def test_9_6_nobody_who_hears_a_leader_grants_a_pre_vote() -> None:
    """Section 9.6: "... that their logs are up-to-date and they have not received heartbeats from a valid leader"."""
    group = Group.of(3, Options())
    group.elect(1)
    group.tick(1, 1)
    group.raft(2).step(3, PreVoteRequest(2, 3, 9, 1))
    assert group[2].messages() == [PreVoteResponse(1, False)]


def test_9_6_a_node_that_returns_from_a_partition_disturbs_nobody() -> None:
    """Section 9.6: it could not raise its term, so that nobody has to step down for it."""
    group = Group.of(3, Options())
    group.elect(1)
    group.cut(3)
    group.tick(100)
    assert group.raft(3).term == 1
    group.heal()
    group.tick(3)
    assert (group.raft(1).state, group.raft(1).term, group.raft(3).leader) == (State.LEADER, 1, 1)


def test_9_6_a_refusal_with_a_higher_term_is_learnt_from() -> None:
    """A pre-candidate whose term is behind could never win: it takes the term, as from any answer (figure 2)."""
    node = Node(1, THREE, Options(), terms=[1])
    node.raft.campaign()
    node.raft.step(2, PreVoteResponse(5, False))
    assert (node.raft.state, node.raft.term) == (State.FOLLOWER, 5)


# Section 10.2.1 and bounds


def test_10_2_1_appends_are_pipelined_within_the_window() -> None:
    """Section 10.2.1: "the leader can send ... before it receives an answer"; bounded in number and in bytes."""
    group = Group.of(2, Options(inflight_max_count=3, append_max_bytes=1))
    leader = group.elect(1)
    group.tick(1, 1)
    assert leader.raft.progress[2].state is ProgressState.REPLICATE
    for number in range(10):
        leader.raft.propose(b"%d" % number)
    first = leader.work()
    assert [outbound.message.prev_log_index for outbound in first if isinstance(outbound.message, AppendEntries)] == [1, 2, 3]
    leader.raft.step(2, AppendResponse(1, True, 2, 1), first[0].exchange)
    assert len([each for each in leader.work() if isinstance(each.message, AppendEntries) and each.message.entries]) == 1


def test_10_2_1_the_window_is_bounded_in_bytes_too() -> None:
    group = Group.of(2, Options(inflight_max_bytes=100, append_max_bytes=60))
    leader = group.elect(1)
    group.tick(1, 1)
    for _ in range(10):
        leader.raft.propose(bytes(20))
    assert len([each for each in leader.work() if isinstance(each.message, AppendEntries)]) == 2


def test_a_lost_append_is_found_by_the_next_heartbeat() -> None:
    """Section 10.2.1: "a follower that lost one rejects the next": the leader goes back and probes."""
    group = Group.of(2, Options())
    leader = group.elect(1)
    group.tick(1, 1)
    leader.raft.propose(b"lost")
    leader.work()
    group.tick(3, 1)
    assert group.raft(2).log.last_index == 2
    assert leader.raft.commit == 2


def test_proposals_are_refused_once_too_much_is_uncommitted() -> None:
    """Back-pressure: the uncommitted tail of a leader is bounded in bytes; a single proposal always passes."""
    group = Group.of(3, Options(uncommitted_max_bytes=200))
    leader = group.elect(1)
    group.cut(1)
    leader.raft.propose(bytes(1000))
    with pytest.raises(BusyError):
        leader.raft.propose(b"x")
    group.raft(2).propose(b"x")
    group.heal()
    group.settle()
    assert [answer.status for answer in group[2].answers] == [2]
    group.tick(2, 1)
    assert leader.raft.propose(b"x")


def test_6_3_a_proposal_is_forwarded_with_its_identity() -> None:
    """Section 6.3: the entry carries who proposed what, so that a retry is found; section 6.2: a follower forwards."""
    group = Group.of(3)
    leader = group.elect(1)
    group.raft(3).propose(b"x", client_id=3, sequence=8, lowest_unanswered=5)
    group.settle()
    assert group[3].answers == [ProposeResponse(0, 0, 3, 8, 1, 2, 1)]
    proposal = proposal_of(leader.applied[-1][1].data)
    assert (proposal.client_id, proposal.sequence, proposal.lowest_unanswered, proposal.data) == (3, 8, 5, b"x")
    group.raft(2).step(3, Propose(3, 9, 5, b"y"), 4)
    assert group[2].messages() == [ProposeResponse(1, 2, 3, 9, 1, 0, 1)]
    with pytest.raises(NotLeaderError):
        Node(2, THREE).raft.propose(b"x")


def test_readies_are_advanced_in_order_each_once() -> None:
    """The order of persistence and sending is enforced: what came later cannot become durable before."""
    raft = Node(2, THREE).raft
    raft.step(1, AppendEntries(1, 1, 0, 0, 0, (LogEntry(1, EntryType.DATA, b"a"),)), 1)
    first = raft.ready()
    raft.step(1, AppendEntries(1, 1, 1, 1, 0, (LogEntry(1, EntryType.DATA, b"b"),)), 2)
    second = raft.ready()
    assert (first.first_index, second.first_index) == (1, 2)
    with pytest.raises(RaftError):
        raft.advance(second)
    raft.advance(first)
    assert [each.exchange for each in raft.ready().messages] == [1]
    with pytest.raises(RaftError):
        raft.advance(first)
    raft.advance(second)
    assert [each.exchange for each in raft.ready().messages] == [2]


def test_a_batch_that_was_truncated_while_it_was_written_is_not_durable() -> None:
    """Persistent state: an fsync that was begun before a conflict says nothing about what took its place."""
    raft = Node(2, THREE).raft
    raft.step(1, AppendEntries(1, 1, 0, 0, 0, (LogEntry(1, 1, b"a"), LogEntry(1, 1, b"b"))), 1)
    first = raft.ready()
    raft.step(3, AppendEntries(2, 3, 1, 1, 0, (LogEntry(2, 1, b"c"),)), 2)
    raft.advance(first)
    assert raft.log.durable == 1
    raft.advance(raft.ready())
    assert raft.log.durable == 2


def test_heartbeats_are_answered_while_the_disk_is_slow() -> None:
    """What is durable already can be confirmed at once: a slow disk does not look like a dead node."""
    raft = Node(2, THREE).raft
    raft.step(1, AppendEntries(1, 1, 0, 0, 0, (LogEntry(1, 1, b"a"),)), 1)
    raft.advance(raft.ready())
    raft.ready()
    raft.step(1, AppendEntries(1, 1, 1, 1, 0, (LogEntry(1, 1, b"b"),)), 2)
    raft.ready()
    raft.step(1, AppendEntries(1, 1, 1, 1, 0, ()), 3)
    assert [each.exchange for each in raft.ready().messages] == [3]


def test_a_message_that_is_not_rafts_is_refused() -> None:
    with pytest.raises(RaftError):
        Node(2, THREE).raft.step(1, LogEntry(1, 1, b""))


def test_a_node_without_a_configuration_follows_and_never_campaigns() -> None:
    """Consistency rule 13 and 14: who joins learns the members from the log."""
    raft = Raft(4, Options(), random.Random(1), hard_state=HardState(), snapshot=SnapshotMeta())
    for _ in range(100):
        raft.tick()
    assert (raft.state, raft.term) == (State.FOLLOWER, 0)
