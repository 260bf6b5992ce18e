"""Streams: their ids, how they end, what is lost with the link, and who sends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hypercache.errors import BusyError, LinkLostError
from hypercache.limits import STREAM_OUTBOX_MAX_COUNT, STREAM_WINDOW_COUNT
from hypercache.net.streams import CANCELLED, FINISHED, LOST, REFUSED
from hypercache.wire.messages import StreamReset
from tests.net.pipe import MOST, TYPE, Producer, Side, pair, payload, resets, settle

if TYPE_CHECKING:
    from collections.abc import Callable


# Ids, opening, ending


def test_ids_are_odd_for_who_dialled_and_even_for_who_listens_and_never_0() -> None:
    dialler, listener = pair()
    assert [dialler.open().stream_id for _ in range(3)] == [1, 3, 5]
    assert [listener.open().stream_id for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("dialled", [True, False])
def test_an_id_is_used_again_only_after_both_sides_have_ended_it(dialled: bool) -> None:
    sides = pair()
    opener = sides[0] if dialled else sides[1]
    opener.other.holds = lambda stream_id: stream_id == first.stream_id
    first = opener.open()
    opener.put(first, b"held")
    first.finish()
    settle(*sides)
    used = set()
    for _ in range((1 << 15) + 10):
        stream = opener.open()
        assert stream.stream_id % 2 == opener.parity
        assert 0 < stream.stream_id < 1 << 16
        assert stream.stream_id != first.stream_id
        used.add(stream.stream_id)
        stream.finish()
    assert len(used) == (1 << 15) - (1 if dialled else 2)
    # The other side ends its half when it has handled what it holds.
    assert len(opener.streams) == 1
    opener.other.handle_held()
    settle(*sides)
    assert len(opener.streams) == 0
    used = set()
    for _ in range(1 << 15):
        stream = opener.open()
        used.add(stream.stream_id)
        stream.finish()
    assert first.stream_id in used


def test_of_65535_streams_opened_at_once_no_more_are_kept_than_allowed() -> None:
    listener = Side(dialled=False, most=1024)
    taken = [stream_id for stream_id in range(1, 1 << 16) if listener.streams.arrived(stream_id, 10) is not None]
    assert taken == list(range(1, 2048, 2))
    assert len(listener.streams) == 1024
    assert resets(listener) == [(stream_id, REFUSED) for stream_id in range(2049, 1 << 16, 2)]
    assert listener.metrics.refused_stream_messages == 65535 - 1024


def test_this_side_opens_no_more_than_the_peer_would_take() -> None:
    dialler = Side(dialled=True, most=1 << 20)
    opened = 0
    for _ in range(65535):
        try:
            dialler.open()
            opened += 1
        except BusyError:
            pass
    # Never more than half of its ids, so that each rests before it is used again.
    assert opened == 16384
    assert dialler.metrics.refused_requests == 65535 - opened


def test_a_refused_stream_ends_and_gives_its_place_back() -> None:
    dialler, listener = pair()
    for _ in range(MOST):
        listener.streams.arrived(101 + 2 * len(listener.streams), 10)
    stream = dialler.open()
    ends: list[int] = []
    stream.on_end = ends.append
    for _ in range(STREAM_WINDOW_COUNT):
        dialler.put(stream, b"x")
    settle(dialler, listener)
    assert ends == [REFUSED]
    assert len(dialler.streams) == 0
    assert listener.got == {}
    with pytest.raises(LinkLostError):
        dialler.put(stream, b"x")


def test_both_sides_may_send_on_a_stream_and_end_their_halves_apart() -> None:
    dialler, listener = pair()
    mine = dialler.open()
    ends: list[int] = []
    mine.on_end = ends.append
    dialler.put(mine, b"a")
    settle(dialler, listener)
    theirs = listener.met[1]
    theirs.on_end = ends.append
    mine.finish()
    settle(dialler, listener)
    assert ends == [FINISHED]
    for _ in range(3 * STREAM_WINDOW_COUNT):
        listener.put(theirs, b"b")
        settle(dialler, listener)
    assert len(dialler.got[1]) == 3 * STREAM_WINDOW_COUNT
    theirs.finish()
    settle(dialler, listener)
    assert ends == [FINISHED, FINISHED]
    assert len(dialler.streams) == len(listener.streams) == 0


def test_the_end_of_a_half_comes_behind_its_messages() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    for number in range(STREAM_WINDOW_COUNT):
        dialler.put(stream, bytes([number]) * 1000)
    stream.finish()
    with pytest.raises(LinkLostError):
        dialler.put(stream, b"late")
    ends = []
    while dialler.streams.ready:
        for message_type, _ in dialler.pump(1000):
            ends.append(message_type)
    assert ends == [TYPE] * STREAM_WINDOW_COUNT + [StreamReset.TYPE]
    settle(dialler, listener)
    assert len(listener.got[1]) == STREAM_WINDOW_COUNT
    assert len(dialler.streams) == len(listener.streams) == 0


def test_a_half_that_nobody_asks_for_ends_by_itself_when_all_is_handled() -> None:
    dialler, listener = pair()
    listener.holds = lambda stream_id: True
    stream = dialler.open()
    dialler.put(stream, b"x")
    dialler.put(stream, b"y")
    stream.finish()
    settle(dialler, listener)
    assert len(listener.streams) == 1
    listener.handle_held()
    settle(dialler, listener)
    assert len(dialler.streams) == len(listener.streams) == 0


def test_a_stream_that_the_peer_never_heard_of_ends_without_a_word() -> None:
    dialler, listener = pair()
    ends: list[int] = []
    first, second, third = (dialler.open() for _ in range(3))
    first.on_end = second.on_end = third.on_end = ends.append
    first.finish()
    second.reset()
    dialler.put(third, b"never sent")
    third.reset()
    assert not dialler.urgent
    assert dialler.pump() == []
    assert len(dialler.streams) == 0
    assert ends == [FINISHED]
    settle(dialler, listener)
    assert listener.met == {}


def test_who_opened_a_stream_may_go_on_sending_after_the_peer_has_ended_its_half() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    dialler.put(stream, b"a")
    settle(dialler, listener)
    listener.met[1].finish()
    settle(dialler, listener)
    for _ in range(2 * STREAM_WINDOW_COUNT):
        dialler.put(stream, b"b")
        settle(dialler, listener)
    stream.finish()
    settle(dialler, listener)
    assert len(listener.got[1]) == 1 + 2 * STREAM_WINDOW_COUNT
    assert len(dialler.streams) == len(listener.streams) == 0


def test_giving_up_twice_is_giving_up_once() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    dialler.put(stream, b"a")
    settle(dialler, listener)
    stream.reset(CANCELLED)
    stream.reset(REFUSED)
    stream.finish()
    assert resets(dialler) == [(1, CANCELLED)]


def test_giving_up_drops_what_waits_and_what_comes_and_ends_both_halves() -> None:
    dialler, listener = pair()
    mine = dialler.open()
    ends: list[int] = []
    dialler.put(mine, b"a")
    settle(dialler, listener)
    theirs = listener.met[1]
    theirs.on_end = ends.append
    mine.on_end = lambda code: pytest.fail("who gives up need not be told")
    listener.put(theirs, b"on its way")
    listener.pump()
    listener.put(theirs, b"waits")
    dialler.put(mine, b"waits")
    mine.reset(CANCELLED, "enough" * 100)
    settle(listener, dialler)
    assert dialler.got[1] == []
    assert listener.got[1] == [b"a"]
    assert ends == [CANCELLED]
    assert len(dialler.streams) == len(listener.streams) == 0
    mine.reset()
    theirs.finish()
    settle(dialler, listener)
    assert not dialler.urgent


def test_a_receiver_may_give_up_after_it_has_ended_its_own_half() -> None:
    dialler, listener = pair()
    ends: list[int] = []
    mine = dialler.open()
    mine.on_end = ends.append
    dialler.put(mine, b"a")
    settle(dialler, listener)
    theirs = listener.met[1]
    theirs.finish()
    settle(dialler, listener)
    assert ends == [FINISHED]
    theirs.reset(CANCELLED)
    settle(dialler, listener)
    assert ends == [FINISHED, CANCELLED]
    assert mine.finished
    assert len(dialler.streams) == len(listener.streams) == 0


@pytest.mark.parametrize("first", [FINISHED, CANCELLED])
@pytest.mark.parametrize("second", [FINISHED, CANCELLED])
def test_ends_that_cross_end_the_stream_once(first: int, second: int) -> None:
    dialler, listener = pair()
    mine = dialler.open()
    dialler.put(mine, b"a")
    settle(dialler, listener)
    for stream, code in ((mine, first), (listener.met[1], second)):
        if code == FINISHED:
            stream.finish()
        else:
            stream.reset(code)
    dialler.pump()
    listener.pump()
    settle(dialler, listener)
    assert len(dialler.streams) == len(listener.streams) == 0
    # A word about it that comes late meets nothing.
    dialler.streams.was_reset(StreamReset(1, CANCELLED, ""))
    listener.streams.was_reset(StreamReset(1, FINISHED, ""))
    assert not dialler.urgent
    assert not listener.urgent


def test_a_stream_that_is_over_cannot_end_the_next_of_its_id() -> None:
    dialler, listener = pair()
    old = dialler.open()
    dialler.put(old, b"a")
    old.finish()
    settle(dialler, listener)
    gone = listener.met[1]
    assert listener.streams.arrived(1, 10) is not gone
    gone.reset()
    gone.consumed(10)
    assert not listener.urgent
    assert len(listener.streams) == 1


def test_the_end_of_a_half_is_told_once() -> None:
    listener = Side(dialled=False)
    ends: list[int] = []
    listener.take(1, 10, b"a")
    listener.met[1].on_end = ends.append
    for _ in range(2):
        listener.streams.was_reset(StreamReset(1, FINISHED, ""))
    assert ends == [FINISHED]


def test_streams_that_are_over_make_room_for_others() -> None:
    dialler, listener = pair()
    for _ in range(3 * MOST):
        stream = dialler.open()
        dialler.put(stream, b"a")
        stream.finish()
        settle(dialler, listener)
    assert len(listener.got) == 3 * MOST
    assert listener.metrics.refused_stream_messages == 0


def test_messages_behind_the_end_of_a_half_are_dropped_and_counted() -> None:
    listener = Side(dialled=False)
    listener.holds = lambda stream_id: True
    listener.take(1, 10, b"a")
    listener.streams.was_reset(StreamReset(1, FINISHED, ""))
    listener.take(1, 10, b"b")
    assert listener.got[1] == [b"a"]
    assert listener.metrics.refused_stream_messages == 1
    # An even id is this side's own: nobody else opens it.
    listener.take(2, 10, b"c")
    assert listener.got[2] == []
    assert listener.metrics.refused_stream_messages == 2


# Loss, producers, faults


def test_a_lost_link_ends_every_stream_once_and_opens_no_more() -> None:
    dialler, listener = pair()
    ends: list[tuple[str, int]] = []
    names = ("idle", "sending", "half", "given up")
    streams = dict(zip(names, (dialler.open() for _ in names), strict=True))
    for name, stream in streams.items():
        stream.on_end = lambda code, name=name: ends.append((name, code))
        if name != "idle":
            dialler.put(stream, b"x")
    settle(dialler, listener)
    producer = Producer()
    streams["sending"].register_producer(producer)
    listener.met[streams["half"].stream_id].finish()
    settle(dialler, listener)
    streams["given up"].reset()
    dialler.put(streams["sending"], b"waits")

    def open_another(code: int) -> None:
        ends.append(("idle", code))
        with pytest.raises(LinkLostError):
            dialler.streams.open()

    streams["idle"].on_end = open_another
    dialler.streams.lost()
    dialler.streams.lost()
    assert ends == [("half", FINISHED), ("idle", LOST), ("sending", LOST), ("half", LOST)]
    assert producer.calls == ["stop"]
    assert len(dialler.streams) == 0
    assert not dialler.streams.ready
    assert dialler.pump() == []
    for stream in streams.values():
        with pytest.raises(LinkLostError):
            dialler.put(stream, b"x")
        stream.finish()
        stream.reset()
    assert dialler.streams.arrived(2, 10) is None


def test_a_producer_is_paused_when_the_stream_is_full_and_resumed_when_it_is_empty_each_as_often() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    wanted = 1000
    sent = 0

    def fill() -> None:
        nonlocal sent
        while sent < wanted and not stream.full:
            sent += 1
            dialler.put(stream, sent.to_bytes(4, "big"))

    producer = Producer(fill)
    stream.register_producer(producer)
    fill()
    assert producer.calls == ["pause"]
    settle(dialler, listener)
    assert listener.got[1] == [number.to_bytes(4, "big") for number in range(1, wanted + 1)]
    assert producer.calls == ["pause", "resume"] * (wanted // STREAM_OUTBOX_MAX_COUNT)


def test_a_producer_waits_until_all_that_waited_has_credit() -> None:
    dialler, listener = pair()
    listener.holds = lambda stream_id: True
    stream = dialler.open()
    producer = Producer()
    stream.register_producer(producer)
    for _ in range(2):
        while not stream.full:
            dialler.put(stream, b"x")
        dialler.pump()
    assert producer.calls == ["pause", "resume", "pause"]
    settle(dialler, listener)
    listener.handle_held()
    listener.pump()
    while listener.wire:
        listener.deliver()
    dialler.pump(100)
    assert producer.calls == ["pause", "resume", "pause"]
    settle(dialler, listener)
    assert producer.calls == ["pause", "resume", "pause", "resume"]


def test_a_producer_of_a_full_stream_is_paused_at_once_and_of_an_ended_one_stopped() -> None:
    dialler, _ = pair()
    stream = dialler.open()
    while not stream.full:
        dialler.put(stream, b"x")
    producer = Producer()
    stream.register_producer(producer)
    assert producer.calls == ["pause"]
    stream.reset()
    assert producer.calls == ["pause", "stop"]
    stream.register_producer(producer)
    assert producer.calls == ["pause", "stop", "stop"]


def test_a_producer_that_is_let_go_or_has_finished_hears_nothing_more() -> None:
    dialler, listener = pair()
    for end in ("unregister_producer", "finish"):
        stream = dialler.open()
        producer = Producer()
        stream.register_producer(producer)
        while not stream.full:
            dialler.put(stream, b"x")
        getattr(stream, end)()
        settle(dialler, listener)
        assert producer.calls == ["pause"]


def test_a_producer_may_finish_its_stream_when_it_is_asked_for_more() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    stream.register_producer(Producer(stream.finish))
    while not stream.full:
        dialler.put(stream, b"x")
    settle(dialler, listener)
    assert len(listener.got[1]) == STREAM_OUTBOX_MAX_COUNT
    assert len(dialler.streams) == len(listener.streams) == 0


def test_where_the_link_closes_producers_are_not_asked_for_more() -> None:
    dialler, _ = pair()
    stream = dialler.open()
    producer = Producer()
    stream.register_producer(producer)
    while not stream.full:
        dialler.put(stream, b"x")
    assert len(dialler.streams.take(1 << 20, refill=False)) == STREAM_OUTBOX_MAX_COUNT
    assert producer.calls == ["pause"]


def test_faults_of_those_who_use_streams_stay_theirs() -> None:
    dialler, listener = pair()

    def faulty(*arguments: object) -> None:
        raise RuntimeError("a fault")

    stream, other = dialler.open(), dialler.open()
    dialler.put(stream, b"x")
    dialler.put(other, b"x")
    settle(dialler, listener)
    theirs = listener.met[1]
    theirs.on_message = faulty
    theirs.on_end = stream.on_end = faulty
    dialler.put(stream, b"x")
    dialler.put(other, b"y")
    settle(dialler, listener)
    assert stream.ended == CANCELLED
    assert listener.got[3] == [b"x", b"y"]
    broken = dialler.open()
    broken.register_producer(Producer(faulty))
    while not broken.full:
        dialler.put(broken, b"x")
    settle(dialler, listener)
    assert len(listener.got[5]) == STREAM_OUTBOX_MAX_COUNT


def test_who_takes_a_streams_messages_says_when_each_is_handled() -> None:
    dialler, listener = pair()
    stream = dialler.open()
    dialler.put(stream, b"first")
    settle(dialler, listener)
    taken: list[tuple[Any, Callable[[], None]]] = []
    listener.met[1].on_message = lambda message, consumed: taken.append((message, consumed))
    for _ in range(STREAM_WINDOW_COUNT):
        dialler.put(stream, b"next")
    settle(dialler, listener)
    assert len(taken) == STREAM_WINDOW_COUNT
    assert listener.streams.held_bytes == STREAM_WINDOW_COUNT * len(payload(1, b"next"))
    for _, consumed in taken:
        consumed()
    assert listener.streams.held_bytes == 0
