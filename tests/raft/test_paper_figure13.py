"""Figure 13 of the Raft paper (InstallSnapshot), and log compaction (section 7; dissertation, chapter 5)."""

from __future__ import annotations

import pytest

from hypercache.errors import MalformedMessageError, RaftError
from hypercache.raft import Configuration, Options, ProgressState, SnapshotMeta, snapshot_header, split_stream
from hypercache.raft.snapshot import HAVE_ALL
from hypercache.wire.messages import AppendEntries, AppendResponse, InstallSnapshot, SnapshotResponse
from tests.raft.group import Group, Node

THREE = Configuration((1, 2, 3))
STREAM = snapshot_header(THREE) + b"0123456789" * 10


def chunk(offset: int, end: int, *, term: int = 3, index: int = 7, last_term: int = 2) -> InstallSnapshot:
    return InstallSnapshot(term, 1, index, last_term, offset, end >= len(STREAM), STREAM[offset:end])


def answer(node: Node, message: InstallSnapshot) -> SnapshotResponse:
    node.raft.step(1, message, 1)
    (sent,) = node.messages()
    assert isinstance(sent, SnapshotResponse)
    return sent


def test_rule_1_an_older_term_is_answered_at_once() -> None:
    """Rule 1: "Reply immediately if term < currentTerm"."""
    node = Node(2, THREE, term=4)
    assert answer(node, chunk(0, 50)) == SnapshotResponse(4, False, 0)
    assert not node.chunks


def test_rules_2_to_4_chunks_are_written_at_their_offset_and_more_awaited() -> None:
    """Rules 2 to 4: a new file at offset 0, data at its offset, "reply and wait for more data chunks if done is false"."""
    node = Node(2, THREE)
    assert answer(node, chunk(0, 50)) == SnapshotResponse(3, True, 50)
    assert answer(node, chunk(50, 90)) == SnapshotResponse(3, True, 90)
    assert [(each.offset, each.data, each.done) for each in node.chunks] == [
        (0, STREAM[:50], False),
        (50, STREAM[50:90], False),
    ]
    assert node.raft.log.snapshot.index == 0


def test_rules_5_and_7_a_whole_snapshot_replaces_the_log() -> None:
    """Rules 5 and 7: "save snapshot file, discard any existing snapshot with a smaller index; discard the entire log"."""
    node = Node(2, Configuration((2, 3)), terms=[1, 1])
    answer(node, chunk(0, 60))
    assert answer(node, chunk(60, len(STREAM))) == SnapshotResponse(3, True, HAVE_ALL)
    log = node.raft.log
    assert (log.snapshot, log.last_index, log.last_term, node.raft.commit) == (SnapshotMeta(7, 2, THREE), 7, 2, 7)
    assert node.persisted[-1].snapshot == SnapshotMeta(7, 2, THREE)


def test_rule_6_a_log_that_has_the_snapshots_last_entry_is_kept() -> None:
    """Rule 6: "If existing log entry has same index and term ..., retain log entries following it and reply"."""
    node = Node(2, THREE, terms=[1, 1, 1, 2, 2, 2, 2, 3])
    assert answer(node, chunk(0, 50)) == SnapshotResponse(3, True, HAVE_ALL)
    assert (node.raft.log.last_index, node.raft.commit) == (8, 7)
    assert not node.chunks


def test_rule_8_the_configuration_of_the_snapshot_is_used() -> None:
    """Rule 8: "Reset state machine using snapshot contents (and load snapshot's cluster configuration)"."""
    node = Node(2, Configuration((2, 9)))
    answer(node, chunk(0, len(STREAM)))
    assert node.raft.configuration == THREE


def test_a_success_leaves_only_after_the_chunk_is_durable() -> None:
    """Figure 2, persistent state: it holds for snapshots as for entries."""
    raft = Node(2, THREE).raft
    raft.step(1, chunk(0, len(STREAM)), 5)
    ready = raft.ready()
    assert ready.must_sync
    assert not ready.messages
    assert not ready.committed
    raft.advance(ready)
    assert [outbound.message for outbound in raft.ready().messages] == [SnapshotResponse(3, True, HAVE_ALL)]


def test_a_chunk_out_of_place_is_answered_with_the_place_that_is_wanted() -> None:
    """wire.md, section 4: next_offset lets a transfer be resumed; a doubled chunk is not written twice."""
    node = Node(2, THREE)
    assert answer(node, chunk(50, 90)) == SnapshotResponse(3, False, 0)
    assert answer(node, chunk(0, 50)) == SnapshotResponse(3, True, 50)
    assert answer(node, chunk(0, 50)) == SnapshotResponse(3, False, 50)
    assert answer(node, chunk(60, 90)) == SnapshotResponse(3, False, 50)
    assert len(node.chunks) == 1


def test_chunks_of_two_snapshots_are_never_mixed() -> None:
    """Figure 13: what a chunk belongs to is its leader's snapshot: another index, term or leader begins anew."""
    node = Node(2, THREE)
    answer(node, chunk(0, 50))
    assert answer(node, chunk(50, 90, index=8)) == SnapshotResponse(3, False, 0)
    assert answer(node, chunk(0, 50, index=8)) == SnapshotResponse(3, True, 50)
    assert answer(node, chunk(50, 90, index=8, term=4)) == SnapshotResponse(4, False, 0)


def test_a_snapshot_behind_the_commit_index_is_not_needed() -> None:
    """Section 7: "the follower ... the snapshot ... describes a prefix of its log": nothing is rolled back."""
    node = Node(2, THREE, terms=[2] * 9, commit=8)
    assert answer(node, chunk(0, 50)) == SnapshotResponse(3, True, HAVE_ALL)
    assert node.raft.log.last_index == 9


def test_a_stream_without_a_sound_header_is_refused() -> None:
    node = Node(2, THREE)
    assert answer(node, InstallSnapshot(3, 1, 7, 2, 0, True, b"\0\0\0\x05ab")) == SnapshotResponse(3, False, 0)
    assert not node.chunks
    with pytest.raises(MalformedMessageError):
        split_stream(b"\0")
    assert split_stream(STREAM) == (THREE, len(STREAM) - 100)


def behind(options: Options | None = None) -> Group:
    """Return a group whose leader 1 has compacted what node 3 lacks."""
    group = Group.of(3, options or Options(chunk_bytes=1024))
    leader = group.elect(1)
    group.cut(3)
    for number in range(10):
        leader.raft.propose(b"%d" % number)
    group.settle()
    leader.snapshot(leader.raft.commit, bytes(5000))
    group.heal()
    return group


def test_a_follower_that_needs_what_is_compacted_is_sent_the_snapshot_in_chunks() -> None:
    """Section 7: "the leader must occasionally send snapshots to followers that lag behind"; then the log goes on."""
    group = behind()
    group.raft(1).propose(b"later")
    group.tick(2, 1)
    assert [each.offset for each in group[3].chunks] == [0, 1024, 2048, 3072, 4096]
    assert group.raft(3).log.snapshot.index == 11
    assert group[3].data == [b"later"]
    assert group.raft(1).progress[3].state is ProgressState.REPLICATE
    assert group.raft(1).progress[3].match == 12


def test_one_chunk_is_on_its_way_at_a_time() -> None:
    """Bounded memory on both sides: a follower is never sent a chunk before it has answered the one before."""
    group = behind()
    group.tick(1, 1)
    order = [
        type(outbound.message).__name__
        for sender, outbound in sorted(
            ((1, each) for each in group[1].sent if each.to == 3 and isinstance(each.message, InstallSnapshot)),
            key=lambda item: item[1].exchange,
        )
    ]
    assert len(order) == 5


def test_a_lost_chunk_is_sent_again_from_where_the_follower_stands() -> None:
    """wire.md, section 4: resume; meanwhile the follower hears that the leader lives."""
    group = behind()
    lost: list[InstallSnapshot] = []

    def lose(sender: int, outbound: object) -> bool:
        message = getattr(outbound, "message", None)
        if isinstance(message, InstallSnapshot) and message.offset == 2048 and not lost:
            lost.append(message)
            return True
        return False

    group.lost = lose
    group.tick(3, 1)
    assert lost
    assert group.raft(3).log.snapshot.index == 0
    assert group.raft(3).leader == 1
    group.tick(12, 1)
    assert group.raft(3).log.snapshot.index == 11
    assert [each.offset for each in group[3].chunks] == [0, 1024, 2048, 3072, 4096]


def test_a_newer_snapshot_takes_the_place_of_the_one_on_its_way() -> None:
    """Section 7: the leader goes on to compact; a transfer of what is gone begins anew."""
    group = behind()
    group.lost = lambda sender, outbound: isinstance(outbound.message, InstallSnapshot) and outbound.message.offset >= 1024
    group.tick(1, 1)
    group.raft(1).propose(b"more")
    group.settle()
    group[1].snapshot(12, bytes(3000))
    group.heal()
    group.tick(15, 1)
    assert group.raft(3).log.snapshot.index == 12
    assert group.raft(3).commit == group.raft(1).commit


def test_a_follower_that_lacks_little_is_served_from_kept_entries() -> None:
    """Section 7, last paragraphs: snapshots are the exception; entries before the snapshot can be kept for slow followers."""
    group = Group.of(3, Options())
    leader = group.elect(1)
    group.cut(3)
    for number in range(10):
        leader.raft.propose(b"%d" % number)
    group.settle()
    leader.snapshot(11, keep=10)
    group.heal()
    group.tick(2, 1)
    assert not group[3].chunks
    assert group.raft(3).commit == 11


def test_only_what_is_applied_can_be_compacted() -> None:
    """Section 7: "the snapshot ... covers just the committed entries"."""
    node = Node(2, THREE, terms=[1, 1, 1], commit=2)
    node.work()
    with pytest.raises(RaftError):
        node.raft.compact(3)
    node.raft.compact(2)
    log = node.raft.log
    assert (log.first_index, log.last_index, log.term_of(2), log.term_of(1)) == (3, 3, 1, -1)
    node.raft.compact(1)
    assert log.snapshot.index == 2


def test_appends_that_reach_behind_the_compaction_are_understood() -> None:
    """Section 7: an AppendEntries on its way from before: what is compacted is committed, and so equal."""
    node = Node(2, THREE, terms=[1, 1, 1], commit=3)
    node.work()
    node.raft.compact(2)
    entries = Node(1, THREE, terms=[1, 1, 1, 1]).raft.log.entries(1, 4)
    node.raft.step(1, AppendEntries(1, 1, 0, 0, 4, tuple(entries)))
    assert node.messages() == [AppendResponse(1, True, 4, 1)]
    assert (node.raft.log.last_index, node.raft.commit) == (4, 4)
