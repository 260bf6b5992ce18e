"""Who becomes a member, and which links there are."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
import xxhash

from hypercache.cluster.dialer import Reach
from hypercache.limits import VNODES_COUNT
from hypercache.wire import ErrorCode, Status
from hypercache.wire.messages import HashRingUpdate, Heartbeat, Hello, NodeJoinRequest, NodeJoinResponse, RingNode
from tests.cluster.network import Network, RawPeer, connect_raw

if TYPE_CHECKING:
    from tests.cluster.network import Node


def is_mesh(*nodes: Node) -> bool:
    ids = {node.identity.node_id for node in nodes}
    return all(node.linked() == ids - {node.identity.node_id} for node in nodes)


def links_open(net: Network) -> int:
    return sum(transport.open for transport in net.transports) // 2


def test_three_nodes_become_a_full_mesh_by_joining_one_of_them(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    three = net.node(3, join=(one,))
    net.until(lambda: is_mesh(one, two, three))
    net.run(1)
    assert links_open(net) == 3
    three.store().put(b"k", b"v")
    two.store().put(b"l", b"v")
    net.run(0.1)
    for node in (one, two, three):
        assert node.contents().keys() == {b"k", b"l"}
    three.kill()
    two.store().flush()
    net.run(0.1)
    assert one.contents() == {}


def test_seven_nodes_that_start_at_once_become_a_full_mesh_with_one_link_a_pair(net: Network) -> None:
    first = net.node(1)
    nodes = [first, *(net.node(number, join=(first,)) for number in range(2, 8))]
    net.until(lambda: is_mesh(*nodes), 20)
    net.run(2)
    assert is_mesh(*nodes)
    assert links_open(net) == 21


def test_two_nodes_that_dial_each_other_at_once_keep_the_link_of_the_smaller_id(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    for _ in range(10):
        net.reset(one, two)
        net.until(lambda: is_mesh(one, two))
        net.run(1)
        assert is_mesh(one, two)
        assert links_open(net) == 1
    smaller, larger = sorted((one, two), key=lambda node: node.identity.node_id)
    # Both hold the same link, whoever dialled it.
    assert smaller.membership.links()[0].dialled != larger.membership.links()[0].dialled


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_links_the_smaller_id_dialled_stays_at_both_ends(net: Network, first: int) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    nodes = (one, two) if first else (two, one)
    for node, other in (nodes, nodes[::-1]):
        Reach(other.address, 0, node.dialer, node.membership._joining._introduce).start()
    net.reset(one, two)
    net.until(lambda: is_mesh(one, two))
    net.run(1)
    smaller, larger = sorted((one, two), key=lambda node: node.identity.node_id)
    assert smaller.membership.links()[0].dialled
    assert not larger.membership.links()[0].dialled


def test_a_node_dials_neither_itself_nor_a_linked_node_under_a_second_address_again_and_again(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one, "10.0.0.2:7379", "10.0.5.5:7379"))
    net.listeners["10.0.5.5:7379"] = net.listeners[one.address]
    net.until(lambda: is_mesh(one, two))
    net.run(3)
    dials = len(net.dials)
    net.run(20)
    assert len(net.dials) == dials
    assert is_mesh(one, two)


def test_of_a_node_known_under_several_addresses_one_is_dialled_at_a_time(net: Network) -> None:
    one = net.node(1)
    aliases = [f"10.0.5.{number}:7379" for number in range(5)]
    for alias in aliases:
        net.listeners[alias] = net.listeners[one.address]
    two = net.node(2, join=(one, *aliases))
    net.until(lambda: is_mesh(one, two))
    net.run(3)
    dials = len(net.dials)
    for node in (one, two):
        node.membership.links()[0].transport.end(ConnectionError())
    net.until(lambda: is_mesh(one, two))
    net.run(3)
    assert [dial for dial in net.dials[dials:] if dial[0] == two.address][1:] == []


def test_an_address_to_join_is_dialled_for_ever_with_growing_jittered_waits(net: Network) -> None:
    net.node(1, join=("10.0.8.8:7379",))
    net.run(60)
    dials = len(net.dials)
    assert 10 < dials < 40
    net.run(60)
    assert 60 / 5 <= len(net.dials) - dials <= 60 / 2.5 + 2


def test_only_a_node_that_joins_nobody_founds_a_cluster(net: Network) -> None:
    one = net.node(1, join=("10.0.0.2:7379",))
    two = net.node(2, join=("10.0.0.1:7379",))
    net.run(10)
    assert one.identity.cluster_id == two.identity.cluster_id == 0
    assert not one.linked()
    founder = net.node(3)
    late = net.node(4, join=(founder,))
    net.until(lambda: late.identity.cluster_id == founder.identity.cluster_id != 0)


def test_a_node_that_has_a_cluster_takes_join_as_addresses_and_refuses_another_cluster(net: Network) -> None:
    one, other = net.node(1), net.node(2)
    other.kill()
    two = net.node(2, join=(one,))
    net.run(10)
    assert not one.linked()
    assert not two.linked()
    assert two.identity.cluster_id != one.identity.cluster_id
    assert len(one.membership.members) == 0


def test_a_full_cluster_refuses_with_its_code(net: Network) -> None:
    one = net.node(1, max_nodes=2)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    three = net.node(3, join=(one,))
    net.run(3)
    assert not three.linked()
    raw = connect_raw(net, one)
    raw.send(NodeJoinRequest(9, 7379, 1, 0, "10.9.9.9"))
    net.run(0.1)
    assert raw.of(NodeJoinResponse) == [NodeJoinResponse(Status.ERROR, ErrorCode.CLUSTER_FULL, 0)]
    # A member that returns is no new one.
    two.kill()
    again = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, again))


def test_a_dead_member_is_kept_and_found_when_it_is_back_even_by_a_node_that_joined_nobody(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    two.kill()
    net.run(60)
    assert [member.node_id for member in one.membership.members] == [two.identity.node_id]
    back = net.node(2)
    net.until(lambda: is_mesh(one, back))


def test_the_ring_has_every_member_with_its_hash_and_address(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    nodes = {node.identity.node_id: node.address for node in (one, two)}
    expected = tuple(
        RingNode(node_id, xxhash.xxh64_intdigest(node_id.to_bytes(8, "big"), 0), VNODES_COUNT, address)
        for node_id, address in sorted(nodes.items())
    )
    assert one.membership.ring().nodes == expected == two.membership.ring().nodes


def test_a_ring_from_somebody_who_is_no_member_teaches_nothing(net: Network) -> None:
    one = net.node(1)
    raw = connect_raw(net, one)
    raw.send(HashRingUpdate(9, (RingNode(77, 1, 128, "10.0.0.77:7379"),)))
    net.run(0.5)
    assert one.membership.members == []


def test_heartbeats_carry_the_load_every_half_second_and_are_answered(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    sent, answered = one.metrics.meter(0x32).sent, one.metrics.meter(0x33).received
    net.run(10)
    assert 19 <= one.metrics.meter(0x32).sent - sent <= 21
    assert 19 <= one.metrics.meter(0x33).received - answered <= 21


def test_a_silent_incumbent_loses_against_a_new_link(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    smaller, larger = sorted((one, two), key=lambda node: node.identity.node_id)
    # The larger has lost the link and the smaller has not noticed: of its own the larger could not replace it.
    old = smaller.membership.links()[0]
    if not old.dialled:
        old.dialled = True
    larger.membership.links()[0].transport.end(ConnectionError())
    net.run(1)
    assert old.connected_now
    net.until(lambda: smaller.membership.links() and smaller.membership.links()[0] is not old, 4)
    net.until(lambda: is_mesh(one, two))
    assert not old.connected_now


def test_who_speaks_in_anothers_name_is_refused_and_closed(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    link = two.membership.links()[0]
    errors: list[Any] = []
    link.request(Heartbeat(4711, 0, 0)).addErrback(lambda failure: errors.append(failure.value))
    net.run(0.1)
    assert [error.code for error in errors] == [ErrorCode.NOT_AUTHORIZED]
    assert not link.connected_now
    net.until(lambda: is_mesh(one, two))


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_whatever_order_three_nodes_restart_in_they_find_each_other_and_are_level(net: Network, order: tuple[int, ...]) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    three = net.node(3, join=(one,))
    nodes = {1: one, 2: two, 3: three}
    net.until(lambda: is_mesh(*nodes.values()))
    one.store().put(b"k", b"v")
    net.run(0.1)
    for number in order:
        nodes[number].kill()
        net.run(0.3)
        nodes[number] = net.node(number, join=() if number == 1 else (one,))
        net.until(lambda: is_mesh(*nodes.values()), 20)
        net.run(0.1)
    for node in nodes.values():
        assert node.contents() == {b"k": (b"v", 0)}


def silent(peer: RawPeer, message: Any) -> None:
    """Answer nothing."""


def test_an_own_node_whose_answer_to_hello_is_late_is_never_linked_as_a_base_peer(net: Network) -> None:
    one = net.node(1)
    genuine = net.listeners[one.address]
    net.listeners[one.address] = lambda transport: RawPeer(transport, silent)
    two = net.node(2, join=(one,))
    net.run(3.5)
    net.listeners[one.address] = genuine
    net.until(lambda: is_mesh(one, two), 20)
    assert all(link.extended for link in one.membership.links() + two.membership.links())


def test_a_second_hello_on_a_link_closes_it(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: is_mesh(one, two))
    dialler = one if one.membership.links()[0].dialled else two
    link = dialler.membership.links()[0]
    link.send(dialler.membership.hello(Hello, ""))
    net.run(0.05)
    assert not link.connected_now
    net.until(lambda: is_mesh(one, two))
