"""Nodes with the real driver, control plane and steward, on a clock that is advanced; their disks are plain fields."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock

from hypercache.cluster.steward import Steward
from hypercache.consensus.driver import Consensus, ConsensusLimits
from hypercache.control.commands import AddMember, FoundCluster, Outcome, decode_outcome, proposal
from hypercache.control.duties import Policy
from hypercache.control.entries import decided, split_entry
from hypercache.control.machine import ControlMachine
from hypercache.raft import Configuration, Options, Raft, SnapshotMeta
from hypercache.wire.messages import Suspicion
from tests.consensus.drivers import Disk, HeldJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.control.commands import Command
    from hypercache.control.state import ControlState, MemberState
    from hypercache.raft import Outbound
    from hypercache.wire.schema import Message

CLUSTER = 77
STEP_SECONDS = 0.01
TICK_SECONDS = 0.1
BEAT_SECONDS = 0.5
OUT_SECONDS = 10.0


class Machine:
    """The control plane alone, as the driver's state machine."""

    def __init__(self, clock: Clock) -> None:
        self.control = ControlMachine()
        self._clock = clock

    def prepare(self, data: bytes) -> bytes:
        return decided(data, int(self._clock.seconds() * 1000), 0)

    def apply(self, index: int, client_id: int, data: bytes) -> bytes:
        when_ms, _, _, rest = split_entry(data)
        return self.control.apply(index, when_ms, rest)

    def membership_changed(self, index: int, voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
        self.control.membership_changed(voters, learners)

    def knows(self, client_id: int) -> bool:
        return self.control.knows(client_id)

    def take_forgotten(self) -> tuple[int, ...]:
        return self.control.take_forgotten()

    def freeze(self) -> Iterable[bytes]:
        return [self.control.freeze()]

    def load(self, stream: Iterable[bytes]) -> ControlState:
        return ControlMachine.load(b"".join(stream))

    def adopt(self, loaded: ControlState) -> None:
        self.control.adopt(loaded)


class Node:
    """One node; its disk outlives its process."""

    def __init__(self, net: Net, node_id: int, voters: tuple[int, ...]) -> None:
        self.net = net
        self.node_id = node_id
        self.boot = 0
        self.host = f"10.0.0.{node_id}"
        self.alive = False
        self.failures: list[BaseException] = []
        self.told: list[tuple[int, Suspicion]] = []
        self.wipe(voters)

    def wipe(self, voters: tuple[int, ...] = ()) -> None:
        self.disk = Disk()
        self.disk.snapshot = SnapshotMeta(configuration=Configuration(voters))

    def start(self) -> None:
        net, disk = self.net, self.disk
        self.boot += 1
        self.alive = True
        self.heard: dict[int, float] = {}
        self.machine = Machine(net.clock)
        raft = Raft(
            self.node_id,
            Options(),
            random.Random(self.node_id),
            disk,
            hard_state=disk.hard_state,
            snapshot=disk.snapshot,
            entries=disk.entries,
        )
        self.driver = Consensus(
            raft,
            boot=self.boot,
            storage=disk,
            journal=HeldJournal(net.clock),
            snapshot_journal=HeldJournal(net.clock),
            machine=self.machine,
            transport=self,
            clock=net.clock,
            limits=ConsensusLimits(tick=TICK_SECONDS, snapshot_after=1 << 20, keep=0),
            failed=self.failures.append,
        )
        self.steward = Steward(
            self.driver,
            lambda: self.state,
            self.own,
            clock=net.clock,
            heard_at=lambda node_id: self.heard.get(node_id) if net.reach(node_id, self.node_id) else None,
            tell=self.tell,
            policy=net.policy,
            interval=BEAT_SECONDS,
        )
        self.driver.changed = self.steward.poke
        self.machine.control.changed = lambda before, behind: self.steward.poke()
        self.driver.start()
        self.steward.start()

    def kill(self) -> None:
        self.alive = False
        self.driver.stop()
        self.steward.stop()

    def own(self) -> FoundCluster:
        return FoundCluster(CLUSTER, AddMember(self.node_id, f"{self.host}:7379", boot=self.boot))

    @property
    def state(self) -> ControlState:
        return self.machine.control.state

    def send(self, outbound: Outbound) -> None:
        self.net.carry(self.node_id, outbound.to, lambda node: node.driver.step(self.node_id, outbound.message, outbound.exchange))

    def flush(self) -> None:
        """Nothing waits to be sent."""

    def tell(self, node_id: int, message: Message) -> None:
        assert isinstance(message, Suspicion)
        self.told.append((node_id, message))
        self.net.carry(self.node_id, node_id, lambda node: node.steward.suspected(self.node_id, message))

    def propose(self, command: Command) -> Outcome:
        """Propose a command here; return what became of it."""
        answers: list[bytes] = []
        self.driver.propose(proposal(command)).addCallback(answers.append)
        self.net.until(lambda: answers)
        return decode_outcome(answers[0])


class Net:
    """Nodes whose messages take a step of the clock.

    Attributes:
        cut: nodes without links.
        mute: nodes with links over which nothing comes: stopped processes.
    """

    def __init__(self, **policy: Any) -> None:
        self.clock = Clock()
        self.policy = Policy(**{"out_after_seconds": OUT_SECONDS, **policy})
        self.nodes: dict[int, Node] = {}
        self.cut: set[int] = set()
        self.mute: set[int] = set()
        self._beat_at = 0.0

    def found(self) -> Node:
        """Start a node that founds the cluster."""
        node = self.nodes[1] = Node(self, 1, (1,))
        node.start()
        node.driver.campaign()
        self.until(lambda: 1 in node.state.members)
        return node

    def join(self, node_id: int, **said: Any) -> Node:
        """Have a node join; it takes part once it is let in."""
        node = self.nodes.get(node_id) or Node(self, node_id, ())
        command = AddMember(node_id, f"{node.host}:7379", boot=node.boot + 1, **{"fresh": True, **said})
        self.until(lambda: self.leader.propose(command).ok)
        self.nodes[node_id] = node
        node.start()
        return node

    def reach(self, one: int, two: int) -> bool:
        nodes = self.nodes
        return one in nodes and two in nodes and nodes[one].alive and nodes[two].alive and not {one, two} & self.cut

    def carry(self, sender: int, to: int, arrive: Callable[[Node], None]) -> None:
        def arrived() -> None:
            if self.reach(sender, to) and not {sender, to} & self.mute:
                self.nodes[to].heard[sender] = self.clock.seconds()
                arrive(self.nodes[to])

        if self.reach(sender, to):
            self.clock.callLater(STEP_SECONDS, arrived)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            self._advance()

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            if condition():
                return
            self._advance()
        assert condition(), f"did not come true within {seconds:g} s"

    def _advance(self) -> None:
        self.clock.advance(STEP_SECONDS)
        now = self.clock.seconds()
        if now >= self._beat_at:
            self._beat_at += BEAT_SECONDS
            for one in self.nodes:
                for two in self.nodes:
                    if one != two and self.reach(one, two) and not {one, two} & self.mute:
                        self.nodes[two].heard[one] = now

    @property
    def leader(self) -> Node:
        """The node that leads; where nobody does, the clock runs until somebody does."""

        def leaders() -> list[Node]:
            # What never started is a base peer.
            nodes = [node for node in self.nodes.values() if node.alive and node.boot and node.node_id not in self.cut]
            return [node for node in nodes if node.driver.leads]

        self.until(leaders)
        return max(leaders(), key=lambda node: node.driver.raft.term)

    def voters(self) -> tuple[int, ...]:
        configuration = self.leader.driver.raft.configuration
        return () if configuration.joint else configuration.voters

    def learners(self) -> tuple[int, ...]:
        return self.leader.driver.raft.configuration.learners

    def states(self) -> dict[int, MemberState]:
        return {node_id: member.state for node_id, member in self.leader.state.members.items()}
