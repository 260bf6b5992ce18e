"""Nodes in one process, on a network of memory and a clock that is advanced."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from hypercache.auth.none import NoAuthProvider
from hypercache.cluster.control_plane import ControlPlane
from hypercache.cluster.copies import CopyReplicator
from hypercache.cluster.dialer import Dialer
from hypercache.cluster.heartbeats import Heartbeats
from hypercache.cluster.machine import ClusterMachine
from hypercache.cluster.members import NodeFacts
from hypercache.cluster.membership import Membership
from hypercache.cluster.raft_stores import RaftStores
from hypercache.config import load_settings
from hypercache.control.commands import decode_outcome, proposal
from hypercache.control.machine import ControlMachine
from hypercache.errors import HyperCacheError
from hypercache.handlers.heartbeat import HeartbeatHandler
from hypercache.handlers.membership import JoinHandler, RingQueryHandler, RingUpdateHandler
from hypercache.handlers.replicate import ReplicateHandler
from hypercache.net.metrics import MessageMetrics
from hypercache.net.peer import LinkSettings, PeerFactory
from hypercache.net.router import Router
from hypercache.persist.disk import DirectoryDisk
from hypercache.persist.identity import Identity
from hypercache.replication.apply import Applier
from hypercache.replication.feed import Feed
from hypercache.store import Keyspace
from hypercache.wire import Decoder
from hypercache.wire.messages import SCHEMA
from tests.consensus.drivers import HeldJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hypercache.control.state import ControlState
    from hypercache.net.link import PeerLink
    from hypercache.store import Store

LATENCY_SECONDS = 0.001
STEP_SECONDS = 0.01
EPOCH_SECONDS = 1_800_000_000
MAX_FRAME = 1 << 20


class Transport:
    """One end of a connection of memory."""

    def __init__(self, net: Network, host: str, peer: str) -> None:
        self.net = net
        self.host = host
        self.peer = peer
        self.protocol: Any = None
        self.other: Transport
        self.producer: Any = None
        self.open = True
        self.written = 0
        self.stuck = False
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self.open:
            return
        self.written += len(data)
        if self.stuck:
            # The peer does not read: what is written stays in the buffer, which is full.
            self._waiting.append(data)
            self.producer.pauseProducing()
            return
        self.net.clock.callLater(LATENCY_SECONDS, self.other.deliver, data)

    def unstick(self) -> None:
        self.stuck = False
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.write(data)
        if self.open:
            self.producer.resumeProducing()

    def deliver(self, data: bytes) -> None:
        if not self.open or self.net.is_cut(self.host, self.peer):
            return
        for each in self.net.change(self, data):
            if self.open:
                self.protocol.dataReceived(each)

    def loseConnection(self) -> None:
        # As TCP does: what is in the buffer goes first, so a connection that does not get rid of it stays.
        if not self._waiting and not self.net.is_cut(self.host, self.peer):
            self.net.clock.callLater(LATENCY_SECONDS, self.end, ConnectionDone())
            self.net.clock.callLater(LATENCY_SECONDS, self.other.end, ConnectionDone())

    def abortConnection(self) -> None:
        self.net.clock.callLater(0, self.end, ConnectionLost())
        if not self.net.is_cut(self.host, self.peer):
            self.net.clock.callLater(LATENCY_SECONDS, self.other.end, ConnectionLost())

    def end(self, reason: Exception) -> None:
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(reason))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        """Reading is not modelled."""

    def resumeProducing(self) -> None:
        """Reading is not modelled."""

    def getPeer(self) -> IPv4Address:
        host, _, port = self.peer.rpartition(":")
        return IPv4Address("TCP", host, int(port))


class Endpoint:
    """What a node dials with."""

    def __init__(self, net: Network, own: str, address: str) -> None:
        self._net = net
        self._own = own
        self._address = address

    def connect(self, factory: Any) -> Deferred[Any]:
        net = self._net
        listener = net.listeners.get(self._address)
        net.dials.append((self._own, self._address))
        if net.is_cut(self._own, self._address):
            return fail(ConnectionLost())
        if listener is None:
            return fail(ConnectionRefusedError())
        near = Transport(net, self._own, self._address)
        far = Transport(net, self._address, self._own)
        near.other, far.other = far, near
        far.protocol = listener(far)
        near.protocol = factory.buildProtocol(None)
        net.transports += [near, far]
        connected: Deferred[Any] = Deferred()

        def establish() -> None:
            if connected.called:
                # The attempt was given up.
                near.open = far.open = False
                return
            far.protocol.makeConnection(far)
            near.protocol.makeConnection(near)
            connected.callback(near.protocol)

        net.clock.callLater(LATENCY_SECONDS, establish)
        return connected


class Network:
    """All nodes and what lies between them.

    Attributes:
        change: what becomes of bytes on their way, given the end that they reach: the pieces that are read there.
    """

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.directory = directory
        self.listeners: dict[str, Callable[[Transport], Any]] = {}
        self.transports: list[Transport] = []
        self.dials: list[tuple[str, str]] = []
        self.nodes: list[Node] = []
        self.change: Callable[[Transport, bytes], list[bytes]] = lambda transport, data: [data]
        self._cuts: set[frozenset[str]] = set()

    def node(self, number: int, **options: Any) -> Node:
        node = Node(self, number, **options)
        self.nodes.append(node)
        return node

    def wall(self) -> float:
        return EPOCH_SECONDS + self.clock.seconds()

    def is_cut(self, one: str, other: str) -> bool:
        return frozenset((one, other)) in self._cuts

    def cut(self, one: Node, other: Node) -> None:
        """Have nothing arrive any more between two nodes; neither is told."""
        self._cuts.add(frozenset((one.address, other.address)))

    def heal(self) -> None:
        # A connection that was cut stays dead: its packets were given up.
        for transport in self.transports:
            if self.is_cut(transport.host, transport.peer):
                transport.deliver = lambda data: None  # type: ignore[method-assign]
        self._cuts.clear()

    def reset(self, one: Node, other: Node) -> None:
        """Break the connections between two nodes; both are told."""
        for transport in list(self.transports):
            if {transport.host, transport.peer} == {one.address, other.address}:
                transport.end(ConnectionLost())

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            self.clock.advance(STEP_SECONDS)

    def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            if condition():
                return
            self.clock.advance(STEP_SECONDS)
        assert condition(), f"did not come true within {seconds:g} s"

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


class NodeClock:
    """A node's reactor: nothing happens on it after the node is killed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.alive = True

    def seconds(self) -> float:
        return self._clock.seconds()

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._clock.callLater(delay, self._call, function, args, kwargs)

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        if self.alive:
            function(*args, **kwargs)


class Node:
    """A node as roles.node wires it, without clients."""

    def __init__(
        self,
        net: Network,
        number: int,
        *,
        join: tuple[Node | str, ...] = (),
        host: str = "",
        max_nodes: int = 100,
        max_frame: int = MAX_FRAME,
        maxmemory: int = 0,
        outbox: int = 1000,
        ahead: float = 0.0,
        directory: str = "",
        agrees: bool = False,
        overrides: Iterable[str] = (),
        node_id: int = 0,
    ) -> None:
        self.net = net
        self.number = number
        self.address = f"{host or f'10.0.0.{number}'}:7379"
        self.clock = NodeClock(net.clock)
        self._ahead = ahead
        rng = random.Random(number)
        kept = net.directory / (directory or f"node{number}")
        self.identity = Identity(kept, rng, node_id=node_id)
        self.keyspace = Keyspace(origin=self.identity.node_id, rng=rng, maxmemory=maxmemory)
        self.keyspace.advance(self.now_ms())

        def make_feed(extended: bool) -> Feed:
            return Feed(extended=extended, max_frame=max_frame, outbox_max=outbox, window_count=200)

        self.replicator = CopyReplicator(self.keyspace, clock=self.clock, wall=self.wall, make_feed=make_feed)
        self.metrics = MessageMetrics(SCHEMA)
        router = Router(SCHEMA)
        settings = LinkSettings(max_frame=max_frame, resync_bytes_max=1 << 20, errors_max=16)
        self.peers = PeerFactory(router, self.metrics, settings, clock=self.clock, wall=self.wall)
        self.peers.after_read = self.replicator.poke
        self.applier = Applier(self.keyspace)
        self.dialer = Dialer(
            self.peers, self.clock, rng, endpoint_for=lambda host, port: Endpoint(net, self.address, f"{host}:{port}")
        )
        facts = NodeFacts(f"n{number}", "", self.address, max_frame, SCHEMA.hash())
        seeds = [each if isinstance(each, str) else each.address for each in join]
        self.control: Any = None
        self.failures: list[BaseException] = []
        self.left = False
        if agrees:
            given = [f"cluster.join={','.join(seeds)}", f"cluster.max_nodes={max_nodes}", *overrides]
            try:
                self.control = self._agree(kept, load_settings(overrides=given), rng)
            except HyperCacheError:
                self.identity.close()
                raise
        self.membership = Membership(
            self.identity,
            facts,
            seeds,
            dialer=self.dialer,
            clock=self.clock,
            rng=rng,
            wall=self.wall,
            provider=NoAuthProvider(),
            max_nodes=max_nodes,
        )
        self.peers.terms = self.membership
        self.membership.link_up = self._link_up
        self.membership.link_down = self._link_down
        self.membership.link_moved = self.replicator.link_moved
        self.membership.expects_members = self.replicator.activate
        for handler in (
            JoinHandler(self.membership),
            RingQueryHandler(self.membership),
            RingUpdateHandler(self.membership),
            HeartbeatHandler(),
            ReplicateHandler(self.applier),
            *(self.control.handlers() if agrees else ()),
        ):
            router.add(handler)
        self.heartbeats = Heartbeats(self.membership, clock=self.clock, wall=self.wall, load=lambda: 1234)
        net.listeners[self.address] = lambda transport: self.peers.buildProtocol(None)
        if agrees:
            self.control.attach(self.membership)
        self.membership.start()
        self.heartbeats.start()

    def _agree(self, kept: Path, settings: Any, rng: random.Random) -> ControlPlane:
        self.machine = ClusterMachine(ControlMachine(), RaftStores(), self.wall, rng)
        control = ControlPlane(
            settings,
            self.identity,
            DirectoryDisk(kept / "raft"),
            self.machine,
            clock=self.clock,
            rng=rng,
            journals=(HeldJournal(self.clock), HeldJournal(self.clock)),
            failed=self.failures.append,
        )
        self.machine.on_control = control.agreed
        control.left = self._note_left
        return control

    def _note_left(self) -> None:
        self.left = True

    def _link_up(self, link: PeerLink) -> None:
        self.replicator.link_up(link)
        if self.control is not None:
            self.control.link_up(link)

    def _link_down(self, link: PeerLink) -> None:
        self.replicator.link_down(link)
        if self.control is not None:
            self.control.link_down(link)

    @property
    def agreed(self) -> ControlState:
        state: ControlState = self.control.state
        return state

    @property
    def leads(self) -> bool:
        return bool(self.clock.alive and self.control.leads)

    def propose(self, command: Any) -> Any:
        """Propose an entry of the control plane; return its outcome."""
        outcomes: list[Any] = []
        self.control.propose(proposal(command)).addCallback(decode_outcome).addBoth(outcomes.append)
        self.net.until(lambda: outcomes)
        return outcomes[0]

    def wall(self) -> float:
        return self.net.wall() + self._ahead

    def now_ms(self) -> int:
        return int(self.wall() * 1000)

    def store(self, name: str = "default") -> Store:
        """Return a store, its time brought up to now, and have what is written to it sent."""
        self.keyspace.advance(self.now_ms())
        store = self.keyspace.by_name(name, create=True)
        assert store is not None
        self.replicator.poke()
        return store

    def linked(self) -> set[int]:
        return {member.node_id for member in self.membership.members if member.link is not None}

    def contents(self, name: str = "default") -> dict[bytes, tuple[bytes, int]]:
        store = self.store(name)
        return {key: (store.peek(key) or b"", store.deadline(key) or 0) for key in list(store.keys())}

    def is_level(self) -> bool:
        return all(feed.is_level for feed in self.replicator.feeds.values()) and not any(
            store.dirty for store in self.keyspace.all_stores()
        )

    def kill(self) -> None:
        """End as by kill -9: the kernel tells the peers, the node tells nobody."""
        if self.clock.alive:
            self.clock.alive = False
            self.net.listeners.pop(self.address, None)
            self.identity.close()
            if self.control is not None:
                self.control.stop()
            for transport in self.net.transports:
                if self.address == transport.host and transport.open:
                    transport.open = False
                    self.net.clock.callLater(LATENCY_SECONDS, transport.other.end, ConnectionLost())


class RawPeer:
    """A peer that speaks version 0x01 alone; what it gets is kept, what it says is said by the test."""

    def __init__(self, transport: Any = None, on_message: Callable[[RawPeer, Any], None] | None = None) -> None:
        self.transport: Any = transport
        self.received: list[Any] = []
        self.lost = False
        self._decoder = Decoder(SCHEMA)
        self._on_message = on_message

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            self.received.append(event)
            if self._on_message is not None:
                self._on_message(self, event)

    def send(self, *messages: Any) -> None:
        self.transport.write(b"".join(message.encode_frame() for message in messages))

    def of(self, cls: type) -> list[Any]:
        return [message for message in self.received if isinstance(message, cls)]

    def connectionLost(self, reason: Failure) -> None:
        self.lost = True

    def pauseProducing(self) -> None:
        """Writes are never held back here."""

    def resumeProducing(self) -> None:
        """Nothing is held back."""


def connect_raw(net: Network, node: Node, own: str = "10.9.9.9:5000", on_message: Any = None) -> RawPeer:
    """Return a base peer that has connected to a node."""

    class Once:
        def buildProtocol(self, addr: object) -> RawPeer:
            return RawPeer(on_message=on_message)

    connected: list[RawPeer] = []
    Endpoint(net, own, node.address).connect(Once()).addCallback(connected.append)
    net.run(0.05)
    return connected[0]
