from __future__ import annotations

import random
from time import process_time

import pytest

from hypercache.limits import STORES_MAX_COUNT
from hypercache.replication.apply import Applier
from hypercache.replication.feed import FLUSH_COMMAND
from hypercache.store import Keyspace, Store
from hypercache.wire import ErrorCode, Extension, More, Operation, Status
from hypercache.wire.messages import ReplicateData, ReplicateResponse

NOW_MS = 1_800_000_000_000
OTHER = 9
DONE = ReplicateResponse(Status.SUCCESS, 0)


def stamp(after_ms: int = 0, counter: int = 0) -> int:
    return (NOW_MS + after_ms << 16 | counter) << 64 | OTHER


class Target:
    def __init__(self, *, replicating: bool = True) -> None:
        self.keyspace = Keyspace(origin=5, rng=random.Random(5))
        if replicating:
            self.keyspace.start_journals(lambda store: None)
        self.applier = Applier(self.keyspace)

    @property
    def store(self) -> Store:
        store = self.keyspace.by_name("default")
        assert store is not None
        return store

    def apply(
        self,
        operation: int,
        key: bytes = b"k",
        value: bytes = b"",
        *,
        ttl_ms: int = 0,
        stamp: int = 0,
        follows: int = 0,
        member: bool = True,
        store: str = "",
        now_ms: int = NOW_MS,
    ) -> ReplicateResponse:
        message = ReplicateData(operation, ttl_ms * 1_000_000, store, key, value)
        more = More(follows=follows) if follows else None
        extension = Extension(stamp=stamp, more=more) if stamp else None
        return self.applier.apply(message, extension, now_ms, member=member)


def test_the_later_stamp_wins_in_whatever_order_they_come() -> None:
    target = Target()
    assert target.apply(Operation.SET, value=b"new", stamp=stamp(2)) == DONE
    assert target.apply(Operation.SET, value=b"old", stamp=stamp(1)) == DONE
    assert target.apply(Operation.DELETE, stamp=stamp(1, 5)) == DONE
    assert target.store.get(b"k") == b"new"
    assert target.apply(Operation.DELETE, stamp=stamp(3)) == DONE
    assert target.apply(Operation.SET, value=b"late", stamp=stamp(2, 1)) == DONE
    assert target.store.get(b"k") is None


def test_the_deadline_counts_from_the_stamp_however_late_it_arrives() -> None:
    target = Target()
    target.apply(Operation.SET, value=b"v", ttl_ms=9_000, stamp=stamp(), now_ms=NOW_MS + 4_000)
    assert target.store.deadline(b"k") == NOW_MS + 9_000
    target.apply(Operation.SET, b"dead", b"v", ttl_ms=1_000, stamp=stamp(), now_ms=NOW_MS + 4_000)
    assert target.store.get(b"dead") is None


def test_without_a_stamp_the_deadline_counts_from_receipt() -> None:
    target = Target()
    target.apply(Operation.SET, value=b"v", ttl_ms=9_000, member=False)
    assert target.store.deadline(b"k") == NOW_MS + 9_000
    record = target.store.record(b"k")
    assert record is not None
    assert record.stamp & (1 << 64) - 1 == 5


def test_an_expire_whose_predecessor_is_not_held_is_put_off_and_one_without_life_persists() -> None:
    target = Target()
    assert target.apply(Operation.EXPIRE, ttl_ms=5_000, stamp=stamp(2), follows=stamp(1)).status == Status.RETRY_LATER
    target.apply(Operation.SET, value=b"v", stamp=stamp(1))
    assert target.apply(Operation.EXPIRE, ttl_ms=5_000, stamp=stamp(2), follows=stamp(1)) == DONE
    assert target.store.deadline(b"k") == NOW_MS + 5_002
    assert target.apply(Operation.EXPIRE, stamp=stamp(3), follows=stamp(2)) == DONE
    assert target.store.deadline(b"k") == 0


def test_a_stamp_too_far_ahead_is_put_off_counted_and_moves_no_clock() -> None:
    target = Target()
    assert target.apply(Operation.SET, value=b"v", stamp=stamp(60_001)).status == Status.RETRY_LATER
    assert target.applier.skewed == 1
    assert target.store.get(b"k") is None
    assert target.store.next_stamp() >> 80 == NOW_MS
    assert target.apply(Operation.SET, value=b"v", stamp=stamp(60_000)) == DONE
    assert target.store.next_stamp() > stamp(60_000)


@pytest.mark.parametrize("operation", [Operation.SET, Operation.DELETE, Operation.EXPIRE])
@pytest.mark.parametrize("stamped", [False, True])
def test_what_a_stranger_writes_goes_to_the_members_and_what_a_member_writes_does_not(operation: int, stamped: bool) -> None:
    for member in (False, True):
        target = Target()
        target.apply(Operation.SET, value=b"v", stamp=stamp(1))
        target.apply(operation, value=b"v", ttl_ms=5_000, stamp=stamp(2) if stamped else 0, member=member)
        assert (b"k" in (target.store.dirty or {})) is not member


def test_a_flush_takes_what_is_at_or_under_its_stamp_and_comes_from_members_alone() -> None:
    target = Target()
    target.apply(Operation.SET, b"old", b"v", stamp=stamp(1))
    target.apply(Operation.SET, b"new", b"v", stamp=stamp(3))
    flush = (Operation.APPLY, b"", FLUSH_COMMAND)
    assert target.apply(*flush, stamp=stamp(2), member=False) == ReplicateResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED)
    assert target.store.get(b"old") == b"v"
    assert target.apply(*flush, stamp=stamp(2)) == DONE
    assert target.apply(Operation.SET, b"late", b"v", stamp=stamp(2)) == DONE
    assert list(target.store.keys()) == [b"new"]


def test_a_journaled_key_that_a_flush_took_is_not_told_as_a_deletion() -> None:
    target = Target()
    target.keyspace.advance(NOW_MS)
    target.store.put(b"k", b"v")
    target.apply(Operation.APPLY, b"", FLUSH_COMMAND, stamp=stamp(1))
    assert target.store.dirty == {}


def test_a_value_that_arrives_after_a_noted_change_of_deadline_has_the_whole_told() -> None:
    target = Target()
    target.apply(Operation.SET, value=b"v", stamp=stamp(1))
    target.store.set_deadline(b"k", NOW_MS + 9_000)
    assert target.store.dirty == {b"k": stamp(1)}
    target.apply(Operation.SET, value=b"other", stamp=stamp(9))
    assert target.store.dirty == {b"k": 0}


@pytest.mark.parametrize(("operation", "value"), [(0, b""), (4, b"*1\r\n$8\r\nFLUSHALL\r\n"), (5, b""), (255, b"")])
@pytest.mark.parametrize("stamped", [0, 1])
def test_what_is_not_understood_is_refused_with_the_low_byte_of_malformed(operation: int, value: bytes, stamped: int) -> None:
    answer = Target().apply(operation, value=value, stamp=stamped and stamp())
    assert answer == ReplicateResponse(Status.ERROR, ErrorCode.MALFORMED_MESSAGE & 0xFF)


def test_stores_are_made_on_demand_up_to_a_bound() -> None:
    target = Target()
    for number in range(STORES_MAX_COUNT + 5):
        answer = target.apply(Operation.SET, value=b"v", store=f"s{number}", member=False)
        assert (answer == DONE) == (number < STORES_MAX_COUNT - 1)
    assert len(target.keyspace.all_stores()) == STORES_MAX_COUNT


def test_a_full_node_that_may_not_evict_puts_off_what_needs_memory_and_takes_deletions() -> None:
    target = Target()
    target.apply(Operation.SET, value=b"v", stamp=stamp(1))
    target.keyspace.maxmemory = 1
    assert target.apply(Operation.SET, b"l", b"v", stamp=stamp(1)).status == Status.RETRY_LATER
    assert target.apply(Operation.DELETE, stamp=stamp(2)) == DONE


def test_the_answer_of_success_is_one_object() -> None:
    target = Target()
    assert target.apply(Operation.SET, b"a") is target.apply(Operation.SET, b"b", member=False)


def test_applying_a_plain_set_costs_a_few_microseconds_at_most() -> None:
    applier = Target(replicating=False).applier
    messages = [ReplicateData(Operation.SET, 0, "", b"key:%d" % number, b"x" * 64) for number in range(20_000)]

    def seconds() -> float:
        start = process_time()
        for message in messages:
            applier.apply(message, None, NOW_MS, member=False)
        return process_time() - start

    assert min(seconds() for _ in range(5)) / len(messages) < 10e-6
