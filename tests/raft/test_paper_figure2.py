"""Figure 2 of the Raft paper, rule by rule (Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm)."""

from __future__ import annotations

import random

import pytest

from hypercache.errors import ConfigurationError, ConsistencyError
from hypercache.raft import Configuration, EntryType, HardState, Options, Raft, SnapshotMeta, State
from hypercache.wire.messages import AppendEntries, AppendResponse, LogEntry, VoteRequest, VoteResponse
from tests.raft.group import PLAIN, Group, Node

THREE = Configuration((1, 2, 3))


def entry(term: int, data: bytes = b"") -> LogEntry:
    return LogEntry(term, EntryType.DATA, data)


def append(term: int, prev: int, prev_term: int, *terms: int, commit: int = 0) -> AppendEntries:
    return AppendEntries(term, 1, prev, prev_term, commit, tuple(entry(each) for each in terms))


def answers(node: Node, sender: int, message: object) -> list[object]:
    node.raft.step(sender, message, 1)  # type: ignore[arg-type]
    return list(node.messages())


# State


def test_persistent_state_is_updated_on_stable_storage_before_responding_to_rpcs() -> None:
    """State: "Persistent state on all servers (Updated on stable storage before responding to RPCs)"."""
    for message in (VoteRequest(5, 1, 0, 0), append(5, 0, 0, 5)):
        raft = Node(2, THREE).raft
        raft.step(1, message, 7)
        ready = raft.ready()
        assert ready.must_sync
        assert ready.hard_state is not None
        assert ready.hard_state.term == 5
        assert not ready.messages
        assert not raft.ready().messages, "a further ready does not release what the first promises"
        raft.advance(ready)
        (answer,) = raft.ready().messages
        assert (answer.to, answer.exchange, answer.reply) == (1, 7, True)


def test_a_restart_continues_with_term_vote_and_log() -> None:
    """State: currentTerm, votedFor, log[] survive."""
    raft = Raft(
        2,
        PLAIN,
        random.Random(1),
        hard_state=HardState(4, 3, 1),
        snapshot=SnapshotMeta(configuration=THREE),
        entries=[entry(1), entry(4)],
    )
    assert (raft.term, raft.vote, raft.commit, raft.log.last_index, raft.log.last_term) == (4, 3, 1, 2, 4)
    raft.step(1, VoteRequest(4, 1, 9, 4))
    ready = raft.ready()
    assert [outbound.message for outbound in ready.messages] == [VoteResponse(4, False)]


def test_next_index_begins_behind_the_last_entry_and_match_index_at_zero() -> None:
    """State, volatile on leaders: "initialized to leader last log index + 1", "initialized to 0, increases monotonically"."""
    node = Node(1, THREE, terms=[1, 1, 2])
    node.raft.campaign()
    node.work()
    node.raft.step(2, VoteResponse(3, True))
    assert {peer: (progress.match, progress.next) for peer, progress in node.raft.progress.items()} == {2: (0, 4), 3: (0, 4)}


# AppendEntries RPC, receiver implementation


def test_append_1_false_if_the_term_is_older() -> None:
    """AppendEntries, rule 1: "Reply false if term < currentTerm"."""
    node = Node(2, THREE, term=3)
    assert answers(node, 1, append(2, 0, 0, 2)) == [AppendResponse(3, False, 0, 0)]
    assert node.terms == []


@pytest.mark.parametrize(
    ("prev", "prev_term", "conflict"),
    [(5, 3, (4, 0)), (3, 3, (2, 2)), (2, 3, (2, 2)), (1, 2, (1, 1))],
)
def test_append_2_false_without_a_matching_previous_entry(prev: int, prev_term: int, conflict: tuple[int, int]) -> None:
    """AppendEntries, rule 2; the answer names the conflicting term and its first index (section 5.3)."""
    node = Node(2, THREE, terms=[1, 2, 2])
    assert answers(node, 1, append(3, prev, prev_term, 3)) == [AppendResponse(3, False, *conflict)]
    assert node.terms == [1, 2, 2]


def test_append_3_a_conflicting_entry_and_all_behind_it_are_deleted() -> None:
    """AppendEntries, rule 3: "delete the existing entry and all that follow it"."""
    node = Node(2, THREE, terms=[1, 1, 2, 2, 2])
    assert answers(node, 1, append(3, 2, 1, 3)) == [AppendResponse(3, True, 3, 3)]
    assert node.terms == [1, 1, 3]


def test_append_4_new_entries_are_appended_and_present_ones_stay() -> None:
    """AppendEntries, rule 4: "Append any new entries not already in the log"; a late message takes nothing away."""
    node = Node(2, THREE, terms=[1, 1])
    assert answers(node, 1, append(1, 1, 1, 1, 1)) == [AppendResponse(1, True, 3, 1)]
    assert answers(node, 1, append(1, 0, 0, 1)) == [AppendResponse(1, True, 1, 1)]
    assert node.terms == [1, 1, 1]


@pytest.mark.parametrize(("leader_commit", "expected"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_append_5_the_commit_index_goes_no_further_than_the_last_new_entry(leader_commit: int, expected: int) -> None:
    """AppendEntries, rule 5: "commitIndex = min(leaderCommit, index of last new entry)"; what stands behind is not verified."""
    node = Node(2, THREE, terms=[1, 1, 1])
    answers(node, 1, append(2, 1, 1, 1, commit=leader_commit))
    assert node.raft.commit == expected


def test_a_committed_entry_is_never_replaced() -> None:
    """State machine safety: a leader that contradicts what is committed stops the node, for it must not guess."""
    node = Node(2, THREE, terms=[1, 1], commit=2)
    with pytest.raises(ConsistencyError):
        node.raft.step(1, append(2, 1, 1, 2))


# RequestVote RPC, receiver implementation


def test_vote_1_false_if_the_term_is_older() -> None:
    """RequestVote, rule 1."""
    assert answers(Node(2, THREE, term=3), 1, VoteRequest(2, 1, 9, 2)) == [VoteResponse(3, False)]


@pytest.mark.parametrize(
    ("vote", "last", "last_term", "granted"),
    [
        (0, 2, 2, True),
        (1, 2, 2, True),
        (3, 2, 2, False),
        (0, 1, 2, False),
        (0, 9, 1, False),
        (0, 1, 3, True),
        (0, 3, 2, True),
    ],
)
def test_vote_2_one_vote_a_term_to_a_log_at_least_as_up_to_date(vote: int, last: int, last_term: int, granted: bool) -> None:
    """RequestVote, rule 2; "up-to-date" as in section 5.4.1: the last term, then the length."""
    node = Node(2, THREE, terms=[1, 2], term=4, vote=vote)
    assert answers(node, 1, VoteRequest(4, 1, last, last_term)) == [VoteResponse(4, granted)]
    assert node.raft.vote == (1 if granted else vote)


def test_vote_2_the_same_candidate_is_answered_alike_again() -> None:
    """RequestVote, rule 2: "votedFor is null or candidateId": a repeated request is idempotent, another candidate's is not."""
    node = Node(2, THREE)
    assert answers(node, 1, VoteRequest(1, 1, 0, 0)) == [VoteResponse(1, True)]
    assert answers(node, 1, VoteRequest(1, 1, 0, 0)) == [VoteResponse(1, True)]
    assert answers(node, 3, VoteRequest(1, 3, 5, 1)) == [VoteResponse(1, False)]


# Rules for all servers


def test_what_is_committed_is_applied_in_order_once() -> None:
    """All servers: "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied]"."""
    node = Node(2, THREE)
    answers(node, 1, append(1, 0, 0, 1, 1, 1, commit=2))
    assert [index for index, _ in node.applied] == [1, 2]
    answers(node, 1, append(1, 3, 1, commit=3))
    assert [index for index, _ in node.applied] == [1, 2, 3]


def test_nothing_is_applied_before_it_is_durable_here() -> None:
    """All servers, with "persistent state": a node never applies what its own disk could still lose."""
    raft = Node(2, THREE).raft
    raft.step(1, append(1, 0, 0, 1, commit=1))
    ready = raft.ready()
    assert not ready.committed
    raft.advance(ready)
    assert len(raft.ready().committed) == 1


@pytest.mark.parametrize("state", [State.FOLLOWER, State.CANDIDATE, State.LEADER])
@pytest.mark.parametrize(
    "message",
    [
        append(9, 0, 0),
        AppendResponse(9, False, 0, 0),
        VoteRequest(9, 2, 0, 0),
        VoteResponse(9, False),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_higher_term_makes_every_server_a_follower(state: State, message: object) -> None:
    """All servers: "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower"."""
    node = Node(1, THREE)
    if state is not State.FOLLOWER:
        node.raft.campaign()
        node.work()
    if state is State.LEADER:
        node.raft.step(2, VoteResponse(1, True))
    assert node.state is state
    node.raft.step(2, message)  # type: ignore[arg-type]
    assert (node.raft.term, node.raft.state) == (9, State.FOLLOWER)


# Rules for followers


def test_a_follower_campaigns_after_an_election_timeout_without_a_leader() -> None:
    """Followers: "If election timeout elapses without receiving AppendEntries RPC ... or granting vote: convert to candidate"."""
    node = Node(2, THREE)
    node.raft.step(1, append(1, 0, 0))
    for _ in range(9):
        node.raft.tick()
    assert node.state is State.FOLLOWER
    node.raft.step(1, append(1, 0, 0))
    for _ in range(9):
        node.raft.tick()
    assert node.state is State.FOLLOWER
    node.raft.step(3, VoteRequest(2, 3, 0, 0))
    for _ in range(9):
        node.raft.tick()
    assert node.state is State.FOLLOWER
    for _ in range(11):
        node.raft.tick()
    assert node.state is State.CANDIDATE  # type: ignore[comparison-overlap]


def test_election_timeouts_are_random_between_one_and_two() -> None:
    """Section 5.2: "election timeouts are chosen randomly from a fixed interval", so that split votes are rare."""
    seen = set()
    for seed in range(200):
        raft = Raft(1, PLAIN, random.Random(seed), snapshot=SnapshotMeta(configuration=THREE))
        ticks = 0
        while raft.state is State.FOLLOWER:
            raft.tick()
            ticks += 1
        seen.add(ticks)
    assert seen == set(range(10, 20))


# Rules for candidates


def test_a_candidate_raises_the_term_votes_for_itself_and_asks_everybody() -> None:
    """Candidates: "Increment currentTerm, vote for self, reset election timer, send RequestVote RPCs to all other servers"."""
    node = Node(1, THREE, terms=[1, 3])
    node.raft.campaign()
    ready = node.raft.ready()
    assert ready.hard_state == HardState(4, 1, 0)
    assert not ready.messages, "the requests rest on the own vote, which is not durable yet"
    node.raft.advance(ready)
    sent = node.raft.ready().messages
    assert [(outbound.to, outbound.message) for outbound in sent] == [
        (2, VoteRequest(4, 1, 2, 3)),
        (3, VoteRequest(4, 1, 2, 3)),
    ]


@pytest.mark.parametrize(
    ("size", "votes", "state"),
    [
        (1, [], State.LEADER),
        (3, [True], State.LEADER),
        (3, [], State.CANDIDATE),
        (3, [False, True], State.LEADER),
        (3, [False, False], State.FOLLOWER),
        (5, [True, True], State.LEADER),
        (5, [True, False, True], State.LEADER),
        (5, [True], State.CANDIDATE),
        (5, [False, False, False], State.FOLLOWER),
        (4, [True], State.CANDIDATE),
        (4, [True, True], State.LEADER),
    ],
)
def test_a_candidate_leads_with_the_votes_of_a_majority(size: int, votes: list[bool], state: State) -> None:
    """Candidates: "If votes received from majority of servers: become leader"."""
    node = Node(1, Configuration(tuple(range(1, size + 1))))
    node.raft.campaign()
    node.work()
    for voter, granted in enumerate(votes, 2):
        node.raft.step(voter, VoteResponse(1, granted))
    assert node.state is state


def test_a_vote_counts_once() -> None:
    """Candidates: a majority is of servers, not of answers."""
    node = Node(1, Configuration((1, 2, 3, 4, 5)))
    node.raft.campaign()
    node.work()
    for _ in range(3):
        node.raft.step(2, VoteResponse(1, True))
    assert node.state is State.CANDIDATE


def test_the_own_vote_counts_only_once_it_is_durable() -> None:
    """Candidates, with "persistent state": a vote for oneself is a vote."""
    raft = Node(1, THREE).raft
    raft.campaign()
    ready = raft.ready()
    raft.step(2, VoteResponse(1, True))
    assert raft.state is State.CANDIDATE
    raft.advance(ready)
    assert raft.state is State.LEADER  # type: ignore[comparison-overlap]


def test_a_candidate_follows_a_leader_of_its_term() -> None:
    """Candidates: "If AppendEntries RPC received from new leader: convert to follower"; from an older one it does not."""
    node = Node(1, THREE)
    node.raft.campaign()
    node.work()
    node.raft.step(2, AppendEntries(0, 2, 0, 0, 0, ()))
    assert node.state is State.CANDIDATE
    node.raft.step(2, AppendEntries(1, 2, 0, 0, 0, ()))
    assert (node.raft.state, node.raft.leader, node.raft.vote) == (State.FOLLOWER, 2, 1)


def test_a_candidate_starts_a_new_election_after_a_timeout() -> None:
    """Candidates: "If election timeout elapses: start new election"."""
    node = Node(1, THREE)
    node.raft.campaign()
    for _ in range(20):
        node.raft.tick()
    assert (node.raft.state, node.raft.term) == (State.CANDIDATE, 2)


# Rules for leaders


def test_a_leader_sends_heartbeats_at_once_and_in_idle_periods() -> None:
    """Leaders: "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server; repeat during idle periods".

    The first carries the no-op of dissertation section 6.4.
    """
    group = Group.of(3)
    leader = group.elect(1)
    leader.sent.clear()
    group.tick(3, 1)
    assert [(outbound.to, type(outbound.message)) for outbound in leader.sent] == [(2, AppendEntries), (3, AppendEntries)] * 3


def test_a_leader_appends_a_command_and_answers_after_it_is_applied() -> None:
    """Leaders: "If command received from client: append entry to local log, respond after entry applied to state machine"."""
    group = Group.of(3)
    leader = group.elect(1)
    assert leader.raft.propose(b"command") == 2
    assert leader.data == []
    group.settle()
    assert leader.data == [b"command"]
    assert [group[node].data for node in (2, 3)] == [[b"command"]] * 2


def test_a_leader_sends_entries_from_next_index_on() -> None:
    """Leaders: "If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at nextIndex"."""
    node = Node(1, THREE, terms=[1, 1])
    node.raft.campaign()
    node.work()
    node.raft.step(2, VoteResponse(2, True))
    sent = {outbound.to: outbound.message for outbound in node.work()}
    assert sent[2] == AppendEntries(2, 1, 2, 1, 0, (LogEntry(2, EntryType.NO_OP, b""),))


def test_a_success_raises_next_and_match_index() -> None:
    """Leaders: "If successful: update nextIndex and matchIndex for follower"; they never fall by a late answer."""
    node = leader_of_three([1, 1])
    exchange = {outbound.to: outbound.exchange for outbound in node.sent}
    node.raft.step(2, AppendResponse(2, True, 3, 2), exchange[2])
    progress = node.raft.progress[2]
    assert (progress.match, progress.next) == (3, 4)
    node.raft.step(2, AppendResponse(2, True, 1, 1))
    assert (progress.match, progress.next) == (3, 4)


def test_a_refusal_lowers_next_index_and_retries() -> None:
    """Leaders: "If AppendEntries fails because of log inconsistency: decrement nextIndex and retry"."""
    node = leader_of_three([1, 1])
    exchange = {outbound.to: outbound.exchange for outbound in node.sent}
    node.raft.step(2, AppendResponse(2, False, 1, 0), exchange[2])
    (retried,) = node.messages()
    assert isinstance(retried, AppendEntries)
    assert (retried.prev_log_index, len(retried.entries)) == (0, 3)


def leader_of_three(terms: list[int]) -> Node:
    node = Node(1, THREE, terms=terms)
    node.raft.campaign()
    node.work()
    node.sent.clear()
    node.raft.step(2, VoteResponse(node.raft.term, True))
    node.work()
    return node


@pytest.mark.parametrize(("match", "commit"), [((1, 1), 0), ((3, 1), 3), ((3, 3), 3), ((2, 2), 0)])
def test_a_leader_commits_what_a_majority_holds_of_its_own_term(match: tuple[int, int], commit: int) -> None:
    """Leaders: "If there exists an N ... a majority of matchIndex[i] >= N, and log[N].term == currentTerm"."""
    node = leader_of_three([1, 1])
    for follower, index in zip((2, 3), match, strict=True):
        node.raft.step(follower, AppendResponse(2, True, index, (0, 1, 1, 2)[index]))
    assert node.raft.commit == commit


def test_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    """Figure 8 and section 5.4.2: only an entry of the current term commits, and all before it with it."""
    node = leader_of_three([1, 1])
    node.raft.step(2, AppendResponse(2, True, 2, 1))
    node.raft.step(3, AppendResponse(2, True, 2, 1))
    assert node.raft.commit == 0
    node.raft.step(2, AppendResponse(2, True, 3, 2))
    assert node.raft.commit == 3


def test_a_leader_counts_its_own_log_only_as_far_as_it_is_durable() -> None:
    """Dissertation, section 10.2.1: the leader may send before its own write is done, but not count itself."""
    group = Group.of(3)
    raft = group.elect(1).raft
    raft.propose(b"x")
    ready = raft.ready()
    assert [outbound.to for outbound in ready.messages if isinstance(outbound.message, AppendEntries)] == [2, 3]
    exchange = {outbound.to: outbound.exchange for outbound in ready.messages}
    raft.step(2, AppendResponse(1, True, 2, 1), exchange[2])
    assert raft.commit == 1
    raft.advance(ready)
    assert raft.commit == 2


def test_a_success_that_contradicts_the_leaders_log_counts_for_nothing() -> None:
    """wire.md, section 1: a success names the entry that matches, its term included."""
    node = leader_of_three([1, 1])
    node.raft.step(2, AppendResponse(2, True, 3, 1))
    node.raft.step(2, AppendResponse(2, True, 9, 2))
    assert node.raft.progress[2].match == 0


def test_a_peer_that_answers_success_with_zeros_is_matched_by_the_order_of_its_replies() -> None:
    """wire.md, section 1: "A peer that sends zeros there is matched by the order of its replies"."""
    node = leader_of_three([1, 1])
    node.raft.step(2, AppendResponse(2, True, 0, 0))
    assert node.raft.progress[2].match == 3
    node.raft.propose(b"a")
    node.work()
    node.raft.propose(b"b")
    node.work()
    node.raft.step(2, AppendResponse(2, True, 0, 0))
    node.raft.step(2, AppendResponse(2, True, 0, 0))
    node.raft.step(2, AppendResponse(2, True, 0, 0))
    assert node.raft.progress[2].match == 5


def test_two_leaders_of_one_term_stop_the_node() -> None:
    """Figure 3, election safety: "at most one leader can be elected in a given term"."""
    node = leader_of_three([])
    with pytest.raises(ConsistencyError):
        node.raft.step(3, AppendEntries(node.raft.term, 3, 0, 0, 0, ()))


def test_options_that_contradict_each_other_are_refused() -> None:
    for wrong in ({"heartbeat_ticks": 10}, {"lease_ticks": 10}, {"lease_ticks": 5, "check_quorum": False}, {"chunk_bytes": 1}):
        with pytest.raises(ConfigurationError):
            Options(**wrong)  # type: ignore[arg-type]
