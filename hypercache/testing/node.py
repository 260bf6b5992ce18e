"""One node of a simulated group: driver, core and storage are real; disk, clock and network are not; it can die at any point."""

from __future__ import annotations

import random
import traceback
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hypercache.consensus.driver import Consensus, ConsensusLimits
from hypercache.errors import LogDamagedError, StorageError
from hypercache.persist.raft_log import open_raft_storage
from hypercache.raft import Options, Raft
from hypercache.testing.clock import NodeClock
from hypercache.testing.crashes import CrashPoints, SimulatedCrash
from hypercache.testing.disk import SimulatedDisk
from hypercache.testing.invariants import InvariantError
from hypercache.testing.journal import SimulatedJournal
from hypercache.testing.watched import WatchedMachine, WatchedStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.consensus.contracts import StateMachine
    from hypercache.persist.raft_log import RaftStorage, Recovered
    from hypercache.raft import Configuration, Outbound
    from hypercache.testing.clock import HeapClock
    from hypercache.testing.invariants import Invariants
    from hypercache.testing.network import SimulatedNetwork

_CLUSTER_ID: Final = 1
_EVENTS_MAX_COUNT: Final = 1_000_000


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the nodes of a group are made.

    Attributes:
        options: of the core.
        limits: of the driver.
        disk_seconds: how long a disk takes for a write, at least.
        disk_jitter: how much longer it may take, seconds.
        segment_bytes: when the log begins a new file.
    """

    options: Options
    limits: ConsensusLimits
    disk_seconds: float = 0.001
    disk_jitter: float = 0.008
    segment_bytes: int = 4096


class SimulatedNode:
    """A node.

    Args:
        node_id: its id.
        settings: how it is made.
        machine: makes its state machine, empty.
        clock: the true time.
        network: carries its messages.
        invariants: watch it.
        random: its luck.
        died: called when it has died, with the reason.

    Attributes:
        id: its id.
        settings: how it is made; what is changed counts from the next start on.
        disk: its disk.
        points: what can kill it.
        time: its clock.
        boot: how often it was started.
        alive: whether it runs, or sleeps.
        slowness: how many times slower its disk is.
        consensus: the driver of this life.
        machine: the state machine of this life.
    """

    consensus: Consensus
    machine: WatchedMachine
    raft: Raft
    time: NodeClock

    def __init__(
        self,
        node_id: int,
        settings: NodeSettings,
        machine: Callable[[], StateMachine],
        clock: HeapClock,
        network: SimulatedNetwork,
        invariants: Invariants,
        random: random.Random,
        died: Callable[[SimulatedNode, str], None],
    ) -> None:
        self.id = node_id
        self.settings = settings
        self.points = CrashPoints()
        self.disk = SimulatedDisk(self.points)
        self.boot = 0
        self.alive = False
        self.slowness = 1.0
        self.offset = 0.0
        self.rate = 1.0
        self._make_machine = machine
        self._clock = clock
        self._network = network
        self._invariants = invariants
        self._random = random
        self._died = died
        self._asleep = False
        self._backlog: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._doom: str | None = None
        self._events = 0

    # Life

    def found(self, configuration: Configuration) -> None:
        """Write the founding configuration to the empty disk."""
        self._open()[0].found(configuration)

    def start(self) -> None:
        """Start the process on what its disk holds."""
        assert not self.alive
        self.boot += 1
        self.alive = True
        self._doom = None
        self.time = NodeClock(self._clock, self.offset, self.rate, self.enter)
        self.enter(self._begin)

    def _begin(self) -> None:
        settings = self.settings
        try:
            storage, found = self._open()
        except LogDamagedError as error:
            self._invariants.broken(f"node {self.id} finds its disk damaged: {error}")
        except StorageError as error:
            # It is full, or fails: somebody must see to it before the node can start.
            self._doom = repr(error)
            return
        self.raft = Raft(
            self.id,
            settings.options,
            random.Random(self._random.getrandbits(32)),
            storage,
            hard_state=found.hard_state,
            snapshot=found.snapshot,
            entries=found.entries,
        )
        self.machine = WatchedMachine(self._make_machine(), self.id, self._invariants, self.points)
        self._journals = (self._journal(), self._journal())
        self.consensus = Consensus(
            self.raft,
            boot=self.boot,
            storage=WatchedStorage(storage, self.id, self._invariants, self.points),
            journal=self._journals[0],
            snapshot_journal=self._journals[1],
            machine=self.machine,
            transport=self,
            clock=self.time,
            limits=settings.limits,
            failed=self._failed,
        )
        self._invariants.started(self, found.hard_state, found.snapshot, found.entries)
        self.consensus.start()

    def _open(self) -> tuple[RaftStorage, Recovered]:
        return open_raft_storage(self.disk, _CLUSTER_ID, self.id, segment_bytes=self.settings.segment_bytes)

    def _journal(self) -> SimulatedJournal:
        return SimulatedJournal(self._clock, self.enter, self.points, self._disk_seconds, self._told_seconds)

    def die(self, reason: str) -> None:
        """End the process now: what is not on the disk is gone."""
        if not self.alive:
            return
        self.alive = self._asleep = False
        self._backlog.clear()
        self.points.spare()
        self.disk = self.disk.crash(self._random)
        self.time.stop()
        for journal in getattr(self, "_journals", ()):
            journal.stop()
        self._invariants.ended(self.id)
        self._died(self, reason)

    def empty(self) -> None:
        """Take a new disk, while it does not live."""
        assert not self.alive
        self.disk = SimulatedDisk(self.points)
        self._invariants.emptied(self.id)

    def sleep(self) -> None:
        """Stop doing anything, as a process does that is stopped by a signal; what comes meanwhile waits."""
        self._asleep = True

    def wake(self) -> None:
        """Go on."""
        if not self._asleep:
            return
        self._asleep = False
        backlog, self._backlog = self._backlog, []
        for call, arguments in backlog:
            self.enter(call, *arguments)

    def enter(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Let something happen on the node: it may die of it, and is looked at afterwards.

        Raises:
            InvariantError: a promise is broken.
        """
        if not self.alive:
            return
        if self._asleep:
            self._backlog.append((call, arguments))
            return
        try:
            call(*arguments)
        except SimulatedCrash as crash:
            self.die(f"at the point {crash.point!r}")
        except InvariantError:
            raise
        except Exception as error:  # noqa: BLE001 - a reactor would log it, and the node go on half done
            self._invariants.broken(f"node {self.id} raises {error!r} at {_place_of(error)}")
        invariants = self._invariants
        self._events += 1
        if self._events > _EVENTS_MAX_COUNT:
            invariants.broken(f"node {self.id} does not come to rest")
        if invariants.violation is not None:
            raise invariants.violation
        if self._doom is not None:
            self.die(self._doom)
        elif self.alive:
            invariants.check(self)

    def _failed(self, error: BaseException) -> None:
        self._doom = repr(error)
        if self._invariants.violation is None and not isinstance(error, StorageError):
            self._invariants.broken(f"node {self.id} gives up: {error!r}")

    # What it is given

    def _disk_seconds(self) -> float:
        settings = self.settings
        return (settings.disk_seconds + self._random.random() * settings.disk_jitter) * self.slowness

    def _told_seconds(self) -> float:
        return self._random.random() * 0.001

    def send(self, outbound: Outbound) -> None:
        """Carry a message of the driver (`hypercache.consensus.contracts.Transport`)."""
        if not self.alive:
            return
        name = type(outbound.message).__name__
        points = self.points
        points.reach("send " + name)
        self._invariants.sent(self.id, outbound)
        self._network.send(self.id, outbound)
        points.reach("sent " + name)

    def flush(self) -> None:
        """All that was sent is on its way."""

    def receive(self, sender: int, outbound: Outbound) -> None:
        """Take a message from the network."""
        if self.alive:
            self.enter(self._step, sender, outbound)

    def _step(self, sender: int, outbound: Outbound) -> None:
        self._invariants.offered(self.id, sender, outbound)
        self.consensus.step(sender, outbound.message, outbound.exchange)

    # What is seen of it

    @property
    def applied(self) -> int:
        """What it says that it has applied."""
        return self.consensus.applying.applied

    @property
    def digest(self) -> int:
        """What it has applied."""
        return self.machine.digest

    @property
    def synced(self) -> bool:
        """Whether its disk has everything durably."""
        return self.disk.clean

    @property
    def running(self) -> bool:
        """Whether it lives and is awake."""
        return self.alive and not self._asleep

    @property
    def leads(self) -> bool:
        """Whether it lives and leads."""
        return self.alive and self.consensus.leads


def _place_of(error: BaseException) -> str:
    """Return where an exception was raised: file and line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
