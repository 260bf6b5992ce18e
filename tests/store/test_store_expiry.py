"""Keys that expire: when they are looked at, and in the background."""

from __future__ import annotations

from tests.store.stores import NOW, after, make, make_keyspace, never, store_of


def test_a_key_expires_at_its_deadline_when_it_is_looked_at() -> None:
    store = make()
    store.put(b"k", b"v", NOW + 100)
    store.advance(NOW + 99)
    assert store.get(b"k") == b"v"
    store.advance(NOW + 100)
    assert store.get(b"k") is None
    assert (store.expired, len(store), store.volatile) == (1, 0, 0)
    assert (store.hits, store.misses) == (1, 1)


def test_an_expired_key_is_absent_to_every_operation() -> None:
    operations = {
        "get": None,
        "peek": None,
        "contains": False,
        "touch": False,
        "delete": False,
        "deadline": None,
        "idle_seconds": None,
        "memory_of": None,
        "record": None,
    }
    for name, absent in operations.items():
        store = make()
        store.put(b"k", b"v", NOW + 1)
        store.advance(NOW + 1)
        assert getattr(store, name)(b"k") == absent, name
        assert len(store) == 0, name
    store = make()
    store.put(b"k", b"v", NOW + 1)
    store.advance(NOW + 1)
    assert not store.set_deadline(b"k", NOW + 50)


def test_replace_of_an_expired_key_makes_one_without_a_deadline() -> None:
    store = make()
    store.put(b"k", b"v", NOW + 1)
    store.advance(NOW + 1)
    store.replace(b"k", b"w")
    assert store.deadline(b"k") == 0


def test_a_deadline_that_has_passed_deletes() -> None:
    store = make()
    store.put(b"k", b"v")
    assert store.set_deadline(b"k", NOW)
    assert not store.contains(b"k")
    assert not store.set_deadline(b"k", NOW + 1)


def test_active_expiry_finds_every_expired_key_in_bounded_steps() -> None:
    store = make()
    for number in range(5000):
        store.put(b"%d" % number, b"v", NOW + 1 + number % 2 * 10**9)
    store.advance(NOW + 10)
    steps = 0
    while len(store) > 2500:
        before = store.expired
        store.tend(after(50))
        assert store.expired - before < 1000
        steps += 1
        assert steps < 1000
    assert store.expired == 2500
    assert steps > 10


def test_active_expiry_asks_for_the_time_within_a_large_shard_as_well() -> None:
    store = make()
    keys = [key for key in (b"%d" % number for number in range(1_200_000)) if not hash(key) & 2047]
    for key in keys:
        store.put(key, b"v", NOW + 1)
    store.advance(NOW + 1)
    store.tend(after(1))
    assert 0 < store.expired < len(keys)
    store.tend(never)
    assert store.expired == len(keys)


def test_active_expiry_looks_at_nothing_while_nothing_is_due() -> None:
    store = make()
    for number in range(5000):
        store.put(b"%d" % number, b"v", NOW + 1000)
    calls = 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        return False

    store.advance(NOW + 999)
    store.tend(count)
    assert calls == 0
    store.advance(NOW + 1000)
    store.tend(count)
    assert len(store) == 0


def test_active_expiry_stops_where_few_keys_have_expired_and_gets_to_all_in_turn() -> None:
    store = make()
    for number in range(100_000):
        store.put(b"%d" % number, b"v", NOW + (1 if number % 20 == 0 else 10**9))
    store.advance(NOW + 1)
    store.tend(never)
    # One in twenty is not worth a whole round.
    assert 0 < store.expired < 1000
    rounds = 1
    while store.expired < 5000:
        store.tend(never)
        rounds += 1
        assert rounds < 50


def test_a_deadline_that_is_brought_forward_is_noticed() -> None:
    store = make()
    store.put(b"k", b"v", NOW + 1000)
    store.set_deadline(b"k", NOW + 10)
    store.advance(NOW + 10)
    store.tend(never)
    assert store.expired == 1
    store.put(b"k", b"v", NOW + 1000)
    store.put(b"k", b"v", NOW + 20)
    store.advance(NOW + 20)
    store.tend(never)
    assert store.expired == 2


def test_no_store_starves_while_another_has_much_to_expire() -> None:
    keyspace = make_keyspace()
    busy, other = store_of(keyspace, 0), store_of(keyspace, 1)
    for number in range(50_000):
        busy.put(b"%d" % number, b"v", NOW + 5)
    for number in range(10):
        other.put(b"%d" % number, b"v", NOW + 5)
    keyspace.advance(NOW + 5)
    for _ in range(20):
        keyspace.tend(after(2))
    assert len(busy)
    assert not len(other)


def test_the_average_time_to_live_is_that_of_the_keys_that_expire() -> None:
    store = make()
    store.put(b"forever", b"v")
    assert store.average_ttl_ms() == 0
    for number in range(200):
        store.put(b"%d" % number, b"v", NOW + 1000 + number)
    assert 1000 <= store.average_ttl_ms() < 1200
