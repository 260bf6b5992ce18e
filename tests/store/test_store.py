"""A named store: records, expiry, memory, eviction, and what it does with changes from elsewhere."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.errors import ConfigurationError
from hypercache.store import STAMP_STEP, Keyspace, Store, built_in_policies, policy_named

NOW = 1_800_000_000_000
POLICIES = built_in_policies()


def make(policy: str = "none", *, replicating: bool = False, seed: int = 1, **options: int) -> Store:
    store = Store("s", origin=7, rng=random.Random(seed), policy=POLICIES[policy], **options)
    store.advance(NOW)
    if replicating:
        store.dirty = {}
    return store


def never() -> bool:
    return False


def test_what_is_put_is_got_until_it_is_deleted() -> None:
    store = make()
    store.put(b"k", b"v")
    assert store.get(b"k") == b"v"
    assert len(store) == 1
    assert store.delete(b"k")
    assert not store.delete(b"k")
    assert store.get(b"k") is None
    assert (store.hits, store.misses) == (1, 1)


def test_a_key_expires_at_its_deadline_when_it_is_looked_at() -> None:
    store = make()
    store.put(b"k", b"v", NOW + 100)
    store.advance(NOW + 99)
    assert store.get(b"k") == b"v"
    store.advance(NOW + 100)
    assert store.get(b"k") is None
    assert (store.expired, len(store), store.volatile) == (1, 0, 0)


def test_put_clears_the_deadline_and_replace_keeps_it() -> None:
    store = make()
    store.put(b"k", b"v", NOW + 100)
    store.replace(b"k", b"w")
    assert store.deadline(b"k") == NOW + 100
    store.put(b"k", b"x")
    assert store.deadline(b"k") == 0
    assert store.deadline(b"none") is None


def test_a_deadline_that_has_passed_deletes() -> None:
    store = make()
    store.put(b"k", b"v")
    assert store.set_deadline(b"k", NOW - 1)
    assert not store.contains(b"k")
    assert not store.set_deadline(b"k", NOW + 1)


def test_active_expiry_finds_every_expired_key_in_bounded_steps() -> None:
    store = make()
    for number in range(5000):
        store.put(b"%d" % number, b"v", NOW + 1 + number % 2 * 10**9)
    store.advance(NOW + 10)
    steps = 0
    while len(store) > 2500:
        ticks = iter([False] * 50)
        store.tend(lambda ticks=ticks: next(ticks, True))  # type: ignore[misc]
        steps += 1
        assert steps < 1000
    assert store.expired == 2500
    assert steps > 10


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "ttl", "del", "get", "exp", "adv", "flush"]), st.integers(0, 5), st.integers(0, 40)),
        max_size=80,
    )
)
def test_a_store_behaves_as_a_dictionary_with_deadlines(steps: list[tuple[str, int, int]]) -> None:
    store = make()
    model: dict[bytes, tuple[bytes, int]] = {}
    now = NOW
    for action, number, amount in steps:
        key, value = b"k%d" % number, b"v" * amount
        model = {k: v for k, v in model.items() if not v[1] or v[1] > now}
        if action == "put":
            store.put(key, value)
            model[key] = (value, 0)
        elif action == "ttl":
            store.put(key, value, now + amount + 1)
            model[key] = (value, now + amount + 1)
        elif action == "del":
            assert store.delete(key) == (model.pop(key, None) is not None)
        elif action == "exp":
            assert store.set_deadline(key, now + amount) == (key in model)
            if key in model:
                model[key] = (model[key][0], now + amount)
                if not amount:
                    del model[key]
        elif action == "adv":
            now += amount
            store.advance(now)
        elif action == "flush":
            store.flush()
            model.clear()
        else:
            assert store.get(key) == model.get(key, (None,))[0]
    model = {k: v for k, v in model.items() if not v[1] or v[1] > now}
    assert set(store.keys()) == set(model)
    store.tend(never)
    assert len(store) == len(model)


def test_a_scan_returns_every_key_that_stays_although_others_come_and_go() -> None:
    store = make()
    rng = random.Random(3)
    stay = {b"stay%d" % number for number in range(3000)}
    for key in stay:
        store.put(key, b"v")
    cursor, seen = 0, []
    while True:
        cursor, found = store.scan(cursor, 10)
        seen += found
        for _ in range(5):
            store.put(b"come%d" % rng.randrange(1000), b"v")
            store.delete(b"come%d" % rng.randrange(1000))
        if not cursor:
            break
    assert stay <= set(seen)
    assert len(seen) == len(set(seen))
    assert store.scan(1 << 63, 10) == (0, [])


def test_a_random_key_is_any_key() -> None:
    store = make()
    assert store.random_key() is None
    for number in range(10):
        store.put(b"%d" % number, b"v")
    assert {store.random_key() for _ in range(500)} == {b"%d" % number for number in range(10)}


def test_every_stamp_exceeds_all_before_it_even_when_the_clock_goes_back() -> None:
    store = make(replicating=True)
    stamps = []
    for now in (NOW, NOW + 5, NOW - 10_000, NOW + 5):
        store.advance(now)
        store.put(b"k", b"v")
        record = store.record(b"k")
        assert record is not None
        stamps.append(record.stamp)
    store.observe(stamps[-1] + 1000 * STAMP_STEP)
    store.put(b"k", b"v")
    record = store.record(b"k")
    assert record is not None
    stamps.append(record.stamp)
    assert stamps == sorted(set(stamps))
    assert record.stamp & (STAMP_STEP - 1) == 7


@pytest.mark.parametrize("order", list(itertools.permutations(range(5))))
def test_changes_from_elsewhere_give_the_same_record_in_any_order(order: tuple[int, ...]) -> None:
    base = NOW << 80

    def change(store: Store, number: int) -> None:
        stamp = base + (number + 1) * STAMP_STEP + number
        if number in (1, 3):
            store.apply_delete(b"k", stamp)
        else:
            store.apply_put(b"k", b"v%d" % number, 0, stamp)

    store = make(replicating=True)
    for number in order:
        change(store, number)
        change(store, number)
    assert store.get(b"k") == b"v4"


def test_the_later_stamp_wins_and_an_equal_one_changes_nothing() -> None:
    store = make(replicating=True)
    stamp = (NOW + 5) << 80
    assert store.apply_put(b"k", b"a", 0, stamp)
    assert not store.apply_put(b"k", b"b", 0, stamp)
    assert not store.apply_put(b"k", b"c", 0, stamp - 1)
    assert store.apply_delete(b"k", stamp + 1)
    assert not store.apply_put(b"k", b"d", 0, stamp + 1)
    assert store.tombstone(b"k") == stamp + 1
    store.put(b"k", b"e")
    assert store.tombstone(b"k") == 0


def test_an_expired_record_does_not_come_back_by_an_older_copy() -> None:
    store = make(replicating=True)
    store.put(b"k", b"new", NOW + 10)
    store.advance(NOW + 11)
    assert store.get(b"k") is None
    assert not store.apply_put(b"k", b"old", 0, (NOW - 5) << 80)


def test_a_change_of_deadline_needs_the_record_that_it_follows() -> None:
    store = make(replicating=True)
    stamp = (NOW + 1) << 80
    assert store.apply_deadline(b"k", NOW + 99, stamp, stamp - 1) is None
    store.apply_put(b"k", b"v", 0, stamp)
    assert store.apply_deadline(b"k", NOW + 99, stamp + 5, stamp - 1) is None
    assert store.apply_deadline(b"k", NOW + 99, stamp + 5, stamp) is True
    assert store.apply_deadline(b"k", NOW + 50, stamp + 3, stamp) is False
    assert store.deadline(b"k") == NOW + 99


def test_a_flush_leaves_a_floor_under_which_nothing_exists() -> None:
    store = make(replicating=True)
    store.put(b"old", b"v")
    old = store.record(b"old")
    assert old is not None
    store.flush()
    assert not store.apply_put(b"old", b"v", 0, old.stamp)
    other = make(replicating=True)
    other.apply_put(b"old", b"v", 0, old.stamp)
    other.apply_put(b"late", b"v", 0, store.floor + STAMP_STEP)
    other.apply_flush(store.floor)
    assert list(other.keys()) == [b"late"]


def test_the_journal_names_each_changed_key_once_and_what_a_deadline_followed() -> None:
    store = make(replicating=True)
    store.put(b"a", b"v")
    store.put(b"b", b"v")
    assert store.dirty == {b"a": 0, b"b": 0}
    assert store.dirty is not None
    store.dirty.clear()
    record = store.record(b"a")
    assert record is not None
    store.set_deadline(b"a", NOW + 50)
    store.set_deadline(b"a", NOW + 60)
    assert store.dirty == {b"a": record.stamp}
    store.put(b"a", b"w")
    store.apply_put(b"c", b"v", 0, (NOW + 9) << 80)
    assert store.dirty == {b"a": 0}


def test_tombstones_are_bounded_and_go_with_time() -> None:
    store = make(replicating=True, tombstones_max=10, tombstone_ttl_ms=1000)
    for number in range(50):
        store.put(b"%d" % number, b"v")
        store.delete(b"%d" % number)
    buried = [number for number in range(50) if store.tombstone(b"%d" % number)]
    assert buried == list(range(40, 50))
    store.advance(NOW + 5000)
    store.tend(never)
    assert not any(store.tombstone(b"%d" % number) for number in range(50))


@pytest.mark.parametrize("policy", ["lru", "lfu", "random", "ttl"])
def test_memory_stays_within_its_bound(policy: str) -> None:
    keyspace = Keyspace(origin=1, rng=random.Random(1), policy=POLICIES[policy])
    keyspace.advance(NOW)
    store = keyspace.by_index(0)
    assert store is not None
    keyspace.maxmemory = keyspace.used_bytes() + 2_000_000
    for number in range(20_000):
        assert keyspace.make_room(store)
        store.put(b"%d" % number, bytes(100), NOW + 10**6 + number)
    assert keyspace.used_bytes() < keyspace.maxmemory * 1.02
    assert store.evicted > 1000
    # No more goes than must: at most what one record and the growth of one table take.
    assert keyspace.used_bytes() > keyspace.maxmemory * 0.95
    assert len(store) > 2000


def test_without_a_policy_nothing_goes_and_there_is_no_room() -> None:
    keyspace = Keyspace(origin=1, rng=random.Random(1))
    store = keyspace.by_index(0)
    assert store is not None
    store.put(b"k", b"v")
    keyspace.maxmemory = 1
    assert not keyspace.make_room(store)
    assert len(store) == 1


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_keys_in_use_outlive_others(policy: str) -> None:
    store = make(policy)
    for number in range(2000):
        store.put(b"%d" % number, b"v")
    for round_ in range(30):
        store.advance(NOW + 1000 * (round_ + 1))
        for number in range(200):
            store.get(b"%d" % number)
    for _ in range(1000):
        assert store.evict_one()
    hot = sum(store.contains(b"%d" % number) for number in range(200))
    assert hot >= 190


def test_the_ttl_policy_takes_those_that_expire_soonest_and_no_others() -> None:
    store = make("ttl")
    store.put(b"forever", b"v")
    assert not store.evict_one()
    for number in range(500):
        store.put(b"%d" % number, b"v", NOW + 1000 + number)
    for _ in range(250):
        assert store.evict_one()
    assert sum(store.contains(b"%d" % number) for number in range(250)) < 80
    assert store.contains(b"forever")


def test_policies_have_our_names_and_those_of_redis() -> None:
    assert policy_named("allkeys-lru", POLICIES) is POLICIES["lru"]
    assert policy_named("lfu", POLICIES) is POLICIES["lfu"]
    with pytest.raises(ConfigurationError, match="known are"):
        policy_named("best", POLICIES)


MEASURE = """
import random, sys, psutil
sys.path.insert(0, {root!r})
from hypercache.store import Store
process = psutil.Process()
store = Store("s", origin=1 << 63, rng=random.Random(1))
store.advance(1_800_000_000_000)
before, counted = process.memory_info().rss, store.used_bytes()
for number in range({count}):
    store.put(b"%0{key}d" % number, bytes({value}), {deadline})
print((store.used_bytes() - counted) / (process.memory_info().rss - before), (process.memory_info().rss - before) / {count})
"""


@pytest.mark.parametrize(
    ("count", "key", "value", "deadline"),
    [(300_000, 16, 100, "0"), (20_000, 16, 10_000, "0"), (300_000, 8, 4, "0"), (200_000, 16, 100, "1_900_000_000_000 + number")],
)
def test_memory_is_accounted_within_ten_per_cent(count: int, key: int, value: int, deadline: str) -> None:
    from pathlib import Path

    script = MEASURE.format(root=str(Path(__file__).parents[2]), count=count, key=key, value=value, deadline=deadline)
    ratio, _ = map(float, subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())
    assert 0.9 < ratio < 1.1


def test_no_single_operation_takes_long_while_keys_are_written_evicted_and_expired() -> None:
    keyspace = Keyspace(origin=1, rng=random.Random(1), policy=POLICIES["lru"])
    store = keyspace.by_index(0)
    assert store is not None
    keyspace.maxmemory = 60_000_000
    worst = 0.0
    now = NOW
    for turn in range(3000):
        started = time.thread_time()
        keyspace.advance(now := now + 1)
        for number in range(100):
            keyspace.make_room(store)
            store.put(b"%d-%d" % (turn, number), bytes(100), now + 500 if number % 2 else 0)
        if not turn % 100:
            deadline = time.thread_time() + 0.005
            keyspace.tend(lambda deadline=deadline: time.thread_time() > deadline)  # type: ignore[misc]
        worst = max(worst, time.thread_time() - started)
    assert store.evicted
    assert store.expired
    assert worst < 0.020


def test_a_flush_takes_no_time_and_the_memory_comes_back_in_steps() -> None:
    store = make()
    for number in range(100_000):
        store.put(b"%d" % number, b"v")
    started = time.thread_time()
    store.flush()
    assert time.thread_time() - started < 0.02
    assert len(store) == 0
    calls = 0

    def now_and_then() -> bool:
        nonlocal calls
        calls += 1
        return calls % 10 == 0

    store.tend(now_and_then)
    assert calls == 10
    store.tend(never)
    assert calls == 10
