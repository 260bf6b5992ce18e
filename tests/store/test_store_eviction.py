"""Which keys go when memory is full."""

from __future__ import annotations

import bisect
import itertools
import random

import pytest

from hypercache.errors import ConfigurationError
from hypercache.limits import EVICTION_STEPS_PER_MS_COUNT
from hypercache.store import Candidate, Store, policy_named
from hypercache.store.shards import SHARD_MASK, SHARDS
from tests.store.stores import NOW, POLICIES, after, make, make_keyspace, never, store_of

MIB = 1 << 20


@pytest.mark.parametrize("policy", ["lru", "lfu", "random", "ttl", "volatile-lru", "volatile-lfu", "volatile-random"])
def test_memory_stays_within_its_bound(policy: str) -> None:
    keyspace = make_keyspace(policy)
    store = store_of(keyspace, 0)
    keyspace.maxmemory = keyspace.used_bytes() + 2 * MIB
    for number in range(20_000):
        keyspace.advance(NOW + number // 100)
        assert keyspace.make_room(store)
        store.put(b"%d" % number, bytes(100), NOW + 10**6 + number)
    assert keyspace.used_bytes() < keyspace.maxmemory * 1.02
    assert store.evicted > 1000
    # No more goes than must: at most what one record and the growth of one table take.
    assert keyspace.used_bytes() > keyspace.maxmemory * 0.95
    assert len(store) > 2000


def test_a_store_has_a_bound_of_its_own() -> None:
    keyspace = make_keyspace("lru")
    bound, free = store_of(keyspace, 0), store_of(keyspace, 1)
    bound.maxmemory = bound.used_bytes() + MIB
    for number in range(10_000):
        keyspace.advance(NOW + number // 100)
        assert keyspace.make_room(bound)
        bound.put(b"%d" % number, bytes(100))
        assert keyspace.make_room(free)
        free.put(b"%d" % number, bytes(100))
    assert bound.used_bytes() < bound.maxmemory * 1.02
    assert len(free) == 10_000


def test_the_fullest_store_gives_first() -> None:
    keyspace = make_keyspace("lru")
    small, large = store_of(keyspace, 0), store_of(keyspace, 1)
    for number in range(5000):
        large.put(b"%d" % number, bytes(100))
        if number < 500:
            small.put(b"%d" % number, bytes(100))
    keyspace.maxmemory = keyspace.used_bytes() - 50_000
    assert keyspace.make_room(small)
    assert len(small) == 500
    assert large.evicted > 50


def test_without_a_policy_nothing_goes_and_there_is_no_room() -> None:
    keyspace = make_keyspace()
    store = store_of(keyspace, 0)
    store.put(b"k", b"v")
    keyspace.maxmemory = 1
    for _ in range(2 * EVICTION_STEPS_PER_MS_COUNT):
        assert not keyspace.make_room(store)
    assert len(store) == 1


def test_a_bound_that_is_lowered_evicts_little_by_little_while_writes_go_on_and_bring_in_no_more() -> None:
    keyspace = make_keyspace("lru")
    store = store_of(keyspace, 0)
    for number in range(20_000):
        store.put(b"%d" % number, bytes(100))
    full = keyspace.used_bytes()
    keyspace.maxmemory = full // 4
    assert keyspace.make_room(store)
    assert store.evicted == EVICTION_STEPS_PER_MS_COUNT
    least = keyspace.used_bytes()
    # Within the same millisecond no write, however large, makes it grow.
    for number in range(100):
        store.put(b"large%d" % number, bytes(50_000))
        assert keyspace.make_room(store)
        assert keyspace.used_bytes() <= least
    keyspace.advance(NOW + 1)
    before = store.evicted
    assert keyspace.make_room(store)
    assert store.evicted - before == EVICTION_STEPS_PER_MS_COUNT


def test_what_is_over_a_bound_is_evicted_in_the_background_too() -> None:
    keyspace = make_keyspace("lru")
    store = store_of(keyspace, 0)
    for number in range(5000):
        store.put(b"%d" % number, bytes(100))
    keyspace.maxmemory = keyspace.used_bytes() // 2
    keyspace.tend(after(100))
    assert 50 < store.evicted < 150
    keyspace.tend(never)
    assert keyspace.used_bytes() <= keyspace.maxmemory


def test_what_a_flush_left_goes_before_any_key_even_without_a_policy() -> None:
    keyspace = make_keyspace()
    store = store_of(keyspace, 0)
    for number in range(20_000):
        store.put(b"%d" % number, bytes(100))
    keyspace.maxmemory = keyspace.used_bytes() + 10_000
    store.flush()
    for number in range(20_000):
        keyspace.advance(NOW + number // 50)
        assert keyspace.make_room(store)
        store.put(b"%d" % number, bytes(100))
    assert len(store) == 20_000
    assert keyspace.used_bytes() <= keyspace.maxmemory + 1000


def test_tombstones_give_way_before_writes_are_refused() -> None:
    keyspace = make_keyspace()
    keyspace.start_journals(lambda store: None)
    store = store_of(keyspace, 0)
    keyspace.maxmemory = keyspace.used_bytes() + 2 * MIB
    for number in range(30_000):
        assert keyspace.make_room(store)
        store.put(b"%d" % number, b"v")
        store.delete(b"%d" % number)
    assert store.tombstone(b"29999")
    assert not store.tombstone(b"0")


def test_an_expired_key_goes_before_a_live_one() -> None:
    store = make("lru")
    for number in range(500):
        store.put(b"%d" % number, b"v", NOW + 5 if number % 2 else 0)
    store.advance(NOW + 5)
    for _ in range(100):
        assert store.evict_one()
    assert store.expired > 85


def test_an_eviction_leaves_no_tombstone_and_no_journal() -> None:
    store = make("lru", replicating=True)
    store.put(b"k", b"v")
    assert store.dirty is not None
    store.dirty.clear()
    assert store.evict_one()
    assert (len(store), store.tombstone(b"k"), store.dirty) == (0, 0, {})
    assert not store.evict_one()


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


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_keys_in_use_outlive_others_when_the_clock_went_back(policy: str) -> None:
    store = make(policy)
    for number in range(2000):
        store.put(b"%d" % number, b"v")
    for round_ in range(30):
        store.advance(NOW + 3_600_000 + 1000 * round_)
        for number in range(200):
            store.get(b"%d" % number)
    store.advance(NOW + 3_600_000 - 60_000)
    for _ in range(1000):
        assert store.evict_one()
    assert sum(store.contains(b"%d" % number) for number in range(200)) >= 190


def hit_ratio(policy: str, samples: int = 5) -> float:
    """Return the hits of a skewed stream of reads on a store a fifth as large as its keys."""
    rng = random.Random(5)
    weights = list(itertools.accumulate(1 / (rank + 1) ** 0.9 for rank in range(10_000)))
    store = make(policy, samples=samples)
    for step in range(40_000):
        if not step % 50:
            store.advance(NOW + step * 2)
        key = b"%d" % bisect.bisect(weights, rng.random() * weights[-1])
        if store.get(key) is None:
            if len(store) >= 2000:
                store.evict_one()
            store.put(key, b"v")
    return store.hits / 40_000


def test_lru_and_lfu_hit_more_often_than_random() -> None:
    chance = hit_ratio("random")
    assert hit_ratio("lru") > chance + 0.02
    assert hit_ratio("lfu") > chance + 0.02


def test_a_larger_sample_chooses_no_worse() -> None:
    assert hit_ratio("lru", 10) > hit_ratio("lru", 1) + 0.02


@pytest.mark.parametrize("policy", [name for name in POLICIES if name == "ttl" or name.startswith("volatile")])
def test_keys_without_a_deadline_never_go_under_policies_for_those_with_one(policy: str) -> None:
    store = make(policy)
    for number in range(200):
        store.put(b"forever%d" % number, b"v")
    assert not store.evict_one()
    for number in range(200):
        store.put(b"%d" % number, b"v", NOW + 1000 + number)
    # One that is a runner-up and then loses its deadline is safe.
    for number in range(100):
        assert store.evict_one()
        store.set_deadline(b"%d" % number, 0)
    while store.evict_one():
        pass
    assert store.volatile == 0
    assert all(store.contains(b"forever%d" % number) for number in range(200))


def test_the_ttl_policy_takes_those_that_expire_soonest() -> None:
    store = make("ttl")
    for number in range(500):
        store.put(b"%d" % number, b"v", NOW + 1000 + number)
    for _ in range(250):
        assert store.evict_one()
    assert sum(store.contains(b"%d" % number) for number in range(250)) < 80


def key_in_shard(shard: int) -> bytes:
    """Return a key whose record lies in a shard, whatever the hash seed is."""
    return next(key for key in map(b"%d".__mod__, itertools.count()) if hash(key) & SHARD_MASK == shard)


def test_random_eviction_spares_no_place_in_the_store() -> None:
    # As far apart as each other: a key behind a long empty stretch is sampled more often, which is not what this is about.
    keys = [key_in_shard(shard) for shard in range(0, SHARDS, SHARDS // 128)]
    gone = dict.fromkeys(keys, 0)
    for seed in range(200):
        store = make("random", seed=seed)
        for key in keys:
            store.put(key, b"v")
        for _ in range(len(keys) // 2):
            store.evict_one()
        for key in keys:
            gone[key] += not store.contains(key)
    assert min(gone.values()) > 60
    assert max(gone.values()) < 140


def test_a_sample_can_hold_any_key_of_a_large_shard() -> None:
    store = make("random")
    keys = [key for key in (b"%d" % number for number in range(100_000)) if not hash(key) & 2047]
    for key in keys:
        store.put(key, b"v")
    seen: set[bytes] = set()
    for _ in range(4000):
        seen.update(store._sample(5, volatile_only=False))
    assert seen == set(keys)


class LongestKey:
    """A policy from outside."""

    name = "longest-key"
    evicts = True
    volatile_only = False
    counts_uses = True

    def score(self, candidate: Candidate) -> float:
        assert candidate.frequency > 0
        return len(candidate.key)


def test_a_policy_from_outside_chooses_by_its_own_score() -> None:
    store = Store("s", origin=1, rng=random.Random(1), policy=LongestKey(), samples=64)
    store.advance(NOW)
    for number in range(60):
        store.put(b"k" * (number + 1), b"v")
    for _ in range(30):
        store.evict_one()
    assert sum(len(key) > 30 for key in list(store.keys())) == 0


def test_a_policy_that_counts_uses_starts_with_what_is_there_and_stops_with_another() -> None:
    store = make()
    for number in range(10_000):
        store.put(b"%d" % number, b"v")
    assert store.frequency(b"1") is None
    store.policy = POLICIES["lfu"]
    first = store.frequency(b"1")
    for _ in range(100):
        store.get(b"1")
    assert first is not None
    assert (store.frequency(b"1") or 0) > first
    store.policy = POLICIES["lru"]
    assert store.frequency(b"1") is None


def test_frequency_falls_a_minute_at_a_time() -> None:
    store = make("lfu")
    store.put(b"k", b"v")
    for _ in range(500):
        store.get(b"k")
    before = store.frequency(b"k") or 0
    store.advance(NOW + 3 * 60_000)
    assert store.frequency(b"k") == before - 3
    store.advance(NOW + 1000 * 60_000)
    assert store.frequency(b"k") == 0


def test_policies_have_our_names_and_those_of_redis() -> None:
    assert policy_named("noeviction", POLICIES) is POLICIES["none"]
    assert policy_named("allkeys-lru", POLICIES) is POLICIES["lru"]
    assert policy_named("allkeys-random", POLICIES) is POLICIES["random"]
    assert policy_named("allkeys-lfu", POLICIES) is policy_named("lfu", POLICIES) is POLICIES["lfu"]
    assert policy_named("volatile-ttl", POLICIES) is POLICIES["ttl"]
    assert policy_named("volatile-lru", POLICIES).volatile_only
    with pytest.raises(ConfigurationError, match="known are"):
        policy_named("best", POLICIES)
