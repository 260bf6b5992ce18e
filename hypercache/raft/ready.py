"""What the core hands out: what must be written, what may be sent, what is to be applied; and in which order.

The driver's turn, and what each step waits for:

1. ``ready = raft.ready()``
2. send ``ready.messages``; apply ``ready.committed``: both are safe at once. What is committed here is on this node's disk already.
3. where ``ready.must_sync``: write ``chunks``, ``snapshot``, ``hard_state`` and ``entries``, in this order, and make them durable;
   load the snapshot into the state machine. Meanwhile the core may be stepped and further readies taken.
4. ``raft.advance(ready)``, in the order of the readies.

Messages that promise durability (a vote, the request for votes that rests on the candidate's own, a success) are not in a Ready
before what they promise was advanced: the core holds them, so that a driver cannot send them too early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hypercache.raft.snapshot import Chunk, SnapshotMeta

if TYPE_CHECKING:
    from hypercache.wire.messages import LogEntry, ProposeResponse
    from hypercache.wire.schema import Message


class HardState(msgspec.Struct, frozen=True):
    """What a node must find again after a restart (Raft paper, figure 2: persistent state).

    Attributes:
        term: the latest term seen.
        vote: whom it voted for in that term; 0 for nobody.
        commit: a hint: the commit index last known. It alone needs no fsync.
    """

    term: int = 0
    vote: int = 0
    commit: int = 0


class Outbound(msgspec.Struct, frozen=True, gc=False):
    """A message to a peer.

    Attributes:
        to: the peer's id.
        message: the message.
        exchange: which request this is, or answers. The driver hands an answer to `Raft.step` with the exchange of its request.
        reply: whether it is an answer.
    """

    to: int
    message: Message
    exchange: int
    reply: bool


class ReadState(msgspec.Struct, frozen=True, gc=False):
    """A linearizable read that may be served.

    Attributes:
        context: what the reader called it.
        index: it is served from a state machine that has applied this; 0 where it was refused and must be asked again.
    """

    context: int
    index: int


class Ready(msgspec.Struct, frozen=True):
    """One turn's work (see the module's text).

    Attributes:
        number: counts the readies that must be synced; 0 for one that needs no fsync, whose `advance` does nothing.
        hard_state: where it changed.
        chunks: pieces of a snapshot on its way in.
        snapshot: a snapshot that is whole with `chunks`: it replaces log and state machine.
        first_index: the index of the first of `entries`; what the log holds from there on is replaced.
        entries: what the log must hold.
        messages: what may leave now.
        committed_index: the index of the first of `committed`.
        committed: what the state machine applies before the next `ready`.
        reads: reads that may be served, once their index is applied.
        answers: where the leader put forwarded proposals, or why not.
    """

    number: int = 0
    hard_state: HardState | None = None
    chunks: tuple[Chunk, ...] = ()
    snapshot: SnapshotMeta | None = None
    first_index: int = 0
    entries: tuple[LogEntry, ...] = ()
    messages: tuple[Outbound, ...] = ()
    committed_index: int = 0
    committed: tuple[LogEntry, ...] = ()
    reads: tuple[ReadState, ...] = ()
    answers: tuple[ProposeResponse, ...] = ()

    @property
    def must_sync(self) -> bool:
        """Whether something must be durable before `advance`."""
        return self.number > 0
