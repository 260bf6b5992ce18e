"""Streams: how much may be under way, what that costs in memory, and how the streams share the link."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.errors import BusyError
from hypercache.limits import (
    HEADER_BYTES,
    STREAM_OUTBOX_MAX_COUNT,
    STREAM_SHARE_BYTES,
    STREAM_TURN_BYTES,
    STREAM_WINDOW_BYTES,
    STREAM_WINDOW_COUNT,
)
from hypercache.net import streams as streams_module
from hypercache.net.streams import FINISHED, OVERLOADED, OVERRUN
from hypercache.wire.extension import decode_extended
from hypercache.wire.messages import StreamReset, WindowUpdate
from tests.net.pipe import Side, pair, resets, settle

if TYPE_CHECKING:
    from collections.abc import Iterator


# Credit


def test_a_message_longer_than_the_window_goes() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    for number in range(3):
        dialler.put(stream, bytes([number]) * (STREAM_WINDOW_BYTES + 1))
        settle(dialler, listener)
    assert [len(body) for body in listener.got[1]] == [STREAM_WINDOW_BYTES + 1] * 3


def test_a_message_longer_than_the_credit_that_is_left_goes() -> None:
    dialler, listener = pair()
    listener.holds = lambda stream_id: True
    stream = dialler.open()
    dialler.put(stream, bytes(STREAM_WINDOW_BYTES - 1000))
    settle(dialler, listener)
    dialler.put(stream, bytes(2000))
    settle(dialler, listener)
    assert len(listener.got[1]) == 2
    dialler.put(stream, b"behind")
    settle(dialler, listener)
    assert len(listener.got[1]) == 2
    listener.handle_held()
    settle(dialler, listener)
    assert len(listener.got[1]) == 3


def test_a_receiver_that_waits_for_more_than_half_a_window_gets_it() -> None:
    dialler, listener = pair()
    listener.holds = lambda stream_id: True
    stream = dialler.open()
    for _ in range(STREAM_WINDOW_COUNT):
        dialler.put(stream, b"part")
    settle(dialler, listener)
    assert len(listener.held) == STREAM_WINDOW_COUNT
    # It handles one, and needs one more to handle any other.
    for more in range(1, 6):
        dialler.put(stream, b"part")
        taken, size = listener.held.pop()
        taken.consumed(size)
        settle(dialler, listener)
        assert len(listener.got[1]) == STREAM_WINDOW_COUNT + more


def test_credit_that_was_kept_back_is_given_when_the_window_fills_up() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    dialler.put(stream, b"handled at once")
    settle(dialler, listener)
    listener.holds = lambda stream_id: True
    for _ in range(STREAM_WINDOW_COUNT - 1):
        dialler.put(stream, b"held")
    settle(dialler, listener)
    dialler.put(stream, b"more")
    settle(dialler, listener)
    assert len(listener.got[1]) == STREAM_WINDOW_COUNT + 1


def test_credit_comes_in_few_messages() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    for _ in range(10):
        for _ in range(STREAM_WINDOW_COUNT):
            dialler.put(stream, b"x")
        settle(dialler, listener)
    assert len(listener.got[1]) == 10 * STREAM_WINDOW_COUNT
    assert dialler.updates == 20


def test_a_window_that_is_never_credited_holds_the_sender_and_its_memory_bounded() -> None:
    dialler, listener = pair()
    listener.holds = lambda stream_id: True
    stream = dialler.open()
    refused = 0
    for _ in range(1000):
        try:
            dialler.put(stream, bytes(100))
        except BusyError:
            refused += 1
        settle(dialler, listener)
    assert len(listener.got[1]) == STREAM_WINDOW_COUNT
    assert refused == 1000 - STREAM_WINDOW_COUNT - STREAM_OUTBOX_MAX_COUNT
    assert dialler.metrics.refused_stream_messages == refused
    assert not dialler.streams.ready


def test_large_messages_that_wait_are_bounded_by_their_bytes() -> None:
    dialler, _ = pair()
    stream = dialler.open()
    big = bytes(STREAM_WINDOW_BYTES // 2)
    dialler.put(stream, big)
    assert not stream.full
    dialler.put(stream, big)
    assert stream.full
    with pytest.raises(BusyError):
        dialler.put(stream, b"x")


@pytest.mark.parametrize(
    ("messages", "size"), [(STREAM_WINDOW_COUNT, 10), (STREAM_WINDOW_BYTES // (1 << 20), 1 << 20)], ids=["count", "bytes"]
)
def test_more_than_the_window_is_not_taken_and_ends_the_stream(messages: int, size: int) -> None:
    listener = Side(dialled=False)
    ends: list[int] = []
    for _ in range(messages):
        stream = listener.streams.arrived(1, size)
        assert stream is not None
        stream.on_end = ends.append
    assert listener.streams.arrived(1, size) is None
    assert listener.streams.arrived(1, size) is None
    assert resets(listener) == [(1, OVERRUN)]
    assert ends == [OVERRUN]
    assert listener.metrics.refused_stream_messages == 1
    assert listener.streams.held_bytes == 0
    # What its handlers still do gives no credit.
    assert stream is not None
    stream.consumed(size)
    assert len(listener.urgent) == 1


def test_handling_a_message_twice_gives_no_more_credit_than_there_was() -> None:
    listener = Side(dialled=False)
    stream = listener.streams.arrived(1, 10)
    assert stream is not None
    for _ in range(STREAM_WINDOW_COUNT):
        stream.consumed(10)
    assert not listener.urgent
    assert listener.streams.held_bytes == 0


def test_who_has_sent_all_gets_no_more_credit() -> None:
    dialler, listener = pair()
    listener.holds = lambda stream_id: True
    stream = dialler.open()
    for _ in range(STREAM_WINDOW_COUNT):
        dialler.put(stream, b"x")
    stream.finish()
    settle(dialler, listener)
    listener.handle_held()
    assert not listener.urgent


def test_credit_for_more_bytes_than_its_field_can_say_comes_in_pieces() -> None:
    listener = Side(dialled=False)
    stream = listener.streams.arrived(1, 5 << 30)
    assert stream is not None
    stream.consumed(5 << 30)
    assert sum(update.bytes for update in listener.urgent) == 5 << 30
    assert sum(update.messages for update in listener.urgent) == 1
    assert all(update.encode_payload() for update in listener.urgent)


def test_credit_without_end_is_taken_and_stays_a_number() -> None:
    dialler = Side(dialled=True)
    stream = dialler.open()
    for _ in range(100):
        dialler.streams.credited(WindowUpdate(1, (1 << 32) - 1, (1 << 32) - 1))
    assert stream._count_credit == stream._bytes_credit == 1 << 31
    dialler.streams.credited(WindowUpdate(77, 1, 1))


def test_what_is_skipped_is_credited_too() -> None:
    listener = Side(dialled=False)
    for _ in range(STREAM_WINDOW_COUNT // 2):
        listener.streams.skipped(1, 10, told=True)
    assert listener.urgent == deque([WindowUpdate(1, STREAM_WINDOW_COUNT // 2, STREAM_WINDOW_COUNT // 2 * 10)])


# All streams together


@pytest.fixture
def small_store() -> Iterator[int]:
    with mock.patch.object(streams_module, "STREAMS_HELD_MAX_BYTES", 1000):
        yield 1000


def test_where_all_streams_hold_too_much_the_one_that_holds_most_is_given_up(small_store: int) -> None:
    listener = Side(dialled=False)
    ends: dict[int, list[int]] = {1: [], 3: [], 5: []}
    for stream_id, size in ((1, 300), (3, 500), (5, 250)):
        stream = listener.streams.arrived(stream_id, size)
        assert stream is not None
        stream.on_end = ends[stream_id].append
    assert listener.streams.held_bytes == 1050
    assert listener.streams.arrived(5, 250) is not None
    assert ends == {1: [], 3: [OVERLOADED], 5: []}
    assert resets(listener) == [(3, OVERLOADED)]
    assert listener.streams.held_bytes == 800


def test_where_others_hold_all_of_it_and_are_over_the_newest_is_given_up(small_store: int) -> None:
    listener = Side(dialled=False)
    stream = listener.streams.arrived(1, 1000)
    assert stream is not None
    stream.finish()
    listener.pump()
    listener.streams.was_reset(StreamReset(1, FINISHED, ""))
    assert len(listener.streams) == 0
    assert listener.streams.arrived(3, 10) is None
    assert resets(listener) == [(3, OVERLOADED)]
    stream.consumed(1000)
    assert listener.streams.arrived(5, 10) is not None


# A stalled stream


def test_a_stalled_stream_stalls_no_other() -> None:
    dialler, listener = pair()
    listener.holds = lambda stream_id: stream_id == 1
    stalled, flowing = dialler.open(), dialler.open()
    for number in range(2000):
        if not stalled.full:
            dialler.put(stalled, bytes(5000))
        dialler.put(flowing, number.to_bytes(4, "big"))
        settle(dialler, listener)
    assert len(listener.got[1]) == STREAM_WINDOW_COUNT
    assert listener.got[3] == [number.to_bytes(4, "big") for number in range(2000)]


# Fairness


@given(
    st.lists(st.sampled_from((1000, 5000, 16_000, 40_000, 300_000)), min_size=2, max_size=5),
    st.sampled_from((1, 10_000, STREAM_TURN_BYTES)),
)
@settings(max_examples=30, deadline=None)
def test_streams_that_always_have_something_to_send_are_served_alike(sizes: list[int], turn: int) -> None:
    dialler, _ = pair()
    streams = [dialler.open() for _ in sizes]
    for stream in streams:
        # Without credit it would have nothing that it may send.
        dialler.streams.credited(WindowUpdate(stream.stream_id, 1 << 30, 1 << 30))
    served = dict.fromkeys((stream.stream_id for stream in streams), 0)
    bodies = [bytes(size) for size in sizes]

    def fill() -> None:
        for stream, body in zip(streams, bodies, strict=True):
            while not stream.full:
                dialler.put(stream, body)

    total = 0
    while total < 5 * (max(sizes) + STREAM_SHARE_BYTES):
        fill()
        for _, data in dialler.pump(turn):
            extension, _ = decode_extended(data, 1 << 30)
            served[extension.stream] += HEADER_BYTES + len(data)
            total += len(data)
        assert max(served.values()) - min(served.values()) <= STREAM_SHARE_BYTES + max(sizes) + 100


def deliver_all(dialler: Side, listener: Side) -> None:
    """Have everything handled, and the credit back, without another turn of the dialler's."""
    while dialler.wire:
        dialler.deliver()
    listener.pump()
    while listener.wire:
        listener.deliver()


def test_one_turn_serves_many_streams() -> None:
    dialler, _ = pair()
    streams = [dialler.open() for _ in range(4)]
    for stream in streams:
        for _ in range(50):
            dialler.put(stream, bytes(2000))
    frames = dialler.pump(STREAM_TURN_BYTES)
    assert {decode_extended(data, 1 << 20)[0].stream for _, data in frames} == {1, 3, 5, 7}
    assert sum(len(data) for _, data in frames) <= STREAM_TURN_BYTES + STREAM_SHARE_BYTES


def test_who_was_silent_saves_nothing_up_and_who_was_alone_owes_nothing() -> None:
    dialler, listener = pair()
    busy, late = dialler.open(), dialler.open()
    dialler.put(busy, bytes(3 << 20))
    settle(dialler, listener)
    for stream in (busy, late):
        for _ in range(100):
            dialler.put(stream, bytes(1000))
    turn = [decode_extended(data, 1 << 20)[0].stream for _, data in dialler.pump(8 * STREAM_SHARE_BYTES)]
    assert abs(turn.count(1) - turn.count(3)) <= STREAM_SHARE_BYTES // 1000 + 1
    assert len(turn) > 60


def test_who_begins_later_is_served_like_the_others_from_then_on() -> None:
    dialler, _ = pair()
    busy, late = dialler.open(), dialler.open()
    for _ in range(100):
        dialler.put(busy, bytes(4000))
    dialler.pump(60 * 4000)
    assert dialler.streams.ready
    for _ in range(100):
        dialler.put(late, bytes(4000))
    turn = [decode_extended(data, 1 << 20)[0].stream for _, data in dialler.pump(40 * 4000)]
    assert abs(turn.count(1) - turn.count(3)) <= 2 * (STREAM_SHARE_BYTES // 4000 + 1)


def test_who_sends_one_long_message_after_another_pays_for_each() -> None:
    dialler, listener = pair()
    large, small = dialler.open(), dialler.open()
    served = {1: 0, 3: 0}
    while served[3] < 1 << 20:
        if not large.queued:
            dialler.put(large, bytes(200_000))
        while not small.full:
            dialler.put(small, bytes(4000))
        for _, data in dialler.pump(1):
            served[decode_extended(data, 1 << 20)[0].stream] += len(data)
        deliver_all(dialler, listener)
    assert abs(served[1] - served[3]) <= 200_000 + 2 * STREAM_SHARE_BYTES


def test_a_long_frame_costs_its_stream_as_much_of_the_others_turns() -> None:
    dialler, _ = pair()
    large, small = dialler.open(), dialler.open()
    dialler.put(large, bytes(200_000))
    for _ in range(100):
        dialler.put(small, bytes(4000))
    dialler.put(large, b"next")
    order = []
    while dialler.streams.ready:
        order += [decode_extended(data, 1 << 20)[0].stream for _, data in dialler.pump(1)]
    between = order[order.index(1) + 1 :].index(1)
    assert between * 4000 > 200_000 - 2 * STREAM_SHARE_BYTES
