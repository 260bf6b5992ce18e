"""Base peers beside extended ones: with all layers on they get what version 0x01 has promised them (wire.md, sections 1 and 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from hypercache.wire import Decoder
from hypercache.wire.header import HEADER, MAGIC_NUMBER, frame
from hypercache.wire.messages import (
    GenericError,
    HashRingQuery,
    HashRingUpdate,
    Heartbeat,
    HeartbeatResponse,
    Hello,
    KeepAlive,
    NodeJoinRequest,
    NodeJoinResponse,
    ReplicateData,
    ReplicateResponse,
    VoteRequest,
)
from tests.links.messages import Probe, reply
from tests.links.nodes import LinkedNode, Nodes, joining, linked
from tests.links.pair import frames_of
from tests.links.stranger import Stranger, approach
from tests.net.peers import beat, noise, write
from tests.net.sockets import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LAYERS = ("compression.codec=zstd", "rate.per_second=100000", "rate.burst=100000", "cluster.id=77")
DONE = ReplicateResponse(0, 0)


def is_base_alone(peer: Any) -> bool:
    """Whether a peer was never sent a frame of another version."""
    return all(each[4] == 1 for each in frames_of(peer.data))


async def answered(peer: Stranger, data: bytes, count: int) -> list[Any]:
    """Send bytes, and return so many events that come."""
    peer.events.clear()
    peer.transport.write(data)
    await until(lambda: len(peer.events) >= count or peer.lost)
    assert len(peer.events) == count
    return peer.messages


@pytest_twisted.async_yield_fixture
async def members(nodes: Nodes) -> AsyncIterator[list[LinkedNode]]:
    """Two nodes that let everybody in, linked with each other by version 0x02 with every layer that there is."""
    one = await nodes.start(1, *LAYERS)
    two = await nodes.start(2, *LAYERS, joining(one))
    await linked(one, two)
    assert one.link_to(two).extended
    assert len(one.link_to(two).layering._stack or ()) == 2
    yield [one, two]


@pytest_twisted.ensureDeferred
async def test_every_promise_of_version_1_holds(members: list[LinkedNode]) -> None:
    one, two = members
    peer = await approach(one)
    # Heartbeats, writes and the ring; in one write, and by single bytes.
    data = beat(1) + write(b"v") + HashRingQuery(1).encode_frame() + KeepAlive().encode_frame() + beat(2)
    for pieces in ([data], [bytes([each]) for each in data]):
        peer.events.clear()
        for each in pieces:
            peer.transport.write(each)
        await until(lambda: len(peer.events) >= 4)
        first, second, third, fourth = peer.messages
        assert (first, second, fourth) == (HeartbeatResponse(1, 0), DONE, HeartbeatResponse(2, 0))
        assert isinstance(third, HashRingUpdate)
        assert {node.node_id for node in third.nodes} == {1, 2}
    # What it has written is stamped, and goes to the members.
    await until(lambda: two.keyspace.by_name("default", create=True).get(b"k") == b"v")  # type: ignore[union-attr]
    # Very many in one write, each answered, in order.
    assert await answered(peer, b"".join(map(beat, range(5000))), 5000) == [HeartbeatResponse(each, 0) for each in range(5000)]
    assert is_base_alone(peer)


@pytest_twisted.ensureDeferred
async def test_errors_are_what_version_1_knows(members: list[LinkedNode]) -> None:
    one, _ = members
    peer = await approach(one)
    too_large = HEADER.pack(MAGIC_NUMBER, 1, 0x32, 1 << 31, 0)
    bad = (
        frame(1, 0x99, b"")
        + frame(7, 0x32, b"x")
        + beat(1)[:-1]
        + b"\1"
        + too_large
        + noise(1000)
        + VoteRequest(1, 2, 3, 4).encode_frame()
    )
    errors = await answered(peer, bad + beat(7), 6)
    assert [each.error_code for each in errors[:-1]] == [1, 2, 3, 4, 5]
    assert [each.extra_data for each in errors[:2]] == [0x99, 2]
    assert errors[-1] == HeartbeatResponse(7, 0)
    # Errors that it sends are never answered, nor are answers that nobody waits for.
    assert await answered(peer, GenericError(1, 0, "x").encode_frame() * 100 + DONE.encode_frame() * 100 + beat(8), 1)
    # Codes of our own are 0x0007 to it; a malformed message closes.
    (last,) = await answered(peer, frame(1, 0x20, b"short"), 1)
    assert (last.error_code, last.message[:9]) == (7, "malformed")
    await until(lambda: peer.lost)
    assert is_base_alone(peer)
    assert not one.metrics.auth_failures


@pytest_twisted.ensureDeferred
async def test_answers_leave_in_the_order_of_the_requests_whenever_they_are_ready(members: list[LinkedNode]) -> None:
    one, _ = members
    ready: list[Deferred[Any]] = []

    def later(question: Probe) -> Deferred[Any]:
        ready.append(Deferred())
        return ready[-1]

    one.probes.answer = later
    peer = await approach(one)
    probes = [Probe(1, number, b"x") for number in range(3)]
    peer.transport.write(probes[0].encode_frame() + beat(1) + probes[1].encode_frame() + write(b"v") + probes[2].encode_frame())
    await until(lambda: len(ready) == 3)
    for place in (2, 1, 0):
        assert not peer.events
        ready[place].callback(reply(probes[place]))
    await until(lambda: len(peer.events) == 5)
    assert peer.events == [reply(probes[0]), HeartbeatResponse(1, 0), reply(probes[1]), DONE, reply(probes[2])]


@pytest_twisted.ensureDeferred
async def test_a_base_peer_that_joins_gets_every_write_as_plain_frames(members: list[LinkedNode]) -> None:
    one, two = members
    peer = await approach(one)
    peer.transport.write(NodeJoinRequest(70, 0, 1, 0, "").encode_frame())
    assert await peer.said(NodeJoinResponse) == NodeJoinResponse(0, 0, 77)

    acknowledged: list[Any] = []

    def acknowledge() -> set[bytes]:
        for message in peer.messages[len(acknowledged) :]:
            if isinstance(message, ReplicateData):
                peer.transport.write(DONE.encode_frame())
            elif isinstance(message, Heartbeat):
                peer.transport.write(HeartbeatResponse(message.timestamp, 0).encode_frame())
            acknowledged.append(message)
        return {message.key for message in acknowledged if isinstance(message, ReplicateData)}

    for node in members:
        store = node.keyspace.by_name("default", create=True)
        assert store is not None
        store.put(b"of node %d" % node.node_id, b"compressible " * 1000)
        node.replicator.poke()
    # Node one sends what was written there; node two cannot reach a peer without an address.
    await until(lambda: b"of node 1" in acknowledge())
    written = {message.key: message.value for message in acknowledged if isinstance(message, ReplicateData)}
    assert written[b"of node 1"] == b"compressible " * 1000
    await until(lambda: two.keyspace.by_name("default").get(b"of node 1"))  # type: ignore[union-attr]
    assert is_base_alone(peer)
    assert {link.node_id for link in one.membership.links()} == {2, 70}
    # What the base member writes is stamped, and told on by nobody but itself.
    peer.transport.write(write(b"v"))
    await until(lambda: one.keyspace.by_name("default").get(b"k") == b"v")  # type: ignore[union-attr]


@pytest.mark.parametrize("policy", ["pause", "reject"])
@pytest_twisted.ensureDeferred
async def test_the_rate_limit_holds_base_peers_too_and_loses_no_answer(nodes: Nodes, policy: str) -> None:
    one = await nodes.start(1, "rate.per_second=2000", "rate.burst=300", f"rate.policy={policy}")
    peer = await approach(one)
    # By its first frame it is known for a base peer; what comes in the same read with that is not limited.
    assert await answered(peer, beat(1), 1)
    count = 400
    answers = await answered(peer, (beat(1) + write(b"v")) * count, 2 * count)
    beats, writes = answers[::2], answers[1::2]
    if policy == "pause":
        assert beats == [HeartbeatResponse(1, 0)] * count
        assert writes == [DONE] * count
    else:
        refused = [each for each in beats if each != HeartbeatResponse(1, 0)]
        assert refused
        assert all((each.error_code, each.message) == (7, "more than the rate limit of this link allows") for each in refused)
        assert {each.status for each in writes} == {0, 2}
    assert one.metrics.rate_limited
    assert is_base_alone(peer)


class BaseListener(Protocol):
    """A peer of version 0x01 that is dialled: it does not know Hello."""

    transport: Any

    def __init__(self, made: list[BaseListener], greeting: bytes) -> None:
        self.data = b""
        self.received: list[Any] = []
        self._made = made
        self._greeting = greeting
        self._decoder = Decoder()

    def connectionMade(self) -> None:
        self._made.append(self)
        if self._greeting:
            self.transport.write(self._greeting)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for message in self._decoder.feed(data):
            self.received.append(message)
            answer: Any = None
            if isinstance(message, Hello):
                answer = GenericError(1, 1, "unknown message type 0x01")
            elif isinstance(message, NodeJoinRequest):
                answer = NodeJoinResponse(0, 0, 77)
            elif isinstance(message, Heartbeat):
                answer = HeartbeatResponse(message.timestamp, 0)
            elif isinstance(message, ReplicateData):
                answer = DONE
            if answer is not None:
                self.transport.write(answer.encode_frame())


@pytest.mark.parametrize("greeting", [b"", beat(1), KeepAlive().encode_frame()], ids=["silent", "speaks first", "keeps alive"])
@pytest_twisted.ensureDeferred
async def test_a_base_peer_that_is_dialled_is_linked_beside_an_extended_one(nodes: Nodes, greeting: bytes) -> None:
    made: list[BaseListener] = []

    def build(addr: Any) -> BaseListener:
        return BaseListener(made, greeting)

    factory: Any = Factory()
    factory.noisy = False
    factory.buildProtocol = build
    port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        one = await nodes.start(1, *LAYERS)
        two = await nodes.start(2, *LAYERS, joining(one, port.getHost().port))
        await until(lambda: len(two.membership.links()) == 2)
        store = two.keyspace.by_name("default", create=True)
        assert store is not None
        store.put(b"k", b"compressible " * 1000)
        two.replicator.poke()
        last = made[-1]

        def has(condition: Callable[[Any], bool]) -> bool:
            return any(condition(message) for message in last.received)

        await until(lambda: has(lambda message: isinstance(message, ReplicateData) and message.value == b"compressible " * 1000))
        await until(lambda: has(lambda message: isinstance(message, Heartbeat)))
        await until(lambda: one.keyspace.by_name("default", create=True).get(b"k"))  # type: ignore[union-attr]
        assert is_base_alone(last)
        assert not has(lambda message: isinstance(message, Hello))
        assert sorted(link.extended for link in two.membership.links()) == [False, True]
    finally:
        await port.stopListening()
        for each in made:
            each.transport.abortConnection()
