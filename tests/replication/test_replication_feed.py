from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from hypercache.limits import REPLICATION_PUT_OFF_MAX_COUNT, REPLICATION_SLICE_COUNT
from hypercache.replication.feed import FLUSH_COMMAND, Feed
from hypercache.replication.journal import take_changes
from hypercache.replication.outbox import Change
from hypercache.store import Keyspace, Store
from hypercache.wire import Decoder, ErrorCode, Operation, Status
from hypercache.wire.events import Extended
from hypercache.wire.messages import GenericError, ReplicateData, ReplicateResponse
from tests.replication.pipes import opened

NOW_MS = 1_800_000_000_000
DONE = ReplicateResponse(Status.SUCCESS, 0)
LATER = ReplicateResponse(Status.RETRY_LATER, 0)


class Source:
    """A store and a feed of it."""

    def __init__(self, *, extended: bool = True, **options: Any) -> None:
        self.keyspace = Keyspace(origin=5, rng=random.Random(5))
        self.keyspace.advance(NOW_MS)
        self.keyspace.start_journals(self._before_flush)
        self.feed = Feed(extended=extended, **{"max_frame": 1 << 20, **options})
        self.produced = 0
        self._unanswered: deque[int] = deque()
        self._next = 1

    @property
    def store(self) -> Store:
        store = self.keyspace.by_name("default")
        assert store is not None
        return store

    def _before_flush(self, store: Store) -> None:
        self.drain()
        self.feed.flushed(store.name, store.keys(), Change(0, store.next_stamp(), store.floor))

    def drain(self) -> None:
        self.feed.changed("default", *take_changes(self.store))

    def produce(self, now_ms: int = NOW_MS) -> list[Any]:
        """Return (operation, key, value, ttl in ms, stamp, follows) of what is sent."""
        self.drain()
        made = self.feed.produce(self.keyspace.stores, now_ms, self._next)
        self.produced += sum(map(len, made))
        self._unanswered += range(self._next, self._next + len(made))
        self._next += len(made)
        events = opened(made) if self.feed.extended else Decoder().feed(b"".join(made))
        assert len(events) == len(made)
        return [told(event) for event in events]

    def answer(self, count: int, answer: Any = DONE, now_ms: int = NOW_MS) -> None:
        for _ in range(count):
            self.feed.answered(self._unanswered.popleft(), answer, now_ms)


def told(event: Any) -> tuple[int, bytes, bytes, int, int, int]:
    if isinstance(event, Extended):
        message, extension = event.message, event.extension
        assert isinstance(message, ReplicateData)
        follows = extension.more.follows if extension.more is not None else 0
        return message.operation, message.key, message.value, message.ttl // 1_000_000, extension.stamp, follows
    assert isinstance(event, ReplicateData)
    return event.operation, event.key, event.value, event.ttl // 1_000_000, 0, 0


def stamp_of(source: Source, key: bytes) -> int:
    record = source.store.record(key)
    assert record is not None
    return record.stamp


def test_a_set_carries_its_stamp_and_the_life_left_from_the_stamps_milliseconds() -> None:
    source = Source()
    source.store.put(b"k", b"v", NOW_MS + 5_000)
    source.keyspace.advance(NOW_MS + 3_000)
    [(operation, key, value, ttl, stamp, _)] = source.produce(NOW_MS + 3_000)
    assert (operation, key, value) == (Operation.SET, b"k", b"v")
    assert stamp == stamp_of(source, b"k")
    assert (stamp >> 80) + ttl == NOW_MS + 5_000


def test_a_base_peer_gets_the_life_left_from_now_and_no_stamp() -> None:
    source = Source(extended=False)
    source.store.put(b"k", b"v", NOW_MS + 5_000)
    source.keyspace.advance(NOW_MS + 3_000)
    assert source.produce(NOW_MS + 3_000) == [(Operation.SET, b"k", b"v", 2_000, 0, 0)]


def test_a_deadline_beyond_what_a_u64_of_nanoseconds_holds_is_cut_to_it() -> None:
    source = Source()
    source.store.put(b"k", b"v", 1 << 62)
    [(_, _, _, ttl, _, _)] = source.produce()
    assert ttl == ((1 << 64) - 1) // 1_000_000


def test_a_change_of_deadline_names_the_stamp_it_follows_and_carries_no_value() -> None:
    source = Source()
    source.store.put(b"k", b"v")
    source.produce()
    before = stamp_of(source, b"k")
    source.store.set_deadline(b"k", NOW_MS + 9_000)
    source.store.set_deadline(b"k", NOW_MS + 8_000)
    [(operation, _, value, ttl, stamp, follows)] = source.produce()
    assert (operation, value, follows) == (Operation.EXPIRE, b"", before)
    assert (stamp >> 80) + ttl == NOW_MS + 8_000
    source.store.set_deadline(b"k", 0)
    assert source.produce()[0][:4] == (Operation.EXPIRE, b"k", b"", 0)


@pytest.mark.parametrize("answer", [LATER, ReplicateResponse(Status.ERROR, 0), GenericError(0x0007, 0, "no")])
def test_where_the_peer_lacks_what_an_expire_follows_it_gets_the_whole_at_once(answer: Any) -> None:
    source = Source()
    source.store.put(b"k", b"v")
    source.produce()
    source.answer(1)
    source.store.set_deadline(b"k", NOW_MS + 9_000)
    assert source.produce()[0][0] == Operation.EXPIRE
    source.answer(1, answer)
    assert source.produce()[0][:3] == (Operation.SET, b"k", b"v")
    source.answer(1)
    assert source.feed.is_level


def test_the_window_bounds_messages_and_bytes_that_are_not_answered() -> None:
    source = Source(window_count=3)
    for number in range(10):
        source.store.put(b"%d" % number, b"v")
    assert len(source.produce()) == 3
    assert source.produce() == []
    assert not source.feed.can_produce
    source.answer(2)
    assert len(source.produce()) == 2
    heavy = Source(window_bytes=1000)
    for number in range(10):
        heavy.store.put(b"%d" % number, b"x" * 400)
    assert len(heavy.produce()) == 3


def test_a_key_written_often_before_it_is_sent_is_sent_once() -> None:
    source = Source()
    for number in range(100):
        source.store.put(b"k", b"%d" % number)
        source.drain()
    assert [each[:3] for each in source.produce()] == [(Operation.SET, b"k", b"99")]


def test_a_full_copy_begins_with_the_floor_and_has_every_record_and_tombstone() -> None:
    source = Source()
    source.store.put(b"flushed", b"v")
    source.store.flush()
    for number in range(5):
        source.store.put(b"%d" % number, b"v")
    source.store.delete(b"3")
    source.drain()
    fresh = source.feed = Feed(extended=True, max_frame=1 << 20)
    fresh.start_copy()
    sent = []
    while fresh.can_produce:
        sent += source.produce()
    assert sent[0] == (Operation.APPLY, b"", FLUSH_COMMAND, 0, source.store.floor, 0)
    assert {each[:2] for each in sent[1:]} == {
        *((Operation.SET, b"%d" % number) for number in (0, 1, 2, 4)),
        (Operation.DELETE, b"3"),
    }
    assert len(sent) == 6
    source.answer(6)
    assert fresh.is_level


def test_changes_go_before_a_full_copy_which_yet_gets_on() -> None:
    source = Source(outbox_max=10_000)
    for number in range(6000):
        source.store.put(b"old%d" % number, b"v")
    source.drain()
    source.feed = Feed(extended=True, max_frame=1 << 20, window_count=1000)
    source.feed.start_copy()
    while not any(each[1].startswith(b"old") for each in source.produce()):
        source.answer(source.feed.unanswered)
    for number in range(200):
        source.store.put(b"new%d" % number, b"v")
    sent = [each[1][:3] for each in source.produce()]
    assert sent[:7] == [b"new"] * 7
    assert 10 < sent[:200].count(b"old") < 40


def test_one_call_does_a_bounded_piece_of_work() -> None:
    source = Source()
    for number in range(5 * REPLICATION_SLICE_COUNT):
        source.store.put(b"%d" % number, b"v")
    assert len(source.produce()) == REPLICATION_SLICE_COUNT
    assert source.feed.can_produce


def test_what_is_put_off_waits_longer_each_time_and_is_sent_as_it_is_then() -> None:
    source = Source()
    source.store.put(b"k", b"old")
    now_ms = NOW_MS
    waits = []
    for _ in range(8):
        assert len(source.produce(now_ms)) == 1
        source.answer(1, LATER, now_ms)
        assert source.produce(now_ms) == []
        assert not source.feed.is_level
        waits.append(source.feed.retry_at_ms - now_ms)
        now_ms = source.feed.retry_at_ms
    assert waits == [200, 400, 800, 1600, 3200, 5000, 5000, 5000]
    source.store.put(b"k", b"new")
    assert source.produce(now_ms)[0][2] == b"new"
    source.answer(1)
    assert source.feed.is_level
    assert source.feed.retry_at_ms == 0


def test_a_floor_that_is_put_off_is_sent_again() -> None:
    source = Source()
    source.store.flush()
    assert source.produce()[0][0] == Operation.APPLY
    source.answer(1, LATER)
    assert not source.feed.is_level
    assert source.produce(NOW_MS + 200)[0][0] == Operation.APPLY
    source.answer(1)
    assert source.feed.is_level


def test_while_a_full_peer_puts_off_much_the_full_copy_waits_but_deletions_pass() -> None:
    source = Source(window_count=100_000, outbox_max=50_000)
    for number in range(REPLICATION_PUT_OFF_MAX_COUNT + 1000):
        source.store.put(b"%d" % number, b"v")
    source.drain()
    source.feed = Feed(extended=True, max_frame=1 << 20)
    source.feed.start_copy()
    while source.feed.can_produce:
        source.answer(len(source.produce()), LATER)
    assert source.produced < 80 * (REPLICATION_PUT_OFF_MAX_COUNT + REPLICATION_SLICE_COUNT)
    source.store.delete(b"0")
    assert [each[:2] for each in source.produce()] == [(Operation.DELETE, b"0")]


@pytest.mark.parametrize("code", [ErrorCode.RATE_LIMITED, ErrorCode.SHUTTING_DOWN])
def test_retryable_errors_are_retried_and_others_counted(code: int) -> None:
    source = Source()
    source.store.put(b"k", b"v")
    source.produce()
    source.answer(1, GenericError(code, 0, ""))
    assert source.feed.retry_at_ms
    source.produce(NOW_MS + 200)
    source.answer(1, GenericError(ErrorCode.INTERNAL_ERROR, 0, ""))
    assert source.feed.refused == 1
    assert source.feed.is_level


def test_a_key_that_was_evicted_before_it_was_sent_is_deleted_at_the_peer() -> None:
    source = Source()
    source.store.put(b"k", b"old")
    source.produce()
    source.store.put(b"k", b"new")
    source.drain()
    stamp = stamp_of(source, b"k")
    source.store._remove(hash(b"k") & len(source.store._shards) - 1, b"k")
    [(operation, key, _, _, deletion, _)] = source.produce()
    assert (operation, key) == (Operation.DELETE, b"k")
    assert stamp <= deletion <= source.store.next_stamp()


def test_a_key_that_a_flush_from_elsewhere_took_before_it_was_sent_is_not_deleted_once_more() -> None:
    source = Source()
    source.store.put(b"k", b"v")
    source.drain()
    source.store.apply_flush(source.store.next_stamp())
    assert source.produce() == []


def test_many_flushes_before_one_is_sent_are_one() -> None:
    source = Source()
    for _ in range(1000):
        source.store.flush()
    assert len(source.produce()) == 1


def test_a_value_too_large_for_a_frame_is_deleted_at_the_peer_and_counted() -> None:
    source = Source(max_frame=1000)
    source.store.put(b"k", b"x" * 2000)
    source.store.put(b"l", b"v")
    assert [each[:2] for each in source.produce()] == [(Operation.DELETE, b"k"), (Operation.SET, b"l")]
    assert source.feed.oversized == 1
    source.answer(2)
    assert source.feed.is_level


def test_a_change_of_deadline_that_waits_while_another_value_arrives_is_sent_as_that_value() -> None:
    source = Source()
    source.store.put(b"k", b"v")
    source.produce()
    source.store.set_deadline(b"k", NOW_MS + 9_000)
    source.drain()
    elsewhere = source.store.next_stamp() | 9
    source.store.apply_put(b"k", b"other", 0, elsewhere)
    assert [each[:3] for each in source.produce()] == [(Operation.SET, b"k", b"other")]
