"""From committed entries to the state machine: each proposal is applied once, whatever how often it is in the log.

A snapshot is the table of sessions (`hypercache.raft.sessions`), then the state machine's pieces.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from hypercache.raft import EntryType
from hypercache.raft.configuration import decode_configuration
from hypercache.raft.sessions import Sessions, Verdict, proposal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hypercache.consensus.contracts import StateMachine
    from hypercache.raft import Configuration, SnapshotMeta
    from hypercache.wire.messages import LogEntry


class Loaded(msgspec.Struct, frozen=True):
    """A snapshot that was read, to be adopted on the loop."""

    sessions: Sessions
    machine: Any


class Applying:
    """The state machine of a node and who was answered what.

    Args:
        machine: the state machine.
        node_id: this node.
        answered: called with the sequence of a proposal of this node and its answer.

    Attributes:
        applied: the index of the last entry that was applied.
        sessions: who was answered what.
    """

    def __init__(self, machine: StateMachine, node_id: int, answered: Callable[[int, bytes], None]) -> None:
        self.applied = 0
        self.sessions = Sessions()
        self._machine = machine
        self._node_id = node_id
        self._answered = answered

    def apply(self, first_index: int, entries: Sequence[LogEntry]) -> None:
        """Apply committed entries.

        Raises:
            MalformedMessageError: an entry is damaged.
        """
        index = first_index
        for entry in entries:
            if entry.type == EntryType.DATA:
                self._apply_proposal(index, entry.data)
            elif entry.type == EntryType.CONFIGURATION:
                self._apply_configuration(index, decode_configuration(entry.data))
            self.applied = index
            index += 1

    def _apply_proposal(self, index: int, data: bytes) -> None:
        proposal = proposal_of(data)
        client_id = proposal.client_id
        # Of a client that is gone nothing is known any more: a late copy of what it proposed would be new again.
        if client_id and not self._machine.knows(client_id):
            return
        verdict, answer = self.sessions.judge(proposal)
        if verdict is Verdict.NEW:
            answer = self._machine.apply(index, client_id, proposal.data)
            self.sessions.answered(proposal, answer)
            forgotten = self._machine.take_forgotten()
            if forgotten:
                self.sessions.forget(forgotten)
        elif verdict is Verdict.STALE:
            return
        if client_id == self._node_id:
            self._answered(proposal.sequence, answer)

    def _apply_configuration(self, index: int, configuration: Configuration) -> None:
        if not configuration.joint:
            self._machine.membership_changed(index, configuration.voters, configuration.learners)

    # Snapshots

    def freeze(self) -> Iterable[bytes]:
        """Return the state as of now, in pieces that may be read later and off the loop."""
        return chain((self.sessions.encode(),), self._machine.freeze())

    def load(self, stream: Iterator[bytes]) -> Loaded:
        """Read a snapshot; called off the loop.

        Raises:
            MalformedMessageError: it is damaged.
        """
        head = next(stream, b"")
        # The pieces are cut as the log's files have them, not as they were made.
        while len(head) < 4 or len(head) < 4 + int.from_bytes(head[:4], "big"):
            piece = next(stream, None)
            if piece is None:
                break
            head += piece
        sessions, end = Sessions.decode(head)
        return Loaded(sessions, self._machine.load(chain((head[end:],), stream)))

    def adopt(self, loaded: Loaded, snapshot: SnapshotMeta) -> None:
        """Become what was read."""
        self.sessions = loaded.sessions
        self._machine.adopt(loaded.machine)
        self.applied = snapshot.index
        self._apply_configuration(snapshot.index, snapshot.configuration)
