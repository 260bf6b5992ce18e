from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from hypercache.errors import LinkLostError
from hypercache.net.exchanges import Exchanges
from hypercache.net.latency import PERCENTILES, Latency
from hypercache.net.lifecycle import LinkState
from hypercache.net.metrics import LINK_COUNTERS, LinkCounters, MessageMetrics, Meter, links_by_state
from hypercache.wire import Capability, Extension, encode_extended
from hypercache.wire.extension import request_head
from hypercache.wire.header import frame
from hypercache.wire.messages import SCHEMA, GenericError, Heartbeat, HeartbeatResponse, ReplicateData, VoteRequest
from tests.net.peers import DONE, MAX_FRAME, Handler, beat, linked, peer_factory, write

if TYPE_CHECKING:
    from hypercache.wire import Message

# Names


def test_the_figures_have_the_seeds_names() -> None:
    metrics = MessageMetrics(SCHEMA)
    vote = metrics.meter(VoteRequest.TYPE)
    vote.sent, vote.received, vote.errors = 2, 3, 4
    vote.round_trips.record(0.5, 1)
    metrics.meter(0x99).received += 1
    stats = metrics.get_stats()
    seed = {key: stats[key] for key in ("VoteRequest_sent", "VoteRequest_received", "VoteRequest_errors", "VoteRequest_latency_ms")}
    assert list(seed.values()) == [2, 3, 4, 250.0]
    assert stats["Unknown_99_received"] == 1


def test_percentiles_have_keys_of_their_own_for_both_latencies() -> None:
    metrics = MessageMetrics(SCHEMA)
    meter = metrics.meter(Heartbeat.TYPE)
    meter.round_trips.record(0.002, 100)
    meter.handled(99, 99 * 0.0001)
    meter.took(4.0)
    stats = metrics.get_stats()
    assert [stats[f"Heartbeat_latency_{name}_ms"] for name in (*PERCENTILES, "slowest")] == pytest.approx([2.0] * 5)
    handling = [stats[f"Heartbeat_handling_{name}_ms"] for name in (*PERCENTILES, "slowest")]
    assert handling == pytest.approx([0.1, 0.1, 0.1, 4000, 4000])


def test_every_counter_is_declared_once_and_told() -> None:
    metrics = MessageMetrics(SCHEMA)
    names = [name for name in vars(LinkCounters) if not name.startswith("_")]
    assert list(LINK_COUNTERS) == names
    for number, name in enumerate(names, 1):
        setattr(metrics, name, getattr(metrics, name) + number)
    assert metrics.link_stats() == {name: number for number, name in enumerate(names, 1)}
    assert metrics.get_stats() == metrics.link_stats()
    assert set(MessageMetrics(SCHEMA).link_stats().values()) == {0}
    assert all(text.endswith(".") for text in LINK_COUNTERS.values())


# What is counted


def test_a_run_counts_with_its_average_for_each_of_its_messages() -> None:
    meter = Meter()
    meter.handled(4, 0.4)
    assert meter.handling.count == meter.received == 4
    # The seed's average after four times 0.1.
    assert meter.handling.average_seconds == pytest.approx(0.09375)
    meter.handled(1, 0.3)
    assert meter.handling.average_seconds == pytest.approx(0.196875)
    assert meter.handling.slowest_seconds == pytest.approx(0.3)
    meter.handled(0, 1.0)
    assert meter.received == 5
    assert meter.handling.slowest_seconds == pytest.approx(0.3)


def test_a_message_whose_answer_comes_later_is_timed_once() -> None:
    meter = Meter()
    meter.handled(3, 0.3, 2)
    meter.took(1.0)
    meter.took(2.0)
    assert meter.received == meter.handling.count == 3
    assert meter.handling.total_seconds == pytest.approx(3.1)
    meter.handled(1, 0.5, 1)
    assert (meter.received, meter.handling.count) == (4, 3)


def test_handling_and_round_trips_are_measured_apart() -> None:
    meter = Meter()
    meter.round_trips.record(0.25, 2)
    assert (meter.round_trips.count, meter.handling.count, meter.received) == (2, 0, 0)
    meter.handled(1, 0.5)
    assert (meter.round_trips.count, meter.handling.count) == (2, 1)


def test_every_message_and_answer_is_counted_once() -> None:
    later: Deferred[Any] = Deferred()
    answers: list[Any] = [HeartbeatResponse(0, 0), later, None]
    clock = Clock()
    factory = peer_factory(Handler(0x32, lambda context, message: answers[message.timestamp]), clock=clock)
    link, _ = linked(factory)
    link.dataReceived(write(b"v") * 10 + beat(0) + beat(1) + beat(2) + frame(1, 0x99, b"") + write(b"w") * 5)
    later.callback(HeartbeatResponse(1, 0))
    for number in range(3):
        link.ask(Heartbeat(1, number, 3), lambda number, answer: None)
    link.dataReceived(HeartbeatResponse(5, 0).encode_frame() * 2 + GenericError(7, 0, "").encode_frame())
    stats = factory.metrics.get_stats()
    assert stats["ReplicateData_received"] == 15
    assert stats["ReplicateResponse_sent"] == 15
    assert (stats["Heartbeat_sent"], stats["Heartbeat_received"]) == (3, 3)
    assert stats["HeartbeatResponse_sent"] == 2
    assert stats["HeartbeatResponse_received"] == 2
    assert stats["GenericError_sent"] == 1
    assert stats["GenericError_received"] == 1
    assert stats["Unknown_99_errors"] == 1
    assert stats["Heartbeat_handling_ms"] > 0


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


# Round trips


@pytest.mark.parametrize("in_order", [True, False])
def test_requests_sent_together_are_timed_until_the_last_is_answered(in_order: bool) -> None:
    exchanges, round_trips = Exchanges(), Latency()
    exchanges.in_order = in_order
    exchanges.expect(7, 0x33, lambda number, answer: None, 99.0, 3, round_trips=round_trips, started=10.0)
    for number, now in ((7, 10.5), (8, 11.0)):
        exchanges.now = now
        assert answer(exchanges, number)
    assert round_trips.count == 0
    exchanges.now = 12.0
    assert answer(exchanges, 9)
    assert (round_trips.count, round_trips.total_seconds) == (3, 6.0)


@pytest.mark.parametrize("in_order", [True, False])
def test_requests_that_nobody_answers_have_no_round_trip(in_order: bool) -> None:
    exchanges, round_trips = Exchanges(), Latency()
    exchanges.in_order = in_order
    exchanges.expect(1, 0x33, lambda number, answer: None, 11.0, 2, round_trips=round_trips, started=10.0)
    exchanges.now = 10.5
    assert answer(exchanges, 1)
    exchanges.expire(12.0)
    exchanges.fail(LinkLostError("gone"))
    assert round_trips.count == 0


@pytest.mark.parametrize("extended", [False, True])
def test_a_request_over_a_link_is_timed_from_sending_it_until_its_answer_is_read(extended: bool) -> None:
    clock = Clock()
    factory = peer_factory(clock=clock)
    link, _ = linked(factory)
    if extended:
        link.establish(Capability.STAMPS, None, MAX_FRAME)
    else:
        link.dataReceived(beat(1))

    def answers(message: Message, first: int, count: int) -> bytes:
        if not extended:
            return message.encode_frame() * count
        return b"".join(encode_extended(message, Extension(first + place, True)) for place in range(count))

    number = link.ask(Heartbeat(1, 2, 3), lambda number, answer: None)
    clock.advance(0.25)
    link.dataReceived(answers(HeartbeatResponse(2, 0), number, 1))
    body = ReplicateData(1, 0, "", b"k", b"v").encode_payload()
    payloads = [request_head(100 + place) + body for place in range(3)] if extended else [write(b"v")] * 3
    link.ask_run(0x20, 0x21, 100, payloads, lambda number, answer: None)
    clock.advance(0.125)
    link.dataReceived(answers(DONE, 100, 3))
    beats, writes = factory.metrics.meter(0x32), factory.metrics.meter(0x20)
    assert (beats.sent, beats.round_trips.count, beats.round_trips.total_seconds) == (1, 1, 0.25)
    assert (writes.sent, writes.round_trips.count, writes.round_trips.total_seconds) == (3, 3, 0.375)


@pytest.mark.parametrize("extended", [False, True])
def test_a_message_whose_answer_comes_later_is_timed_when_it_is_ready(extended: bool) -> None:
    later: Deferred[Any] = Deferred()
    answers: list[Any] = [HeartbeatResponse(0, 0), later]
    factory = peer_factory(Handler(0x32, lambda context, message: answers[message.timestamp]), clock=Clock())
    link, _ = linked(factory)
    if extended:
        link.establish(Capability.STAMPS, None, MAX_FRAME)
        link.dataReceived(b"".join(encode_extended(Heartbeat(1, number, 3), Extension(number)) for number in (0, 1)))
    else:
        link.dataReceived(beat(0) + beat(1))
    meter = factory.metrics.meter(0x32)
    assert (meter.received, meter.handling.count) == (2, 1)
    later.callback(HeartbeatResponse(1, 0))
    assert (meter.received, meter.handling.count) == (2, 2)


def answer(exchanges: Exchanges, number: int) -> bool:
    message = HeartbeatResponse(number, 0)
    return exchanges.answer_in_order(message, message.TYPE) if exchanges.in_order else exchanges.answer(number, message)


def test_links_are_counted_by_the_state_of_their_life_cycle() -> None:
    links: list[Any] = [SimpleNamespace(state=state) for state in (LinkState.CONNECTED, LinkState.CLOSING, LinkState.CONNECTED)]
    counts = links_by_state(links)
    assert counts == dict.fromkeys(counts, 0) | {"connected": 2, "closing": 1}
    assert list(counts) == [state.name.lower() for state in LinkState]
