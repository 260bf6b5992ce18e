"""Random schedules with loss, disorder, doubling, slow disks and crashes that tear what was not synced: figure 3 must hold."""

from __future__ import annotations

import contextlib
import random
from itertools import combinations

import pytest

from hypercache.errors import HyperCacheError
from hypercache.raft import (
    Configuration,
    EntryType,
    HardState,
    Options,
    Outbound,
    Raft,
    Ready,
    SnapshotMeta,
    State,
    snapshot_header,
    split_stream,
)
from hypercache.wire.messages import AppendResponse, LogEntry, VoteResponse

FIRST = SnapshotMeta(configuration=Configuration((1, 2, 3)))
NODES = (1, 2, 3, 4, 5)


class Machine:
    """A core with a disk that may lag behind, and a state machine that knows how far it got."""

    def __init__(self, node_id: int, seed: random.Random, options: Options) -> None:
        self.node_id, self.seed, self.options = node_id, seed, options
        self.state, self.entries = HardState(), list[LogEntry]()
        self.snapshot = FIRST if node_id <= 3 else SnapshotMeta()
        self.streams: dict[int, bytes] = {}
        self.arriving = b""
        self.unsynced: list[Ready] = []
        self.start()

    def start(self) -> None:
        self.unsynced = []
        self.applied = self.snapshot.index
        self.reads: dict[int, int] = {}
        self.raft = Raft(
            self.node_id,
            self.options,
            self.seed,
            self,
            hard_state=self.state,
            snapshot=self.snapshot,
            entries=self.entries,
        )

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        stream = self.streams.get(index)
        if stream is None or offset > len(stream):
            return None
        return stream[offset : offset + max_bytes], offset + max_bytes >= len(stream)

    def term_of(self, index: int) -> int:
        """Return the term of an entry on the disk; that of the snapshot stands for all that it covers."""
        at = index - self.snapshot.index
        return self.entries[at - 1].term if 0 < at <= len(self.entries) else -1

    def write(self, ready: Ready, *, parts: int = 4) -> None:
        """Write the first parts of a ready; of a torn one the last part is torn too."""
        for chunk in ready.chunks:
            self.arriving = self.arriving[: chunk.offset] + chunk.data
        if ready.snapshot is not None and parts > 1:
            configuration, begin = split_stream(self.arriving)
            assert (configuration, int(self.arriving[begin:])) == (ready.snapshot.configuration, ready.snapshot.index)
            self.snapshot, self.entries = ready.snapshot, []
            self.streams = {ready.snapshot.index: self.arriving}
        if ready.hard_state is not None and parts > 2:
            self.state = ready.hard_state
        if ready.entries and parts > 3:
            count = len(ready.entries) if parts > 4 else self.seed.randrange(len(ready.entries)) + 1
            self.entries[ready.first_index - self.snapshot.index - 1 :] = ready.entries[:count]

    def sync(self) -> None:
        ready = self.unsynced.pop(0)
        self.write(ready, parts=5)
        if ready.snapshot is not None:
            self.applied = max(self.applied, ready.snapshot.index)
        self.raft.advance(ready)

    def crash(self) -> None:
        """Lose what is not durable: of the rest a beginning reached the disk, torn at any place."""
        survived = self.seed.randrange(len(self.unsynced) + 1)
        for ready in self.unsynced[:survived]:
            self.write(ready, parts=5)
        if survived < len(self.unsynced):
            self.write(self.unsynced[survived], parts=self.seed.randrange(5))
        self.start()

    def compact(self) -> None:
        index = min(self.applied, self.raft.log.applied)
        if index <= self.snapshot.index or self.unsynced:
            return
        log = self.raft.log
        meta = SnapshotMeta(index, log.term_of(index), log.configuration_at(index))
        stream = snapshot_header(meta.configuration) + b"%02000d" % index
        kept = {at: each for at, each in self.streams.items() if self.seed.random() < 0.5}
        self.streams = {**kept, index: stream}
        self.entries = self.entries[index - self.snapshot.index :]
        self.snapshot = meta
        self.raft.compact(index, self.seed.choice((0, 0, 3)))


class Schedule:
    """A run of one seed, and what must hold meanwhile.

    Args:
        number: the seed.
        careful: what liveness needs and safety does not: only who is level becomes a voter, for who has no log gives no vote; and
            pre-votes and quorum checks, without which who is removed may disturb for ever.
    """

    def __init__(self, number: int, *, careful: bool = False) -> None:
        self.careful = careful
        self.seed = seed = random.Random(number)
        options = Options(
            election_ticks=5,
            inflight_max_count=seed.choice((1, 4)),
            append_max_bytes=100,
            chunk_bytes=1024,
            pre_vote=seed.random() < 0.7 or careful,
            check_quorum=seed.random() < 0.7 or careful,
            catch_up_max_bytes=seed.choice((1, 1000)),
        )
        self.nodes = {node_id: Machine(node_id, seed, options) for node_id in NODES}
        self.network: list[tuple[int, Outbound]] = []
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.applied: dict[int, LogEntry] = {}
        self.island: set[int] = set()
        self.snapshots = 0
        self.served = 0
        self.loss = seed.choice((0.0, 0.1, 0.3))
        self.disorder = seed.choice((1, 4, 20))

    def run(self, steps: int) -> int:
        for step in range(steps):
            node = self.act(step)
            while node.raft.has_ready:
                self.work(node)
            self.check_leader(node)
            del self.network[: max(0, len(self.network) - 60)]
            if step % 500 == 0:
                self.check_logs()
        return sum(entry.type == EntryType.DATA for entry in self.applied.values())

    def act(self, step: int) -> Machine:
        seed = self.seed
        node = self.nodes[seed.choice(NODES)]
        action = seed.random()
        if action < 0.002:
            self.island = set(seed.sample(NODES, seed.choice((0, 0, 1, 2))))
        elif action < 0.08:
            node.raft.tick()
        elif action < 0.083:
            node.crash()
        elif action < 0.13:
            with contextlib.suppress(HyperCacheError):
                self.ask(node, step)
        elif action < 0.25 and node.unsynced:
            node.sync()
        elif self.network:
            at = seed.randrange(min(len(self.network), self.disorder))
            sender, outbound = self.network[at]
            if seed.random() > 0.02:
                del self.network[at]
            node = self.nodes[outbound.to]
            if seed.random() >= self.loss and (sender in self.island) == (outbound.to in self.island):
                node.raft.step(sender, outbound.message, outbound.exchange)
        return node

    def ask(self, node: Machine, step: int) -> None:
        seed = self.seed
        what = seed.random()
        if what < 0.08:
            members = seed.sample(NODES, seed.choice((3, 4, 5)))
            voters = members[: seed.choice((2, 3, 3, 3))]
            if self.careful:
                level = {peer for peer, progress in node.raft.progress.items() if progress.match >= node.raft.commit}
                voters = [each for each in voters if each in level.union(node.raft.configuration.voters)] or [node.node_id]
            node.raft.propose_configuration(voters, set(members).difference(voters), auto_leave=seed.random() < 0.9)
        elif what < 0.1:
            node.raft.leave_joint()
        elif what < 0.13:
            node.raft.transfer_leadership(seed.choice(NODES))
        elif what < 0.16:
            node.raft.lost(seed.choice(NODES))
        elif what < 0.3:
            node.compact()
        elif what < 0.45:
            # What anybody applied before the read began, the read must see.
            node.reads[step] = max(self.applied, default=0)
            node.raft.read_index(step)
        else:
            node.raft.propose(b"%d" % step)

    def work(self, node: Machine) -> None:
        ready = node.raft.ready()
        for outbound in ready.messages:
            self.check_promise(node, outbound)
            self.network.append((node.node_id, outbound))
        for index, entry in enumerate(ready.committed, ready.committed_index):
            assert self.applied.setdefault(index, entry) == entry, "state machine safety"
            assert node.term_of(index) == entry.term, "applied before it was durable"
            assert index == node.applied + 1, "applied out of order"
            node.applied = index
        for read in ready.reads:
            if read.index:
                assert read.index >= node.reads.get(read.context, 0), "a stale read"
                self.served += 1
        self.snapshots += ready.snapshot is not None
        if ready.must_sync:
            node.unsynced.append(ready)
        elif ready.hard_state is not None and not node.unsynced:
            node.state = ready.hard_state

    def check_promise(self, node: Machine, outbound: Outbound) -> None:
        message = outbound.message
        if isinstance(message, VoteResponse) and message.vote_granted:
            assert (node.state.term, node.state.vote) >= (message.term, 0), "a vote left before its fsync"
            assert self.votes.setdefault((node.node_id, message.term), outbound.to) == outbound.to, "two votes in a term"
        elif isinstance(message, AppendResponse) and message.success and message.term == node.raft.term:
            assert node.state.term == message.term, "a success left before its term's fsync"
            if message.conflict_index > node.snapshot.index:
                assert node.term_of(message.conflict_index) == message.conflict_term, "a success left before its fsync"

    def check_leader(self, node: Machine) -> None:
        raft = node.raft
        if raft.state is not State.LEADER:
            return
        known = raft.term in self.leaders
        assert self.leaders.setdefault(raft.term, node.node_id) == node.node_id, "election safety"
        if not known and raft.term == max(self.leaders):
            for index, entry in self.applied.items():
                if index >= raft.log.first_index:
                    assert raft.log.entries(index, index) == [entry], "leader completeness"
            assert raft.log.last_index >= max(self.applied, default=0), "leader completeness"

    def check_logs(self) -> None:
        """Log matching (figure 3): two logs that agree at an index agree up to it."""
        for one, other in combinations([node.raft.log for node in self.nodes.values()], 2):
            first, last = max(one.first_index, other.first_index), min(one.last_index, other.last_index)
            same = [one.term_of(index) == other.term_of(index) for index in range(first, last + 1)]
            agreed = max((at for at, equal in enumerate(same) if equal), default=-1)
            assert all(same[: agreed + 1]), "log matching"
            assert one.entries(first, first + agreed) == other.entries(first, first + agreed), "log matching"


@pytest.mark.parametrize("number", range(60))
def test_safety_holds_on_a_random_schedule(number: int) -> None:
    Schedule(number).run(6000)


def test_random_schedules_get_something_done() -> None:
    schedules = [Schedule(number) for number in range(8)]
    assert sum(schedule.run(6000) for schedule in schedules) > 40
    assert sum(schedule.snapshots for schedule in schedules) > 3
    assert sum(schedule.served for schedule in schedules) > 10


@pytest.mark.parametrize("number", range(100, 120))
def test_a_group_recovers_once_the_network_does(number: int) -> None:
    """Liveness: after any schedule, with all nodes up and nothing lost, a leader is there soon, and proposals commit."""
    schedule = Schedule(number, careful=True)
    schedule.run(3000)
    schedule.loss, schedule.disorder = 0.0, 1
    schedule.island.clear()
    schedule.network.clear()
    nodes = schedule.nodes.values()

    def settle() -> None:
        for _ in range(10_000):
            for node in nodes:
                while node.raft.has_ready or node.unsynced:
                    if node.raft.has_ready:
                        schedule.work(node)
                    while node.unsynced:
                        node.sync()
            if not schedule.network:
                return
            sender, outbound = schedule.network.pop(0)
            schedule.nodes[outbound.to].raft.step(sender, outbound.message, outbound.exchange)
        raise AssertionError("the group does not come to rest")

    for _ in range(60):
        for node in nodes:
            node.raft.tick()
            settle()
    leading = [node for node in nodes if node.raft.state is State.LEADER]
    leader = max(leading, key=lambda node: node.raft.term)
    index = leader.raft.propose(b"done")
    settle()
    for node in nodes:
        node.raft.tick()
        settle()
    assert leader.raft.commit >= index
    behind = [node.node_id for node in nodes if node.node_id in leader.raft.configuration.members() and node.applied < index]
    assert behind == []
    served = schedule.served
    leader.raft.read_index(-1 % 2**64)
    settle()
    assert schedule.served == served + 1
