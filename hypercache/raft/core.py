"""The core of a Raft node: terms, votes, roles, and what is handed out to be written and sent (Raft paper, figure 2).

It knows no clock, no socket and no disk: `tick` counts time, `step` takes messages, `ready` says what to do, and in which order.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

from hypercache.errors import ConsistencyError, NotLeaderError, RaftError
from hypercache.raft import elections, forwarding
from hypercache.raft.candidate import Candidate
from hypercache.raft.follower import Follower
from hypercache.raft.leader import Leader, require_leader
from hypercache.raft.log import RaftLog
from hypercache.raft.options import Options
from hypercache.raft.outbox import Outbox
from hypercache.raft.reads import Read
from hypercache.raft.ready import HardState, ReadState, Ready
from hypercache.raft.snapshot import NoSnapshots, SnapshotMeta
from hypercache.wire.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    PreVoteRequest,
    PreVoteResponse,
    Propose,
    ProposeResponse,
    ReadIndex,
    ReadIndexResponse,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from hypercache.raft.configuration import Configuration
    from hypercache.raft.progress import Progress
    from hypercache.raft.snapshot import Chunk, SnapshotReader
    from hypercache.wire.messages import LogEntry
    from hypercache.wire.schema import Message


class State(Enum):
    """What a node is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Raft:
    """One node of one group.

    Args:
        node_id: this node; never 0.
        options: how the group behaves.
        random: draws the election timeouts.
        snapshots: where chunks are read from.
        hard_state: as last made durable.
        snapshot: the newest durable snapshot; for a group that is founded, index 0 with the first configuration.
        entries: the durable entries behind it.
        applied: what the state machine holds already, at least the snapshot's index.

    Attributes:
        node_id, options, snapshots: as given.
        term: the current term.
        vote: whom this node voted for in it; 0 for nobody.
        leader: the leader of the term as far as it is known; 0 for none.
        log: the log.
        role: what this node does in its term.
        durable_vote: term and vote as the disk holds them.
        outbox: what it says.
        reads: reads that the next Ready hands out.
        answers: answers to forwarded proposals that the next Ready hands out.

    Raises:
        MalformedMessageError: a configuration entry is damaged.
    """

    def __init__(
        self,
        node_id: int,
        options: Options,
        random: random.Random,
        snapshots: SnapshotReader | None = None,
        *,
        hard_state: HardState | None = None,
        snapshot: SnapshotMeta | None = None,
        entries: Iterable[LogEntry] = (),
        applied: int = 0,
    ) -> None:
        state = hard_state or HardState()
        self.node_id = node_id
        self.options = options
        self.snapshots = snapshots or NoSnapshots()
        self.log = RaftLog(snapshot or SnapshotMeta(), entries)
        self.log.commit_to(min(max(state.commit, applied), self.log.last_index))
        self.log.applied = max(self.log.applied, applied)
        self.term = state.term
        self.vote = state.vote
        self.leader = 0
        self.durable_vote = (state.term, state.vote)
        self.outbox = Outbox()
        self.reads: list[ReadState] = []
        self.answers: list[ProposeResponse] = []
        self.role: Follower | Candidate | Leader = Follower(self)
        self._random = random
        self._elapsed = 0
        # A restart forgets whom it heard; under a lease it must not help to elect another before the old one's lease has ended.
        self._contact = 0 if options.lease_ticks and state.term else options.election_ticks
        self._timeout = 0
        # The election timeout is a short one: the link to the leader has ended.
        self._hurried = False
        self._restart_timer()
        self._chunks: list[Chunk] = []
        self._snapshot: SnapshotMeta | None = None
        self._handed_state = HardState(state.term, state.vote, self.log.committed)
        # The readies whose fsync is awaited, with the vote that each makes durable.
        self._awaited: deque[tuple[int, tuple[int, int]]] = deque()
        self._number = 0
        self._changed = True

    # What can be read

    @property
    def state(self) -> State:
        """What this node is in its term."""
        if isinstance(self.role, Leader):
            return State.LEADER
        if isinstance(self.role, Candidate):
            return State.PRE_CANDIDATE if self.role.pre else State.CANDIDATE
        return State.FOLLOWER

    @property
    def commit(self) -> int:
        """The commit index."""
        return self.log.committed

    @property
    def configuration(self) -> Configuration:
        """The latest configuration in the log."""
        return self.log.configuration

    @property
    def promotable(self) -> bool:
        """Whether this node may campaign: it votes, or is not surely removed yet (dissertation, section 4.2.2)."""
        return self.log.may_campaign(self.node_id)

    @property
    def hears_leader(self) -> bool:
        """Whether this node is, or has within an election timeout heard, a leader, and helps no other (dissertation, 4.2.3)."""
        if not self.options.check_quorum:
            return False
        return isinstance(self.role, Leader) or self._contact < self.options.election_ticks

    @property
    def progress(self) -> Mapping[int, Progress]:
        """A leader's followers, with `match` and `next` of each; empty on another node."""
        return self.role.progress if isinstance(self.role, Leader) else {}

    # What a driver calls

    def tick(self) -> None:
        """Let one tick pass."""
        self._changed = True
        self._elapsed += 1
        self._contact += 1
        self.role.tick()

    def step(self, sender: int, message: Message, exchange: int = 0) -> None:
        """Take a message from a peer.

        Args:
            sender: the authenticated peer; ids inside messages must be its own.
            message: the message.
            exchange: for a request, its number, to be given back with the answer; for an answer, the number of its request,
                0 for the oldest that is not answered.

        Raises:
            ConsistencyError: a promise of Raft is broken; the node must stop.
            MalformedMessageError: a configuration entry is damaged.
            RaftError: it is no message of Raft.
        """
        handler = _HANDLERS.get(type(message))
        if handler is None:
            raise RaftError(f"{type(message).__name__} is no message of Raft")
        changed, self._changed = self._changed, True
        if handler(self, sender, message, exchange) is _QUIET:
            self._changed = changed

    def campaign(self) -> None:
        """Try to become the leader.

        Raises:
            RaftError: this node does not vote, or has just heard a leader that may rest on a lease.
        """
        if isinstance(self.role, Leader):
            return
        if not self.promotable:
            raise RaftError("a node that does not vote cannot lead")
        if self.options.lease_ticks and self.hears_leader and self.log.configuration.members() != (self.node_id,):
            raise RaftError("the lease of a leader that was just heard may still run")
        self._changed = True
        if not self.options.pre_vote:
            self.elect()
            return
        self.leader = 0
        self._restart_timer()
        self.role = Candidate(self, pre=True)
        self.role.start()

    def propose(self, data: bytes, *, client_id: int = 0, sequence: int = 0, lowest_unanswered: int = 0) -> int:
        """Propose data; a node that is not the leader sends it there.

        Args:
            data: what the state machine will be given.
            client_id: who proposes; 0 for a proposal without a session (`sessions`).
            sequence: which of its proposals this is.
            lowest_unanswered: the lowest of its sequences whose answer it still waits for.

        Returns:
            The entry's index; 0 where it was sent to the leader, whose answer comes with a Ready.

        Raises:
            NotLeaderError: no leader is known.
            BusyError: the leader holds too much that is not committed, or is handing over.
        """
        role = self.role
        self._changed = True
        if isinstance(role, Leader):
            return role.propose(client_id, sequence, lowest_unanswered, data)
        if not self.leader:
            raise NotLeaderError(0)
        self.outbox.request(self.leader, Propose(client_id, sequence, lowest_unanswered, data))
        return 0

    def propose_configuration(self, voters: Iterable[int], learners: Iterable[int] = (), *, auto_leave: bool = True) -> int:
        """Propose other members, by joint consensus where the voters change; return the entry's index.

        Args:
            voters: the voters wanted.
            learners: the learners wanted.
            auto_leave: whether the leader ends the joint configuration by itself.

        Raises:
            NotLeaderError: this node does not lead.
            ConfigurationChangeError: the change is malformed, or one is under way.
            BusyError: the leadership is being handed over, or nothing of this term is committed yet.
        """
        role = require_leader(self.role, self.leader)
        self._changed = True
        return role.propose_configuration(voters, learners, auto_leave=auto_leave)

    def leave_joint(self) -> int:
        """End a change of members that was begun without ``auto_leave``; return the entry's index.

        Raises:
            NotLeaderError: this node does not lead.
            ConfigurationChangeError: there is none, or its beginning is not committed yet.
            BusyError: the leadership is being handed over, or nothing of this term is committed yet.
        """
        role = require_leader(self.role, self.leader)
        self._changed = True
        return role.leave_joint()

    def read_index(self, context: int) -> None:
        """Ask for a linearizable read; a `ReadState` with the context comes with a Ready.

        A read forwarded to the leader may be lost with the message: the caller asks again, under another context.

        Args:
            context: names the read; never given twice, not by an earlier start of this node either.

        Raises:
            NotLeaderError: no leader is known.
            BusyError: too many reads wait.
        """
        self._changed = True
        if isinstance(self.role, Leader):
            self.role.read_index(Read(context, 0, 0))
        elif self.leader:
            self.outbox.request(self.leader, ReadIndex(context))
        else:
            raise NotLeaderError(0)

    def transfer_leadership(self, target: int) -> None:
        """Hand the leadership to another voter; proposals are refused until it has it, or an election timeout has passed.

        Raises:
            NotLeaderError: this node does not lead.
            RaftError: the target does not vote.
            BusyError: a transfer is under way.
        """
        role = require_leader(self.role, self.leader)
        self._changed = True
        role.transfer(target)

    def compact(self, index: int, keep: int = 0) -> None:
        """Drop the log up to an applied index of which a durable snapshot exists.

        Args:
            index: the snapshot's last entry.
            keep: how many entries before it stay at least, for followers that lack little. A leader keeps those behind a snapshot
                that is on its way too, as long as they are no more than ``catch_up_max_bytes``.

        Raises:
            RaftError: the entry is not applied yet.
        """
        log = self.log
        log.check_applied(index)
        if isinstance(self.role, Leader) and index > log.snapshot.index:
            needed = self.role.replication.needed(index)
            if log.bytes_between(needed, index) <= self.options.catch_up_max_bytes:
                keep = max(keep, index - needed)
        log.compact(index, keep)

    def lost(self, node_id: int) -> None:
        """Note that the link to a peer dropped, or is there again: what was sent to it and not answered is lost.

        A leader then begins anew with that peer at once, where it would else find out by the next heartbeats. Forwarded proposals
        and reads are the caller's to repeat.
        """
        if isinstance(self.role, Leader):
            self._changed = True
            self.role.replication.lost(node_id)

    def hung_up(self, node_id: int) -> None:
        """Note that the link to a peer ended: its process has, most likely, and does not only keep silent.

        Who followed it does not wait out the election timeout: it campaigns, and helps others to, soon. Where it was mistaken,
        those who still hear the leader refuse their pre-votes, and nothing changes. With leases it waits, for they may run still.
        """
        self.lost(node_id)
        options = self.options
        if node_id and node_id == self.leader != self.node_id and options.pre_vote and not options.lease_ticks:
            self._contact = options.election_ticks
            self._timeout = self._elapsed + 1 + self._random.randrange(max(1, options.election_ticks // 3))
            self._hurried = True

    @property
    def has_ready(self) -> bool:
        """Whether something happened since the last `ready` that may have to be followed by something."""
        return self._changed

    def ready(self) -> Ready:
        """Return what is to be done now (see `hypercache.raft.ready`)."""
        log = self.log
        if isinstance(self.role, Leader):
            self.role.flush()
        handed = self._handed_state
        hard_state = None
        voted = handed.term != self.term or handed.vote != self.vote
        # What is not durable is no part of the hint: of a torn write it could survive alone, over entries that were to be replaced.
        commit = min(log.committed, log.durable)
        if voted or commit > handed.commit:
            hard_state = self._handed_state = HardState(self.term, self.vote, max(commit, handed.commit))
        number = 0
        first = 0
        entries: tuple[LogEntry, ...] = ()
        chunks, snapshot = tuple(self._chunks), self._snapshot
        if voted or chunks or log.handed < log.last_index:
            number = self._number = self._number + 1
            first, entries = log.hand_out(number)
            self._awaited.append((number, (self.term, self.vote)))
            self._chunks, self._snapshot = [], None
        self.outbox.bind(self._awaited[-1][0] if self._awaited else 0)
        committed_index, committed = log.take_committed()
        ready = Ready(
            number,
            hard_state,
            chunks,
            snapshot,
            first,
            entries,
            self.outbox.take(),
            committed_index,
            committed,
            tuple(self.reads),
            tuple(self.answers),
        )
        self.reads, self.answers = [], []
        self._changed = False
        return ready

    def advance(self, ready: Ready) -> None:
        """Note that all a Ready wanted written is durable: what was held for it may leave.

        Args:
            ready: the oldest that was not advanced; those that need no fsync are not counted.

        Raises:
            RaftError: it is not the oldest.
        """
        if not ready.number:
            return
        if not self._awaited or self._awaited[0][0] != ready.number:
            raise RaftError("readies are advanced in the order in which they came, each once")
        _, self.durable_vote = self._awaited.popleft()
        log = self.log
        log.made_durable(ready.number)
        released = self.outbox.release(ready.number)
        role, committed = self.role, log.committed
        if isinstance(role, Leader | Candidate):
            role.made_durable()
        # What a leader's disk has is no news where it is not what was waited for.
        if released or log.can_apply or log.committed > committed or self.role is not role:
            self._changed = True

    # What the roles call

    def timed_out(self) -> bool:
        """Whether an election timeout has passed."""
        return self._elapsed >= self._timeout

    def _restart_timer(self) -> None:
        self._hurried = False
        self._elapsed = 0
        self._timeout = self.options.election_ticks + self._random.randrange(self.options.election_ticks)

    def become_follower(self, term: int, leader: int) -> None:
        """Follow; a new term begins without a vote."""
        if term > self.term:
            self.term = term
            self.vote = 0
        elif isinstance(self.role, Follower):
            self.leader = leader
            return
        if isinstance(self.role, Leader):
            self.role.refuse_reads()
        if not isinstance(self.role, Follower):
            self._restart_timer()
            self.role = Follower(self)
        self.leader = leader

    def elect(self, *, transfer: bool = False) -> None:
        """Begin an election: a new term, a vote for oneself (Raft paper, section 5.2)."""
        self.term += 1
        self.vote = self.node_id
        self.leader = 0
        self._restart_timer()
        self.role = Candidate(self, pre=False, transfer=transfer)
        self.role.start()

    def vote_for(self, candidate: int) -> None:
        """Give this term's vote."""
        self.vote = candidate
        self._restart_timer()

    def become_leader(self) -> None:
        """Lead the current term."""
        self.leader = self.node_id
        self.role = Leader(self)
        self.role.start()

    def receive_chunk(self, chunk: Chunk, snapshot: SnapshotMeta | None) -> None:
        """Hand out a piece of a snapshot; with the last one the log begins behind it."""
        self._chunks.append(chunk)
        if snapshot is not None:
            self._snapshot = snapshot
            self.log.restore(snapshot)

    # The log

    def _heard(self, sender: int, term: int) -> None:
        """Follow the leader of a term that is not behind this node's."""
        if term == self.term and self.leader not in (0, sender):
            raise ConsistencyError(f"nodes {self.leader} and {sender} both lead term {term}")
        if term > self.term or self.leader != sender or not isinstance(self.role, Follower):
            self.become_follower(term, sender)
        if self._hurried:
            self._restart_timer()
        self._elapsed = self._contact = 0

    def _on_append_entries(self, sender: int, message: AppendEntries, exchange: int) -> None:
        if message.term < self.term:
            self.outbox.promise(sender, AppendResponse(self.term, False, 0, 0), exchange)
            return
        self._heard(sender, message.term)
        assert isinstance(self.role, Follower)
        answer = self.role.append(message)
        log = self.log
        if self.durable_vote[0] == self.term:
            if not answer.success or answer.conflict_index <= log.durable:
                self.outbox.reply(sender, answer, exchange)
                return
            if not message.entries and log.durable and log.durable >= log.first_index - 1:
                # A slow disk must not look like a dead node, nor hold up reads: what it has of the log is said at once.
                self.outbox.reply(sender, AppendResponse(self.term, True, log.durable, log.term_of(log.durable)), exchange)
                return
        self.outbox.promise(sender, answer, exchange)

    def _on_append_response(self, sender: int, message: AppendResponse, exchange: int) -> object:
        if message.term > self.term:
            self.become_follower(message.term, 0)
        elif (
            message.term == self.term and isinstance(self.role, Leader) and not self.role.append_response(sender, message, exchange)
        ):
            return _QUIET
        return None

    def _on_install_snapshot(self, sender: int, message: InstallSnapshot, exchange: int) -> None:
        if message.term < self.term:
            self.outbox.promise(sender, SnapshotResponse(self.term, False, 0), exchange)
            return
        self._heard(sender, message.term)
        assert isinstance(self.role, Follower)
        self.outbox.promise(sender, self.role.install(message), exchange)

    def _on_snapshot_response(self, sender: int, message: SnapshotResponse, exchange: int) -> None:
        if message.term > self.term:
            self.become_follower(message.term, 0)
        elif message.term == self.term and isinstance(self.role, Leader):
            self.role.snapshot_response(sender, message, exchange)


_QUIET: Final = object()
"""What a handler returns where nothing is to be done behind it."""

_HANDLERS: Final[dict[type[Message], Callable[..., object]]] = {
    VoteRequest: elections.on_vote_request,
    VoteResponse: elections.on_vote_response,
    PreVoteRequest: elections.on_pre_vote_request,
    PreVoteResponse: elections.on_pre_vote_response,
    AppendEntries: Raft._on_append_entries,
    AppendResponse: Raft._on_append_response,
    InstallSnapshot: Raft._on_install_snapshot,
    SnapshotResponse: Raft._on_snapshot_response,
    TimeoutNow: elections.on_timeout_now,
    Propose: forwarding.on_propose,
    ProposeResponse: forwarding.on_propose_response,
    ReadIndex: forwarding.on_read_index,
    ReadIndexResponse: forwarding.on_read_index_response,
}
