"""A few cores in one process, whose messages a test moves by hand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypercache.raft import (
    Chunk,
    Configuration,
    EntryType,
    HardState,
    Options,
    Outbound,
    Raft,
    ReadState,
    Ready,
    SnapshotMeta,
    State,
    snapshot_header,
)
from hypercache.wire.messages import LogEntry, ProposeResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hypercache.wire.schema import Message

PLAIN = Options(pre_vote=False, check_quorum=False)


class Streams:
    """The snapshot streams that a node can read, by index."""

    def __init__(self) -> None:
        self.by_index: dict[int, bytes] = {}

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        stream = self.by_index.get(index)
        if stream is None or offset > len(stream):
            return None
        return stream[offset : offset + max_bytes], offset + max_bytes >= len(stream)


class Node:
    """One core, its disk as plain fields, and what it applied."""

    def __init__(
        self,
        node_id: int,
        configuration: Configuration,
        options: Options = PLAIN,
        *,
        terms: Sequence[int] = (),
        term: int | None = None,
        vote: int = 0,
        commit: int = 0,
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        entries = [LogEntry(each, EntryType.DATA, b"") for each in terms]
        state = HardState(max(terms, default=0) if term is None else term, vote, commit)
        self.streams = Streams()
        self.raft = Raft(
            node_id,
            options,
            random.Random(node_id),
            self.streams,
            hard_state=state,
            snapshot=snapshot or SnapshotMeta(configuration=configuration),
            entries=entries,
        )
        self.applied: list[tuple[int, LogEntry]] = []
        self.reads: list[ReadState] = []
        self.answers: list[ProposeResponse] = []
        self.chunks: list[Chunk] = []
        self.persisted: list[Ready] = []
        self.sent: list[Outbound] = []

    def work(self) -> list[Outbound]:
        """Do all that is to be done, with a disk that is done at once; return what was sent."""
        sent: list[Outbound] = []
        while self.raft.has_ready:
            ready = self.raft.ready()
            sent += ready.messages
            self.applied += [(ready.committed_index + at, entry) for at, entry in enumerate(ready.committed)]
            self.reads += ready.reads
            self.answers += ready.answers
            self.chunks += ready.chunks
            if ready.must_sync:
                self.persisted.append(ready)
                self.raft.advance(ready)
        self.sent += sent
        return sent

    def messages(self) -> list[Message]:
        return [outbound.message for outbound in self.work()]

    @property
    def state(self) -> State:
        return self.raft.state

    @property
    def terms(self) -> list[int]:
        log = self.raft.log
        return [entry.term for entry in log.entries(log.first_index, log.last_index)]

    @property
    def data(self) -> list[bytes]:
        """What the proposals applied say, without their session."""
        return [entry.data[24:] for _, entry in self.applied if entry.type == EntryType.DATA]

    def snapshot(self, index: int, state: bytes = b"state", keep: int = 0) -> None:
        """Make a snapshot and compact."""
        self.streams.by_index = {index: snapshot_header(self.raft.log.configuration_at(index)) + state}
        self.raft.compact(index, keep)


class Group:
    """Cores that talk to each other through a queue in order."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.raft.node_id: node for node in nodes}
        self.queue: list[tuple[int, Outbound]] = []
        self.lost: Callable[[int, Outbound], bool] = lambda sender, outbound: False
        self.trace: list[str] | None = None

    @classmethod
    def of(cls, size: int, options: Options = PLAIN, learners: Iterable[int] = ()) -> Group:
        configuration = Configuration(tuple(range(1, size + 1)), learners=tuple(learners))
        return cls(*(Node(node, configuration, options) for node in configuration.members()))

    def __getitem__(self, node_id: int) -> Node:
        return self.nodes[node_id]

    def raft(self, node_id: int) -> Raft:
        return self.nodes[node_id].raft

    def collect(self) -> None:
        for node_id, node in self.nodes.items():
            self.queue += [(node_id, outbound) for outbound in node.work()]

    def deliver(self, sender: int, outbound: Outbound) -> None:
        if outbound.to in self.nodes and not self.lost(sender, outbound):
            self.nodes[outbound.to].raft.step(sender, outbound.message, outbound.exchange)

    def settle(self, rounds: int = 10_000) -> None:
        """Deliver until nobody has anything to say."""
        self.collect()
        while self.queue:
            rounds -= 1
            assert rounds, "the group does not come to rest"
            self.deliver(*self.queue.pop(0))
            self.collect()

    def elect(self, node_id: int) -> Node:
        self.raft(node_id).campaign()
        self.settle()
        assert self.raft(node_id).state is State.LEADER
        return self.nodes[node_id]

    def tick(self, count: int = 1, *only: int) -> None:
        """Let ticks pass on all nodes, or on some, and settle after each."""
        for _ in range(count):
            for node_id in only or self.nodes:
                self.raft(node_id).tick()
            self.settle()

    def cut(self, *node_ids: int) -> None:
        """Lose all from and to some nodes."""
        self.lost = lambda sender, outbound: (sender in node_ids) != (outbound.to in node_ids)

    def heal(self) -> None:
        self.lost = lambda sender, outbound: False
