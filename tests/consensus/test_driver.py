"""The driver: what waits for the disk, what is sent again, what ends the node."""

from __future__ import annotations

import pytest

from hypercache.errors import BusyError, DiskFullError, MalformedMessageError, NotLeaderError, OutcomeUnknownError, StorageError
from hypercache.raft import Options, State
from hypercache.wire.messages import AppendEntries, AppendResponse, LogEntry, Propose, ReadIndex, VoteResponse
from tests.consensus.drivers import TICK_SECONDS, Group, outcome


def test_a_proposal_is_applied_by_all_and_answered_where_it_was_made() -> None:
    group = Group(3)
    group.elect(1)
    at_leader, at_follower = group[1].driver.propose(b"a"), group[2].driver.propose(b"b")
    group.run(0.3)
    assert sorted((outcome(at_leader), outcome(at_follower))) == [b"1", b"2"]
    assert all(sorted(member.machine.notes) == [b"a", b"b"] for member in group.members.values())
    assert group[1].machine.prepared == 2
    assert not group[2].machine.prepared


def test_nothing_is_promised_before_the_disk_has_it() -> None:
    group = Group(3)
    group.elect(1)
    follower = group[2]
    follower.journal.held = True
    follower.sent.clear()
    group.cut.add(3)
    answer = group[1].driver.propose(b"a")
    group.run(0.05)
    assert not [out for out in follower.sent if isinstance(out.message, AppendResponse) and out.message.conflict_index > 1]
    assert not answer.called
    follower.journal.release()
    group.run(0.05)
    assert outcome(answer) == b"1"


def test_no_vote_leaves_before_the_disk_has_it() -> None:
    group = Group(3)
    group.cut.add(3)
    group[2].journal.held = True
    group[1].driver.campaign()
    group.run(0.05)
    assert not [out for out in group[2].sent if isinstance(out.message, VoteResponse)]
    assert group[1].driver.raft.state is State.CANDIDATE
    group[2].journal.release()
    group.until(lambda: group[1].driver.leads, 0.05)


def test_what_comes_while_the_disk_writes_shares_one_write() -> None:
    group = Group(3)
    leader = group.elect(1)
    leader.journal.held = True
    leader.driver.propose(b"0")
    group.run(0.01)
    answers = [leader.driver.propose(b"%d" % number) for number in range(1, 50)]
    group.run(0.01)
    before = leader.disk.writes
    leader.journal.release()
    leader.journal.release()
    group.run(0.05)
    assert leader.disk.writes - before <= 2
    assert all(answer.called for answer in answers)


def test_a_proposal_is_sent_to_the_next_leader_and_applied_once() -> None:
    group = Group(3)
    group.elect(1)
    # Node 1 takes it and cannot say so.
    answer = group[3].driver.propose(b"once")
    group.run(0.0015)
    group.cut.add(1)
    group.until(lambda: answer.called)
    assert outcome(answer) == b"1"
    group.cut.clear()
    group.run(2)
    assert [member.machine.notes for member in group.members.values()] == [[b"once"]] * 3


def test_a_copy_that_is_in_the_log_twice_is_applied_once_and_answered_the_same() -> None:
    group = Group(3)
    leader = group.elect(1)
    answer = group[2].driver.propose(b"once")
    group.run(0.05)
    sequence = leader.driver.raft.log.entries(2, 2)[0].data[8:16]
    copy = Propose(2, int.from_bytes(sequence, "big"), int.from_bytes(sequence, "big"), b"once")
    leader.driver.step(2, copy, 99)
    group.run(0.05)
    assert leader.driver.raft.commit == 3
    assert outcome(answer) == b"1"
    assert [member.machine.notes for member in group.members.values()] == [[b"once"]] * 3


def test_what_a_removed_client_proposed_is_not_applied() -> None:
    group = Group(3)
    group.elect(1)
    for member in group.members.values():
        member.machine.strangers.add(2)
    answer = group[2].driver.propose(b"late")
    group.run(6)
    assert isinstance(outcome(answer), OutcomeUnknownError)
    assert not group[1].machine.notes


def test_the_answers_of_who_has_left_are_forgotten_by_all() -> None:
    group = Group(3)
    group.elect(1)
    group[2].driver.propose(b"a")
    group.run(0.2)
    assert [len(member.driver.applying.sessions) for member in group.members.values()] == [1, 1, 1]
    for member in group.members.values():
        member.machine.forgotten = (2,)
    group[1].driver.propose(b"b")
    group.run(0.2)
    assert [len(member.driver.applying.sessions) for member in group.members.values()] == [1, 1, 1]
    assert group[1].driver.applying.sessions.encode().count(b"2") == 1, "of node 1 alone, which was told 2"


def test_without_a_leader_a_proposal_is_certainly_not_done() -> None:
    group = Group(3)
    answer = group[1].driver.propose(b"a")
    group.cut |= {2, 3}
    group.run(6)
    assert isinstance(outcome(answer), NotLeaderError)


def test_a_leader_that_lost_its_majority_does_not_know_what_became_of_a_proposal() -> None:
    group = Group(3)
    group.elect(1)
    group.cut.add(1)
    answer = group[1].driver.propose(b"a")
    group.run(6)
    assert isinstance(outcome(answer), OutcomeUnknownError)


def test_proposals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercache.consensus.proposals.RAFT_PROPOSALS_MAX_COUNT", 10)
    group = Group(3)
    answers = [group[1].driver.propose(b"a") for _ in range(11)]
    assert isinstance(outcome(answers[10]), BusyError)
    assert not answers[9].called


def test_a_read_waits_for_a_majority_and_for_what_it_must_see() -> None:
    group = Group(3)
    group.elect(1)
    group[1].driver.propose(b"a")
    group.run(0.0025)
    seen: list[list[bytes]] = []
    read = group[3].driver.read()
    read.addCallback(lambda _: seen.append(list(group[3].machine.notes)))
    group.run(0.3)
    assert seen == [[b"a"]]


def test_a_leader_that_is_cut_off_serves_no_read() -> None:
    group = Group(3)
    group.elect(1)
    group.cut.add(1)
    read = group[1].driver.read()
    group.run(6)
    assert isinstance(outcome(read), NotLeaderError)


def test_reads_of_one_turn_share_a_round() -> None:
    group = Group(3)
    leader = group.elect(1)
    group.run(0.05)
    leader.sent.clear()
    reads = [leader.driver.read() for _ in range(100)]
    group.run(0.01)
    assert all(read.called for read in reads)
    assert len(leader.sent) <= 4


def test_a_pause_ends_the_lease_before_a_read_is_served() -> None:
    group = Group(3, options=Options(lease_ticks=5))
    group.elect(1)
    group.run(0.5)
    read = group[1].driver.read()
    group.run(0.002)
    assert outcome(read) is None, "within its lease a leader asks nobody"
    group.cut.add(1)
    # The process stood still: its clock is far ahead of its ticks.
    group[1].driver._next_tick -= 20 * TICK_SECONDS
    late = group[1].driver.read()
    group.run(0.002)
    assert not late.called


def test_a_full_disk_makes_a_leader_step_down_and_it_comes_back() -> None:
    group = Group(3)
    leader = group.elect(1)
    group.run(0.05)
    leader.disk.error = DiskFullError("no space")
    answer = leader.driver.propose(b"a")
    group.run(0.01)
    assert leader.driver.disk_full
    assert not leader.driver.leads
    group.until(lambda: answer.called)
    assert [member.machine.notes for member in (group[2], group[3])] == [[b"a"]] * 2
    term = group.leader.driver.raft.term
    group.run(3)
    assert not leader.failures
    leader.disk.error = None
    group.until(lambda: leader.machine.notes == [b"a"])
    assert not leader.driver.disk_full
    assert group.leader.driver.raft.term == term, "a node with a full disk disturbs nobody"


@pytest.mark.parametrize("error", [StorageError("fsync failed"), OSError(5, "i/o error")])
def test_a_disk_that_failed_ends_the_node_and_nothing_it_held_is_promised(error: Exception) -> None:
    group = Group(3)
    group.elect(1)
    follower = group[2]
    group.run(0.05)
    follower.disk.error = error
    follower.sent.clear()
    group[1].driver.propose(b"a")
    group.run(0.5)
    assert follower.failures == [error]
    assert follower.driver.stopped
    assert not [out for out in follower.sent if isinstance(out.message, AppendResponse) and out.message.conflict_index > 1]


def test_a_log_that_has_grown_becomes_a_snapshot_and_a_node_that_lacks_it_is_sent_one() -> None:
    group = Group(3, options=Options(catch_up_max_bytes=1), snapshot_after=500)
    leader = group.elect(1)
    group[3].kill()
    group.cut.add(3)
    for number in range(60):
        leader.driver.propose(b"%d" % number)
        group.run(0.01)
    assert leader.disk.snapshot.index > 30
    assert leader.disk.first > 30
    group.cut.clear()
    group[3].start()
    group.until(lambda: b"".join(group[3].machine.notes) == b"".join(leader.machine.notes))
    answer = group[3].driver.propose(b"more")
    group.until(lambda: answer.called)
    assert group[3].driver.raft.log.snapshot.index > 30


def test_a_node_that_starts_again_has_its_state_and_its_sessions() -> None:
    group = Group(3, snapshot_after=300)
    leader = group.elect(1)
    for number in range(40):
        leader.driver.propose(b"%d;" % number)
        group.run(0.01)
    group.run(1)
    before = b"".join(leader.machine.notes)
    for member in group.members.values():
        member.kill()
    for member in group.members.values():
        member.start()
    group.elect(2)
    group.until(lambda: all(b"".join(member.machine.notes) == before for member in group.members.values()))
    assert all(len(member.driver.applying.sessions) for member in group.members.values())


def test_what_no_member_sends_is_refused_and_the_node_goes_on() -> None:
    group = Group(3)
    group.elect(1)
    damaged = LogEntry(1, 2, b"\xc1")
    with pytest.raises(MalformedMessageError):
        group[2].driver.step(1, AppendEntries(1, 1, 1, 1, 1, (damaged,)), 5)
    answer = group[1].driver.propose(b"a")
    group.run(0.5)
    assert outcome(answer) == b"1"
    assert not group[2].failures


def test_reads_that_are_refused_wait_for_a_tick_before_they_are_asked_again() -> None:
    group = Group(3)
    group.elect(1)
    stale = group[3]
    # Node 1 leads no more, and node 3 does not know.
    group[1].driver.raft.become_follower(2, 0)
    stale.sent.clear()
    read = stale.driver.read()
    group.run(TICK_SECONDS / 2)
    assert not read.called
    assert len([out for out in stale.sent if isinstance(out.message, ReadIndex)]) <= 2
    group.until(lambda: read.called)
    assert outcome(read) is None
