"""From the door to the replicas: the changes that traced commands make carry a child of their trace."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from hypercache.replication.feed import Feed
from hypercache.replication.journal import take_changes
from hypercache.replication.outbox import Change
from hypercache.replication.traces import TracedKeys
from hypercache.store import Keyspace
from hypercache.wire import Capability, Extension, Operation
from hypercache.wire.messages import ReplicateData
from hypercache.wire.tracing import parent_span_id, span_id, trace_id
from tests.cluster.network import Network, Node
from tests.cluster.test_cluster_base_peers import join
from tests.replication.pipes import NOW_MS, opened
from tests.resp.exchange import EngineClient, request
from tests.tracing.recording import TRACE_ID, TRACEPARENT, RecordingTracer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hypercache.wire.extension import Trace


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.close()


def trace_node(node: Node) -> RecordingTracer:
    """Have a node trace: what it sends, and what it is sent."""
    tracer = RecordingTracer(node_id=node.identity.node_id, seed=node.number)
    node.replicator.tracer = tracer
    # Who is about to join replicates already; who founds a cluster, from its first member on.
    tracer.replicates = node.store().dirty is not None
    node.peers.tracer = tracer
    return tracer


def door_of(node: Node, tracer: RecordingTracer) -> EngineClient:
    client = EngineClient()
    client.keyspace = client.server.keyspace = node.keyspace
    client.server.tracer = tracer
    client.now_ms = node.now_ms()
    client.connect()
    return client


def run(node: Node, client: EngineClient, *args: str | int) -> bytes:
    client.now_ms = node.now_ms()
    reply = client.run(*args)
    node.replicator.poke()
    return reply


def traced_changes(tracer: RecordingTracer) -> list[Any]:
    return [span for span in tracer.spans if span.name == "ReplicateData"]


class Cluster:
    """Two or three nodes that trace."""

    def __init__(self, net: Network, count: int) -> None:
        self.net = net
        first = net.node(1)
        self.nodes = [first, *(net.node(number, join=(first,)) for number in range(2, count + 1))]
        self.tracers = [trace_node(node) for node in self.nodes]
        net.until(lambda: all(len(node.linked()) == count - 1 for node in self.nodes))
        net.run(0.3)
        self.client = door_of(self.nodes[0], self.tracers[0])

    def run(self, *args: str | int, traced: bool = False) -> None:
        if traced:
            assert run(self.nodes[0], self.client, "HYPERCACHE.TRACE", TRACEPARENT) == b"+OK\r\n"
        assert not run(self.nodes[0], self.client, *args).startswith(b"-")
        self.net.run(0.1)


def test_a_traced_write_is_seen_on_every_replica_as_the_commands_child(net: Network) -> None:
    cluster = Cluster(net, 3)
    cluster.run("SET", "k", "v", traced=True)
    (command,) = cluster.tracers[0].spans
    changes = [traced_changes(tracer) for tracer in cluster.tracers[1:]]
    assert [len(each) for each in changes] == [1, 1]
    for node, tracer, (span,) in zip(cluster.nodes[1:], cluster.tracers[1:], changes, strict=True):
        assert trace_id(span.trace).hex() == trace_id(command.trace).hex() == TRACE_ID
        assert parent_span_id(span.trace) == span_id(command.trace)
        assert span.trace.parent_id == command.trace.request_id
        assert span.trace.path == (cluster.nodes[0].identity.node_id,)
        assert span.attributes["hypercache.peer"] == str(cluster.nodes[0].identity.node_id)
        assert node.store().get(b"k") == b"v"
        tracer.admit(span.trace)
    assert len({span.trace.request_id for (span,) in changes}) == 2


def test_untraced_changes_carry_nothing_and_a_trace_is_used_once(net: Network) -> None:
    cluster = Cluster(net, 2)
    cluster.run("SET", "k", "1")
    cluster.run("SET", "k", "2", traced=True)
    cluster.run("SET", "k", "3")
    cluster.run("GET", "k", traced=True)
    cluster.run("SET", "k", "4")
    assert cluster.nodes[1].store().get(b"k") == b"4"
    assert len(traced_changes(cluster.tracers[1])) == 1


def test_deadlines_deletions_and_several_keys_travel_traced(net: Network) -> None:
    cluster = Cluster(net, 2)
    cluster.run("MSET", "a", 1, "b", 2, traced=True)
    cluster.run("EXPIRE", "a", 100, traced=True)
    cluster.run("DEL", "a", "b", "none", traced=True)
    spans = traced_changes(cluster.tracers[1])
    assert len(spans) == 2 + 1 + 2
    assert {trace_id(span.trace).hex() for span in spans} == {TRACE_ID}
    assert cluster.nodes[1].contents() == {}


def test_a_traced_command_that_changes_nothing_leaves_no_trace_for_a_later_change(net: Network) -> None:
    cluster = Cluster(net, 2)
    cluster.run("SET", "k", "v")
    refused = request("HYPERCACHE.TRACE", TRACEPARENT) + request("SET", "k", "w", "NX")
    assert cluster.client.raw(request("SET", "other", "v") + refused) == b"+OK\r\n+OK\r\n$-1\r\n"
    cluster.nodes[0].replicator.poke()
    net.run(0.1)
    cluster.run("SET", "k", "x")
    assert traced_changes(cluster.tracers[1]) == []
    assert cluster.tracers[0].changed.held == {}


def test_the_same_key_of_another_store_is_not_taken_for_the_traced_one(net: Network) -> None:
    cluster = Cluster(net, 2)
    cluster.run("SELECT", 2)
    cluster.run("SET", "k", "v")
    refused = request("HYPERCACHE.TRACE", TRACEPARENT) + request("SET", "k", "w", "NX")
    cluster.client.raw(request("SELECT", 0) + request("SET", "k", "v") + request("SELECT", 2) + refused)
    cluster.nodes[0].replicator.poke()
    net.run(0.1)
    cluster.run("SET", "k", "x")
    assert traced_changes(cluster.tracers[1]) == []
    cluster.run("SET", "k", "y", traced=True)
    assert len(traced_changes(cluster.tracers[1])) == 1
    assert cluster.nodes[1].contents("db2") == {b"k": (b"y", 0)}


def test_what_comes_from_a_member_is_not_traced_on(net: Network) -> None:
    cluster = Cluster(net, 2)
    sent = cluster.nodes[1].metrics.meter(ReplicateData.TYPE).sent
    cluster.run("SET", "k", "v", traced=True)
    assert cluster.nodes[1].metrics.meter(ReplicateData.TYPE).sent == sent
    assert cluster.tracers[1].changed.held == {}
    assert traced_changes(cluster.tracers[0]) == []


def test_a_base_peer_gets_its_change_without_a_trace(net: Network) -> None:
    node = net.node(1)
    tracer = trace_node(node)
    peer = join(net, node)
    client = door_of(node, tracer)
    run(node, client, "HYPERCACHE.TRACE", TRACEPARENT)
    run(node, client, "SET", "k", "w")
    net.run(0.2)
    assert [(message.key, message.value) for message in peer.of(ReplicateData)] == [(b"k", b"w")]
    assert [span.name for span in tracer.spans] == ["set"]
    assert tracer.changed.held == {}


def test_a_peer_that_knows_no_traces_gets_none(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    two.membership.facts = msgspec.structs.replace(
        two.membership.facts, capabilities=two.membership.facts.capabilities & ~Capability.TRACING
    )
    tracers = [trace_node(one), trace_node(two)]
    net.until(lambda: one.linked() and two.linked())
    net.run(0.3)
    client = door_of(one, tracers[0])
    run(one, client, "HYPERCACHE.TRACE", TRACEPARENT)
    run(one, client, "SET", "k", "v")
    net.run(0.2)
    assert two.store().get(b"k") == b"v"
    assert (len(tracers[0].spans), tracers[1].spans) == (1, [])


def test_a_change_from_outside_of_the_cluster_is_traced_on_to_the_members(net: Network) -> None:
    cluster = Cluster(net, 2)
    tracer, node = cluster.tracers[0], cluster.nodes[0]
    outside = RecordingTracer(node_id=999, seed=9)
    trace = outside.child(outside.root())
    handler = node.peers.router.handler_for(ReplicateData.TYPE)
    assert handler is not None
    link = SimpleNamespace(address="10.9.9.9:1", node_id=0, member=False)
    context = SimpleNamespace(
        link=link, trace=trace, node_id=0, member=False, now_ms=node.now_ms(), extension=Extension(1, trace=trace)
    )
    tracer.serve(handler.handle, context, ReplicateData(Operation.SET, 0, "", b"k", b"v"))  # type: ignore[arg-type]
    node.replicator.poke()
    net.run(0.1)
    (span,) = traced_changes(cluster.tracers[1])
    assert span.trace.path == (999, node.identity.node_id)
    assert span.trace.parent_id == trace.request_id
    assert tracer.changed.held == {}


def test_a_trace_that_may_go_no_further_ends_and_the_change_goes_on(net: Network) -> None:
    cluster = Cluster(net, 2)
    node, tracer = cluster.nodes[0], cluster.tracers[0]
    node.store().put(b"k", b"v")
    tracer.changed.add("default", b"k", some_trace(16))
    net.run(0.1)
    assert cluster.nodes[1].store().get(b"k") == b"v"
    assert traced_changes(cluster.tracers[1]) == []


# The feed alone


class Source:
    """A store, and a feed of it."""

    def __init__(self, max_frame: int = 1 << 20) -> None:
        self.keyspace = Keyspace(origin=5, rng=random.Random(5))
        self.keyspace.advance(NOW_MS)
        self.keyspace.start_journals(self._before_flush)
        store = self.keyspace.by_name("default")
        assert store is not None
        self.store = store
        self.feed = Feed(extended=True, max_frame=max_frame)
        self._next = 1

    def _before_flush(self, store: Any) -> None:
        self.feed.changed(store.name, *take_changes(store))
        self.feed.flushed(store.name, store.keys(), Change(0, store.next_stamp(), store.floor))

    def produce(self) -> list[tuple[int, bytes, Extension]]:
        self.feed.changed("default", *take_changes(self.store))
        payloads = self.feed.produce(self.keyspace.stores, NOW_MS, self._next)
        self._next += len(payloads)
        return [(event.message.operation, event.message.key, event.extension) for event in opened(payloads)]  # type: ignore[attr-defined]


def some_trace(hops: int = 1) -> Trace:
    trace = RecordingTracer(node_id=1000, seed=99).root()
    for node in range(hops):
        trace = RecordingTracer(node_id=node, seed=node).child(trace)
    return trace


def test_each_kind_of_change_can_carry_a_trace_beside_its_stamp() -> None:
    source, trace = Source(), some_trace()
    source.store.put(b"set", b"v")
    source.feed.traced("default", b"set", trace)
    ((operation, _, extension),) = source.produce()
    record = source.store.record(b"set")
    assert record is not None
    assert (operation, extension) == (Operation.SET, Extension(1, stamp=record.stamp, trace=trace))
    source.store.set_deadline(b"set", NOW_MS + 1000)
    source.feed.traced("default", b"set", trace)
    ((operation, _, extension),) = source.produce()
    assert (operation, extension.exchange, extension.trace) == (Operation.EXPIRE, 2, trace)
    assert extension.more is not None
    assert extension.more.follows == record.stamp
    source.store.delete(b"set")
    source.feed.traced("default", b"set", trace)
    ((operation, _, extension),) = source.produce()
    assert (operation, extension.exchange, extension.trace) == (Operation.DELETE, 3, trace)


def test_a_flush_takes_the_traces_of_its_store_along() -> None:
    source = Source()
    source.store.put(b"k", b"v")
    source.feed.traced("default", b"k", some_trace())
    source.store.flush()
    source.store.put(b"k", b"w")
    assert [extension.trace for _, _, extension in source.produce()] == [None, None]


def test_a_record_that_fits_a_frame_without_its_trace_goes_without() -> None:
    trace = some_trace(16)
    body = b"v" * 3900
    roomy, tight = Source(4200), Source(4100)
    for source in (roomy, tight):
        source.store.put(b"k", body)
        source.feed.traced("default", b"k", trace)
    ((_, _, extension),) = roomy.produce()
    assert extension.trace == trace
    ((operation, _, extension),) = tight.produce()
    assert (operation, extension.trace) == (Operation.SET, None)
    assert tight.feed.oversized == 0


def test_traced_keys_are_bounded_and_the_oldest_goes_first() -> None:
    keys, trace = TracedKeys(3), some_trace()
    for key in (b"a", b"b", b"c", b"a", b"d"):
        keys.add("s", key, trace)
    assert [key for _, key in keys.held] == [b"c", b"a", b"d"]
    keys.add("t", b"e", trace)
    keys.forget_store("s")
    assert list(keys.take()) == [("t", b"e")]
    assert keys.held == {}
