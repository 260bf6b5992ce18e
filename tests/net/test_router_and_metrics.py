from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import Invalid

from hypercache.errors import SchemaError
from hypercache.net.metrics import MessageMetrics, Meter
from hypercache.net.router import Router
from hypercache.wire.header import frame
from hypercache.wire.messages import SCHEMA, GenericError, HeartbeatResponse
from tests.net.peers import DONE, Handler, beat, linked, peer_factory, write


def test_a_type_has_one_handler() -> None:
    first = Handler(0x32, lambda context, message: None)
    router = Router(SCHEMA, [first])
    assert router.handler_for(0x32) is first
    assert router.handler_for(0x20) is None
    with pytest.raises(SchemaError, match="0x32"):
        router.add(Handler(0x32, lambda context, message: None))


def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(Invalid):
        Router(SCHEMA, [object()])


def test_the_figures_have_the_seeds_names() -> None:
    metrics = MessageMetrics(SCHEMA)
    metrics.meter(0x32).sent += 2
    metrics.meter(0x99).received += 1
    stats = metrics.get_stats()
    assert stats["Heartbeat_sent"] == 2
    assert {"Heartbeat_received", "Heartbeat_errors", "Heartbeat_latency_ms"} <= set(stats)
    assert stats["Unknown_99_received"] == 1


def test_latency_is_the_running_average_of_the_seed_and_the_slowest_is_kept() -> None:
    meter = Meter()
    meter.handled(4, 0.4)
    assert meter.latency_seconds == pytest.approx(0.05)
    meter.handled(1, 0.3)
    assert meter.latency_seconds == pytest.approx(0.175)
    assert meter.slowest_seconds == pytest.approx(0.3)
    meter.handled(0, 1.0)
    assert meter.received == 5
    assert meter.slowest_seconds == pytest.approx(0.3)


def test_every_message_and_answer_is_counted_once() -> None:
    later: Deferred[Any] = Deferred()
    answers: list[Any] = [HeartbeatResponse(0, 0), later, None]
    clock = Clock()
    factory = peer_factory(Handler(0x32, lambda context, message: answers[message.timestamp]), clock=clock)
    link, _ = linked(factory)
    link.dataReceived(write(b"v") * 10 + beat(0) + beat(1) + beat(2) + frame(1, 0x99, b"") + write(b"w") * 5)
    later.callback(HeartbeatResponse(1, 0))
    link.expect(0x33, lambda answer: None, 2)
    link.dataReceived(HeartbeatResponse(5, 0).encode_frame() * 2 + GenericError(7, 0, "").encode_frame())
    stats = factory.metrics.get_stats()
    assert stats["ReplicateData_received"] == 15
    assert stats["ReplicateResponse_sent"] == 15
    assert stats["Heartbeat_received"] == 3
    assert stats["HeartbeatResponse_sent"] == 2
    assert stats["HeartbeatResponse_received"] == 2
    assert stats["GenericError_sent"] == 1
    assert stats["GenericError_received"] == 1
    assert stats["Unknown_99_errors"] == 1
    assert stats["Heartbeat_latency_ms"] > 0


def test_answers_of_two_handlers_in_turn_are_counted_by_their_types() -> None:
    factory = peer_factory(clock=Clock())
    link, _ = linked(factory)
    link.dataReceived((write(b"v") * 3 + beat(1) * 2) * 4)
    stats = factory.metrics.get_stats()
    assert (stats["ReplicateResponse_sent"], stats["HeartbeatResponse_sent"]) == (12, 8)


def test_answers_of_one_handler_are_counted_by_their_types() -> None:
    other = HeartbeatResponse(0, 0)

    def handle(context: Any, message: Any) -> Any:
        if message.timestamp == 7:
            raise RuntimeError("a fault")
        return DONE if message.timestamp < 4 else other

    factory = peer_factory(Handler(0x32, handle), clock=Clock())
    link, _ = linked(factory)
    link.dataReceived(b"".join(beat(number) for number in range(9)))
    stats = factory.metrics.get_stats()
    assert stats["ReplicateResponse_sent"] == 4
    assert stats["HeartbeatResponse_sent"] == 4
    assert stats["GenericError_sent"] == 1
