"""What a store does with changes from other nodes, and what it remembers for them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.store import STAMP_STEP, Store
from tests.store.stores import NOW, make, make_keyspace, never, stamp_at, stamp_of, store_of

if TYPE_CHECKING:
    from collections.abc import Callable


def content(store: Store) -> dict[bytes, tuple[bytes, int, int]]:
    found = {}
    for key in sorted(store.keys()):
        record = store.record(key)
        assert record is not None
        found[key] = (record.value, record.deadline, record.stamp)
    return found


def apply(store: Store, change: tuple[str, bytes, int, int]) -> None:
    """Apply one change; where its predecessor is not held, the whole record follows, as from a sender."""
    action, key, step, follows = change
    stamp = stamp_at(step, origin=step % 3 + 1)
    value = b"v%d" % (follows or step)
    if action == "put":
        store.apply_put(key, value, 0, stamp)
    elif action == "expiring":
        store.apply_put(key, value, NOW + 1000 + step, stamp)
    elif action == "expired":
        store.apply_put(key, value, NOW - 1, stamp)
    elif action == "delete":
        store.apply_delete(key, stamp)
    elif action == "flush":
        store.apply_flush(stamp)
    elif store.apply_deadline(key, NOW + 5000 + step, stamp, stamp_at(follows, follows % 3 + 1)) is None:
        store.apply_put(key, value, NOW + 5000 + step, stamp)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, bytes, int, int]]:
    """Changes of two keys under distinct stamps; a deadline follows an earlier record of its key."""
    changes: list[tuple[str, bytes, int, int]] = []
    for step in range(1, draw(st.integers(1, 7)) + 1):
        action = draw(st.sampled_from(["put", "put", "expiring", "expired", "delete", "flush", "deadline"]))
        key = draw(st.sampled_from([b"a", b"b"]))
        records = [s for a, k, s, _ in changes if k == key and a in ("put", "expiring")]
        if action == "deadline" and not records:
            action = "put"
        changes.append((action, key, step, draw(st.sampled_from(records)) if action == "deadline" else 0))
    return changes


@settings(max_examples=300, deadline=None)
@given(histories(), st.data())
def test_any_order_of_the_same_changes_gives_the_same_records(
    changes: list[tuple[str, bytes, int, int]], data: st.DataObject
) -> None:
    expected: dict[bytes, tuple[bytes, int, int]] | None = None
    for order in (changes, data.draw(st.permutations(changes)), data.draw(st.permutations(changes))):
        store = make(replicating=True)
        for number, change in enumerate(order):
            apply(store, change)
            apply(store, change)
            if number % 2:
                store.tend(never)
        if expected is None:
            expected = content(store)
        assert content(store) == expected
        store.tend(never)
        assert len(store) == len(expected)


@pytest.mark.parametrize("order", list(itertools.permutations(["put", "delete", "flush"])))
def test_a_deletion_that_is_later_than_a_flush_survives_it(order: tuple[str, ...]) -> None:
    steps = {"flush": 5, "put": 10, "delete": 20}
    store = make(replicating=True)
    for action in order:
        apply(store, (action, b"k", steps[action], 0))
        store.tend(never)
    assert store.get(b"k") is None
    assert store.tombstone(b"k")


def test_the_later_stamp_wins_and_an_equal_one_changes_nothing() -> None:
    store = make(replicating=True)
    stamp = stamp_at(500)
    assert store.apply_put(b"k", b"a", 0, stamp)
    assert not store.apply_put(b"k", b"b", 0, stamp)
    assert not store.apply_put(b"k", b"c", 0, stamp - 1)
    assert not store.apply_delete(b"k", stamp)
    assert store.apply_delete(b"k", stamp + 1)
    assert not store.apply_put(b"k", b"d", 0, stamp + 1)
    assert not store.apply_delete(b"k", stamp + 1)
    assert store.tombstone(b"k") == stamp + 1
    store.put(b"k", b"e")
    assert store.tombstone(b"k") == 0
    assert stamp_of(store, b"k") > stamp + 1


def test_a_stamp_from_elsewhere_is_exceeded_by_all_that_follow_here() -> None:
    changes: list[Callable[[Store, int], Any]] = [
        lambda store, stamp: store.apply_put(b"x", b"v", 0, stamp),
        lambda store, stamp: store.apply_delete(b"x", stamp),
        lambda store, stamp: store.apply_deadline(b"k", NOW + 50, stamp, 0),
        lambda store, stamp: store.apply_flush(stamp),
        lambda store, stamp: store.observe(stamp),
    ]
    for change in changes:
        store = make(replicating=True)
        store.put(b"k", b"v")
        ahead = stamp_at(10**6, origin=(1 << 64) - 1)
        change(store, ahead)
        store.put(b"k", b"w")
        assert stamp_of(store, b"k") > ahead


def test_an_expired_record_does_not_come_back_by_an_older_copy() -> None:
    store = make(replicating=True)
    store.put(b"k", b"new", NOW + 10)
    stamp = stamp_of(store, b"k")
    store.advance(NOW + 11)
    assert store.get(b"k") is None
    assert store.tombstone(b"k") == stamp
    assert not store.apply_put(b"k", b"old", 0, stamp - 1)


def test_a_record_that_arrives_expired_is_as_good_as_a_deletion() -> None:
    store = make(replicating=True)
    store.put(b"k", b"old")
    stamp = stamp_at(10**6)
    assert store.apply_put(b"k", b"v", NOW, stamp)
    assert store.get(b"k") is None
    assert store.tombstone(b"k") == stamp


def test_a_change_of_deadline_needs_the_record_that_it_follows() -> None:
    store = make(replicating=True)
    stamp = stamp_at(500)
    assert store.apply_deadline(b"k", NOW + 99, stamp, stamp - 1) is None
    store.apply_put(b"k", b"v", 0, stamp)
    assert store.apply_deadline(b"k", NOW + 99, stamp + 5, stamp - 1) is None
    assert store.apply_deadline(b"k", NOW + 99, stamp + 5, stamp) is True
    assert store.apply_deadline(b"k", NOW + 50, stamp + 3, stamp) is False
    assert store.deadline(b"k") == NOW + 99
    assert store.apply_deadline(b"k", 0, stamp + 9, 0) is True
    assert store.deadline(b"k") == 0
    assert store.apply_deadline(b"k", NOW, stamp + 10, stamp + 9) is True
    assert store.tombstone(b"k") == stamp + 10


def test_a_flush_leaves_a_floor_under_which_nothing_exists() -> None:
    store = make(replicating=True)
    store.put(b"old", b"v")
    old = stamp_of(store, b"old")
    store.flush()
    assert store.floor > old
    assert not store.apply_put(b"old", b"v", 0, old)
    assert not store.apply_delete(b"old", store.floor)
    assert store.apply_deadline(b"old", NOW + 5, store.floor, 0) is False
    other = make(replicating=True)
    other.apply_put(b"old", b"v", 0, old)
    other.apply_put(b"late", b"v", 0, store.floor + STAMP_STEP)
    other.apply_flush(store.floor)
    assert list(other.keys()) == [b"late"]
    floor = other.floor
    other.apply_flush(floor - 1)
    assert other.floor == floor


def test_a_store_that_nobody_follows_flushes_without_a_floor() -> None:
    store = make()
    store.put(b"k", b"v")
    store.flush()
    assert store.floor == 0


def done(operation: Callable[[bytes, bytes], None], key: bytes, value: bytes) -> bool:
    operation(key, value)
    return True


SURVIVOR: dict[str, Callable[[Store, bytes], bool]] = {
    "get": lambda store, key: store.get(key) == b"v",
    "peek": lambda store, key: store.peek(key) == b"v",
    "contains": lambda store, key: store.contains(key),
    "touch": lambda store, key: store.touch(key),
    "deadline": lambda store, key: store.deadline(key) == NOW + 77,
    "record": lambda store, key: store.record(key) is not None,
    "delete": lambda store, key: store.delete(key) and not store.contains(key),
    "set_deadline": lambda store, key: store.set_deadline(key, NOW + 5),
    "put": lambda store, key: done(store.put, key, b"w") and store.get(key) == b"w",
    "replace": lambda store, key: done(store.replace, key, b"w") and store.deadline(key) == NOW + 77,
    "random_key": lambda store, key: store.random_key() is not None,
    "keys": lambda store, key: key in set(store.keys()),
    "scan": lambda store, key: key in store.scan(0, 10**6)[1],
    "copy_scan": lambda store, key: key in store.copy_scan(hash(key) & 2047)[1],
    "apply_put": lambda store, key: not store.apply_put(key, b"w", 0, store.floor + 1),
    "apply_delete": lambda store, key: not store.apply_delete(key, store.floor + 1),
    "apply_deadline": lambda store, key: store.apply_deadline(key, NOW + 1, store.floor + 1, 0) is False,
}


@pytest.mark.parametrize("name", SURVIVOR)
def test_what_is_later_than_a_flush_from_elsewhere_is_there_at_once_for(name: str) -> None:
    store = make(replicating=True)
    for number in range(3000):
        store.put(b"old%d" % number, b"v")
    flushed = store.next_stamp()
    for number in range(300):
        store.put(b"late%d" % number, b"v", NOW + 77)
    store.apply_flush(flushed)
    assert SURVIVOR[name](store, b"late7")
    assert all(store.contains(b"late%d" % number) for number in range(300) if number != 7)
    store.tend(never)
    assert len(store) == 300 - (name == "delete")
    assert store.volatile == 300 - (name in ("delete", "put"))
    assert not store.contains(b"old7")


def test_two_flushes_from_elsewhere_leave_what_is_later_than_both() -> None:
    store = make(replicating=True)
    stamps = []
    for number in range(3):
        for key in range(500):
            store.put(b"%d-%d" % (number, key), b"v")
        stamps.append(store.next_stamp())
    store.apply_flush(stamps[0])
    store.get(b"1-3")
    store.apply_flush(stamps[1])
    assert store.get(b"1-3") is None
    assert sorted(store.keys()) == sorted(b"2-%d" % key for key in range(500))
    store.tend(never)
    assert len(store) == 500


def test_the_journal_names_each_changed_key_once_and_what_a_deadline_followed() -> None:
    store = make(replicating=True)
    store.put(b"a", b"v")
    store.put(b"b", b"v")
    assert store.dirty == {b"a": 0, b"b": 0}
    store.dirty.clear()
    first = stamp_of(store, b"a")
    store.set_deadline(b"a", NOW + 50)
    store.set_deadline(b"a", NOW + 60)
    assert store.dirty == {b"a": first}
    store.put(b"a", b"w")
    store.set_deadline(b"a", NOW + 70)
    assert store.dirty == {b"a": 0}
    store.dirty.clear()
    store.replace(b"a", b"x")
    store.delete(b"b")
    store.delete(b"none")
    assert store.dirty == {b"a": 0, b"b": 0}


def test_what_comes_from_elsewhere_is_journalled_only_to_be_relayed() -> None:
    for relay in (False, True):
        store = make(replicating=True)
        store.apply_put(b"put", b"v", 0, stamp_at(1), relay=relay)
        store.apply_delete(b"deleted", stamp_at(2), relay=relay)
        store.apply_put(b"told", b"v", 0, stamp_at(3))
        store.apply_deadline(b"told", NOW + 9, stamp_at(4), 0, relay=relay)
        assert store.dirty == ({b"put": 0, b"deleted": 0, b"told": stamp_at(3)} if relay else {})


def test_a_local_flush_forgets_the_journal_after_it_was_announced() -> None:
    store = make(replicating=True)
    store.put(b"k", b"v")
    announced: list[dict[bytes, int] | None] = []
    store.before_flush = lambda flushed: announced.append(dict(flushed.dirty or {}))
    store.flush()
    assert announced == [{b"k": 0}]
    assert store.dirty == {}


def test_a_full_copy_names_every_record_and_every_tombstone_above_the_floor() -> None:
    store = make(replicating=True)
    store.apply_delete(b"under", stamp_at(1))
    store.apply_flush(stamp_at(2))
    for number in range(1000):
        store.put(b"%d" % number, b"v")
    for number in range(0, 1000, 2):
        store.delete(b"%d" % number)
    cursor, keys = 0, []
    while True:
        cursor, found = store.copy_scan(cursor)
        keys += found
        if not cursor:
            break
    assert sorted(keys) == sorted(b"%d" % number for number in range(1000))


def test_every_store_of_a_node_keeps_a_journal_once_one_does() -> None:
    keyspace = make_keyspace()
    assert store_of(keyspace, 0).dirty is None
    keyspace.start_journals(lambda store: None)
    assert store_of(keyspace, 0).dirty == {}
    assert store_of(keyspace, 3).dirty == {}
