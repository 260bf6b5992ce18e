"""Peers that speak version 0x01 alone: dialling a node, dialled by one, and merely asking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hypercache.wire import Capability, ErrorCode, Operation, Status
from hypercache.wire.messages import (
    GenericError,
    HashRingQuery,
    HashRingUpdate,
    Heartbeat,
    HeartbeatResponse,
    Hello,
    NodeJoinRequest,
    NodeJoinResponse,
    ReplicateData,
    ReplicateResponse,
)
from tests.cluster.network import RawPeer, connect_raw

if TYPE_CHECKING:
    from tests.cluster.network import Network, Node

BASE_ID = 77


def serve(peer: RawPeer, message: Any) -> None:
    """Answer as a base peer that is a cluster of its own would."""
    if isinstance(message, ReplicateData):
        peer.send(ReplicateResponse(Status.SUCCESS, 0))
    elif isinstance(message, Heartbeat):
        peer.send(HeartbeatResponse(message.timestamp, Status.SUCCESS))
    elif isinstance(message, NodeJoinRequest):
        peer.send(NodeJoinResponse(Status.SUCCESS, 0, 0))


def join(net: Network, node: Node, *, node_id: int = BASE_ID) -> RawPeer:
    peer = connect_raw(net, node, on_message=serve)
    peer.send(NodeJoinRequest(node_id, 0, 1, 0, ""))
    net.run(0.1)
    return peer


def told(peer: RawPeer) -> list[tuple[int, bytes, bytes]]:
    return [(message.operation, message.key, message.value) for message in peer.of(ReplicateData)]


def test_a_base_peer_that_joins_gets_what_is_there_and_every_write_as_base_frames(net: Network) -> None:
    node = net.node(1)
    node.store().put(b"before", b"v")
    peer = join(net, node)
    assert peer.of(NodeJoinResponse) == [NodeJoinResponse(Status.SUCCESS, 0, node.identity.cluster_id)]
    assert told(peer) == [(Operation.SET, b"before", b"v")]
    node.store().put(b"k", b"v", node.now_ms() + 10_000)
    net.run(0.05)
    node.store().set_deadline(b"k", node.now_ms() + 20_000)
    net.run(0.05)
    node.store().delete(b"k")
    net.run(0.05)
    assert told(peer)[1:] == [(Operation.SET, b"k", b"v"), (Operation.EXPIRE, b"k", b""), (Operation.DELETE, b"k", b"")]
    ttls = [message.ttl / 1e9 for message in peer.of(ReplicateData)[1:]]
    assert ttls == [pytest.approx(10, abs=0.1), pytest.approx(20, abs=0.1), 0]
    assert all(feed.is_level for feed in node.replicator.feeds.values())
    assert not peer.of(GenericError)


def test_a_flush_is_told_to_a_base_peer_as_one_deletion_a_key(net: Network) -> None:
    node = net.node(1)
    for number in range(20):
        node.store().put(b"%d" % number, b"v")
    peer = join(net, node)
    peer.received.clear()
    node.store().flush()
    node.store().put(b"3", b"again")
    net.run(0.1)
    deleted = {key for operation, key, _ in told(peer) if operation == Operation.DELETE}
    assert deleted == {b"%d" % number for number in range(20)} - {b"3"}
    assert told(peer)[-1][0] == Operation.DELETE or (Operation.SET, b"3", b"again") in told(peer)


def test_a_flush_of_more_keys_than_an_outbox_holds_leaves_some_at_a_base_peer_and_counts_it(net: Network) -> None:
    node = net.node(1, outbox=100)
    for number in range(150):
        node.store().put(b"%d" % number, b"v")
    peer = join(net, node)
    peer.received.clear()
    node.store().flush()
    net.run(0.5)
    assert len(told(peer)) == 100
    assert [feed.left_behind for feed in node.replicator.feeds.values()] == [1]


def test_what_a_base_member_writes_is_not_told_to_others_by_this_node(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: one.linked() and two.linked())
    peer = join(net, one)
    peer.send(ReplicateData(Operation.SET, 0, "", b"k", b"v"))
    net.run(0.2)
    assert one.contents() == {b"k": (b"v", 0)}
    assert two.contents() == {}


def test_a_stranger_is_served_but_fed_nothing_and_its_writes_reach_every_member(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: one.linked() and two.linked())
    peer = connect_raw(net, one)
    peer.send(
        Heartbeat(BASE_ID, 123, 0),
        ReplicateData(Operation.SET, 60_000_000_000, "", b"k", b"v"),
        ReplicateData(Operation.SET, 0, "", b"gone", b"v"),
        ReplicateData(Operation.DELETE, 0, "", b"gone", b""),
        ReplicateData(Operation.SET, 0, "", b"kept", b"v"),
        ReplicateData(Operation.EXPIRE, 30_000_000_000, "", b"kept", b""),
        HashRingQuery(BASE_ID),
    )
    net.run(0.2)
    kinds = [type(message) for message in peer.received]
    assert kinds == [HeartbeatResponse, *[ReplicateResponse] * 5, HashRingUpdate]
    assert peer.received[0].timestamp == 123
    assert all(answer.status == Status.SUCCESS for answer in peer.of(ReplicateResponse))
    assert len(peer.received[-1].nodes) == 2
    assert two.contents() == one.contents()
    assert two.contents().keys() == {b"k", b"kept"}
    assert two.store().deadline(b"k") == pytest.approx(one.now_ms() + 60_000, abs=500)
    one.store().put(b"other", b"v")
    net.run(0.5)
    assert not peer.of(ReplicateData)


def test_an_unknown_operation_is_refused_with_the_low_byte_of_malformed(net: Network) -> None:
    peer = connect_raw(net, net.node(1))
    peer.send(ReplicateData(9, 0, "", b"k", b"v"), ReplicateData(Operation.SET, 0, "", b"k", b"v"))
    net.run(0.1)
    low_byte = ErrorCode.MALFORMED_MESSAGE & 0xFF
    assert peer.received == [ReplicateResponse(Status.ERROR, low_byte), ReplicateResponse(Status.SUCCESS, 0)]


def test_a_base_peer_that_comes_back_replaces_its_old_link_and_gets_everything_again(net: Network) -> None:
    node = net.node(1)
    node.store().put(b"k", b"v")
    first = join(net, node)
    second = join(net, node)
    assert first.lost
    assert told(second) == [(Operation.SET, b"k", b"v")]
    assert len(node.membership.members) == 1


def test_a_base_peer_cannot_take_the_name_of_a_node_that_says_hello(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: one.linked() and two.linked())
    peer = join(net, one, node_id=two.identity.node_id)
    assert peer.of(NodeJoinResponse) == [NodeJoinResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED, 0)]
    assert one.linked() == {two.identity.node_id}


def test_a_node_that_could_say_hello_and_did_not_is_told_to_come_again(net: Network) -> None:
    node = net.node(1)
    peer = connect_raw(net, node)
    peer.send(NodeJoinRequest(BASE_ID, 7379, 1, Capability.STAMPS, "10.9.9.9"))
    net.run(0.1)
    assert peer.received == [NodeJoinResponse(Status.RETRY_LATER, 0, 0)]
    assert not node.linked()


def refuses_hello(peer: RawPeer, message: Any) -> None:
    if isinstance(message, Hello):
        peer.send(GenericError(ErrorCode.UNKNOWN_MESSAGE_TYPE, Hello.TYPE, "?"))
    serve(peer, message)


def closes_at_hello(peer: RawPeer, message: Any) -> None:
    if isinstance(message, Hello):
        peer.transport.loseConnection()
    serve(peer, message)


@pytest.mark.parametrize("behaviour", [refuses_hello, closes_at_hello, serve], ids=["error", "close", "silence"])
def test_a_listener_that_does_not_know_hello_is_linked_as_a_base_peer(net: Network, behaviour: Any) -> None:
    base: list[RawPeer] = []

    def listen(transport: Any) -> RawPeer:
        base.append(RawPeer(transport, behaviour))
        return base[-1]

    net.listeners["10.0.0.66:7379"] = listen
    first = net.node(1)
    first.kill()
    node = net.node(1, join=("10.0.0.66:7379",))
    node.store().put(b"k", b"v")
    net.until(node.linked)
    net.run(0.2)
    assert told(base[-1]) == [(Operation.SET, b"k", b"v")]
    assert len(base) == 2
    base[-1].send(ReplicateData(Operation.SET, 0, "", b"theirs", b"v"))
    net.run(10)
    assert node.store().get(b"theirs") == b"v"
    assert not base[-1].lost
    assert base[-1].of(Heartbeat)[-1].load == 1234
    base[-1].transport.loseConnection()
    node.store().put(b"later", b"v")
    net.until(lambda: (Operation.SET, b"later", b"v") in told(base[-1]))


def test_a_peer_that_loses_count_of_its_answers_is_cut_and_dialled_again(net: Network) -> None:
    def forgetful(peer: RawPeer, message: Any) -> None:
        if not isinstance(message, ReplicateData):
            refuses_hello(peer, message)

    net.listeners["10.0.0.66:7379"] = lambda transport: RawPeer(transport, forgetful)
    net.node(1).kill()
    node = net.node(1, join=("10.0.0.66:7379",))
    net.until(node.linked)
    link = node.membership.links()[0]
    node.store().put(b"k", b"v")
    net.until(lambda: not link.connected_now, 40)
    net.until(node.linked)
