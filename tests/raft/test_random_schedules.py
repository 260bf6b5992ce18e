"""Random schedules with loss, disorder, doubling and crashes that lose what was not synced; the paper's figure 3 must hold."""

from __future__ import annotations

import contextlib
import random

import pytest

from hypercache.errors import BusyError, ConfigurationChangeError, NotLeaderError
from hypercache.raft import Configuration, EntryType, HardState, Options, Outbound, Raft, Ready, SnapshotMeta, State
from hypercache.wire.messages import LogEntry, VoteResponse

FIRST = SnapshotMeta(configuration=Configuration((1, 2, 3)))


class Machine:
    """A core with a disk that may lag behind."""

    def __init__(self, node_id: int, seed: random.Random) -> None:
        self.node_id, self.seed = node_id, seed
        self.state, self.entries = HardState(), list[LogEntry]()
        self.start()

    def start(self) -> None:
        self.unsynced: list[Ready] = []
        snapshot = FIRST if self.node_id <= 3 else SnapshotMeta()
        options = Options(election_ticks=5, inflight_max_count=4, append_max_bytes=100)
        self.raft = Raft(self.node_id, options, self.seed, hard_state=self.state, snapshot=snapshot, entries=self.entries)

    def sync(self) -> None:
        ready = self.unsynced.pop(0)
        self.state = ready.hard_state or self.state
        if ready.entries:
            self.entries[ready.first_index - 1 :] = ready.entries
        self.raft.advance(ready)


def run(number: int, steps: int) -> int:
    seed = random.Random(number)
    nodes = {node_id: Machine(node_id, seed) for node_id in range(1, 6)}
    network: list[tuple[int, Outbound]] = []
    leaders: dict[int, int] = {}
    votes: dict[tuple[int, int], int] = {}
    applied: dict[int, LogEntry] = {}
    loss = seed.choice((0.0, 0.1, 0.3))
    for step in range(steps):
        node = nodes[seed.choice((1, 2, 3, 4, 5))]
        raft = node.raft
        action = seed.random()
        if action < 0.08:
            raft.tick()
        elif action < 0.083:
            node.start()
        elif action < 0.1:
            with contextlib.suppress(NotLeaderError, BusyError, ConfigurationChangeError):
                if seed.random() < 0.1:
                    members = sorted(seed.sample(range(1, 6), seed.choice((3, 4, 5))))
                    raft.propose_configuration(members, [])
                else:
                    raft.propose(b"%d" % step)
        elif action < 0.2 and node.unsynced:
            node.sync()
        elif network:
            at = seed.randrange(min(len(network), 4))
            sender, outbound = network[at]
            if seed.random() > 0.02:
                del network[at]
            node = nodes[outbound.to]
            if seed.random() >= loss:
                node.raft.step(sender, outbound.message, outbound.exchange)
        raft = node.raft
        if raft.has_ready:
            ready = raft.ready()
            for outbound in ready.messages:
                message = outbound.message
                if isinstance(message, VoteResponse) and message.vote_granted:
                    assert (node.state.term, node.state.vote) >= (message.term, 0), "a vote left before its fsync"
                    assert votes.setdefault((node.node_id, message.term), outbound.to) == outbound.to, "two votes in a term"
                network.append((node.node_id, outbound))
            for index, entry in enumerate(ready.committed, ready.committed_index):
                assert applied.setdefault(index, entry) == entry, "state machine safety"
                assert node.entries[index - 1] == entry, "applied before it was durable"
            if ready.must_sync:
                node.unsynced.append(ready)
        if raft.state is State.LEADER and leaders.setdefault(raft.term, node.node_id) != node.node_id:
            raise AssertionError("election safety")
        if raft.state is State.LEADER and raft.log.last_index == raft.log.handed and applied:
            top = min(max(applied), raft.log.last_index)
            assert raft.term < max(leaders) or raft.log.entries(top, top) == [applied[top]], "leader completeness"
        del network[: max(0, len(network) - 60)]
    return sum(entry.type == EntryType.DATA for entry in applied.values())


@pytest.mark.parametrize("number", range(40))
def test_safety_holds_on_a_random_schedule(number: int) -> None:
    run(number, 5000)


def test_random_schedules_get_something_done() -> None:
    assert sum(run(number, 5000) for number in range(5)) > 20
