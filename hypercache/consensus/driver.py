"""One node's part in a Raft group: the core, given time, a disk, peers and a state machine.

A *turn* does what the core's `Ready` wants (`hypercache.raft.ready` has the order): messages leave, the disk begins to write,
what is committed is applied. All that comes in one turn of the reactor shares one, and so one fsync; what comes while the disk
writes shares the next.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.logger import Logger

from hypercache.consensus.applying import Applying
from hypercache.consensus.proposals import Proposals
from hypercache.consensus.reads import Reads
from hypercache.consensus.snapshots import Snapshots
from hypercache.errors import DiskFullError, MalformedMessageError, StorageError
from hypercache.limits import RAFT_DISK_RETRY_SECONDS, RAFT_PROPOSAL_SECONDS
from hypercache.raft import State
from hypercache.wire.messages import Propose, ReadIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred

    from hypercache.consensus.applying import Loaded
    from hypercache.consensus.contracts import Journal, StateMachine, Storage, Transport
    from hypercache.raft import Raft, Ready
    from hypercache.wire.schema import Message

_log = Logger()


class Disk(Enum):
    """What can be said of the disk."""

    SOUND = "sound"
    FULL = "full"
    """Nothing can be promised: this node leads nobody, and votes for nobody."""


class ConsensusLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How a node takes part.

    Attributes:
        tick: seconds; the core counts time in it.
        snapshot_after: bytes of applied entries behind the last snapshot that make the next one due.
        keep: how many entries before a snapshot stay in the log.
        patience: seconds after which a proposal or a read without an answer is given up.
    """

    tick: float
    snapshot_after: int
    keep: int
    patience: float = RAFT_PROPOSAL_SECONDS


class Consensus:
    """A node's part in the group.

    Args:
        raft: the core, as recovered.
        boot: counts the node's starts.
        storage: the node's disk.
        journal: waits for the log.
        snapshot_journal: waits for snapshots.
        machine: the state machine, empty.
        transport: the peers.
        clock: the reactor.
        limits: how it takes part.
        failed: called with what broke a promise, or the disk; the process must end.

    Attributes:
        raft: the core; only its properties are for others to read.
        applying: the state machine and its sessions.
        leaderships: how often this node came to lead.
        writes: how often the log was written, and made durable.
        changed: called when the leader, the term, or the configuration is another one.
        stopped: nothing is done any more.
    """

    def __init__(
        self,
        raft: Raft,
        *,
        boot: int,
        storage: Storage,
        journal: Journal,
        snapshot_journal: Journal,
        machine: StateMachine,
        transport: Transport,
        clock: Any,
        limits: ConsensusLimits,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.raft = raft
        self.changed: Callable[[], None] = _nobody
        self.stopped = True
        self.leaderships = self.writes = 0
        self._storage = storage
        self._journal = journal
        self._machine = machine
        self._transport = transport
        self._clock = clock
        self._limits = limits
        self._failed = failed
        resend = raft.options.election_ticks
        patience = max(1, round(limits.patience / limits.tick))
        self._proposals = Proposals(raft, boot, machine.prepare, patience=patience, resend=resend)
        self._reads = Reads(raft, boot, patience=patience, resend=resend)
        self.applying = Applying(machine, raft.node_id, self._proposals.answered)
        self._snapshots = Snapshots(raft, self.applying, storage, journal, snapshot_journal, limits, self._fail)
        # The readies that the journal has, and those that wait until it is done with them.
        self._writing: list[Ready] = []
        self._waiting: list[Ready] = []
        self._disk = Disk.SOUND
        self._turning = False
        self._turn_call: Any = None
        self._tick_call: Any = None
        self._retry_call: Any = None
        self._next_tick = 0.0
        self._seen = self._view()

    # Life

    def start(self) -> None:
        """Load what the disk has of the state machine, and take part.

        Raises:
            MalformedMessageError: the snapshot is damaged.
        """
        snapshot = self.raft.log.snapshot
        if snapshot.index:
            self.applying.adopt(self.applying.load(iter(self._storage.load_snapshot())), snapshot)
        self.stopped = False
        self._next_tick = self._clock.seconds() + self._limits.tick
        self._tick_call = self._clock.callLater(self._limits.tick, self._tick)
        self.stir()

    def stop(self) -> None:
        """Take part no more; what was proposed and not answered fails. The journals are the caller's to stop."""
        if self.stopped:
            return
        self.stopped = True
        for call in (self._turn_call, self._tick_call, self._retry_call):
            if call is not None and call.active():
                call.cancel()
        self._proposals.stop()
        self._reads.stop()

    # What others ask

    def propose(self, data: bytes) -> Deferred[bytes]:
        """Propose data, here or at the leader, until it is applied; it is applied once.

        Args:
            data: what `StateMachine.prepare` and `StateMachine.apply` are given.

        Returns:
            Fires with the state machine's answer, when this node has applied it; fails with a BusyError or a NotLeaderError where
            it was certainly not done, with an OutcomeUnknownError where it may have been.
        """
        answer = self._proposals.propose(data)
        self.stir()
        return answer

    def read(self) -> Deferred[None]:
        """Wait until this node's state machine holds all that was committed before now.

        Returns:
            Fires then: what is read before anything else is let in is linearizable. Fails with a BusyError or a NotLeaderError.
        """
        ready = self._reads.read()
        self.stir()
        return ready

    def step(self, sender: int, message: Message, exchange: int) -> None:
        """Take a message from a peer.

        Args:
            sender: the authenticated peer.
            message: the message.
            exchange: of a request, what its answer is sent under; of an answer, the `exchange` of its request.

        Raises:
            MalformedMessageError: the message holds what no member of the group sends; the link to the peer should end.
        """
        if self.stopped:
            return
        if self.leads:
            if isinstance(message, Propose):
                data = self._machine.prepare(message.data)
                message = Propose(message.client_id, message.sequence, message.lowest_unanswered, data)
            elif isinstance(message, ReadIndex):
                self._deliver_ticks()
        try:
            self.raft.step(sender, message, exchange)
        except MalformedMessageError:
            self.stir()
            raise
        except Exception as error:  # noqa: BLE001 - what the core raises here means that a promise is broken
            self._fail(error)
            return
        self.stir()

    def lost(self, node_id: int) -> None:
        """Take note that there is another link to a peer: what was on its way over the one before may be lost."""
        self.raft.lost(node_id)
        self.stir()

    def hung_up(self, node_id: int) -> None:
        """Take note that the link to a peer ended, and there is no other."""
        self.raft.hung_up(node_id)
        self.stir()

    def change_members(self, voters: Iterable[int], learners: Iterable[int]) -> None:
        """Begin to change who takes part; `StateMachine.membership_changed` tells when that is done.

        Raises:
            NotLeaderError: this node does not lead.
            ConfigurationChangeError: the change is malformed, or one is under way.
            BusyError: it must wait.
        """
        self.raft.propose_configuration(voters, learners)
        self.stir()

    def transfer(self, target: int) -> None:
        """Hand the leadership to another voter.

        Raises:
            NotLeaderError: this node does not lead.
            RaftError: the target does not vote.
            BusyError: a transfer is under way.
        """
        self.raft.transfer_leadership(target)
        self.stir()

    def campaign(self) -> None:
        """Try to lead now.

        Raises:
            RaftError: this node does not vote.
        """
        self.raft.campaign()
        self.stir()

    @property
    def leads(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.raft.state is State.LEADER

    @property
    def disk_full(self) -> bool:
        """Whether the disk takes nothing more."""
        return self._disk is Disk.FULL

    @property
    def proposals(self) -> int:
        """How many proposals of this node wait for their answers."""
        return len(self._proposals)

    # Turns

    def stir(self) -> None:
        """Have a turn soon, with all else that comes until then."""
        if self._turn_call is None and not self.stopped:
            self._turn_call = self._clock.callLater(0, self._scheduled_turn)

    def turn(self) -> None:
        """Have a turn now, if there is something to do: whoever knows that nothing else comes in this turn of the reactor."""
        if self.stopped or not (self.raft.has_ready or self._reads.wanted):
            return
        if self._turning:
            self.stir()
            return
        self._turning = True
        try:
            self._turn()
        finally:
            self._turning = False

    def _scheduled_turn(self) -> None:
        self._turn_call = None
        self.turn()

    def _turn(self) -> None:
        raft = self.raft
        if self._reads.wanted:
            self._deliver_ticks()
            self._reads.begin()
        try:
            while raft.has_ready and not self.stopped:
                self._do(raft.ready())
        except Exception as error:  # noqa: BLE001 - the state machine and the core must not go on half done
            self._fail(error)
            return
        self._snapshots.make_if_due()
        view = self._view()
        if view != self._seen:
            led = self._seen[:2] != view[:2]
            self.leaderships += led and self.leads
            self._seen = view
            if led:
                self._proposals.leader_changed()
                self._reads.leader_changed()
                self.stir()
            self.changed()

    def _do(self, ready: Ready) -> None:
        # What peers must do takes longest, then the disk: both work while the rest of the turn is done.
        if ready.messages:
            send = self._transport.send
            for outbound in ready.messages:
                send(outbound)
            self._transport.flush()
        if ready.must_sync:
            self._waiting.append(ready)
            self._write()
        if ready.committed:
            self.applying.apply(ready.committed_index, ready.committed)
        for answer in ready.answers:
            self._proposals.placed(answer)
        if ready.reads:
            self._reads.indexed(ready.reads)
            if self._reads.wanted:
                self.stir()
        self._reads.applied(self.applying.applied)

    def _view(self) -> tuple[int, int, int]:
        raft = self.raft
        return raft.term, raft.leader, raft.log.configuration_index

    # The disk

    def _write(self) -> None:
        if self._waiting and not self._writing and self._disk is Disk.SOUND:
            self._begin_write()

    def _begin_write(self) -> None:
        batch, self._waiting = self._waiting, []
        self._writing = batch
        self._journal.write(self._storage, batch, self._written)

    def _written(self, _: Any, error: BaseException | None) -> None:
        if self.stopped:
            return
        if isinstance(error, DiskFullError):
            self._disk_filled(error)
            return
        if error is not None:
            self._fail(error)
            return
        self.writes += 1
        if self._disk is Disk.FULL:
            self._disk = Disk.SOUND
            _log.info("the disk takes the log again")
        self._note_written()

    def _note_written(self) -> None:
        """Let out what the batch promises; a snapshot in it is loaded first, and all behind it waits for that."""
        batch = self._writing
        while batch:
            ready = batch[0]
            snapshot = ready.snapshot
            # Of several snapshots in one batch the last is what the disk holds.
            if snapshot is not None and not any(later.snapshot for later in batch[1:]) and snapshot.index > self.applying.applied:
                self._snapshots.load(self._loaded)
                return
            self.raft.advance(ready)
            del batch[0]
        self._write()
        self.turn()

    def _loaded(self, loaded: Loaded) -> None:
        snapshot = self._writing[0].snapshot
        if self.stopped or snapshot is None:
            return
        self.applying.adopt(loaded, snapshot)
        self._note_written()

    def _disk_filled(self, error: BaseException) -> None:
        """Promise nothing and lead nobody until the disk has room; try again now and then."""
        if self._disk is Disk.SOUND:
            self._disk = Disk.FULL
            _log.critical("{reason}; this node takes no part in decisions until there is room", reason=error)
        self.raft.become_follower(self.raft.term, 0)
        self._waiting = self._writing + self._waiting
        self._writing = []
        self._retry_call = self._clock.callLater(RAFT_DISK_RETRY_SECONDS, self._begin_write)
        self.stir()

    # Time

    def _tick(self) -> None:
        self._deliver_ticks()
        self._tick_call = self._clock.callLater(max(0.0, self._next_tick - self._clock.seconds()), self._tick)
        self.stir()

    def _deliver_ticks(self) -> None:
        """Let the ticks pass that are due, those of a pause too: a lease may have ended in it."""
        late = self._clock.seconds() - self._next_tick
        if late < 0:
            return
        tick = self._limits.tick
        due = 1 + int(late / tick)
        self._next_tick += due * tick
        # More than that teaches the core nothing.
        for _ in range(min(due, 2 * self.raft.options.election_ticks)):
            # A node that can write no vote calls no election.
            if self._disk is Disk.SOUND:
                self.raft.tick()
            self._proposals.tick()
            self._reads.tick()

    def _fail(self, error: BaseException) -> None:
        if self.stopped:
            return
        if isinstance(error, StorageError):
            _log.critical("the disk failed: {reason}", reason=error)
        self.stop()
        self._failed(error)


def _nobody() -> None:
    """Nobody wants to know."""
