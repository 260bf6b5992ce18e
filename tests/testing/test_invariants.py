"""Each promise, broken once: the invariants say so, and are silent about the same without the fault."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from hypercache.raft import Configuration, EntryType, HardState, Options, Outbound, Raft, Ready, SnapshotMeta
from hypercache.raft.snapshot import HAVE_ALL
from hypercache.testing.invariants import InvariantError, Invariants
from hypercache.wire.messages import AppendResponse, InstallSnapshot, LogEntry, SnapshotResponse, VoteRequest, VoteResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypercache.wire.schema import Message

THREE = Configuration((1, 2, 3))


def entries(*terms: int) -> list[LogEntry]:
    return [LogEntry(term, EntryType.DATA, b"") for term in terms]


class Node:
    """A core whose fields a test sets as it likes."""

    def __init__(self, node_id: int, terms: Sequence[int], term: int, snapshot: SnapshotMeta) -> None:
        self.id = node_id
        self.applied = self.digest = snapshot.index
        self.synced = True
        self.raft = Raft(
            node_id, Options(), random.Random(1), hard_state=HardState(term), snapshot=snapshot, entries=entries(*terms)
        )


class Group:
    def __init__(self, *logs: Sequence[int], term: int = 5, configuration: Configuration = THREE) -> None:
        self.invariants = Invariants(configuration)
        self.configuration = configuration
        self.term = term
        self.nodes: dict[int, Node] = {}
        for node_id, terms in enumerate(logs, 1):
            self.start(node_id, terms)

    def start(self, node_id: int, terms: Sequence[int] = (), term: int | None = None, snapshot: SnapshotMeta | None = None) -> Node:
        snapshot = snapshot or SnapshotMeta(configuration=self.configuration)
        node = self.nodes[node_id] = Node(node_id, terms, self.term if term is None else term, snapshot)
        self.invariants.started(node, HardState(self.term if term is None else term), snapshot, entries(*terms))
        return node

    def write(self, node_id: int, first: int = 0, terms: Sequence[int] = (), state: HardState | None = None) -> None:
        ready = Ready(1, state, first_index=first, entries=tuple(entries(*terms)))
        self.invariants.writing(node_id, [ready])
        self.invariants.written(node_id, [ready])

    def commit(self, node_id: int, index: int) -> None:
        self.nodes[node_id].raft.log.committed = index
        self.check(node_id)

    def check(self, node_id: int) -> None:
        self.invariants.check(self.nodes[node_id])

    def lead(self, node_id: int, term: int) -> None:
        raft = self.nodes[node_id].raft
        raft.term = term
        raft.become_leader()
        self.check(node_id)

    def say(self, node_id: int, to: int, message: Message) -> None:
        self.invariants.sent(node_id, Outbound(to, message, 7, True))


def broken(text: str, action: Callable[[], object]) -> None:
    with pytest.raises(InvariantError, match=text):
        action()


def test_one_leader_a_term() -> None:
    group = Group([], [], [])
    group.lead(1, 6)
    group.lead(2, 7)
    broken("election safety: nodes 1 and 3", lambda: group.lead(3, 6))
    assert group.invariants.violation is not None


def test_a_vote_is_durable_before_it_leaves() -> None:
    group = Group([], [], [])
    broken("votes for 2 in term 6 before", lambda: group.say(1, 2, VoteResponse(6, True)))
    broken("votes for 1 in term 6 before", lambda: group.say(1, 2, VoteRequest(6, 1, 0, 0)))
    group.say(1, 2, VoteResponse(6, False))
    group.write(1, state=HardState(6, 2))
    group.say(1, 2, VoteResponse(6, True))


def test_a_vote_that_is_written_but_not_synced_is_none() -> None:
    group = Group([], [], [])
    group.nodes[1].synced = False
    group.write(1, state=HardState(6, 2))
    broken("before its disk has it", lambda: group.say(1, 2, VoteResponse(6, True)))
    group.nodes[1].synced = True
    group.write(1)
    group.say(1, 2, VoteResponse(6, True))


def test_one_vote_a_term_over_restarts() -> None:
    group = Group([], [], [])
    group.write(1, state=HardState(6, 2))
    group.say(1, 2, VoteResponse(6, True))
    group.invariants.ended(1)
    broken("forgot its vote", lambda: group.start(1, term=6))
    group = Group([], [], [])
    group.write(1, state=HardState(6, 2))
    group.say(1, 2, VoteResponse(6, True))
    group.write(1, state=HardState(6, 3))
    broken("after it voted for another", lambda: group.say(1, 3, VoteResponse(6, True)))


def test_a_node_with_a_new_disk_is_somebody_new() -> None:
    group = Group([1], [1], [1])
    group.write(1, state=HardState(6, 2))
    group.say(1, 2, VoteResponse(6, True))
    group.invariants.ended(1)
    group.invariants.emptied(1)
    group.start(1, term=0)
    group.write(1, state=HardState(6, 3))
    group.say(1, 3, VoteResponse(6, True))


def test_a_success_is_durable_before_it_leaves() -> None:
    group = Group([], [], [])
    broken("entry 1 of term 5 before", lambda: group.say(1, 2, AppendResponse(5, True, 1, 5)))
    group.say(1, 2, AppendResponse(5, False, 1, 5))
    group.write(1, 1, [5])
    group.say(1, 2, AppendResponse(5, True, 1, 5))
    broken("before its disk has it", lambda: group.say(1, 2, AppendResponse(6, True, 1, 5)))
    broken("before its disk has it", lambda: group.say(1, 2, AppendResponse(5, True, 1, 4)))


def test_a_snapshot_is_durable_before_it_is_confirmed() -> None:
    group = Group([], [], [])
    offer = InstallSnapshot(5, 2, 9, 4, 0, True, b"")
    group.invariants.offered(1, 2, Outbound(1, offer, 7, False))
    broken("snapshot of entry 9 before", lambda: group.say(1, 2, SnapshotResponse(5, True, HAVE_ALL)))
    group.say(1, 2, SnapshotResponse(5, True, 100))
    ready = Ready(1, snapshot=SnapshotMeta(9, 4, THREE))
    group.invariants.writing(1, [ready])
    group.invariants.written(1, [ready])
    group.say(1, 2, SnapshotResponse(5, True, HAVE_ALL))


def test_logs_that_hold_an_entry_are_the_same_up_to_it() -> None:
    group = Group([], [], [])
    group.write(1, 1, [1, 2])
    group.write(2, 1, [1, 2])
    broken("log matching: entry 2 of term 2 follows term 3", lambda: group.write(3, 1, [3, 2]))
    other = Ready(1, first_index=1, entries=(LogEntry(1, EntryType.DATA, b"other"),))
    broken("log matching: entry 1 of term 1 is", lambda: group.invariants.writing(3, [other]))


def test_what_is_committed_is_on_a_majoritys_disks() -> None:
    group = Group([5, 5], [5], [])
    group.commit(1, 1)
    broken(r"which only \[1\] have durably", lambda: group.commit(1, 2))


def test_what_is_committed_needs_both_majorities_of_a_joint_configuration() -> None:
    joint = Configuration((1, 2, 3), (3, 4, 5))
    group = Group([5], [5], [], [], [], configuration=joint)
    broken(r"which only \[1, 2\] have durably", lambda: group.commit(1, 1))
    group = Group([5], [5], [5], [5], [], configuration=joint)
    group.commit(1, 1)


def test_learners_do_not_count() -> None:
    group = Group([5], [], [], [5], configuration=Configuration((1, 2, 3), learners=(4,)))
    broken(r"which only \[1, 4\] have durably", lambda: group.commit(1, 1))


def test_nobody_can_be_elected_without_what_is_committed() -> None:
    """Figure 8 of the Raft paper: a majority has entry 2 of term 2, and node 5 with one of term 3 still wins."""
    five = Configuration((1, 2, 3, 4, 5))
    group = Group([1, 2, 4], [1, 2], [1, 2], [1], [1, 3], configuration=five)
    broken("5, which lacks it, can still be elected", lambda: group.commit(1, 2))
    group = Group([1, 2, 4], [1, 2, 4], [1, 2, 4], [1], [1, 3], configuration=five)
    group.commit(1, 3)


def test_two_nodes_commit_the_same() -> None:
    group = Group([5], [5], [4])
    group.commit(1, 1)
    broken("commits term 4 at 1, where term 5 was committed", lambda: group.commit(3, 1))


def test_entries_are_committed_in_order() -> None:
    group = Group([5, 5], [5, 5], [])
    group.nodes[1].raft.log._offset = 1
    broken("before its predecessors were", lambda: group.commit(1, 2))


def test_the_commit_index_never_falls() -> None:
    group = Group([5, 5], [5, 5], [])
    group.commit(1, 2)
    broken("commit index falls from 2 to 1", lambda: group.commit(1, 1))


def test_the_term_never_falls() -> None:
    group = Group([], [], [])
    group.lead(1, 6)
    group.nodes[1].raft.term = 5
    broken("term falls from 6 to 5", lambda: group.check(1))


def test_a_leader_has_what_was_committed_before() -> None:
    group = Group([5], [5], [])
    group.commit(1, 1)
    broken("leader completeness: node 3 leads term 6 without entry 1", lambda: group.lead(3, 6))
    group = Group([5], [5], [])
    group.commit(1, 1)
    group.lead(2, 6)


def test_a_leader_of_an_earlier_term_that_hears_of_its_votes_late_may_lack_it() -> None:
    group = Group([5], [5], [])
    group.commit(1, 1)
    group.lead(3, 4)


def test_what_was_durable_is_found_again() -> None:
    group = Group([4, 5], [], [])
    group.write(1, 3, [5])
    group.invariants.ended(1)
    broken("lost entry 3: it had term 5 durably, and found -2", lambda: group.start(1, [4, 5]))


def test_what_was_being_replaced_may_be_there_or_not() -> None:
    for found in ([4, 5], [4, 6], [4]):
        group = Group([4, 5], [], [])
        group.invariants.writing(1, [Ready(1, first_index=2, entries=tuple(entries(6)))])
        group.invariants.ended(1)
        group.start(1, found)
    group = Group([4, 5], [], [])
    group.invariants.writing(1, [Ready(1, first_index=2, entries=tuple(entries(6)))])
    group.invariants.ended(1)
    broken("lost entry 1", lambda: group.start(1, []))


def test_what_a_full_disk_refused_counts_for_nothing() -> None:
    group = Group([4, 5], [], [])
    refused = [Ready(1, first_index=2, entries=tuple(entries(6)))]
    group.invariants.writing(1, refused)
    group.invariants.unwritten(1, refused)
    group.invariants.ended(1)
    broken("lost entry 2", lambda: group.start(1, [4]))


def test_a_snapshot_is_found_again() -> None:
    group = Group([], [], [])
    snapshot = SnapshotMeta(3, 2, THREE)
    group.invariants.committed += [2, 2, 2]
    group.invariants._committed_in += [2, 2, 2]
    ready = [Ready(1, snapshot=snapshot)]
    group.invariants.writing(1, ready)
    group.invariants.written(1, ready)
    group.invariants.ended(1)
    group.start(1, snapshot=snapshot)
    group.invariants.ended(1)
    broken("lost its snapshot", lambda: group.start(1))


def test_a_snapshot_stands_for_what_was_committed_and_has_its_configuration() -> None:
    group = Group([5], [5], [])
    group.commit(1, 1)
    raft = group.nodes[1].raft
    for snapshot, text in (
        (SnapshotMeta(1, 4, THREE), "never committed so"),
        (SnapshotMeta(2, 5, THREE), "never committed so"),
        (SnapshotMeta(1, 5, Configuration((1,))), "says Configuration"),
        (SnapshotMeta(1, 5), "says Configuration"),
    ):
        raft.log.snapshot = snapshot
        broken(text, lambda: group.check(1))
    raft.log.snapshot = SnapshotMeta(1, 5, THREE)
    group.check(1)


def test_a_proposal_is_prepared_once_and_before_it_is_applied() -> None:
    group = Group([5], [5], [])
    group.invariants.prepared(1, 8, already=False)
    broken("which is prepared", lambda: group.invariants.prepared(1, 8, already=True))
    broken("no leader prepared", lambda: group.invariants.applied(1, 1, 8, prepared=False))


def test_a_proposal_is_applied_at_one_place() -> None:
    group = Group([5, 5], [5, 5], [])
    group.invariants.applied(1, 1, 8, prepared=True)
    group.invariants.applied(2, 1, 8, prepared=True)
    broken("proposal 8 is applied twice: at 1, and by node 2 at 2", lambda: group.invariants.applied(2, 2, 8, prepared=True))


def test_what_was_refused_is_not_applied() -> None:
    group = Group([5], [5], [])
    group.invariants.refused(8)
    broken("which was refused", lambda: group.invariants.applied(1, 1, 8, prepared=True))
    group.invariants.applied(1, 1, 9, prepared=True)
    broken("is refused, and was applied", lambda: group.invariants.refused(9))


class Applying(Group):
    def __init__(self) -> None:
        super().__init__([5, 5], [5, 5], [5])
        for node in (1, 2):
            self.nodes[node].raft.log.committed = 2
            self.check(node)

    def apply(self, node: int, applied: int, *numbers: int, digest: int = 0) -> None:
        for index, number in enumerate(numbers, applied - len(numbers) + 1):
            self.invariants.applied(node, index, number, prepared=True)
        self.nodes[node].applied, self.nodes[node].digest = applied, digest
        self.check(node)


def test_all_apply_the_same_at_the_same_place() -> None:
    group = Applying()
    group.apply(1, 2, 8, 9)
    broken("state machine safety: node 2 applies proposal 7 at 1", lambda: group.apply(2, 1, 7))


def test_nobody_leaves_a_proposal_out() -> None:
    group = Applying()
    group.apply(1, 2, 8, 9)
    broken("state machine safety: node 2 applies proposal 0 at 1", lambda: group.apply(2, 2, 9))


def test_a_proposal_is_not_applied_ahead_of_its_turn() -> None:
    group = Applying()
    group.invariants.applied(1, 2, 9, prepared=True)
    broken("out of turn", lambda: group.apply(1, 1, 8))


def test_equal_places_have_equal_states() -> None:
    group = Applying()
    group.apply(1, 2, 8, 9, digest=17)
    broken("state as of 2 is not that of others", lambda: group.apply(2, 2, 8, 9, digest=18))


def test_a_snapshot_brings_the_state_of_its_index() -> None:
    group = Applying()
    group.apply(1, 2, 8, 9, digest=17)
    group.invariants.adopted(2)
    broken("state as of 2 is not that of others", lambda: group.apply(2, 2, digest=18))
    group.invariants.adopted(2)
    group.apply(2, 2, digest=17)


def test_nothing_is_applied_before_it_is_committed_and_on_the_own_disk() -> None:
    group = Applying()
    broken("has applied up to 3, but committed only up to 2", lambda: group.apply(1, 3, 8, 9, 10))
    group = Applying()
    group.nodes[3].raft.log.append(entries(5))
    group.nodes[3].raft.log.committed = 2
    group.check(3)
    broken("which its disk does not have", lambda: group.apply(3, 2, 8, 9))


def test_what_was_applied_stays_applied() -> None:
    group = Applying()
    group.apply(1, 2, 8, 9)
    broken("applied 2, and then 1", lambda: group.apply(1, 1))
