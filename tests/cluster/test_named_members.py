"""HYPERCACHE.NODE: members listed, removed, and told to lead, as a client asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hypercache.cluster.named_members import NamedMembers
from hypercache.wire import NodeType
from hypercache.wire.messages import NodeJoinRequest, NodeJoinResponse
from tests.cluster.network import connect_raw
from tests.cluster.test_cluster_agreement import cluster, leader_of, settle
from tests.resp.exchange import EngineClient

if TYPE_CHECKING:
    from tests.cluster.network import Network, Node


def members_of(node: Node) -> NamedMembers:
    return NamedMembers(node.control, node.clock)


def reply_to(net: Network, start: Any, *arguments: Any) -> bytes:
    replies: list[bytes] = []
    start(*arguments, replies.append)
    assert not replies, "never before the call has returned"
    net.until(lambda: replies, 20)
    return replies[0]


def test_members_are_listed_with_what_they_are(net: Network) -> None:
    nodes = cluster(net, 2)
    base = connect_raw(net, nodes[0])
    base.send(NodeJoinRequest(77, 7379, NodeType.CACHE, 0, "10.9.9.9"))
    net.until(lambda: base.of(NodeJoinResponse) and 77 in nodes[1].agreed.members)
    leader = leader_of(net, nodes)
    listed = {facts.node_id: facts for facts in members_of(nodes[1]).all()}
    assert {node_id: facts.role for node_id, facts in listed.items()} == {
        **{node.identity.node_id: "leader" if node is leader else "voter" for node in nodes},
        77: "base peer",
    }
    assert [facts.node_id for facts in listed.values() if facts.is_self] == [nodes[1].identity.node_id]
    assert listed[nodes[0].identity.node_id].address == nodes[0].address


def test_a_member_is_removed_and_the_reply_comes_when_it_is_gone(net: Network) -> None:
    nodes = cluster(net, 3)
    gone = nodes[2].identity.node_id
    assert reply_to(net, members_of(nodes[0]).remove, gone) == b"+OK\r\n"
    assert gone not in nodes[0].agreed.members
    net.until(lambda: nodes[2].left)
    assert reply_to(net, members_of(nodes[0]).remove, gone) == b"+OK\r\n"
    assert reply_to(net, members_of(nodes[0]).remove, 12345).startswith(b"-ERR node 12345 is no member")


def test_a_node_leaves_by_itself(net: Network) -> None:
    nodes = cluster(net, 3)
    leaving = leader_of(net, nodes)
    members_of(leaving).remove(0, lambda reply: None)
    net.until(lambda: leaving.left, 20)
    settle(net, [node for node in nodes if node is not leaving])


def test_without_a_majority_nobody_is_removed(net: Network) -> None:
    nodes = cluster(net, 3)
    for node in nodes[1:]:
        node.kill()
    assert reply_to(net, members_of(nodes[0]).remove, nodes[1].identity.node_id).startswith(b"-CLUSTERDOWN")


def test_the_leadership_is_handed_over_by_the_leader_alone(net: Network) -> None:
    nodes = cluster(net, 3)
    leader = leader_of(net, nodes)
    heir, other = [node for node in nodes if node is not leader]
    assert reply_to(net, members_of(other).transfer, heir.identity.node_id).startswith(b"-ERR")
    assert reply_to(net, members_of(leader).transfer, 12345).startswith(b"-ERR")
    assert reply_to(net, members_of(leader).transfer, heir.identity.node_id) == b"+OK\r\n"
    net.until(lambda: heir.leads, 1)


@pytest.mark.parametrize("word", ["", "0", "-1", "x", "1.5", str(1 << 64), "9" * 100])
def test_what_is_no_id_is_refused(word: str) -> None:
    class Members:
        def all(self) -> list[Any]:
            return []

        def remove(self, node_id: int, done: Any) -> None:
            raise AssertionError("nothing was to be asked")

        def transfer(self, node_id: int, done: Any) -> None:
            raise AssertionError("nothing was to be asked")

    client = EngineClient()
    client.server.members = Members()
    assert client.run("HYPERCACHE.NODE", "REMOVE", word).startswith(b"-ERR a node's id is a number")
    assert client.run("HYPERCACHE.NODE", "LIST") == b"*0\r\n"
    assert client.run("HYPERCACHE.NODE").startswith(b"-ERR wrong number of arguments")


def test_a_node_without_a_group_says_so() -> None:
    assert EngineClient().run("HYPERCACHE.NODE", "LIST").startswith(b"-ERR this node takes no part")
