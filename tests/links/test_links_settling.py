"""Two nodes settle on one link, whatever they dial at once; and a link that ends in good order loses nothing that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from hypercache.cluster.dialer import Reach
from hypercache.errors import LinkLostError
from hypercache.limits import INCUMBENT_SILENCE_SECONDS, LINK_LINGER_SECONDS
from hypercache.net.lifecycle import LinkState
from hypercache.wire.messages import Heartbeat, NodeJoinRequest, NodeJoinResponse, ReplicateData
from tests.links.messages import Probe, reply
from tests.links.nodes import NOWHERE, LinkedNode, Nodes, credential, hmac, joining, linked
from tests.links.pair import Pair
from tests.links.relay import Relay
from tests.links.stranger import Stranger, approach
from tests.net.sockets import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IN_CLUSTER = "cluster.id=77"


@pytest_twisted.async_yield_fixture
async def relay() -> AsyncIterator[Relay]:
    made = await Relay().start()
    yield made
    await made.stop()


def hold_one_connection(*nodes: LinkedNode) -> bool:
    """Say whether each pair of nodes has one connection, and both its ends are the members' links."""
    if not all(node.has_linked(*nodes) for node in nodes):
        return False
    ends = set()
    for node in nodes:
        if len(node.peers.links) != len(nodes) - 1:
            return False
        for link in node.peers.links:
            if not link.member:
                return False
            ends.add(frozenset((link.transport.getHost().port, link.transport.getPeer().port)))
    return len(ends) == len(nodes) * (len(nodes) - 1) // 2


async def answers(one: LinkedNode, other: LinkedNode) -> None:
    for asker, asked in ((one, other), (other, one)):
        question = Probe(asker.node_id, 1, b"there?")
        assert await asker.link_to(asked).request(question) == reply(question)


@pytest_twisted.ensureDeferred
async def test_nodes_that_dial_each_other_at_once_settle_on_one_connection_a_pair(nodes: Nodes) -> None:
    keys = hmac(nodes.directory / "keys", credential())
    first = await nodes.start(1, *keys, IN_CLUSTER)
    made = [first, *[await nodes.start(node_id, *keys, IN_CLUSTER, joining(first)) for node_id in (2, 3)]]
    await until(lambda: hold_one_connection(*made))
    for _ in range(10):
        # All lose all links in the same moment, and all know where the others are.
        for node in made:
            for link in node.membership.links():
                link.transport.abortConnection()
        await until(lambda: not any(node.peers.links for node in made) or not hold_one_connection(*made))
        await until(lambda: hold_one_connection(*made))
    await answers(made[0], made[1])
    await answers(made[1], made[2])


async def joined(node: LinkedNode, boot: int, node_id: int = 50) -> Stranger:
    """Return a stranger that has become a member, or has tried to."""
    stranger = await approach(node, node_id=node_id, boot=boot, cluster_id=77)
    await stranger.link(credential())
    stranger.send(NodeJoinRequest(node_id, 0, 1, 0, ""))
    await stranger.said(NodeJoinResponse)
    return stranger


@pytest_twisted.ensureDeferred
async def test_of_two_links_under_one_id_that_of_the_higher_boot_stays(nodes: Nodes) -> None:
    one = await nodes.start(1, *hmac(nodes.directory / "keys", credential()), IN_CLUSTER)
    second = await joined(one, 2)
    await until(lambda: one.membership.links())
    (link,) = one.membership.links()
    assert link.boot == 2
    # A copy of the node as it was before its restart, whichever comes first.
    first = await approach(one, node_id=50, boot=1, cluster_id=77)
    first.transport.write(await first.greet(credential()))
    await until(lambda: first.lost)
    assert one.membership.links() == [link]
    third = await joined(one, 3)
    await until(lambda: second.lost)
    (link,) = one.membership.links()
    assert link.boot == 3
    assert not third.lost


@pytest_twisted.ensureDeferred
async def test_a_node_that_has_restarted_is_taken_at_once_though_its_old_link_still_stands(nodes: Nodes, relay: Relay) -> None:
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys, IN_CLUSTER, "cluster.silence=60")
    relay.target = one.port
    two = await nodes.start(2, *keys, IN_CLUSTER, joining(relay.port), f"node.advertise={NOWHERE}")
    await linked(one, two)
    old = one.link_to(two)
    # The machine of node two dies: nobody tells node one.
    for each in relay.connections:
        each.silent = True
    await nodes.stop(two)
    again = await nodes.start(2, *keys, IN_CLUSTER, joining(relay.port), f"node.advertise={NOWHERE}")
    await linked(one, again)
    assert one.link_to(again).boot == old.boot + 1
    await until(lambda: not old.connected_now)
    await answers(one, again)


@pytest_twisted.ensureDeferred
async def test_a_link_over_which_nothing_comes_loses_against_a_new_one_after_two_seconds(nodes: Nodes, relay: Relay) -> None:
    """The link that the smaller id dialled would stay, but for its silence."""
    keys = hmac(nodes.directory / "keys", credential())
    two = await nodes.start(2, *keys, IN_CLUSTER, "cluster.silence=60", f"node.advertise={NOWHERE}")
    relay.target = two.port
    one = await nodes.start(1, *keys, IN_CLUSTER, joining(relay.port), "cluster.silence=60")
    await linked(one, two)
    incumbent = two.link_to(one)
    assert not incumbent.dialled
    joins = two.membership._joining
    reach = Reach(one.address, 1, joins._dialer, joins._introduce)
    reach.start()
    clock: Any = reactor
    # As long as it is heard of, it stays.
    refused = one.metrics.meter(1).received
    await until(lambda: one.metrics.meter(1).received > refused + 2)
    assert two.link_to(one) is incumbent
    began = clock.seconds()
    relay.connections[0].silent = True
    await until(lambda: two.member(one) is not None and two.link_to(one) is not incumbent)
    assert clock.seconds() - began > INCUMBENT_SILENCE_SECONDS - 0.6, "the last that came is as old as a heartbeat"
    assert two.link_to(one).dialled
    await until(lambda: not incumbent.connected_now)
    await until(lambda: one.has_linked(two) and two.has_linked(one))
    await answers(one, two)
    reach.stop()


@pytest_twisted.ensureDeferred
async def test_a_node_that_shuts_down_answers_what_it_was_asked_and_hears_what_it_has_asked(nodes: Nodes) -> None:
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys, IN_CLUSTER)
    two = await nodes.start(2, *keys, IN_CLUSTER, joining(one))
    await linked(one, two)
    ready = {node.node_id: Deferred[Any]() for node in (one, two)}
    for node in (one, two):
        node.probes.answer = lambda question, node=node: ready[node.node_id]  # type: ignore[misc]
    got: list[Any] = []
    one.link_to(two).request(Probe(1, 1, b"to two")).addBoth(got.append)
    two.link_to(one).request(Probe(2, 2, b"to one")).addBoth(got.append)
    await until(lambda: len(one.of(Probe)) == len(two.of(Probe)) == 1)
    links = one.link_to(two), two.link_to(one)
    over: list[Any] = []
    one.peering.leave().addCallback(over.append)
    await until(lambda: all(link.state is LinkState.CLOSING for link in links))
    for link in links:
        with pytest.raises(LinkLostError):
            await link.request(Probe(9, 9, b"too late"))
    assert not got
    assert not over
    ready[1].callback(reply(Probe(2, 2, b"to one")))
    await until(lambda: len(got) == 1)
    assert not over
    ready[2].callback(reply(Probe(1, 1, b"to two")))
    await until(lambda: over)
    assert sorted(got, key=lambda answer: answer.number) == [reply(Probe(1, 1, b"to two")), reply(Probe(2, 2, b"to one"))]
    await until(lambda: all(link.state is LinkState.DISCONNECTED for link in links))


@pytest_twisted.ensureDeferred
async def test_a_node_that_shuts_down_is_gone_soon_although_others_go_on_writing(nodes: Nodes) -> None:
    """Who has heard the goodbye sends no more writes over that link."""
    keys = hmac(nodes.directory / "keys", credential())
    one = await nodes.start(1, *keys, IN_CLUSTER)
    two = await nodes.start(2, *keys, IN_CLUSTER, joining(one))
    await linked(one, two)
    store = two.keyspace.by_name("default", create=True)
    assert store is not None

    def write() -> None:
        for number in range(100):
            store.put(b"k%d" % number, b"v" * 100)
        two.replicator.poke()

    writing = LoopingCall(write)
    writing.start(0.001)
    await until(lambda: len(one.of(ReplicateData)) > 1000)
    clock: Any = reactor
    began = clock.seconds()
    over: list[Any] = []
    one.peering.leave().addCallback(over.append)
    await until(lambda: over)
    writing.stop()
    assert clock.seconds() - began < LINK_LINGER_SECONDS / 2
    await until(lambda: not two.membership.links())


def test_a_goodbye_waits_for_no_answer_for_ever() -> None:
    pair = Pair().negotiate()
    pair.listener.handlers[Heartbeat.TYPE] = lambda message: Deferred()
    pair.dialler.ask(Heartbeat(5, 1, 1), timeout=60)
    pair.run()
    pair.listener.link.retire("it shuts down")
    pair.run()
    for side in pair.sides:
        assert side.link.state is LinkState.CLOSING
    pair.clock.pump([0.5] * round(2 * (LINK_LINGER_SECONDS - 1)))
    assert not pair.listener.is_gone
    assert pair.is_over(2)
    assert all(side.link.state is LinkState.DISCONNECTED for side in pair.sides)
    (answer,) = pair.dialler.answers
    assert isinstance(answer, LinkLostError)


def test_what_was_asked_before_a_goodbye_was_heard_is_answered() -> None:
    """Both say goodbye at once, and both have asked something a moment before."""
    pair = Pair().negotiate()
    for side in pair.sides:
        for number in range(20):
            side.ask(Heartbeat(side.node_id, number, 1))
        side.link.retire("enough")
        side.link.retire("enough, really")
    pair.run()
    for side in pair.sides:
        assert [answer.timestamp for answer in side.answers] == list(range(20))
        assert side.link.state is LinkState.DISCONNECTED
