"""What networks and disks do at the worst moment: late answers, earlier lives, torn writes, dropped links, lost windows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from hypercache.errors import ConsistencyError, RaftError
from hypercache.raft import Configuration, EntryType, HardState, Options, ProgressState, Raft, SnapshotMeta, State, snapshot_header
from hypercache.raft.snapshot import HAVE_ALL
from hypercache.wire.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    LogEntry,
    PreVoteRequest,
    PreVoteResponse,
    SnapshotResponse,
    VoteRequest,
    VoteResponse,
)
from tests.raft.group import Group, Node

if TYPE_CHECKING:
    from hypercache.raft import Outbound

TWO = Configuration((1, 2))
THREE = Configuration((1, 2, 3))
LEASE = Options(lease_ticks=5)


def entries(*terms: int) -> tuple[LogEntry, ...]:
    return tuple(LogEntry(term, EntryType.DATA, b"") for term in terms)


def leader(configuration: Configuration, options: Options, terms: tuple[int, ...] = ()) -> Node:
    """Return node 1 as the leader of term 1, or the next of its log, with nothing said that was not taken away."""
    node = Node(1, configuration, options, terms=terms)
    node.raft.campaign()
    node.work()
    node.raft.step(2, PreVoteResponse(node.raft.term + 1, True))
    node.work()
    node.raft.step(2, VoteResponse(node.raft.term, True))
    assert node.state is State.LEADER
    return node


def appends(sent: list[Outbound]) -> list[AppendEntries]:
    return [outbound.message for outbound in sent if isinstance(outbound.message, AppendEntries)]


# Votes


def test_a_node_without_a_configuration_grants_no_vote() -> None:
    """consistency.md, rule 14: who arrives without its log helps nobody who may lack what it once held."""
    node = Node(4, Configuration(), Options(pre_vote=False))
    node.raft.step(1, PreVoteRequest(1, 1, 5, 1))
    node.raft.step(1, VoteRequest(1, 1, 5, 1))
    assert node.messages() == [PreVoteResponse(0, False), VoteResponse(1, False)]
    node.raft.step(1, InstallSnapshot(1, 1, 5, 1, 0, True, snapshot_header(THREE)))
    node.work()
    for _ in range(10):
        node.raft.tick()
    node.raft.step(2, VoteRequest(2, 2, 5, 1))
    assert node.messages() == [VoteResponse(2, True)]


def test_a_term_that_a_stray_answer_raised_ends_no_lease() -> None:
    """Dissertation, sections 4.2.3 and 6.4.1: no vote while a leader is heard, whichever way the term of the request was learnt."""
    node = Node(2, THREE, LEASE, term=1)
    for _ in range(10):
        node.raft.tick()
    node.work()
    node.raft.step(1, AppendEntries(1, 1, 0, 0, 0, ()))
    node.raft.step(3, AppendResponse(2, False, 0, 0))
    node.work()
    assert node.raft.term == 2
    node.raft.step(3, VoteRequest(2, 3, 9, 1))
    assert node.messages() == [VoteResponse(2, False)]
    node.raft.step(3, VoteRequest(2, 3, 9, 1, transfer=True))
    assert node.messages() == [VoteResponse(2, True)]


def test_a_campaign_by_hand_waits_for_a_lease_that_may_run() -> None:
    """Section 6.4.1: a candidate votes for itself, and so is bound by whom it heard as any voter is."""
    node = Node(2, THREE, LEASE)
    node.raft.step(1, AppendEntries(1, 1, 0, 0, 0, ()))
    with pytest.raises(RaftError):
        node.raft.campaign()
    for _ in range(10):
        node.raft.tick()
    node.raft.campaign()
    alone = Node(1, Configuration((1,)), LEASE, term=3)
    alone.raft.campaign()
    alone.work()
    assert alone.state is State.LEADER


def test_a_late_answer_to_an_earlier_campaign_does_not_count() -> None:
    """Dissertation, section 9.6: a refusal of long ago says nothing about now."""
    node = Node(1, THREE, Options())
    node.raft.campaign()
    late = {outbound.to: outbound.exchange for outbound in node.work()}
    node.raft.campaign()
    sent = {outbound.to: outbound.exchange for outbound in node.work()}
    node.raft.step(2, PreVoteResponse(0, False), late[2])
    node.raft.step(3, PreVoteResponse(0, False), late[3])
    assert node.state is State.PRE_CANDIDATE
    node.raft.step(2, PreVoteResponse(1, True), sent[2])
    assert node.state is State.CANDIDATE  # type: ignore[comparison-overlap]


def test_a_follower_that_sees_two_leaders_of_one_term_stops() -> None:
    """Figure 3, election safety."""
    node = Node(2, THREE)
    node.raft.step(1, AppendEntries(4, 1, 0, 0, 0, ()))
    with pytest.raises(ConsistencyError):
        node.raft.step(3, AppendEntries(4, 3, 0, 0, 0, ()))


# Disks


def test_the_commit_hint_never_exceeds_what_is_durable() -> None:
    """Figure 2, persistent state: the hint may outlive the entries that were written with it.

    A write that tore behind the hard state leaves the old entries 2 and 3 there, which were never committed.
    """
    raft = Node(2, THREE, terms=[1, 1, 1]).raft
    raft.step(1, AppendEntries(2, 1, 1, 1, 3, entries(2, 2)))
    ready = raft.ready()
    assert ready.hard_state == HardState(2, 0, 1)
    raft.advance(ready)
    assert raft.ready().hard_state == HardState(2, 0, 3)


def test_a_heartbeat_is_answered_while_entries_before_it_are_written() -> None:
    """Dissertation, sections 6.2 and 6.4: who waits for its disk is heard, and says no more than it has."""
    raft = Node(2, THREE, terms=[1, 1], term=1).raft
    raft.step(1, AppendEntries(1, 1, 2, 1, 0, entries(1, 1)), 1)
    written = raft.ready()
    raft.step(1, AppendEntries(1, 1, 4, 1, 0, ()), 2)
    assert [(each.exchange, each.message) for each in raft.ready().messages] == [(2, AppendResponse(1, True, 2, 1))]
    raft.advance(written)
    assert [(each.exchange, each.message) for each in raft.ready().messages] == [(1, AppendResponse(1, True, 4, 1))]


def test_a_disk_that_holds_nothing_is_no_match_by_order() -> None:
    """wire.md, section 1: zeros would say that all of the request matches."""
    raft = Node(2, THREE, term=1).raft
    raft.step(1, AppendEntries(1, 1, 0, 0, 0, entries(1, 1)), 1)
    written = raft.ready()
    raft.step(1, AppendEntries(1, 1, 2, 1, 0, ()), 2)
    assert not raft.ready().messages
    raft.advance(written)
    assert [each.message for each in raft.ready().messages] == [AppendResponse(1, True, 2, 1)] * 2


def test_what_was_applied_before_a_restart_is_committed() -> None:
    raft = Raft(
        2,
        Options(),
        random.Random(1),
        hard_state=HardState(1, 0, 1),
        snapshot=SnapshotMeta(configuration=THREE),
        entries=entries(1, 1, 1),
        applied=2,
    )
    assert raft.commit == 2
    with pytest.raises(ConsistencyError):
        raft.step(1, AppendEntries(2, 1, 1, 1, 0, entries(2)))


# The window


def test_a_compaction_may_overtake_a_follower_whose_window_is_full() -> None:
    node = leader(THREE, Options(inflight_max_count=1))
    sent = {outbound.to: outbound.exchange for outbound in node.work()}
    for peer in (2, 3):
        node.raft.step(peer, AppendResponse(1, True, 1, 1), sent[peer])
    node.raft.propose(b"0")
    first = next(each.exchange for each in node.work() if each.to == 3)
    for number in range(1, 5):
        node.raft.propose(b"%d" % number)
        node.work()
        node.raft.step(2, AppendResponse(1, True, node.raft.log.last_index, 1))
    node.work()
    assert node.raft.commit == 6
    node.snapshot(6)
    node.raft.step(3, AppendResponse(1, True, 2, 1), first)
    node.work()
    assert node.raft.progress[3].state is ProgressState.SNAPSHOT


def test_a_lost_heartbeat_keeps_no_place_in_the_window() -> None:
    """Dissertation, section 10.2.1: what the follower holds is no longer on its way, whichever answer told it."""
    group = Group.of(2, Options(inflight_max_count=2))
    raft = group.elect(1).raft
    group.tick(1, 1)
    for _ in range(5):
        group.cut(1)
        raft.tick()
        group.settle()
        group.lost = lambda sender, outbound: isinstance(outbound.message, AppendResponse)
        raft.propose(b"its answer is lost")
        group.settle()
        group.heal()
        raft.propose(b"this one's is not")
        group.settle()
    assert raft.progress[2].match == raft.log.last_index
    raft.propose(b"a")
    raft.ready()
    raft.propose(b"b")
    assert [len(each.entries) for each in appends(list(raft.ready().messages))] == [1]


def test_a_window_that_was_lost_as_a_whole_is_sent_again_after_a_heartbeat() -> None:
    group = Group.of(2, Options(inflight_max_count=3))
    raft = group.elect(1).raft
    group.tick(1, 1)
    group.cut(1)
    for number in range(9):
        raft.propose(b"%d" % number)
        group.settle()
    group.heal()
    group.tick(1, 1)
    assert group.raft(2).log.last_index == raft.log.last_index == 10


def test_a_probe_carries_its_entries_once() -> None:
    """A peer that does not answer is sent no more than heartbeats, however much it lacks."""
    node = leader(TWO, Options(), terms=(1,) * 5)
    first = appends(node.work())
    again = []
    for _ in range(5):
        node.raft.tick()
        again += appends(node.work())
    assert [len(each.entries) for each in first + again] == [1, 0, 0, 0, 0, 0]
    assert {each.prev_log_index for each in again} == {5}
    node.raft.step(2, AppendResponse(2, True, 5, 1), node.sent[-1].exchange)
    assert [len(each.entries) for each in appends(node.work())] == [1]


def test_a_dropped_link_is_probed_again_at_once() -> None:
    """What was on its way is lost with the link: nothing waits for its answers."""
    node = leader(TWO, Options(inflight_max_count=2))
    node.raft.step(2, AppendResponse(1, True, 1, 1), node.work()[-1].exchange)
    for number in range(5):
        node.raft.propose(b"%d" % number)
        node.work()
    assert not appends(node.work())
    node.raft.lost(2)
    (probe,) = appends(node.work())
    assert (probe.prev_log_index, len(probe.entries)) == (1, 5)
    node.raft.lost(2)
    assert len(appends(node.work())) == 1
    node.raft.lost(9)
    Node(2, TWO).raft.lost(1)


def test_an_answer_by_order_is_never_taken_for_that_of_a_later_request() -> None:
    """wire.md, section 1: a peer that sends zeros is matched by the order of its replies; those of given up requests come first."""
    node = leader(TWO, Options(), terms=(1, 1, 1))
    node.work()
    node.raft.tick()
    node.work()
    node.raft.step(2, AppendResponse(2, True, 0, 0))
    assert node.raft.progress[2].match == 4
    node.raft.propose(b"x")
    node.work()
    node.raft.step(2, AppendResponse(2, True, 0, 0))
    assert node.raft.progress[2].match == 4, "the heartbeat was answered, not the entry"
    node.raft.step(2, AppendResponse(2, True, 0, 0))
    assert node.raft.progress[2].match == 5


# Earlier lives


def test_an_answer_meant_for_an_earlier_life_or_term_confirms_no_read() -> None:
    """Dissertation, section 6.4: only who answers a request that began after the read shows that the leader still leads."""
    group = Group.of(3, Options())
    raft = group.elect(1).raft
    raft.read_index(7)
    raft.ready()
    raft.step(2, AppendResponse(1, False, 1, 0), 1_000_000)
    raft.step(2, AppendResponse(1, False, 0, 0), raft.outbox.last_exchange)
    raft.step(3, SnapshotResponse(1, False, 0), raft.outbox.last_exchange)
    assert not raft.ready().reads
    raft.step(2, AppendResponse(1, False, 1, 0), raft.outbox.last_exchange)
    assert raft.ready().reads


def test_an_answer_from_before_a_member_was_removed_says_nothing_about_it_now() -> None:
    """consistency.md, rule 14: it may have come back with an empty disk."""
    group = Group.of(2, Options(), learners=[3])
    raft = group.elect(1).raft
    group.tick(1, 1)
    late = next(each for each in group[1].sent if each.to == 3 and isinstance(each.message, AppendEntries) and each.message.entries)
    raft.propose_configuration([1, 2], [])
    group.settle()
    raft.propose_configuration([1, 2], [3])
    group.lost = lambda sender, outbound: 3 in (sender, outbound.to)
    group.settle()
    raft.step(3, AppendResponse(1, True, 1, 1), late.exchange)
    assert raft.progress[3].match == 0


# Snapshots


def behind(options: Options, state: bytes = bytes(5000)) -> Group:
    """Return a group whose leader 1 has compacted what node 3 lacks."""
    group = Group.of(3, options)
    node = group.elect(1)
    group.cut(3)
    for number in range(10):
        node.raft.propose(b"%d" % number)
    group.settle()
    node.snapshot(11, state)
    group.heal()
    return group


def hold_chunks(group: Group, begin: int) -> None:
    """Lose the chunks from an offset on."""
    group.lost = lambda sender, outbound: isinstance(outbound.message, InstallSnapshot) and outbound.message.offset >= begin


def test_a_snapshot_on_its_way_is_finished_although_there_is_a_newer_one() -> None:
    """Section 7: else who takes longer than the next snapshot would never be served; the log behind it is kept for it."""
    group = behind(Options(chunk_bytes=1024))
    raft = group.raft(1)
    hold_chunks(group, 2048)
    group.tick(1, 1)
    raft.propose(b"more")
    group.settle()
    streams = group[1].streams.by_index
    group[1].streams.by_index = {**streams, 12: snapshot_header(THREE) + bytes(5000)}
    raft.compact(12)
    assert raft.log.first_index == 12
    group.heal()
    group.tick(12, 1)
    assert group.raft(3).log.snapshot.index == 11
    assert [each.offset for each in group[3].chunks] == [0, 1024, 2048, 3072, 4096]
    assert group[3].data == [b"more"]
    raft.propose(b"now")
    group.settle()
    raft.compact(13)
    assert raft.log.first_index == 14


def test_the_log_behind_a_snapshot_on_its_way_is_kept_within_a_bound() -> None:
    group = behind(Options(chunk_bytes=1024, catch_up_max_bytes=1000))
    raft = group.raft(1)
    hold_chunks(group, 1024)
    group.tick(1, 1)
    raft.propose(bytes(2000))
    group.settle()
    raft.compact(12)
    assert raft.log.first_index == 13


def test_a_compaction_that_comes_late_changes_nothing() -> None:
    group = behind(Options())
    log = group.raft(1).log
    group.raft(1).compact(2)
    assert (log.snapshot.index, log.first_index) == (11, 12)


def test_a_late_answer_to_a_replaced_snapshot_counts_for_nothing() -> None:
    """Figure 13: the follower holds what it was sent, not what the leader would send now."""
    group = behind(Options(chunk_bytes=100_000))
    raft = group.raft(1)
    late: list[Outbound] = []

    def hold_back(sender: int, outbound: Outbound) -> bool:
        if isinstance(outbound.message, SnapshotResponse):
            late.append(outbound)
        return isinstance(outbound.message, SnapshotResponse)

    group.lost = hold_back
    group.tick(1, 1)
    raft.propose(b"more")
    group.settle()
    group[1].streams.by_index = {}
    raft.compact(12)
    group.tick(10, 1)
    assert late[0].message == SnapshotResponse(1, True, HAVE_ALL)
    raft.step(3, late[0].message, late[0].exchange)
    assert raft.progress[3].match <= 11


def test_a_snapshot_that_the_follower_finds_damaged_is_not_sent_without_pause() -> None:
    group = behind(Options())
    group[1].streams.by_index = {11: b"no header"}
    group[1].sent.clear()
    group.tick(12, 1)
    assert sum(isinstance(each.message, InstallSnapshot) for each in group[1].sent) <= 2


def test_a_snapshot_that_cannot_be_read_yet_is_looked_for_once_a_heartbeat() -> None:
    group = behind(Options())
    group[1].streams.by_index = {}
    group.tick(2, 1)
    reads: list[int] = []

    class Counting:
        def read(self, index: int, offset: int, max_bytes: int) -> None:
            reads.append(index)

    group.raft(1).snapshots = Counting()
    for _ in range(20):
        group.raft(1).propose(b"x")
        group.settle()
    assert not reads
    group.tick(1, 1)
    assert reads == [11]
    assert group.raft(3).leader == 1


def test_who_waits_for_a_commit_hears_of_it_at_once_and_others_with_the_next_heartbeat() -> None:
    group = Group.of(3, Options(prompt_commits=False))
    leader = group.elect(1)
    group.raft(1).propose(b"own")
    group.settle()
    assert [group[node].data for node in (1, 2, 3)] == [[b"own"], [], []]
    leader.sent.clear()
    group.raft(2).propose(b"of another", client_id=2, sequence=1)
    group.settle()
    assert group[2].data == [b"own", b"of another"]
    assert group[3].data == [b"own"], "what the next entries bring with them"
    group.raft(3).read_index(5)
    group.settle()
    assert group[3].data == [b"own", b"of another"], "who reads needs what it is to see"
    group.raft(1).propose(b"last")
    group.settle()
    group.tick(1, 1)
    assert [group[node].data[-1] for node in (1, 2, 3)] == [b"last"] * 3


def test_a_leader_that_hung_up_is_replaced_within_a_third_of_an_election_timeout() -> None:
    options = Options(election_ticks=30)
    group = Group.of(3, options)
    group.elect(1)
    group.cut(1)
    for node in (2, 3):
        group.raft(node).hung_up(1)
    group.tick(12, 2, 3)
    assert State.LEADER in (group[2].state, group[3].state)


def test_who_lost_the_link_to_a_leader_that_others_hear_disturbs_nobody_and_waits_as_ever_once_it_hears_it() -> None:
    group = Group.of(3, Options(election_ticks=30))
    leader = group.elect(1)
    term = leader.raft.term
    group.lost = lambda sender, outbound: {sender, outbound.to} == {1, 3}
    group.raft(3).hung_up(1)
    group.tick(60)
    assert (leader.state, leader.raft.term) == (State.LEADER, term)
    group.lost = lambda sender, outbound: False
    group.tick(2)
    assert group.raft(3).leader == 1
    group.cut(1)
    group.tick(29, 3)
    assert group[3].state is State.FOLLOWER, "the short timeout was for once"


def test_with_leases_nobody_hurries() -> None:
    group = Group.of(3, Options(election_ticks=30, lease_ticks=20))
    group.elect(1)
    group.tick(40)
    group.cut(1)
    for node in (2, 3):
        group.raft(node).hung_up(1)
    group.tick(29, 2, 3)
    assert State.LEADER not in (group[2].state, group[3].state)
