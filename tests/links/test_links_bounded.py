"""Whatever a peer sends, and however slowly: work and memory stay bounded, errors are clear, and others are served."""

from __future__ import annotations

import struct
import tracemalloc
from typing import TYPE_CHECKING

import psutil
import pytest
import zstandard
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from hypercache.layers.compression import CompressionFactory
from hypercache.limits import MIB, PENDING_ANSWERS_MAX_COUNT, STREAM_OUTBOX_MAX_COUNT, STREAM_WINDOW_COUNT
from hypercache.net.link import PeerLink
from hypercache.wire import Capability, Extension, encode_extended
from hypercache.wire.compression import Codec
from hypercache.wire.events import Extended
from hypercache.wire.extension import COMPRESSED
from hypercache.wire.header import EXTENDED_VERSION, frame
from hypercache.wire.messages import (
    GenericError,
    Heartbeat,
    HeartbeatResponse,
    Hello,
    ReplicateData,
)
from tests.net.peers import MAX_FRAME, Handler, Terms, Wire, linked, peer_factory

if TYPE_CHECKING:
    from hypercache.net.peer import PeerFactory

GONE = Failure(ConnectionLost())
ALL = Capability.STAMPS | Capability.MULTIPLEXING | Capability.TRACING | Capability.COMPRESSION


def extended(factory: PeerFactory, capabilities: Capability = ALL) -> tuple[PeerLink, Wire]:
    link, wire = linked(factory)
    link.establish(capabilities, None, MAX_FRAME)
    return link, wire


def is_served(link: PeerLink, wire: Wire) -> bool:
    wire.events()
    link.dataReceived(encode_extended(Heartbeat(1, 7, 3), Extension(9)))
    return any(isinstance(event, Extended) and event.message == HeartbeatResponse(7, 0) for event in wire.events())


def errors(wire: Wire) -> list[int]:
    messages = [event.message if isinstance(event, Extended) else event for event in wire.events()]
    return [message.error_code for message in messages if isinstance(message, GenericError)]


class DyingWire(Wire):
    """A transport whose connection is gone as soon as it is aborted."""

    link: PeerLink

    def abortConnection(self) -> None:
        super().abortConnection()
        self.link.connectionLost(GONE)


def test_of_100000_half_open_handshakes_the_newest_stay_and_who_speaks_is_served() -> None:
    factory = peer_factory(clock=Clock(), terms=Terms(required=True), handshakes_max=100)
    other, other_wire = extended(factory)
    process = psutil.Process()
    for number in range(100_000):
        if number == 10_000:
            before = process.memory_info().rss
        link, wire = PeerLink(factory, dialled=False), DyingWire()
        wire.link = link
        link.makeConnection(wire)
    assert process.memory_info().rss - before < 16 * MIB
    assert len(factory.links) == 101
    assert factory.metrics.handshakes_dropped == 99_900
    assert is_served(other, other_wire)
    hello = Hello(1, 2, 0, 7, 1, 0, 1, 0, bytes(32), MAX_FRAME, 0, "", "n", "", "")
    link.dataReceived(hello.encode_frame())
    assert wire.writes


@pytest.mark.parametrize("announced", [64 * MIB, (1 << 32) - 1, 5000])
def test_a_compression_bomb_ends_the_link_and_takes_no_memory(announced: int) -> None:
    factory = peer_factory(clock=Clock(), layers=[CompressionFactory(Codec.ZSTD)])
    other, other_wire = extended(factory)
    link, wire = extended(factory)
    body = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
    payload = bytes([COMPRESSED]) + struct.pack(">BI", Codec.ZSTD, announced) + body
    bomb = frame(EXTENDED_VERSION, 0x20, payload)
    tracemalloc.start()
    link.dataReceived(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    tracemalloc.stop()
    assert errors(wire) == [0x0100]
    assert wire.disconnecting
    assert is_served(other, other_wire)


def test_a_compressed_frame_that_was_not_agreed_on_ends_the_link() -> None:
    link, wire = extended(peer_factory(clock=Clock()))
    link.dataReceived(encode_extended(ReplicateData(1, 0, "", b"k", bytes(5000)), Extension(1, codec=Codec.ZSTD)))
    assert errors(wire) == [0x0100]
    assert wire.disconnecting


def test_of_65535_streams_that_are_opened_at_once_only_so_many_are_taken() -> None:
    factory = peer_factory(Handler(0x20, lambda context, message: None), clock=Clock(), streams_max=64)
    link, wire = extended(factory)
    process = psutil.Process()
    before = process.memory_info().rss
    body = ReplicateData(1, 0, "", b"k", b"v")
    for stream_id in range(1, 65_536):
        link.dataReceived(encode_extended(body, Extension(stream=stream_id)))
    assert len(link.streams) <= 64
    assert process.memory_info().rss - before < 32 * MIB
    assert is_served(link, wire)


def test_a_stream_that_gets_no_credit_holds_a_bounded_number_of_messages_and_no_other_stream() -> None:
    clock = Clock()
    link, wire = extended(peer_factory(clock=clock))
    stalled, other = link.open_stream(), link.open_stream()
    message = ReplicateData(1, 0, "", b"k", b"v")
    sent = 0
    while not stalled.full:
        link.send_on(stalled, message)
        clock.advance(0)
        sent += 1
    assert sent == STREAM_WINDOW_COUNT + STREAM_OUTBOX_MAX_COUNT
    wire.events()
    link.send_on(other, message)
    clock.advance(0)
    (event,) = wire.events()
    assert isinstance(event, Extended)
    assert event.extension.stream == other.stream_id
    assert is_served(link, wire)


def test_requests_that_are_never_answered_pause_the_peer_alone() -> None:
    factory = peer_factory(Handler(0x20, lambda context, message: Deferred()), clock=Clock())
    link, wire = extended(factory)
    other, other_wire = extended(factory)
    for number in range(PENDING_ANSWERS_MAX_COUNT):
        link.dataReceived(encode_extended(ReplicateData(1, 0, "", b"k", b"v"), Extension(number)))
    assert wire.producerState == "paused"
    assert other_wire.producerState == "producing"
    assert is_served(other, other_wire)
