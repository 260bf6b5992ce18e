"""What a link writes, and when: batches, lanes, bounds, and a peer that does not read."""

from __future__ import annotations

from collections import deque
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from hypercache.limits import (
    LINK_LINGER_SECONDS,
    PEER_OUTPUT_MAX_BYTES,
    PEER_OUTPUT_PAUSE_BYTES,
    STREAM_SHARE_BYTES,
    STREAM_TURN_BYTES,
)
from hypercache.net.metrics import MessageMetrics
from hypercache.net.outgoing import BatchLimits, Outgoing, encode_frames
from hypercache.net.streams import Stream, Streams
from hypercache.wire import Decoder
from hypercache.wire.events import Extended
from hypercache.wire.messages import SCHEMA, Heartbeat, InstallSnapshot, StreamReset, WindowUpdate

TYPE = Heartbeat.TYPE
BULK = InstallSnapshot.TYPE
BUFFER_BYTES = 64 * 1024


class Transport:
    """A transport that buffers as Twisted's do: it pauses its producer above 64 KiB, and resumes it when all has gone."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.buffered = 0
        self.stuck = False
        self.producer: Any = None
        self.calls: list[str] = []

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.calls.append("unregister")
        self.producer = None

    def write(self, data: bytes) -> None:
        assert data
        assert "lose" not in self.calls, "nothing is written behind the end"
        self.writes.append(data)
        if self.stuck:
            self.buffered += len(data)
            if self.buffered > BUFFER_BYTES and self.producer is not None:
                self.producer.pauseProducing()

    def drain(self) -> None:
        """The peer reads everything."""
        was_full = self.buffered > BUFFER_BYTES
        self.buffered = 0
        if was_full and self.producer is not None:
            self.producer.resumeProducing()

    def loseConnection(self) -> None:
        self.calls.append("lose")

    def abortConnection(self) -> None:
        self.calls.append("abort")


class Written:
    """An `Outgoing`, and all that goes with it."""

    def __init__(self, limits: BatchLimits | None = None) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.rooms: list[bool] = []
        self.cuts = 0
        self.out = Outgoing(
            self.transport,
            clock=self.clock,
            address="there",
            on_room=lambda: self.rooms.append(self.out.writable),
            on_cut=self._cut,
            limits=limits or BatchLimits(),
        )
        self.metrics = MessageMetrics(SCHEMA)
        self.streams = Streams(dialled=True, most=16, metrics=self.metrics, send_urgent=self._send_urgent, stir=self.out.stir)
        self.out.streams = self.streams

    def _cut(self) -> None:
        self.cuts += 1

    def _send_urgent(self, message: Any) -> None:
        self.out.put_urgent((message.TYPE, b"\0" + message.encode_payload()))

    def turn(self) -> None:
        self.clock.advance(0)

    def sent(self) -> list[bytes]:
        """Return what was written since the last call: of frames their payloads, of streams' ends nothing."""
        decoder = Decoder()
        decoder.extended = True
        # What the tests send fits no layout.
        decoder.raw_version = 2
        frames: list[Any] = decoder.feed(b"".join(self.transport.writes))
        self.transport.writes.clear()
        return [frame[1] for frame in frames if frame[0] != StreamReset.TYPE]

    def open(self, tag: bytes, messages: int, size: int) -> Stream:
        """Return a new stream with messages to send, numbered from 0."""
        stream = self.streams.open()
        for number in range(messages):
            stream.put(BULK, named(tag, number, size))
        return stream


def named(tag: bytes, number: int, size: int = 0) -> bytes:
    return tag + number.to_bytes(4, "big") + bytes(size)


def numbers(payloads: list[bytes], tag: bytes) -> list[int]:
    return [int.from_bytes(each[1:5], "big") for each in payloads if each[:1] == tag]


def a(number: int, size: int = 0) -> tuple[int, bytes]:
    return TYPE, named(b"a", number, size)


def urgent(number: int, size: int = 0) -> tuple[int, bytes]:
    return TYPE, named(b"u", number, size)


# Batches


def test_the_frames_of_a_turn_leave_in_one_write_when_it_ends() -> None:
    written = Written()
    for number in range(100):
        written.out.put(a(number))
    assert written.transport.writes == []
    written.turn()
    assert len(written.transport.writes) == 1
    assert numbers(written.sent(), b"a") == list(range(100))
    written.turn()
    assert written.transport.writes == []
    assert not written.clock.getDelayedCalls()


def test_the_frames_of_a_read_leave_in_one_write_at_its_end() -> None:
    written = Written()
    add = written.out.frames.append
    add(a(1000))
    written.out.settle()
    written.sent()
    written.out.batching = True
    for number in range(0, 100, 2):
        written.out.put(a(number))
        add(a(number + 1))
    written.out.put_urgent(urgent(0))
    written.turn()
    assert written.transport.writes == []
    assert not written.clock.getDelayedCalls()
    written.out.batching = False
    written.out.settle()
    assert len(written.transport.writes) == 1
    sent = written.sent()
    assert sent[0] == urgent(0)[1]
    assert numbers(sent, b"a") == list(range(100))


def test_frames_that_are_bytes_already_go_as_they_are_among_the_others() -> None:
    written = Written()
    frame = Heartbeat(1, 2, 3).encode_frame()
    written.out.put(frame)
    written.out.put(a(1))
    written.out.put_urgent(frame)
    written.turn()
    assert written.transport.writes == [frame + frame + encode_frames([a(1)])]


@pytest.mark.parametrize(
    ("limits", "size", "at"),
    [
        (BatchLimits(frames=10, delay=1.0), 0, 10),
        (BatchLimits(bytes=1000, delay=1.0), 95, 10),
        (BatchLimits(bytes=1000, delay=1.0), 5000, 1),
    ],
    ids=["frames", "bytes", "one large frame"],
)
def test_a_batch_that_is_full_is_written_at_once(limits: BatchLimits, size: int, at: int) -> None:
    written = Written(limits)
    for number in range(at - 1):
        written.out.put(a(number, size))
    assert written.transport.writes == []
    written.out.put(a(at - 1, size))
    assert len(written.transport.writes) == 1
    assert numbers(written.sent(), b"a") == list(range(at))


def test_a_delay_lets_frames_wait_for_others_but_no_longer_than_that_and_no_urgent_one() -> None:
    written = Written(BatchLimits(delay=0.05))
    written.out.put(a(0))
    written.clock.advance(0.03)
    written.out.put(a(1))
    assert written.transport.writes == []
    written.clock.advance(0.02)
    assert numbers(written.sent(), b"a") == [0, 1]
    written.out.put(a(2))
    written.out.put_urgent(urgent(0))
    written.turn()
    assert len(written.transport.writes) == 1
    assert written.sent() == [urgent(0)[1], a(2)[1]]
    written.out.put_urgent(urgent(1))
    written.turn()
    assert written.sent() == [urgent(1)[1]]
    assert not written.clock.getDelayedCalls()


def test_streams_do_not_wait_for_the_delay() -> None:
    written = Written(BatchLimits(delay=5.0))
    written.open(b"s", 50, 4000)
    for _ in range(50 * 4000 // STREAM_TURN_BYTES + 1):
        written.turn()
    assert numbers(written.sent(), b"s") == list(range(50))


@given(st.lists(st.integers(0, 5000), max_size=300), st.integers(1, 20), st.integers(1, 20_000), st.booleans())
@settings(deadline=None)
def test_no_write_exceeds_the_batch_by_more_than_a_frame(sizes: list[int], frames: int, most: int, direct: bool) -> None:
    written = Written(BatchLimits(frames=frames, bytes=most))
    if direct:
        written.out.batching = True
        written.out.frames += [a(number, size) for number, size in enumerate(sizes)]
        written.out.batching = False
        written.out.settle()
    else:
        for number, size in enumerate(sizes):
            written.out.put(a(number, size))
    written.turn()
    got: list[int] = []
    for write in list(written.transport.writes):
        written.transport.writes = [write]
        payloads = written.sent()
        got += numbers(payloads, b"a")
        assert len(payloads) <= frames
        assert sum(map(len, payloads[:-1])) < most
    assert got == list(range(len(sizes)))
    assert written.out.waiting_bytes == 0


# Lanes


def test_urgent_frames_go_before_all_that_is_not_with_the_transport_yet() -> None:
    written = Written()
    written.open(b"s", 10, 1000)
    for number in range(10):
        written.out.put(a(number))
    written.out.put_urgent(urgent(0))
    written.turn()
    sent = written.sent()
    assert sent[0] == urgent(0)[1]
    assert numbers(sent[1:11], b"a") == list(range(10))
    assert numbers(sent[11:], b"s") == list(range(10))


def test_urgent_frames_overtake_bulk_when_the_peer_reads_slowly() -> None:
    written = Written()
    written.transport.stuck = True
    streams = [written.open(b"s", 90, 20_000) for _ in range(3)]
    for number in range(1000):
        written.out.put(a(number, 5000))
    written.turn()
    assert not written.out.writable
    written.transport.writes.clear()
    for round_ in range(20):
        written.out.put_urgent(urgent(round_))
        written.turn()
        assert written.transport.writes == []
        written.transport.drain()
        # It is the first of the very next write, and what is written before the next can be is bounded.
        assert written.sent()[0] == urgent(round_)[1]
        assert written.transport.buffered <= BUFFER_BYTES + BatchLimits().bytes + STREAM_TURN_BYTES + STREAM_SHARE_BYTES + 60_000
    assert all(stream.queued for stream in streams)


@pytest.mark.parametrize("paused", [False, True])
def test_urgent_frames_do_not_overtake_the_handshake(paused: bool) -> None:
    written = Written()
    if paused:
        written.out.pauseProducing()
    handshake = [Heartbeat(1, number, 3).encode_frame() for number in range(2)]
    written.out.put(handshake[0])
    written.turn()
    written.out.batching = True
    written.out.put(handshake[1])
    written.out.put(a(0))
    written.out.put_urgent(urgent(0))
    written.out.batching = False
    written.out.settle()
    written.out.resumeProducing()
    assert b"".join(written.transport.writes) == b"".join(handshake) + encode_frames([urgent(0), a(0)])


def test_streams_and_frames_share_the_transport() -> None:
    written = Written()
    written.transport.stuck = True
    written.open(b"s", 100, 5000)
    for number in range(1000):
        written.out.put(a(number, 5000))
    written.turn()
    for _ in range(5):
        written.transport.drain()
    sent = written.sent()
    assert len(numbers(sent, b"s")) * 5000 > 4 * STREAM_TURN_BYTES
    assert len(numbers(sent, b"a")) * 5000 > 5 * BatchLimits().bytes


def test_a_stream_gets_a_share_a_turn_so_that_others_come_in_between() -> None:
    written = Written()
    written.open(b"s", 100, 10_000)
    write = written.transport.write

    def others_come_in_between(data: bytes) -> None:
        write(data)
        if len(written.transport.writes) < 5:
            written.out.put(a(len(written.transport.writes)))

    written.transport.write = others_come_in_between  # type: ignore[method-assign]
    written.out.settle()
    # The reactor has other links to serve.
    assert len(written.transport.writes) == 1
    written.turn()
    writes = list(written.transport.writes)
    assert len(writes) > 10
    assert max(map(len, writes)) < STREAM_TURN_BYTES + 2 * STREAM_SHARE_BYTES
    for number, each in enumerate(writes[1:5], 1):
        written.transport.writes = [each]
        assert written.sent()[0] == a(number)[1]


# A peer that does not read


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_doubled_or_reordered_however_often_the_peer_pauses(data: st.DataObject) -> None:
    written = Written(BatchLimits(frames=8, bytes=20_000))
    transport, out = written.transport, written.out
    transport.stuck = True
    stream = written.streams.open()
    put: dict[bytes, int] = {b"a": 0, b"u": 0, b"s": 0}
    sent: list[bytes] = []
    sizes = st.sampled_from((0, 500, 6000, 30_000))
    for step in data.draw(st.lists(st.sampled_from(("put", "urgent", "stream", "read", "turn", "drain")), max_size=60)):
        if step == "put":
            out.put(a(put[b"a"], data.draw(sizes)))
            put[b"a"] += 1
        elif step == "urgent":
            out.put_urgent(urgent(put[b"u"], data.draw(sizes)))
            put[b"u"] += 1
        elif step == "stream" and not stream.full:
            stream.put(BULK, named(b"s", put[b"s"], data.draw(sizes)))
            put[b"s"] += 1
        elif step == "read":
            out.batching = True
            for _ in range(5):
                out.frames.append(a(put[b"a"], data.draw(sizes)))
                put[b"a"] += 1
            if data.draw(st.booleans()):
                # TLS may make room while it hands over what was read.
                transport.drain()
                out.frames.append(a(put[b"a"]))
                put[b"a"] += 1
            out.batching = False
            out.settle()
        elif step == "turn":
            written.turn()
        elif step == "drain":
            transport.drain()
        sent += written.sent()
        for tag, count in put.items():
            got = numbers(sent, tag)
            assert got == list(range(len(got)))
            assert len(got) <= count
    transport.stuck = False
    transport.drain()
    while written.streams.ready or written.clock.getDelayedCalls():
        written.turn()
    sent += written.sent()
    assert {tag: len(numbers(sent, tag)) for tag in put} == put
    assert out.waiting_bytes == 0
    assert out.writable


def test_what_waits_is_counted_in_bytes() -> None:
    written = Written()
    written.out.pauseProducing()
    for number in range(10):
        written.out.put(a(number, 95))
        written.out.put_urgent(urgent(number, 45))
    written.turn()
    assert written.out.waiting_bytes == 10 * (100 + 50)
    written.out.resumeProducing()
    assert written.out.waiting_bytes == 0


@pytest.mark.parametrize("lane", ["frames", "urgent"])
def test_where_much_waits_nothing_more_is_read_and_at_the_bound_the_peer_is_cut(lane: str) -> None:
    written = Written()
    out = written.out
    frame = (BULK, bytes(1 << 20))
    put = out.put if lane == "frames" else out.put_urgent
    out.pauseProducing()
    for count in range(1, 1 + PEER_OUTPUT_MAX_BYTES // (1 << 20)):
        put(frame)
        written.turn()
        assert out.crowded == (count > PEER_OUTPUT_PAUSE_BYTES >> 20)
    assert written.cuts == 0
    put(frame)
    written.turn()
    assert written.cuts == 1
    assert written.transport.calls == ["abort"]
    assert out.waiting_bytes == 0
    put(frame)
    written.turn()
    assert written.cuts == 1
    assert not out.frames
    assert written.transport.writes == []


def test_who_sends_hears_of_the_end_of_room_and_of_new_room() -> None:
    written = Written()
    written.transport.stuck = True
    written.out.put(a(0, 10))
    written.turn()
    assert written.rooms == []
    written.out.put(a(1, 100_000))
    written.turn()
    assert written.rooms == [False]
    written.transport.drain()
    assert written.rooms == [False, True]
    # What a layer writes by itself may fill the transport too.
    written.out.write_now(bytes(100_000))
    assert written.rooms == [False, True, False]
    written.transport.drain()
    assert written.rooms == [False, True, False, True]


def test_the_room_that_a_read_finds_is_told_at_its_end() -> None:
    written = Written()
    written.out.pauseProducing()
    written.out.batching = True
    written.out.resumeProducing()
    assert written.rooms == [False]
    written.out.frames.append(a(0))
    written.out.batching = False
    written.out.settle()
    assert written.rooms == [False, True]
    assert numbers(written.sent(), b"a") == [0]


def test_what_is_sent_when_room_is_told_is_written_too() -> None:
    written = Written()
    waiting = deque(range(100))
    written.transport.stuck = True

    def produce() -> None:
        while written.out.writable and waiting:
            written.out.put(a(waiting.popleft(), 50_000))

    written.out._on_room = produce
    produce()
    for _ in range(100):
        written.turn()
        written.transport.drain()
    written.turn()
    assert numbers(written.sent(), b"a") == list(range(100))


def test_a_stream_is_not_asked_for_frames_while_the_peer_does_not_read() -> None:
    written = Written()
    written.out.pauseProducing()
    stream = written.open(b"s", 100, 10)
    written.turn()
    assert stream.full
    assert written.transport.writes == []
    written.out.resumeProducing()
    assert numbers(written.sent(), b"s") == list(range(100))


# Ending


def test_closing_sends_everything_first_even_to_a_peer_that_does_not_read() -> None:
    written = Written()
    written.out.pauseProducing()
    written.open(b"s", 100, 10_000)
    for number in range(100):
        written.out.put(a(number, 10_000))
    written.turn()
    written.out.put(a(100))
    written.out.put_urgent(urgent(0))
    written.out.close()
    sent = written.sent()
    assert sent[0] == urgent(0)[1]
    assert numbers(sent, b"a") == list(range(101))
    assert numbers(sent, b"s") == list(range(100))
    assert written.transport.calls == ["unregister", "lose"]
    written.out.put(a(1))
    written.out.put_urgent(urgent(1))
    written.out.write_now(b"x")
    written.turn()
    assert written.transport.writes == []
    written.clock.advance(LINK_LINGER_SECONDS)
    assert written.transport.calls == ["unregister", "lose", "abort"]


def test_closing_ends_though_a_stream_would_never_run_dry() -> None:
    written = Written()
    stream = written.open(b"s", 99, 10)
    written.streams.credited(WindowUpdate(stream.stream_id, 1 << 31, 1 << 31))

    class Endless:
        def pauseProducing(self) -> None:
            pass

        def resumeProducing(self) -> None:
            stream.put(BULK, named(b"s", 0))

    stream.register_producer(Endless())
    stream.put(BULK, named(b"s", 99))
    written.out.close()
    assert numbers(written.sent(), b"s") == list(range(100))


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("order", list(permutations(("close", "abort", "lost", "turn"))), ids="-".join)
def test_a_connection_may_end_in_any_order(order: tuple[str, ...], paused: bool) -> None:
    written = Written()
    if paused:
        written.out.pauseProducing()
    written.out.put(a(0))
    written.out.put_urgent(urgent(0))
    written.open(b"s", 3, 10)
    for name in (*order, *order):
        if name == "turn":
            written.turn()
        else:
            getattr(written.out, name)()
        written.out.put(a(1))
        written.out.put_urgent(urgent(1))
        written.out.stir()
        written.out.settle()
    assert written.transport.calls.count("lose") <= 1
    assert numbers(written.sent(), b"a").count(0) <= 1
    written.out.lost()
    written.out.put(a(2))
    written.out.put_urgent(urgent(2))
    assert not written.clock.getDelayedCalls()
    assert written.out.waiting_bytes == 0
    assert not written.out.frames


def test_a_connection_that_is_closed_in_the_middle_of_a_write_ends_behind_it() -> None:
    written = Written()
    stream = written.open(b"s", 100, 10)

    class Closing:
        def pauseProducing(self) -> None:
            pass

        def resumeProducing(self) -> None:
            written.out.put(a(1))
            written.out.close()

    stream.register_producer(Closing())
    written.out.put(a(0))
    written.turn()
    sent = written.sent()
    assert numbers(sent, b"a") == [0, 1]
    assert numbers(sent, b"s") == list(range(100))
    assert written.transport.calls == ["unregister", "lose"]


def test_what_is_put_in_the_middle_of_a_write_comes_behind_it() -> None:
    written = Written(BatchLimits(frames=2))
    stream = written.open(b"s", 100, 10)

    class Talking:
        def pauseProducing(self) -> None:
            pass

        def resumeProducing(self) -> None:
            # That is a whole batch, which alone would be written at once.
            written.out.put(a(1))
            written.out.put(a(2))
            written.out.put_urgent(urgent(0))
            stream.finish()

    stream.register_producer(Talking())
    written.out.put(a(0))
    written.turn()
    sent = written.sent()
    assert numbers(sent, b"a") == [0, 1, 2]
    assert numbers(sent, b"s") == list(range(100))
    assert sent.index(urgent(0)[1]) == 101
    written.turn()
    assert written.metrics.meter(StreamReset.TYPE).sent == 1


def test_frames_that_cannot_be_encoded_end_the_connection() -> None:
    written = Written()

    def broken(frames: list[Any]) -> bytes:
        raise RuntimeError("a layer's fault")

    written.out.encode = broken
    written.out.put(a(0))
    written.turn()
    assert written.transport.calls == ["abort"]
    assert written.transport.writes == []
    written.out.put(a(1))
    written.turn()
    assert written.transport.calls == ["abort"]


def test_a_layer_may_keep_all_frames_back() -> None:
    written = Written()
    written.out.encode = lambda frames: b""
    written.out.put(a(0))
    written.turn()
    assert written.transport.writes == []
    written.out.write_now(b"later")
    assert written.transport.writes == [b"later"]


def test_extended_frames_are_encoded_as_the_decoder_reads_them() -> None:
    beat = Heartbeat(1, 2, 3)
    decoder = Decoder()
    decoder.extended = True
    (event,) = decoder.feed(encode_frames([(TYPE, b"\0" + beat.encode_payload())]))
    assert isinstance(event, Extended)
    assert event.message == beat
